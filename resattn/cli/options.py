"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from resattn.graph.inputs import Blank, Inputs

MOST_PIXELS = 1_000_000_000  # of a side, and of a batch


class Command(Protocol):
    """Adds a command to the parser: its name, the function that runs it, and its help."""

    def __call__(self, name: str, run: Any, text: str, *, resumes: bool = False) -> argparse.ArgumentParser: ...


class UsageError(ValueError):
    """A wrong argument on the command line."""


def path_of(text: str) -> Path:
    """A path with `~` replaced by the home folder: a shell does not do so in `--out=~/runs`."""
    return Path(os.path.expanduser(text))


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def set_option(parser: argparse.ArgumentParser, text: str = "fields of a named network: merge=naive width=8") -> None:
    parser.add_argument(
        "--set", dest="settings", nargs="+", action="extend", default=[], metavar="field=value", help=text
    )


def target_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets", nargs="+", metavar="TARGET",
        help="a name of `resattn list`; package.module:callable or file.py:callable, found from the current folder; "
        "timm:NAME, torchvision:NAME, hf:ViTConfig or hf:path/config.json (their input size is known)",
    )  # fmt: skip
    parser.add_argument(
        "--input", metavar="[NAME=][int:|float:|bool:]C,H,W", action="append", default=[],
        help="input shape without the batch; required for a callable; once for each argument of its forward; "
        "int:N for N integers, such as token ids; NAME= for an argument by keyword",
    )  # fmt: skip
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="batch of the inputs (default: 1)")
    set_option(parser)
    json_option(parser)


def about_sizes(args: argparse.Namespace) -> str:
    """A hint for a refused `--input` of one number or of four: an image is C,H,W, without batch; "" for others."""
    odd = [text for text in getattr(args, "input", ()) if text.replace(",", "").isdigit() and text.count(",") in (0, 3)]
    return f"; --input takes sizes without the batch, for an image C,H,W, found {odd[0]}" if odd else ""


def read_settings(words: Iterable[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UsageError(f"--set takes field=value, found {name + equals + value!r}")
    return {name: value for name, _, value in pairs}


def read_inputs(args: argparse.Namespace) -> Inputs:
    """The arguments of the forward, from `--input` and `--batch`."""
    from resattn.graph.inputs import Inputs

    if not 1 <= args.batch <= MOST_PIXELS:
        raise UsageError(f"--batch takes a number of at least 1 and at most {MOST_PIXELS:,}, found {args.batch}")
    given = [_input(text, args.batch) for text in args.input]
    names = [name for name, _ in given if name]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"--input gives {', '.join(sorted(twice))} twice")
    by_name = {name: blank for name, blank in given if name}
    return Inputs(tuple(blank for name, blank in given if not name), by_name, batch=(args.batch,))


def _input(text: str, batch: int) -> tuple[str, Blank]:
    import torch

    from resattn.graph.inputs import Blank

    types = {"": None, "float": None, "int": torch.int64, "bool": torch.bool}
    name, equals, rest = text.rpartition("=")
    kind, colon, sizes = rest.rpartition(":")
    if (equals and not name.isidentifier()) or kind not in types or (colon and not kind):
        raise UsageError(f"--input takes [NAME=][int:|float:|bool:]C,H,W, found {text!r}")
    try:
        shape = tuple(int(n) for n in sizes.split(","))
    except ValueError:
        raise UsageError(f"--input takes [NAME=][int:|float:|bool:]C,H,W, found {text!r}") from None
    if min(shape) < 1 or max(shape) > MOST_PIXELS:
        raise UsageError(f"--input takes sizes of at least 1 and at most {MOST_PIXELS:,}, found {text!r:.100}")
    return name, Blank((batch, *shape), types[kind])
