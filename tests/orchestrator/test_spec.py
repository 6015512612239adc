"""The sweep file: what it becomes, and every mistake in one line that names place, key and value."""

import re
from pathlib import Path

import pytest

from samref.config import EvaluateConfig
from samref.measures import MEASURES
from samref_sweep.errors import SpecError
from samref_sweep.spec.file import SweepFile
from samref_sweep.spec.policy import Budget
from samref_sweep.spec.sweep import read

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


EVALUATE = ", ".join(EvaluateConfig.model_fields)
MISTAKES = {
    "{trial: {evaluate: {treshold: 1}}}": "{file}: evaluate.treshold is not a setting. Did you mean threshold? "
    f"evaluate has: {EVALUATE}",
    "{trial: {evalute: {theta: 1}}}": "{file}: evalute is not a setting. Did you mean evaluate? "
    "A trial has: model, train, evaluate, profile",
    "{trial: {evaluate: {theta: {x: 1}}}}": "{file}: evaluate.theta.x is not a setting: "
    "evaluate.theta is a single value",
    "{trails: {}}": "{file}: trails is not a key of a sweep file. Did you mean trials? "
    "The keys are: " + ", ".join(SweepFile.model_fields),
    "{method: bayes}": "{file}: method is 'bayes': it should be 'grid', 'random' or 'optuna'",
    "{method: random}": "{file}: method: random needs trials, how many to make, e.g. trials: 30",
    "{method: random, trials: 3}": "{file}: method: random needs parameters to choose from",
    "{trials: 3}": "{file}: trials is for method: random and optuna; a grid has every combination",
    "{parameters: {evaluate.theta: {min: 1, max: 2}}}": "{file}: evaluate.theta is a range, which needs "
    "method: random or method: optuna (and trials, their number); a grid needs values",
    "{method: optuna, trials: 3, parameters: {evaluate.theta: [1]}}": "{file}: method: optuna needs a metric to "
    "optimise, e.g. metric: noc_at_90",
    "{method: optuna, trials: 3, metric: noc_at_09, parameters: {evaluate.theta: [1]}}": "{file}: metric.0.name is "
    "'noc_at_09': there is no such metric. Did you mean noc_at_90? There are: " + ", ".join(MEASURES),
    "{method: optuna, trials: 3, metric: fps, parameters: {evaluate.theta: [1]}, trial: {profile: null}}": "{file}: "
    "profile is null, but the metric fps is measured by it",
    "{method: optuna, trials: 3, metric: clicks_on_global, parameters: {evaluate.theta: [1]}}": "{file}: metric.0 is "
    "{'name': 'clicks_on_global'}: neither way is better by itself; say which: "
    "{name: clicks_on_global, goal: minimize}",
    "{method: optuna, trials: 3, metric: noc_at_90, parameters: {evaluate.theta: {min: -1, max: 1}}}": "{file}: "
    "evaluate.theta is -1.0: it should be greater than 0",
    "{scheduler: hyperband}": "{file}: scheduler.name is 'hyperband': it should be 'asha'",
    "{scheduler: {reduction: 1}}": "{file}: scheduler.reduction is 1: it should be greater than or equal to 2",
    "{budget: {gpu_hour: 1}}": "{file}: budget.gpu_hour is not a key of a sweep file. Did you mean gpu_hours? "
    "budget has: " + ", ".join(Budget.model_fields),
    "{budget: {hours: 0}}": "{file}: budget.hours is 0: it should be greater than 0",
    "{parameters: {evaluate.theta: []}}": "{file}: evaluate.theta has no values; name at least one",
    "{parameters: {evaluate.theta: 1}}": "{file}: parameters.evaluate.theta is 1: it should be a list of values, "
    "or values: [...]",
    "{parameters: {evaluate.theta: [1, 2, 1.0]}}": "{file}: evaluate.theta has the value 1.0 twice "
    "(1 and 1.0 are the same value)",
    "{parameters: {evaluate.theta: [1e-4, '1e-4']}}": "{file}: evaluate.theta has the value '1e-4' twice "
    "(1 and 1.0 are the same value)",
    "{parameters: {evaluate.theta: [1, large]}}": "{file}: evaluate.theta is 'large': it should be a valid number",
    "{parameters: {evaluate.thet: [1]}}": "{file}: evaluate.thet is not a setting. Did you mean theta? "
    f"evaluate has: {EVALUATE}",
    "{parameters: {train: [null], train.gamma: [1]}}": "{file}: train.gamma and train cannot both be axes, "
    "one is a part of the other",
    "{trial: {evaluate: {max_clicks: many}}}": "{file}: evaluate.max_clicks is 'many': it should be a valid integer",
    "{trial: {evaluate: {max_clicks: 1.5}}}": "{file}: evaluate.max_clicks is 1.5: it should be a valid integer",
    "{trial: {train: {steps: 5}}}": "{file}: train: warmup_steps is 1500, but there are only 5 steps; "
    "set it below steps (the learning rate would never reach its peak)",
    "{parameters: {zip: [{evaluate.theta: 1}, {train.gamma: 1}]}}": "{file}: zip's row 2 sets train.gamma, its row 1 "
    "evaluate.theta; every row sets the same settings",
    "{parameters: {zip: [{evaluate.theta: 1}, {evaluate.theta: 1.0}]}}": "{file}: zip has two equal rows; every row is "
    "one value of the coupled axis",
    "{parameters: {zip: [{evaluate.thet: 1}]}}": "{file}: evaluate.thet is not a setting. Did you mean theta? "
    f"evaluate has: {EVALUATE}",
    "{parameters: {zip: [{train: null, train.gamma: 1}]}}": "{file}: zip sets train and train.gamma, "
    "one is a part of the other",
    "{parameters: {zip: {evaluate.theta: 1}}}": "{file}: parameters.zip is {'evaluate.theta': 1}: "
    "it should be a valid list",
    "{parameters: {zip: [{evaluate.theta: 1}], evaluate.theta: [2]}}": "{file}: evaluate.theta is an axis twice, "
    "in zip and in evaluate.theta",
    "{parameters: {train.seed: [1]}, seeds: 2}": "{file}: train.seed is an axis twice, in train.seed and in seeds",
    "{seeds: 0}": "{file}: seeds is 0: it should be greater than or equal to 1",
    "{seeds: [1, 1]}": "{file}: seeds has the value 1 twice (1 and 1.0 are the same value)",
    "{exclude: [{}]}": "{file}: exclude's entry 1 is empty, which fits every trial; name a setting",
    "{exclude: [{evaluate.clicker: ritm}]}": "{file}: exclude leaves no trial; every combination fits one of its "
    "entries",
    "{exclude: [{evaluate.thet: 1}]}": "{file}: evaluate.thet is not a setting. Did you mean theta? "
    f"evaluate has: {EVALUATE}",
    "{parameters: {evaluate.theta: {values: [1], when: {evaluate.theta: 1}}}}": "{file}: evaluate.theta has itself in "
    "its when; name another setting there",
    "{parameters: {evaluate.theta: {values: [1], when: {evaluate.seed: 1}}, "
    "evaluate.seed: {values: [1], when: {evaluate.theta: 1}}}}": "{file}: the conditions (when) of evaluate.theta and "
    "evaluate.seed depend on each other",
    "{parameters: {evaluate.theta: {min: 1}}}": "{file}: parameters.evaluate.theta is {'min': 1}: it should have "
    "values: [...], or min and max",
    "{parameters: {evaluate.theta: {min: 2, max: 1}}}": "{file}: parameters.evaluate.theta is {'min': 2, 'max': 1}: "
    "min is 2, which is not below max, 1",
    "{parameters: {evaluate.theta: {min: 0, max: 1, log: true}}}": "{file}: parameters.evaluate.theta is "
    "{'min': 0, 'max': 1, 'log': True}: min is 0; with log it should be greater than 0",
    "{parameters: {evaluate.theta: {value: [1]}}}": "{file}: parameters.evaluate.theta.value is not a key of a "
    "sweep file. Did you mean values? parameters.evaluate.theta has: values, min, max, log, int, when",
    "{parameters: {train.steps: {min: 1.5, max: 3}}}": "{file}: train.steps goes from 1.5 to 3; both should be whole "
    "numbers",
    "{parameters: {model.refiner: {min: 1, max: 3}}}": "{file}: model.refiner takes no numbers, so it has no min and "
    "max; list its values",
    "{resources: {train: {gpu: -1}}}": "{file}: resources.train.gpu is -1: it should be greater than or equal to 0",
    "{trial: {train: {learning_rate: .inf}}}": "{file}: train.learning_rate is inf: it should be a finite number",
    "{trial: {train: {seed: 9223372036854775808}}}": "{file}: train.seed is 9223372036854775808: it should be less "
    "than or equal to 9223372036854775807",
    "{parameters: {evaluate.theta: [.nan]}}": "{file}: evaluate.theta is nan: it should be greater than 0",
    "{parameters: {train.gamma: [2020-01-01]}}": "{file}: train.gamma is '2020-01-01': it should be a valid number",
    "{seeds: 10000000000000000000000}": "{file}: seeds is 10000000000000000000000: it should be less than or equal to "
    "100000",
    'purpose: "caf\\udce9"\n': "{file}: 'caf\\udce9' is no text that a file can hold",
    "[1, 2]": "{file}: a sweep file is a mapping of keys such as trial and parameters, not [1, 2]",
    "": "{file}: a sweep file is a mapping of keys such as trial and parameters, not None",
    "trial: {evaluate: {theta: 1}, evaluate.theta: 2}": "{file}: evaluate.theta is written twice below trial, with "
    "dots and nested say; keep one of them",
    "trial: {train.steps: 5, train: null}": "{file}: train and train.steps are both written below trial, with dots and "
    "nested say; keep one of them",
    "{purpose: yes}": "{file}: purpose is True: it should be a valid string (yes, no, on and off are true and false; "
    "in quotes they are words)",
    "{budget: {hours: 1:30}}": "{file}: budget.hours is '1:30': it should be a valid number (with colons it is text: "
    "for 1:30 write 1.5)",
    "{resources: {train: {time_limit: 1:30}}}": "{file}: resources.train.time_limit is '1:30': '1:30' is not a time; "
    "write seconds, or for example 90s, 30m or 2h",
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
        ("sedes=1", "--set sedes=1: sedes is neither a setting nor a key of a sweep file. Did you mean seeds? There "),
        ("resources.trian.gpu=1", "--set resources.trian.gpu=1: resources.trian is 'trian': it should be 'embed', "),
        ("extends=a.yaml", "--set extends=a.yaml: extends stands in a file only"),
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


@pytest.mark.parametrize("stem", [".", ".hidden", "-x", " ", "caf\udce9", "a\nb", "字" * 83])
def test_a_file_whose_name_cannot_name_results_needs_another(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text(BASE)
    with pytest.raises(SpecError, match="can name no results; give the sweep a name"):
        read(path)
    assert read(path, ["name=good"]).name == "good"


@pytest.mark.parametrize("stem", ["Anna's θ", 'a "b" %2F', "字" * 60])
def test_a_sweep_has_the_name_of_its_file(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text(BASE)
    assert read(path).name == stem


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no\.yaml: there is no such file"):
        read(tmp_path / "no.yaml")


ZIP = """
parameters:
  zip:
    - {model.refiner: none, train.gamma: 0.6}
    - {model.refiner: gfr, train.gamma: 0.6}
    - {model.refiner: gfr, train.gamma: 0.9}
"""


def chosen(path: Path, *overrides: str) -> list[tuple[object, ...]]:
    """For each trial its point's values, in the order of the axes."""
    sweep = read(path, overrides)
    assert {key for point in sweep.points for key in point} == set(sweep.axes)
    return [tuple(point.values()) for point in sweep.points]


def test_zipped_settings_vary_together_and_cross_the_other_axes(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + ZIP + "  evaluate.theta: [1, 2]\n")
    rows = [("none", 0.6), ("gfr", 0.6), ("gfr", 0.9)]
    assert chosen(path) == [(*row, theta) for row in rows for theta in (1, 2)]
    sweep = read(path)
    assert sweep.shape == "3 refiner+gamma × 2 theta"
    assert sweep.axes == {"model.refiner": ("none", "gfr"), "train.gamma": (0.6, 0.9), "evaluate.theta": (1, 2)}
    assert [config.model.refiner for config in sweep.configs] == ["none"] * 2 + ["gfr"] * 4


@pytest.mark.parametrize(
    ("override", "points"),
    [
        ("train.gamma=0.7", [("none",), ("gfr",)]),
        ("model.refiner=gfr", [(0.6,), (0.9,)]),
        ("train.gamma=[0.1, 0.2]", [("none", 0.1), ("none", 0.2), ("gfr", 0.1), ("gfr", 0.2)]),
        ("parameters.zip=[]", [()]),
        ("parameters.zip=[{evaluate.theta: 1}]", [(1,)]),
        ("exclude=[{model.refiner: gfr, train.gamma: [0.6, 0.1]}]", [("none", 0.6), ("gfr", 0.9)]),
    ],
)
def test_an_override_of_a_zipped_setting_leaves_the_others_coupled(
    tmp_path: Path, override: str, points: list[tuple[object, ...]]
) -> None:
    assert chosen(write(tmp_path, BASE + ZIP), override) == points


def test_a_conditional_axis_applies_only_where_its_condition_holds(tmp_path: Path) -> None:
    axes = "{evaluate.theta: {values: [1, 2], when: {model.refiner: [gfr+lfr, gfr]}}, model.refiner: [none, gfr]}"
    path = write(tmp_path, BASE + f"parameters: {axes}")
    # The condition's axis is chosen first, wherever it stands in the file; elsewhere the default holds.
    assert chosen(path) == [("none",), ("gfr", 1), ("gfr", 2)]
    assert [config.evaluate.theta for config in read(path).configs] == [1.1, 1, 2]
    assert chosen(path, "evaluate.theta=[3, 4]") == [("none",), ("gfr", 3), ("gfr", 4)]
    assert chosen(path, "model.refiner=gfr+lfr") == [(1,), (2,)]
    assert chosen(path, "evaluate.theta={values: [3, 4], when: {}}", "model.refiner=none") == [(3,), (4,)]


def test_a_condition_looks_at_defaults_and_at_parts_that_are_null(tmp_path: Path) -> None:
    two = ("evaluate.clicker: ritm", "train.gamma: 0.6", "train.init: null", "train.modules: [decoder, refiner]")
    for when, count in [*((when, 2) for when in two), ("train.init.gamma: 0.6", 1), ("train: null", 1)]:
        path = write(tmp_path, BASE + f"parameters: {{evaluate.theta: {{values: [1, 2], when: {{{when}}}}}}}")
        assert len(read(path).points) == count, when


def test_seeds_repeat_what_is_trained(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "parameters: {train: [null, {data: shapes, steps: 10, warmup_steps: 1}]}\nseeds: 2")
    sweep = read(path)
    assert [config.train and config.train.seed for config in sweep.configs] == [None, 0, 1]
    assert sweep.axes["train.seed"] == (0, 1)
    assert chosen(path, "train=null") == [()]
    assert len(chosen(path, "seeds=3")) == 4
    assert len(chosen(path, "seeds=null")) == 2
    listed = read(write(tmp_path, BASE + "seeds: [5, 7]"))
    assert [config.train.seed for config in listed.configs if config.train] == [5, 7]


def test_excluded_trials_are_left_out(tmp_path: Path) -> None:
    # What a script computed, 0.3 + 0.6, is what a person wrote.
    axes = "parameters: {train.gamma: [0.6, 0.8999999999999999], evaluate.theta: [1, 2]}\nseeds: 2\n"
    path = write(tmp_path, BASE + axes + "exclude: [{train.gamma: 0.9, evaluate.theta: 2}, {train.seed: 1}]")
    assert chosen(path) == [(0.6, 1, 0), (0.6, 2, 0), (0.9, 1, 0)]
    assert len(chosen(path, "exclude=[]")) == 8


def test_a_file_extends_another(tmp_path: Path) -> None:
    axes = "parameters: {train.gamma: [0.6, 0.9], evaluate.theta: [1, 2]}\nseeds: 2\nname: parent\npurpose: why\n"
    write(tmp_path, BASE + axes + "resources: {train: {cpu: 2, gpu: 0}}").rename(tmp_path / "parent.yaml")
    (tmp_path / "below").mkdir()
    path = tmp_path / "below" / "child.yaml"
    path.write_text("""
extends: ../parent.yaml
trial: {train: {gamma: 0.3}, evaluate: {max_clicks: 5}}
parameters: {evaluate.theta: [3], train.steps: [50, 60]}
resources: {train: {cpu: 1}}
""")
    sweep = read(path, ["seeds=1"])
    assert (sweep.name, sweep.purpose) == ("child", "why")
    assert sweep.axes == {"evaluate.theta": (3,), "train.steps": (50, 60), "train.seed": (0,)}
    train = sweep.configs[0].train
    assert train is not None
    assert (train.gamma, train.steps, train.warmup_steps) == (0.3, 50, 10)
    assert sweep.configs[0].evaluate.max_clicks == 5
    assert (sweep.resources["train"].cpu, sweep.resources["train"].gpu) == (1, 0)


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ("extends: child.yaml", "{folder}/parent.yaml: extends goes round in a circle: {folder}/child.yaml → "
         "{folder}/parent.yaml → {folder}/child.yaml"),
        (None, "{folder}/child.yaml: extends {folder}/parent.yaml: there is no such file"),
        ("trial: {evaluate: {theta: x}}", "{folder}/parent.yaml: evaluate.theta is 'x': it should be a valid number "
            "(at train.gamma=1)"),
        ("parameters: {train: [null]}", "{folder}/child.yaml: train.gamma and train cannot both be axes, "
         "one is a part of the other"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_extended_file_names_it(tmp_path: Path, parent: str | None, message: str) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nparameters: {train.gamma: [1]}\ntrial: {evaluate: {data: shapes}}")
    if parent is not None:
        (tmp_path / "parent.yaml").write_text(parent)
    with pytest.raises(SpecError) as caught:
        read(child)
    assert str(caught.value) == message.replace("{folder}", str(tmp_path))


def test_the_second_sweep_of_the_documentation_is_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", Path("docs/sweeps.md").read_text(), re.DOTALL)
    (tmp_path / "theta.yaml").write_text(Path("sweeps/theta.yaml").read_text())
    path = write(tmp_path, next(block for block in blocks if "extends: theta.yaml" in block))
    # Three backbones × (without refiner, or three θ), less two θ of tiny, for three seeds.
    assert len(read(path).configs) == (3 * (1 + 3) - 2) * 3


@pytest.mark.parametrize("path", sorted(Path("sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_the_committed_sweeps_are_valid(path: Path) -> None:
    overrides = ["train.data=shapes"] if path.name in ("theta.yaml", "gamma.yaml") else []
    sweep = read(path, overrides)
    assert sweep.configs or sweep.search


def test_the_example_of_code_of_ones_own_is_read(tmp_path: Path) -> None:
    sweep = read(Path(__file__).parents[2] / "docs" / "examples" / "own.yaml")
    config = sweep.configs[0]
    assert (config.model.backbone, config.model.options) == ("backbone:build", {"width": 8})
    assert (config.evaluate.data, config.evaluate.clicker) == ("dataset:open_pairs?images=2", "clicker:anywhere")
    assert [each.name for each in sweep.derived] == ["noc_at_80", "iou_auc_4", "metric:negative_share"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{metrics: [noc_at_800]}", r"metrics: there is no metric 'noc_at_800'; write noc_at_80, "),
        ("{metrics: [./gone.py:share]}", r"metrics: ./gone.py:share: there is no file .*/gone.py"),
        ("{trial: {model: {backbone: ./gone.py:build}}}", r"model.backbone: ./gone.py:build: there is no file"),
        ("{trial: {model: {backbone: no_lab.nets:build}}}", r"model.backbone: no_lab.nets:build: there is no module"),
        ("{trial: {model: {backbone: tiny, options: {a: 1}}}}", r"model.backbone: model.options are of a backbone"),
        (
            "{trial: {evaluate: {data: no_lab.data:open}}}",
            r"evaluate.data: no_lab.data:open: there is no module no_lab",
        ),
        ("{trial: {evaluate: {clicker: nobody}}}", r"evaluate.clicker: 'nobody' is no clicker; there are ritm, "),
    ],
)
def test_what_is_wrong_with_code_of_ones_own_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError, match=rf"^{path}: {message}") as caught:
        read(path)
    assert "\n" not in str(caught.value)
