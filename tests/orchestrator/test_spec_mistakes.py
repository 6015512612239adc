"""Every mistake in a sweep file is one line that names place, key and value."""

from pathlib import Path

import pytest
from sweep_files import BASE, write

from samref.config import EvaluateConfig
from samref.derived import PATTERNS
from samref.measures import MEASURES
from samref_sweep.errors import SpecError
from samref_sweep.spec.file import SweepFile
from samref_sweep.spec.policy import Budget
from samref_sweep.spec.sweep import read

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
    "'noc_at_09': there is no such metric. Did you mean noc_at_90? There are: "
    + f"{', '.join(MEASURES)}, and {PATTERNS}",
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"no\.yaml: there is no such file"):
        read(tmp_path / "no.yaml")


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
