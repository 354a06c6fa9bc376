"""The docs say what is so: generated pages are as generated, links lead somewhere, and every command runs."""

from __future__ import annotations

import functools
import io
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

import resattn
from analysis import docs
from resattn.cli import main
from resattn.networks.catalog import names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- what is generated ----------------------------------------------------------------------------------------------

WRITTEN = sorted(
    str(p.relative_to(ROOT / "docs")) for d in ("reference", "drawings") for p in (ROOT / "docs" / d).iterdir()
)
# Made where a test asks for them: to collect the tests costs nothing.
generated = functools.cache(docs.pages)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_generated_page_is_as_generated(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == generated()[name], "make docs writes it anew"


def test_nothing_stale_lies_among_the_generated_pages() -> None:
    assert set(WRITTEN) == set(generated())


def test_a_second_writing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docs, "pages", generated)
    assert len(docs.write(tmp_path)) == len(generated())
    assert docs.write(tmp_path) == []


@pytest.mark.parametrize("name", [name for name in WRITTEN if name.endswith(".svg")])
def test_a_drawing_reads_on_light_and_dark_and_says_what_it_shows(name: str) -> None:
    root = ET.fromstring(generated()[name])
    assert len(root.get("aria-label", "")) > 10
    # A terminal has a ground of its own, all other drawings that of the page.
    panel = root.find("{*}rect") if name.endswith("terminal.svg") else None
    grounds = ["#ffffff", "#111111"] if panel is None else [str(panel.get("fill"))]
    drawn = [e for e in root.iter() if e is not panel]
    inks = {value for e in drawn for key in ("fill", "stroke") if (value := e.get(key))} | {root.get("color")}
    for ink in inks - {"none", "currentColor"}:
        assert all(_contrast(str(ink), ground) >= 3 for ground in grounds), ink


