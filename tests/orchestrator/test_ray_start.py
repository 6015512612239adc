"""Before Ray runs: what of the machine is allotted, and why a cluster cannot be started or reached, in one line."""

import os
import socket
from pathlib import Path

import pytest
import ray

from samref_sweep.errors import ResourceError
from samref_sweep.execution import allotment
from samref_sweep.execution.ray import cluster


def cgroup(root: Path, lines: str, **files: str) -> Path:
    for name, text in {"proc/self/cgroup": lines, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = {
    f"sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_{name}_us": text
    for name, text in (("quota", "150000\n"), ("period", "100000"))
}


V2 = {"sys/fs/cgroup/job/cpu.max": "100000 100000\n", "sys/fs/cgroup/job/step/cpu.max": "max 100000"}


@pytest.mark.parametrize(
    ("environment", "lines", "files", "expected"),
    [
        ({}, "0::/\n", {}, None),
        ({}, "0::/job/step\n", V2, (1, "the control group's quota")),
        ({}, "4:memory:/slurm/job_7\n3:cpu,cpuacct:/slurm/job_7\n", V1, (1, "the control group's quota")),
        ({}, "no control groups", {}, None),
        ({"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "64"}, "", {}, (1, "SLURM_CPUS_PER_TASK")),
        ({"SLURM_CPUS_ON_NODE": "1"}, "", {}, (1, "SLURM_CPUS_ON_NODE")),
        ({"SLURM_CPUS_ON_NODE": "72(x2)"}, "", {}, None),
    ],
)  # fmt: skip
def test_cpus_are_what_is_allotted(
    tmp_path: Path, environment: dict[str, str], lines: str, files: dict[str, str], expected: tuple[int, str] | None
) -> None:
    if (whole := allotment.cpus({}, tmp_path))[0] == 1:
        pytest.skip("a machine of one CPU has nothing to take away")
    assert allotment.cpus(environment, cgroup(tmp_path, lines, **files)) == (expected or whole)


JOB_1 = "sys/fs/cgroup/memory/slurm/job_7"
JOB_2 = "sys/fs/cgroup/job"
NO_LIMIT = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("lines", "files", "expected", "killed"),
    [
        ("0::/\n", {}, None, 0),
        ("0::/job/step\n", {f"{JOB_2}/memory.max": "2000000\n", f"{JOB_2}/step/memory.max": "max\n"}, 2000000, 0),
        ("0::/job\n", {f"{JOB_2}/memory.max": "max", f"{JOB_2}/memory.events": "oom 4\noom_kill 3\n"}, None, 3),
        ("4:memory:/slurm/job_7\n0::/\n", {f"{JOB_1}/memory.limit_in_bytes": "2000000\n"}, 2000000, 0),
        ("4:memory:/slurm/job_7\n", {f"{JOB_1}/memory.limit_in_bytes": NO_LIMIT}, None, 0),
        ("4:memory:/slurm/job_7\n", {f"{JOB_1}/memory.oom_control": "under_oom 0\noom_kill 2\n"}, None, 2),
    ],
)  # fmt: skip
def test_memory_is_what_is_allotted_and_who_was_killed_for_it_is_counted(
    tmp_path: Path, lines: str, files: dict[str, str], expected: int | None, killed: int
) -> None:
    whole = allotment.memory(tmp_path)
    group = cgroup(tmp_path, lines, **files)
    assert allotment.memory(group) == ((expected, "the control group's limit") if expected else whole)
    assert allotment.killed(group) == killed


def test_cpu_affinity_is_kept(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert allotment.cpus({}, tmp_path)[0] == 1
        assert allotment.this_machine()[0]["CPU"] == 1
        few = f"1 of this machine's {os.cpu_count()} CPUs are used (CPU affinity)"
        assert os.cpu_count() == 1 or few in allotment.notes()
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.parametrize(
    ("named", "count", "absent"),
    [
        (None, 2, False), ("0", 1, False), ("1,0", 2, False), ("", 0, False), ("-1", 0, False), ("0,-1", 1, False),
        ("7", 0, True), ("0,7", 1, True), ("GPU-ab", 1, False), ("GPU-xy", 0, True), ("MIG-1", 1, False),
    ],
)  # fmt: skip
def test_gpus_that_are_not_there_are_not_counted(named: str | None, count: int, absent: bool) -> None:
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    found = allotment.gpus(environment, {0: "GPU-abc", 1: "GPU-def"})
    assert found == (count, f"CUDA_VISIBLE_DEVICES={named}" if absent else "")
    if named:
        assert allotment.gpus(environment, {})[0] == 0


@pytest.mark.parametrize("is_named", [True, False])
def test_an_address_at_which_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, is_named: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{(port := free.getsockname()[1])}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(ResourceError, match=rf"^--address \S+:{port}: nobody answers there \(.*refused"),
        cluster.connected(address if is_named else "auto"),
    ):
        pass


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", "head:x", "http://127.0.0.1:8265"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with (
        pytest.raises(ResourceError, match="is no address of a Ray cluster; write HEAD:6379"),
        cluster.connected(address),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (None, OSError("AF_UNIX path length cannot exceed 107 bytes"), "name a short one with RAY_TMPDIR"),
        (None, PermissionError(13, "Permission denied", "/x"), "name one that can be written with RAY_TMPDIR"),
        (None, Exception("The current node timed out during startup."), "name one that can be written with RAY_TMPDIR"),
        ("h:1", ray.exceptions.AuthenticationError("none was found"), "does not take this process' token; "),
        ("h:1", RuntimeError("Version mismatch: The cluster was\nstarted with"), "the cluster's versions of Ray"),
        ("h:1", ConnectionError("Failed to connect"), f"no Ray cluster answers .* Ray {ray.__version__} "),
    ],
)  # fmt: skip
def test_each_cause_has_its_line(address: str | None, error: Exception, said: str) -> None:
    with pytest.raises(ResourceError, match=said) as caught, cluster.explained(address):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.root
def test_a_full_disk_is_why_ray_does_not_start(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(small_disk))
    said = f"{small_disk}: name one on a disk that is not full with RAY_TMPDIR$"
    with pytest.raises(ResourceError, match=said), cluster.explained(None):
        raise Exception("The current node timed out during startup.")  # as Ray has it


def test_what_cpp_prints_meanwhile_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with cluster.without_stderr():
        os.write(2, b"W 795 795] rpc_client.h:153: Failed to connect\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize(
    ("environment", "is_made"),
    [({"HOME": "/proc"}, True), ({"HOME": "/proc", "RAY_AUTH_MODE": "disabled"}, False), ({}, False)],
)
def test_a_token_is_made_where_no_home_folder_can_keep_rays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_made: bool
) -> None:
    """A container that runs under a bare number has / for a home, and Ray could not start there."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is taken back
    for name, value in {"HOME": str(tmp_path), **environment}.items():
        monkeypatch.setenv(name, value)
    cluster.own_token()
    assert bool(os.environ["RAY_AUTH_TOKEN"]) == is_made
