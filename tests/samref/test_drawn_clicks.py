"""samref.drawn_clicks: what is drawn, by chance and by slice, against distances taken pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samref.clicks import Click, errors, next_click
from samref.drawn_clicks import draw

SEEDS = st.integers(0, 2**32 - 1)


class Share:
    """A generator that draws this share of the way."""

    def __init__(self, share):
        self.share = share

    def random(self):
        return self.share


def scene(seed, side=12):
    rng = np.random.default_rng(seed)
    truth = np.zeros((side, side), np.int8)
    y, x = rng.integers(0, side - 4, 2)
    truth[y : y + rng.integers(2, 8), x : x + rng.integers(2, 8)] = 1
    truth[rng.random(truth.shape) < 0.03] = -1
    truth[y, x] = 1
    mask = np.roll(truth == 1, rng.integers(-2, 3, 2), (0, 1)) & (rng.random(truth.shape) < 0.8)
    clicks = [Click(int(x), int(y), True)] if rng.random() < 0.5 else []
    return truth, mask, clicks


def chances_of(truth, mask, clicks, positive):
    """Pixel of the error → its depth, by looking at every pair of pixels; clicked ones have none."""
    error = (truth == 1) & ~mask if positive else (truth == 0) & mask
    right = np.argwhere(~np.pad(error, 1)) - 1
    depths = {}
    for y, x in np.argwhere(error):
        if not any((click.x, click.y) == (x, y) for click in clicks):
            depths[int(x), int(y)] = float(np.sqrt(np.square(right - (y, x)).sum(1).min()))
    return depths


@settings(max_examples=60)
@given(SEEDS, st.floats(0, 0.999), st.sampled_from(["uniform", "distance"]))
def test_each_pixel_of_the_larger_error_has_its_share_of_the_chances(seed, share, clicker):
    truth, mask, clicks = scene(seed)
    expected = next_click(truth, mask, clicks)
    click = draw(errors(truth, mask), clicks, clicker, Share(share))
    assert (click is None) == (expected is None)
    if click is None:
        return
    assert click.positive == expected.positive
    depths = chances_of(truth, mask, clicks, click.positive)
    total = len(depths) if clicker == "uniform" else sum(depths.values())
    own = 1 if clicker == "uniform" else depths[click.x, click.y]
    # Of what comes before it in the order, all of smaller chance and some of the same.
    least = sum(depth for depth in depths.values() if depth < own - 1e-9) if clicker == "distance" else 0
    most = sum(depth for depth in depths.values() if depth < own + 1e-9) if clicker == "distance" else total
    assert least - 1e-6 <= share * total <= most + 1e-6


@given(SEEDS, st.integers(0, 9))
def test_a_slice_draws_inside_it_alone(seed, tenth):
    """The deepest pixels are those of the last tenth."""
    truth, mask, clicks = scene(seed)
    wrong, rng = errors(truth, mask), np.random.default_rng(seed)
    low, high = tenth / 10, (tenth + 1) / 10
    click = draw(wrong, clicks, "distance", rng, mass=(low, high))
    if click is None:
        return
    ends = [draw(wrong, clicks, "distance", Share(0.0 if i == 0 else 0.999999), mass=(low, high)) for i in (0, 1)]
    depths = chances_of(truth, mask, clicks, click.positive)
    shallow, depth, deep = (depths[each.x, each.y] for each in (ends[0], click, ends[1]))
    assert shallow <= depth <= deep
    if tenth == 9:
        assert deep == max(depths.values())


@given(SEEDS)
def test_jitter_without_noise_is_ritm(seed):
    truth, mask, clicks = scene(seed)
    found = draw(errors(truth, mask), clicks, "jitter", np.random.default_rng(0))
    assert found == next_click(truth, mask, clicks)


def test_jitter_moves_by_the_noise_and_stays_in_the_image():
    truth = np.zeros((41, 41), np.int8)
    truth[10:31, 10:31] = 1  # its deepest pixel is (20, 20)
    wrong, rng = errors(truth, truth < 0), np.random.default_rng(0)
    made = [draw(wrong, (), "jitter", rng, noise_px=3.0) for _ in range(2000)]
    offsets = np.array([(click.x - 20, click.y - 20) for click in made])
    assert offsets.std() == pytest.approx(3.0, abs=0.2)
    assert abs(offsets.mean()) < 0.2
    assert all(click.positive for click in made)
    assert any(truth[click.y, click.x] == 0 for click in made)  # beside the object now and then
    wild = [draw(wrong, (), "jitter", rng, noise_px=500.0) for _ in range(100)]
    assert all(0 <= click.x < 41 and 0 <= click.y < 41 for click in wild)


def test_what_was_clicked_is_not_clicked_again():
    truth = np.ones((2, 2), np.int8)
    wrong, clicks = errors(truth, truth < 0), []
    for clicker in ("jitter", "uniform", "distance") * 4:
        if (click := draw(wrong, clicks, clicker, np.random.default_rng(1), noise_px=0.5)) is None:
            break
        assert (click.x, click.y) not in {(each.x, each.y) for each in clicks}
        clicks.append(click)
    assert len(clicks) == 4
