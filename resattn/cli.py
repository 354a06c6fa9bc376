"""The command line. Data on stdout, messages on stderr; exit status 0 done, 1 failed, 2 usage error.

Heavy imports stay inside the commands: `resattn list` does not import torch.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import resattn
from resattn.extras import MissingError, require
from resattn.networks import catalog
from resattn.networks.spec import SpecError, override

if TYPE_CHECKING:
    from resattn.graph.inputs import Blank, Inputs


class UsageError(ValueError):
    """An argument of the command is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments, engine_options = _split_engine_options(arguments)
    args = parser().parse_args(arguments)
    args.engine_options = engine_options
    try:
        return args.run(args) or 0
    except (SpecError, UsageError) as error:
        return _say(error, args, 2)
    except ModuleNotFoundError as error:  # of an extra's package, or of the study's: those of a target are reported
        return _say(MissingError(f"{error}: pip install --editable '.[suite]' in the clone"), args, 1)
    except KeyboardInterrupt:
        resumes = "; rerun the same command to resume" if args.resumes else ""
        print(f"resattn: interrupted{resumes}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _say(error, args, 2 if getattr(error, "is_usage", False) else 1)


def _say(error: Exception, args: argparse.Namespace, code: int) -> int:
    if args.traceback:
        raise error
    print(f"resattn: {error}" if str(error) else f"resattn: {type(error).__name__}", file=sys.stderr)
    return code


def _split_engine_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of the command, and those after `--`, which `study` passes to snakemake."""
    if "study" in arguments[:1] and "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []


def parser() -> argparse.ArgumentParser:
    """Every sub-command and its arguments."""
    built = argparse.ArgumentParser(
        prog="resattn", description="Depth, paths, cost and receptive field of a network, counted from its execution."
    )
    built.add_argument("--version", action="version", version=f"resattn {resattn.__version__}")
    built.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = built.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, *, resumes: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run, resumes=resumes)
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
        "--device", choices=("meta", "cpu"), default="meta",
        help="meta: nothing is computed; cpu: the forward runs on values, and the numbers hold for this input",
    )  # fmt: skip

    sub = command("crosscheck", _crosscheck, "Compare our counts with fvcore, torchinfo and torch FlopCounterMode.")
    _targets(sub)

    sub = command("claims", _claims, "Compare published numbers with counted ones and give each a verdict.")
    sub.add_argument("file", nargs="?", type=Path, metavar="FILE.csv", help="a table of claims (default: the study's)")
    sub.add_argument("--references", type=Path, metavar="FILE.bib", help="the sources that FILE.csv may cite")
    sub.add_argument("--source", metavar="S", help="only the claims of this source")
    sub.add_argument("--verdict", metavar="V", help="only the claims with this verdict, such as off or 'built so'")
    sub.add_argument("--format", choices=("text", "md", "csv", "tex"), default="text", help="form of the table")
    _json_option(sub)

    sub = command("census", _census, "Compare named depth with counted depth for classic networks.")
    _json_option(sub)

    sub = command("match", _match, "Find the ResNet that equals a network in one quantity.")
    sub.add_argument("name")
    sub.add_argument(
        "--by", required=True, choices=("trunk_depth", "longest_path", "weighted_layers", "params", "macs"),
        help="the quantity",
    )  # fmt: skip
    _set_option(sub)
    _json_option(sub)

    sub = command("data", lambda args: args.run_data(args), "Download or check a dataset.")
    verbs = sub.add_subparsers(required=True, metavar="fetch|verify")
    fetch = verbs.add_parser("fetch", help="download a dataset")
    fetch.add_argument("name")
    fetch.set_defaults(run_data=_fetch)
    verify = verbs.add_parser("verify", help="check the checksums and sizes of a dataset")
    verify.add_argument("path", type=Path)
    verify.set_defaults(run_data=_verify)

    sub = command("train", _train, "Train one network; an interrupted run resumes from DIR.", resumes=True)
    sub.add_argument("name")
    sub.add_argument("--dataset", default="auto", help="auto, cifar10, cifar100 or cluttered-digits")
    sub.add_argument("--epochs", type=int, required=True)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=Path, required=True, metavar="DIR")
    sub.add_argument("--images", type=int, default=0, help="number of training images; 0: all")
    sub.add_argument("--batch-size", type=int, default=64)
    sub.add_argument("--label-noise", type=float, default=0.0, help="fraction of training labels that are wrong")
    sub.add_argument("--devices", type=int, default=1)
    sub.add_argument("--strategy", default="auto")
    _set_option(sub, "fields of the network or of the run: width=8 lr=0.05 threads=1")

    sub = command("notebook", _notebook, "Execute a notebook; unknown or ill-typed parameters are refused.")
    sub.add_argument("file", type=Path)
    sub.add_argument("-p", dest="parameters", action="append", default=[], metavar="name=value")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR")
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
    sub.add_argument("--out", type=Path, metavar="DIR", help="default: results/PROFILE, or PROFILE-SCALE")

    sub = command("report", _report, "Write the HTML report of a study's tables.")
    sub.add_argument("study", type=Path, metavar="DIR")

    sub = command("completion", _completion, "Print a completion script for a shell.")
    sub.add_argument("shell", choices=("bash", "zsh", "tcsh"))

    sub = command("diff", _diff, "Show what changed between two audits.")
    sub.add_argument("before", type=Path, metavar="A.json")
    sub.add_argument("after", type=Path, metavar="B.json")
    _json_option(sub)
    return built


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


def _settings(words: Iterable[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise UsageError(f"--set takes field=value, found {name + equals + value!r}")
    return {name: value for name, _, value in pairs}


def _inputs(args: argparse.Namespace) -> Inputs:
    """The arguments of a forward, from `--input` and `--batch`."""
    from resattn.graph.inputs import Inputs

    if args.batch < 1:
        raise UsageError(f"--batch takes a number of at least 1, found {args.batch}")
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
    if min(shape) < 1:
        raise UsageError(f"--input takes sizes of at least 1, found {text!r}")
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


def _number(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print_table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Columns as wide as their content; numbers are aligned to the right."""
    texts = [list(map(str, header)), *([_number(cell) for cell in row] for row in rows)]
    widths = [max(len(row[k]) for row in texts) for k in range(len(header))]
    right = [bool(rows) and all(isinstance(row[k], int | float | None) for row in rows) for k in range(len(header))]
    for row in texts:
        cells = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True))
        print("  ".join(cells).rstrip())


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
            (r["name"], r["family"], ",".join(map(str, r["input_shape"])), r["claimed_depth"], r["spec_digest"])
            for r in rows
        ],
        ("name", "family", "input", "claimed depth", "spec"),
    )
    print("and cifar-resnetN for every N = 9n+2, cifar-resnetN-basic for every N = 6n+2", file=sys.stderr)


