"""Whether the connected cluster is still there, as what node this is in it, and how a process leaves it (Ray 2.60)."""

import atexit
import contextlib
import os
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psutil
import ray

from samref.command_line import INTERRUPTED

ANSWER_SECONDS = 2.0
MISSES = 3
"""Looks in succession at which a cluster that does not answer is gone."""


def node_here() -> str:
    """Ray's id of the node that this process is on."""
    return str(ray.get_runtime_context().get_node_id())


def leave() -> None:
    """End this process's connection, and the cluster that it started; one that is gone is left without a word."""
    node: Any = ray._private.worker._global_node
    started: list[psutil.Process] = []
    for kind, infos in node.all_processes.items() if node else ():
        for info in infos:
            with contextlib.suppress(psutil.NoSuchProcess):
                started += psutil.Process(info.process.pid).children(recursive=True)
            # They do not hear SIGTERM, after which Ray waits a second; only the raylet should outlive our connection.
            if kind != "raylet":
                info.process.terminate = info.process.kill
    if answers():
        ray.shutdown()
    else:
        # Ray's own end would wait a minute for the cluster, and then end the process with another exit code.
        atexit.unregister(ray.shutdown)
        atexit.register(_exit)
        if node:
            node.kill_all_processes(check_alive=False)
    for each in started:  # some notice only after seconds that they are alone
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def _exit() -> None:
    """End the process now, as one whose sweep was interrupted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def answers() -> bool:
    """Whether the server of the connected cluster can be reached."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


@dataclass
class Gone:
    """Whether a cluster is gone, by looking at it every `ANSWER_SECONDS`."""

    misses: int = 0
    looked: float = field(default_factory=time.monotonic)

    def for_good(self) -> bool:
        """Whether the cluster did not answer several times in succession."""
        if time.monotonic() - self.looked >= ANSWER_SECONDS:
            self.misses = 0 if answers() else self.misses + 1
            self.looked = time.monotonic()
        return self.misses >= MISSES
