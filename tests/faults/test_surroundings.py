"""The machine under a study: its disk, its clock, another study in the same folder, and notebooks out of control."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from study.conftest import LIMIT_S, wait_for

from analysis.study import kernel

COUNTS = [f"10_count/n{n}" for n in range(4)]


@contextmanager
def _mounted(*words: object) -> Iterator[None]:
    """A mount, where this machine lets us make one."""
    target = words[-1]
    mount = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"mount is not permitted here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@pytest.mark.long
@pytest.mark.fault("a full disk", tries=6)
def test_a_full_disk(trial, undisturbed, tmp_path):
    for number, left in enumerate((0, 4, 16, 40, 80, 160)):  # kilobytes, when the study starts
        place = undisturbed("count").copy(tmp_path / str(number), whole=False)
        place.out.mkdir()
        with _mounted("-t", "tmpfs", "-o", "size=4m", "none", place.out):
            free = os.statvfs(place.out).f_bavail * os.statvfs(place.out).f_frsize
            ballast = place.out / "ballast"
            ballast.write_bytes(bytes(max(free - left * 1024, 0)))
            first = place.run()
            assert first.returncode == 1, first.stderr
            assert "Traceback" not in first.stderr
            ballast.unlink()
            trial.ends_right(place, undisturbed("count"))


@pytest.mark.fault("a results folder that cannot be written to", tries=2)
def test_a_read_only_folder(trial, undisturbed, tmp_path):
    for number, is_begun in enumerate((False, True)):
        place = undisturbed("count").copy(tmp_path / str(number), whole=is_begun)
        place.out.mkdir(exist_ok=True)
        if is_begun:
            (place.out / COUNTS[0] / "result.json").unlink()
        with _read_only(place.out):
            before = place.tables()
            first = place.run()
            assert first.returncode == 1
            assert "Read-only file system" in first.stderr or "Permission denied" in first.stderr
            assert "Traceback" not in first.stderr
            assert place.tables() == before
        trial.ends_right(place, undisturbed("count"))


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    if os.geteuid():
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        yield
        for path in folders:
            path.chmod(0o755)
        return
    with _mounted("--bind", folder, folder):  # root does not ask for permission
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield


# Of the processes of a study: five hours back, three seconds after the first of them began.
JUMP = """\
import pathlib, time
mark = pathlib.Path(__file__).with_name("began")
real, real_ns = time.time, time.time_ns
try:
    with mark.open("x") as file:
        file.write(repr(real()))
except FileExistsError:
    pass
def began():
    try:
        return float(mark.read_text())
    except ValueError:
        return real()
def back():
    return 5 * 3600 if real() > began() + 3 else 0
time.time = lambda: real() - back()
time.time_ns = lambda: real_ns() - back() * 10**9
local, text = time.localtime, time.strftime
time.localtime = lambda moment=None: local(time.time() if moment is None else moment)
time.strftime = lambda form, moment=None: text(form, time.localtime() if moment is None else moment)
"""


# What such a clock leaves behind: the results that the last job reads are of later than it is.
LEFT_IN_THE_FUTURE = """\
for file in pathlib.Path(globals().get("runs_dir", "no-such")).glob("*/result.json"):
    os.utime(file, (time.time() + 7200,) * 2)
