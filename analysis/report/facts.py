"""What the page says, read from a study's tables: nothing here is typed that a table could say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Number
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from analysis.report.reading import MissingError, Study
from analysis.tables.files import TableError
from resattn.measures.quantities import QUANTITIES
from resattn.training.config import DATASETS

if TYPE_CHECKING:
    import pandas as pd

SUBJECT = "attention56"  # whose number the page asks about
PEER = "resnet152"  # what the article calls it a rival of
LEAST_SEEDS = 6  # as `analysis.statistics.stats.LEAST_PAIRS`; a test compares them
SIGNIFICANT = 0.05
DEPTHS = ("claimed_depth", "trunk_depth", "longest_path", "weighted_layers")

T = TypeVar("T")


@dataclass(frozen=True)
class Gap:
    """Something that is not shown: what is missing, and how to get it."""

    what: str
    remedy: str
    job: str | None = None


@dataclass(frozen=True)
class Part(Generic[T]):
    """Facts, or the gap where they would be."""

    facts: T | None = None
    gap: Gap | None = None


def part(read: Callable[[Study], T], study: Study) -> Part[T]:
    """What `read` finds in a study; the reason where it finds nothing that it can use."""
    try:
        return Part(read(study))
    except MissingError as missing:
        return Part(gap=Gap(missing.what, missing.remedy, missing.job))
    except TableError as error:
        name = str(error.path.name)
        return Part(
            gap=Gap(f"{name}: found {error.found}; expected {error.expected}.", f"`{study.remedy}` makes it anew.")
        )


# --- depth ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """An attention module: weighted layers on its longest path, and on the one through its trunk."""

    name: str
    longest: int
    trunk: int
    mask: int  # of `longest`, those in the mask branch; 0 if the trunk is the longer way

    @property
    def extra(self) -> int:
        return self.longest - self.trunk


@dataclass(frozen=True)
class Depth:
    """The notions of depth of every network, and where the subject's longest path gains on its trunk."""

    subject: str
    table: Mapping[str, Mapping[str, int | None]]  # network -> notion -> layers
    modules: tuple[Module, ...]
    ratio: Mapping[str, float]  # notion -> the subject's over the peer's, where the peer was counted

    def of(self, notion: str) -> int | None:
        return self.table[self.subject].get(notion)

    @property
    def outside(self) -> int | None:
        """Layers outside the modules, if module by module explains the whole difference."""
        trunk, longest = self.of("trunk_depth"), self.of("longest_path")
        if not self.modules or trunk is None or longest is None:
            return None
        rest = trunk - sum(m.trunk for m in self.modules)
        return rest if 0 <= rest == longest - sum(m.longest for m in self.modules) else None


def depth(study: Study) -> Depth:
    """Raises: MissingError, TableError."""
    frame = study.table("20_depth", "depth", {"network": str, "quantity": str, "value": Number})
    table = _by_network(frame, "quantity")
    subject = _subject(table, study, "20_depth", "depth")
    modules = part(lambda study: _modules(study, subject), study).facts or ()
    ratio = {
        notion: ours / theirs
        for notion in DEPTHS
        if (ours := table[subject].get(notion)) and (theirs := table.get(PEER, {}).get(notion))
    }
    return Depth(subject, table, modules, ratio)


def _modules(study: Study, subject: str) -> tuple[Module, ...]:
    columns = ("longest_path", "trunk_path", "branch_path", "mask_path")
    frame = study.table("20_depth", "modules", {"network": str, "module": str, **dict.fromkeys(columns, int)})
    rows = [row for row in _rows(frame) if row["network"] == subject]
    stages = [row["module"].partition(".")[0] for row in rows]
    alone = len(set(stages)) == len(stages)  # one module in each stage needs no number of its own
    return tuple(
        Module(_module_label(stage if alone else row["module"]), row["longest_path"], row["trunk_path"], _in_mask(row))
        for stage, row in zip(stages, rows, strict=True)
    )


def _in_mask(row: Mapping[str, Any]) -> int:
    return row["mask_path"] if row["mask_path"] > row["branch_path"] else 0


