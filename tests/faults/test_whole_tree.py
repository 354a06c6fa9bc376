"""Whatever lies in a finished study, who else is in a folder, where it lies, and what the environment says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from study.conftest import LIMIT_S, ROOT, run_resattn

from analysis.study.engine import KERNELS, SNAKEMAKE_LOG, SNAKEMAKE_RECORDS
from analysis.study.job_folder import LOCK, LOG, read_result
from analysis.study.plan import PLAN, stale_jobs
from analysis.study.profiles import read_profile
from analysis.study.results_folder import STUDY, STUDY_LOCK

from .conftest import Place
from .test_damaged import DAMAGES, RUNS, flipped

UNREAD = (LOG, LOCK, "inputs.json")  # of a finished job: nothing follows from them
# Of a study, beside the folders of its jobs: a study writes them anew, and no result follows from them.
OF_THE_STUDY = (PLAN, STUDY, STUDY_LOCK, SNAKEMAKE_LOG, KERNELS, SNAKEMAKE_RECORDS)


def _files(place: Place) -> list[Path]:
    """Every file of a results folder."""
    return sorted(file for file in place.out.rglob("*") if file.is_file())


def _other(place: Place, file: Path) -> Path:
    """The same file of another job, or another file."""
    files = _files(place)
    alike = [other for other in files if other != file and other.name == file.name]
    return (alike or [other for other in files if other.read_bytes() != file.read_bytes()])[0]


def _job_of(place: Place, file: Path) -> str | None:
    jobs = read_profile(place.folder / f"{place.profile}.yaml").tasks
    return next((job for job in jobs if file.is_relative_to(place.out / job)), None)


@pytest.mark.parametrize("name", ["count", "train"])
def test_every_damage_to_every_file_is_found_with_all_that_follows_from_it(undisturbed, tmp_path, name):
    whole = undisturbed(name)
    place = whole.copy(tmp_path / "p", whole=True)
    profile = read_profile(place.folder / f"{name}.yaml")
    assert not stale_jobs(profile, place.out)
    files = _files(place)
    of_jobs = [file for file in files if _job_of(place, file)]
    assert len(of_jobs) > 20
    others = {file.relative_to(place.out).parts[0] for file in files if file not in of_jobs}
    assert others <= set(OF_THE_STUDY)  # whatever else a study comes to leave has to be looked at here
    for damage in DAMAGES:
        contents = {file: content for file in files if file not in of_jobs and (content := file.read_bytes())}
        for file in contents:
            damage(file, of_jobs[0])
        assert not stale_jobs(profile, place.out)
        for file, content in contents.items():
            file.write_bytes(content)
    for file in of_jobs:
        job, content, unread = _job_of(place, file), file.read_bytes(), file.name in UNREAD
        other = whole.out / _other(place, file).relative_to(place.out)
        for damage in DAMAGES:
            damage(file, other)
            assert (read_result(place.out / job) is None) != unread or file.read_bytes() == content, (file, damage)
            if damage is flipped and not unread:
                follow = {j for j, task in profile.tasks.items() if job in profile.needs(task)}
                assert stale_jobs(profile, place.out).keys() == {job, *follow}, file
            file.write_bytes(content)
        file.unlink()
        gone = stale_jobs(profile, place.out)
        assert (not gone) == (unread or file.suffix == ".pt"), file  # a run may be done without its weights
        file.write_bytes(content)
    for folder in sorted({file.parent for file in of_jobs} - {place.out / job for job in profile.tasks}):
        (folder / "added.csv").write_text("a notebook that reads all tables of a folder would read this one too")
        assert _job_of(place, folder) in stale_jobs(profile, place.out)
        (folder / "added.csv").unlink()
    assert not stale_jobs(profile, place.out)


@pytest.mark.long
@pytest.mark.fault("every file of a finished study damaged at once", tries=4)
def test_every_file_is_damaged(trial, undisturbed, tmp_path):
    for damage in DAMAGES:
        place = undisturbed("train").copy(tmp_path / damage.__name__, whole=True)
        others = {file: undisturbed("train").out / _other(place, file).relative_to(place.out) for file in _files(place)}
        for file, other in others.items():
            if file.stat().st_size:
                damage(file, other)
        trial.ends_right(place, undisturbed("train"))


# --- who else is there ----------------------------------------------------------------------------------------------

TRAIN_HERE = """\
import sys
from resattn.networks.catalog import named
from resattn.training.config import TrainConfig
from resattn.training.data import digits
from resattn.training.loop import train
config = TrainConfig(spec=named("cifar-resnet8-basic[width=4]"), dataset="cluttered-digits", epochs=6, images=200,
                     test_images=20, batch_size=10, seed=int(sys.argv[2]), precision="fp32", threads=1)
