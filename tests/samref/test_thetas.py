"""samref.thetas: how the θ that are played part at the selector's decisions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from samref.config import EvaluateConfig
from samref.refiner.selector import paste_on_global
from samref.thetas import Thetas, at
from samref.trial import NamesAsFingerprints, TrialConfig, build

NUMBERS = st.integers(1, 40).map(lambda n: n / 16)  # few, so that R_e often is a θ
RATIOS = st.one_of(st.just(math.nan), NUMBERS, st.floats(0, 3))


@given(st.sets(NUMBERS, min_size=1), st.lists(RATIOS, max_size=6), st.booleans())
def test_every_theta_ends_where_its_own_decisions_lead(values, ratios, listed):
    thetas = Thetas.each(values)
    nodes = [(thetas.above, thetas.upto, ())]
    for ratio in ratios:
        played = thetas if listed else thetas._replace(listed=None)
        nodes = [
            (above, upto, (*made, anew))
            for low, high, made in nodes
            for anew, above, upto in played.parts(low, high, ratio)
        ]
    nodes.sort()
    assert nodes[0][0] == thetas.above
    assert nodes[-1][1] == thetas.upto
    assert [above for above, _, _ in nodes[1:]] == [upto for _, upto, _ in nodes[:-1]]
    for theta in values:
        (made,) = [made for above, upto, made in nodes if above < theta <= upto]
        assert made == tuple(paste_on_global(ratio, theta) for ratio in ratios)
    if listed:
        assert all(any(above < theta <= upto for theta in values) for above, upto, _ in nodes)  # none for nothing


def test_of_several_evaluations_the_curve_and_their_own_ones():
    configs = [EvaluateConfig(theta=theta) for theta in (1.2, 1.05)]
    assert Thetas.of(configs).listed == (1.05, 1.2)
    whole = Thetas.of([EvaluateConfig(curve=(1.0, 1.5))])
    assert whole.listed is None
    assert whole.above < 1.0
    assert Thetas.of([EvaluateConfig(curve=(1.0, 1.25, 0.1))]).listed == (1.0, 1.1, 1.2, 1.25)
    assert Thetas.of([EvaluateConfig(curve=(1.0, 1.3, 0.1))]).listed == (1.0, 1.1, 1.2, 1.3)
    with pytest.raises(ValueError, match="θ = 2 was not played"):
        at([whole], 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"curve": [1.5, 1.0]}, r"curve is \[1.5, 1.0\]; it goes from a number above 0 to a greater one"),
        ({"curve": [1.1, 1.1]}, "to a greater one"),
        ({"curve": [0, 1.5]}, "from a number above 0"),
        ({"curve": [1.2, 1.5]}, r"theta is 1.1, outside of curve, \[1.2, 1.5\];"),
        ({"curve": [1.0, 1.5, 0.6]}, "whose step is 0.6; it should fit"),
        ({"curve": [1.0, 1.5, 0]}, "whose step is 0;"),
        ({"curve": [1.0, 1.5, 0.1, 1]}, "from a number above 0"),
        ({"curve": [1.0]}, "curve"),
        ({"curve": [1.0, math.inf]}, "curve"),
    ],
)
def test_intervals_that_are_none_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        EvaluateConfig(**settings)


def test_a_curve_is_another_stage_and_without_a_selector_none():
    def stage(**settings):
        return build(TrialConfig.model_validate(settings), NamesAsFingerprints()).stage("evaluate")

    plain, curve = stage(), stage(evaluate={"curve": [1, 1.5]})
    assert plain.id != curve.id
    assert curve.config["evaluate"]["curve"] == (1, 1.5)
    assert curve.evaluate.curve == (1, 1.5)
    assert stage(model={"refiner": "none"}).id == stage(model={"refiner": "none"}, evaluate={"curve": [1, 1.5]}).id
