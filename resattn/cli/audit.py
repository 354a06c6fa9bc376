"""`audit`: the numbers of networks, as a table, a tree, JSON or a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resattn.cli.options import Command, UsageError, path_of, read_inputs, read_settings, target_options
from resattn.cli.printing import brief, print_json, print_table, wrapped
from resattn.cli.streams import printing_to_stderr

if TYPE_CHECKING:
    from resattn.measures.audit import Audit


def add(command: Command) -> None:
    sub = command("audit", _audit, "Measure depth, paths, cost and receptive field of networks.")
    target_options(sub)
    sub.add_argument(
        "--at", nargs="+", action="extend", default=[], metavar="MODULE",
        help="also report the receptive field at these modules",
    )  # fmt: skip
    sub.add_argument(
        "--used", action="store_true",
        help="also run the network on values: how many weighted layers its gradient passes",
    )  # fmt: skip
    sub.add_argument(
        "--device", choices=("meta", "cpu"), default="meta",
        help="meta: nothing is computed; cpu: the forward runs on values, and the numbers hold for this input",
    )  # fmt: skip
    sub.add_argument(
        "--tree",
        action="store_true",
        help="print the module tree; equal consecutive modules are one line; with --json: add a row for each module",
    )
    sub.add_argument("--depth", type=int, metavar="N", help="levels of the tree (default: as many as fit 60 lines)")
    sub.add_argument("--explain", action="store_true", help="print the definition of each number too")
    sub.add_argument(
        "--counted-like", nargs="+", action="extend", default=[], metavar="TOOL",
        help="print the number that another tool prints, and a sentence for a paper: fvcore, thop, ptflops, "
        "torchinfo, deepspeed, flopcounter",
    )  # fmt: skip
    sub.add_argument(
        "--training", nargs="?", const="sgd", choices=("sgd", "adamw"), metavar="OPTIMIZER",
        help="print what a step of training costs and holds in memory: sgd (with momentum, the default) or adamw",
    )  # fmt: skip
    sub.add_argument(
        "--scaling", nargs="*", metavar="SIZE",
        help="print the cost as a formula of the input's sizes; with sizes such as H=320,W=480 its values there",
    )  # fmt: skip
    sub.add_argument(
        "--html", type=path_of, metavar="FILE", help="write one page: drawing to scale, paths, module tree"
    )
    sub.add_argument("--format", choices=("text", "md", "csv", "tex"), default="text", help="form of the table or tree")


def _audit(args: argparse.Namespace) -> None:
    from resattn.measures.audit import audit
    from resattn.measures.quantities import QUANTITIES

    if args.depth is not None and (args.depth < 0 or not args.tree):
        raise UsageError("--depth takes a number of levels, with --tree")
    inputs, settings = read_inputs(args), read_settings(args.settings)
    with printing_to_stderr():
        audits = [audit(t, inputs, settings=settings, device=args.device, at=args.at) for t in args.targets]
        depths = [a.used() for a in audits] if args.used else []
    if args.html:
        return _page(audits, depths, args.html)
    if args.training or args.scaling is not None:
        return _forecast(audits, args)
    if args.counted_like:
        return _counted(audits, args)
    if args.json:
        more = [{"used": u.to_json()} for u in depths] or [{}] * len(audits)
        return print_json([a.to_json(tree=args.tree) | m for a, m in zip(audits, more, strict=True)])
    if args.tree:
        from resattn.views.trees import print_trees

        return print_trees(audits, args.format, depth=args.depth, explain=args.explain)
    shown = [q for q in QUANTITIES.values() if any(q.id in a.quantities for a in audits)]
    definition = [[q.definition] if args.explain else [] for q in shown]
    print_table(
        [(q.id, *(_cell(a, q.id, args.format) for a in audits), *d) for q, d in zip(shown, definition, strict=True)],
        ("quantity", *(a.target for a in audits), *(["definition"] if args.explain else [])), args.format,
    )  # fmt: skip
    if args.at:
        print()

        def of(target: str) -> list[str]:
            return [target] if len(audits) > 1 else []

        print_table(
            [
                (*of(a.target), *(_side(value) for name, value in f.items() if name != "notes"))
                for a in audits
                for f in a.fields
            ],
            (*of("target"), "module", "all paths", "without masks", "narrowest path", "widest path"),
        )
    for depth in depths:
        print(f"\n{depth}")
    for a in audits:
        notes = [f"{a.target}: {a.status}, {a.about_masks}", *a.notes]
        notes += [f"no rule for {op}" for op in a.unknown_ops]
        notes += [f"{f['module']}: {note}" for f in a.fields for note in f["notes"]]
        print("; ".join(notes), file=sys.stderr)


def _cell(audit: Audit, quantity: str, form: str) -> int | float | str:
    value = audit.quantities.get(quantity)
    if value is None:
        return audit.shown(quantity)
    return value if form == "csv" else brief(value)  # type: ignore[no-any-return]


def _counted(audits: Sequence[Any], args: argparse.Namespace) -> None:
    from resattn.instruments.counters import ToolError

    counted = [a.counted_like(tool) for a in audits for tool in args.counted_like]
    if args.json:
        print_json([c.to_json() for c in counted])
    else:
        print_table(
            [(c.target, f"{c.tool} {c.version}", c.value, c.unit) for c in counted],
            ("target", "tool", "number", "unit"), args.format,
        )  # fmt: skip
    for c in counted:
        if c.value is not None and not args.json and args.format == "text":
            print(wrapped(f"\n{c.tool}: {c.sentence}"))
    if refused := [c.sentence for c in counted if c.value is None]:
        raise ToolError(" ".join(refused))


def _forecast(audits: Sequence[Audit], args: argparse.Namespace) -> None:
    sizes = [_sizes(text) for text in args.scaling or ()]
    found: list[Any] = []
    with printing_to_stderr():
        for a in audits:
            if args.training:
                found.append(a.training(optimizer=args.training))
            if args.scaling is not None:
                formula = a.scaling()
                at = [{"target": a.target, **{**formula.sizes, **s}, **formula.at(**s)} for s in sizes]
                found += at or [formula]
    if args.json:
        return print_json([f if isinstance(f, dict) else f.to_json() for f in found])
    rows = [f for f in found if isinstance(f, dict)]
    text = "\n\n".join(str(f) for f in found if not isinstance(f, dict))
    print(wrapped(text), end="\n" * (len(rows) < len(found)))
    if rows:
        header = list(dict.fromkeys(key for row in rows for key in row))
        print_table([[row.get(key, "") for key in header] for row in rows], header, args.format)


def _sizes(text: str) -> dict[str, int]:
    """H=320,W=480 as numbers by letter."""
    pairs = [word.partition("=")[::2] for word in text.split(",")]
    if not all(name.isalnum() and value.isdecimal() for name, value in pairs):
        raise UsageError(f"--scaling takes sizes such as H=320,W=480, found {text!r}")
    return {name: int(value) for name, value in pairs}


def _page(audits: Sequence[Audit], depths: Sequence[Any], file: Path) -> None:
    from resattn.views.page import write

    if len(audits) != 1:
        raise UsageError("--html takes one target: a page is of one network")
    print(write(audits[0], file, *depths))


def _side(value: Any) -> Any:
    """A side in pixels; height x width where they differ."""
    if isinstance(value, list):
        return value[0] if len(set(value)) == 1 else "x".join(map(str, value))
    return value
