"""What the page says of masks against the true foreground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.report import sentences
from analysis.report.gaps import MissingError
from analysis.report.reading import Study
from analysis.tables import schemas


@dataclass(frozen=True)
class MaskScore:
    """Area under the ROC curve of one map against the true foreground, by stage: the mean over seeds and modules."""

    network: str
    map: str
    state: str
    by_stage: Mapping[str, float]


@dataclass(frozen=True)
class Masks:
    """What the masks of trained networks single out, where the true foreground is known."""

    datasets: tuple[str, ...]
    scores: tuple[MaskScore, ...]
    errors: Mapping[str, float]  # network -> mean test error in percent
    n_seeds: int
    # Sentences; empty where the study has no table of interventions.
    findings: tuple[str, ...] = ()
    interventions: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # the findings on the runs beside the protocol

    @property
    def stages(self) -> list[str]:
        return sorted({stage for score in self.scores for stage in score.by_stage})

    def gain(self, network: str, over: tuple[str, str]) -> float | None:
        """How far the trained mask is above another map in another state, in the mean over stages."""
        by = {(s.map, s.state): s.by_stage for s in self.scores if s.network == network}
        if ("mask", "after") not in by or over not in by:
            return None
        mask, other = by["mask", "after"], by[over]
        return sum(mask[stage] - other[stage] for stage in mask) / len(mask)


def masks(study: Study) -> Masks:
    """Raises: MissingError."""
    frame = study.table(schemas.MASKS)
    frame = frame[frame["quantity"] == "auc"]
    if frame.empty:
        raise study.no_rows(schemas.MASKS)
    scores = tuple(
        MaskScore(str(network), str(name), str(state), part.groupby("stage")["value"].mean().to_dict())
        for (network, name, state), part in frame.groupby(["network", "map", "state"], sort=False)
    )
    errors = frame.groupby("network", sort=False)["test_error_pct"].mean().to_dict()
    trained = frame[(frame["map"] == "mask") & (frame["state"] == "after")]
    try:
        means = study.table(schemas.INTERVENTION_MEANS)
        findings = sentences.mask_findings(means, trained.groupby("network")["value"].mean().to_dict())
        networks = sentences.simplest_first(means["network"])
        replaced = tuple(sentences.interventions(means[means["network"] == network]) for network in networks)
    except MissingError:  # a study of an earlier version
        findings, replaced = (), ()
    return Masks(
        tuple(frame["dataset"].unique()), scores, errors, int(frame["seed"].nunique()), findings, replaced, _kept(study)
    )


def _kept(study: Study) -> tuple[str, ...]:
    try:
        means = study.table(schemas.REPLACED_MASKS)
    except MissingError:
        return ()
    texts = []
    for (dataset, epochs), part in means.groupby(["dataset", "epochs"], sort=False):
        budget = f"{epochs} {'epoch' if epochs == 1 else 'epochs'}"
        trained = f"The same was measured on networks that were trained on {dataset} for {budget}."
        texts.append(" ".join((trained, *sentences.mask_findings(part, {}))))
    return tuple(texts)
