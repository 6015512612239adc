"""samref.refiner.resample against torch's own resizing of one map at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samref.refiner import lfr
from samref.refiner.resample import Frames, Images, crop, paste, upscale

SIZES = [(480, 854), (37, 21), (300, 64), (64, 64)]


def boxes(rng):
    """One in each frame, from a few pixels to all of it."""
    found = []
    for height, width in SIZES:
        left, top = int(rng.integers(0, width - 8)), int(rng.integers(0, height - 8))
        found.append((left, top, int(rng.integers(left + 8, width + 1)), int(rng.integers(top + 8, height + 1))))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_crops_are_those_of_interpolate(seed):
    rng = np.random.default_rng(seed)
    images = [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in SIZES]
    windows = boxes(rng) if seed else [(0, 0, width, height) for height, width in SIZES]
    found = crop(Images.stack(images).pixels_B3hw, torch.tensor(windows).float(), 96)
    for own, image, (left, top, right, bottom) in zip(found, images, windows, strict=True):
        part = image[None, :, top:bottom, left:right].float()
        expected = F.interpolate(part, (96, 96), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(own, expected, atol=2e-3, rtol=0)  # of 255


@pytest.mark.parametrize("seed", range(4))
def test_pastes_are_those_of_one_at_a_time(seed):
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(len(SIZES), 64, 64, generator=generator)
    change = torch.randn(len(SIZES), 48, 48, generator=generator)
    frames, windows = Frames.of(SIZES, 64, torch.device("cpu")), boxes(rng)
    upscaled = upscale(logits, frames.down_BHM, frames.across_BWM)
    pasted, inside = paste(upscaled, change, torch.tensor(windows).float())
    for i, (height, width) in enumerate(SIZES):
        whole = F.interpolate(logits[i][None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(upscaled[i, :height, :width], whole, atol=1e-4, rtol=0)
        expected = lfr.paste(None, whole, change[i], windows[i])
        torch.testing.assert_close(pasted[i, :height, :width], expected, atol=1e-4, rtol=0)
        left, top, right, bottom = windows[i]
        assert inside[i].sum() == inside[i, top:bottom, left:right].sum() == (right - left) * (bottom - top)


def test_masks_are_sampled_at_the_cells_centres():
    frames = Frames.of(SIZES, 64, torch.device("cpu"))
    masks = torch.rand(len(SIZES), *frames.largest, generator=torch.Generator().manual_seed(0)) < 0.5
    found = frames.on_grid(masks, 16)
    for own, mask, (height, width) in zip(found, masks, SIZES, strict=True):
        y, x = (((np.arange(16) + 0.5) * (side / 16)).astype(int) for side in (height, width))
        assert torch.equal(own, mask[y[:, None], x])
