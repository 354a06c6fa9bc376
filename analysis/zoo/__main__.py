"""`python -m analysis.zoo [FAMILY ...]`: measures every public model that has no row yet, then writes the tables."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from analysis.zoo.engine import Limits, run
from analysis.zoo.models import FAMILIES, names_of
from analysis.zoo.operators import declare
from analysis.zoo.tables import published, write_tables

FOLDER = Path("results/zoo")


def main(arguments: list[str]) -> int:
    """0: every model has a row. 1: a family could not be imported."""
    asked = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # its worker is ended too
    rows = asked.folder / ".rows.jsonl"
    asked.folder.mkdir(parents=True, exist_ok=True)
    declared, models, failed = declare(), {}, []
    macs = published(asked.folder)
    for family in asked.family or FAMILIES:
        try:
            names = names_of(family)
        except Exception as error:
            failed.append(f"{family}: {type(error).__name__}: {error}")
            continue
        # The smallest first, by the published numbers, so that a run that is stopped has the most rows.
        models[family] = sorted(names, key=lambda name: macs.get((family, name), float("inf")))
    del declared
    total, done = sum(map(len, models.values())), 0
    limits = Limits(asked.limit_s, asked.limit_mib)
    chunks = {name: family.chunk for name, family in FAMILIES.items()}
    if not asked.tables:
        for family, n in run(models, rows, chunks=chunks, limits=limits, again=asked.again):
            done += n
            print(f"{family}: {n} more, {done} in this run, {total} in all", file=sys.stderr, flush=True)
    for path in write_tables(asked.folder, rows, models):
        print(path)
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line of `make zoo`."""
    top = argparse.ArgumentParser(prog="python -m analysis.zoo", description="audit of public models")
    top.add_argument("family", nargs="*", help=f"libraries: {', '.join(FAMILIES)} (default: all)")
    top.add_argument("--again", action="store_true", help="measure every model again")
    top.add_argument("--tables", action="store_true", help="measure nothing: write the tables from the rows there are")
    top.add_argument("--limit-s", type=float, default=Limits.cpu_s, help="CPU seconds for one model")
    top.add_argument("--limit-mib", type=int, default=Limits.mib, help="memory for one model")
    top.add_argument("--folder", type=Path, default=FOLDER, help="of the tables")
    return top


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
