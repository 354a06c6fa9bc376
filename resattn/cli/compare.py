"""`crosscheck`, `match`, `census`, `diff`: compare a network with other tools, ResNets, its name, an earlier audit."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resattn.cli.options import Command, json_option, path_of, read_inputs, read_settings, target_options
from resattn.cli.printing import brief, print_json, print_table
from resattn.cli.streams import printing_to_stderr

if TYPE_CHECKING:
    from resattn.graph.inputs import Inputs


def add(command: Command) -> None:
    sub = command("crosscheck", _crosscheck, "Compare our counts with fvcore, torchinfo and torch FlopCounterMode.")
    target_options(sub)

    sub = command("match", _match, "Find the ResNet that equals a network in one quantity.")
    target_options(sub)
    sub.add_argument(
        "--by", required=True, choices=("trunk_depth", "longest_path", "weighted_layers", "params", "macs"),
        help="the quantity that is equal",
    )  # fmt: skip

    sub = command("census", _census, "Compare named depth with counted depth for classic networks.")
    json_option(sub)

    sub = command("diff", _diff, "Show what changed between two audits, in total and by module.")
    sub.add_argument(
        "before",
        type=path_of,
        metavar="A.json",
        help="a file that `resattn audit --json` (--tree: with modules) wrote, or a TARGET",
    )
    sub.add_argument("after", type=path_of, metavar="B.json", help="another one")
    sub.add_argument(
        "--input", metavar="C,H,W", action="append", default=[], help="input shape of a TARGET, as for `resattn audit`"
    )
    sub.set_defaults(batch=1)
    sub.add_argument(
        "--exit-code", action="store_true",
        help="exit with 1 where something changed; a pipe that is closed early does not change this",
    )  # fmt: skip
    json_option(sub)


def _crosscheck(args: argparse.Namespace) -> int:
    from resattn.instruments.crosscheck import crosscheck

    inputs, settings = read_inputs(args), read_settings(args.settings)
    with printing_to_stderr():
        checks = [c for t in args.targets for c in crosscheck(t, inputs, settings=settings)]
    if args.json:
        print_json([c.to_json() for c in checks])
    else:
        print_table(
            [
                (c.target, f"{c.tool} {c.version}", c.quantity, c.reported, c.ours, c.difference, c.unexplained,
                 c.error or "; ".join(f"{cause}: {n:,}" for cause, n in c.causes.items()) or "none")
                for c in checks
            ],
            ("target", "tool", "quantity", "reported", "ours", "difference", "unexplained", "causes"),
        )  # fmt: skip
    return 1 if any(c.unexplained for c in checks) else 0


def _match(args: argparse.Namespace) -> None:
    from resattn.compare.matching import match

    inputs, settings = read_inputs(args), read_settings(args.settings)
    with printing_to_stderr():
        matches = [match(target, args.by, inputs, settings=settings) for target in args.targets]
    if args.json:
        return print_json([m.to_json() for m in matches] if len(matches) > 1 else matches[0].to_json())
    for m in matches:
        how = "exact" if m.is_exact else f"nearest, {m.off_pct:+.2f} %"
        print(f"{m.spec.name}: {m.by} {m.found:,} for {m.wanted:,} of {m.network} ({how})")


def _census(args: argparse.Namespace) -> None:
    from resattn.compare.census import COLUMNS, census

    rows = census()
    if args.json:
        return print_json(rows)
    print_table([[brief(row[column]) for column in COLUMNS] for row in rows], COLUMNS)


def _diff(args: argparse.Namespace) -> int:
    from resattn.compare.diff import diff

    both = [_records(path, read_inputs(args)) for path in (args.before, args.after)]
    changes = diff(*both)
    if args.json:
        print_json([change.to_json() for change in changes])
    elif changes:
        print_table(
            [(c.target, c.module, c.quantity, c.before, c.after, c.difference if c.difference is not None else "")
             for c in changes],
            ("target", "module", "quantity", "before", "after", "difference"),
        )  # fmt: skip
    else:
        print("no difference", file=sys.stderr)
    if not all("tree" in record for records in both for record in records.values()):
        print("compared in total: a file of `resattn audit TARGET --json --tree` names modules too", file=sys.stderr)
    for c in changes:
        if c.quantity == "input_shape":
            print(f"{c.target}: audits of different inputs, {c.before} and {c.after}", file=sys.stderr)
    return int(bool(changes and args.exit_code))


def _records(path: Path, inputs: Inputs) -> dict[str, Any]:
    """The audits of a file; or of a target, which is no file of ours."""
    from resattn.compare.diff import read_audits

    if path.suffix == ".json" or (path.is_file() and path.suffix != ".py"):
        return dict(read_audits(path))
    from resattn.measures.audit import audit

    with printing_to_stderr():
        found = audit(str(path), inputs).to_json(tree=True)
    return {found["target"]: json.loads(json.dumps(found))}
