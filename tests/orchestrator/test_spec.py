"""The sweep file: what it becomes, and every mistake in one line that names place, key and value."""

from pathlib import Path

import pytest

from samref_sweep.spec import SpecError, read

BASE = """
trial:
  model: {backbone: tiny}
  train: {data: shapes, steps: 100, warmup_steps: 10, learning_rate: 1e-4}
  evaluate: {data: shapes}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def test_a_grid_is_every_combination_with_the_last_axis_fastest(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "parameters: {train.gamma: [0.6, 0.9], evaluate.theta: {values: [1, 1.5]}}")
    sweep = read(path)
    assert sweep.name == "s"
    assert [(c.train.gamma, c.evaluate.theta) for c in sweep.configs if c.train] == [
        (0.6, 1.0),
        (0.6, 1.5),
        (0.9, 1.0),
        (0.9, 1.5),
    ]
    assert sweep.points[1] == {"train.gamma": 0.6, "evaluate.theta": 1.5}


def test_yaml_exponents_without_a_dot_are_numbers(tmp_path: Path) -> None:
    config = read(write(tmp_path, BASE)).configs[0]
    assert config.train is not None
    assert config.train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("override", "thetas"),
    [
        ("evaluate.theta=2", [2]),
        ("evaluate.theta=[2, 3]", [2, 3]),
        ("evaluate={theta: 2}", [2]),
        ("train=null", [1, 1.5]),
    ],
)
def test_an_override_replaces_the_axis_of_its_name(tmp_path: Path, override: str, thetas: list[float]) -> None:
    sweep = read(write(tmp_path, BASE + "parameters: {evaluate.theta: [1, 1.5]}"), [override])
    assert [config.evaluate.theta for config in sweep.configs] == thetas


def test_an_override_of_a_part_drops_the_axes_below_it(tmp_path: Path) -> None:
    sweep = read(write(tmp_path, BASE + "parameters: {train.gamma: [0.6, 0.9]}"), ["train=null"])
    assert [config.train for config in sweep.configs] == [None]


def test_a_setting_below_null_makes_the_part(tmp_path: Path) -> None:
    path = write(tmp_path, "trial: {model: {backbone: tiny}, train: null, evaluate: {data: shapes}}")
    train = read(path, ["train.data=shapes"]).configs[0].train
    assert train is not None
    assert train.data == "shapes"


def test_a_list_setting_takes_a_list_as_its_value_and_lists_as_an_axis(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)
    one = read(path, ["train.modules=[refiner]"]).configs
    two = read(path, ["train.modules=[[refiner], [decoder]]"]).configs
    assert [c.train.modules for c in one if c.train] == [("refiner",)]
    assert [c.train.modules for c in two if c.train] == [("refiner",), ("decoder",)]


MISTAKES = {
    "{trial: {evaluate: {treshold: 1}}}": "{file}: evaluate.treshold is not a setting. Did you mean theta? "
    "evaluate has: data, samples, theta, max_clicks, clicker, stop_at, seed",
    "{trial: {evalute: {theta: 1}}}": "{file}: evalute is not a setting. Did you mean evaluate? "
    "A trial has: model, train, evaluate, profile",
    "{trial: {evaluate: {theta: {x: 1}}}}": "{file}: evaluate.theta.x is not a setting: "
    "evaluate.theta is a single value",
    "{trails: {}}": "{file}: trails is not a key of a sweep file. Did you mean trial? "
    "The keys are: name, purpose, method, trial, parameters, resources",
    "{method: random}": "{file}: method is 'random': it should be 'grid'",
    "{parameters: {evaluate.theta: []}}": "{file}: evaluate.theta has no values; name at least one",
    "{parameters: {evaluate.theta: 1}}": "{file}: parameters.evaluate.theta is 1: it should be a list of values, "
    "or values: [...]",
    "{parameters: {evaluate.theta: [1, 2, 1.0]}}": "{file}: evaluate.theta has the value 1.0 twice "
    "(1 and 1.0 are the same value)",
    "{parameters: {evaluate.theta: [1e-4, '1e-4']}}": "{file}: evaluate.theta has the value '1e-4' twice "
    "(1 and 1.0 are the same value)",
    "{parameters: {evaluate.theta: [1, large]}}": "{file}: evaluate.theta is 'large': it should be a valid number",
    "{parameters: {evaluate.thet: [1]}}": "{file}: evaluate.thet is not a setting. Did you mean theta? "
    "evaluate has: data, samples, theta, max_clicks, clicker, stop_at, seed",
    "{parameters: {train: [null], train.gamma: [1]}}": "{file}: train.gamma and train cannot both be axes, "
    "one is a part of the other",
    "{trial: {evaluate: {max_clicks: many}}}": "{file}: evaluate.max_clicks is 'many': it should be a valid integer",
    "{trial: {evaluate: {max_clicks: 1.5}}}": "{file}: evaluate.max_clicks is 1.5: it should be a valid integer",
    "{trial: {train: {steps: 5}}}": "{file}: train: warmup_steps is 1500, but there are only 5 steps; "
    "set it below steps (the learning rate would never reach its peak)",
    "{resources: {train: {gpu: -1}}}": "{file}: resources.train.gpu is -1: it should be greater than or equal to 0",
    "[1, 2]": "{file}: a sweep file is a mapping of keys such as trial and parameters, not [1, 2]",
    "": "{file}: a sweep file is a mapping of keys such as trial and parameters, not None",
    "trial:\n  evaluate: {data: a}\n  evaluate: {data: b}\n": "{file}: line 3: evaluate is written twice",
    "trial:\n  evaluate: [1, 2\n": "{file}: line 3: expected ',' or ']', but got '<stream end>'",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items(), ids=[text[:40] for text in MISTAKES])
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read(path)
    assert str(caught.value) == message.replace("{file}", str(path))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.theta", "--set evaluate.theta: write KEY=VALUE, for example --set evaluate.theta=1.1"),
        ("evaluate.theta=x", "--set evaluate.theta=x: evaluate.theta is 'x': it should be a valid number"),
        ("evaluate.theta=[]", "--set evaluate.theta=[]: evaluate.theta has no values; name at least one"),
        ("evaluate.theta=[1", "--set evaluate.theta=[1: expected ',' or ']', but got '<stream end>'"),
        ("model.backbone=tinny", "--set model.backbone=tinny: model.backbone is 'tinny': there is no such backbone. "
         "Did you mean tiny? There are: "),
        ("train.data=shape", "--set train.data=shape: train.data is 'shape': there is no such dataset. "
         "Did you mean shapes? There are: "),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_names_the_option(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(write(tmp_path, BASE), [override])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_error_of_a_combination_names_the_combination(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "parameters: {train.warmup_steps: [10, 100]}")
    with pytest.raises(SpecError, match=r"train: warmup_steps is 100, .* \(at train.warmup_steps=100\)$"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no\.yaml: there is no such file"):
        read(tmp_path / "no.yaml")


@pytest.mark.parametrize("path", sorted(Path("sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_the_committed_sweeps_are_valid(path: Path) -> None:
    overrides = ["train.data=shapes"] if path.name in ("theta.yaml", "gamma.yaml") else []
    assert read(path, overrides).configs
