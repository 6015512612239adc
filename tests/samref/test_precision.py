"""Named precisions: what they set, whom they reach, and that ids of the ones before did not change."""

import dataclasses

import numpy as np
import pytest
import torch

from samref.config import EvaluateConfig
from samref.precision import autocast, products


@pytest.mark.parametrize(("precision", "rounded"), [("fp32", False), ("tf32", True), ("bf16", True)])
def test_cuda_rounds_the_factors_of_convolutions_and_products_alike(precision, rounded):
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [each.allow_tf32 for each in flags]
    with products(precision):
        assert [each.allow_tf32 for each in flags] == [rounded, rounded]
    assert [each.allow_tf32 for each in flags] == before
    with autocast("cpu", precision):
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")


def test_an_evaluations_precision_is_in_its_id_and_in_no_other(runner):
    plain, half = (runner.build(evaluate={"precision": precision}) for precision in ("fp32", "bf16"))
    assert plain.id == runner.build().id != half.id
    differing = {one.kind for one, other in zip(plain.stages, half.stages, strict=True) if one.id != other.id}
    assert differing == {"evaluate"}


@pytest.mark.slow
def test_clicks_in_bf16_are_near_those_in_fp32(runner):
    """The decoder really runs in bf16, and what it finds is about as good."""
    from segment_anything.modeling.mask_decoder import MLP

    seen, ious = set(), {}

    def note(module, arguments, output):
        if isinstance(module, MLP):  # the last of the decoder, before its logits
            seen.add((precision, output.dtype))

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        for precision in ("fp32", "bf16"):
            (out,) = runner.run_stages([prepared(runner, precision)], root=runner.root / precision)
            ious[precision] = np.load(out / "clicks.npz")["iou"]
    finally:
        handle.remove()
    assert seen == {("fp32", torch.float32), ("bf16", torch.bfloat16)}
    assert not np.array_equal(ious["fp32"], ious["bf16"])
    assert ious["bf16"].mean() == pytest.approx(ious["fp32"].mean(), abs=0.1)


def prepared(runner, precision):
    """An evaluation whose needs are there."""
    planned = runner.build(evaluate={"precision": precision})
    runner.run(dataclasses.replace(planned, stages=[each for each in planned.stages if each.kind != "evaluate"]))
    return planned.stage("evaluate")


def test_the_default_is_what_it_was():
    assert EvaluateConfig().precision == "fp32"
