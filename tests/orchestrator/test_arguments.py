"""What all commands say of arguments that are wrong: one line."""

import shlex
from pathlib import Path

import pytest

from samref.data.command import main as data_main
from samref.errors import UserError
from samref_dashboards.report import main as page_main
from samref_sweep import driver
from samref_sweep.cli.commands import main, trial_main
from samref_sweep.errors import StoreError

SWEEP = "trial: {model: {backbone: tiny, checkpoint: none}, train: null, evaluate: {data: shapes}}"


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
    (tmp_path / "x.yaml").write_text(SWEEP)
    with pytest.raises(StoreError, match="a path is empty"):
        driver.plan(driver.read(tmp_path / "x.yaml"), store="")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--store=x.yaml", "/x.yaml is no folder"),
        ("--store=x.yaml/runs", "/x.yaml is no folder"),
        ("--store=file://tmp/runs", "names a host, tmp; a folder of this machine has three slashes"),
        ("--results=x.yaml", "/x.yaml is no folder"),
        ("--results=gone/results", "/gone is no folder"),  # a link to nothing
        ("--results=s3:/bucket", "is neither a path nor a URI"),
        ("--data-root=data", "/results is no folder"),  # where tables go by themselves
    ],
)
def test_where_nothing_can_be_written_is_told_at_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(SWEEP)
    Path("gone").symlink_to("nowhere")
    if option.startswith("--data-root"):
        Path("results").touch()
    assert main(["x.yaml", "--plan", option]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert {each.name for each in tmp_path.iterdir()} <= {"x.yaml", "gone", "results"}


def test_results_that_cannot_be_made_are_refused_before_anything_runs(tmp_path: Path) -> None:
    """Root may write anywhere, and yet there are folders where nothing can be made."""
    (tmp_path / "x.yaml").write_text(SWEEP)
    planned = driver.plan(driver.read(tmp_path / "x.yaml"), store=tmp_path / "runs")
    with pytest.raises(UserError, match=r"/proc/results: .* say .*--results"):
        driver.run(planned, results="/proc/results")
    assert not list((tmp_path / "runs" / "stages").iterdir())


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("banana", "there is no device 'banana'; name cpu, cuda, cuda:1 (the second), or auto"),
        ("mps", "there is no device 'mps'"),
        ("cpu:5", "there is no device 'cpu:5'"),
        ("cuda:99", "device is cuda:99, and torch sees "),
    ],
)
def test_a_device_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(SWEEP)
    assert trial_main(["x.yaml", "--trial", "trial-", "--device", device]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not list(Path().glob("runs/stages/*"))
