"""One HTML page about a network, which loads nothing else: drawing, longest path, path lengths, module tree."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resattn.measures.quantities import QUANTITIES
from resattn.views import shown
from resattn.views.drawing import Drawing, drawing
from resattn.views.tree import FUNCTIONAL, Node

if TYPE_CHECKING:
    from resattn.measures.audit import Audit
    from resattn.measures.used import Used

MOST_BYTES = 2_000_000
HERE = Path(__file__).parent
STEPS = 100  # of a drawing's length unit


def write(audit: Audit, file: Path, used: Used | None = None) -> Path:
    """Writes the page in one step and returns its path. Raises: OSError."""
    if not file.parent.is_dir():
        raise OSError(f"no folder {file.parent} for {file.name}")
    text = page(audit, used)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:40]}.")  # no longer than a name can be
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
    return file


def page(audit: Audit, used: Used | None = None) -> str:
    """The page as HTML of at most `MOST_BYTES`. For a larger network repeated blocks are folded and the tree is cut to
    as many levels as fit; the page says so.
    """
    text = ""
    for data in _data(audit, used):
        text = _html(audit, data).encode("utf-8", "replace").decode()  # a name may have a lone surrogate
        if len(text.encode()) <= MOST_BYTES:
            break
    return text


def _html(audit: Audit, data: dict[str, Any]) -> str:
    # `<` ends no element inside of a string of JSON that has none.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    parts = {
        "title": escape(audit.target), "style": (HERE / "page.css").read_text(encoding="utf-8"),
        "script": (HERE / "page.js").read_text(encoding="utf-8"), "data": text,
    }  # fmt: skip
    template = (HERE / "page.html").read_text(encoding="utf-8")
    head, *rest = template.split("{{")
    return head + "".join(parts[name] + tail for name, _, tail in (part.partition("}}") for part in rest))


def _data(audit: Audit, used: Used | None) -> Iterator[dict[str, Any]]:
    """What the page shows, in less and less detail."""
    network, root = audit.captured, audit.tree
    deepest = root.height_of_tree
    full, folded = drawing(network), drawing(network, root)
    base: dict[str, Any] = {
        "target": audit.target, "input": list(audit.input_shape), "image": list(audit.input_shape[-2:]),
        "facts": [[QUANTITIES[q].label, audit.shown(q), QUANTITIES[q].definition] for q in audit.quantities],
        "notes": [f"status: {audit.status}", *shown.notes(audit)], "lengths": _shares(audit.path_lengths),
        "used": None if used is None else [[k, n] for k, n in sorted(used.share.items()) if n > 0],
        "columns": [[c.name, shown.DEFINITIONS.get(c.name, "")] for c in shown.COLUMNS],
    }  # fmt: skip
    for with_full, depth in ((True, deepest), *((False, d) for d in range(deepest, 0, -1))):
        rows, at = _rows(root, depth)
        drawings = {"folded": folded, "all": full} if with_full and folded.blocks else {"all": full}
        if not with_full:
            drawings = {"folded": folded}
        left = [] if with_full else [f"this page holds {depth} of {deepest} levels, and repeated blocks only folded"]
        yield {
            **base, "notes": [*base["notes"], *left], "modules": rows, "tree": _order(root, at, depth),
            "drawings": {name: _drawn(d, audit, at) for name, d in drawings.items()},
        }  # fmt: skip


def _rows(root: Node, depth: int) -> tuple[list[list[Any]], dict[str, int]]:
    """The numbers of each module that a person may point at, and the row of each path."""
    rows: list[list[Any]] = []
    at: dict[str, int] = {}
    for _, node in root.walk(depth):
        key = node.path + (node.name if node.kind == FUNCTIONAL else "")
        at[key] = len(rows)
        field = None
        if node.height is not None and node.width is not None:
            field = [0 if s.is_whole else s.side_px for s in (node.height, node.width)]
        cells = [c.show(node) for c in shown.COLUMNS]
        rows.append([node.path or root.name, node.kind, cells, field])
    return rows, at


def _order(root: Node, at: dict[str, int], depth: int) -> list[list[Any]]:
    """The folded tree: level, row and name of each line, parents first."""
    return [
        [level, at[node.path + (node.name if node.kind == FUNCTIONAL else "")],
         f"{node.times} \N{MULTIPLICATION SIGN} {node.name}" if node.times > 1 else node.name]
        for level, node in root.folded().walk(depth)
    ]  # fmt: skip


def _shares(lengths: Any) -> list[list[Any]]:
    """The share of paths of each length; the counts may be too large for a float."""
    total = sum(lengths.values())
    return [[length, float(Fraction(n, total))] for length, n in sorted(lengths.items()) if n]


ROLES = ("trunk", "mask", "shortcut")


def _drawn(found: Drawing, audit: Audit, at: dict[str, int]) -> dict[str, Any]:
    """Flat lists of numbers: seven for a mark, two for an edge."""
    graph = audit.captured.graph
    names: dict[str, int] = {}
    marks: list[int] = []
    edges: list[int] = []
    most = max((m.macs for m in found.marks if m.is_layer), default=0) or 1
    for k, mark in enumerate(found.marks):
        op = graph.ops[mark.op]
        role = ROLES.index(mark.role) if mark.role in ROLES else 0
        flags = mark.is_layer + 2 * mark.is_on_longest + 4 * role
        name = names.setdefault(op.name.removeprefix("aten."), len(names))
        marks += [round(mark.x * STEPS), mark.lane, flags, round(1000 * mark.macs / most), _module(op.module, at), name,
                  mark.macs]  # fmt: skip
        edges += [number for i in mark.before for number in (i, k)]
    blocks = [[_module(b.path, at), b.times, round(b.start * STEPS), round(b.stop * STEPS)] for b in found.blocks]
    return {"marks": marks, "edges": edges, "blocks": blocks, "names": list(names), "most": most,
            "length": round(found.length * STEPS)}  # fmt: skip


def _module(path: str, at: dict[str, int]) -> int:
    """The row of a module, or of the nearest above it that has one."""
    while path and path not in at:
        path = path.rpartition(".")[0]
    return at.get(path, 0)
