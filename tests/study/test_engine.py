"""A study as a person meets it: it runs what is missing, survives what happens to it, and says what failed."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from analysis.study import batch as module
from analysis.study import engine
from analysis.study.job_folder import read_result
from analysis.study.plan import stale_jobs
from analysis.study.profiles import StudyError, read_profile
from analysis.study.results_folder import prepare, refuse_other

from .conftest import (
    COMMAND,
    COMPARE_RUNS,
    ROOT,
    WRITE_RUN,
    processes_below,
    resattn,
    run_resattn,
    tables,
    wait_for,
    write_notebook_in,
)

DEPTH = "import pathlib, analysis.tables.files\nif False: import resattn.measures.audit\npathlib.Path(out_dir, 'tables', 'd.csv').write_text(f'depth\\n{depth}\\n')"
TRAIN = """\
import os, pathlib
if False:
    from resattn.networks.network import build
folder = pathlib.Path(out_dir)
with (folder / "steps").open("a") as steps:
    steps.write("x")
"""
SLOW = "import time\nwhile not pathlib.Path(out_dir, '..', 'go').exists(): time.sleep(0.05)"
PROFILE = """\
notebooks_dir: notebooks
notebooks:
  20_depth:
    parameters: {depth: 92}
  50_train:
    each: {seed: [0, 1]}
    folder: "s{seed}"
  60_compare:
    after: {runs_dir: 50_train}
"""


@pytest.fixture
def study(tmp_path):
    """Write the notebooks and profile of a study of four jobs; gives its profile and results folder as options."""
    _write_study(tmp_path)
    return (tmp_path / "p.yaml", "--out", tmp_path / "out")


def _write_study(folder: Path) -> None:
    write_notebook_in(folder, "20_depth", DEPTH)
    write_notebook_in(folder, "50_train", TRAIN, WRITE_RUN, parameters='seed = 0\nout_dir = "o"')
    write_notebook_in(folder, "60_compare", COMPARE_RUNS, parameters='runs_dir = ""\nout_dir = "o"')
    (folder / "p.yaml").write_text(PROFILE)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a study that was run once, with what it printed; all test processes share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-study"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "run.json").exists():
            _write_study(folder)
            run = run_resattn("study", folder / "p.yaml", "--out", folder / "out", "--cores", 2)
            (folder / "run.json").write_text(json.dumps([run.returncode, run.stdout, run.stderr]))
    return folder


@pytest.fixture
def finished_study(finished, tmp_path):
    """A copy of it; its profile and results folder as options."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return (tmp_path / "p.yaml", "--out", tmp_path / "out")


def _states(out: Path) -> dict[str, str]:
    return {name: row["state"] for name, row in json.loads((out / "study.json").read_text())["jobs"].items()}


# Of two jobs that take until they are let go, and one that follows.
SLOW_PROFILE = PROFILE.replace("  20_depth:\n    parameters: {depth: 92}\n", "")


@pytest.fixture
def slow_study(study, tmp_path, write_notebook):
    """A study that was started, and whose two slow jobs are at work; its options, and its process."""
    write_notebook("50_train", TRAIN, SLOW, WRITE_RUN, parameters='seed = 0\nout_dir = "o"')
    study[0].write_text(SLOW_PROFILE)
    process = resattn("study", *study, "--cores", 2)
    runs = [tmp_path / "out" / "50_train" / run / "steps" for run in ("s0", "s1")]
    wait_for(lambda: all(steps.exists() and steps.stat().st_size for steps in runs))  # opened, and written
    yield study, process
    process.kill()


WHOLE = {
    "20_depth/tables/d.csv": "depth\n92\n",
    "50_train/s0/tables/r.csv": "seed,threads\n0,1\n",
    "50_train/s1/tables/r.csv": "seed,threads\n1,1\n",
    "60_compare/tables/c.csv": "runs\n0,1 1,1\n",
}


SLOW_WHOLE = {name: text for name, text in WHOLE.items() if not name.startswith("20_depth")}


