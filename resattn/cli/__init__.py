"""The command line. Data on stdout, messages on stderr; exit status 0 done, 1 failed, 2 usage error.

Each module holds one group of commands: their arguments and what they do. Slow imports happen inside the commands:
`resattn list` does not import torch.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import TextIO, cast

from resattn.cli.commands import parser
from resattn.cli.options import UsageError, about_sizes
from resattn.cli.streams import Data, Messages, replace_closed_streams
from resattn.extras import MissingError
from resattn.networks.spec import SpecError


def main(argv: Sequence[str] | None = None) -> int:
    replace_closed_streams()
    if not faulthandler.is_enabled():
        faulthandler.enable(2)  # a model may end this process: it is said with the line of it that did
    data, messages = cast(TextIO, Data(sys.stdout)), cast(TextIO, Messages(sys.stderr))
    with redirect_stdout(data), redirect_stderr(messages):
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments, engine_options = _split_engine_options(arguments)
    top = parser()
    if not arguments:
        top.print_help()
        return 0
    args, unknown = top.parse_known_args(arguments)
    if unknown:
        args.parser.refuse(unknown)
    args.engine_options = engine_options
    try:
        code = args.run(args) or 0
        sys.stdout.flush()
        return int(code)
    except (SpecError, UsageError) as error:
        return _say(error, args, 2)
    except ModuleNotFoundError as error:  # of an extra's package, or of the study's: those of a target are reported
        return _say(MissingError(f"{error}: pip install --editable '.[suite]' in the clone"), args, 1)
    except KeyboardInterrupt:
        resumes = "; rerun the same command to resume" if args.resumes else ""
        print(f"resattn: interrupted{resumes}", file=sys.stderr)
        return 130
    except Exception as error:
        return _say(error, args, 2 if getattr(error, "is_usage", False) else 1)


def _say(error: Exception, args: argparse.Namespace, code: int) -> int:
    if args.traceback:
        raise error
    text = str(error).partition("\nException raised from ")[0] or type(error).__name__  # without frames of C++
    print(f"resattn: {text}{about_sizes(args) if code == 1 else ''}", file=sys.stderr)
    return code


def _split_engine_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of the command, and those after `--`, which `study` passes to snakemake."""
    if "study" in arguments[:1] and "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []
