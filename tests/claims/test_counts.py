"""Counted numbers from the cache folder: the same as counted anew, and never of other code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import resattn
from resattn.claims import counts
from resattn.claims.claims import Subject, parse_subject

OURS, FOREIGN = parse_subject("cifar-attention56"), parse_subject("my_net.py:net input=3,32,32")


class Counter:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.n_asked = 0

    def __call__(self, subject: Subject, quantity: str) -> int | float | None:
        self.n_asked += 1
        return {"params": 7, "mean_path_length": 0.1 + 0.2}.get(quantity)


def _three(folder: Path, *, subject: Subject = OURS) -> tuple[list[int | float | None], int]:
    counter = Counter()
    with counts.kept(counter, folder) as count:
        found = [count(subject, q) for q in ("params", "mean_path_length", "unknown")]
    return found, counter.n_asked


def test_numbers_are_counted_once_and_equal(tmp_path: Path) -> None:
    first, second = _three(tmp_path), _three(tmp_path)
    assert first == ([7, 0.1 + 0.2, None], 3)
    assert second == (first[0], 0)


@pytest.mark.parametrize("cores", [1, 2])
def test_the_numbers_that_tasks_ask_for_are_counted_before(
    cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))

    def fails(count: counts.Count) -> None:
        count(OURS, "mean_path_length")
        raise ValueError

    counter = Counter()
    with counts.kept(counter, tmp_path, [lambda count: count(OURS, "params"), fails]) as count:
        assert count(OURS, "params") == 7
        assert count(OURS, "mean_path_length") == 0.1 + 0.2
    assert counter.n_asked == (2 if cores == 1 else 0)  # other processes have counters of their own
    assert _three(tmp_path)[1] == 1


def test_where_a_process_is_killed_the_rest_is_counted_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    counter = Counter()
    with counts.kept(counter, tmp_path, [lambda count: os._exit(9)] * 3) as count:
        assert count(OURS, "params") == 7
    assert counter.n_asked == 1


AFTER_TORCH = """
import os, sys
from pathlib import Path
import torch
from resattn.claims import counts
from resattn.claims.claims import parse_subject

os.sched_getaffinity = lambda process: {0, 1}
torch.set_num_threads(2)
work = lambda: float((torch.ones(600, 600) @ torch.ones(600, 600)).exp().add(1).sum())
work()
with counts.kept(lambda subject, quantity: work() and 7, Path(sys.argv[1]), [lambda count: count(SUBJECT, "params")] * 2):
    print("counted")
""".replace("SUBJECT", "parse_subject('cifar-attention56')")


def test_they_are_counted_where_torch_has_started_threads(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_TORCH, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("counted\n", 0), done.stderr


def test_networks_parts_and_settings_have_numbers_of_their_own(tmp_path: Path) -> None:
    _three(tmp_path)
    for text in ("cifar-attention92", "cifar-attention56 merge=naive", "cifar-attention56 @stage1.module1"):
        assert _three(tmp_path, subject=parse_subject(text))[1] == 3
    for text in ("resnet50", "resnet50 stride_at=last", "resnet50 stride_on=1x1", "vgg16"):  # resnet50 is classic too
        assert _three(tmp_path, subject=parse_subject(text))[1] == 3


def test_models_of_other_code_are_not_kept(tmp_path: Path) -> None:
    assert [_three(tmp_path, subject=FOREIGN)[1] for _ in range(2)] == [3, 3]
    assert not list(tmp_path.iterdir())


def test_a_run_that_fails_keeps_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with counts.kept(Counter(), tmp_path) as count:
            count(OURS, "params")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"sum": "", "numbers": {"a": 1}}', '{"sum": 1, "numbers": null}'])
def test_a_damaged_file_is_counted_anew_with_one_message(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _three(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert _three(tmp_path)[1] == 3
    assert capsys.readouterr().err.count("counted again") == 1
    assert _three(tmp_path)[1] == 0


def test_a_number_that_was_changed_is_not_taken(tmp_path: Path) -> None:
    _three(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace(": 7", ": 8"))
    assert _three(tmp_path) == ([7, 0.1 + 0.2, None], 3)


def test_a_place_that_cannot_be_written_has_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert _three(tmp_path / "file" / "folder")[1] == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_files_of_older_code_do_not_pile_up(tmp_path: Path) -> None:
    for k in range(9):
        (tmp_path / f"{k}.json").touch()
    _three(tmp_path)
    assert len(list(tmp_path.iterdir())) == counts.MOST_FILES


def test_a_file_that_is_newer_than_the_process_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resattn, "STARTED_NS", 0)
    assert [_three(tmp_path)[1] for _ in range(2)] == [3, 3]
    assert not list(tmp_path.iterdir())


def test_an_edited_rule_is_counted_anew(tmp_path: Path) -> None:
    copy = tmp_path / "code" / "resattn"
    shutil.copytree(counts.CODE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    table, cache = copy / "rules" / "costs.py", tmp_path / "cache"

    def macs() -> int:
        code = (
            "from resattn.claims import counts, measured\nfrom resattn.claims.claims import Subject\n"
            f"with counts.kept(measured.measure, counts.Path({str(cache)!r})) as count:\n"
            "    print(count(Subject('cifar-resnet11'), 'macs'))\n"
        )
        env = os.environ | {"PYTHONPATH": str(copy.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return int(done.stdout)

    before = macs()
    assert macs() == before
    assert len(list(cache.iterdir())) == 1
    text = table.read_text()
    edited = text.replace("return prod(meets) * prod", "return 2 * prod(meets) * prod")
    assert edited != text
    table.write_text(edited)
    assert before < macs() < 2 * before  # the matrix product at the end keeps its rule
    table.write_text(text)
    assert macs() == before
    assert len(list(cache.iterdir())) == 2
