"""`python -m samref trial.json --out DIR`: one trial, here and now, with neither Ray nor a sweep file.

Each stage's folder appears in DIR when it is done, under its id; what is there already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from samref import trial
from samref.config import Runtime, TrialConfig
from samref.contents import Contents
from samref.run_stage import run
from samref.stage import Job, Stage


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m samref", description=__doc__)
    parser.add_argument("trial", type=Path, help="a trial's configuration as JSON")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the stages (default: runs)")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the datasets (default: data)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; default: CUDA where there is one")
    options = parser.parse_args(arguments)
    runtime = Runtime(data_root=options.data_root, device=options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        config = TrialConfig.model_validate_json(options.trial.read_text())
        contents = Contents(runtime, options.out / "fingerprints")
        planned = trial.build(config, contents)
        contents.check([config.model])
        for text in contents.warnings([config]):
            print(f"{options.trial}: {text}", file=sys.stderr)
    except (OSError, ValueError) as error:
        text = (
            "; ".join(f"{_dotted(e['loc'])}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        print(f"{options.trial}: {text}", file=sys.stderr)
        return 2
    for stage in planned.stages:
        folder = options.out / stage.id
        if not folder.exists():
            _run(stage, folder, runtime)
        print(f"{stage.id}: {json.dumps(json.loads((folder / 'summary.json').read_text())['metrics'])}")
    return 0


def _run(stage: Stage, folder: Path, runtime: Runtime) -> None:
    aside, scratch = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.scratch")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    inputs = {role: folder.with_name(needed) for role, needed in stage.needs.items()}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        shown = {name: round(value, 4) for name, value in metrics.items() if name != "total"}
        print(f"{stage.id}: {step}/{int(metrics['total'])} {shown or ''}", flush=True)

    run(Job((stage,), inputs, (aside,), scratch, runtime), report)
    aside.rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "the trial"


if __name__ == "__main__":
    sys.exit(main())
