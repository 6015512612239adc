"""The protocol of an evaluation: its keys, and what its short name tells apart."""

from samref.config import EvaluateConfig, ModelConfig
from samref.protocol import MATTERS, MEANINGS, protocol, short_hash


def made(model=None, **evaluate):
    return protocol(ModelConfig(**(model or {})), EvaluateConfig(**evaluate), contents="abc", objects=345)


def test_its_keys_are_those_that_are_explained():
    assert list(made()) == list(MEANINGS)
    assert "objects" not in protocol(ModelConfig(), EvaluateConfig(), contents=None, objects=None)


def test_what_changes_numbers_changes_the_short_name_and_nothing_else_does():
    same = short_hash(made())
    assert short_hash(made(theta=1.3, precision="bf16", stop_at=0.95)) == same
    assert short_hash(made({"backbone": "sam_vit_b", "precision": "tf32", "refiner": "none"})) == same
    others = [
        made(clicker="interformer"),
        made(threshold=0.6),
        made(resize="pad"),
        made(max_clicks=10),
        made(data="grabcut"),
        made({"multimask": "always"}),
        made({"backbone": "segnext_vit_b_sax2"}),
        made() | {"contents": "abd"},
        made() | {"objects": 20},
    ]
    assert len({same, *map(short_hash, others)}) == 1 + len(others)


def test_segnexts_threshold_is_its_backbones():
    import math

    from samref.backbones.dense import PROBABILITY

    assert made({"backbone": "segnext_vit_b_sax1"})["threshold"] == PROBABILITY
    assert made({"backbone": "nets:build"})["threshold"] == "its own"
    assert made()["threshold"] == 1 / (1 + math.exp(0.0))


def test_all_that_matters_is_explained():
    assert set(MATTERS) < set(MEANINGS)