time.sleep(1)
"""


@pytest.mark.long
@pytest.mark.fault("a clock that jumps back while a study runs", tries=1)
def test_the_clock_jumps(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMP)
    place.happens(LEFT_IN_THE_FUTURE)
    first = place.run(PYTHONPATH=f"{Path(__file__).parents[2]}{os.pathsep}{site}")
    assert first.returncode == 0, first.stderr
    assert place.tables() == undisturbed("count").tables()
    logs = "".join(file.read_text() for file in place.out.rglob("log.txt"))
    hours = {line[:2] for line in logs.splitlines() if line[2:3] == line[5:6] == ":"}
    assert hours - {time.strftime("%H", time.localtime(time.time() - ago)) for ago in (0, 600)}  # the clock did jump
    trial.ends_right(place, undisturbed("count"))


@pytest.mark.fault("a clock that jumped back between two runs of a study", tries=2)
def test_the_clock_jumped(trial, undisturbed, tmp_path):
    for number, hours in enumerate((24, -24)):  # what is there is of tomorrow, or all of one moment of yesterday
        place = undisturbed("count").copy(tmp_path / str(number), whole=True)
        (place.out / COUNTS[1] / "result.json").unlink()
        moment = time.time() + hours * 3600
        for file in place.folder.rglob("*"):
            os.utime(file, (moment, moment))
        trial.ends_right(place, undisturbed("count"))


@pytest.mark.long
@pytest.mark.fault("two studies started on one folder", tries=3)
def test_two_studies(trial, undisturbed, tmp_path):
    for number, later_s in enumerate((0.0, 0.5, 3.0)):
        place = undisturbed("count").copy(tmp_path / str(number), whole=False)
        first = place.start()
        time.sleep(later_s)
        second = place.start()
        ends = [process.communicate(timeout=LIMIT_S)[1] for process in (first, second)]
        codes = [first.returncode, second.returncode]
        assert 0 in codes, ends
        for code, said in zip(codes, ends, strict=True):  # one may come when the other is done
            assert code == 0 or f"the study in {place.out} is in use by process" in said
        assert place.tables() == undisturbed("count").tables()
        trial.ends_right(place, undisturbed("count"))


HANG = """\
if globals().get("n") == 0:
    time.sleep(1000)
if globals().get("n") == 1:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass
if globals().get("n") == 2:
    import re
    re.match("(a+)+$", "a" * 100 + "b")  # holds the interpreter for ever
"""


@pytest.mark.long
@pytest.mark.fault("a notebook that hangs", tries=3)
def test_a_notebook_hangs(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    profile = place.folder / "count.yaml"
    text = profile.read_text()
    profile.write_text(text.replace("timeout_s: 1000", "timeout_s: 30"))
    place.happens(HANG)
    first = place.run()
    assert first.returncode == 1
    for job in COUNTS[:3]:
        assert f"failed   {job}: 10_count.ipynb" in first.stderr
    assert first.stderr.count("the notebook was not done within its 30 s") == 3
    profile.write_text(text)
    trial.ends_right(place, undisturbed("count"), tries=3)


FLOOD = """\
if globals().get("n") == 0:
    for _ in range(100): print("a" * 1_000_000)
if globals().get("n") == 1:
    for _ in range(100): os.write(2, b"b" * 1_000_000)
if globals().get("n") == 2:
    for _ in range(1_000_000): sys.stderr.write("c" * 99 + "\\n")
"""


@pytest.mark.long
@pytest.mark.fault("a notebook that prints 100 MB", tries=3)
def test_a_notebook_floods(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    place.happens(FLOOD)
    first = place.run()
    assert first.returncode == 0, first.stderr
    assert place.tables() == undisturbed("count").tables()
    for job in COUNTS[:3]:
        assert (place.out / job / "notebook.ipynb").stat().st_size < kernel.NOTEBOOK_BYTES
        assert (place.out / job / "log.txt").stat().st_size < kernel.LOG_BYTES + (1 << 20)
    trial.ends_right(place, undisturbed("count"), tries=3)


@pytest.mark.long
@pytest.mark.fault("a closed terminal", tries=1)
def test_a_hang_up(trial, undisturbed, tmp_path):
    place = undisturbed("count").copy(tmp_path / "p", whole=False)
    first = place.start()
    wait_for(lambda: list(place.out.rglob("log.txt")))
    first.send_signal(1)
    first.communicate(timeout=LIMIT_S)
    assert first.returncode != 0
    trial.ends_right(place, undisturbed("count"))
