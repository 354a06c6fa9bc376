"""The summary of a study as a reproducibility report: scope, what held, what did not, cost, what was easy and hard."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from analysis.report.facts import claims, training
from analysis.report.facts.making import making
from analysis.report.facts.printed import PAPER
from analysis.report.gaps import part
from analysis.report.reading import Study
from analysis.tables import schemas
from analysis.tables.formats import duration, listed, short
from analysis.tables.provenance import ROOT

NO_BREAK = "\N{NO-BREAK SPACE}"
SHOWN = 4  # claims of a kind; the ledger has all


def summary(study: Study) -> dict[str, str]:
    """Part of the summary -> its text, for the parts that the study has tables for."""
    judged, trained = part(claims.claims, study).facts, part(training.training, study).facts
    made, layouts = making(study), part(study.table, schemas.LAYOUTS).facts
    found: dict[str, str] = {}
    n_done = sum(job.state == "done" for job in study.jobs)
    scope = [f"{n_done} of {len(study.jobs)} jobs of the study {study.name} are done."]
    if judged:
        sources = {row["source"] for row in judged.rows}
        scope.append(f"{len(judged.rows)} printed claims of {len(sources)} sources; {judged.n_testable} can be tested.")
    if trained:
        epochs = listed(trained.epochs)
        scope.append(
            f"{trained.n_runs} training runs of {len(trained.results)} networks on {listed(trained.datasets)}, "
            f"{epochs} {'epoch' if epochs == '1' else 'epochs'} on {training.images_words(trained.images)}."
        )
    found["Scope"] = " ".join(scope)
    if judged:
        paper = [row for row in judged.rows if row["source"] == PAPER] or list(judged.rows)
        held = [row for row in paper if row["verdict"] == "confirmed"]
        fell = [row for row in paper if row["verdict"] in claims.WRONG]
        other = [row for row in paper if row["verdict"] in ("other definition", "by reading")]
        found["What held"] = _examples(held, "are confirmed")
        if other:
            found["What held under a condition"] = _examples(other, "hold under another definition or one reading")
        found["What did not"] = _examples(fell, "are off, contradict the paper itself or misquote a source")
        reasons = [f"{n} ({reason})" for reason, n in judged.reasons.items()]
        if reasons:
            found["What was not tested"] = f"{listed(reasons)}."
    runs = part(study.table, schemas.RUNS).facts
    spent = [f"{duration(made.job_time_s)} over all jobs on {listed(made.machines)}"] if made else []
    if runs is not None and "training_macs" in runs and runs["training_macs"].notna().any():
        devices = listed(runs["device"].dropna().unique())
        spent.append(
            f"the {len(runs)} training runs computed {short(float(runs['training_macs'].sum()))} multiply-adds on "
            f"{devices}"
        )
    if spent:
        found["Cost"] = "; ".join(spent) + "."
    found["What was easy"] = (
        "Layers, paths, parameters, multiply-adds and receptive fields: they follow from one forward pass without data "
        "or weights, and other instruments agree with them."
    )
    hard = ["Where the paper does not state a choice, each possible reading has to be counted separately."]
    if layouts is not None and not layouts.empty:
        best = int(layouts["n_matches"].max())
        n_best = int((layouts["n_matches"] == best).sum())
        hard.append(
            f"The paper does not give the layout of its CIFAR networks; of {len(layouts):,} layouts, {n_best} match "
            f"{best} of the printed parameter counts, and none matches more."
        )
    hard.append("Training results could not be repeated with the printed recipe.")
    found["What was hard"] = " ".join(hard)
    return found


def _examples(rows: Sequence[Mapping[str, str]], what: str) -> str:
    if not rows:
        return f"None of the testable claims of the paper {what}."
    some = [
        f"{row['printed'].replace(' ', NO_BREAK)} ({row['place'].partition(';')[0]}, {row['id']})"
        for row in rows[:SHOWN]
    ]
    more = f", and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"{len(rows)} claims of the paper {what}: {', '.join(some)}{more}."


def limits(study: Study) -> list[str]:
    """The limits of this study, each in a sentence or two."""
    trained, layouts = part(training.training, study).facts, part(study.table, schemas.LAYOUTS).facts
    found = [
        "Depth is a count: a longer path does not imply that a network learns more or better.",
        "A receptive field shows which pixels can change a unit, not how strongly.",
    ]
    if trained:
        found.append(
            f"The training results hold only for {listed(trained.datasets)} and this budget: "
            f"{listed(trained.epochs)} epochs on {training.images_words(trained.images)}. Nothing was trained on "
            "ImageNet, and no run follows the recipe of the paper. All runs share one set of test images, whose "
            "sampling error is not part of the intervals."
        )
    else:
        found.append("No network was trained, so there are no test errors.")
    scores = part(study.table, schemas.MASKS).facts
    if scores is not None and not scores.empty:
        found.append(
            f"Masks are compared with a true foreground on {listed(scores['dataset'].unique())} only: small images "
            "with one object, not photographs."
        )
    if layouts is not None:
        found.append("The layout of the CIFAR networks is one of several that fit the printed numbers.")
    return found


def citation() -> dict[str, str]:
    """`title` and `version` of the software, from CITATION.cff; empty if the file is missing."""
    path = ROOT / "CITATION.cff"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {
        key: met[1].strip().strip('"')
        for key in ("title", "version")
        if (met := re.search(rf"^{key}: (.*)$", text, re.M))
    }
