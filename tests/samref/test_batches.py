"""Training batches: their order, parts, augmentation and padding, read ahead in threads."""

from pathlib import Path

import numpy as np
import torch
from embedded import embedded

from samref.batches import Batches, resize_truth
from samref.data import open_dataset


def batches_of(**changes):
    dataset = open_dataset("shapes", split="train", data_root=Path(), samples=7)
    settings = {"size": 64, "resize": "pad", "batch_size": 3, "seed": 0, "augment": False, **changes}
    return Batches(dataset, **settings)


def test_every_epoch_sees_every_sample_once():
    order = [index for step in range(7) for index in batches_of().indices(step)]
    assert sorted(order[:7]) == sorted(order[7:14]) == sorted(order[14:]) == list(range(7))
    assert order[:7] != order[7:14]


def test_reading_ahead_gives_the_batches_of_their_steps(tmp_path):
    """In one thread and in several, with the features of the images."""
    images = open_dataset("shapes", split="train", data_root=Path(), samples=7).samples
    features = {"embedding": torch.arange(7.0)[:, None, None, None].expand(7, 2, 4, 4) / 3}
    embeddings = embedded(tmp_path, [sample.image_key for sample in images], features, "bf16")
    for threads in (1, 4):
        ahead = list(batches_of(embeddings=embeddings, threads=threads).iterate(2, 6))
        assert len(ahead) == 4
        for step, batch in enumerate(ahead, start=2):
            alone = batches_of().read(step)
            assert batch.samples == alone.samples
            assert torch.equal(batch.images_B3SS, alone.images_B3SS)
            assert (batch.truth_BSS == alone.truth_BSS).all()
            assert batch.centers == alone.centers
            features = embeddings.read([sample.image_key for sample in batch.samples], "cpu")
            assert torch.equal(batch.features["embedding"].float(), features["embedding"])


def test_augmentation_is_drawn_from_seed_and_step():
    first, again = (batches_of(augment=True).read(3) for _ in range(2))
    assert torch.equal(first.images_B3SS, again.images_B3SS)
    assert not torch.equal(first.images_B3SS, batches_of().read(3).images_B3SS)
    assert all((truth == 1).any() for truth in first.truth_BSS)


def test_shares_and_parts_are_the_batch():
    whole = batches_of(batch_size=5, augment=True).read(2)
    for cut in (
        whole.split(2),
        whole.split(9),
        [batches_of(batch_size=5, augment=True, positions=p).read(2) for p in (range(2), range(2, 5))],
    ):
        assert [position for part in cut for position in part.positions] == list(range(5))
        assert tuple(sample for part in cut for sample in part.samples) == whole.samples
        assert torch.equal(torch.cat([part.images_B3SS for part in cut]), whole.images_B3SS)
        assert (np.concatenate([part.truth_BSS for part in cut]) == whole.truth_BSS).all()
    assert [len(part.samples) for part in whole.split(2)] == [2, 3]
    assert len(whole.split(9)) == 5


def test_padding_is_ignored_and_no_object_vanishes():
    truth = np.zeros((100, 400), np.int8)
    truth[51, 203] = 1
    padded = resize_truth(truth, 64, "pad")
    assert (padded[16:] == -1).all()
    assert (padded == 1).sum() == 1
    assert abs(np.argwhere(padded == 1)[0] - [8, 32]).max() <= 1
    assert (resize_truth(truth, 64, "stretch") >= 0).all()
