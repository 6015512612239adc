"""The options of `samref-sweep` and `samref-trial`; the documentation is tested against them."""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import shtab

from samref.command_line import Parser
from samref.user_paths import expanded
from samref_sweep.planning.redo import REDO

EXIT_CODES = (
    "Exit codes: 0 done; 1 some trials failed; 2 bad input, or what the machine refuses, in one line; 74 done, but "
    "standard output could not be written; 130 stopped by a signal or a budget, and the same command goes on."
)


def _common(program: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(prog=program, description=description, allow_abbrev=False)
    override = "override a setting, e.g. evaluate.theta=1.2; VALUE is YAML. It replaces the axis of that name; "
    override += "a list for a setting with one value is an axis. May be repeated."
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help=override)
    add_version_and_completion(parser)
    add_data_root(parser)
    anew = "make finished stages anew, and what reads them: embed, train, evaluate, profile, or changed (those that "
    anew += "other code made). May be repeated."
    parser.add_argument("--redo", metavar="KIND", action="append", default=[], choices=REDO, help=anew)
    return parser


def add_version_and_completion(parser: argparse.ArgumentParser) -> None:
    """`--version` and `--print-completion`"""
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('samref-sweep')}")
    shtab.add_argument_to(parser, help="print a shell's completion script")


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """`--data-root`"""
    parser.add_argument(
        "--data-root", metavar="DIR", type=expanded, default=Path("data"), help="datasets' folder (data)"
    )


def sweep_parser() -> argparse.ArgumentParser:
    """The options of `samref-sweep`; the documentation is tested against it."""
    parser = _common("samref-sweep", "Run a sweep: plan it, do what is missing, write its tables.")
    parser.epilog = f"Also: samref-sweep bundle RESULTS, samref-sweep prune SWEEP.yaml …; each has --help. {EXIT_CODES}"
    parser.add_argument("sweep", metavar="SWEEP.yaml", type=expanded, help="the sweep file")
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")
    parser.add_argument("--store", metavar="DIR|URI", default="runs", help="finished stages, here or at s3://… (runs)")
    parser.add_argument("--results", metavar="DIR|URI", help="where the tables go (results/SWEEP)")
    parser.add_argument(
        "--mlflow", metavar="URI", help="MLflow's tracking URI (MLFLOW_TRACKING_URI, or a file in the store)"
    )
    parser.add_argument("--address", metavar="ADDR", help="a running Ray cluster; without it this machine")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed by itself in earlier runs")
    parser.add_argument("--sync", action="store_true", help="run nothing; log to MLflow what is missing there")
    parser.add_argument("--jobs", metavar="N", type=_positive, help="at most N stages at a time")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    parser.add_argument("--schema", action=_Schema, nargs=0, help="print the sweep file's JSON Schema, for editors")
    return parser


class _Schema(argparse.Action):
    """`--schema`: as `--help`, it needs no other argument."""

    def __call__(self, *_: object, **__: object) -> None:
        from samref_sweep.spec.schema import json_schema

        print(json.dumps(json_schema(), indent=1))
        raise SystemExit(0)


def trial_parser() -> argparse.ArgumentParser:
    """The options of `samref-trial`."""
    parser = _common("samref-trial", "Run one trial here and now, without Ray, by the sweep's own code.")
    parser.add_argument(
        "sweep", metavar="SWEEP.yaml|TRIAL.json", type=expanded, help="a sweep file, or a trial's settings"
    )
    parser.add_argument("--trial", metavar="ID", help="which trial of the sweep; the start of its id is enough")
    parser.add_argument("--store", "--out", metavar="DIR|URI", default="runs", help="the store (runs)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, or auto")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)