def _contrast(a: str, b: str) -> float:
    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_reference_names_every_command_and_every_quantity() -> None:
    top = docs.parser()
    commands = re.findall(r"^## `resattn (.+)`$", generated()["reference/command-line.md"], re.MULTILINE)
    assert {"list", "audit", "data fetch", "data verify", "study", "completion"} <= set(commands)
    assert len(commands) == len(list(docs._commands(top)))
    for quantity in ("longest_path", "receptive_field_px", "test_error_pct"):
        assert f"| `{quantity}` |" in generated()["reference/tables.md"]


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for alt, link in re.findall(r"(!?\[[^\]]*\])\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link.partition("#")[0]).exists(), link
        if alt.startswith("!"):
            assert len(alt) > 15, "a figure needs words in its place"


def test_the_readme_is_short_and_begins_with_a_picture_and_two_doors() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    first = text.partition("\n## ")[0]
    assert first.count("![") == 1
    for door in re.findall(r"\]\(#([\w-]+)\)", first):
        assert re.search(rf"^## {door.replace('-', ' ')}$", text, re.MULTILINE | re.IGNORECASE)
    assert len(re.findall(r"\]\(#", first)) == 2


# --- commands -------------------------------------------------------------------------------------------------------

# What this test does not run, why, and where it is run instead.
ELSEWHERE = {
    "make report*": "takes minutes: .ci/run runs it; tests/study runs small studies",
    "RESATTN_DATA=* make report *": "needs CIFAR-10: tests/study gives studies a dataset, tests/training reads its files",
    "make test*": "would run itself: .ci/run runs it",
    "make lab": "waits for a person: tests/browser starts the same server and uses it",
    "make bench": "takes minutes and an idle machine",
    "make check": "lint and types: .ci/run",
    "make docs": "test_a_second_writing_changes_nothing does what it does",
    ". .venv/bin/activate": "changes a shell and nothing else",
    "resattn study *": "takes minutes to days: tests/study runs small studies",
    "python3 -m analysis.experiment.many *": "is for a machine with a GPU: tests/training runs it on the CPU",
    "python3 -m analysis.experiment.protocol *": "trains for an hour: tests/training runs it on small networks",
    "resattn study mine.yaml*": "test_how_to runs it",
    "resattn claims mine.csv": "test_how_to runs it",
    "resattn claims paper.csv*": "test_how_to runs it",
    "resattn claims*": "judges every row, which takes a minute: tests/claims does the same in all its forms",
    "LD_PRELOAD=*": "needs a library of the system: tests/study looks at what a study preloads",
    "resattn audit timm:*": "needs libraries outside of the suite: tests/test_targets stands in for them",
    "resattn audit hf:*": "the same",
    "resattn audit torchvision:*": "the same",
    "sbatch *": "needs a cluster: tests of the cluster profile stand in for it",
    "sinfo*": "needs a cluster", "squeue*": "needs a cluster", "sacct*": "needs a cluster", "scancel*": "needs a cluster",
}  # fmt: skip
MODELS = "docs/how-to/audit-your-model.md"
# Blocks that change the packages: test_how_to applies them to a copy.
IN_A_COPY = re.compile(r"# (with this row|[\w/]+\.\w+: .+)\n")


@dataclass(frozen=True)
class Block:
    """Commands of a fenced block in order, each with the lines that are shown of what it prints."""

    page: str
    line: int
    commands: tuple[tuple[str, tuple[str, ...]], ...]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        line = text[: match.start()].count("\n") + 2
        body = match[2].replace("\\\n", " ").splitlines()
        commands: list[tuple[str, list[str]]] = []
        for row in body:
            if match[1] == "sh" and row.strip() and not row.lstrip().startswith("#"):
                commands.append((row.partition(" #")[0].strip(), []))
            elif match[1] == "console" and row.startswith("$ "):
                commands.append((row[2:].strip(), []))
            elif match[1] == "console" and commands:
                commands[-1][1].append(row)
        yield Block(_name(page), line, tuple((c, tuple(shown)) for c, shown in commands))


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def _is_elsewhere(command: str) -> bool:
    return any(fnmatchcase(command, pattern) for pattern in ELSEWHERE)


def test_there_are_commands_to_run() -> None:
    found = [command for block in BLOCKS for command, _ in block.commands]
    assert len(found) > 15
    assert sum(command.startswith("resattn") and not _is_elsewhere(command) for command in found) > 10


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the model that the docs write, and the result that is kept."""
    text = (ROOT / MODELS).read_text(encoding="utf-8")
    code = re.search(r"```python\n# mymodels\.py\n(.*?)```", text, re.DOTALL)
    assert code
    (tmp_path / "mymodels.py").write_text(code[1])
    shutil.copytree(ROOT / "results" / "reference", tmp_path / "results" / "reference")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"{b.page}:{b.line}")
def test_every_command_runs(block: Block, checkout: Path) -> None:
    for command, shown in block.commands:
        if _is_elsewhere(command):
            continue
        words, target = shlex.split(command), None
        if ">" in words:
            words, target = words[: words.index(">")], words[words.index(">") + 1]
        assert words[0].removeprefix(".venv/bin/") == "resattn", f"no test runs {command!r}: say where in ELSEWHERE"
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words[1:])
        assert code == 0, err.getvalue()
        if target:
            (checkout / target).write_text(out.getvalue())
        printed = [" ".join(line.split()) for line in out.getvalue().splitlines()]
        for row in shown:
            line = " ".join(row.split())
            start = line.removesuffix("...").rstrip()
            assert any(p == line or (line.endswith("...") and p.startswith(start)) for p in printed), row


@pytest.mark.parametrize(
    "block",
    [
        (_name(p), m)
        for p in PAGES
        for m in re.findall(r"^```python\n(.*?)^```", p.read_text(), re.MULTILINE | re.DOTALL)
        if not IN_A_COPY.match(m)
    ],
    ids=lambda b: b[0],
)
def test_every_python_block_runs(block: tuple[str, str], checkout: Path) -> None:
    exec(compile(block[1], block[0], "exec"), {"__name__": "docs"})


def test_what_is_run_elsewhere_is_in_the_docs() -> None:
    found = [command for block in BLOCKS for command, _ in block.commands]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in found:
        if match := re.search(r"\bmake ([a-z-]+)", command):
            assert match[1] in targets
    assert any(fnmatchcase(c, "make report*") for c in found)


# --- what travels with the code -------------------------------------------------------------------------------------


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == resattn.__version__
    assert cited["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= set(cited)


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## (\S+),", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first
    assert first[1] == resattn.__version__


def test_a_completion_script_is_one_that_the_shell_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = f"{script}\n_resattn_networks cifar-attention\nCOMP_WORDS=(resattn cens) COMP_CWORD=1\n_shtab_resattn\necho ${{COMPREPLY[@]}}"
    said = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert [n for n in names() if n.startswith("cifar-attention")] == said[:-1]
    assert said[-1] == "census"


def test_a_progress_bar_is_silent_away_from_a_terminal_and_nothing_is_coloured(tmp_path: Path) -> None:
    code = (
        "from resattn.cli import main; import sys; sys.exit(main(['train', 'cifar-resnet11', '--dataset', "
        "'cluttered-digits', '--epochs', '1', '--images', '32', '--batch-size', '32', '--out', sys.argv[1], '--set', 'width=4', "
        "'test_images=32']))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr):
        assert not re.search(r"\x1b\[|\r|it/s|\d+%\|", text)
