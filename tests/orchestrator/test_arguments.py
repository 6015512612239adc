"""What all commands say of arguments that are wrong: one line."""

import shlex
from pathlib import Path

import pytest

from samref.data.command import main as data_main
from samref_dashboards.report import main as page_main
from samref_sweep import driver
from samref_sweep.cli.commands import main, trial_main
from samref_sweep.errors import StoreError


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("samref-sweep", "the following arguments are required: SWEEP.yaml"),
        ("samref-sweep x.yaml --jobs many", "argument --jobs: many is no whole number above 0"),
        ("samref-sweep x.yaml --redo all", "argument --redo: invalid choice: 'all' (choose from "),
        ("samref-sweep x.yaml --store ''", "argument --store: it is empty; is a variable of the shell not set?"),
        ("samref-sweep x.yaml --results=", "argument --results: it is empty"),
        ("samref-sweep x.yaml --stor s3://me:secret@here/x", "unrecognized arguments: --stor s3://me:***@here/x"),
        ("samref-sweep bundle", "the following arguments are required: RESULTS"),
        ("samref-sweep prune x.yaml --data-root ''", "argument --data-root: it is empty"),
        ("samref-trial x.yaml --device ''", "argument --device: it is empty"),
        ("samref-data verify davis --split both", "argument --split: invalid choice: 'both' (choose from "),
        ("samref-dashboard a --watch --explore", "argument --explore: not allowed with argument --watch"),
    ],
)
def test_what_is_wrong_about_arguments_is_one_line(capsys: pytest.CaptureFixture[str], command: str, said: str) -> None:
    name, *arguments = shlex.split(command)
    commands = {"samref-trial": trial_main, "samref-data": data_main, "samref-dashboard": page_main}
    with pytest.raises(SystemExit) as caught:
        commands.get(name, main)(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(name)
    assert f" error: {said}" in line
    assert line.endswith("--help lists what there is")


def test_a_store_without_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("parameters: {evaluate.theta: [1.1]}")
    with pytest.raises(StoreError, match="a path is empty"):
        driver.plan(driver.read(tmp_path / "x.yaml"), store="")
