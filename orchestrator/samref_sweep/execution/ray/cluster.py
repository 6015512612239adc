"""Connects to a Ray cluster, or runs one on this machine, and looks whether its nodes see the store (Ray 2.60)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import samref
from samref_sweep.errors import ResourceError, StoreError
from samref_sweep.execution.ray import ENVIRONMENT
from samref_sweep.execution.requests import Nodes

NODE_SECONDS = 300
"""What a node has for its first answer, the transfer of the packages included."""


@contextmanager
def connected(address: str | None) -> Iterator[Nodes]:
    """Connect to a cluster for the time of the block; without an address run one on this machine meanwhile.

    Without an address, a Ray that this process is connected to already is joined and stays: a notebook (or the tests)
    that runs several sweeps starts it once.

    Gives what each node has. Raises ResourceError where no cluster answers at the address.
    """
    joined = address is None and ray.is_initialized()
    if joined:
        options: dict[str, Any] = {"ignore_reinit_error": True}
    elif address is None:
        # "local": a plain init would join whatever cluster a stale file in Ray's temporary folder names.
        options = {"address": "local", "include_dashboard": False}
    else:
        packages = [str(Path(samref.__file__).parent), str(Path(__file__).parents[2])]
        options = {"address": address, "runtime_env": {"py_modules": packages, "env_vars": ENVIRONMENT}}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, OSError, ValueError) as error:
        raise ResourceError(f"--address {address}: no Ray cluster answers there: {error}") from None
    try:
        yield [node["Resources"] for node in _alive()]
    finally:
        if not joined:
            ray.shutdown()


def check_store(where: str, probe: Callable[[], None]) -> None:
    """Refuse a store that not every node can write to (`StoreError`), before any stage waits for it.

    Each node calls its probe (`Store.probe`); `where` names it in the message.
    """

    @ray.remote(num_cpus=0, max_retries=0)
    def look() -> str | None:
        try:
            probe()
        except (OSError, StoreError) as error:
            return getattr(error, "strerror", None) or str(error)
        return None

    nodes = _alive()
    looks = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    for node, found in zip(nodes, looks, strict=True):
        try:
            reason = ray.get(found, timeout=NODE_SECONDS)
        except ray.exceptions.RayError as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        if reason is not None:
            raise StoreError(
                f"node {node['NodeManagerAddress']} cannot write to the store {where}: {reason}; "
                "choose one that all nodes share with --store"
            )


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