def test_a_study_runs_once_and_again_only_what_has_changed(finished, finished_study, tmp_path):
    study, out = finished_study, tmp_path / "out"
    code, stdout, stderr = json.loads((tmp_path / "run.json").read_text())
    assert code == 0, stderr
    assert stdout == f"{finished}/out/report/index.html\n"
    assert sorted(line.split()[1] for line in stderr.splitlines()) == list(_states(out))
    assert set(_states(out).values()) == {"done"}
    assert tables(out) == WHOLE

    log = (out / "snakemake.log").stat().st_mtime_ns
    for file in (tmp_path / "notebooks").iterdir():  # as after a fresh clone, or with a clock that jumped
        os.utime(file, (time.time() + 1e6,) * 2)
    for file in out.rglob("*.csv"):
        os.utime(file, (1e9, 1e9))
    second = run_resattn("study", *study)
    assert (second.returncode, second.stderr) == (0, "")
    assert (out / "snakemake.log").stat().st_mtime_ns == log

    study[0].write_text(PROFILE.replace("92", "93").replace("[0, 1]", "[1, 2]"))
    third = run_resattn("study", *study)
    assert third.returncode == 0, third.stderr
    ran = {line.split()[1] for line in third.stderr.splitlines() if line.endswith(" s")}
    assert ran == {"20_depth", "50_train/s2", "60_compare"}
    assert "50_train/s0 is not in this profile: moved to" in third.stderr
    assert (out / ".superseded" / "50_train" / "s0" / "result.json").exists()
    assert tables(out)["60_compare/tables/c.csv"] == "runs\n1,1 2,1\n"
    assert tables(out)["20_depth/tables/d.csv"] == "depth\n93\n"

    study[0].write_text(PROFILE)  # a slip that is put right: what was finished is there
    fourth = run_resattn("study", *study)
    assert fourth.returncode == 0, fourth.stderr
    assert not [line for line in fourth.stderr.splitlines() if line.endswith(" s")]  # no job ran
    for name in ("20_depth", "50_train/s0", "60_compare"):
        assert f"{name} is done: restored from" in fourth.stderr
    assert tables(out) == WHOLE
    assert (out / ".superseded" / "50_train" / "s2" / "result.json").exists()
    assert "3 finished results, 0." in fourth.stderr
    assert "MB, are set aside in" in fourth.stderr

    fifth = run_resattn("study", *study, "--clean")
    assert (fifth.returncode, fifth.stdout) == (0, "")
    assert not (out / ".superseded").exists()
    assert tables(out) == WHOLE


def test_nothing_finished_is_deleted_and_equal_inputs_are_taken_back_at_any_level(study, tmp_path, write_notebook):
    """A step of several jobs, then of one, then with other code, and back again: nothing is made a second time."""
    out, made = tmp_path / "out", tmp_path / "made"
    cell = (
        f"with open({str(made)!r}, 'a') as f: f.write('x')\nopen(f'{{out_dir}}/tables/t.csv', 'w').write(f'{{seed}}')"
    )
    head = "notebooks_dir: notebooks\nnotebooks:\n  50_train:\n"
    several, one = head + "    each: {seed: [0, 1]}\n    folder: 's{seed}'\n", head + "    parameters: {seed: 7}\n"
    seen = set()
    for profile, code in ((several, "1"), (one, "1"), (several, "2"), (several, "1"), (one, "1"), (several, "2")):
        study[0].write_text(profile)
        write_notebook("50_train", cell, code, parameters='seed = 0\nout_dir = "o"')
        wanted = ["7"] if profile == one else ["0", "1"]
        seen |= {(seed, code) for seed in wanted}
        run = run_resattn("study", *study)
        assert run.returncode == 0, run.stderr
        assert len(made.read_text()) == len(seen), run.stderr
        assert list(tables(out).values()) == wanted
        assert sum(read_result(file.parent) is not None for file in out.rglob("result.json")) == len(seen)


