"""Reads the tables that a sweep wrote, for notebooks; the dashboards read them by themselves."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from samref_sweep.store.bucket import QUICK, Bucket
from samref_sweep.store.opening import is_uri, local

Table = pa.Table


def table(where: str, name: str) -> Table:
    """One table of a folder or URI of results.

    Raises:
        FileNotFoundError: there is none of that name.
        StoreError: the URI does not answer.
    """
    file = f"{name}.parquet"
    return pq.read_table(io.BytesIO(Bucket(where, QUICK).read(file)) if is_uri(where) else local(where) / file)
