"""Verdicts of the ledger from the training runs of a study, and printed results beside ours.

A printed error is tested only by runs with the printed recipe. A claim that one of two networks has the lower error
names no recipe: runs of any budget test it, by the rule of `analysis.statistics.conclusions`, and the verdict names the
budget. A claim about the behaviour of a trained network is tested by the tables of interventions and of gradient depth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pandas as pd

from analysis.claims import background
from analysis.claims.ledger import ledger
from analysis.statistics.comparisons import is_near_chance
from analysis.statistics.conclusions import chance_pct
from analysis.statistics.intervals import least_seeds, mean_interval
from analysis.tables import schemas, steps
from analysis.tables.files import read_table
from analysis.tables.formats import name_and_settings
from analysis.tables.provenance import ROOT
from analysis.tables.runs import recipe_value
from resattn.claims.claims import Claim, ClaimError, Measure, Subject, is_row_id, parse_subject, split_reference
from resattn.claims.expressions import Expression, evaluate
from resattn.claims.measured import is_share, runs_of_table, spec_of
from resattn.claims.verdicts import (
    DEFAULT_READING,
    LEAST_RUNS,
    Finding,
    Trial,
    Verdict,
    definition_of,
    judge,
    reason_of,
)
from resattn.claims.vocabulary import OF_EACH, TRAINED, TRAINING_RESULTS
from resattn.training.config import FIELDS

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
OFFICIAL = tuple(f"{title} (official" for title in DATA.values())  # how `resattn.training.cifar` labels such a source
# Where in the ledger the recipe of the paper stands.
STEPS, BATCH, SIZE = "s41.recipe.stop", "s41.recipe.batch", 50_000
# The defaults of a run are that recipe, which says nothing of precision: it is older than training in bf16.
PRINTED = {name: recipe_value(FIELDS[name].default) for name in schemas.RECIPE} | {"precision": "fp32"}
PRINTED_EPOCHS = (204, 205)  # 160,000 steps of 64 are 204.8
KEPT = ROOT / "results" / "reference" / steps.CLAIMS / "tables"


def measured_runs(runs: pd.DataFrame | None = None, responses: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every number of a study's runs that a claim needs, one row each: `schemas.MEASURED`.

    `runs`: `schemas.RUNS`; `responses`: `schemas.RESPONSES`, at the output of each stage. A network's width counts as
    part of the budget, which is stated beside the verdict: the claims are about gates, merges and depths.
    """
    rows: list[dict[str, object]] = []
    if runs is not None:
        means = _mean_errors(runs)
        for run in runs.to_dict("records"):
            if quantity := _quantity(run["dataset"], run["label_noise"]):
                shared = {"seed": run["seed"], "value": run["test_error_pct"] / 100, "is_recipe": _is_recipe(run)}
                mean = means[run["network"], run["dataset"], run["label_noise"]]
                shared |= {"budget": _budget(run), "near_chance": is_near_chance(mean, chance_pct(run["dataset"]))}
                # The last epoch serves a print that does not say at which epoch it was read.
                rows += [
                    {**_about(run["network"]), **shared, "quantity": f"{quantity}_{when}"}
                    for when in ("final_epoch", "unstated")
                ]
    if responses is not None and runs is not None:
        recipe = {(run["network"], run["seed"]): (_is_recipe(run), _budget(run)) for run in runs.to_dict("records")}
        for row in responses[responses["place"] == "output"].to_dict("records"):
            is_recipe, budget = recipe.get((row["network"], row["seed"]), (False, row["dataset"]))
            about = _about(row["network"])
            rows.append(
                {**about, "subject": f"{about['subject']} @{row['stage']}", "quantity": "stage_response_unstated",
                 "seed": row["seed"], "value": row["relative"], "budget": budget, "is_recipe": is_recipe,
                 "near_chance": False}
            )  # fmt: skip
    return _measured(rows)


