"""Where MLflow keeps runs: what it cannot use is refused, and who decides."""

import re

import pytest

from samref_sweep.errors import SpecError
from samref_sweep.record.tracking_uri import tracking_uri


@pytest.mark.parametrize(
    ("uri", "instead"),
    [
        ("./mlruns", "sqlite:///./mlruns/mlflow.db"),
        ("file:///data/mlruns/", "sqlite:////data/mlruns/mlflow.db"),
        ("runs/own.db", "sqlite:///runs/own.db"),
        ("sqlite://x.db", "sqlite:///x.db"),
        ("ftp://there", "http, https, sqlite"),
    ],
)
def test_a_place_that_mlflow_cannot_use_is_refused_with_one_that_it_can(uri: str, instead: str) -> None:
    with pytest.raises(SpecError, match=re.escape(instead)) as refused:
        tracking_uri(uri, "sqlite:///default.db")
    assert str(refused.value).startswith(f"--mlflow {uri}: ")


def test_the_option_goes_before_the_environment_and_that_before_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    default = "sqlite:///store.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, default) == default
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri(None, default) == "http://there:5000"
    assert tracking_uri("sqlite:///own.db", default) == "sqlite:///own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(SpecError, match="MLFLOW_TRACKING_URI mlruns: MLflow keeps runs in a database"):
        tracking_uri(None, default)
