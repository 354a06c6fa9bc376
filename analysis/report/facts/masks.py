"""Masks and the true foreground, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from analysis.report import sentences
from analysis.report.gaps import part
from analysis.report.reading import Study
from analysis.statistics.interventions import intervention_summary
from analysis.tables import schemas
from analysis.tables.formats import counted, listed


@dataclass(frozen=True)
class MaskScore:
    """Area under the ROC curve of one map against the true foreground, by stage: the mean over seeds and modules."""

    network: str
    map: str
    state: str
    by_stage: Mapping[str, float]


@dataclass(frozen=True)
class Replaced:
    """What the masks of other images do in some trained networks: a sentence for each, the simplest first."""

    n_seeds: int
    findings: tuple[str, ...]

    @staticmethod
    def of(means: pd.DataFrame, on: str) -> Replaced:
        return Replaced(int(means["n"].max()), sentences.mask_findings(means, on))


@dataclass(frozen=True)
class Masks:
    """Scores of the masks of trained networks, for data with a known foreground."""

    datasets: tuple[str, ...]
    scores: tuple[MaskScore, ...]
    errors: Mapping[str, float]  # network -> mean test error in percent
    n_seeds: int
    outline: str = ""  # a sentence
    replaced: tuple[Replaced, ...] = ()  # those with the most seeds first
    interventions: tuple[str, ...] = ()  # sentences on each intervention in the study's own runs

    @property
    def stages(self) -> list[str]:
        return sorted({stage for score in self.scores for stage in score.by_stage})

    def gain(self, network: str, over: tuple[str, str]) -> float | None:
        """Score of the trained mask minus that of another map or state, in the mean over stages."""
        by = {(s.map, s.state): s.by_stage for s in self.scores if s.network == network}
        if ("mask", "after") not in by or over not in by:
            return None
        mask, other = by["mask", "after"], by[over]
        return sum(mask[stage] - other[stage] for stage in mask) / len(mask)


def masks(study: Study) -> Masks:
    """The scores of every map. Raises: MissingError."""
    study.table(schemas.MASKS)  # a study without it has a gap
    frame = _of_all_jobs(study, schemas.MASKS)
    frame = frame[frame["quantity"] == "auc"]
    if frame.empty:
        raise study.no_rows(schemas.MASKS)
    scores = tuple(
        MaskScore(str(network), str(name), str(state), part.groupby("stage")["value"].mean().to_dict())
        for (network, name, state), part in frame.groupby(["network", "map", "state"], sort=False)
    )
    errors = frame.groupby("network", sort=False)["test_error_pct"].mean().to_dict()
    trained = frame[(frame["map"] == "mask") & (frame["state"] == "after")]
    datasets = tuple(frame["dataset"].unique())
    on = listed(datasets)
    own = intervention_summary(_of_all_jobs(study, schemas.INTERVENTIONS))
    replaced = [Replaced.of(own, on)] if len(own) else []
    beside = part(study.table, schemas.REPLACED_MASKS).facts
    for (dataset, epochs), means in () if beside is None else beside.groupby(["dataset", "epochs"], sort=False):
        replaced.append(Replaced.of(means, f"{dataset} after {counted(epochs, 'epoch')}"))
    networks = sentences.simplest_first(own["network"])
    interventions = tuple(sentences.interventions(own[own["network"] == network]) for network in networks)
    return Masks(
        datasets, scores, errors, int(frame["seed"].nunique()),
        sentences.outline(trained.groupby("network")["value"].mean().to_dict(), on),
        tuple(sorted(replaced, key=lambda each: -each.n_seeds)), interventions,
    )  # fmt: skip


def _of_all_jobs(study: Study, schema: schemas.Schema) -> pd.DataFrame:
    """A table of every job that has it: more seeds may have a job of their own."""
    jobs = [job.name for job in study.jobs if schema in job.schemas]
    found = [part(study.table, schema, name).facts for name in jobs]
    return pd.concat([frame for frame in found if frame is not None] or [pd.DataFrame(columns=schema.names)])
