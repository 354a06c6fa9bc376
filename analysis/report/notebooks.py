"""Executed notebooks as parts of a page: without scripts, without loading anything, each picture with a description."""

from __future__ import annotations

import base64
import json
import re
import warnings
from html import unescape
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import bleach
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup, Tag
from markupsafe import Markup

from analysis.report.figures import NO_TEXT, Figure, FigureError, figure
from analysis.study.light_imports import light_imports
from analysis.study.page import FAILURE_CELL
from analysis.tables.files import read_regular

with light_imports():
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.filters.highlight import Highlight2HTML
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
PAGE_BYTES = 600_000  # of one notebook's pictures: a report is opened, and sent, as one folder
NOTEBOOK_BYTES = 64_000_000  # of a file that is read
# Characters of one text, of one piece of foreign markup, of one cell's source, and of a page: what turns them into a
# page takes more time than in proportion to their length.
TEXT, MARKUP, SOURCE, PAGE_TEXT = 60_000, 30_000, 10_000, 300_000
TANGLED = 100  # tags of a text that do not end, tags in tags, and tables
CELLS = 2_000  # of a notebook, and outputs of them all
# Of code that is coloured: the lexers of others take the square of the length, or never end.
LANGUAGE, LANGUAGES = "python3", frozenset({"python", "python3", "py", "bash", "sh"})
CUT = "\n[the rest is in the notebook]\n"
HTML_CUT = "\n[a table or a page is in the notebook; it is too long for this page]\n"
TITLE = 200  # characters

_TAGS = (
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 "
    "hr i img kbd li ol p pre s samp small span strong sub summary sup table tbody td tfoot th thead tr u ul var"
)
TAGS = frozenset(_TAGS.split())
ATTRIBUTES = {
    "*": ["class", "id", "title", "lang"],
    "a": ["href"],
    "img": ["src", "alt", "width", "height"],
    "td": ["colspan", "rowspan", "style"],
    "th": ["colspan", "rowspan", "scope", "style"],
    "details": ["open"],
}
STYLES = CSSSanitizer(allowed_css_properties=["text-align", "font-weight"])


class NotebookPageError(ValueError):
    """A file that is not a notebook."""


def notebook_title(path: Path) -> str | None:
    """The first heading of a notebook; None if it has none or is no notebook."""
    try:
        cells = json.loads(read_regular(path, NOTEBOOK_BYTES))["cells"]
        sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        lines = (line for source in sources for line in source.splitlines())
        return next((line[:TITLE].lstrip("# ").strip() for line in lines if line.startswith("# ")), None)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


class Pages:
    """Converts executed notebooks to markup; one instance serves many notebooks."""

    def __init__(self) -> None:
        self._exporter = HTMLExporter(
            template_name="notebook", extra_template_basedirs=[str(TEMPLATES)], exclude_anchor_links=True
        )
        filters = {
            "inline_svg": self._svg,
            "inline_html": self._html,
            "safe_html": safe_html,
            "safe_prose": safe_prose,
            "picture": _picture,
            "highlight_code": Highlight2HTML(pygments_lexer=LANGUAGE),
            "markdown2html": _markdown,
        }
        for name, clean in filters.items():
            self._exporter.register_filter(name, clean)
        self._drawings = count()

    def body(self, path: Path, *, budget: int = PAGE_BYTES) -> Markup:
        """The cells and outputs of an executed notebook, sanitised. `budget`: largest total size of its pictures in
        bytes.

        Raises: NotebookPageError, naming the file.
        """
        self._drawings = count()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on cell ids and the like, which no page shows
                content = json.loads(read_regular(path, NOTEBOOK_BYTES))
                content["metadata"] = {}  # names languages, widgets and titles, which a page takes from elsewhere
                # What the runner says ahead of a run that failed; the page says it itself.
                content["cells"] = [cell for cell in content["cells"] if cell.get("id") != FAILURE_CELL]
                _limit_numbers(content["cells"])
                notebook = nbformat.reads(json.dumps(content), as_version=4)  # joins texts that are kept line by line
                nbformat.validate(notebook)
                _bring_in_bounds(notebook, budget)
                body, _ = self._exporter.from_notebook_node(notebook)
        except Exception as error:  # nbformat and nbconvert raise whatever a malformed file leads them to
            raise NotebookPageError(f"{path.name} cannot be shown ({type(error).__name__}: {error})") from error
        numbers = count(1)  # of the tables of a page: each has a name of its own
        body = re.sub(r'aria-label="table \d+"', lambda _: f'aria-label="table {next(numbers)}"', body)
        return Markup(body)  # safe: the template lets through only what the filters have cleaned

    def _svg(self, text: str) -> Markup:
        try:
            # Ids are unique on a page: each drawing has a prefix of its own.
            return drawing(figure(text, name="output", prefix=f"n{next(self._drawings)}"))
        except FigureError as error:
            return Markup("<p class='gap'>{}</p>").format(str(error))

    def _html(self, text: str) -> Markup:
        """Foreign markup; a drawing on its own, as our figures show themselves, is one."""
        return self._svg(text) if _is_drawing(text) else safe_html(text)


