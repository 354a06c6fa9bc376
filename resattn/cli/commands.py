"""All commands and their arguments, in the order of the help; and the script for shell completion."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import resattn
from resattn.cli import audit, claims, compare, named, study, tile, training
from resattn.cli.options import path_of
from resattn.extras import require
from resattn.networks import catalog

EXAMPLES = """\
examples:
  resattn audit attention56                     every number of a named network
  resattn audit attention56 --set merge=naive   the same of a variant
  resattn audit mymodels.py:build --input 3,224,224 --tree
                                                your model, module by module
  resattn crosscheck timm:convnext_tiny         beside other tools' numbers
  resattn match attention56 --by longest_path   the ResNet that is as deep
  resattn claims --source wang2017              printed numbers, with verdicts

`resattn COMMAND --help` explains one command. In a clone, `make report` runs
the study.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest known word."""

    def error(self, message: str) -> NoReturn:
        print(f"resattn: {message} (`{self.prog} --help`)", file=sys.stderr)
        self.exit(2)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = list(map(str, action.choices))
        what = "command" if isinstance(action, argparse._SubParsersAction) else "value"
        if self.prog == "resattn" and (value in catalog.NETWORKS or ":" in value):
            raise argparse.ArgumentError(None, f"unknown command {value!r}; for a model it is `resattn audit {value}`")
        near = get_close_matches(value, known, n=3)
        words = f"nearest: {', '.join(near)}" if near else f"one of: {', '.join(known)}"
        of = "" if what == "command" else f" of {'/'.join(action.option_strings) or action.dest}"
        raise argparse.ArgumentError(None, f"unknown {what} {value!r}{of}; {words}")

    def refuse(self, words: Sequence[str]) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        near = get_close_matches(words[0].partition("=")[0], known, n=3) if words[0].startswith("-") else []
        self.error(f"{self.prog} takes no {words[0]!r}" + (f"; nearest: {', '.join(near)}" if near else ""))


def parser() -> argparse.ArgumentParser:
    """The parser with all commands and their arguments."""
    built = Parser(
        prog="resattn", description="Depth, paths, cost and receptive field of a network, counted from its execution.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    built.add_argument("--version", action="version", version=f"resattn {resattn.__version__}")
    built.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = built.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: Any, text: str, *, resumes: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text.partition(". ")[0].rstrip("."), description=text)
        sub.set_defaults(run=run, resumes=resumes, parser=sub)
        return sub

    for group in (named, audit, tile, compare, claims, training, study):
        group.add(command)
    sub = command("completion", _completion, "Print a completion script for a shell.")
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    return built


def _completion(args: argparse.Namespace) -> None:
    # Written once and sourced by the shell: a completion that starts this program at every key is slow.
    require("completion", "cli")
    import shtab

    top = parser()
    words = " ".join(catalog.names())
    preamble = {
        "bash": f'_resattn_networks() {{ compgen -W "{words}" -- "$1"; }}',
        "zsh": f"_resattn_networks() {{ compadd {words}; }}",
    }
    for sub in _subparsers(top):
        for action in sub._actions:
            if action.dest in ("name", "targets") and sub.prog != "resattn data fetch":
                action.complete = {"bash": "_resattn_networks", "zsh": "_resattn_networks"}  # type: ignore[attr-defined]
            elif action.type is path_of:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(top, args.shell, preamble=preamble))  # type: ignore[arg-type]  # a script for each shell


def _subparsers(top: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield sub
                yield from _subparsers(sub)
