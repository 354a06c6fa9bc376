"""The command line. Data on stdout, messages on stderr; exit status 0 done, 1 failed, 2 usage error.

Heavy imports stay inside the commands: `resattn list` does not import torch.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

import resattn
from resattn.extras import MissingError, require
from resattn.networks import catalog
from resattn.networks.spec import SpecError, override
from resattn.views.table import plain

if TYPE_CHECKING:
    from resattn.graph.inputs import Blank, Inputs
    from resattn.measures.audit import Audit


MOST_PIXELS = 1_000_000_000  # of a side, and of a batch
MOST_LISTED = 40  # claims that are printed one by one without being asked for


class UsageError(ValueError):
    """An argument of the command is wrong."""


class _Stream:
    """A standard stream whose reader may be gone: what is printed from then on is lost, and the work goes on."""

    lost: tuple[type[Exception], ...]  # how a stream fails that nobody reads

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._try(lambda: self._stream.write(text))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except self.lost:
            with suppress(OSError, ValueError):  # what it still holds is written when the process ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stream = io.StringIO()
            return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Messages(_Stream):
    """The stream of messages. A closed or broken one costs the messages and not the work, and what it shows cannot
    drive a terminal: control characters, which a name or the text of a notebook may hold, are written out."""

    lost = (OSError, ValueError)  # a pipe that nobody reads, a terminal that is gone, a closed stream

    def write(self, text: str) -> int:
        return super().write(plain(text))


class _Data(_Stream):
    """The stream of data. A reader that stops, as `head` does, changes no exit status; a full disk is an error."""

    lost = (BrokenPipeError,)


def _stand_in_for_closed_streams() -> None:
    """A file must never get the number of a standard stream that was closed: what is printed would go into it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def main(argv: Sequence[str] | None = None) -> int:
    _stand_in_for_closed_streams()
    data, messages = cast(TextIO, _Data(sys.stdout)), cast(TextIO, _Messages(sys.stderr))
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
    print(f"resattn: {text}{_about_sizes(args) if code == 1 else ''}", file=sys.stderr)
    return code


def _split_engine_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of the command, and those after `--`, which `study` passes to snakemake."""
    if "study" in arguments[:1] and "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []


EXAMPLES = """\
examples:
  resattn audit attention56                     every number of a named network
  resattn audit attention56 --set merge=naive   the same of a variant
  resattn audit mymodels.py:build --input 3,224,224 --tree
                                                your model, module by module
  resattn crosscheck timm:convnext_tiny         beside other tools' numbers
  resattn match attention56 --by longest_path   the ResNet that is as deep
  resattn claims --source wang2017              what a paper prints, what holds

