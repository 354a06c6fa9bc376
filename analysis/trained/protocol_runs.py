"""What the networks of the protocol do beside their error: masks replaced, units dropped, gradient depth, responses.

`python -m analysis.trained.protocol_runs` measures every kept run of results/protocol that has its weights, and writes
tables into results/protocol/trained, a folder for each set of runs. CIFAR-10 must be on disk (RESATTN_DATA). A run that
is in a table is not measured again, so an interrupted call resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pandas as pd

from analysis.experiment.protocol import RESULTS, TRAINED
from analysis.statistics.interventions import intervention_summary
from analysis.tables import schemas
from analysis.tables.files import read_table, write_table
from analysis.tables.provenance import about
from analysis.tables.schemas import Schema
from analysis.trained.gradient_depth import lesion_frame, used_frame, used_summary
from analysis.trained.interventions import intervention_frame
from analysis.trained.mask_maps import Trained, runs_below
from analysis.trained.responses import response_frame
from resattn.measures.captured import captured
from resattn.training.kept import WEIGHTS

KEYS = ["network", "dataset", "seed"]
MADE = [schema.name for schema in (schemas.USED, schemas.INTERVENTIONS, schemas.LESIONS, schemas.RESPONSES)]


def measure_runs(
    runs: Sequence[Trained], out: Path, *, images: int, used_images: int, only: Collection[str] = ()
) -> None:
    """Write the tables of some runs into a folder; runs that stand in them already are left as they are.

    `only`: the names of the tables that are made; none: all.
    """
    origin = about([], runs=[run.run.config.digest for run in runs], dataset=runs[0].dataset.digest)
    kinds: list[tuple[Schema, Callable[[list[Trained]], pd.DataFrame], bool]] = [
        (schemas.INTERVENTIONS, lambda one: intervention_frame(one, images), True),
        (schemas.LESIONS, lambda one: lesion_frame(one, images), False),
        (schemas.RESPONSES, lambda one: response_frame(one, images), False),
        (schemas.USED, lambda one: used_frame(one, used_images), False),
    ]
    for run in runs:
        for schema, make, needs_masks in kinds:
            if (only and schema.name not in only) or (needs_masks and not captured(run.run.config.spec).masks):
                continue
            path = out / schema.file
            known = read_table(path, schema) if path.exists() else pd.DataFrame(columns=schema.names)
            row = (run.name, run.run.dataset_label, run.seed)
            if row in set(known[KEYS].itertuples(index=False, name=None)):
                continue
            print(f"{schema.name}: {run.name}, seed {run.seed}")
            write_table(pd.concat([known, make([run])], ignore_index=True) if len(known) else make([run]), path, origin)
    for schema, summary in ((schemas.INTERVENTIONS, intervention_summary), (schemas.USED, used_summary)):
        if (out / schema.file).exists():
            target = schemas.INTERVENTION_MEANS if schema is schemas.INTERVENTIONS else schemas.USED_MEANS
            write_table(summary(read_table(out / schema.file, schema)), out / target.file, origin)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m analysis.trained.protocol_runs", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--images", type=int, default=1000, help="test images of errors and responses")
    parser.add_argument("--used-images", type=int, default=8, help="test images of the gradient")
    parser.add_argument("--only", action="append", default=[], choices=MADE, help="this table; may be repeated")
    args = parser.parse_args(argv)
    sets = sorted({path.parents[1] for path in args.results.glob(f"*/*/{WEIGHTS}")})
    if not sets:
        print(f"no kept run in {args.results} has its weights (*/*/{WEIGHTS})", file=sys.stderr)
        return 1
    for folder in sets:
        runs = [run for run in runs_below(folder, with_masks=False) if (run.folder / WEIGHTS).exists()]
        out = args.results / TRAINED / folder.name
        measure_runs(runs, out, images=args.images, used_images=args.used_images, only=args.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
