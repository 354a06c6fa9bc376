"""`notebook`, `study` and `report`: the commands that need the clone."""

from __future__ import annotations

import argparse
import threading

from resattn.cli.door import of_the_study
from resattn.cli.options import Command, UsageError, path_of


def add(command: Command) -> None:
    sub = command("notebook", _notebook, "Execute a notebook; unknown or ill-typed parameters are refused.")
    sub.add_argument("file", type=path_of, metavar="FILE", help="a notebook with a cell tagged `parameters`")
    sub.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="name=value",
        help="a parameter of the notebook; may be given more than once",
    )  # fmt: skip
    sub.add_argument(
        "--out", type=path_of, required=True, metavar="DIR", help="folder of the executed notebook and its tables"
    )
    sub.add_argument("--timeout", type=float, default=0.0, metavar="S", help="seconds for the whole notebook; 0: none")

    sub = command("study", _study, "Run all notebooks of a study; an interrupted study resumes.", resumes=True)
    sub.add_argument(
        "profile", metavar="PROFILE",
        help="quick, small, paper or reference; an experiment of the paper: gates, merge, hourglass, noise or "
        "response; protocol, the experiment of docs/protocol.md; or the file of a profile",
    )  # fmt: skip
    sub.add_argument("--scale", metavar="SCALE", help="scale of an experiment: quick (the default), small or paper")
    sub.add_argument(
        "--cores", type=int, metavar="N", help="number of jobs that run at a time (default: one for each core)"
    )
    sub.add_argument("--on", metavar="CLUSTER", help="slurm, kubernetes, or a folder with a snakemake profile")
    sub.add_argument("--dry-run", action="store_true", help="print the plan and its cost; run nothing")
    sub.add_argument("--dataset", metavar="D", help="replaces the profile's dataset")
    sub.add_argument(
        "--out", type=path_of, metavar="DIR", help="folder of the results (default: in results/, named after PROFILE)"
    )
    sub.add_argument("--clean", action="store_true", help="run nothing; delete the results that were set aside")

    sub = command("report", _report, "Write the HTML report of a study's tables.")
    sub.add_argument("study", type=path_of, metavar="DIR", help="the folder of a study, such as results/quick")


def _notebook(args: argparse.Namespace) -> None:
    parameters = dict(word.partition("=")[::2] for word in args.parameters)
    bad = [word for word in args.parameters if "=" not in word]
    if bad:
        raise UsageError(f"-p takes name=value, found {bad[0]!r}")
    if not 0 <= args.timeout < threading.TIMEOUT_MAX:
        raise UsageError(f"--timeout takes seconds, 0 for no limit, found {args.timeout:g}")
    run_notebook = of_the_study("notebook", "study.runner").run_notebook
    print(run_notebook(args.file, parameters, args.out, timeout_s=args.timeout or None))


def _study(args: argparse.Namespace) -> int:
    if args.profile == "protocol":
        return _protocol(args)
    return of_the_study("study", "commands").study(  # type: ignore[no-any-return]
        args.profile, cores=args.cores, dry_run=args.dry_run, dataset=args.dataset, scale=args.scale, out=args.out,
        on=args.on, clean=args.clean, snakemake_args=tuple(args.engine_options),
    )  # fmt: skip


def _protocol(args: argparse.Namespace) -> int:
    run_protocol = of_the_study("study", "experiment.protocol").run_protocol

    for name in ("scale", "on", "dataset", "clean"):
        if getattr(args, name):
            raise UsageError(f"--{name} is not for the protocol, which fixes what is run and on which data")
    if args.engine_options:
        raise UsageError("the protocol is run without snakemake: it takes no options behind --")
    return int(run_protocol(out=args.out, cores=1 if args.cores is None else args.cores, dry_run=args.dry_run))


def _report(args: argparse.Namespace) -> None:
    print(of_the_study("report", "commands").report(args.study))