`resattn COMMAND --help` explains one command. In a clone, `make report` runs
the study.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with the nearest word that it knows."""

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
    """Every sub-command and its arguments."""
    built = _Parser(
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

    sub = command("list", _list, "List the named networks.")
    _json_option(sub)

    sub = command("show", _show, "Print the spec of a network as JSON.")
    sub.add_argument("name")
    _set_option(sub)

    sub = command("audit", _audit, "Measure depth, paths, cost and receptive field of networks.")
    _targets(sub)
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
        help="print the module tree; equal modules in a row are one line; with --json: add a row for each module",
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
    sub.add_argument("--html", type=_path, metavar="FILE", help="write one page: drawing to scale, paths, module tree")
    sub.add_argument("--format", choices=("text", "md", "csv", "tex"), default="text", help="of the table or tree")

    sub = command("tile", _tile, "Show how a network can be run on tiles of an image, or what forbids it.")
    sub.add_argument("target", metavar="TARGET", help="as for `resattn audit`")
    sub.add_argument("--input", metavar="C,H,W", action="append", required=True, help="shape of the whole image")
    sub.set_defaults(batch=1)
    sub.add_argument(
        "--tile", type=int, metavar="N", help="print a plan of tiles of at most N x N pixels, halo included"
    )
    _json_option(sub)

    sub = command("crosscheck", _crosscheck, "Compare our counts with fvcore, torchinfo and torch FlopCounterMode.")
    _targets(sub)

    sub = command("claims", _claims, "Compare published numbers with counted ones and give each a verdict.")
    sub.add_argument("file", nargs="?", type=_path, metavar="FILE.csv", help="a table of claims (default: the study's)")
    sub.add_argument("--references", type=_path, metavar="FILE.bib", help="the sources that FILE.csv may cite")
    sub.add_argument("--source", metavar="S", help="only the claims of this source")
    sub.add_argument("--verdict", metavar="V", help="only the claims with this verdict, such as off or 'built so'")
    sub.add_argument("--all", action="store_true", help=f"print each of more than {MOST_LISTED} claims, not a summary")
    sub.add_argument("--format", choices=("text", "md", "csv", "tex"), default="text", help="form of the table")
    _json_option(sub)

    sub = command("census", _census, "Compare named depth with counted depth for classic networks.")
    _json_option(sub)

    sub = command("match", _match, "Find the ResNet that equals a network in one quantity.")
    _targets(sub)
    sub.add_argument(
        "--by", required=True, choices=("trunk_depth", "longest_path", "weighted_layers", "params", "macs"),
        help="the quantity",
    )  # fmt: skip

    sub = command("data", lambda args: args.run_data(args), "Download or check a dataset.")
    verbs = sub.add_subparsers(required=True, metavar="fetch|verify")
    fetch = verbs.add_parser("fetch", help="download a dataset")
    fetch.add_argument("name")
    fetch.set_defaults(run_data=_fetch)
    verify = verbs.add_parser("verify", help="check the checksums and sizes of a dataset")
    verify.add_argument("path", type=_path)
    verify.set_defaults(run_data=_verify)

    sub = command("train", _train, "Train one network; an interrupted run resumes from DIR.", resumes=True)
    sub.add_argument("name")
    sub.add_argument("--dataset", default="auto", help="auto, cifar10, cifar100 or cluttered-digits")
    sub.add_argument("--epochs", type=int, required=True)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=_path, required=True, metavar="DIR")
    sub.add_argument("--images", type=int, default=0, help="number of training images; 0: all")
    sub.add_argument("--batch-size", type=int, default=64)
    sub.add_argument("--label-noise", type=float, default=0.0, help="fraction of training labels that are wrong")
    sub.add_argument("--devices", type=int, default=1)
    sub.add_argument("--strategy", default="auto")
    _set_option(sub, "fields of the network or of the run: width=8 lr=0.05 threads=1")

    sub = command("notebook", _notebook, "Execute a notebook; unknown or ill-typed parameters are refused.")
    sub.add_argument("file", type=_path)
    sub.add_argument("-p", dest="parameters", action="append", default=[], metavar="name=value")
    sub.add_argument("--out", type=_path, required=True, metavar="DIR")
    sub.add_argument("--timeout", type=float, default=0.0, metavar="S", help="seconds for the whole notebook; 0: none")

    sub = command(
        "study", _study,
        "Run all notebooks of a study; an interrupted study resumes. PROFILE: quick, small, paper, reference; "
        "an experiment of the paper (gates, merge, hourglass, noise, response); protocol, the experiment of "
        "docs/protocol.md; or a profile's file.",
        resumes=True,
    )  # fmt: skip
    sub.add_argument("profile")
    sub.add_argument("--scale", help="scale of an experiment: quick (the default), small or paper")
    sub.add_argument("--cores", type=int, help="number of jobs that run at a time (default: one for each core)")
    sub.add_argument("--on", metavar="CLUSTER", help="slurm, kubernetes, or a folder with a snakemake profile")
    sub.add_argument("--dry-run", action="store_true", help="print the plan and its cost; run nothing")
    sub.add_argument("--dataset", help="replaces the profile's dataset")
    sub.add_argument("--out", type=_path, metavar="DIR", help="default: results/PROFILE, or PROFILE-SCALE")
    sub.add_argument("--clean", action="store_true", help="run nothing; delete the results that were set aside")

    sub = command("report", _report, "Write the HTML report of a study's tables.")
    sub.add_argument("study", type=_path, metavar="DIR")

    sub = command("completion", _completion, "Print a completion script for a shell.")
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))

    sub = command("diff", _diff, "Show what changed between two audits, in total and by module.")
    sub.add_argument(
        "before",
        type=_path,
        metavar="A.json",
        help="a file that `resattn audit --json` (--tree: with modules) wrote, or a TARGET",
    )
    sub.add_argument("after", type=_path, metavar="B.json", help="another one")
    sub.add_argument("--input", metavar="C,H,W", action="append", default=[], help="of targets, as for `resattn audit`")
    sub.set_defaults(batch=1)
    sub.add_argument(
        "--exit-code", action="store_true",
        help="exit with 1 where something changed; a pipe that is closed early does not change this",
    )  # fmt: skip
    _json_option(sub)
    return built


def _path(text: str) -> Path:
    """A path as it was meant: a shell leaves the `~` of `--out=~/runs` as it is."""
    return Path(os.path.expanduser(text))


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _set_option(parser: argparse.ArgumentParser, text: str = "fields of a named network: merge=naive width=8") -> None:
    parser.add_argument(
        "--set", dest="settings", nargs="+", action="extend", default=[], metavar="field=value", help=text
    )


def _targets(parser: argparse.ArgumentParser) -> None:
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
    _set_option(parser)
    _json_option(parser)


def _about_sizes(args: argparse.Namespace) -> str:
    """What to check where a forward refused an input that has the sizes of no image without its batch."""
    odd = [text for text in getattr(args, "input", ()) if text.replace(",", "").isdigit() and text.count(",") in (0, 3)]
    return f"; --input takes sizes without the batch, for an image C,H,W, found {odd[0]}" if odd else ""


def _settings(words: Iterable[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UsageError(f"--set takes field=value, found {name + equals + value!r}")
    return {name: value for name, _, value in pairs}


def _inputs(args: argparse.Namespace) -> Inputs:
    """The arguments of a forward, from `--input` and `--batch`."""
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


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """What the code of a target prints is not data of ours, also where it writes to the file descriptor."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # stdout is closed
        kept = None
    try:
        if kept is not None:
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_table(rows: Sequence[Sequence[Any]], header: Sequence[str], form: str = "text") -> None:
    from resattn.views.table import Table

    table = Table.of(header, rows)
    print(plain(table.to_text(_columns()) if form == "text" else table.to_format(form)))