def test_an_edited_plot_trains_nothing_and_edited_code_only_what_uses_it(finished_study, tmp_path):
    study = finished_study
    checkout = tmp_path / "checkout"
    for package in ("analysis", "resattn", "workflow"):
        shutil.copytree(ROOT / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))

    def plan() -> dict[str, str]:
        told = run_resattn("study", *study, "--dry-run", checkout=checkout)
        assert told.returncode == 0, told.stderr
        return dict(re.split(r" {2,}", line, maxsplit=1) for line in told.stdout.splitlines()[:-1])

    def edit(file: str) -> None:
        with (checkout / file).open("a") as source:
            source.write("\n# edited\n")

    (checkout / "analysis" / "figures" / "training.py").write_text("raise SystemExit")
    assert set(plan().values()) == {"done"}
    edit("resattn/rules/table.py")
    assert plan().pop("20_depth") == "run: changed: resattn/rules/table.py"
    assert {what for name, what in plan().items() if name != "20_depth"} == {"done"}
    edit("resattn/networks/mask.py")
    assert plan() == {
        "20_depth": "run: changed: resattn/networks/mask.py, resattn/rules/table.py",
        "50_train/s0": "run: changed: resattn/networks/mask.py",
        "50_train/s1": "run: changed: resattn/networks/mask.py",
        "60_compare": "run: after 2 jobs",
    }


def test_what_follows_from_a_sweep_goes_on_without_a_run_that_failed(study, tmp_path, write_notebook):
    out = tmp_path / "out"
    train = {"parameters": 'seed = 0\nout_dir = "o"'}
    write_notebook("50_train", TRAIN, "if seed == 1: raise ValueError('a bad seed')", WRITE_RUN, **train)
    run = run_resattn("study", *study)
    assert run.returncode == 1
    assert "failed   50_train/s1: 50_train.ipynb, cell 3" in run.stderr
    assert f"ValueError: a bad seed; the executed notebook and its log are in {out}/50_train/s1" in run.stderr
    assert "done     60_compare, without 50_train/s1" in run.stderr
    assert _states(out) == {"20_depth": "done", "50_train/s0": "done", "50_train/s1": "failed", "60_compare": "done"}
    assert tables(out)["60_compare/tables/c.csv"] == "runs\n0,1\n"
    assert "a bad seed" in (out / "50_train" / "s1" / "notebook.ipynb").read_text()
    assert "a bad seed" in (out / "50_train" / "s1" / "log.txt").read_text()
    assert not (out / "50_train" / "s1" / "result.json").exists()
    assert run.stdout == f"{out}/report/index.html\n"  # of what there is

    again = run_resattn("study", *study)
    ran = {line.split()[1] for line in again.stderr.splitlines() if re.match(r"\d+/", line)}
    assert (again.returncode, ran) == (1, {"50_train/s1", "60_compare"})
    write_notebook("50_train", TRAIN, WRITE_RUN, **train)
    assert run_resattn("study", *study).returncode == 0
    assert tables(out) == WHOLE


def test_a_failed_notebook_stops_what_follows_from_it_alone(study, tmp_path, write_notebook):
    write_notebook("50_train", "raise ValueError('all bad')", parameters='seed = 0\nout_dir = "o"')
    run = run_resattn("study", *study)
    assert run.returncode == 1
    assert "not run  60_compare, which needs a failed job" in run.stderr
    states = {"20_depth": "done", "50_train/s0": "failed", "50_train/s1": "failed", "60_compare": "not run"}
    assert _states(tmp_path / "out") == states


def test_jobs_begun_ahead_wait_for_a_place(study, tmp_path, write_notebook):
    at_work = (
        "import pathlib, time\nfolder = pathlib.Path(out_dir)\nmark = folder.parent / f'{seed}.at-work'\nmark.touch()"
    )
    count = "time.sleep(0.5)\n(folder / 'tables' / 'n.csv').write_text(str(len(list(folder.parent.glob('*.at-work')))))"
    write_notebook("50_train", at_work, count, "mark.unlink()", parameters='seed = 0\nout_dir = "o"')
    study[0].write_text(SLOW_PROFILE.replace("[0, 1]", "[0, 1, 2, 3, 4, 5]"))
    run = run_resattn("study", *study, "--cores", 2)
    assert run.returncode == 0, run.stderr
    assert {int(file.read_text()) for file in (tmp_path / "out").glob("50_train/*/tables/n.csv")} <= {1, 2}


