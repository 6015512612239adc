"""`samref-dashboard RESULTS --explore`: a marimo notebook over the same tables, with SQL.

marimo is an optional extra. The notebook (notebook.py) is copied beside the results, where it is the user's.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from samref_dashboards.load import ResultsError, load

NOTEBOOK = Path(__file__).with_name("notebook.py")


def open_notebook(folders: Sequence[Path]) -> int:
    """Copy the notebook to the first folder, unless one is there, and open it; marimo's exit code."""
    load(folders)  # says in one line what is wrong with them
    if importlib.util.find_spec("marimo") is None:
        raise ResultsError("--explore needs marimo, which is not installed: pip install 'marimo>=0.25'")
    own = folders[0] / "explore.py"
    if not own.exists():
        shutil.copyfile(NOTEBOOK, own)
    print(f"{own} (yours to change; delete it to get the original again)", flush=True)
    environment = dict(os.environ)
    if own.read_bytes() == NOTEBOOK.read_bytes():
        # marimo 0.25 runs no cell unasked. This file is ours and runs at once; what stands in somebody's results waits.
        environment["_MARIMO_CONFIG_OVERLOAD_RUNTIME_AUTO_INSTANTIATE"] = "true"
    # What the notebook needs is installed: a sandbox would ask the network for it again.
    command = [sys.executable, "-m", "marimo", "edit", "--no-sandbox", "--host", "127.0.0.1", str(own), "--"]
    command += [str(path.resolve()) for path in folders]
    try:
        return subprocess.run(command, check=False, env=environment).returncode
    except KeyboardInterrupt:
        return 0