def _columns() -> int:
    return get_terminal_size().columns


def _wrapped(text: str) -> str:
    """Lines as wide as the terminal; what goes on stands below what began."""
    lines = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines += wrap(line, _columns(), subsequent_indent=f"{indent}  ", break_on_hyphens=False) or [""]
    return "\n".join(lines)


# -- commands


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
        return _print_json(rows)
    _print_table(
        [
            (r["name"], r["family"], ",".join(map(str, r["input_shape"])), r["claimed_depth"], r["spec_digest"][:8])
            for r in rows
        ],
        ("name", "family", "input", "claimed", "spec"),
    )
    print("and cifar-resnetN for every N = 9n+2, cifar-resnetN-basic for every N = 6n+2", file=sys.stderr)


def _show(args: argparse.Namespace) -> None:
    _print_json(override(catalog.named(args.name), _settings(args.settings)).to_json())


def _audit(args: argparse.Namespace) -> None:
    from resattn.measures.audit import audit
    from resattn.measures.quantities import QUANTITIES

    if args.depth is not None and (args.depth < 0 or not args.tree):
        raise UsageError("--depth takes a number of levels, with --tree")
    inputs, settings = _inputs(args), _settings(args.settings)
    with _printing_to_stderr():
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
        return _print_json([a.to_json(tree=args.tree) | m for a, m in zip(audits, more, strict=True)])
    if args.tree:
        from resattn.views.trees import print_trees

        return print_trees(audits, args.format, depth=args.depth, explain=args.explain)
    shown = [q for q in QUANTITIES.values() if any(q.id in a.quantities for a in audits)]
    definition = [[q.definition] if args.explain else [] for q in shown]
    _print_table(
        [(q.id, *(_cell(a, q.id, args.format) for a in audits), *d) for q, d in zip(shown, definition, strict=True)],
        ("quantity", *(a.target for a in audits), *(["definition"] if args.explain else [])), args.format,
    )  # fmt: skip
    if args.at:
        print()

        def of(target: str) -> list[str]:
            return [target] if len(audits) > 1 else []

        _print_table(
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
    return value if form == "csv" else _brief(value)  # type: ignore[no-any-return]


def _counted(audits: Sequence[Any], args: argparse.Namespace) -> None:
    from resattn.instruments.counters import ToolError

    counted = [a.counted_like(tool) for a in audits for tool in args.counted_like]
    if args.json:
        _print_json([c.to_json() for c in counted])
    else:
        _print_table(
            [(c.target, f"{c.tool} {c.version}", c.value, c.unit) for c in counted],
            ("target", "tool", "number", "unit"), args.format,
        )  # fmt: skip
    for c in counted:
        if c.value is not None and not args.json and args.format == "text":
            print(_wrapped(plain(f"\n{c.tool}: {c.sentence}")))
    if refused := [c.sentence for c in counted if c.value is None]:
        raise ToolError(" ".join(refused))


def _forecast(audits: Sequence[Audit], args: argparse.Namespace) -> None:
    sizes = [_sizes(text) for text in args.scaling or ()]
    found: list[Any] = []
    with _printing_to_stderr():
        for a in audits:
            if args.training:
                found.append(a.training(optimizer=args.training))
            if args.scaling is not None:
                formula = a.scaling()
                at = [{"target": a.target, **{**formula.sizes, **s}, **formula.at(**s)} for s in sizes]
                found += at or [formula]
    if args.json:
        return _print_json([f if isinstance(f, dict) else f.to_json() for f in found])
    rows = [f for f in found if isinstance(f, dict)]
    text = "\n\n".join(str(f) for f in found if not isinstance(f, dict))
    print(_wrapped(plain(text)), end="\n" * (len(rows) < len(found)))
    if rows:
        header = list(dict.fromkeys(key for row in rows for key in row))
        _print_table([[row.get(key, "") for key in header] for row in rows], header, args.format)


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


def _tile(args: argparse.Namespace) -> None:
    from resattn.tiling.tiling import AXES, tiling_of

    with _printing_to_stderr():
        found = tiling_of(args.target, _inputs(args))
        plan = found.plan(args.tile) if args.tile is not None else None
    record = found.to_json()
    if args.json:
        tiles = [{"row": asdict(y), "column": asdict(x)} for y, x in plan or ()]
        return _print_json({**record, "tiles": tiles} if plan else record)
    _print_table(
        [(name, *(record["axes"][axis][name] for axis in AXES)) for name in record["axes"][AXES[0]]], ("", *AXES)
    )
    if plan:
        print()
        spans = [(axis, s) for axis, spans in zip(AXES, (plan.rows, plan.columns), strict=True) for s in spans]
        _print_table(
            [(axis, f"{s.start}:{s.stop}", f"{s.first}:{s.last}", f"{s.own}:{s.own + s.last - s.first}")
             for axis, s in spans],
            ("axis", "pixels", "outputs", "in the tile's output"),
        )  # fmt: skip
        print(f"{len(plan)} tiles: each row with each column", file=sys.stderr)


def _crosscheck(args: argparse.Namespace) -> int:
    from resattn.instruments.crosscheck import crosscheck

    inputs, settings = _inputs(args), _settings(args.settings)
    with _printing_to_stderr():
        checks = [c for t in args.targets for c in crosscheck(t, inputs, settings=settings)]
    if args.json:
        _print_json([c.to_json() for c in checks])
    else:
        _print_table(
            [
                (c.target, f"{c.tool} {c.version}", c.quantity, c.reported, c.ours, c.difference, c.unexplained,
                 c.error or "; ".join(f"{cause}: {n:,}" for cause, n in c.causes.items()) or "none")
                for c in checks
            ],
            ("target", "tool", "quantity", "reported", "ours", "difference", "unexplained", "causes"),
        )  # fmt: skip
    return 1 if any(c.unexplained for c in checks) else 0


def _claims(args: argparse.Namespace) -> None:
    from resattn.claims import counts, measured
    from resattn.claims.claims import load
    from resattn.claims.forms import FORMS, summary, to_json
    from resattn.claims.verdicts import Finding, judge

    _check_choice("verdict", args.verdict, list(Finding))
    study = None
    if args.file is None:
        study = _of_the_study("claims without a FILE.csv", "claims.ledger")
        every = study.ledger()
    else:
        for file in filter(None, (args.file, args.references)):
            if not file.is_file():
                raise UsageError(f"no file {file}")
        every = load(args.file, args.references)
    _check_choice("source", args.source, sorted({claim.source for claim in every}))
    claims = [claim for claim in every if args.source in (None, claim.source)]
    print(f"{len(claims)} claims; the networks that they name are captured", file=sys.stderr)
    with counts.kept(measured.measure) as count:
        if study:
            trained = _of_the_study("claims without a FILE.csv", "claims.trained")
            judged = trained.judge_kept(claims, functools.partial(study.measure, count=count))
        else:
            judged = judge(claims, count, among=every)
    verdicts = [v for v in judged if args.verdict in (None, v.finding)]
    if args.json:
        return _print_json(to_json(verdicts))
    if args.format == "text" and not (args.all or args.verdict) and len(verdicts) > MOST_LISTED:
        print(_wrapped(plain(summary(verdicts))))
        print("--source, --verdict or --all lists the claims", file=sys.stderr)
    elif text := FORMS[args.format](verdicts):
        print(_wrapped(plain(text)) if args.format == "text" else plain(text))


def _check_choice(kind: str, given: str | None, choices: Sequence[str]) -> None:
    if given is not None and given not in choices:
        near = get_close_matches(given, choices, n=3) or choices
        raise UsageError(f"no {kind} {given!r} (nearest: {', '.join(near)})")


def _census(args: argparse.Namespace) -> None:
    from resattn.compare.census import COLUMNS, census

    rows = census()
    if args.json:
        return _print_json(rows)
    _print_table([[_brief(row[column]) for column in COLUMNS] for row in rows], COLUMNS)


MOST_DIGITS = 15  # of a number of paths that is printed in full


def _brief(value: Any) -> Any:
    if value is None:
        return "-"
    return f"{Decimal(value):.2e}" if isinstance(value, int) and value >= 10**MOST_DIGITS else value


def _match(args: argparse.Namespace) -> None:
    from resattn.compare.matching import match

    inputs, settings = _inputs(args), _settings(args.settings)
    with _printing_to_stderr():
        matches = [match(target, args.by, inputs, settings=settings) for target in args.targets]
    if args.json:
        return _print_json([m.to_json() for m in matches] if len(matches) > 1 else matches[0].to_json())
    for m in matches:
        how = "exact" if m.is_exact else f"nearest, {m.off_pct:+.2f} %"
        print(f"{m.spec.name}: {m.by} {m.found:,} for {m.wanted:,} of {m.network} ({how})")


def _fetch(args: argparse.Namespace) -> None:
    require("data fetch", "train")
    from resattn.training.data import fetch

    print(fetch(args.name))


def _verify(args: argparse.Namespace) -> None:
    from resattn.training.data import verify

    print(plain(str(verify(args.path))))


def _train(args: argparse.Namespace) -> None:
    from resattn.training.config import TrainConfig
    from resattn.training.config import override as override_run

    names = ("dataset", "epochs", "seed", "images", "batch_size", "label_noise", "devices", "strategy")
    asked = {name: getattr(args, name) for name in names} | _settings(args.settings)
    # All at once: some are valid only together, such as a dataset and its number of classes.
    config = override_run(TrainConfig(spec=catalog.named(args.name), epochs=1), asked)
    require("train", "train")
    from resattn.training.loop import train

    run = train(config, args.out)
    print(json.dumps({"test_error_pct": run.test_error_pct, "out": str(args.out)}))


def _notebook(args: argparse.Namespace) -> None:
    parameters = dict(word.partition("=")[::2] for word in args.parameters)
    bad = [word for word in args.parameters if "=" not in word]
    if bad:
        raise UsageError(f"-p takes name=value, found {bad[0]!r}")
    run_notebook = _of_the_study("notebook", "study.runner").run_notebook
    print(run_notebook(args.file, parameters, args.out, timeout_s=args.timeout or None))


def _study(args: argparse.Namespace) -> int:
    if args.profile == "protocol":
        return _protocol(args)
    return _of_the_study("study", "commands").study(  # type: ignore[no-any-return]
        args.profile, cores=args.cores, dry_run=args.dry_run, dataset=args.dataset, scale=args.scale, out=args.out,
        on=args.on, clean=args.clean, snakemake_args=tuple(args.engine_options),
    )  # fmt: skip


def _protocol(args: argparse.Namespace) -> int:
    run_protocol = _of_the_study("study", "experiment.protocol").run_protocol

    for name in ("scale", "on", "dataset", "clean"):
        if getattr(args, name):
            raise UsageError(f"--{name} is not for the protocol, which fixes what is run and on which data")
    if args.engine_options:
        raise UsageError("the protocol is run without snakemake: it takes no options behind --")
    return int(run_protocol(out=args.out, cores=1 if args.cores is None else args.cores, dry_run=args.dry_run))


def _report(args: argparse.Namespace) -> None:
    print(_of_the_study("report", "commands").report(args.study))


CLONE = Path(resattn.__file__).resolve().parents[1]


def _of_the_study(command: str, module: str) -> ModuleType:
    """A module of the study's package, which lies in the clone beside this one: the only way from here to there.

    Raises: MissingError without the clone, or where another package of the same name is already imported.
    """
    own = CLONE / "analysis"
    if not (own / "study").is_dir() or not (CLONE / "workflow").is_dir():
        raise MissingError(f"{command} needs a clone of the repository: clone it and run `make report` there")
    sys.path.insert(0, str(CLONE))  # ahead of an `analysis` in the current folder
    importlib.invalidate_caches()
    package = importlib.import_module("analysis")
    if Path(package.__file__ or "").resolve() != own / "__init__.py":
        raise MissingError(f"{command} needs the clone's package `analysis`; {package.__file__} is already imported")
    return importlib.import_module(f"analysis.{module}")


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
            elif action.type is _path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(top, args.shell, preamble=preamble))  # type: ignore[arg-type]  # a script for each shell


def _subparsers(top: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield sub
                yield from _subparsers(sub)


def _diff(args: argparse.Namespace) -> int:
    from resattn.compare.diff import diff

    both = [_records(path, _inputs(args)) for path in (args.before, args.after)]
    changes = diff(*both)
    if args.json:
        _print_json([change.to_json() for change in changes])
    elif changes:
        _print_table(
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

    with _printing_to_stderr():
        found = audit(str(path), inputs).to_json(tree=True)
    return {found["target"]: json.loads(json.dumps(found))}


if __name__ == "__main__":
    sys.exit(main())
