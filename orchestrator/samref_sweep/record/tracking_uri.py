"""Where MLflow keeps the runs: what was asked for, as a URI that MLflow takes. Imports no MLflow."""

import os

from samref.errors import masked
from samref_sweep.errors import SpecError

VARIABLE = "MLFLOW_TRACKING_URI"
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


def tracking_uri(given: str | None, default: str) -> str:
    """The URI of `--mlflow`, else of the environment's MLFLOW_TRACKING_URI, else the default.

    Raises SpecError: MLflow cannot keep runs there; one line that says what can be written instead.
    """
    place, uri = next(
        (place, uri) for place, uri in (("--mlflow", given), (VARIABLE, os.environ.get(VARIABLE)), ("", default)) if uri
    )
    if uri.split(":")[0] == "databricks":
        return uri
    scheme, separator, path = uri.partition("://")
    shown = f"{place} {masked(uri)}"
    if not separator or scheme == "file":
        path = (path or uri).removeprefix("file:")
        file = path if path.endswith((".db", ".sqlite")) else f"{path.rstrip('/')}/mlflow.db"
        raise SpecError(
            f"{shown}: MLflow keeps runs in a database or on a server, not in a folder; write sqlite:///{file}, "
            "or the server's http://…"
        )
    if scheme == "sqlite" and not path.startswith("/"):
        raise SpecError(f"{shown}: two slashes name a host; write sqlite:///{path} for a file below this folder")
    if scheme.partition("+")[0] not in SCHEMES:
        raise SpecError(f"{shown}: MLflow knows no {scheme}://; there are: {', '.join(SCHEMES)}")
    return uri
