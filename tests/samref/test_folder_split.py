"""`folder:NAME?split=0.8`: the split of a person's own folder, and images that are trained on and evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from samref.config import Runtime, TrialConfig
from samref.contents import Contents
from samref.data import DataError, Dataset, Split, open_dataset
from samref.data.command import main
from samref.folder_name import FolderName, leak, parse
from samref.trial import build


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the folder `own`: ten images, two objects each."""
    random = np.random.default_rng(0)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 8:20] = 255
    for kind in ("images", "masks"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for number in range(10):
        pixels = random.integers(0, 256, (20, 30, 3), np.uint8)
        assert cv2.imwrite(str(tmp_path / "own" / "images" / f"{number}.png"), pixels)
        for item in (1, 2):
            assert cv2.imwrite(str(tmp_path / "own" / "masks" / f"{number}#{item}.png"), mask)
    return tmp_path


def own(root: Path, options: str, split: Split, **more: Any) -> Dataset:
    return open_dataset(f"folder:own{options}", split=split, data_root=root, **more)


def images(dataset: Dataset) -> set[str]:
    return {sample.image_key for sample in dataset.samples}


def test_four_fifths_and_the_rest_by_image(root: Path) -> None:
    train, val = own(root, "?split=0.8", "train"), own(root, "?split=0.8", "val")
    assert (len(images(train)), len(images(val))) == (8, 2)
    assert (len(train.samples), len(val.samples)) == (16, 4)
    assert images(train) | images(val) == images(own(root, "", "val"))
    assert not images(train) & images(val)
    assert not train.image_digests() & val.image_digests()
    assert [sample.key for sample in val.samples] == sorted(sample.key for sample in val.samples)


def test_the_split_is_in_the_fingerprint_and_no_split_changes_nothing(root: Path) -> None:
    fingerprints = {
        own(root, options, split).fingerprint() for options in ("", "?split=none") for split in ("train", "val")
    }
    assert len(fingerprints) == 1
    for options in ("?split=0.8", "?split=0.8&seed=1", "?split=0.5"):
        fingerprints |= {own(root, options, "train").fingerprint(), own(root, options, "val").fingerprint()}
    assert len(fingerprints) == 7
    assert own(root, "?split=0.8&seed=0", "val").fingerprint() == own(root, "?split=0.80", "val").fingerprint()


def test_one_image_more_moves_at_most_one_from_its_side(root: Path) -> None:
    before = images(own(root, "?split=0.8", "val"))
    for kind, name in (("images", "new.png"), ("masks", "new.png")):
        source = root / "own" / kind / ("3.png" if kind == "images" else "3#1.png")
        (root / "own" / kind / name).write_bytes(source.read_bytes())
    assert len(before - images(own(root, "?split=0.8", "val"))) <= 1


def test_each_side_has_an_image_or_it_is_refused(root: Path) -> None:
    assert len(images(own(root, "?split=0.99", "val"))) == 1
    assert len(images(own(root, "?split=0.01", "train"))) == 1
    for kind in ("images", "masks"):
        for path in (root / "own" / kind).iterdir():
            if not path.name.startswith("4"):
                path.unlink()
    with pytest.raises(DataError, match="folder:own: has 1 image, which cannot be split"):
        own(root, "?split=0.8", "val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?split=1", "split is '1'; write the training's share"),
        ("?split=80%", "split is '80%'"),
        ("?split=nan", "split is 'nan'"),
        ("?seed=-1", "seed is '-1'"),
        ("?splitt=0.8", "is no rule for masks, or one given twice"),
        ("?split=0.8&seed", "'seed' is no option; write own"),
        ("?split=0.8&split=0.7", "'split=0.7' is no option"),
        ("?split=0.8&", "'' is no option"),
    ],
)
def test_options_that_cannot_be_are_one_line(root: Path, options: str, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("?", r"\?")) as caught:
        own(root, options, "train")
    assert "\n" not in str(caught.value)


def test_verify_reads_both_sides(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "folder:own?split=0.8", "--data-root", str(root)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "folder:own?split=0.8 train: 16 samples of 8 images; all read",
        "folder:own?split=0.8 val: 4 samples of 2 images; all read",
    ]


@pytest.mark.parametrize(
    ("trained", "evaluated", "leaks"),
    [
        ("folder:a", "folder:a", True),
        ("folder:a", "folder:a/", True),
        ("folder:a", "folder:a?split=0.8", True),
        ("folder:a?split=0.8", "folder:a", True),
        ("folder:a?split=0.8", "folder:a?split=0.8&seed=1", True),
        ("folder:a?split=0.8", "folder:a?split=0.7", True),
        ("folder:a?split=0.8", "folder:a?split=0.80&seed=0", False),
        ("folder:a?split=none", "folder:a?split=none", False),
        ("folder:a", "folder:a?split=none", False),
        ("folder:a", "folder:b", False),
        ("folder:a", "davis", False),
        ("davis", "davis", False),
    ],
)
def test_which_names_leak(trained: str, evaluated: str, leaks: bool) -> None:
    assert leak(trained, evaluated) is leaks


def test_a_name_without_options_is_a_folder() -> None:
    for name in ("/data/a=b&c", "what?", "what?now"):
        assert parse(name) == FolderName(name)


def config(train: str, evaluate: str, **more: Any) -> TrialConfig:
    training = {"data": train, "steps": 2, "warmup_steps": 1, **more}
    model = {"backbone": "tiny"}
    return TrialConfig.model_validate(
        {"model": model, "train": training, "evaluate": {"data": evaluate, "samples": 400}, "profile": None}
    )


def test_a_trial_that_evaluates_what_it_trains_on_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"would be trained on; give folder:a\?split=0.8 to both, or folder:a\?split"
    ):
        config("folder:a", "folder:a")
    with pytest.raises(ValidationError, match="would be trained on"):
        config("shapes", "folder:a", init={"data": "folder:a", "steps": 1, "warmup_steps": 0})
    config("folder:a", "folder:a", steps=0)
    config("folder:a?split=0.8", "folder:a?split=0.8")


def test_images_of_both_sides_and_fewer_samples_are_said(root: Path) -> None:
    contents = Contents(Runtime(data_root=root), None)
    split = config("folder:own?split=0.8", "folder:own?split=0.8")
    build(split, contents)
    assert contents.warnings([split]) == (
        "folder:own?split=0.8: 400 samples were asked for, and it has 4: all are used",
    )
    (root / "copy").symlink_to(root / "own")
    other = config("folder:copy", "folder:own?split=0.8")
    build(other, contents)
    assert contents.warnings([other])[-1] == (
        "2 of the 2 images of evaluate.data folder:own?split=0.8 are also in train.data folder:copy: what is evaluated "
        "was trained on"
    )


def test_at_most_so_many_samples_are_the_same_trial_as_all(root: Path) -> None:
    contents = Contents(Runtime(data_root=root), None)
    some, every = (contents.data("folder:own", "val", samples) for samples in (400, None))
    assert some == every
    assert not contents.missing


def test_a_folder_that_is_no_dataset_is_an_error_and_one_that_is_not_here_a_note(root: Path) -> None:
    contents = Contents(Runtime(data_root=root), None)
    assert contents.data("folder:elsewhere", "val", None).startswith("missing:")
    (root / "own" / "masks" / "3#1.png").rename(root / "own" / "masks" / "x.png")
    with pytest.raises(DataError, match="1 of 20 masks without an image"):
        contents.data("folder:own", "val", None)
