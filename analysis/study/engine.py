"""Runs snakemake, here or on a cluster: its command line, and its process from start to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes.util import find_library
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import yaml
from platformdirs import user_cache_path

from analysis.study.processes import PARENT, PLACES, chosen_data, own_environment, python_path, signal_group
from analysis.study.profiles import WORKFLOW, Profile, StudyError
from analysis.tables.provenance import usable_cpus

CLUSTERS = WORKFLOW / "clusters"  # snakemake profiles
SNAKEMAKE_LOG, SNAKEMAKE_RECORDS = "snakemake.log", ".snakemake"  # nothing is taken from the records
KERNELS = ".kernels"  # the places for them
# Environment: what the shell of a job would read first, and what a user has for other workflows.
FOR_OTHERS = ("BASH_", "SNAKEMAKE_PROFILE")
AHEAD = 2  # jobs that are begun and wait, all imports done, for the kernel of another to end


class Engine(NamedTuple):
    """Where the jobs run."""

    words: Sequence[str]  # for snakemake
    kernels: int | None  # that run here at a time; None: as many as snakemake begins jobs


def engine_for(out: Path, cores: int | None, on: str | None, options: Sequence[str]) -> Engine:
    """The engine for these options: where the jobs run, and how many in parallel."""
    words = [*([] if on is None else _cluster(on, out)), *options]
    if any(word.split("=")[0] in ("--profile", "--executor", "-e") for word in words):  # the jobs run elsewhere
        return Engine(words if cores is None else [*words, "--cores", str(cores)], None)
    kernels = cores or usable_cpus()
    return Engine(["--cores", str(kernels + AHEAD), *words], kernels)


def _cluster(name: str, out: Path) -> list[str]:
    """The words for a snakemake profile, whose executor is installed: one of ours, or a folder."""
    folder = CLUSTERS / name if "/" not in name else Path(name)
    if not (folder / "config.yaml").is_file():
        known = sorted(file.parent.name for file in CLUSTERS.glob("*/config.yaml"))
        near = get_close_matches(name, known) or known
        raise StudyError(f"no snakemake profile {name!r} (a folder with a config.yaml, or one of: {', '.join(near)})")
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        executor = settings.get("executor", "local")
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise StudyError(f"{folder / 'config.yaml'} is no snakemake profile: {error}") from error
    plugin = f"snakemake_executor_plugin_{executor}".replace("-", "_")
    if executor not in ("local", "dryrun", "touch") and not find_spec(plugin):
        raise StudyError(
            f"snakemake has no executor {executor!r} here: pip install --constraint constraints.txt -e '.[{executor}]'"
        )
    # A pod works in a folder of its own, and has the results folder mounted where it is here.
    mounted = ["--config", f"results={out}"] if executor == "kubernetes" else []
    return ["--profile", str(folder.resolve()), *mounted]


def snakemake_command(profile: Profile, out: Path, engine: Engine) -> list[str]:
    """The command that runs the plan in a results folder."""
    # GPUs of this machine are counted by snakemake, those of a cluster by the cluster.
    gpus = [f"--resources=gpu={profile.gpus}"] if profile.gpus and engine.kernels is not None else []
    # As `python -m snakemake`, but ending when it is done, and not outliving this process. Its lock is superseded by
    # ours, which it inherits.
    return [
        sys.executable, "-P", "-c",
        "from analysis.study.processes import end_with, follow_parent; follow_parent(); "
        "from snakemake.cli import main; end_with(main)",
        "--snakefile", str(WORKFLOW / "Snakefile"), "--directory", str(out), "--nolock", "--keep-going",
        "--rerun-incomplete", "--rerun-triggers", "params", "--scheduler", "greedy", "--workflow-profile", "none",
        *gpus, *engine.words,
    ]  # fmt: skip


def allocator() -> dict[str, str]:
    """Environment variables that give the jobs tcmalloc, if it is installed and nothing else is preloaded.

    Training takes about 12 % less CPU time with it (docs/how-to/recipes.md), with the same bits.
    """
    if sys.platform != "linux" or "LD_PRELOAD" in os.environ:
        return {}
    name = find_library("tcmalloc_minimal") or find_library("tcmalloc")
    return {} if name is None else {"LD_PRELOAD": name}


def environment_of(out: Path, engine: Engine) -> dict[str, str]:
    """The environment of snakemake and its jobs."""
    own = {name: value for name, value in own_environment().items() if not name.startswith(FOR_OTHERS)}
    own |= {"PYTHONPATH": python_path(), PARENT: str(os.getpid())} | chosen_data() | _cache(out)
    return own if engine.kernels is None else own | {PLACES: f"{engine.kernels}:{out / KERNELS}"} | allocator()


def _cache(out: Path) -> dict[str, str]:
    """Environment that gives snakemake a cache in the results folder where it can make none for the user, as in a
    container; datasets stay in the user's."""
    folder = user_cache_path("snakemake", "snakemake")
    with suppress(OSError):
        if folder.is_absolute():  # not so for a user who has no home
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return {}
    from resattn.training.data import home

    return {"XDG_CACHE_HOME": str(out / SNAKEMAKE_RECORDS / "cache"), "RESATTN_DATA": os.path.abspath(home())}


def run_snakemake(
    profile: Profile, out: Path, engine: Engine, lock: int, *, once: Callable[[], object], often: Callable[[], None]
) -> int:
    """snakemake's exit status; its output goes to a file. Raises: KeyboardInterrupt after it has ended.

    `once` is called while it starts, `often` twice a second.
    """
    with (out / SNAKEMAKE_LOG).open("a") as log:
        process = subprocess.Popen(
            snakemake_command(profile, out, engine), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=environment_of(out, engine), start_new_session=True, pass_fds=[lock],
        )  # fmt: skip
        try:
            once()
            while (code := process.poll()) is None:
                often()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
            often()
            return code
        except KeyboardInterrupt:
            signal_group(process.pid)
            try:
                process.wait(timeout=30)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                signal_group(process.pid, signal.SIGKILL)
                process.wait()
            raise