def measured_background(interventions: pd.DataFrame, masks: pd.DataFrame) -> pd.DataFrame:
    """The numbers of the rule in `background`, by network and seed: `schemas.MEASURED`."""
    rows: list[dict[str, object]] = []
    for found in background.filtering(interventions, masks):
        shared = {**_about(found.network), "is_recipe": False, "near_chance": found.is_near_chance}
        shared["budget"] = f"{found.dataset}, {_width_words(found.network)}"
        for quantity, values, scale in (
            (background.DIFFERENCE, found.differences, 100), (background.AREA, found.areas, 1),
        ):  # fmt: skip
            rows += [
                {**shared, "quantity": f"{quantity}_final_epoch", "seed": seed, "value": value / scale}
                for seed, value in values.items()
            ]
    return _measured(rows)


def measured_depth(runs: pd.DataFrame, used: pd.DataFrame) -> pd.DataFrame:
    """The share of the gradient's energy in the range of lengths of Veit et al., by network and seed:
    `schemas.MEASURED`.

    For networks whose residual units have two layers each. `runs`: `schemas.RUNS`; `used`: `schemas.USED` of these.
    """
    rows: list[dict[str, object]] = []
    means = _mean_errors(runs)
    of_run = {(run["network"], run["dataset"], run["seed"]): run for run in runs.to_dict("records")}
    for (network, dataset, seed), part in used[used["paths"] == "all"].groupby(["network", "dataset", "seed"]):
        run = of_run.get((network, dataset, seed))
        if run is None or not str(network).partition("[")[0].endswith("-basic"):
            continue
        inside = part[part["length"].between(*UNITS_5_TO_17)].groupby("state")["share"].sum()
        n = int(part["n_images"].iloc[0])
        rows.append(
            {**_about(str(network)), "quantity": "gradient_5_to_17_units_final_epoch", "seed": seed,
             "value": inside.get("after", 0.0), "untrained": inside.get("before", 0.0),
             "budget": f"{_budget(run)}; gradient of {n} test images", "is_recipe": False,
             "near_chance": is_near_chance(means[network, dataset, run["label_noise"]], chance_pct(str(dataset)))}
        )  # fmt: skip
    return _measured(rows)


# Lengths of paths through 5 to 17 units of two layers: every path passes the first and the last layer besides.
UNITS_5_TO_17 = (2 * 5 + 2, 2 * 17 + 2)


def _mean_errors(runs: pd.DataFrame) -> dict[tuple[object, ...], float]:
    means = runs.groupby(["network", "dataset", "label_noise"])["test_error_pct"].mean()
    return {tuple(keys): float(mean) for keys, mean in means.items()}


