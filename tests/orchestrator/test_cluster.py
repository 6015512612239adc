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

DRIVER = """
import json, sys, time
from dataclasses import asdict, replace
from pathlib import Path

import ray
import ray.cloudpickle
import toys
from samref_sweep.spec.policy import Retry
from samref_sweep.store.folder import FolderStore
from samref_sweep.errors import SpecError
from samref_sweep.errors import StoreError

ray.cloudpickle.register_pickle_by_value(toys)  # the nodes do not have it
ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])

def wait_at_first(job, report):
    stage, scratch = job.stages[0], job.scratch
    if stage.kind == "train":
        import samref_sweep
        with open(attempts / stage.id, "a") as file:
            file.write(ray.get_runtime_context().get_node_id() + " " + samref_sweep.__file__ + "\\n")
        if not (scratch / "step-1").exists():
            (scratch / "step-1").mkdir()
            time.sleep(300)
    toys.write_toy_stage(job, report)

root, address, node_lost = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
attempts = root / "attempts"
attempts.mkdir(parents=True, exist_ok=True)
store = FolderStore(root / "store")
planned = toys.toy_plan(store, thetas=(1.1,))
planned = replace(planned, sweep=replace(planned.sweep, retry=Retry(node_lost=node_lost)))
try:
    result, events = toys.run_toys(planned, store, wait_at_first, address=address, jobs=None)
except (SpecError, StoreError) as error:
    print("refused:", error)
else:
    print(json.dumps({stage: asdict(failure) for stage, failure in result.failures.items()}))
"""


@dataclass
class Nodes:
    """A cluster; node 0 is its head."""

    address: str
    python: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

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

    def ray(self, code: str, *arguments: str) -> str:
        """Run code that is connected to the cluster."""
        code = f"import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR'); {code}"
        command = [str(self.python), "-c", code, self.address, *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout.strip()

    def alive(self) -> dict[str, int]:
        """Node's id → process id of its raylet, but the head's."""
        said = self.ray("import json; print(json.dumps([n for n in ray.nodes() if n['Alive']]))")
        (line,) = [line for line in said.splitlines() if line.startswith("[{")]
        nodes = [node for node in json.loads(line) if "node:__internal_head__" not in node["Resources"]]
        raylets = subprocess.run(["pgrep", "-af", "raylet/raylet"], capture_output=True, text=True).stdout.splitlines()
        return {n["NodeID"]: int(line.split()[0]) for n in nodes for line in raylets if n["NodeID"] in line}

    def driver(self, root: Path, node_lost: int, **environment: str) -> subprocess.Popen[str]:
        env = os.environ | self.environment | {"PYTHONPATH": str(Path(__file__).parent)} | environment
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(root), self.address, str(node_lost)],
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=self.python.parent,
        )


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("cluster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "HOME": str(folder)}
    cluster = Nodes(f"127.0.0.1:{port}", python_without_us(folder / "venv"), environment)
    cluster.start("--head", f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1")
    try:
        wait_for(lambda: cluster.ray("print('up')") == "up")
        yield cluster
    finally:
        for process in cluster.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def python_without_us(folder: Path) -> Path:
    """A Python that has every package of this one but the project's own."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix != ".pth" and "samref" not in path.name:
            (site / path.name).symlink_to(path)
    python = folder / "bin" / "python"
    assert subprocess.run([python, "-c", "import samref"], capture_output=True, cwd=folder).returncode != 0
    return python


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(800):  # minutes: Ray starts slowly on a busy machine
        with contextlib.suppress(subprocess.CalledProcessError, FileNotFoundError):
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


def test_without_the_token_no_one_joins(nodes: Nodes, tmp_path: Path) -> None:
    said = finish(nodes.driver(tmp_path, 0, RAY_AUTH_TOKEN="b" * 64))
    assert said.startswith(f"refused: --address {nodes.address}: no Ray cluster answers there: ")


@pytest.mark.parametrize("preempted", [False, True], ids=["killed", "preempted"])
def test_a_nodes_training_goes_on_elsewhere_from_its_checkpoint(nodes: Nodes, tmp_path: Path, preempted: bool) -> None:
    nodes.join()
    wait_for(lambda: len(nodes.alive()) == 1)
    ((node, raylet),) = nodes.alive().items()
    process = nodes.driver(tmp_path, node_lost=0 if preempted else 1)
    try:
        wait_for(lambda: train_on(tmp_path, node) and len(attempts(tmp_path)) == 2)
        lost = train_on(tmp_path, node)
        assert lost is not None
        if preempted:
            reason = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "1"]
            command = [str(nodes.python), "-m", "ray.scripts.scripts", "drain-node", "--address", nodes.address]
            command += ["--node-id", node, *reason, "--reason-message", "spot"]
            subprocess.run(command, env=nodes.environment, check=True, capture_output=True)
            time.sleep(2)
        os.killpg(nodes.processes[-1].pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(raylet, signal.SIGKILL)
        nodes.join()
        wait_for(lambda: len(attempts(tmp_path)[lost]) == 2)
        first, second = attempts(tmp_path)[lost]
        assert first[0] == node != second[0]
        assert "runtime_resources" in first[1], "the packages came from the driver"
        wait_for(lambda: FolderStore(tmp_path / "store").has(lost))
    finally:
        process.kill()
        process.wait()


def test_a_store_that_a_node_does_not_see_is_refused_by_name(nodes: Nodes, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    mount = f'mount -t tmpfs tmpfs {hidden} && exec "$@"'
    before = len(nodes.alive())
    nodes.join(prefix=("unshare", "--mount", "sh", "-c", mount, "sh"))
    wait_for(lambda: len(nodes.alive()) == before + 1)
    said = finish(nodes.driver(hidden, 0))
    assert said.startswith("refused: node ")
    assert f"cannot write to the store {hidden}/store: No such file or directory; choose one that" in said
    assert toy_plan(FolderStore(hidden / "store")).works