def _module_label(path: str) -> str:
    """`stage1.module2` -> stage 1, module 2."""
    return re.sub(r"(\D)(\d+)$", r"\1 \2", re.sub(r"(\D)(\d+)\.", r"\1 \2, ", path))


# --- cost -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds by role, and their sums."""

    subject: str
    table: Mapping[str, Mapping[str, Mapping[str, int]]]  # network -> quantity -> role -> number

    def total(self, quantity: str, network: str | None = None) -> int:
        return sum(self.table[network or self.subject][quantity].values())

    def share(self, quantity: str, role: str = "mask", network: str | None = None) -> float:
        name = network or self.subject
        return self.table[name][quantity].get(role, 0) / self.total(quantity, name)

    @cached_property
    def peer(self) -> str | None:
        return PEER if PEER in self.table and self.subject != PEER else None


def cost(study: Study) -> Cost:
    """Raises: MissingError, TableError."""
    frame = study.table("30_cost", "cost", {"network": str, "role": str, "quantity": str, "value": Number})
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row in _rows(frame):
        table.setdefault(row["network"], {}).setdefault(row["quantity"], {})[row["role"]] = row["value"]
    whole = {
        name: rows for name, rows in table.items() if all(sum(rows.get(q, {}).values()) for q in ("params", "macs"))
    }
    return Cost(_subject(whole, study, "30_cost", "cost"), whole)


def crosscheck(study: Study) -> pd.DataFrame:
    """What other tools report beside our counts. Raises: MissingError, TableError."""
    columns = {"network": str, "tool": str, "quantity": str, "reported": Number, "ours": Number, "difference": Number}
    return study.table("30_cost", "crosscheck", {**columns, "explained_by": str, "unexplained": Number})


def published(study: Study) -> pd.DataFrame:
    """Tables 2 and 7 of the paper beside the counts. Raises: MissingError, TableError."""
    return study.table(
        "30_cost",
        "published",
        dict.fromkeys(("id", "place", "subject", "quantity", "printed", "measured", "verdict"), str),
    )


# --- receptive field ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """Side of the input square that a unit at the end of each stage sees, with the masks and without."""

    subject: str
    table: Mapping[str, Mapping[str, Mapping[str, int]]]  # network -> stage -> branch -> side in px

    @property
    def last(self) -> Mapping[str, int]:
        """At the end of the subject's last stage: by branch."""
        return list(self.table[self.subject].values())[-1]

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(stage for rows in self.table.values() for stage in rows))


def sight(study: Study) -> Sight:
    """Raises: MissingError, TableError."""
    frame = study.table(
        "40_receptive_field", "receptive_field", {"network": str, "stage": str, "branch": str, "value": Number}
    )
    table: dict[str, dict[str, dict[str, int]]] = {}
    for row in _rows(frame):
        table.setdefault(row["network"], {}).setdefault(row["stage"], {})[row["branch"]] = row["value"]
    return Sight(_subject(table, study, "40_receptive_field", "receptive_field"), table)


# --- training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """All runs of one network: errors in percent by seed, and what the network is."""

    network: str
    errors: Mapping[int, float]
    facts: Mapping[str, Any]
    label_noise: float = 0.0

    @property
    def mean(self) -> float:
        return sum(self.errors.values()) / len(self.errors)

    @property
    def low(self) -> float:
        return min(self.errors.values())

    @property
    def high(self) -> float:
        return max(self.errors.values())


@dataclass(frozen=True)
class Training:
    """The runs that were compared."""

    datasets: tuple[str, ...]
    results: tuple[Result, ...]
    epochs: tuple[int, ...]
    images: tuple[int, ...]
    n_planned: int
    guessing_pct: float | None  # the error of a guess, where the runs tell of how many classes

    @property
    def n_seeds(self) -> int:
        """Seeds that every network was trained with."""
        return len(set.intersection(*(set(result.errors) for result in self.results)))

    @property
    def n_runs(self) -> int:
        return sum(len(result.errors) for result in self.results)

    @property
    def decides(self) -> bool:
        """Are there runs enough for any claim about which network is better?"""
        return self.n_seeds >= LEAST_SEEDS and len(self.datasets) == 1 and len(self.results) > 1


