"""A real Slurm of one node on this machine, on loopback alone: munged, slurmctld and slurmd (Debian's slurm-wlm)."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from s3 import free_port

CONFIGURATION = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """What users do with it; `folder` is where they submit."""

    def __init__(self, folder: Path, configuration: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "SLURM_CONF": str(configuration)}

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def submit(self, log: str, *arguments: str) -> str:
        """Submit a batch script of one CPU, whose output goes to `log`; gives the job's id."""
        options = ("--parsable", "--gpus-per-node=0", "--cpus-per-task=1", f"--output={log}")
        return self.ask("sbatch", *options, *arguments)

    def state(self, job: str) -> str:
        """`RUNNING`, `COMPLETED`, `FAILED`, `CANCELLED` …"""
        said = self.ask("scontrol", "show", "job", job)
        return said.partition("JobState=")[2].split()[0]

    def log(self, name: str) -> str:
        """What a job has printed so far."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """One node of two CPUs, up for the time of the block."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True, mode=0o700)
    key, host = folder / "munge" / "key", socket.gethostname().partition(".")[0]
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, host=host, ports=(free_port(), free_port())))
    munge = {name: folder / "munge" / name for name in ("socket", "pid-file", "log-file", "seed-file")}
    daemons = (
        [
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            *(f"--{name}={path}" for name, path in munge.items()),
        ],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-f", str(configuration), "-N", host],
    )
    made = Slurm(folder, configuration)
    with ExitStack() as stack:
        for command in daemons:
            with (folder / f"{command[0]}.log").open("w") as log:
                stack.enter_context(_running(command, log.fileno()))
            time.sleep(0.5)
        for _ in range(100):
            if made.ask("sinfo", "--noheader", "--format=%T") == "idle":
                break
            time.sleep(0.2)
        try:
            yield made
        finally:
            subprocess.run(["scancel", "--user=root"], env={**os.environ, "SLURM_CONF": str(configuration)})
            time.sleep(1)


@contextmanager
def _running(command: list[str], log: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
