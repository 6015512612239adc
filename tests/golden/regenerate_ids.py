"""Writes ids.json: the ids of a few trials and their stages.

uv run python tests/golden/regenerate_ids.py
"""

import json
import runpy
from pathlib import Path

TESTS = Path(__file__).parents[1] / "samref" / "test_trial.py"

if __name__ == "__main__":
    module = runpy.run_path(str(TESTS))
    found = {}
    for name, case in module["CASES"].items():
        planned = module["trial"](**case)
        found[name] = [planned.id, *(stage.id for stage in planned.stages)]
    module["GOLDEN"].write_text(json.dumps(found, indent=1) + "\n")
