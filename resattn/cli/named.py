"""`list` and `show`: the named networks."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from resattn.cli.options import Command, json_option, read_settings, set_option
from resattn.cli.printing import print_json, print_table
from resattn.networks import catalog
from resattn.networks.spec import override


def add(command: Command) -> None:
    sub = command("list", _list, "List the named networks.")
    json_option(sub)

    sub = command("show", _show, "Print the spec of a network as JSON.")
    sub.add_argument("name", metavar="NAME", help="a name of `resattn list`")
    set_option(sub)


def _list(args: argparse.Namespace) -> None:
    specs = [catalog.named(name) for name in catalog.names()]
    rows: list[dict[str, Any]] = [
        {
            "name": s.name,
            "family": "port" if s.name.startswith("port:") else "attention" if s.has_masks else "resnet",
            "input_shape": list(s.input_shape),
            "claimed_depth": s.claimed_depth,
            "spec_digest": s.digest,
        }
        for s in specs
    ]
    if args.json:
        return print_json(rows)
    print_table(
        [
            (r["name"], r["family"], ",".join(map(str, r["input_shape"])), r["claimed_depth"], r["spec_digest"][:8])
            for r in rows
        ],
        ("name", "family", "input", "claimed", "spec"),
    )
    print("and cifar-resnetN for every N = 9n+2, cifar-resnetN-basic for every N = 6n+2", file=sys.stderr)


def _show(args: argparse.Namespace) -> None:
    print_json(override(catalog.named(args.name), read_settings(args.settings)).to_json())