def _measured(rows: list[dict[str, object]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=schemas.MEASURED.names)
    return frame.astype({"is_recipe": bool, "near_chance": bool, "untrained": float})


def judge_study(
    claims: Sequence[Claim], measure: Measure, measured: pd.DataFrame, orders: pd.DataFrame | None = None
) -> tuple[Verdict, ...]:
    """The verdict on every claim with the measurements of a study, in the order of the claims.

    `measured`: from the functions above. `orders`: from `conclusions.every_order`; it decides every claim that one
    network has a lower error than another. Claim 6 of the article has its own rule. A claim about any trained network
    holds if it holds for each. Another claim about an order needs the same seeds for both. Networks near chance level
    decide nothing.
    Raises: ClaimError.
    """
    every = ledger()
    verdicts = judge(claims, measure, runs_of_table(measured.loc[measured["is_recipe"]]), among=every)
    asked = [claim for claim in claims if _is_direction(claim)]
    # The area of a mask is a part of the rule for claim 6 alone.
    learned = measured.loc[~measured["near_chance"] & measured["quantity"].isin(TRAINING_RESULTS)]
    widest = learned.loc[learned.groupby(["subject", "quantity", "seed"])["width"].transform("max") == learned["width"]]
    judged = judge(asked, measure, runs_of_table(widest), among=every)
    found = {
        v.claim.id: _ordered(v, orders) or _filtered(v, measured) or _of_each(v, learned) or _with_budget(v, widest)
        for v in judged
    }
    return tuple(found.get(v.claim.id, v) for v in verdicts)


def judge_kept(claims: Sequence[Claim], measure: Measure) -> tuple[Verdict, ...]:
    """The verdict on every claim with the measurements of the study kept in the repository, if it is there."""
    tables = (schemas.MEASURED, schemas.ORDERS)
    if not all((KEPT / schema.file).is_file() for schema in tables):
        return judge(claims, measure, among=ledger())
    return judge_study(claims, measure, *(read_table(KEPT / schema.file, schema) for schema in tables))


def _ordered(verdict: Verdict, orders: pd.DataFrame | None) -> Verdict | None:
    """The verdict on a claim that one network has a lower error than another; None for a claim of another kind."""
    claim = verdict.claim
    if (asked := _difference_of(claim, next(iter(claim.formulas.values())))) is None:
        return None
    (first, second), quantity = asked
    rows = []
    for row in () if orders is None else orders[orders["n"] > 0].to_dict("records"):
        networks = (str(row["reference"]), str(row["network"]))
        specs = [spec_of(subject_of(name)) for name in networks]
        widths = {_width_words(name) for name in networks}
        is_asked = set(specs) == {first, second} and _quantity(row["dataset"], row["label_noise"]) == quantity
        if is_asked and len(widths) == 1:
            # At full width if there are such runs, else at the largest; of several budgets the largest.
            width = widths.pop()
            size = float("inf") if width == "full width" else float(width.split()[1])
            rows.append((size, row["epochs"] * row["images"], specs[0] == first, row, width))
    if not rows:
        return _untestable(verdict, "a training result: no runs of both networks at one width, with one budget")
    _, _, is_first, row, width = max(rows, key=lambda found: found[:2])
    why = f"{row['conclusion']} {row['scope']} At {width}."
    if not row["order"]:
        return _untestable(verdict, why)
    sign = 1 if is_first else -1
    holds = claim.holds(Fraction(sign * row["low"] / 100))  # the interval lies on one side of 0
    return _decided(verdict, Fraction(sign * row["mean"] / 100), holds, why)


def _filtered(verdict: Verdict, measured: pd.DataFrame) -> Verdict | None:
    """The verdict that masks filter the background, by its rule; None for another claim, or without its numbers."""
    if verdict.claim.quantity != background.DIFFERENCE:
        return None
    asked = [f"{name}_final_epoch" for name in (background.DIFFERENCE, background.AREA)]
    rows = _about_network(measured[measured["quantity"].isin(asked)], verdict.claim)
    differences, areas = (
        {int(row["seed"]): float(row["value"]) for row in rows if row["quantity"] == name} for name in asked
    )
    if not (differences and areas):
        return None
    points = {seed: 100 * value for seed, value in differences.items()}
    found = background.Filtering(
        verdict.claim.subject, points, areas, is_near_chance=any(row["near_chance"] for row in rows)
    )
    why = f"{found.why}; at a budget of our own: {rows[0]['budget']}"
    if found.finding == background.OPEN:
        return _untestable(verdict, why)
    return _decided(verdict, Fraction(found.mean / 100), found.finding == background.FILTERS, why)


def _of_each(verdict: Verdict, learned: pd.DataFrame) -> Verdict | None:
    """The verdict on a claim about any trained network: what holds in each of `LEAST_RUNS` or more, or in none."""
    claim = verdict.claim
    if claim.quantity not in OF_EACH:
        return None
    rows = [row for row in _about_network(learned, claim) if row["quantity"].startswith(claim.quantity)]
    if len(rows) < LEAST_RUNS:
        return _untestable(verdict, f"a training result: {LEAST_RUNS} trained networks are needed, {len(rows)} given")
    values = [float(row["value"]) for row in rows]
    interval = mean_interval(values)
    ends = interval.note or f"95 % interval of the mean {interval.low:.3f} to {interval.high:.3f}"
    holds = [claim.holds(Fraction(value)) for value in values]
    budgets = " or ".join(dict.fromkeys(str(row["budget"]) for row in rows))
    after, before = (", ".join(f"{value:.3f}" for value in v) for v in (values, [row["untrained"] for row in rows]))
    why = (
        f"{after} in {len(rows)} trained networks, each judged by itself ({ends}); {before} with their random weights: "
        f"{definition_of(claim, claim.definition).text}; at a budget of our own: {budgets}"
    )
    if any(holds) and not all(holds):
        return _untestable(verdict, f"it holds in {sum(holds)} of {len(rows)}: {why}")
    return _decided(verdict, Fraction(interval.mean), all(holds), why)


def _about_network(measured: pd.DataFrame, claim: Claim) -> list[dict[str, Any]]:
    """The measured rows of a claim's only network, of any width, by seed."""
    spec, rows = spec_of(claim.subjects[0]), measured.sort_values("seed").to_dict("records")
    return [row for row in rows if spec_of(parse_subject(_plain(row["subject"]))) == spec]


def _decided(verdict: Verdict, measured: Fraction, holds: bool, why: str) -> Verdict:
    trial = Trial(DEFAULT_READING, next(iter(verdict.claim.formulas)), measured, holds, why)
    return Verdict(verdict.claim, Finding.CONFIRMED if holds else Finding.OFF, trial, (trial,), why)


def _untestable(verdict: Verdict, why: str) -> Verdict:
    trial = Trial(DEFAULT_READING, verdict.decisive.definition, None, None, why)
    return Verdict(verdict.claim, Finding.NOT_TESTABLE, trial, (trial,), why, reason_of(verdict.claim))


def _difference_of(claim: Claim, expression: Expression) -> tuple[tuple[object, object], str] | None:
    """The two networks and the quantity of a formula `{a:error} - {b:error}` that is compared with 0, as specs."""
    references = list(expression.references)
    if len(references) != 2 or claim.printed.number != 0:
        return None
    ones = [evaluate(expression, {r: Fraction(r == one) for r in references}.__getitem__) for one in references]
    about, quantities = zip(*(_about_reference(claim, reference) for reference in references), strict=True)
    kinds = {re.sub(r"_(final_epoch|unstated)$", "", quantity) for quantity in quantities}
    if ones not in ([1, -1], [-1, 1]) or len(kinds) != 1 or not all(map(is_share, kinds)):
        return None
    first, second = (spec_of(subject) for subject in (about if ones == [1, -1] else reversed(about)))
    return ((first, second), kinds.pop()) if first and second else None


def _is_direction(claim: Claim) -> bool:
    references = [r for formula in claim.formulas.values() for r in formula.references]
    return claim.allowed.kind == "statistical" and claim.printed.relation != "=" and not any(map(is_row_id, references))


def _about_reference(claim: Claim, reference: str) -> tuple[Subject, str]:
    """The network and the quantity of a name in a claim's formula; the network may be a number of one in the row."""
    name, quantity = split_reference(reference)
    return (claim.subjects[int(name or 1) - 1] if name.isdigit() or not name else parse_subject(name)), quantity


def _with_budget(verdict: Verdict, measured: pd.DataFrame) -> Verdict:
    formula = next(iter(verdict.claim.formulas.values()))
    specs = measured["subject"].map(lambda text: spec_of(parse_subject(_plain(text))))
    parts = []
    for subject, quantity in (_about_reference(verdict.claim, r) for r in formula.references):
        spec = spec_of(subject)
        is_it = [found == spec for found in specs]
        parts.append(measured[pd.Series(is_it, measured.index, dtype=bool) & (measured["quantity"] == quantity)])
    n, least = len(set.intersection(*(set(part["seed"]) for part in parts))), least_seeds()
    if n < least:
        needed = f"it takes at least {least} seeds of networks that are not near chance level"
        return _untestable(verdict, f"a training result: {needed}, {n} given")
    budgets = " or ".join(dict.fromkeys(budget for part in parts for budget in part["budget"]))
    return replace(verdict, why=f"{verdict.why}; at a budget of our own: {budgets}")


def published_beside(runs: pd.DataFrame, source: str, place: str) -> pd.DataFrame:
    """The results that a table of a source prints for the trained networks, beside ours: `schemas.PRINTED_BESIDE`.

    No row if that place prints nothing about these networks.
    """
    claims = ledger()
    recipe = {claim.id: claim for claim in claims if claim.id in (STEPS, BATCH)}
    printed = [c for c in claims if c.source == source and place in c.places and c.quantity in TRAINED and c.formulas]
    rows = []
    for (network, noise), part in runs.groupby(["network", "label_noise"], sort=False):
        subject, first = subject_of(str(network)), part.iloc[0].to_dict()
        for claim in printed:
            if _noise_of(claim.quantity) != round(100 * float(noise)) or not claim.quantity.startswith("cifar10_error"):
                continue
            if len(claim.subjects) != 1 or spec_of(claim.subjects[0]) != spec_of(subject):
                continue
            interval = mean_interval([float(value) for value in part["test_error_pct"]])
            rows.append(
                {
                    "id": claim.id, "network": network, "label_noise": noise, "printed": float(claim.printed.number),
                    "ours": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n,
                    "difference": _difference(first, recipe),
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.PRINTED_BESIDE.names).astype({"low": float, "high": float})


# -- what a run is, in the ledger's words


def subject_of(network: str) -> Subject:
    """A network without its width, which is part of the budget: of `[gate=channel][width=8]` the gate stays."""
    name, settings = name_and_settings(network)
    kept = [tuple(item.split("=", 1)) for item in sorted(settings) if not item.startswith("width=")]
    return Subject(name, tuple((field, value) for field, value in kept))


def _plain(subject: str) -> str:
    return subject.partition(" @")[0]


def _about(network: str) -> dict[str, object]:
    spec = spec_of(Subject(network))
    if spec is None:
        raise ClaimError(f"no network {network!r} in the catalog")
    return {"subject": str(subject_of(network)), "width": spec.width}


def _quantity(dataset: str, noise: float) -> str:
    name = next((name for name, title in DATA.items() if dataset.startswith(f"{title} ")), "")
    quantity = f"{name}_error" + (f"_noise{round(100 * noise)}" if noise else "")
    return quantity if quantity in TRAINED else ""


def _noise_of(quantity: str) -> int:
    match = re.search(r"_noise(\d+)$", quantity)
    return int(match[1]) if match else 0


def _is_recipe(run: Mapping[str, object]) -> bool:
    """Was it the paper's in every field: all images of the official set, 160k steps of 64, full width, fp32?"""
    is_full = run["images"] == SIZE and run["epochs"] in PRINTED_EPOCHS and str(run["dataset"]).startswith(OFFICIAL)
    return is_full and "width=" not in str(run["network"]) and not _changed(run)


def _changed(run: Mapping[str, object]) -> dict[str, object]:
    """Fields of the recipe that are not as printed, or that the run's record does not state."""
    return {name: run.get(name) for name, printed in PRINTED.items() if run.get(name) != printed}


def _width_words(network: str) -> str:
    return next(
        (f"width {item[6:]}" for item in name_and_settings(network)[1] if item.startswith("width=")), "full width"
    )


def _budget(run: Mapping[str, object]) -> str:
    batch = f" in batches of {run['batch_size']}" if run.get("batch_size") else ""
    width = _width_words(str(run["network"]))
    return f"{run['epochs']} epochs of {run['images']:,} images{batch}, {width}, {run['dataset']}"


def _difference(run: Mapping[str, object], recipe: Mapping[str, Claim]) -> str:
    """In what a run differs from the paper's recipe, as the ledger has it."""
    if _is_recipe(run):
        return "the printed recipe"
    steps, batch = (float(recipe[name].number) for name in (STEPS, BATCH))
    printed = f"{steps * batch / SIZE:g} epochs of {SIZE:,} images in batches of {batch:g}, full width, CIFAR-10"
    changed = {name: value for name, value in _changed(run).items() if name != "batch_size"}
    known = [f"{name} {value} (printed: {PRINTED[name]})" for name, value in changed.items() if pd.notna(value)]
    unknown = [name for name, value in changed.items() if pd.isna(value)]
    more = [*known, *([f"not recorded: {', '.join(unknown)}"] if unknown else [])]
    return f"printed: {printed}; ours: {'; '.join([_budget(run), *more])}"