def test_a_place_is_free_again_whatever_becomes_of_its_holder(tmp_path):
    hold = (
        "from analysis.study.processes import place; import time\nwith place(): print('in', flush=True); time.sleep({})"
    )
    environment = {**os.environ, "RESATTN_PLACES": f"1:{tmp_path / 'places'}"}

    def begin(seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", hold.format(seconds)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    first = begin(1000)
    assert first.stdout.readline() == "in\n"
    second = begin(0)
    time.sleep(1)
    assert second.poll() is None
    first.kill()
    assert second.communicate(timeout=20)[0] == "in\n"


def test_an_interrupted_study_goes_on_where_it_stopped(slow_study, tmp_path):
    (study, first), out = slow_study, tmp_path / "out"
    refused = run_resattn("study", *study)
    assert refused.returncode == 1
    assert f"the study in {out} is in use by process {first.pid}" in refused.stderr
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "interrupted; the same command resumes" in stderr
    assert set(_states(out).values()) == {"not run"}
    assert not (out / "50_train" / "s0" / "result.json").exists()
    _goes_on(study, out)


def test_jobs_do_not_outlive_a_study_that_was_begun_in_the_background_and_killed(request, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a command with &
    try:
        (study, first), out = request.getfixturevalue("slow_study"), tmp_path / "out"
    finally:
        signal.signal(signal.SIGINT, before)
    first.kill()
    first.communicate(timeout=30)
    assert not (out / "50_train" / "s0" / "result.json").exists()
    _goes_on(study, out)


def _goes_on(study, out: Path) -> None:
    (out / "50_train" / "go").touch()
    second = run_resattn("study", *study)  # at once, while the orphans of the first may still wind down
    assert second.returncode == 0, second.stderr
    assert tables(out) == SLOW_WHOLE
    assert (out / "50_train" / "s0" / "steps").read_text() == "xx"  # what it had before was still there


@pytest.mark.parametrize("victims", ["a job and the kernel of another", "snakemake"])
def test_a_killed_process_costs_its_job_and_the_next_study_makes_it(slow_study, tmp_path, victims):
    (study, first), out = slow_study, tmp_path / "out"
    if victims == "snakemake":
        killed = processes_below(first.pid, "snakemake.cli")[:1]
    else:
        job, other = processes_below(first.pid, "resattn.cli notebook")
        killed = [job, *processes_below(other, "ipykernel_launcher")]
        assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    (out / "50_train" / "go").touch()
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1
    lost = [name for name, state in _states(out).items() if state == "failed"]
    assert len(lost) == 2 or (lost and victims == "snakemake")
    for name in lost:
        assert f"failed   {name}: " in said
        assert "This run failed" in (out / name / "notebook.ipynb").read_text()
    second = run_resattn("study", *study)
    assert second.returncode == 0, second.stderr
    assert tables(out) == SLOW_WHOLE


def test_damage_between_two_studies_is_found_and_mended(finished_study, tmp_path):
    study, out = finished_study, tmp_path / "out"
    (out / "20_depth" / "result.json").write_text('{"version": 1}')
    (out / "50_train" / "s0" / "tables" / "r.csv").write_text("seed,threads\n")
    (out / "50_train" / "s1" / "inputs.json").write_bytes(b"\xff")
    (out / "50_train" / "s1" / "result.json").unlink()
    (out / "50_train" / "s1" / "result.json").mkdir()
    (out / "60_compare" / "inputs.json").unlink()
    for name in ("plan.json", "study.json"):
        (out / name).write_text("[1, ")
    for file in (out / ".snakemake").rglob("*"):
        if file.is_file():
            file.write_bytes(b"\x00garbage")
    again = run_resattn("study", *study)
    assert again.returncode == 0, again.stderr
    assert tables(out) == WHOLE


def test_the_plan_is_shown_in_time_and_nothing_is_touched(study, tmp_path, write_notebook):
    cell = 'model = "cifar-resnet56"\nseed = 0\nepochs = 1\nimages = 0\nbatch_size = 64\nout_dir = "o"'
    write_notebook("50_train", TRAIN, parameters=cell)
    budget = "budget: {epochs: 2, images: 640, batch_size: 64}"
    study[0].write_text(PROFILE.replace("each: {", "each: {model: [cifar-attention56, cifar-resnet20-basic], ")
                        .replace('"s{seed}"', f'"{{model}}-s{{seed}}"\n    {budget}'))  # fmt: skip
    start = os.times()
    told = run_resattn("study", *study, "--dry-run")
    end = os.times()
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    macs = 3 * 122_407_424 * 640 * 2  # literature: 122.4 MMAC for one image
    assert lines[1].split() == [
        "50_train/cifar-attention56-s0",
        f"{macs / 1e12:.1f}",
        "TMACs",
        "run:",
        "no",
        "result",
        "yet",
    ]
    assert lines[-3].startswith("6 of 6 jobs to run; training: ")
    assert re.fullmatch(r"about \d+ min, \d+ jobs? at a time, on a machine", lines[-2])
    assert not [line for line in lines if len(line) > 80]
    assert not (tmp_path / "out").exists()
    # Of the processor, since other tests run beside this one.
    assert end.children_user + end.children_system - start.children_user - start.children_system < 4


def test_a_mistake_is_told_before_anything_is_made(study, tmp_path):
    study[0].write_text(PROFILE.replace("depth: 92", "deth: 92"))
    run = run_resattn("study", *study)
    assert run.returncode == 2
    assert run.stderr == "resattn: p.yaml, line 4: 20_depth.ipynb has no parameter 'deth' (did you mean depth?)\n"
    assert not (tmp_path / "out").exists()


def test_results_of_another_kind_are_not_mixed_with_these(study, tmp_path):
    (tmp_path / "out").mkdir()
    for record, message in (
        ({"version": 2}, "in version 2 of the format"),
        ({"profile": "small"}, "the study small in"),
        ({"mine": 1}, "holds 'study.json', which no study wrote"),
    ):
        (tmp_path / "out" / "study.json").write_text(json.dumps(record))
        run = run_resattn("study", *study)
        assert run.returncode == 1
        assert message in run.stderr
        assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["study.json"]


@pytest.mark.parametrize(
    ("file", "is_refused"),
    [
        ("60_compare/result.json", True), ("60_compare/mine.txt", True), ("50_train/mine/tables/a.csv", True),
        ("50_train/mine/inputs.json", True), (".study.lock", True), (".superseded/mine.txt", True),
        ("report/index.html", True), ("mine/result.json", False), ("mine/again/inputs.json", False), ("a.txt", False),
    ],
)  # fmt: skip
def test_a_study_refuses_a_folder_of_a_user_s_with_what_it_would_move(study, tmp_path, file, is_refused):
    out, asked = tmp_path / "out", read_profile(study[0])
    (out / file).parent.mkdir(parents=True)
    (out / file).write_text('{"mine": 1}')
    if not is_refused:
        refuse_other(out, asked)
        prepare(asked, out, {})
    else:
        with pytest.raises(StudyError, match="which no study wrote; give a new folder with --out"):
            refuse_other(out, asked)
    assert (out / file).read_text() == '{"mine": 1}'


def test_the_environment_of_other_pythons_and_shells_reaches_no_job(monkeypatch, tmp_path):
    for name in ("PYTHONINSPECT", "PYTHONSTARTUP", "BASH_ENV", "SNAKEMAKE_PROFILE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("RESATTN_DATA", "data")
    monkeypatch.setattr(engine.os, "access", lambda *words: False)  # as for a user without a home
    found = engine.environment_of(tmp_path, engine.Engine([], 1))
    assert not {"PYTHONINSPECT", "PYTHONSTARTUP", "BASH_ENV", "SNAKEMAKE_PROFILE"} & found.keys()
    assert found["XDG_CACHE_HOME"] == str(tmp_path / ".snakemake" / "cache")
    assert found["RESATTN_DATA"] == str(Path("data").absolute())


def test_texts_and_paths_reach_the_notebook_as_they_are_and_nothing_that_lies_around_is_run(
    study, tmp_path, write_notebook
):
    text = 'a\'b "$(touch hacked)" `id` {c} {{d}} ; rm x \\ \n\u00e9'
    out = tmp_path / "out {c} {{cookiecutter.name}} $HOME %s \u00e9"
    write_notebook("20_depth", "import pathlib\npathlib.Path(out_dir, 'tables', 't.txt').write_text(text)",
                   parameters='text = ""\nout_dir = "o"')  # fmt: skip
    profile = {"notebooks_dir": "notebooks", "notebooks": {"20_depth": {"parameters": {"text": text}}}}
    study[0].write_text(json.dumps(profile))
    # Jobs start in this folder, which is not that of whoever said "." or left a place empty.
    for name in ("analysis/__init__.py", "papermill.py", "resattn/__init__.py", "yaml.py", "sitecustomize.py"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("open('hacked', 'w')")
    foreign = {"SNAKEMAKE_PROFILE": str(tmp_path / "mine"), "PYTHONPATH": f"{ROOT}::."}
    run = run_resattn("study", study[0], "--out", out, **foreign)
    assert run.returncode == 0, (out / "snakemake.log").read_text()
    assert (out / "20_depth" / "tables" / "t.txt").read_text() == text
    assert not list(tmp_path.rglob("hacked"))


def test_snakemake_takes_options_and_what_it_says_of_bad_ones_is_kept(study, tmp_path):
    run = run_resattn("study", *study, "--", "--no-such-option")
    assert run.returncode == 1
    assert "snakemake ended with 2" in run.stderr
    assert "no-such-option" in (tmp_path / "out" / "snakemake.log").read_text()
    assert _states(tmp_path / "out")["20_depth"] == "failed"


def test_jobs_have_tcmalloc_where_it_is_found_and_nothing_else_is_preloaded(monkeypatch):
    monkeypatch.setattr(engine, "find_library", {"tcmalloc": "libtcmalloc.so.4"}.get)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert engine.allocator() == {"LD_PRELOAD": "libtcmalloc.so.4"}
    monkeypatch.setenv("LD_PRELOAD", "libother.so")
    assert engine.allocator() == {}
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.setattr(engine, "find_library", {}.get)
    assert engine.allocator() == {}


def test_a_terminal_sees_one_line_that_counts(study):
    study[0].write_text(SLOW_PROFILE)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", COMMAND, "study", *map(str, study), "--cores", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # the end
        while block := os.read(ours, 4096):
            seen += block
    process.wait()
    os.close(ours)
    lines = seen.decode().split("\r")
    assert any(re.match(r"0 of 3 done, 1 running, 0 failed *$", line) for line in lines)
    assert any(re.match(r"1 of 3 done, [01] running, 0 failed, about \d+ s left *$", line) for line in lines)
    assert any(line.startswith("3 of 3 done, 0 running, 0 failed") for line in lines)
    assert seen.count(b"\n") == 1


def test_auto_is_settled_once_for_a_folder(study, tmp_path, write_notebook, monkeypatch):
    from resattn.training import data

    out = tmp_path / "out"
    monkeypatch.setenv("RESATTN_DATA", str(tmp_path / "data"))
    write_notebook("20_depth", parameters='dataset = "cifar10"\nout_dir = "o"')
    study[0].write_text(
        PROFILE.replace("    parameters: {depth: 92}\n", "").replace(
            "notebooks:\n", "shared: {dataset: auto}\nnotebooks:\n", 1
        )
    )
    checked = read_profile(study[0])

    def used() -> object:
        settled = module._settle_dataset(checked, out)
        module.write_study(settled, out, module.datetime.now(module.UTC))
        return settled.tasks["20_depth"].parameters["dataset"]

    monkeypatch.setattr(data, "resolve", lambda name: ("cluttered-digits", "offline"))
    assert used() == "cluttered-digits"
    monkeypatch.setattr(data, "resolve", lambda name: pytest.fail("asked the network again"))
    assert used() == "cluttered-digits"
    (tmp_path / "data" / "cifar-10-batches-bin").mkdir(parents=True)
    monkeypatch.setattr(data, "resolve", lambda name: ("cifar10", "found"))
    assert used() == "cifar10"
    assert stale_jobs(module._settle_dataset(checked, out), out)["20_depth"] == "no result yet"


def test_an_altered_dataset_stops_the_study_before_its_first_job(study, tmp_path, write_notebook):
    folder = tmp_path / "data" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "data_batch_1.bin").write_bytes(b"cut")
    write_notebook("20_depth", parameters='dataset = "auto"\nout_dir = "o"')
    study[0].write_text(PROFILE.replace("{depth: 92}", "{dataset: cifar10}"))
    run = run_resattn("study", *study, RESATTN_DATA=str(tmp_path / "data"))
    assert run.returncode == 1
    assert "data_batch_1.bin: truncated or altered" in run.stderr
    assert not list((tmp_path / "out").rglob("log.txt"))
