"""The command line: what it prints where, and how it ends."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest

from resattn import cli
from resattn.cli import door, main, streams
from resattn.extras import EXTRAS
from resattn.networks.catalog import UnknownNetworkError

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def resattn(*words: str) -> Done:
    """The command in this process: importing torch anew for each would take most of the time."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as exit_:
            code = exit_.code
    return Done(code, out.getvalue(), err.getvalue())


def test_list_names_every_network_and_does_not_wait_for_torch() -> None:
    code = "import sys; from resattn.cli import main; main(['list', '--json']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    rows = json.loads(done.stdout)
    assert {"name", "family", "input_shape", "claimed_depth", "spec_digest"} == set(rows[0])
    assert {"attention56", "attention92", "resnet152", "cifar-attention452"} <= {r["name"] for r in rows}


def test_show_prints_a_spec_that_reads_back() -> None:
    from resattn.networks import catalog
    from resattn.networks.spec import NetworkSpec, override

    done = resattn("show", "attention56", "--set", "merge=naive", "gate=spatial")
    spec = NetworkSpec.from_json(json.loads(done.stdout))
    assert spec == override(catalog.named("attention56"), {"merge": "naive", "gate": "spatial"})


def test_audit_json_follows_its_published_schema() -> None:
    done = resattn("audit", "attention56", "cifar-resnet20-basic", "torch.nn:Flatten", "--input", "3,32,32", "--json")
    schema = json.loads((ROOT / "resattn" / "measures" / "audit.schema.json").read_text())
    audits = json.loads(done.stdout)
    jsonschema.validate(audits, schema)
    assert [a["target"] for a in audits] == ["attention56", "cifar-resnet20-basic", "torch.nn:Flatten"]
    assert done.returncode == 0


def test_audit_explains_its_numbers_when_asked_and_talks_on_stderr() -> None:
    definition = "most weighted layers on any path from input to output"
    assert definition in " ".join(resattn("audit", "cifar-attention56", "--explain").stdout.split())
    done = resattn("audit", "cifar-attention56")
    assert definition not in done.stdout
    assert "masks found by module names" in done.stderr


@pytest.mark.parametrize(("form", "line"), [
    ("text", "  stage3 Sequential          64x8x8     204K 13.0M      6    19  81/4"),
    ("md", "| \N{EM SPACE}stage3 | 64x8x8 | 203,520 | 12,976,128 | 6 | 19 | 81/4 |"),
    ("tex", r"\quad{}stage3 & 64x8x8 & 203,520 & 12,976,128 & 6 & 19 & 81/4 \\"),
    ("csv", "cifar-resnet20-basic,stage3,Sequential,,64x8x8,203520,0,12976128,0,6,19,81,81,4,-40,1,0,,"),
])  # fmt: skip
def test_the_tree_in_each_format(form: str, line: str) -> None:
    done = resattn("audit", "cifar-resnet20-basic", "--tree", "--depth", "1", "--format", form)
    assert done.returncode == 0
    assert line in done.stdout.splitlines(), done.stdout
    assert "\x1b" not in done.stdout


def test_the_tree_is_coloured_where_a_terminal_is_and_colour_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("audit", "cifar-attention56", "--tree", "--depth", "3")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    coloured = resattn(*words).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    plain = resattn(*words).stdout
    assert "\x1b[35m" in coloured  # a mask
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


def test_the_quantities_as_csv_are_plain_numbers() -> None:
    rows = resattn("audit", "cifar-resnet20-basic", "--format", "csv").stdout.splitlines()
    assert rows[0] == "quantity,cifar-resnet20-basic"
    assert "macs,40551040" in rows


