"""The module tree and an audit as text for a terminal, as HTML for a notebook, and as a table for a paper."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from resattn.graph.graph import Shape
from resattn.measures.quantities import QUANTITIES
from resattn.views.table import INDENT, Table, brief, number, plain
from resattn.views.tree import FUNCTIONAL, Node, Seen

if TYPE_CHECKING:
    from resattn.measures.audit import Audit

LINES = 60  # of a tree whose depth nobody chose
PLAIN_WIDTH = 80
IDLE = ("Identity", "Dropout", "Dropout2d", "DropPath")
LEAST_NAME = 24  # columns for a module's name before other columns are left out

DEFINITIONS = {
    "output": "shape of the first tensor that the module returns, without the batch",
    "params": "parameters that the execution reads, in the module and below it; a shared one counts once",
    "MACs": "multiply-adds of convolutions and matrix products, bias excluded, in the module and below it",
    "own": "the same without the modules below it",
    "layers": "weighted layers in the module and below it",
    "depth": "most weighted layers on any path from the input to the end of the module",
    "field": "side of the input square that a unit of the output sees, in pixels, and after / the stride: the input "
    "pixels from one unit to the next; `all`: the whole input",
    "role": "trunk, mask or shortcut, where all operators of the module have one; dead: never executed",
    "runs": "how often the forward of the module ran, where that is more than once",
    "N x": "N equal consecutive modules are one line: the numbers are those of each, depth and field those of the last",
    "( )": "work of the module's own forward that is in no module below it, and its own parameters",
}


@dataclass(frozen=True)
class Column:
    """A column of the tree in a terminal. In a narrow terminal those of the highest `priority` are left out first."""

    name: str
    priority: int
    show: Callable[[Node], str]
    is_right: bool = True


COLUMNS = (
    Column("output", 1, lambda n: size(n.output), False),
    Column("params", 0, lambda n: brief(n.params) if n.params else f"({brief(n.unread)})" if n.unread else ""),
    Column("MACs", 0, lambda n: _macs(n.macs, n)),
    Column("own", 5, lambda n: _macs(n.own_macs, n) if n.kind != FUNCTIONAL else ""),
    Column("layers", 3, lambda n: str(n.layers) if n.layers else ""),
    Column("depth", 1, lambda n: str(n.depth) if n.runs or n.depth else ""),
    Column("field", 2, lambda n: _field(n)),
    Column("runs", 5, lambda n: str(n.runs) if n.runs > 1 else ""),
    Column("role", 2, lambda n: n.role, False),
)  # fmt: skip


def size(shape: Shape | None) -> str:
    """A shape without its batch: 64x56x56."""
    return "" if shape is None else "x".join(map(str, shape[1:] if len(shape) > 1 else shape))


def _macs(macs: int, node: Node) -> str:
    return f">{brief(macs)}" if node.unknown else brief(macs) if macs else ""


def _field(node: Node) -> str:
    sides = [seen for seen in (node.height, node.width) if seen is not None]
    if not sides:
        return ""
    shown = ["all" if s.is_whole else str(s.side_px) for s in sides]
    text = shown[0] if len(set(shown)) == 1 else "x".join(shown)
    stride = sides[0].stride
    return text if stride is None else f"{text}/{stride if stride.denominator == 1 else f'{float(stride):g}'}"


# -- in a terminal


@dataclass(frozen=True)
class Line:
    """One line of a tree: name and kind of the module, then the columns."""

    name: str
    kind: str
    cells: str
    node: Node | None = None

    def __str__(self) -> str:
        return f"{self.name}{self.kind}{self.cells}".rstrip()


def lines(root: Node, *, width: int = PLAIN_WIDTH, depth: int | None = None, with_pointwise: bool = True) -> list[Line]:
    """The folded tree as lines of at most `width` columns; the first one is the header."""
    shown = _shown(root.folded(), depth, with_pointwise)
    nodes = [node for _, node in shown]
    names = [f"{'  ' * level}{f'{n.times} x ' if n.times > 1 else ''}{plain(n.name)}" for level, n in shown]
    kinds = [f" {plain(n.kind)}" if n.kind != FUNCTIONAL else "" for n in nodes]
    wanted = max(len(name + kind) for name, kind in zip(names, kinds, strict=True))
    columns = [c for c in COLUMNS if any(c.show(n) for n in nodes)]
    if {n.role for n in nodes} <= {"", "trunk"}:
        columns = [c for c in columns if c.name != "role"]
    cells, widths = _cells(columns, nodes)
    for last in sorted({c.priority for c in columns} - {0}, reverse=True):
        # A column that repeats another one is left out before a name is cut.
        own = [len(name) for name, n in zip(names, nodes, strict=True) if n.kind != FUNCTIONAL]
        least = wanted if last > 3 else min(wanted, max(LEAST_NAME, *own))
        if width - sum(w + 1 for w in widths) >= least:
            break
        columns = [c for c in columns if c.priority < last]
        cells, widths = _cells(columns, nodes)
    room = max(min(width - sum(w + 1 for w in widths), wanted), len("module"))
    found = [Line("module".ljust(room), "", _aligned(columns, [c.name for c in columns], widths))]
    for name, kind, row, node in zip(names, kinds, cells, nodes, strict=True):
        name, kind = _cut(name, room), kind if len(name) + 5 < room else ""
        kind = _cut(kind, room - len(name)).ljust(room - len(name))
        found.append(Line(name, kind, _aligned(columns, row, widths), node))
    return found


def _shown(folded: Node, depth: int | None, with_pointwise: bool) -> list[tuple[int, Node]]:
    return [
        (level, n) for level, n in folded.walk(depth)
        if _is_shown(n) and (with_pointwise or not n.is_pointwise or n.params or n.children)
    ]  # fmt: skip


def _is_shown(node: Node) -> bool:
    """Not a module that does nothing in evaluation (Identity, Dropout)."""
    counts = node.params or node.unread or node.macs or node.unknown or node.kind == FUNCTIONAL
    return bool(counts or (node.runs and node.output is not None and node.kind not in IDLE))


def _cells(columns: Sequence[Column], nodes: Sequence[Node]) -> tuple[list[list[str]], list[int]]:
    cells = [[c.show(n) for c in columns] for n in nodes]
    return cells, [max(len(c.name), *(len(row[k]) for row in cells)) for k, c in enumerate(columns)]


def _aligned(columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = (f" {t.rjust(w) if c.is_right else t.ljust(w)}" for c, t, w in zip(columns, cells, widths, strict=True))
    return "".join(texts).rstrip()


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 2, 0)] + ".." if room > 2 else text[:room]


def chosen_depth(root: Node) -> tuple[int, bool]:
    """The deepest level at which the folded tree has at most `LINES` lines, and whether element-wise modules show."""
    folded = root.folded()
    for depth in range(folded.height_of_tree, 1, -1):
        for with_pointwise in (True, False):
            if len(_shown(folded, depth, with_pointwise)) <= LINES:
                return depth, with_pointwise
    return min(folded.height_of_tree, 1), True


def terminal_width() -> int:
    """Columns of the terminal, or of the variable COLUMNS; 80 without either."""
    return shutil.get_terminal_size((PLAIN_WIDTH, LINES)).columns


def text(audit: Audit, *, width: int | None = None, depth: int | None = None) -> str:
    """The text that `print(audit)` shows: totals, the tree, notes."""
    width = width or terminal_width()
    found = [line if isinstance(line, str) else str(line) for line in parts(audit, width=width, depth=depth)]
    return plain("\n".join(found))


def parts(audit: Audit, *, width: int, depth: int | None = None) -> Iterator[str | Line]:
    """The lines of `text`; lines of the tree with their node."""
    shapes = " and ".join("x".join(map(str, shape)) for shape in (audit.input_shape, *audit.more_inputs))
    yield f"{audit.target}: {audit.status}, input {shapes}"
    yield from _filled("; ".join(_totals(audit)), width)
    yield ""
    root = audit.tree
    shown, with_pointwise = chosen_depth(root) if depth is None else (depth, True)
    yield from lines(root, width=width, depth=shown, with_pointwise=with_pointwise)
    yield ""
    folded = root.folded()
    deepest = folded.height_of_tree
    if shown < deepest:
        yield from _filled(f"depth {shown} of {deepest}: --depth {deepest}, or by_module(), shows the rest", width)
    if not with_pointwise:
        yield from _filled("without modules that only work element by element (activation, sum)", width)
    if any(n.times > 1 for _, n in folded.walk(shown)):
        yield from _filled(f"N x: {DEFINITIONS['N x']}", width)
    if any(n.unknown for _, n in folded.walk(shown)):
        yield from _filled(">: at least; an operator in it has no rule", width)
    for note in notes(audit):
        yield from _filled(note, width)


def _filled(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _totals(audit: Audit) -> Iterator[str]:
    words = {"params": "parameters", "macs": "multiply-adds", "weighted_layers": "weighted layers",
             "trunk_depth": "trunk depth", "longest_path": "longest path",
             "receptive_field_px": "receptive field"}  # fmt: skip
    for key, word in words.items():
        if key in audit.quantities:
            is_side = key.endswith("_px") and audit.quantities[key] is not None
            yield f"{word} {audit.shown(key)}" + (" px" if is_side else "")


def notes(audit: Audit) -> list[str]:
    return [
        audit.about_masks,
        *audit.notes,
        *(f"no rule for {op}" for op in audit.unknown_ops),
        *([f"never executed: {', '.join(audit.dead_modules)}"] if audit.dead_modules else []),
    ]


# -- as a table

TABLE = (
    "module", "kind", "role", "output", "params", "own_params", "macs", "own_macs", "weighted_layers", "depth",
    "receptive_field_h_px", "receptive_field_w_px", "stride", "offset_px", "runs", "unread_params",
    "macs_at_least", "unknown_ops",
)  # fmt: skip


def table(root: Node, *, depth: int | None = None, fold: bool = False) -> Table:
    """One row for each module down to a depth (0 is the model), with every number of the tree.

    `fold`: one row for consecutive equal modules, with a column `times` and the numbers of each.
    """
    nodes = [n for _, n in (root.folded() if fold else root).walk(depth)]
    header = (*TABLE[:1], "times", *TABLE[1:]) if fold else TABLE
    rows = []
    for n in nodes:
        name = n.path or root.name
        if n.kind == FUNCTIONAL:
            name = f"{n.path}{n.name}"
        elif n.times > 1:
            above = n.path.rpartition(".")[0]
            name = f"{above}.{n.name}".lstrip(".")
        row: list[Any] = [
            name, n.kind, n.role, size(n.output), n.params, n.own_params, None if n.unknown else n.macs, n.own_macs,
            n.layers, n.depth, _px(n.height), _px(n.width), _stride(n.height),
            n.height.offset if n.height else None, n.runs, n.unread,
            n.macs if n.unknown else None, " ".join(n.unknown),
        ]  # fmt: skip
        if fold:
            row.insert(1, n.times)
        rows.append(row)
    return Table.of(header, rows, dict.fromkeys(header, _blank))


def _blank(value: Any) -> str:
    return "" if value is None else number(value)


def paper_table(root: Node, *, depth: int | None = None) -> Table:
    """The folded tree with the columns that a paper prints."""
    header = ("module", "output", "params", "MACs", "layers", "depth", "field")
    rows = []
    for level, n in root.folded().walk(depth):
        if _is_shown(n):
            name = f"{INDENT * level}{f'{n.times} x ' if n.times > 1 else ''}{n.name}"
            macs = f"> {n.macs:,}" if n.unknown else n.macs
            rows.append((name, size(n.output), n.params, macs, n.layers, n.depth, _field(n)))
    return Table.of(header, rows)


def _px(seen: Seen | None) -> int | None:
    return None if seen is None else seen.side_px


def _stride(seen: Seen | None) -> int | float | None:
    if seen is None or seen.stride is None:
        return None
    return int(seen.stride) if seen.stride.denominator == 1 else float(seen.stride)


# -- in a notebook

IN_HTML = tuple(c for c in COLUMNS if c.name in ("output", "params", "MACs", "layers", "depth", "field", "role"))
RULES = {
    "": "font:12px/1.7 monospace;max-width:75em",
    " .leaf": "padding-left:1.2em",
    " .row": "display:inline-grid;grid-template-columns:minmax(14em,1fr) 9em 6em 6em 4em 4em 7em 6em;gap:.5em;"
    "width:calc(100% - 2em)",
    " .leaf .row": "width:calc(100% - .8em)",
    " .row>*": "text-align:right",
    " .row>:first-child": "text-align:left",
    " .row>:nth-child(2)": "text-align:left",
    " .row>:last-child": "text-align:left",
    " i": "opacity:.7",
}
STYLE = f"<style>{''.join(f'.resattn-tree{where}{{{what}}}' for where, what in RULES.items())}</style>"


def html(root: Node) -> str:
    """The folded tree as HTML; a click opens or closes a module. It is readable without its style sheet."""
    head = " ".join(f"<b>{name}</b>" for name in ("module", *(c.name for c in IN_HTML)))
    head = f'<div class="leaf"><span class="row">{head}</span></div>'
    return f'{STYLE}<div class="resattn-tree">{head}{_html(root.folded(), 0)}</div>'


def _html(node: Node, level: int) -> str:
    exact = f"{node.params:,} parameters, {node.macs:,} multiply-adds" + (f", {node.path}" if node.path else "")
    times = f"{node.times} \u00d7 " if node.times > 1 else ""
    kind = f" <i>{escape(node.kind)}</i>" if node.kind != FUNCTIONAL else ""
    indent = f' style="padding-left:{1.2 * level:.1f}em"' if level else ""
    name = f'<span{indent} title="{escape(exact)}">{times}{escape(node.name)}{kind}</span>'
    row = " ".join([name, *(f"<span>{escape(c.show(node))}</span>" for c in IN_HTML)])
    row = f'<span class="row">{row}</span>'
    below = [child for child in node.children if _is_shown(child)]
    if not below:
        return f'<div class="leaf">{row}</div>'
    inner = "".join(_html(child, level + 1) for child in below)
    is_open = "" if level else ' open="open"'
    return f"<details{is_open}><summary>{row}</summary>{inner}</details>"


def audit_html(audit: Audit) -> str:
    """The tree, each quantity with its definition, and notes, as HTML."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(QUANTITIES[q].label)}</th>'
        f"<td>{audit.shown(q)}</td>"
        f'<td style="text-align:left">{escape(QUANTITIES[q].definition)}</td></tr>'
        for q in audit.quantities
    )
    shape = " x ".join(map(str, audit.input_shape))
    facts = [audit.status, f"input {shape}", *notes(audit)]
    return (
        f"<b>{escape(audit.target)}</b>{html(audit.tree)}<details><summary>quantities</summary><table><tbody>{rows}"
        f"</tbody></table></details><small>{escape('; '.join(facts))}</small>"
    )