RUNS = {
    "network": str, "dataset": str, "seed": int, "epochs": int, "images": int, "test_error_pct": float,
    "trunk_depth": int, "longest_path": int, "params": int, "macs": int,
}  # fmt: skip


def training(study: Study) -> Training:
    """The runs that 60_compare gathered; where it did not run, those that each run left.

    Raises: MissingError, TableError.
    """
    frames = [
        study.table(job.name, "run", RUNS) for job in study.of("50_train") if (job.folder / "tables/run.csv").is_file()
    ]
    compared = part(lambda study: study.table("60_compare", "runs", RUNS), study)
    if compared.facts is not None:
        frames = [compared.facts]
    rows = [row for frame in frames for row in _rows(frame)]
    if not rows:
        raise study.missing(next((job.name for job in study.of("50_train")), "50_train"), "run")
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["network"], row.get("label_noise", 0.0)), []).append(row)
    results = tuple(
        Result(name, {row["seed"]: row["test_error_pct"] for row in group}, group[0], noise)
        for (name, noise), group in groups.items()
    )
    return Training(
        tuple(dict.fromkeys(row["dataset"] for row in rows)),
        # The attention network first, then by how deep it is.
        tuple(sorted(results, key=lambda r: (r.label_noise, "attention" not in r.network, r.facts["longest_path"]))),
        tuple(sorted({row["epochs"] for row in rows})),
        tuple(sorted({row["images"] for row in rows})),
        len(study.of("50_train")),
        _guessing_pct(study),
    )


def _guessing_pct(study: Study) -> float | None:
    given = {str((job.result.get("parameters") or {}).get("dataset")) for job in study.of("50_train") if job.result}
    classes = {DATASETS[name].classes for name in given if name in DATASETS}
    return 100 * (1 - 1 / classes.pop()) if len(given) == len(classes) == 1 else None


@dataclass(frozen=True)
class Difference:
    """Test error of the reference less that of a network, in points of %, seed by seed."""

    network: str
    reference: str
    n: int
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    note: str
    label_noise: float = 0.0

    @property
    def is_shown(self) -> bool:
        """Do enough runs say that the two differ?"""
        if self.n < LEAST_SEEDS or self.p_value is None or self.low is None or self.high is None:
            return False
        return self.p_value < SIGNIFICANT and not self.low <= 0 <= self.high


def differences(study: Study) -> tuple[Difference, ...]:
    """Paired differences between networks, as 60_compare tested them. Raises: MissingError, TableError."""
    columns: dict[str, type] = {"network": str, "reference": str, "n": int, "mean": float, "note": str}
    frame = study.table("60_compare", "differences", {**columns, "low": float, "high": float, "p_value": float})
    names = list(Difference.__dataclass_fields__)
    return tuple(Difference(**{name: _none_if_nan(row[name]) for name in names if name in row}) for row in _rows(frame))


# --- masks ----------------------------------------------------------------------------------------------------------


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


MASKS = {
    "network": str, "dataset": str, "seed": int, "test_error_pct": float, "state": str, "stage": str, "map": str,
    "quantity": str, "value": float,
}  # fmt: skip


def masks(study: Study) -> Masks:
    """Raises: MissingError, TableError."""
    frame = study.table("70_masks", "masks", MASKS)
    frame = frame[frame["quantity"] == "auc"]
    if frame.empty:
        raise study.missing("70_masks", "masks")
    scores = tuple(
        MaskScore(str(network), str(name), str(state), part.groupby("stage")["value"].mean().to_dict())
        for (network, name, state), part in frame.groupby(["network", "map", "state"], sort=False)
    )
    errors = frame.groupby("network", sort=False)["test_error_pct"].mean().to_dict()
    return Masks(tuple(frame["dataset"].unique()), scores, errors, int(frame["seed"].nunique()))


# --- claims ---------------------------------------------------------------------------------------------------------

SIGNS = {  # verdict -> its sign and its style
    "confirmed": ("\N{CHECK MARK}", "confirmed"),
    "refuted": ("\N{BALLOT X}", "refuted"),
    "matches under another definition": ("\N{ALMOST EQUAL TO}", "other"),
    "depends on the reading": ("\N{CIRCLE WITH LEFT HALF BLACK}", "reading"),
    "not testable here": ("\N{EN DASH}", "none"),
}