def _picture(output: NotebookNode, kind: str) -> Markup:
    data = "".join(str(output.data[kind]).split())
    metadata = output.get("metadata", {})
    alt = metadata.get("alt") or metadata.get(kind, {}).get("alt") or NO_TEXT
    return Markup("<figure><img src='data:{};base64,{}' alt='{}'></figure>").format(kind, data, str(alt))


def drawing(drawn: Figure) -> Markup:
    """A drawing at its own width, or at the width of the page if that is less."""
    width = f" style='max-width:{drawn.width_px:.0f}px'" if drawn.width_px else ""
    return Markup("<div class='drawing' tabindex='0'{}>{}</div>").format(Markup(width), drawn.svg)  # safe: a number


class _Prose(IPythonRenderer):
    """Renders Markdown without files: attached pictures are not shown, which the page says."""

    def block_code(self, code: str, info: str | None = None) -> str:
        language = (info or "").split(maxsplit=1)[:1]
        return str(super().block_code(code, info if LANGUAGES.issuperset(language) else None))

    def _embed_image_or_attachment(self, src: str) -> str:
        return src


def _markdown(text: str) -> str:
    return str(MarkdownWithMath(renderer=_Prose(escape=False, exclude_anchor_links=True)).render(text))


def safe_prose(markup: str) -> Markup:
    """As `safe_html`; a script in prose is shown as text."""
    soup = BeautifulSoup(markup, "html.parser")
    for element in soup("script"):
        element.replace_with(unescape(str(element)))
    return safe_html(str(soup))


def safe_html(markup: str) -> Markup:
    """Foreign markup without scripts, styles, forms, frames and anything that loads; tables scroll on their own.

    Markup for which a parser would take quadratic time is shown as text.
    """
    if _is_tangled(markup):
        return Markup("<pre tabindex='0'>{}</pre>").format(markup)
    soup = BeautifulSoup(markup, "html.parser")
    for element in soup(["script", "style", "iframe", "object", "embed", "template", "svg", "math", "noscript"]):
        element.decompose()
    for cell in soup("th"):
        if not cell.get_text(strip=True) and not cell.find("img"):
            cell.name = "td"  # above an index, say: it is the head of nothing
            continue
        cell["scope"] = "col" if cell.find_parent("thead") else "row"
    clean = BeautifulSoup(
        bleach.clean(
            str(soup), tags=TAGS, attributes=ATTRIBUTES, css_sanitizer=STYLES, strip=True,
            protocols={"http", "https", "mailto", "data"},
        ),
        "html.parser",
    )  # fmt: skip
    # Here and not above: a browser reads some markup, comments among it, as bleach does and not as this parser.
    for image in clean("img"):
        if not str(image.get("src", "")).startswith("data:image/"):
            image.replace_with(f"[picture not in this report: {image.get('alt') or image.get('src') or ''}]")
        elif not image.get("alt"):
            image["alt"] = NO_TEXT
    for link in clean("a"):
        if str(link.get("href", "")).startswith("data:"):
            del link["href"]
    for number, table in enumerate(clean("table"), start=1):
        _align_numbers(table)
        attributes = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": f"table {number}"}
        table.wrap(clean.new_tag("div", attrs=attributes))
    return Markup(str(clean))  # safe: what bleach let through


def _align_numbers(table: Tag) -> None:
    """Mark the columns that hold numbers only, their heads too; a table with merged cells stays as it is."""
    if table.find("table") is not None:
        return
    rows = [row(["td", "th"], recursive=False) for row in table("tr")]
    if any(cell.has_attr("rowspan") or cell.has_attr("colspan") for row in rows for cell in row):
        return
    body = [row for row in rows if row and row[0].find_parent("tbody")]
    if not body or len({len(row) for row in rows}) > 1:
        return
    for at, column in enumerate(zip(*body, strict=True)):
        if any(texts := [cell.get_text(strip=True) for cell in column]) and all(map(_is_number, texts)):
            for row in rows:
                row[at]["class"] = "num"