@pytest.mark.parametrize(("words", "message"), [
    (("--depth", "2"), "--depth takes a number of levels, with --tree"),
    (("--tree", "--depth", "-1"), "--depth takes a number of levels"),
])  # fmt: skip
def test_options_of_the_tree_that_do_not_fit_are_usage_errors(words: tuple[str, ...], message: str) -> None:
    done = resattn("audit", "cifar-resnet20-basic", *words)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("audit", "atention56"), "unknown network 'atention56' (nearest: attention56"),
        (("audit", "cifar-resnet57"), "bottleneck networks have 9n+2 layers (nearest: 56, 65)"),
        (("audit", "attention56", "--set", "gaet=mixed"), "unknown field 'gaet' of attention56 (nearest: gate"),
        (("audit", "attention56", "--set", "gate=chanel"), "'chanel' in attention56 (one of: mixed, channel, spatial)"),
        (("audit", "attention56", "--set", "gate"), "--set takes field=value, found 'gate'"),
        (("audit", "attention56", "--set", "p=many"), "p of attention56 takes numbers, found 'many'"),
        (("audit", "attention56", "--input", "3,x"), "C,H,W, found '3,x'"),
        (
            ("audit", "cifar-attention56", "--set", "poolings=4"),
            "stage3 of cifar-attention56: 4 poolings in the mask of a 8x8 map, which allows at most 3",
        ),
        (("audit", "resnet50", "--set", "gate=spatial"), "the network has no attention module"),
        (("frobnicate",), "unknown command 'frobnicate'; one of: list, show, audit"),
        (("audti", "attention56"), "unknown command 'audti'; nearest: audit (`resattn --help`)"),
        (("resnet50",), "for a model it is `resattn audit resnet50`"),
        (("mymodels.py:build",), "for a model it is `resattn audit mymodels.py:build`"),
        (("data", "fecth", "cifar10"), "unknown command 'fecth'; nearest: fetch (`resattn data --help`)"),
        (("audit", "attention56", "--jsn"), "takes no '--jsn'; nearest: --json"),
        (("match", "resnet50", "--by", "macz"), "unknown value 'macz' of --by; nearest: macs"),
        (("audit", "attention56", "--input", "32"), "C,H,W without the batch, such as 3,224,224; found 32"),
        (("audit", "attention56", "--input", "1,3,32,32"), "without the batch, such as 3,224,224; found 1,3,32,32"),
        (("match", "resnet50", "--by", "macs", "--input", "1,32,32"), "takes images of 3 channels"),
        (("train", "cifar-resnet11", "--epochs", "0", "--out", "x"), "epochs must be at least 1, found 0"),
        (
            ("train", "cifar-resnet11", "--epochs", "1", "--out", "x", "--label-noise", "1"),
            "label_noise must be in [0, 1), found 1.0",
        ),
        (
            ("train", "cifar-resnet11", "--epochs", "1", "--out", "x", "--set", "images=10", "lr=0.05"),
            "batch_size must be in [1, 10], the number of training images, found 64",
        ),
        (
            ("train", "cifar-resnet11", "--epochs", "1", "--out", "x", "--set", "widht=8"),
            "unknown field 'widht' of a training run (nearest: width",
        ),
        *(
            (
                ("train", "cifar-resnet11", "--epochs", "1", "--out", "x", "--set", f"{name}={'9' * 400}"),
                f"{name} must be below 2**63",
            )
            for name in ("epochs", "seed", "batch_size", "threads")
        ),
        *(
            (("notebook", "x.ipynb", "--out", "y", "--timeout", seconds), "--timeout takes seconds, 0 for no limit")
            for seconds in ("nan", "-5", "inf")
        ),
        (("notebook", "x.ipynb", "-p", "depth", "--out", "y"), "-p takes name=value, found 'depth'"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line_that_helps(words: tuple[str, ...], message: str) -> None:
    done = resattn(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout
    assert done.stderr.count("\n") == 1


MODELS = """
import os
import torch
from torch import nn

def plain(): return nn.Conv2d(3, 4, 3)
def number(): return 3
def raises(): raise RuntimeError("no weights here")
def needs(width): return nn.Conv2d(3, width, 3)

class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else self.conv(x).relu()

class Exits(nn.Module):
    def forward(self, x):
        import sys
        sys.exit(5)

class Talks(nn.Conv2d):
    def __init__(self):
        print("hello")
        super().__init__(3, 4, 3)

def interrupts(): raise KeyboardInterrupt

class Flip(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 4, 3), 0
    def forward(self, x):
        self.calls += 1
        return self.conv(x) if self.calls % 2 else self.conv(x).relu()

class Yields(nn.Module):
    def forward(self, x):
        yield x

class Writes(nn.Module):
    # Prints past Python's own stdout.
    def forward(self, x):
        os.write(1, b"written\\n")
        return x + 1

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.fc = nn.Embedding(9, 4), nn.Linear(4, 2)
    def forward(self, ids, *, mask, scale):
        assert (ids.dtype, mask.dtype, scale.dtype) == (torch.int64, torch.bool, torch.float32)
        return self.fc(self.table(ids)) * mask[..., None] * scale

def deep():
    model = nn.Identity()
    for _ in range(5000):
        model = nn.Sequential(model)
    return model

class Ends(nn.Module):
    def forward(self, x):
        import os
        if not os.fork():
            os._exit(0)
        os.wait()
        os._exit(0)
"""


@pytest.fixture
def audit_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Done]]:
    files = {
        "mymodels": MODELS,
        "raising": "import deeper\n",
        "deeper": "\n1 / 0\n",
        "lacking": "import absent_package\n",
        "unclosed": "def build(\n",
        "leaving": "import sys; sys.exit(4)\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield lambda target, *words, command="audit", shape="3,16,16": resattn(command, target, "--input", shape, *words)
    for name in files:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("code", "target", "message"),
    [
        (2, "mymodels.py:number", "returned a int, not a torch.nn.Module"),
        (2, "mymodels.py:needs", "needs arguments (width)"),
        (2, "mymodels.py:nothing", "has no callable 'nothing' (it has: plain, number"),
        (2, "mymodels.py", "which callable of mymodels.py? mymodels.py:NAME is expected"),
        (2, "nofile.py:plain", "no file nofile.py"),
        (2, "no.such.module:plain", "cannot be imported: ModuleNotFoundError"),
        (2, "mymodels.nothing:plain", "No module named 'mymodels.nothing'"),
        (2, "torch.nn:nothing", "torch.nn has no callable 'nothing'"),
        (2, ".mymodels:plain", "'.mymodels' is not the full name of a module"),
        (1, "mymodels.py:raises", "raised RuntimeError: no weights here (mymodels.py, line 8)"),
        (1, "mymodels.py:Yields", "TypeError: the forward returned a generator, which has not run"),
        (1, "mymodels.py:deep", "maximum recursion depth exceeded"),
        (1, "mymodels.py:Exits", "mymodels.py:Exits called sys.exit(5) (mymodels.py, line 21)"),
        (1, "mymodels.py:Ends", "mymodels.py:Ends called os._exit(0) (mymodels.py, line 68)"),
        (
            1,
            "raising.py:build",
            "raising.py cannot be imported: ZeroDivisionError: division by zero (deeper.py, line 2)",
        ),
        (1, "lacking.py:build", "ModuleNotFoundError: No module named 'absent_package' (lacking.py, line 1)"),
        (
            1,
            "unclosed.py:build",
            "unclosed.py cannot be imported: SyntaxError: '(' was never closed (unclosed.py, line 1)",
        ),
        (1, "leaving.py:build", "leaving.py cannot be imported: SystemExit: 4 (leaving.py, line 1)"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "crosscheck"])
def test_a_target_that_gives_no_model_ends_with_one_line(
    audit_mine: Callable[..., Done], command: str, code: int, target: str, message: str
) -> None:
    done = audit_mine(target, command=command)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (code, 1, "")
    assert message in done.stderr


@pytest.mark.parametrize("command", ["audit", "crosscheck"])
def test_an_input_and_settings_are_checked_alike_by_all_commands(audit_mine: Callable[..., Done], command: str) -> None:
    done = audit_mine("mymodels.py:plain", "--set", "merge=naive", command=command)
    assert done.returncode == 2
    assert "only a named network has fields to set; mymodels.py:plain is not one" in done.stderr
    done = resattn(command, "mymodels.py:plain")
    assert done.returncode == 2
    assert "mymodels.py:plain needs an input" in done.stderr


def test_what_a_target_prints_is_no_data(audit_mine: Callable[..., Done]) -> None:
    done = audit_mine("mymodels.py:Talks", "--json")
    assert json.loads(done.stdout)[0]["target"] == "mymodels.py:Talks"
    assert "hello" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("audit", "mymodels.py:interrupts", "--input", "3,16,16"), "resattn: interrupted\n"),
        (
            ("train", "cifar-resnet11", "--epochs", "1", "--out", "x"),
            "resattn: interrupted; rerun the same command to resume\n",
        ),
    ],
)
@pytest.mark.usefixtures("audit_mine")
def test_an_interruption_promises_no_more_than_is_so(
    words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("resattn.training.loop.train", interrupted)
    done = resattn(*words)
    assert (done.returncode, done.stderr) == (130, message)


def test_a_model_that_needs_values_runs_on_them_and_says_for_which_input(audit_mine: Callable[..., Done]) -> None:
    done = audit_mine("mymodels.py:Branch", "--device", "cpu")
    assert done.returncode == 0
    assert "for this input" in done.stderr


def test_a_model_that_changes_between_calls_is_reported(audit_mine: Callable[..., Done]) -> None:
    assert "the model changes between calls" in audit_mine("mymodels.py:Flip").stderr


def test_an_input_that_the_model_refuses_names_where(audit_mine: Callable[..., Done]) -> None:
    done = audit_mine("mymodels.py:Flip", shape="5,16,16")
    assert done.returncode == 1
    assert "(in conv, mymodels.py, line 36, input 1x5x16x16)" in done.stderr


def test_what_a_model_prints_past_python_is_no_data(audit_mine: Callable[..., Done], tmp_path: Path) -> None:
    code = "import sys; from resattn.cli import main; sys.exit(main())"
    words = ("audit", "mymodels.py:Writes", "--input", "4", "--json")
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, env=path, check=True
    )
    assert json.loads(done.stdout)[0]["target"] == "mymodels.py:Writes"
    assert "written" in done.stderr