@dataclass(frozen=True)
class Claims:
    """The verdict table, row by row."""

    rows: tuple[Mapping[str, str], ...]

    def values(self, column: str) -> list[str]:
        return sorted({row[column] for row in self.rows})

    @property
    def networks(self) -> list[str]:
        return sorted({network for row in self.rows for network in networks_of(row["subject"])})

    @property
    def tally(self) -> dict[str, dict[str, int]]:
        """source -> verdict -> number of claims."""
        counts: dict[str, dict[str, int]] = {}
        for row in self.rows:
            of_source = counts.setdefault(row["source"], {})
            of_source[row["verdict"]] = of_source.get(row["verdict"], 0) + 1
        return counts

    @property
    def verdicts(self) -> dict[str, int]:
        """verdict -> number of claims, in the order of the vocabulary; others after it."""
        found = [row["verdict"] for row in self.rows]
        return {v: found.count(v) for v in dict.fromkeys([*SIGNS, *sorted(found)]) if v in found}


def claims(study: Study) -> Claims:
    """Raises: MissingError, TableError."""
    columns = ("id", "source", "place", "quote", "subject", "quantity", "definition", "verdict", "why", "note")
    frame = study.table("80_claims", "claims", dict.fromkeys((*columns, "printed", "measured"), str))
    rows = tuple({k: "" if v != v or v is None else str(v) for k, v in row.items()} for row in _rows(frame))
    if not rows:
        raise study.missing("80_claims", "claims")
    return Claims(rows)


def networks_of(subject: str) -> list[str]:
    """`attention56 gate=channel | resnet152 @stem` -> attention56, resnet152."""
    return [part.split()[0] for part in subject.split("|") if part.split()]


# --- how it was made ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Making:
    """Which commit, versions, machine and seeds made the study; each value once, in the order met."""

    commits: tuple[str, ...]
    dirty: bool
    versions: Mapping[str, tuple[str, ...]]
    machines: tuple[str, ...]
    devices: tuple[str, ...]
    threads: tuple[str, ...]
    seeds: tuple[int, ...]
    start: str
    job_time_s: float


def making(study: Study) -> Making | None:
    """None where no job left a word about itself."""
    records = [job.provenance for job in study.jobs if job.provenance]
    if not records:
        return None

    def once(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(record[name]) for record in records if record.get(name) not in (None, "")))

    versions: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in (record.get("versions") or {}).items():
            versions.setdefault(str(package), {})[str(version)] = None
    parameters = [job.result.get("parameters") or {} for job in study.of("50_train")]
    return Making(
        commits=once("commit"),
        dirty=any(record.get("dirty") for record in records),
        versions={package: tuple(found) for package, found in versions.items()},
        machines=once("cpu"),
        devices=once("device"),
        threads=once("threads"),
        seeds=tuple(sorted({p["seed"] for p in parameters if isinstance(p.get("seed"), int)})),
        start=min(once("start"), default=""),
        job_time_s=sum(job.elapsed_s or 0 for job in study.jobs),
    )


# --- rows -----------------------------------------------------------------------------------------------------------


def _none_if_nan(value: Any) -> Any:
    return None if value != value else value


def _rows(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    yield from frame.to_dict("records")


def _by_network(frame: pd.DataFrame, key: str) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for row in _rows(frame):
        table.setdefault(row["network"], {})[row[key]] = _none_if_nan(row["value"])
    return table


def _subject(table: Mapping[str, Any], study: Study, job: str, name: str) -> str:
    """The network that the page asks about: Attention-56, or the first that has a mask, or the first."""
    if not table:
        raise study.missing(job, name)
    return next((n for n in (SUBJECT, *(n for n in table if "attention" in n)) if n in table), next(iter(table)))


def depth_words(facts: Depth) -> Sequence[str]:
    """The notions that the depth table shows: those that any network has."""
    return [notion for notion in DEPTHS if any(row.get(notion) is not None for row in facts.table.values())]


def quantity_label(id: str) -> str:
    return QUANTITIES[id].label if id in QUANTITIES else id.replace("_", " ").capitalize()
