"""`tile`: how to run a network on tiles of an image."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from resattn.cli.options import Command, json_option, read_inputs
from resattn.cli.printing import print_json, print_table
from resattn.cli.streams import printing_to_stderr


def add(command: Command) -> None:
    sub = command("tile", _tile, "Show how a network can be run on tiles of an image, or what prevents it.")
    sub.add_argument("target", metavar="TARGET", help="as for `resattn audit`")
    sub.add_argument("--input", metavar="C,H,W", action="append", required=True, help="shape of the whole image")
    sub.set_defaults(batch=1)
    sub.add_argument(
        "--tile", type=int, metavar="N", help="print a plan of tiles of at most N x N pixels, halo included"
    )
    json_option(sub)


def _tile(args: argparse.Namespace) -> None:
    from resattn.tiling.tiling import AXES, tiling_of

    with printing_to_stderr():
        found = tiling_of(args.target, read_inputs(args))
        plan = found.plan(args.tile) if args.tile is not None else None
    record = found.to_json()
    if args.json:
        tiles = [{"row": asdict(y), "column": asdict(x)} for y, x in plan or ()]
        return print_json({**record, "tiles": tiles} if plan else record)
    print_table(
        [(name, *(record["axes"][axis][name] for axis in AXES)) for name in record["axes"][AXES[0]]], ("", *AXES)
    )
    if plan:
        print()
        spans = [(axis, s) for axis, spans in zip(AXES, (plan.rows, plan.columns), strict=True) for s in spans]
        print_table(
            [(axis, f"{s.start}:{s.stop}", f"{s.first}:{s.last}", f"{s.own}:{s.own + s.last - s.first}")
             for axis, s in spans],
            ("axis", "pixels", "outputs", "in the tile's output"),
        )  # fmt: skip
        print(f"{len(plan)} tiles: each row with each column", file=sys.stderr)
