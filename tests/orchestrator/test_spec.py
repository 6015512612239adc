"""The sweep file: what it becomes."""

import re
from pathlib import Path

import pytest
from sweep_files import BASE, write

from samref_sweep.spec.sweep import read


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


@pytest.mark.parametrize("stem", ["Anna's θ", 'a "b" %2F', "字" * 60])
def test_a_sweep_has_the_name_of_its_file(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.yaml"
    path.write_text(BASE)
    assert read(path).name == stem


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
    assert read(path).odd == ()
    (told,) = read(path, ["exclude=[{train.gamma: 0.9}, {train.gamma: 0.7}]"]).odd
    assert told.endswith("exclude's entry 2 fits no trial")


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
