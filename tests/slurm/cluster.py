"""A Slurm of one node on this machine's loopback, with its files in one folder."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
SETTINGS = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=600
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why Slurm cannot be started here; None where it can."""
    if os.geteuid():
        return "starting Slurm takes root"
    if absent := [name for name in PROGRAMS if not _program(name)]:
        return f"{', '.join(absent)} not found (Debian: apt-get install slurm-wlm munge)"
    return None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Start it and stop it; gives the environment that its commands need."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)  # munge refuses a folder that others may write to
    for name in ("spool", "state"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = _free_ports(2)
    settings = SETTINGS.format(
        folder=folder, host=socket.gethostname().partition(".")[0], cpus=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // 2,
        controller_port=ports[0], node_port=ports[1],
    )  # fmt: skip
    (folder / "slurm.conf").write_text(settings)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
    # Within a job snakemake forgets SLURM_CONF, as a cluster's settings stand in /etc; ours do not.
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {_program("srun")} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    environment = {
        "SLURM_CONF": str(folder / "slurm.conf"), "PATH": os.pathsep.join([f"{folder}/bin", os.environ["PATH"]])
    }  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        daemons.append(_start(folder, {}, "munged", "--foreground", f"--socket={folder}/munge.socket", *munge))
        _wait(daemons, (folder / "munge.socket").exists, folder)
        daemons.append(_start(folder, environment, "slurmctld", "-D", "-c"))
        daemons.append(_start(folder, environment, "slurmd", "-D"))
        _wait(daemons, lambda: _told(environment, "sinfo", "--noheader", "--format=%T") == "idle", folder)
        yield environment
    finally:
        _told(environment, "scancel", "--user=root")
        for daemon in reversed(daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=20)
            daemon.kill()
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def told(environment: dict[str, str], *words: str) -> str:
    """What a Slurm command prints."""
    run = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def _told(environment: dict[str, str], *words: str) -> str:
    with suppress(AssertionError, subprocess.TimeoutExpired):
        return told(environment, *words)
    return ""


def _start(folder: Path, environment: dict[str, str], name: str, *words: str) -> "subprocess.Popen[bytes]":
    with (folder / f"{name}.out").open("wb") as out:
        program = str(_program(name))
        return subprocess.Popen([program, *words], env={**os.environ, **environment}, stdout=out, stderr=out)


def _wait(daemons, is_ready, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_ready():
        said = "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in folder.glob("*.out"))
        assert all(daemon.poll() is None for daemon in daemons), said
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
