"""The parts of the site that are not in docs/. MkDocs calls the functions named `on_*` (set in mkdocs.yml).

Pages from code and results are made here; the kept report is copied unchanged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import escape
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from analysis.explore.page import block
from analysis.tables import schemas
from analysis.tables.files import read_table
from analysis.tables.formats import display_name
from analysis.tables.provenance import ROOT
from analysis.zoo import tables as zoo
from resattn import DOOR

HERE, RESULTS = Path(__file__).parent, ROOT / "results"
REFERENCE = RESULTS / "reference"
REPORT = REFERENCE / "report"
API = "reference/python.md"
BARE = "---\nhide: [navigation, toc]\n---\n\n"
STUDY = (schemas.DEPTH, schemas.COST, schemas.RECEPTIVE_FIELD)
COUNTS = ("longest_path", "weighted_layers", "params", "macs", "receptive_field_px")
HEADS = ("network", "from", "named", "longest path", "weighted layers", "parameters", "multiply-adds", "field, px")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of docs/, the generated pages, and every file of the report."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for path in sorted(REPORT.rglob("*.html")):
        files.append(File.generated(config, f"report/{path.relative_to(REPORT).as_posix()}", abs_src_path=str(path)))
    return files


def pages() -> dict[str, str]:
    """Name in the site and Markdown of the pages that are not in docs/."""
    return {
        "index.md": BARE + landing(),
        "explorer.md": BARE
        + "# Explorer\n\nEvery number is counted in this page.\n\n## What the sliders change\n\n[explorer]\n",
        "named.md": BARE + "# Named N, really M\n\n" + (HERE / "named.md").read_text(encoding="utf-8") + "\n[named]\n",
        API: f"# Python\n\n```python\nfrom resattn import {', '.join(sorted(DOOR))}\n```\n\n"
        + "".join(f"::: {DOOR[name]}.{name}\n\n" for name in sorted(DOOR)),
    }


def landing() -> str:
    """The README down to its table of folders, with links into the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Where things are")[0]
    doors = (HERE / "doors.html").read_text(encoding="utf-8")
    text = re.sub(r"^\| you want .*?\n(?!\|)", lambda _: doors + "\n", text, count=1, flags=re.MULTILINE | re.DOTALL)
    return text.replace("](docs/", "](") + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files outside the site become plain text, except those to the report, which the site contains."""

    def link(found: re.Match[str]) -> str:
        words, address = found[1], found[2].partition("#")[0]
        if address.endswith("report/index.html"):
            return f"[{words}]({'../' * page.file.src_uri.count('/')}report/index.html)"
        target = (Path("/") / page.file.src_uri).parent.joinpath(address).resolve().relative_to("/")
        known = "://" in address or not address or files.get_file_from_path(target.as_posix())
        return found[0] if known else words

    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, markdown)


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """The page's HTML with the explorer or the table in place of its mark, and each `Raises:` on a line of its own.

    Inline code may break after `_`, `/` and `.`; in tables, by docs/site.css, nowhere else.
    """
    breaks = re.compile(r"(?<=\w[_/.])(?=[A-Za-z]\w\w)")
    html = re.sub(r"<code>[^<\n]+</code>", lambda code: breaks.sub("<wbr>", code[0]), html)
    if page.file.src_uri == API:
        return re.sub(r"\s(Raises|Source): ", r"<br>\1: ", html)
    if "<p>[explorer]</p>" in html:
        return html.replace("<p>[explorer]</p>", block().whole)
    return html.replace("<p>[named]</p>", table(HEADS, named())) if "<p>[named]</p>" in html else html


def named() -> Iterator[Sequence[Any]]:
    """A row for each network of the study, then for each measured model of the zoo."""
    rows = {schema: _rows(REFERENCE / schema.notebook / "tables", schema) for schema in STUDY}
    of: dict[str, Counter[str]] = {row["network"]: Counter() for row in rows[schemas.DEPTH]}
    for row in (*rows[schemas.DEPTH], *rows[schemas.COST]):  # the cost is that of the roles together
        if row["network"] in of:
            of[row["network"]][row["quantity"]] += row["value"]
    for row in rows[schemas.RECEPTIVE_FIELD]:
        if row["network"] in of:
            found = of[row["network"]]
            found["receptive_field_px"] = max(found["receptive_field_px"], row["value"])
    for name, counts in of.items():
        yield display_name(name), "this study", *(counts.get(q) for q in ("claimed_depth", *COUNTS))
    depths = {(r["family"], r["model"]): r["named"] for r in _rows(RESULTS / "zoo", zoo.NAMED)}
    for row in _rows(RESULTS / "zoo", zoo.ALL):
        if row["outcome"] == "measured":
            yield row["model"], row["family"], depths.get((row["family"], row["model"])), *(row[q] for q in COUNTS)


def _rows(folder: Path, schema: schemas.Schema) -> list[dict[str, Any]]:
    """The rows of a table; none, where it has not been made."""
    file = folder / schema.file
    return read_table(file, schema).to_dict("records") if file.is_file() else []


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table of networks with a search field."""

    def cell(value: Any) -> str:
        if isinstance(value, str):
            return f"<td>{escape(value)}</td>"
        return f'<td class="n">{f"{value:,.0f}" if value is not None and value == value else "–"}</td>'

    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>\n" for row in rows)
    return (
        (HERE / "table.html").read_text(encoding="utf-8").replace("[head]", f"<tr>{heads}</tr>").replace("[rows]", body)
    )
