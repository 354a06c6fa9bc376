"""`claims`: published numbers with their verdicts."""

from __future__ import annotations

import argparse
import functools
import itertools
import operator
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from resattn.cli.door import of_the_study
from resattn.cli.options import Command, UsageError, json_option, path_of
from resattn.cli.printing import print_json, wrapped

MOST_LISTED = 40  # claims that are printed one by one without being asked for


def add(command: Command) -> None:
    sub = command("claims", _claims, "Compare published numbers with counted ones and give each a verdict.")
    sub.add_argument(
        "file", nargs="?", type=path_of, metavar="FILE.csv", help="a table of claims (default: the study's)"
    )
    sub.add_argument("--references", type=path_of, metavar="FILE.bib", help="the sources that FILE.csv may cite")
    sub.add_argument("--source", metavar="S", help="only the claims of this source")
    sub.add_argument("--verdict", metavar="V", help="only the claims with this verdict, such as off or 'built so'")
    sub.add_argument("--all", action="store_true", help=f"print each of more than {MOST_LISTED} claims, not a summary")
    sub.add_argument("--format", choices=("text", "md", "csv", "tex"), default="text", help="form of the table")
    json_option(sub)


def _claims(args: argparse.Namespace) -> None:
    from resattn.claims import counts, measured
    from resattn.claims.claims import load
    from resattn.claims.forms import FORMS, summary, to_json
    from resattn.claims.verdicts import Finding, judge

    _check_choice("verdict", args.verdict, list(Finding))
    study = None
    if args.file is None:
        study = of_the_study("claims without a FILE.csv", "claims.ledger")
        every = study.ledger()
    else:
        for file in filter(None, (args.file, args.references)):
            if not file.is_file():
                raise UsageError(f"no file {file}")
        every = load(args.file, args.references)
    _check_choice("source", args.source, sorted({claim.source for claim in every}))
    claims = [claim for claim in every if args.source in (None, claim.source)]
    print(f"{len(claims)} claims; capturing their networks", file=sys.stderr)
    subject = operator.attrgetter("subject")
    tasks = [
        functools.partial(judge, tuple(group), among=every)
        for _, group in itertools.groupby(sorted(claims, key=subject), subject)
    ]
    with counts.kept(measured.measure, tasks=tasks) as count:
        if study:
            trained = of_the_study("claims without a FILE.csv", "claims.trained")
            judged = trained.judge_kept(claims, functools.partial(study.measure, count=count))
        else:
            judged = judge(claims, count, among=every)
    verdicts = [v for v in judged if args.verdict in (None, v.finding)]
    if args.json:
        return print_json(to_json(verdicts))
    if args.format == "text" and not (args.all or args.verdict) and len(verdicts) > MOST_LISTED:
        print(wrapped(summary(verdicts)))
        print("--source, --verdict or --all lists the claims", file=sys.stderr)
    elif text := FORMS[args.format](verdicts):
        print(wrapped(text) if args.format == "text" else text)


def _check_choice(kind: str, given: str | None, choices: Sequence[str]) -> None:
    if given is not None and given not in choices:
        near = get_close_matches(given, choices, n=3) or choices
        raise UsageError(f"no {kind} {given!r} (nearest: {', '.join(near)})")
