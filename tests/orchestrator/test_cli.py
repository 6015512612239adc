"""The commands: exit codes, one-line errors, and a real small sweep from start to end."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from samref_sweep.cli.commands import main, trial_main
from samref_sweep.store.folder import FolderStore

SMALL = """
purpose: a real sweep in seconds
trial:
  model: {backbone: tiny, checkpoint: none, refiner_width: 16, refiner_blocks: 1}
  train: {data: shapes, samples: 4, steps: 2, warmup_steps: 1, batch_size: 2, max_clicks: 1}
  evaluate: {data: shapes, samples: 2, max_clicks: 3}
  profile: null
parameters:
  evaluate.theta: [1.05, 1.2]
resources: {train: {cpu: 1, gpu: 0}, embed: {cpu: 1, gpu: 0}, evaluate: {cpu: 1, gpu: 0}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a sweep file and a dataset of two images."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    for kind in ("images", "masks"):
        (tmp_path / "data/own" / kind).mkdir(parents=True)
    for name in "ab":
        write_sample(name)
    return tmp_path


def write_sample(name: str, mask_size: int = 32, value: int = 255) -> None:
    mask = np.zeros((mask_size, mask_size), np.uint8)
    mask[8:16, 8:16] = value
    cv2.imwrite(f"data/own/images/{name}.jpg", np.full((32, 32, 3), 90, np.uint8))
    cv2.imwrite(f"data/own/masks/{name}.png", mask)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a refused command says; it is one line, and nothing was written but empty folders."""
    assert main(["small.yaml", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not list(Path("results").glob("*/*"))
    assert not list(Path("runs").glob("stages/*"))
    return line


OWN = ("--set", "evaluate.data=folder:own", "--set", "evaluate.samples=null")


def test_a_setting_that_does_not_exist_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean threshold?" in refused(capsys, "--set", "evaluate.treshold=1")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("theta=1.2", "evaluate.theta or train.theta"),
        ("gamma=0.6", "train.gamma"),
        ("train.clicker=ritm", "evaluate.clicker"),
    ],
)
def test_a_setting_in_the_wrong_place_leads_to_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str, meant: str
) -> None:
    assert f"Did you mean {meant}?" in refused(capsys, "--set", key)
    name, _, value = key.partition("=")
    Path("small.yaml").write_text(f"parameters: {{{name}: [{value}]}}")
    assert f"Did you mean {meant}?" in refused(capsys)


def test_every_command_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    from samref.data import command
    from samref_dashboards import report

    for run in (main, trial_main, command.main, report.main):
        with pytest.raises(SystemExit) as ended:
            run(["--version"])
        assert ended.value.code == 0
        assert re.fullmatch(r"samref-\S+ \d+\.\d+\S*\n", capsys.readouterr().out)


def test_a_missing_dataset_is_refused_but_can_be_planned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "DAVIS" in refused(capsys, "--set", "evaluate.data=davis")
    shutil.rmtree("runs")
    assert main(["small.yaml", "--set", "evaluate.data=davis", "--plan"]) == 0
    assert "DAVIS" in capsys.readouterr().out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (lambda: Path("data/own/images/b.jpg").write_bytes(b"no image"), "b.jpg"),
        (lambda: write_sample("b", mask_size=31), "b.png"),
        (lambda: write_sample("b", value=0), "b.png"),
        (lambda: Path("data/own/masks/b.png").unlink(), "b"),
    ],
    ids=["undecodable", "mask of another size", "empty mask", "no mask"],
)
def test_broken_data_is_found_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: object, file: str
) -> None:
    damage()  # type: ignore[operator]
    assert file in refused(capsys, *OWN)


def test_data_that_does_not_fit_is_an_error_of_the_plan_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/own/masks/b.png").unlink()
    assert main(["small.yaml", *OWN, "--plan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data/own: 1 of ") or "/data/own: 1 of " in line
    assert not Path("runs").exists()


def test_fewer_samples_than_asked_for_are_all_of_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["small.yaml", *OWN[:2], "--set", "evaluate.samples=400", "--plan"]) == 0
    assert re.search(
        r"note: folder:own: 400 samples were asked for, and it has \d+: all are used", capsys.readouterr().out
    )


def test_training_on_what_is_evaluated_is_refused_with_the_cure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ("--set", "train.data=folder:own", "--set", "evaluate.data=folder:own")
    assert main(["small.yaml", *both, "--plan"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "give folder:own?split=0.8 to both, or folder:own?split=none" in line
    assert main(["small.yaml", *(f"{each}?split=0.5" if "=" in each else each for each in both), "--plan"]) == 0


def test_a_checkpoint_of_another_shape_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    torch.save({"image_encoder.pos_embed": torch.zeros(1)}, "other.pth")
    assert "other.pth" in refused(capsys, "--set", "model.checkpoint=other.pth")


def test_embeddings_beyond_the_budget_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "--set", "budget.embeddings_gb=1e-6")
    assert "more than budget.embeddings_gb, 1e-06; fewer samples" in line
    assert main(["small.yaml", "--set", "budget.embeddings_gb=1e-6", "--plan"]) == 0
    assert "(budget.embeddings_gb allows 1e-06 GB)" in capsys.readouterr().out


def test_a_store_that_cannot_be_written_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "small.yaml is no folder" in refused(capsys, "--store", "small.yaml/runs")


@pytest.mark.slow
def test_a_trial_of_its_json_is_run_once_and_what_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = {"backbone": "tiny", "checkpoint": "none", "refiner": "none"}
    trial = {"model": model, "evaluate": {"data": "shapes", "samples": 1, "max_clicks": 1}, "profile": None}
    Path("trial.json").write_text(json.dumps(trial))

    def made() -> dict[str, int]:
        assert trial_main(["trial.json", "--device", "cpu"]) == 0
        return {each.parent.name: each.stat().st_mtime_ns for each in Path("runs").glob("stages/*/summary.json")}

    first = made()
    assert sorted(name.partition("-")[0] for name in first) == ["embed", "evaluate"]
    assert made() == first

    Path("trial.json").write_text(json.dumps({**trial, "evaluate": {"data": "davis"}}))
    capsys.readouterr()
    assert trial_main(["trial.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data/DAVIS: no such folder" in line


@pytest.mark.slow
def test_a_trial_that_is_told_to_end_saves_a_checkpoint(folder: Path) -> None:
    code = "import sys; from samref_sweep.cli import trial_main; sys.exit(trial_main(sys.argv[1:]))"
    many = ("--set", "train.steps=100000", "--set", "evaluate.theta=1.1", "--device", "cpu")
    process = subprocess.Popen([sys.executable, "-c", code, "small.yaml", *many], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line.startswith("started train") for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130
    assert list(Path("runs").glob("scratch/train-*/step-*"))


def test_the_trials_of_a_sweep_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trial_main(["small.yaml"]) == 0
    said = capsys.readouterr()
    assert "2 trials fit; choose one with --trial ID" in said.out
    assert said.out.count("trial-") == 2
    assert "theta=1.05" in said.out
    assert said.err == ""
    assert trial_main(["small.yaml", "--trial", "x"]) == 2
    assert "error: small.yaml: no trial's id starts with x" in capsys.readouterr().err


def test_code_of_ones_own_that_does_not_fit_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("returns_none.py").write_text("def build():\n    return None\n")
    assert "returns_none.py:1: it returns a NoneType; return a" in refused(
        capsys, "--set", "model.backbone=./returns_none.py:build"
    )


def test_a_trial_alone_imports_neither_ray_nor_mlflow(folder: Path) -> None:
    code = (
        "import sys; from samref_sweep.cli import trial_main; trial_main(['small.yaml', '--trial', 'x']);"
        "assert not {'ray', 'mlflow', 'pyarrow', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


Sweep = Callable[..., str]


@pytest.fixture
def sweep(
    folder: Path, ray_head: None, new_database: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> Sweep:
    """Runs the small sweep, with `parameters` in place of its own, to a good end; gives what the command said."""
    new_database(folder / "runs" / "mlflow.db")

    def run(*arguments: str, parameters: str = "") -> str:
        if parameters:
            text = SMALL.replace("parameters:\n  evaluate.theta: [1.05, 1.2]\n", parameters)
            Path("small.yaml").write_text(text)
        code = main(["small.yaml", *arguments])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return run


def rows(table: str) -> list[dict[str, object]]:
    run = {"device_seconds", "started", "seconds_per_click"}
    read = pq.read_table(f"results/small/{table}.parquet").to_pylist()
    return [{key: value for key, value in row.items() if key not in run} for row in read]


@pytest.mark.slow
def test_a_sweep_equals_one_trial_after_the_other_and_grows(folder: Path, sweep: Sweep) -> None:
    assert "page:   results/small/dashboard.html" in sweep()
    page = Path("results/small/dashboard.html")
    drawn = page.stat().st_mtime_ns
    sweep()
    assert page.stat().st_mtime_ns == drawn  # nothing was done, and nothing is another
    store = FolderStore(Path("runs"))
    stage = next(name for name in store.done() if name.startswith("train"))
    store.codes.note(stage, {**(store.summary(stage).code or {}), "losses.py": "other"})
    sentence = "1 stage was made by other code (losses.py changed since)"
    assert sweep().count(sentence) == 2  # before it runs, and at its end
    assert sentence in page.read_text()
    after = list(Path("runs/stages").iterdir())
    assert [row["status"] for row in rows("trials")] == ["done", "done"]
    clicks = rows("clicks")
    assert len(clicks) == 2 * 2 * 3

    for row in rows("trials"):
        assert trial_main(["small.yaml", "--trial", str(row["trial"]), "--out", "alone"]) == 0
        with (
            np.load(f"alone/stages/{row['stage_evaluate']}/clicks.npz") as alone,
            np.load(f"runs/stages/{row['stage_evaluate']}/clicks.npz") as together,
        ):
            assert all(np.array_equal(alone[name], together[name], equal_nan=True) for name in together.files)

    # One more θ is one evaluation; one that was damaged meanwhile, which only the tables read, is made anew.
    with Path(f"runs/stages/{rows('trials')[0]['stage_evaluate']}/clicks.npz").open("r+b") as file:
        file.write(b"damaged")
    assert "3 evaluations: 2 done, 1 to do" in sweep("--jobs", "1", "--set", "evaluate.theta=[1.05, 1.2, 1.5]")
    assert [row["status"] for row in rows("trials")] == ["done"] * 3
    assert len(rows("clicks")) == 3 * 2 * 3
    assert len(list(Path("runs/stages").iterdir())) == len(after) + 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_a_request_that_no_node_can_serve_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(SMALL.replace("train: {cpu: 1, gpu: 0}", "train: {cpu: 1000, gpu: 0}"))
    assert "resources.train asks for 1000 CPU and 0 GPU, which no node has" in refused(capsys)


def test_a_plan_refuses_what_this_machine_cannot_serve(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["small.yaml", "--plan", "--set", "resources.train.cpu=1000"]
    assert main(asked) == 2
    said = capsys.readouterr()
    assert "2 evaluations" in said.out
    assert said.err.startswith("error: resources.train asks for 1000 CPU and 0 GPU, which no node has")
    assert main([*asked, "--address", "elsewhere:6379"]) == 0


@pytest.mark.slow
def test_a_real_search_suggests_what_it_can_and_goes_on(folder: Path, sweep: Sweep) -> None:
    search = "method: optuna\nmetric: miou_at_3\ntrials: 3\nparameters: {evaluate.theta: {min: 1, max: 2}}\n"
    said = sweep("--jobs", "1", parameters=search)
    assert "small: 0 trials (3 optuna of theta 1…2), 3 more to suggest: maximize miou_at_3" in said
    assert "3-mIoU" in said
    first = rows("trials")
    assert len({row["evaluate.theta"] for row in first}) == 3
    assert {row["status"] for row in first} == {"done"}
    assert len(list(Path("runs/stages").glob("train-*"))) == 1

    said = sweep("--jobs", "1", parameters=search.replace("trials: 3", "trials: 4"))
    assert "1 more to suggest" in said
    assert [row["trial"] for row in rows("trials")][:3] == [row["trial"] for row in first]
    assert len(rows("trials")) == 4
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("samref-sweep").experiment_id])
    logged = [run.data.tags["samref.trial"] for run in runs if "samref.trial" in run.data.tags]
    assert sorted(logged) == sorted(str(row["trial"]) for row in rows("trials"))
    assert trial_main(["small.yaml", "--trial", str(first[0]["trial"])]) == 0


@pytest.mark.slow
def test_a_real_training_that_falls_behind_is_stopped_and_goes_on_without_the_scheduler(sweep: Sweep) -> None:
    rates = "{train.learning_rate: [1e-3, 1e-6], train.steps: [12]}"
    asha = f"scheduler: {{name: asha, grace_steps: 4, reduction: 3}}\nparameters: {rates}\n"
    said = sweep("--jobs", "1", parameters=asha)
    assert "stopped train-" in said
    by_rate = {row["train.learning_rate"]: row for row in rows("trials")}
    statuses = [by_rate[rate]["status"] for rate in (1e-3, 1e-6)]
    assert sorted(map(str, statuses)) == ["done", "stopped"]
    (stopped,) = [row for row in by_rate.values() if row["status"] == "stopped"]
    assert str(stopped["reason"]).startswith("train: stopped by asha at step 4: its loss, ")
    kept = list(Path(f"runs/scratch/{stopped['stage_train']}").iterdir())
    assert kept, "a stopped training keeps its checkpoint"

    assert "1 to do" not in sweep("--jobs", "1", parameters=asha)
    assert [row["status"] for row in rows("trials")] == statuses
    sweep("--jobs", "1", "--set", "scheduler=null", parameters=asha)
    assert [row["status"] for row in rows("trials")] == ["done", "done"]
