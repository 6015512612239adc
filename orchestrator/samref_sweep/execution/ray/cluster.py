"""Connects to a Ray cluster, or runs one on this machine, and looks whether its nodes see the store (Ray 2.60)."""

import logging
import os
import platform
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.tune.execution import class_cache
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import samref
from samref import plugins
from samref_sweep.errors import ResourceError, StoreError
from samref_sweep.execution.allotment import memory, this_machine
from samref_sweep.execution.ray import ENVIRONMENT
from samref_sweep.execution.ray.presence import leave
from samref_sweep.execution.requests import Nodes
from samref_sweep.execution.signals import not_heard_by_children

CONNECT_SECONDS = 10
MIN_STORE_BYTES = 100_000_000
"""What Ray's object store gets at least; it takes no less than 75 MiB."""
MIN_FREE_BYTES = 16 << 20
"""What Ray's logs and sockets have when it starts; with less it waits in vain."""
NODE_SECONDS = 300
"""What a node has for its first answer, the transfer of the packages included."""


@contextmanager
def connected(address: str | None) -> Iterator[Nodes]:
    """Connect to a cluster for the time of the block; without an address run one on this machine meanwhile.

    Without an address, a Ray that this process is connected to already is joined and stays: a notebook (or the tests)
    that runs several sweeps starts it once.

    Gives what each node has. Raises ResourceError, of one line that says why, where Ray cannot start or be reached.
    """
    joined = address is None and ray.is_initialized()
    if joined:
        options: dict[str, Any] = {"ignore_reinit_error": True}
    elif address is None:
        # "local": a plain init would join whatever cluster a stale file in Ray's temporary folder names.
        own_token()
        here = this_machine()[0]
        options = {"address": "local", "include_dashboard": False}
        options |= {"num_cpus": int(here["CPU"]), "num_gpus": int(here["GPU"])}
        size, limited = memory()
        if limited:  # by a group of which Ray may know nothing: orders and reports are small
            options |= {"_memory": size, "object_store_memory": max(MIN_STORE_BYTES, size // 10)}
    else:
        _check_address(address)
        packages = [str(path) for path in (Path(samref.__file__).parent, Path(__file__).parents[2], *plugins.roots())]
        options = {"address": address, "runtime_env": {"py_modules": packages, "env_vars": ENVIRONMENT}}
    if not joined:
        start_workers_once()
    with explained(address), without_stderr(), not_heard_by_children():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, job_config=_job_config(), **options)
    try:
        with _silent():
            yield [node["Resources"] for node in _alive()]
    finally:
        if not joined:
            leave()


def own_token() -> None:
    """Give this process and its children a token where Ray cannot keep the one that it makes: in ~/.ray."""
    if any(os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(exist_ok=True)
        if (folder / "auth_token").exists() or os.access(folder, os.W_OK):
            return
    except (OSError, RuntimeError):  # a home that is not there or another's, or no home at all
        pass
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def start_workers_once() -> None:
    """Have Tune use workers that Ray has ready, where Ray itself gives them the variables of `ENVIRONMENT`.

    Tune gives its workers one of these again, and one for PyTorch Lightning, for which Ray would start each anew and
    its Python twice: seconds.
    """
    class_cache.DEFAULT_ENV_VARS.clear()
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(ENVIRONMENT)


@contextmanager
def _silent() -> Iterator[None]:
    """Meanwhile Ray prints nothing of lost workers, which the dispatcher tells of: it would on stdout, among JSON."""
    ray._private.worker._worker_logs_enabled = False  # as Ray's own debugger does
    try:
        yield
    finally:
        ray._private.worker._worker_logs_enabled = True


class _Fixed(list[str]):
    """A list that others cannot make longer."""

    def extend(self, more: object) -> None: ...


def _job_config() -> ray.job_config.JobConfig:
    """A job whose workers import what this process does.

    Ray puts the working folder in front of its workers' path: a clone that lies there, as `sam2/`, would be imported
    in place of the package that is installed.
    """
    config = ray.job_config.JobConfig()
    if Path.cwd() not in [Path(each).absolute() for each in sys.path]:
        config._py_driver_sys_path = _Fixed()
    return config


def _check_address(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try for minutes, with warnings on the screen."""
    if address == "auto":  # what RAY_ADDRESS names, or a file that a killed cluster may have left
        with explained(address):
            address = ray._private.services.canonicalize_bootstrap_address(address) or ""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and port.isdecimal()):
        raise ResourceError(f"--address {address} is no address of a Ray cluster; write HEAD:6379, or auto on its node")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"--address {address}: nobody answers there ({error}); is the head up, and is this the port that it was "
            "started with?"
        ) from None


@contextmanager
def explained(address: str | None) -> Iterator[None]:
    """Say in one line (`ResourceError`) why Ray could not start here, or could not be reached."""
    try:
        yield
    except Exception as error:  # Ray has no class of its own for most of them
        raise ResourceError(_why(address, error)) from None


def _why(address: str | None, error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    if address is None:
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        wanted = "a short one" if "AF_UNIX" in text else "one that can be written"
        if Path(folder).is_dir() and shutil.disk_usage(folder).free < MIN_FREE_BYTES:
            wanted = "one on a disk that is not full"
        return f"Ray cannot start on this machine: {text}; its files go to {folder}: name {wanted} with RAY_TMPDIR"
    if isinstance(error, ray.exceptions.AuthenticationError) or "token" in text.lower():
        return (
            f"--address {address}: the cluster does not take this process' token; set RAY_AUTH_MODE=token, and "
            f"RAY_AUTH_TOKEN or ~/.ray/auth_token to the head's: {text}"
        )
    if "Version mismatch" in text:
        return f"--address {address}: the driver needs the cluster's versions of Ray and Python: {text}"
    versions = f"Ray {ray.__version__} with Python {platform.python_version()}"
    return (
        f"--address {address}: no Ray cluster answers there: {text}; is it its head's port, is it {versions}, does it "
        "want a token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN)?"
    )


@contextmanager
def without_stderr() -> Iterator[None]:
    """Meanwhile nothing reaches stderr, where Ray's C++ says in many lines what its exception then says in one."""
    try:
        kept = os.dup(2)
    except OSError:  # there is none
        yield
        return
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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