def _show(args: argparse.Namespace) -> None:
    _print_json(override(catalog.named(args.name), _settings(args.settings)).to_json())


def _audit(args: argparse.Namespace) -> None:
    from resattn.measures.audit import audit
    from resattn.measures.quantities import QUANTITIES

    inputs, settings = _inputs(args), _settings(args.settings)
    with _printing_to_stderr():
        audits = [audit(t, inputs, settings=settings, device=args.device, at=args.at) for t in args.targets]
    if args.json:
        return _print_json([a.to_json() for a in audits])
    shown = [q for q in QUANTITIES.values() if any(q.id in a.quantities for a in audits)]
    _print_table(
        [(q.id, *(a.quantities.get(q.id, "") for a in audits), q.definition) for q in shown],
        ("quantity", *(a.target for a in audits), "definition"),
    )
    if args.at:
        print()
        _print_table(
            [
                (a.target, *(_side(value) for name, value in f.items() if name != "notes"))
                for a in audits
                for f in a.fields
            ],
            ("target", "module", "all paths", "without masks", "narrowest path", "widest path"),
        )
    for a in audits:
        notes = [f"{a.target}: {a.status}, masks found by {a.roles_found_by}", *a.notes]
        notes += [f"no rule for {op}" for op in a.unknown_ops]
        notes += [f"{f['module']}: {note}" for f in a.fields for note in f["notes"]]
        print("; ".join(notes), file=sys.stderr)


def _side(value: Any) -> Any:
    """A side in pixels; height x width where they differ."""
    if isinstance(value, list):
        return value[0] if value[0] == value[1] else f"{value[0]}x{value[1]}"
    return value


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
    from resattn.claims import measured
    from resattn.claims.claims import load
    from resattn.claims.forms import FORMS, to_json
    from resattn.claims.verdicts import Finding, judge

    _check_choice("verdict", args.verdict, list(Finding))
    measure = measured.measure
    if args.file is None:
        study = _of_the_study("claims without a FILE.csv", "claims.ledger")
        every, measure = study.ledger(), study.measure
    else:
        for file in filter(None, (args.file, args.references)):
            if not file.is_file():
                raise UsageError(f"no file {file}")
        every = load(args.file, args.references)
    _check_choice("source", args.source, sorted({claim.source for claim in every}))
    claims = [claim for claim in every if args.source in (None, claim.source)]
    print(f"{len(claims)} claims; the networks that they name are captured", file=sys.stderr)
    verdicts = [v for v in judge(claims, measure, among=every) if args.verdict in (None, v.finding)]
    if args.json:
        return _print_json(to_json(verdicts))
    if text := FORMS[args.format](verdicts):
        print(text)


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

    spec = override(catalog.named(args.name), _settings(args.settings))
    found = match(spec, args.by)
    if args.json:
        return _print_json(found.to_json())
    how = "exact" if found.is_exact else f"nearest, {found.off_pct:+.2f} %"
    print(f"{found.spec.name}: {found.by} {found.found:,} for {found.wanted:,} of {found.network} ({how})")


def _fetch(args: argparse.Namespace) -> None:
    require("data fetch", "train")
    from resattn.training.data import fetch

    print(fetch(args.name))


def _verify(args: argparse.Namespace) -> None:
    from resattn.training.data import verify

    print(verify(args.path))


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
        on=args.on, snakemake_args=tuple(args.engine_options),
    )  # fmt: skip


def _protocol(args: argparse.Namespace) -> int:
    _of_the_study("study", "commands")  # the protocol lies in the clone
    from resattn.training.protocol import run_protocol

    for name in ("scale", "on", "dataset"):
        if getattr(args, name):
            raise UsageError(f"--{name} is not for the protocol, which fixes what is run and on which data")
    if args.engine_options:
        raise UsageError("the protocol is run without snakemake: it takes no options behind --")
    return run_protocol(out=args.out, cores=1 if args.cores is None else args.cores, dry_run=args.dry_run)


def _report(args: argparse.Namespace) -> None:
    print(_of_the_study("report", "report.build").build_report(args.study))


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
            elif action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(top, args.shell, preamble=preamble))  # type: ignore[arg-type]  # a script for each shell


def _subparsers(top: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield sub
                yield from _subparsers(sub)


def _diff(args: argparse.Namespace) -> int:
    from resattn.compare.diff import diff, read_audits

    changes = diff(read_audits(args.before), read_audits(args.after))
    if args.json:
        _print_json([change.to_json() for change in changes])
    elif changes:
        _print_table(
            [(c.target, c.quantity, c.before, c.after, c.difference) for c in changes],
            ("target", "quantity", "before", "after", "difference"),
        )
    else:
        print("no difference", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
