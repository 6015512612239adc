"""A real Ray cluster of three nodes on this machine: tokens, packages, a store not shared, nodes killed and preempted.

The nodes' Python has all packages but ours; each node is a `ray start --block` of its own.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from toys import toy_plan

from samref_sweep.store.folder import FolderStore

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("programs") / "cluster_driver.py"
LISTER = DRIVER.with_name("list_nodes.py")


@dataclass
class Nodes:
    """A cluster; node 0 is its head."""

    address: str
    python: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    lister: subprocess.Popen[str] | None = None

    def start(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, str(self.python), "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *options]
        self.processes.append(
            subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.python.parent,  # where our packages are not
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def join(self, prefix: tuple[str, ...] = ()) -> None:
        self.start(f"--address={self.address}", prefix=prefix)

    def has_one(self) -> bool:
        """Whether one node has joined; where Ray gave up after the 30 s that it waits for one, it is started again."""
        if self.processes[-1].poll() is not None:
            self.join()
        return len(self.alive()) == 1

    def alive(self) -> dict[str, int]:
        """Node's id → process id of its raylet, but the head's."""
        if self.lister is None or self.lister.poll() is not None:  # the head is not up at once
            self.lister = subprocess.Popen(
                [self.python, LISTER, self.address],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self.lister.stdin is not None
        assert self.lister.stdout is not None
        self.lister.stdin.write("\n")
        self.lister.stdin.flush()
        said = next((line for line in self.lister.stdout if line.startswith("[")), None)
        if said is None:
            raise ConnectionError("the lister ended")
        ids = json.loads(said)
        raylets = subprocess.run(["pgrep", "-af", "raylet/raylet"], capture_output=True, text=True).stdout.splitlines()
        return {node: int(line.split()[0]) for node in ids for line in raylets if node in line}

    def driver(self, root: Path, **environment: str) -> subprocess.Popen[str]:
        env = os.environ | self.environment | environment
        return subprocess.Popen(
            [sys.executable, DRIVER, str(root), self.address],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=self.python.parent,
        )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head, to which no other node belongs yet."""
    home = tmp_path_factory.mktemp("home")
    python = python_without_us(tmp_path_factory.mktemp("python") / "venv")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "HOME": str(home)}
    environment["RAY_health_check_period_ms"] = "1000"  # so that a killed node is missed in seconds
    nodes = Nodes(f"127.0.0.1:{port}", python, environment)
    nodes.start("--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1")
    try:
        wait_for(lambda: nodes.alive() == {})
        yield nodes
    finally:
        for process in filter(None, [*nodes.processes, nodes.lister]):
            with contextlib.suppress(ProcessLookupError):
                process.kill() if process is nodes.lister else os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def python_without_us(folder: Path) -> Path:
    """A Python that has every package of this one but the project's own."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix != ".pth" and "samref" not in path.name:
            (site / path.name).symlink_to(path)
    python = folder / "bin" / "python"
    command = [python, "-I", "-c", "import samref"]
    assert subprocess.run(command, capture_output=True, cwd=folder).returncode != 0
    return python


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(800):  # minutes: Ray starts slowly on a busy machine
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            if condition():
                return
        time.sleep(0.3)
    raise TimeoutError


def attempts(root: Path) -> dict[str, list[list[str]]]:
    """Training's stage → node and package's file of each attempt."""
    return {path.name: [line.split() for line in path.read_text().splitlines()] for path in root.glob("attempts/*")}


def train_on(root: Path, node: str) -> str | None:
    return next((stage for stage, tries in attempts(root).items() if tries and tries[-1][0] == node), None)


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=240)
    return said.splitlines()[-1]


def test_a_nodes_training_goes_on_elsewhere_from_its_checkpoint(nodes: Nodes, tmp_path: Path) -> None:
    """One is lost with a node that its provider takes back, which is no attempt, and again with one that is killed."""
    without_the_token = nodes.driver(tmp_path, RAY_AUTH_TOKEN="b" * 64)
    nodes.join()
    refused = f"refused: --address {nodes.address}: no Ray cluster answers there: "
    assert finish(without_the_token).startswith(refused)
    process, before = None, []
    try:
        for preempted in (True, False):
            wait_for(nodes.has_one)
            ((node, raylet),) = nodes.alive().items()
            process = process or nodes.driver(tmp_path)
            wait_for(lambda node=node: train_on(tmp_path, node) and len(attempts(tmp_path)) == 2)
            lost = train_on(tmp_path, node)
            assert lost is not None
            before.append(node)
            if preempted:
                drain(nodes, node)
            os.killpg(nodes.processes[-1].pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(raylet, signal.SIGKILL)
            nodes.join()
        wait_for(lambda: nodes.has_one() and len(attempts(tmp_path)[lost]) == 3)
        tries = attempts(tmp_path)[lost]
        assert [node for node, _ in tries[:2]] == before
        assert tries[2][0] not in before
        assert "runtime_resources" in tries[0][1], "the packages came from the driver"
        wait_for(lambda: FolderStore(tmp_path / "store").has(lost))
    finally:
        if process:
            process.kill()
            process.wait()


def drain(nodes: Nodes, node: str) -> None:
    """Tell a cluster that a provider takes a node back."""
    reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "1"]
    command = [str(nodes.python), "-m", "ray.scripts.scripts", "drain-node", "--address", nodes.address]
    command += ["--node-id", node, *reason, "--reason-message", "spot"]
    subprocess.run(command, env=nodes.environment, check=True, capture_output=True)
    time.sleep(2)


@pytest.mark.root
def test_a_store_that_a_node_does_not_see_is_refused_by_name(nodes: Nodes, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    mount = f'mount -t tmpfs tmpfs {hidden} && exec "$@"'
    others = nodes.alive().keys()
    nodes.join(prefix=("unshare", "--mount", "sh", "-c", mount, "sh"))
    wait_for(lambda: nodes.alive().keys() - others)
    said = finish(nodes.driver(hidden))
    assert said.startswith("refused: node ")
    assert f"cannot write to the store {hidden}/store: No such file or directory; choose one that" in said
    assert toy_plan(FolderStore(hidden / "store")).works


def test_a_plugin_and_what_it_imports_come_with_the_sweep(nodes: Nodes, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    (place / "parts").mkdir(parents=True)
    (place / "net.py").write_text("import parts.block\n\ndef build():\n    return parts.block.__file__\n")
    (place / "parts" / "block.py").write_text("WIDTH = 3\n")
    command = [sys.executable, str(DRIVER.with_name("use_plugin.py")), str(place), nodes.address]
    done = subprocess.run(command, env=os.environ | nodes.environment, capture_output=True, text=True)
    here, there, file = json.loads(done.stdout)
    assert here == there
    assert "runtime_resources" in file
