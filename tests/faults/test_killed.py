"""Processes that end by kill -9: at work behind their first checkpoint, and ten times in a row at drawn moments."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from study.conftest import LIMIT_S, ROOT, processes_below, wait_for

# A kernel waits behind its first checkpoint, so that something can happen to it there.
AT_CHECKPOINT = """\
if "seed" in globals():
    from resattn.training import loop
    def save(*words, real=loop.save):
        real(*words)
        pathlib.Path("here").touch()
        while pathlib.Path("fault.py").exists():
            time.sleep(0.02)
    loop.save = save
"""


def _victims(study: int, which: str) -> list[int]:
    match which:
        case "study":
            return [study]
        case "all":
            return [study, *processes_below(study, "")]
        case _:
            return processes_below(study, which)[:1]


def _kill(study: int, which: str) -> None:
    for pid in _victims(study, which):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _try(trial, undisturbed, tmp_path, which: str) -> None:
    place = undisturbed("train").copy(tmp_path / "p", whole=False)
    place.happens(AT_CHECKPOINT)
    first = place.start()
    wait_for((place.folder / "notebooks" / "here").exists)
    _kill(first.pid, which)
    place.happens("")
    first.communicate(timeout=LIMIT_S)
    trial.ends_right(place, undisturbed("train"))


SNAKEMAKE, JOB, KERNEL = "snakemake.cli", "cli notebook", "ipykernel_launcher"


@pytest.mark.long
@pytest.mark.fault("kill -9 of the study", tries=1)
def test_the_study_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, "study")


@pytest.mark.long
@pytest.mark.fault("kill -9 of snakemake", tries=1)
def test_snakemake_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, SNAKEMAKE)


@pytest.mark.long
@pytest.mark.fault("kill -9 of one job", tries=1)
def test_a_job_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, JOB)


@pytest.mark.long
@pytest.mark.fault("kill -9 of a kernel", tries=1)
def test_a_kernel_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, KERNEL)


@pytest.mark.long
@pytest.mark.fault("kill -9 of all processes at once", tries=1)
def test_all_processes_are_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, "all")


# --- again and again, while the machine has other work --------------------------------------------------------------


@contextmanager
def _load() -> Iterator[None]:
    """As many busy processes as there are processors."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.long
@pytest.mark.fault("kill -9 of a study at ten drawn moments, under load", tries=10)
def test_a_study_is_killed_ten_times(trial, undisturbed, tmp_path):
    draw = random.Random(trial.name)
    place = undisturbed("train").copy(tmp_path / "p", whole=False)
    with _load():
        for which in ["study", "all", SNAKEMAKE, JOB, KERNEL] * 2:
            study = place.start()
            with suppress(subprocess.TimeoutExpired):
                study.wait(timeout=draw.uniform(0.5, 30))
            _kill(study.pid, which)
            with suppress(subprocess.TimeoutExpired):
                study.wait(timeout=draw.uniform(0, 3))
            _kill(study.pid, "all")
            study.communicate()
    trial.ends_right(place, undisturbed("train"), tries=10)


ON_TWO = """\
import sys
from resattn.networks.catalog import named
from resattn.training.config import TrainConfig
from resattn.training.data import digits
from resattn.training.loop import train
if __name__ == "__main__":
    config = TrainConfig(spec=named("cifar-resnet8-basic[width=4]"), dataset="cluttered-digits", epochs=40, images=200,
                         test_images=20, batch_size=10, seed=0, precision="fp32", threads=1, devices=2,
                         accelerator="cpu", strategy="ddp")
    print(train(config, sys.argv[1], dataset=digits(train=200, test=20), say=lambda line: None).weights_digest)
"""


def _written(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


@pytest.mark.long
@pytest.mark.fault("kill -9 of a training on two processes at ten drawn moments, under load", tries=10)
def test_a_training_on_two_processes_is_killed_ten_times(trial, tmp_path):
    script, draw = tmp_path / "on_two.py", random.Random(trial.name)
    script.write_text(ON_TWO)

    def begin(out: Path) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, str(script), str(out)], cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    alone = begin(whole).communicate()[0]
    checkpoint = killed / "checkpoint.pt"
    with _load():
        for number in range(10):
            process = begin(killed)
            before = _written(checkpoint)
            if number % 2:  # soon after an epoch, else at any moment
                while process.poll() is None and _written(checkpoint) == before:
                    time.sleep(0.05)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=draw.uniform(0, 1 if number % 2 else 20))
            below = processes_below(process.pid, "")
            # The rest has to end by itself.
            for victim in (below[-1:], [process.pid], [process.pid, *below])[number % 3]:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            process.communicate()
    trial.tries += 10
    again = begin(killed).communicate()[0]
    files = ("metrics.csv", "correct.bin")
    trial.lost += sum(not (killed / name).exists() for name in files)
    trial.wrong += again != alone or any((killed / n).read_bytes() != (whole / n).read_bytes() for n in files)
    assert alone
    assert (trial.lost, trial.wrong) == (0, 0)