def test_a_model_that_needs_values_falls_back_and_says_where(audit_mine: Callable[..., Done]) -> None:
    done = audit_mine("mymodels.py:Branch")
    assert done.returncode == 0
    assert "captured on the CPU, for input values drawn from a fixed seed: the forward needs the value" in done.stderr
    assert "(in Branch, mymodels.py, line " in done.stderr


def test_inputs_have_names_types_and_a_batch(audit_mine: Callable[..., Done]) -> None:
    more = ("--input", "mask=bool:5", "--input", "scale=float:1,1")
    done = audit_mine("mymodels.py:Words", *more, "--batch", "3", "--json", shape="int:5")
    (found,) = json.loads(done.stdout)
    assert (found["input_shape"], found["more_inputs"]) == ([3, 5], [[3, 5], [3, 1, 1]])
    assert found["quantities"]["macs"] == 3 * 5 * 4 * 2
    named = resattn("audit", "cifar-resnet20-basic", "--batch", "2", "--json")
    assert json.loads(named.stdout)[0]["input_shape"] == [2, 3, 32, 32]
    checked = audit_mine("mymodels.py:Words", *more, "--json", command="crosscheck", shape="int:5")
    assert {c["unexplained"] for c in json.loads(checked.stdout)} == {0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--input", "complex:3"), "--input takes [NAME=][int:|float:|bool:]C,H,W, found 'complex:3'"),
        (("--input", "a.b=3"), "found 'a.b=3'"),
        (("--input", "=3"), "found '=3'"),
        (("--input", "x=int:"), "found 'x=int:'"),
        (("--input", "3,0"), "--input takes sizes of at least 1 and at most 1,000,000,000, found '3,0'"),
        (("--input", "x=3", "--input", "x=4"), "--input gives x twice"),
        (("--input", f"3,{10**20}"), "--input takes sizes of at least 1 and at most 1,000,000,000, found '3,1000"),
        (("--input", "3", "--batch", "0"), "--batch takes a number of at least 1 and at most 1,000,000,000, found 0"),
    ],
)
@pytest.mark.parametrize("command", ["audit", "crosscheck"])
def test_a_wrong_input_is_a_usage_error(command: str, words: tuple[str, ...], message: str) -> None:
    done = resattn(command, "torch.nn:Identity", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_match_prints_the_equal_resnet() -> None:
    done = resattn("match", "cifar-attention56", "--by", "longest_path", "--json")
    assert json.loads(done.stdout)["resnet"] == "cifar-resnet74"


def test_match_takes_what_audit_takes(audit_mine: Callable[..., Done]) -> None:
    done = audit_mine("mymodels.py:plain", "--by", "longest_path", "--json", command="match", shape="3,32,32")
    found = json.loads(done.stdout)
    assert (found["network"], found["wanted"]) == ("mymodels.py:plain", 1)
    two = resattn("match", "cifar-attention56", "cifar-attention92", "--by", "trunk_depth")
    assert [line.split(":")[0] for line in two.stdout.splitlines()] == ["cifar-resnet56", "cifar-resnet92"]


def test_alone_it_shows_every_command_and_examples_that_run_as_they_stand() -> None:
    done = resattn()
    assert (done.returncode, done.stderr) == (0, "")
    examples = re.findall(r"^  resattn (.*?)(?:  .*)?$", done.stdout, re.MULTILINE)
    assert len(examples) >= 5
    for example in examples:
        cli.parser().parse_args(example.split())


COMMANDS = next(action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)).choices


