import getpass
import json
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analysis.tables import provenance as module
from analysis.tables.provenance import provenance, scrub


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", folder, "-c", "user.name=n", "-c", "user.email=e@x", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with one commit that stands in for the project's."""
    folder = tmp_path / "outer" / "checkout"
    folder.mkdir(parents=True)
    monkeypatch.setattr(module, "ROOT", folder)
    for place in (tmp_path / "outer", folder):
        _git(place, "init", "--quiet")
        (place / "a.py").write_text("1")
        _git(place, "add", "a.py")
        _git(place, "commit", "--quiet", "--message", place.name)
    return folder


def test_the_commit_and_whether_files_differ_from_it(checkout):
    record = provenance()
    assert (record["commit"], record["dirty"]) == (_git(checkout, "rev-parse", "HEAD"), False)
    (checkout / "results").mkdir()
    (checkout / "results" / "t.csv").write_text("what the code just made")
    assert provenance()["dirty"] is False
    (checkout / "a.py").write_text("2")
    assert provenance()["dirty"] is True


def test_outside_a_checkout_there_is_no_commit_not_that_of_a_repository_around(checkout):
    subprocess.run(["rm", "-rf", checkout / ".git"], check=True)
    record = provenance()
    assert (record["commit"], record["dirty"]) == (None, None)


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance()["commit"] is None


def test_versions_time_and_machine():
    start = datetime.now(UTC) - timedelta(seconds=90)
    record = provenance(start=start, device="cuda", dataset="cluttered-digits", seed=3)
    assert record["versions"]["python"] == platform.python_version()
    assert record["versions"].keys() >= {"torch", "papermill", "pandas"}
    assert datetime.fromisoformat(record["start"]) == start.replace(microsecond=0)
    assert 90 <= record["elapsed_s"] < 120
    assert (record["device"], record["dataset"], record["seed"]) == ("cuda", "cluttered-digits", 3)
    assert record["cpus"] >= 1
    json.dumps(record, allow_nan=False)


def test_time_never_runs_backwards():
    assert provenance(start=datetime.now(UTC) + timedelta(hours=1))["elapsed_s"] == 0
    assert 0 <= provenance()["elapsed_s"] <= provenance()["elapsed_s"]


def test_threads_are_those_that_a_job_was_given():
    code = "from analysis.tables.provenance import provenance; print(provenance()['threads'])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=module.ROOT, env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "1"


def test_nothing_tells_whose_machine_it_was():
    text = json.dumps(provenance(found=f"{module.ROOT}/a.py", nested=[{"at": f"{Path.home()}/data/x"}]))
    assert str(module.ROOT) not in text
    assert str(Path.home()) not in text
    assert platform.node() not in text
    assert not re.search(rf"[/\\]{re.escape(getpass.getuser())}\b", text)
    assert '"./a.py"' in text
    assert '"~/data/x"' in text


def test_the_longest_place_is_named_first(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "checkout" / ".venv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scrub(f"{tmp_path}/checkout/.venv/lib/x.py") == "(environment)/lib/x.py"
    assert scrub(f"in {tmp_path}/checkout/a.py and {tmp_path}/b") == "in ./a.py and ~/b"


def test_an_extra_does_not_hide_a_standard_key():
    with pytest.raises(ValueError, match="has its own commit, versions"):
        provenance(versions={}, commit="mine")
