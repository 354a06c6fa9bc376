"""What the training runs of a study say of the ledger: verdicts, and printed results beside ours.

A printed error is tested by runs with the printed recipe alone. A claim that only says which of two is larger names
no recipe: runs of any budget test it, and the verdict says which budget that was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from analysis.claims.ledger import ledger
from analysis.statistics.stats import mean_interval
from analysis.tables import schemas
from analysis.tables.formats import name_and_settings
from resattn.claims.claims import Claim, ClaimError, Measure, Subject, is_row_id
from resattn.claims.measured import runs_of_table, spec_of
from resattn.claims.verdicts import Verdict, judge
from resattn.claims.vocabulary import TRAINED

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
OFFICIAL = tuple(f"{title} (official" for title in DATA.values())  # how `resattn.training.cifar` labels such a source
# Where in the ledger the recipe of the paper stands.
STEPS, BATCH, EPOCHS, SIZE = "s41.recipe.stop", "s41.recipe.batch", "count1.epochs", 50_000


def measured_runs(
    runs: pd.DataFrame | None = None, masks: pd.DataFrame | None = None, responses: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Every number of a study that a claim asks for, one row each: `schemas.MEASURED`.

    `runs`: `schemas.RUNS`; `masks`: `schemas.MASKS`; `responses`: `schemas.RESPONSES`, read at the stage's output. A
    network's width goes into the budget, which is stated beside the verdict: the claims are about gates, merges and
    depths.
    """
    rows: list[dict[str, object]] = []
    if runs is not None:
        for run in runs.to_dict("records"):
            if quantity := _quantity(run["dataset"], run["label_noise"]):
                shared = {"seed": run["seed"], "value": run["test_error_pct"] / 100, "is_recipe": _is_recipe(run)}
                shared["budget"] = _budget(run)
                # The last epoch serves a print that does not say at which epoch it was read.
                rows += [
                    {**_about(run["network"]), **shared, "quantity": f"{quantity}_{when}"}
                    for when in ("final_epoch", "unstated")
                ]
    if masks is not None:
        kept = masks[(masks["map"] == "mask") & (masks["state"] == "after") & (masks["quantity"] == "contrast")]
        means = kept.groupby(["network", "dataset", "seed"], sort=False)["value"].mean().reset_index()
        for row in means.dropna().to_dict("records"):
            budget = f"{row['dataset']}, {_width_words(row['network'])}"
            rows.append(
                {**_about(row["network"]), "quantity": "foreground_contrast_final_epoch", "seed": row["seed"],
                 "value": row["value"], "budget": budget, "is_recipe": False}
            )  # fmt: skip
    if responses is not None and runs is not None:
        recipe = {(run["network"], run["seed"]): (_is_recipe(run), _budget(run)) for run in runs.to_dict("records")}
        for row in responses[responses["place"] == "output"].to_dict("records"):
            is_recipe, budget = recipe.get((row["network"], row["seed"]), (False, row["dataset"]))
            about = _about(row["network"])
            rows.append(
                {**about, "subject": f"{about['subject']} @{row['stage']}", "quantity": "stage_response_unstated",
                 "seed": row["seed"], "value": row["relative"], "budget": budget, "is_recipe": is_recipe}
            )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.MEASURED.names).astype({"is_recipe": bool})


def judge_study(claims: Sequence[Claim], measure: Measure, measured: pd.DataFrame) -> tuple[Verdict, ...]:
    """A verdict on every claim, with what a study measured; in their order.

    `measured`: of `measured_runs`. Raises: ClaimError.
    """
    verdicts = judge(claims, measure, runs_of_table(measured.loc[measured["is_recipe"]]))
    asked = [claim for claim in claims if _is_direction(claim)]
    widest = measured.loc[
        measured.groupby(["subject", "quantity", "seed"])["width"].transform("max") == measured["width"]
    ]
    directions = {v.claim.id: _with_budget(v, widest) for v in judge(asked, measure, runs_of_table(widest))}
    return tuple(directions.get(v.claim.id, v) for v in verdicts)


def _is_direction(claim: Claim) -> bool:
    references = [r for formula in claim.formulas.values() for r in formula.references]
    return claim.allowed.kind == "statistical" and claim.printed.relation != "=" and not any(map(is_row_id, references))


def _with_budget(verdict: Verdict, measured: pd.DataFrame) -> Verdict:
    if verdict.decisive.measured is None:
        return replace(verdict, why=verdict.why.replace(" with the printed recipe", ""))
    asked = {r.rpartition(":") for formula in verdict.claim.formulas.values() for r in formula.references}
    wanted = {((name.strip() or verdict.claim.subject), quantity) for name, _, quantity in asked}
    of_claim = [(s, q) in wanted for s, q in zip(map(_plain, measured["subject"]), measured["quantity"], strict=True)]
    budgets = " or ".join(dict.fromkeys(measured.loc[of_claim, "budget"]))
    return replace(verdict, why=f"{verdict.why}; at a budget of our own: {budgets}" if budgets else verdict.why)


def published_beside(
    runs: pd.DataFrame, source: str, place: str, *, claims: Sequence[Claim] | None = None
) -> pd.DataFrame:
    """The results that a table of a source prints for the networks that were trained, beside ours.

    `schemas.PRINTED_BESIDE`. No row where the place prints nothing about these networks.
    """
    claims = ledger() if claims is None else claims
    recipe = {claim.id: claim for claim in claims if claim.id in (STEPS, BATCH, EPOCHS)}
    printed = [c for c in claims if c.source == source and c.place == place and c.quantity in TRAINED and c.formulas]
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
    """`cifar-attention56[gate=channel][width=8]` is cifar-attention56 gate=channel: a width is part of the budget."""
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
    """Was it the paper's: all images of the official set, 160k steps of 64, at full width?"""
    is_full = run["images"] == SIZE and run.get("batch_size") == 64 and int(str(run["epochs"])) >= 204
    return is_full and str(run["dataset"]).startswith(OFFICIAL) and "width=" not in str(run["network"])


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
    epochs, batch = (float(recipe[name].number) for name in (EPOCHS, BATCH))
    printed = f"{epochs:g} epochs of {SIZE:,} images in batches of {batch:g}, full width, CIFAR-10"
    return f"printed: {printed}; ours: {_budget(run)}"
