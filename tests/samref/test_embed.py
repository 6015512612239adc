"""The embed stage: what it reads and writes, whatever the number of threads."""

from functools import partial

import numpy as np
import pytest
import torch
from embedded import embedded

from samref import embed
from samref.backbones.backbone import resize_image
from samref.data import open_dataset
from samref.data.sample import DataError
from samref.embeddings import EmbeddingError, EmbeddingWriter

SAMPLES = 21


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset("shapes", split="val", data_root=tmp_path_factory.mktemp("none"), samples=SAMPLES)


@pytest.mark.parametrize("resize", ["pad", "stretch"])
@pytest.mark.parametrize("threads", [1, 4])
def test_batches_come_in_order_with_the_pixels_of_a_plain_resize(dataset, threads, resize):
    keys = [sample.image_key for sample in dataset.samples]
    before = torch.get_num_threads()
    parts = (keys[:8], keys[8:16], keys[16:])
    batches = list(embed._read(dataset, parts, partial(resize_image, size=96, resize=resize), threads, pinned=False))
    torch.set_num_threads(before)
    assert [len(batch) for batch in batches] == [8, 8, 5]
    for key, found in zip(keys, torch.cat(batches), strict=True):
        image_3HW = torch.from_numpy(np.ascontiguousarray(dataset.image(key).transpose(2, 0, 1)))
        assert torch.equal(found, resize_image(image_3HW, 96, resize))


def test_a_broken_image_ends_the_reading_in_its_turn(dataset):
    class Broken:
        def image(self, key):
            if key == "broken":
                raise DataError("broken: cannot be read")
            return dataset.image(key)

    keys = [sample.image_key for sample in dataset.samples[:8]] + ["broken", dataset.samples[9].image_key]
    batches = embed._read(Broken(), [keys[:8], keys[8:]], partial(resize_image, size=96, resize="pad"), 4, pinned=False)
    assert len(next(batches)) == 8
    with pytest.raises(DataError, match="broken: cannot be read"):
        next(batches)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_features_are_received_for_several_images_at_once(tmp_path, precision):
    features = {"high_res_0": torch.randn(4, 1, 8, 8), "embedding": torch.randn(4, 4, 2, 2)}
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    read = embedded(tmp_path, ["a", "b", "c", "ü"], features, precision).read(["b", "ü", "a"], "cpu")
    for name, value in features.items():
        assert torch.equal(read[name], value[[1, 3, 0]].to(dtype).float())


def test_what_is_stored_is_what_the_device_is_still_computing(tmp_path, device):
    value = torch.randn(8, 256, 64, 64, generator=torch.manual_seed(0)).to(device)
    # In the order in which SAM's encoder gives it, behind work that a GPU is busy with when the host goes on.
    side = 4096 if device != "cpu" else 64
    factor = torch.full((side, side), 1 / side, device=device)
    for _ in range(50):
        factor = factor @ factor
    late = (value * (factor[0, 0] * side)).contiguous(memory_format=torch.channels_last)
    read = embedded(tmp_path, list("abcdefgh"), {"embedding": late}, "fp32").read(list("abcdefgh"), "cpu")
    torch.testing.assert_close(read["embedding"], value.cpu())


@pytest.mark.parametrize(("precision", "value"), [("fp32", float("nan")), ("fp16", 1e5)])
def test_features_that_are_no_numbers_as_they_are_stored_are_refused_by_name(tmp_path, precision, value):
    features = torch.ones(3, 4, 2, 2)
    features[1, 2, 0, 1] = value
    with pytest.raises(EmbeddingError, match=f"embedding of b .*{precision}.*model.embedding_precision"):
        embedded(tmp_path, ["a", "b", "c"], {"embedding": features}, precision)


def test_a_full_disk_is_an_error_before_anything_is_written_through_memory(small_disk):
    with pytest.raises(OSError, match="No space left on device"):  # and not a SIGBUS later
        EmbeddingWriter(small_disk, [str(i) for i in range(40)], {"embedding": (64, 64)}, "fp32")
