"""The provenance of a number: commit, versions, kind of machine and time, without the name of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from resattn.networks.catalog import named

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch", "numpy", "pandas", "matplotlib", "scikit-learn", "lightning-fabric", "fvcore", "torchinfo",
    "papermill", "nbclient", "ipykernel", "jupyterlab", "snakemake",
)  # fmt: skip
_IMPORTED = (datetime.now(UTC), time.monotonic())


def provenance(*, start: datetime | None = None, device: str = "cpu", **extra: Any) -> dict[str, Any]:
    """The circumstances of a computation, as plain JSON values.

    `start`: when the work began (default: when this module was imported, as a notebook's work begins); `elapsed_s` is
    counted from there. `extra` holds digests, seeds and the like, and may not replace a standard key. It contains no
    path, host or user name; strings in `extra` pass through `scrub`.
    """
    record: dict[str, Any] = {
        **_commit(),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": usable_cpus(),
        "threads": _threads(),
        "device": device,
        "start": (start or _IMPORTED[0]).astimezone(UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(max(_elapsed(start) / timedelta(seconds=1), 0.0), 3),
    }
    if hidden := sorted(record.keys() & extra.keys()):
        raise ValueError(f"provenance has its own {', '.join(hidden)}; give the extra another name")
    return record | {key: _scrubbed(value) for key, value in extra.items()}


def about(networks: Iterable[str], **extra: Any) -> dict[str, Any]:
    """The provenance of a table about some networks: the circumstances, and the digest of each network's spec."""
    return provenance(specs={name: named(name).digest for name in networks}, **extra)


def scrub(text: str) -> str:
    """`text` without paths that identify the machine: the checkout, the environment, the home folder."""
    places = [(str(ROOT), "."), (sys.prefix, "(environment)"), (os.path.expanduser("~"), "~")]
    for place, name in sorted(places, key=lambda pair: -len(pair[0])):
        if len(Path(place).parts) > 1:  # a checkout in / would match everywhere
            text = text.replace(place + os.sep, name + "/")
    return text


def usable_cpus() -> int:
    """Processors that this process may use; on a cluster the machine may have more."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _scrubbed(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {key: _scrubbed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(item) for item in value]
    return value


def _commit() -> dict[str, str | bool | None]:
    """The checkout's commit and whether its files differ from it, results aside; None outside a git checkout."""
    # The ceiling keeps git from taking the commit of some other repository that the checkout lies in.
    # Nor does a variable, such as GIT_DIR, that somebody set for another one.
    others = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment = {**others, "GIT_CEILING_DIRECTORIES": str(ROOT.parent), "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        try:
            run = subprocess.run(
                ["git", "-C", str(ROOT), *arguments], env=environment, capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    # A study that writes the results that are kept is not made by other code for that.
    changes = git("status", "--porcelain", "--", ".", ":!results") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _threads() -> int | None:
    """Threads of torch where it is loaded, else the number that a job was given; None: not limited."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else None


def _elapsed(start: datetime | None) -> timedelta:
    if start is None:
        return timedelta(seconds=time.monotonic() - _IMPORTED[1])  # a clock that jumps does not touch this one
    return datetime.now(UTC) - start
