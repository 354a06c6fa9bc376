"""Processes that end by kill -9, at a drawn moment or at work behind their first checkpoint."""

import os
import random
import signal
import time
from contextlib import suppress

import pytest
from study.conftest import processes_below, wait_for

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


def _try(trial, undisturbed, tmp_path, *, tries: int, victims) -> None:
    """Once at a checkpoint, else at drawn moments. `victims`: of the study, gives what to kill."""
    draw = random.Random(trial.name)
    for number in range(tries):
        place = undisturbed("train").copy(tmp_path / str(number), whole=False)
        place.happens(AT_CHECKPOINT if number == 0 else "")
        first = place.start()
        if number == 0:
            wait_for((place.folder / "notebooks" / "here").exists)
        else:
            time.sleep(draw.uniform(0.5, 15))
        for pid in victims(first.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        place.happens("")
        first.communicate(timeout=100)
        trial.ends_right(place, undisturbed("train"))


@pytest.mark.long
@pytest.mark.fault("kill -9 of the study", tries=3)
def test_the_study_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, tries=3, victims=lambda study: [study])


@pytest.mark.long
@pytest.mark.fault("kill -9 of snakemake", tries=3)
def test_snakemake_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, tries=3, victims=lambda study: processes_below(study, "snakemake.cli")[:1])


@pytest.mark.long
@pytest.mark.fault("kill -9 of one job", tries=3)
def test_a_job_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, tries=3, victims=lambda study: processes_below(study, "cli notebook")[:1])


@pytest.mark.long
@pytest.mark.fault("kill -9 of a kernel", tries=3)
def test_a_kernel_is_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, tries=3, victims=lambda study: processes_below(study, "ipykernel_launcher")[:1])


@pytest.mark.long
@pytest.mark.fault("kill -9 of all processes at once", tries=3)
def test_all_processes_are_killed(trial, undisturbed, tmp_path):
    _try(trial, undisturbed, tmp_path, tries=3, victims=lambda study: [study, *processes_below(study, "")])
