"""Makes MLflow's SQLite file at the path that is given, which takes seconds."""

import sys
from pathlib import Path

from samref_sweep.record.mlflow_client import make_database

make_database(Path(sys.argv[1]))
