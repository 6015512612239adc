"""The JSON Schema for editors: it takes every sweep file that the program takes, and refuses mistakes."""

import json
from pathlib import Path

import jsonschema
import pytest

from samref_sweep.cli.commands import main
from samref_sweep.spec.schema import json_schema
from samref_sweep.spec.yaml_text import parse

VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(parse(text, "text"))]


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", sorted(Path("sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_the_committed_sweeps_fit(path: Path) -> None:
    assert errors(path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "parameters:",
        "metric: noc_at_95",
        "metric: [noc_at_95, {name: fps, goal: maximize}]",
        "scheduler: asha",
        "scheduler: {metric: loss, reduction: 2}",
        "seeds: [1, 2]",
        "exclude: [{train.init.gamma: [0.1, 0.2]}]",
        "parameters: {evaluate.theta: {min: 1, max: 2, log: true}, train.init.init.steps: [5], train: [null]}",
        "parameters: {zip: [{model.backbone: tiny, train.steps: 5}], train.steps: {min: 1, max: 3, int: true}}",
        "parameters: {evaluate.theta: {values: [1], when: {model.refiner: gfr}}}",
        "trial: {train: {init: {steps: 5}, modules: [refiner]}, profile: null}",
        "budget: {gpu_hours: 3.5}\nretry: {error: 1}\nresources: {train: {gpu: 1, cpu: all}}",
    ],
)
def test_what_the_program_takes_fits(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "metod: grid",
        "method: bayes",
        "metric: accuracy",
        "trial: {evaluate: {treshold: 1}}",
        "trial: {evaluate: {max_clicks: many}}",
        "parameters: {evaluate.treshold: [1]}",
        "parameters: {evaluate.theta: 1}",
        "parameters: {evaluate.theta: {value: [1]}}",
        "parameters: {zip: [{evaluate.treshold: 1}]}",
        "exclude: [{evaluate.treshold: 1}]",
        "seeds: many",
        "budget: {hours: -1}",
    ],
)
def test_mistakes_do_not(text: str) -> None:
    assert errors(text)


def test_the_commands_print_it_and_the_shells_completion(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--schema"])
    assert caught.value.code == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    with pytest.raises(SystemExit) as caught:
        main(["--print-completion", "bash"])
    assert caught.value.code == 0
    assert "--retry-failed" in capsys.readouterr().out