NUMBER = re.compile(r"|[\N{EN DASH}-]|[+\N{MINUS SIGN}-]?[\d,]*\.?\d+(e[+-]?\d+)?\s*%?", re.IGNORECASE)


def _is_number(text: str) -> bool:
    return len(text) < 100 and NUMBER.fullmatch(text) is not None  # in a long text the pattern takes its square


def _bring_in_bounds(notebook: NotebookNode, budget: int) -> None:
    """Keep what a reader looks at: a heavy picture or a long text is replaced by a word that says so."""
    pictures, left = 0, PAGE_TEXT
    for cell in notebook.cells:
        cell.pop("attachments", None)  # pictures of a page are outputs
        left -= _cut(cell, "source", min(SOURCE, left))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)  # without its state, which no page has
            html = data.get("text/html", "")
            if (len(html) > max(min(MARKUP, left), 0) or _is_tangled(html)) and not _is_drawing(html):
                del data["text/html"]
                data["text/plain"] = str(data.get("text/plain", "")) + HTML_CUT
            if output.output_type == "error":
                output["traceback"] = ["\n".join(map(str, output.traceback))]
                left -= _cut(output.traceback, 0, min(TEXT, left))
            left -= _cut(output, "text", min(TEXT, left))
            for kind in [kind for kind in data if kind.startswith("text/") and not _is_drawing(data[kind])]:
                left -= _cut(data, kind, min(SOURCE if kind == "text/markdown" else TEXT, left))
            for kind in [kind for kind in data if kind.startswith("image/") or _is_drawing(data[kind])]:
                size = len(data[kind])
                if pictures + size > budget:
                    del data[kind]
                    data["text/plain"] = (
                        f"[a picture of {size // 1000} kB is in the notebook; it is too large for this page]"
                    )
                else:
                    pictures += size
            for kind in ("image/png", "image/jpeg"):
                if kind in data and not _is_base64(data[kind]):
                    del data[kind]


_OPEN_END = "br hr img col input wbr source li td th tr p dt dd thead tbody tfoot colgroup option"
OPEN_END = frozenset(_OPEN_END.split())  # tags that need not, or cannot, be closed


def _is_tangled(html: str) -> bool:
    """Whether a parser of HTML takes the square of the length: tags that never end, tags in tags, tables in tables."""
    if html.count("<") - html.count(">") > TANGLED or html.lower().count("<table") > TANGLED:
        return True
    tags = re.findall(r"<(/?)([a-z][a-z0-9]*)", html.lower())
    depths = accumulate(-1 if end else 1 for end, name in tags if name not in OPEN_END)
    lowest = 0  # so far: what ends without a beginning makes no room for tags in tags
    for depth in depths:
        lowest = min(lowest, depth)
        if depth - lowest > TANGLED:
            return True
    return False


def _limit_numbers(cells: list[dict[str, Any]]) -> None:
    """Keep the first cells and outputs of a notebook as JSON, and make it one that can be validated."""
    left = CELLS
    if len(cells) > CELLS:
        cells[CELLS:] = [{"cell_type": "markdown", "metadata": {}, "source": CUT}]
    for cell in cells:
        cell.pop("id", None)  # not shown, and not valid if it is null or the notebook is of format 4.4
        if outputs := cell.get("outputs"):
            if len(outputs) > left:
                outputs[left:] = [{"output_type": "stream", "name": "stdout", "text": CUT}]
            left = max(left - len(outputs), 0)


def _cut(holder: Any, name: Any, most: int) -> int:
    """The characters that are left of a text, which is cut to `most` of them, which is said."""
    try:
        text = holder[name]
    except (KeyError, IndexError):
        return 0
    if isinstance(text, str) and len(text) > most:
        holder[name] = text[: max(most, 0)] + CUT
    return len(holder[name]) if isinstance(text, str) else 0


def _is_drawing(text: Any) -> bool:
    return isinstance(text, str) and text.lstrip().startswith("<svg")


def _is_base64(text: Any) -> bool:
    try:
        base64.b64decode("".join(str(text).split()), validate=True)
    except ValueError:
        return False
    return True