print(train(config, sys.argv[1], dataset=digits(train=200, test=20), say=lambda line: None).weights_digest)
"""


@pytest.mark.fault("two trainings started in one folder", tries=1)
def test_two_trainings(trial, tmp_path):
    def begin(seed: int, out: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", TRAIN_HERE, str(out), str(seed)]
        return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    both = [begin(seed, tmp_path / "one") for seed in (0, 1)]
    ends = [process.communicate(timeout=LIMIT_S) for process in both]
    trial.tries += 1
    done = [seed for seed in (0, 1) if both[seed].returncode == 0]
    trial.lost += not done
    assert len(done) == 1, ends  # the other one is refused: the folder is in use, or is of another run
    alone, _ = begin(done[0], tmp_path / "alone").communicate(timeout=LIMIT_S)
    trial.wrong += ends[done[0]][0] != alone
    refusal = ends[1 - done[0]][1]
    assert "RunInUseError" in refusal or "OtherRunError" in refusal
    assert trial.wrong == 0
    assert not list((tmp_path / "one").glob(".*.partial"))


EDIT_AND_RESTORE = """\
if globals().get("n") == 0:
    path = pathlib.Path("10_count.ipynb")
    before, times = path.read_bytes(), path.stat()
    path.write_bytes(before.replace(b"{n * k}", b"{n + k}"))
    time.sleep(4)
    path.write_bytes(before)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
"""


@pytest.mark.long
@pytest.mark.fault("a notebook that is edited and put back while jobs wait", tries=1)
def test_an_edit_is_put_back(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    place.happens(EDIT_AND_RESTORE)
    place.run()
    trial.ends_right(place, undisturbed("count"))


# --- where it lies, and what the environment says -------------------------------------------------------------------

HOSTILE = ("{c} {{cookiecutter.name}} $HOME %s %% \u00e9\u4e2d ' \"", "x" * 250)


@pytest.mark.long
@pytest.mark.fault("folders with braces, quotes, $, %, no ASCII or 250 characters in their names", tries=2)
def test_hostile_folders(trial, undisturbed, tmp_path):
    for number, name in enumerate(HOSTILE):
        place = undisturbed("count").copy(tmp_path / str(number) / name, whole=False)
        for variable in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "RESATTN_DATA", "JUPYTER_DATA_DIR"):
            folder = tmp_path / str(number) / variable / name
            folder.mkdir(parents=True)
            place.environment[variable] = str(folder)
        first = place.run()
        assert first.returncode == 0, first.stderr
        trial.ends_right(place, undisturbed("count"))


@pytest.mark.long
@pytest.mark.fault("variables of git, snakemake, Jupyter and Python that are meant for others", tries=1)
def test_foreign_environment(trial, undisturbed, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("no-such-option: 1\n")
    (mine / "startup.py").write_text("raise SystemExit('somebody is here')")
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    place.environment = {
        "SNAKEMAKE_PROFILE": str(mine), "GIT_DIR": str(mine), "GIT_WORK_TREE": str(mine), "GIT_INDEX_FILE": str(mine),
        "PYTHONSTARTUP": str(mine / "startup.py"), "PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "1", "IPYTHONDIR": str(mine),
        "JUPYTER_CONFIG_DIR": str(mine), "JUPYTER_PATH": str(mine), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1",
        "LC_ALL": "C", "TERM": "dumb", "XDG_CACHE_HOME": str(mine / "config.yaml"), "BASH_ENV": str(mine / "startup.py"),
    }  # fmt: skip
    first = place.run()
    assert first.returncode == 0, first.stderr
    trial.ends_right(place, undisturbed("count"))


# --- what somebody forged -------------------------------------------------------------------------------------------


def _forge(path: Path, what: str) -> None:
    saved = torch.load(path, weights_only=True)
    if what == "momentum":  # under the fused step: a crash of the process
        saved["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(1)
    elif what == "weights":
        saved["model"] = {name: value.double() for name, value in saved["model"].items()}
    else:
        saved["rows"] = saved["rows"] * 9
    torch.save(saved, path)


@pytest.mark.long
@pytest.mark.fault("a forged checkpoint", tries=3)
def test_a_forged_checkpoint(trial, undisturbed, tmp_path):
    place = undisturbed("train").copy(tmp_path / "p", whole=True)
    for job, what in zip(RUNS, ("momentum", "weights", "rows"), strict=True):
        _forge(place.out / job / "run" / "checkpoint.pt", what)
        (place.out / job / "result.json").unlink()
    trial.ends_right(place, undisturbed("train"), tries=3)
    assert len(list(place.out.glob("50_train/*/run/checkpoint-*.aside"))) == 3


def test_the_commit_is_that_of_the_checkout_whatever_git_is_told(tmp_path):
    command = "from analysis.tables.provenance import provenance; print(provenance()['commit'])"
    told = {**os.environ, "GIT_DIR": str(tmp_path), "GIT_WORK_TREE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    free = {name: value for name, value in told.items() if not name.startswith("GIT_")}
    commits = [
        subprocess.run([sys.executable, "-c", command], cwd=ROOT, env=env, capture_output=True, text=True).stdout
        for env in (told, free)
    ]
    assert commits[0] == commits[1] != ""


def test_a_profile_of_too_many_jobs_is_refused_before_anything_is_made(undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    profile = place.folder / "count.yaml"
    profile.write_text(profile.read_text().replace("[0, 1, 2, 3]", str(list(range(15_000)))))
    run = run_resattn(*place.words)
    assert run.returncode == 2
    assert "15,000 jobs; a profile has at most 2,000" in run.stderr
    assert not place.out.exists()