@pytest.mark.parametrize(
    "words",
    [(), *((name, "--help") for name in COMMANDS), ("list",), ("audit", "attention56", "attention92", "resnet152"),
     ("audit", "attention56", "--explain"), ("audit", "resnet50", "--at", "stage1", "stage2"),
     ("crosscheck", "cifar-resnet20-basic")],
    ids=lambda words: "-".join(words) or "alone",
)  # fmt: skip
def test_what_a_person_reads_fits_80_columns(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = resattn(*words).stdout.splitlines()
    assert lines
    assert not [line for line in lines if len(line) > 80]


def test_a_report_of_a_folder_without_a_study_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = resattn("report", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "holds no study; give a folder that `resattn study` made" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.json").write_text("{}")
    assert "is not a study; it holds these: mine. Give one of them" in resattn("report", str(tmp_path)).stderr
    assert not (tmp_path / "report").exists()


def test_crosscheck_ends_with_0_where_all_is_explained() -> None:
    done = resattn("crosscheck", "cifar-attention56", "--json")
    assert done.returncode == 0
    assert {c["unexplained"] for c in json.loads(done.stdout)} == {0}


def test_diff_shows_what_a_naive_merge_changes(tmp_path: Path) -> None:
    for name, words in (("a", ()), ("b", ("--set", "merge=naive"))):
        (tmp_path / f"{name}.json").write_text(resattn("audit", "cifar-attention56", "--json", *words).stdout)
    done = resattn("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json")
    changed = {c["quantity"] for c in json.loads(done.stdout)}
    # The twins share parameters and cost; a path through T alone is gone.
    assert {"n_paths", "mean_path_length"} <= changed
    assert not {"params", "macs", "longest_path", "trunk_depth"} & changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no audits"),
        (None, "cannot be read"),
        ("[" * 100_000, "is not JSON"),
        ('[{"quantities": {}}]', "holds no audits"),
        ('[{"target": "a", "quantities": {"macs": "1"}}]', "holds no audits"),
        ("9" * 5000, "is not JSON"),
    ],
)
def test_diff_refuses_what_is_no_audit(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    done = resattn("diff", str(path), str(path))
    assert done.returncode == 1
    assert message in done.stderr


def test_diff_keeps_both_records_of_one_target_and_takes_numbers_of_any_length(tmp_path: Path) -> None:
    records = [{"target": "m:f", "quantities": {"n_paths": 10**400 + k, "macs": 1.5}} for k in range(2)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "b.json").write_text(json.dumps([{**r, "quantities": {"n_paths": 2.5, "macs": 1.5}} for r in records]))
    done = resattn("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--json")
    assert [c["target"] for c in json.loads(done.stdout)] == ["m:f", "m:f (2)"]
    assert resattn("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_the_encoding_of_a_terminal_lacks_is_written_out(encoding: str) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding)
    print("\N{EM SPACE}\ud800", file=streams.Data(screen), flush=True)
    assert screen.buffer.getvalue() == b"\\u2003\\ud800\n"  # type: ignore[attr-defined]


def test_what_a_name_holds_cannot_drive_a_terminal(tmp_path: Path) -> None:
    name = "m:f\x1b]0;title\x07\x9b2J\u202e\rdone"
    (tmp_path / "a.json").write_text(json.dumps([{"target": name, "quantities": {"macs": 1}}]))
    (tmp_path / "b.json").write_text(json.dumps([{"target": name, "quantities": {"macs": 2}}]))
    printed = resattn("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")).stdout
    assert "m:f\\x1b]0;title\\x07\\x9b2J\\u202e" in printed
    (folder := tmp_path / name).mkdir()
    (folder / "study.json").write_text(json.dumps({"profile": name, "jobs": {}}))
    printed += resattn("report", str(folder)).stdout
    printed += resattn("audit", "cifar-resnet11", "--html", str(folder / "a.html")).stdout
    assert printed.count("\\x9b2J\\u202e\\x0ddone/") == 2
    said = resattn("audit", name.replace("m:", "torch.nn:")).stderr
    assert "\\x1b]0;title" in said
    assert not [c for c in printed + said if c != "\n" and not c.isprintable()]


def test_a_model_that_ends_the_process_is_named_with_its_line(tmp_path: Path) -> None:
    lines = [
        "import os",
        "from torch import nn",
        "class Kills(nn.Module):",
        "    def forward(self, x):",
        "        os.abort()",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    words = [sys.executable, "-m", "resattn", "audit", f"{tmp_path}/mine.py:Kills", "--input", "3"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode < 0
    assert re.search(r'Aborted\b(.|\n)*mine.py", line 5 in forward', ended.stderr)


@pytest.mark.parametrize("closed", ["2>&-", "2>&- >&- <&-", "2>&1 | head -c 1"])
def test_messages_that_nobody_reads_cost_nothing_else(tmp_path: Path, closed: str) -> None:
    script = f"import sys; from resattn import cli; cli.named._list = lambda a: [print('x' * 9999, file=sys.stderr) for _ in range(99)] and (open({str(tmp_path / 'done')!r}, 'w').write('done'), None)[1]; sys.exit(cli.main(['list']))"
    run = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "$0" {closed}', script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, (tmp_path / "done").read_text()) == (0, "done"), run.stderr
    assert len(run.stdout) <= 1


def test_a_reader_that_stops_changes_no_exit_status_and_a_full_disk_is_an_error(tmp_path: Path) -> None:
    for name, macs in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"target": "m:f", "quantities": {"macs": macs}}]))
    command = f"{sys.executable} -m resattn diff --exit-code"
    script = (
        f"{command} a.json b.json | true; echo ${{PIPESTATUS[0]}}; {command} a.json b.json --json >/dev/full; echo $?"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.stdout == "1\n1\n"
    assert run.stderr.endswith("resattn: [Errno 28] No space left on device\n")


def test_a_traceback_comes_on_demand() -> None:
    with pytest.raises(UnknownNetworkError):
        resattn("--traceback", "audit", "atention56")


@pytest.mark.parametrize("module", ["resattn", "resattn.cli"])
def test_the_command_ends_with_its_code_as_a_process_does(module: str) -> None:
    command = [sys.executable, "-m", module, "show", "atention56"]
    assert subprocess.run(command, capture_output=True, cwd=ROOT, check=False).returncode == 2


@pytest.mark.parametrize(
    ("words", "extra", "missing", "message"),
    [
        (("crosscheck", "cifar-resnet20-basic"), "crosscheck", ["fvcore.nn", "torchinfo"],
         "crosscheck needs fvcore and torchinfo: pip install 'resattn[crosscheck]'"),
        (("crosscheck", "cifar-resnet20-basic"), "crosscheck", ["torchinfo"],
         "crosscheck needs torchinfo: pip install 'resattn[crosscheck]'"),
        (("train", "cifar-resnet11", "--epochs", "1", "--out", "x"), "train", ["sklearn"],
         "train needs scikit-learn: pip install 'resattn[train]'"),
        (("data", "fetch", "cifar10"), "train", ["pooch"], "data fetch needs pooch: pip install 'resattn[train]'"),
        (("completion", "bash"), "cli", ["shtab"], "completion needs shtab: pip install 'resattn[cli]'"),
        (("audit", "timm:vit", "--input", "3,8,8"), "zoo", ["timm"],
         "timm:vit needs timm: pip install 'resattn[zoo]'"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(
    words: tuple[str, ...], extra: str, missing: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(missing) <= set(EXTRAS[extra])
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    done = resattn(*words)
    assert (done.returncode, done.stderr) == (1, f"resattn: {message}\n")


@pytest.mark.parametrize(
    "words",
    [("study", "quick"), ("notebook", "x.ipynb", "--out", "y"), ("report", "x"), ("claims",)],
    ids=lambda w: w[0],
)
def test_the_commands_of_the_study_need_the_clone(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "analysis").mkdir()  # a package of that name beside the installed one is not the study's
    monkeypatch.setattr(door, "CLONE", tmp_path)
    done = resattn(*words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "needs a clone of the repository: clone it and run `make report` there" in done.stderr


def test_a_clone_without_the_packages_of_the_study_is_one_line() -> None:
    code = "import sys; sys.modules['pandas'] = None; from resattn.cli import main; sys.exit(main(['report', 'results/reference']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith("pip install --editable '.[suite]' in the clone\n")


def test_the_study_is_that_of_the_clone_also_beside_a_package_of_its_name(tmp_path: Path) -> None:
    for name in ("analysis", "analysis/study"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the package of the user')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "resattn.cli", "study", "quick", "--dry-run", "--dataset", "cluttered-digits"]
    done = subprocess.run(
        [*command, "--out", "out"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_audit_takes_an_input_for_each_argument_and_modules_to_look_at(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.table = nn.Conv2d(3, 8, (3, 5)), nn.Embedding(10, 8)\n"
        "    def forward(self, x, ids):\n"
        "        return self.conv(x) * self.table(ids).mean(1)[:, :, None, None]\n",
        encoding="utf-8",
    )
    done = resattn("audit", f"{file}:Net", "--input", "3,32,32", "--input", "int:7", "--at", "conv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["conv", "3x5", "3x5", "3x5", "3x5"]


@pytest.mark.parametrize("text", ["3,x", "0,3", "half:7", "int:"])
def test_an_input_that_is_none_is_refused(text: str) -> None:
    done = resattn("audit", "torch.nn:Flatten", "--input", text)
    assert done.returncode == 2
    assert "--input takes" in done.stderr
