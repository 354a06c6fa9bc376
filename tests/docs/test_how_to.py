"""The pages on how to extend the packages: each example is applied to one copy of them, and used there."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from analysis.study.notebook_parameters import read_parameters

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "how-to"
LONGEST_PAGE = 50  # lines
EDIT = re.compile(r"# (?P<file>[\w/]+\.\w+): (?P<where>.+)\n")
CLOSING = re.compile(r"[)}\]]+(\s*#.*)?")  # of a table; a row ends with a comma


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def edits(page: str) -> Iterator[tuple[str, str, str]]:
    """The file, the place in it and the text of each block that begins with `# FILE: PLACE`."""
    for block in blocks(page, "python"):
        if match := EDIT.match(block):
            yield match["file"], match["where"], block[match.end() :]


def applied(source: str, where: str, text: str) -> str:
    """The source of a module with a row at the end of a table, or with lines before a table."""
    table = where.rpartition(" ")[2]
    lines = source.splitlines(keepends=True)
    node = next(n for n in ast.parse(source).body if table in map(ast.unparse, _targets(n)))
    at = node.lineno - 1
    if where.startswith("a row of"):
        assert node.end_lineno
        at = node.end_lineno
        while CLOSING.fullmatch(lines[at - 1].strip()):
            at -= 1
    return "".join([*lines[:at], text, *lines[at:]])


def _targets(node: ast.stmt) -> list[ast.expr]:
    return [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []


# What is asked of the copy with every example in it: each value is independent of our own counts, or of the example.
ASKED = """
import json
import torch
from resattn import audit
from resattn.rules.table import RULES
from resattn.training import data
from resattn.training.config import TrainConfig
from resattn.networks.catalog import named
from resattn.networks.spec import override

class Next(torch.nn.Module):
    def forward(self, x):
        return torch.nextafter(x, 2 * x)

def quantity(name, of, **settings):
    return audit(name, settings=settings).quantities[of]

bars = data.load("bars")
config = TrainConfig(spec=override(named("cifar-resnet20-basic"), {"classes": 2}), dataset="bars", epochs=1)
feed = data.prepare(bars, config)
print(json.dumps({
    "add-an-operator": [RULES["aten.nextafter"].kind, audit(Next(), (3, 8, 8)).status],
    "add-a-quantity": [quantity("resnet50", "pool_ops"), quantity("attention56", "pool_ops")],
    "add-a-unit": [quantity("cifar-resnet56", "trunk_depth", unit="triple"), %(unit)s],
    "add-a-network": [%(network)s, quantity("attention56", "longest_path")],
    "add-a-dataset": [str(bars)[:59], config.n_images, next(feed.batches(0))[1].unique().tolist(), feed.mirrors],
}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """What the copy of the package answers once all rows of the pages are in it."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "resattn", copy / "resattn", ignore=shutil.ignore_patterns("__pycache__"))
    for page in sorted(path.stem for path in PAGES.glob("add-*.md")):
        for file, where, text in edits(page):
            if not file.endswith(".py"):
                continue
            path = copy / file
            is_new = where == "a new file"
            assert path.exists() != is_new, file
            path.write_text(text if is_new else applied(path.read_text(encoding="utf-8"), where, text))
    used = {page: _used(page) for page in ("add-a-unit", "add-a-network")}
    code = ASKED % {"unit": used["add-a-unit"], "network": used["add-a-network"]}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, env={"PYTHONPATH": str(copy)}, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _used(page: str) -> str:
    """The expression of the block that uses the row."""
    (block,) = [block for block in blocks(page, "python") if block.startswith("# with this row\n")]
    return block.partition("\n")[2].strip()


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("add-an-operator", ["pointwise", "complete"]),
        ("add-a-quantity", [1, 1 + 3 + 2 + 1]),  # the stem's; and 3, 2, 1 poolings of the masks
        # Three layers a unit, as the bottleneck has: the networks keep the depths of their names.
        ("add-a-unit", [56, 74]),
        ("add-a-network", [80, 80]),
        (
            "add-a-dataset",
            ["bars: 1000 training and 200 test images, 2 classes, sha256 ", 1000, [0, 1], False],
        ),
    ],
)
def test_the_row_of_the_page_is_all_that_it_takes(
    page: str, expected: list[object], answers: dict[str, list[object]]
) -> None:
    assert answers[page] == expected


def test_the_notebook_and_the_profile_of_the_page_are_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resattn.cli import main

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# What do masks cost?")])
    for file, where, text in edits("add-a-notebook"):
        name, tags = Path(file).name, ["parameters"] if "`parameters`" in where else []
        notebook.cells.append(nbformat.v4.new_code_cell(text, metadata={"tags": tags} if tags else {}))
    nbformat.write(notebook, tmp_path / name)
    (profile,) = blocks("add-a-notebook", "yaml")
    (tmp_path / "mine.yaml").write_text(f"notebooks_dir: .\n{profile}")
    monkeypatch.chdir(tmp_path)
    assert main(["study", "mine.yaml", "--dry-run"]) == 0

    values = read_parameters(tmp_path / name) | {"out_dir": str(tmp_path / "out")}
    exec(compile(notebook.cells[-1].source, name, "exec"), dict(values))
    assert [path.name for path in sorted((tmp_path / "out" / "tables").glob("*.csv"))] == ["cost.csv"]


def test_the_claims_of_the_page_have_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from resattn.cli import main

    (table,) = blocks("add-a-claim", "csv")
    (tmp_path / "mine.csv").write_text(table)
    (command,) = [text.strip() for text in blocks("add-a-claim", "sh") if "mine.csv" in text]
    monkeypatch.chdir(tmp_path)
    assert main([*command.split()[1:], "--json"]) == 0
    verdicts = {row["id"]: row["verdict"] for row in json.loads(capsys.readouterr().out)}
    assert verdicts == {"mine.depth": "confirmed", "mine.twice": "confirmed"}


def test_the_table_of_a_paper_becomes_a_test_and_a_latex_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from resattn.cli import main

    net, test = blocks("check-a-table", "python")
    (table,) = blocks("check-a-table", "csv")
    for name, text in (("net.py", net), ("test_paper.py", test), ("paper.csv", table)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {}
    exec(compile(test, "test_paper.py", "exec"), given)
    given["test_the_table_of_the_paper"]()  # holds
    (tmp_path / "paper.csv").write_text(table.replace(",5.4,k", ",5.5,k"))
    with pytest.raises(AssertionError):  # 5.418 k
        given["test_the_table_of_the_paper"]()
    (tmp_path / "paper.csv").write_text(table.replace("operations,10.3,M,1000,flop", "multiply_adds,10.3,M,1000,mac"))
    (_, command) = [line for block in blocks("check-a-table", "sh") for line in block.splitlines()]
    assert main(command.partition(" > ")[0].split()[1:]) == 0
    assert r"t1.flops & mine, Table 1 & net.py:small input=3,32,32 & cost & 10.3 M & " in (
        tex := capsys.readouterr().out
    )
    assert tex.count("other definition") == 1
    assert tex.startswith(r"\begin{tabular}")


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("add-*.md")))
def test_a_page_is_short(page: str) -> None:
    assert len((PAGES / f"{page}.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_PAGE
