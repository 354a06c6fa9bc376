"""From claims and measured numbers to verdicts, and their forms: frame, JSON, text.

A verdict is never typed. It follows from what the printed definition gives under each open reading, then from what
other definitions of the same quantity give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import groupby
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from resattn.claims.claims import (
    COLUMNS,
    Claim,
    ClaimError,
    Measure,
    Runs,
    Subject,
    is_row_id,
    parse_subject,
    split_reference,
)
from resattn.claims.expressions import ExpressionError, evaluate
from resattn.claims.vocabulary import DEFINITIONS, FOREIGN, READINGS, Definition, Reading

if TYPE_CHECKING:
    from pandas import DataFrame


class Finding(StrEnum):
    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    OTHER_DEFINITION = "matches under another definition"
    READING = "depends on the reading"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Trial:
    """What one definition gives under one reading. `holds` is None where nothing could be decided, `why` says why."""

    reading: str
    definition: str
    measured: Fraction | None
    holds: bool | None
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim, what was found, and the trials behind it; `decisive` is the one that the finding rests on."""

    claim: Claim
    finding: Finding
    decisive: Trial
    trials: tuple[Trial, ...]
    why: str


DEFAULT_READING = "default"
LEAST_RUNS = 3
CONFIDENCE = 0.95
WIDEST_REACH = Fraction(1, 10)  # of the printed number, to either side


class _UnmeasuredError(Exception):
    """A number that a formula asks for and nothing gives."""


def judge(claims: Sequence[Claim], measure: Measure, runs: Runs | None = None) -> tuple[Verdict, ...]:
    """A verdict on every claim, in their order.

    `measure(subject, quantity)` gives a counted number, or None where it cannot. `runs(subject, quantity)` gives the
    results of training runs with the printed recipe by seed, as fractions; without it no training result is testable.
    Raises: ClaimError where a formula has no value (it divides by zero).
    """
    bench = _Bench({claim.id: claim for claim in claims}, measure, runs)
    # By subject, so that a measure which captures networks has one at a time before it.
    found = {claim.id: bench.verdict(claim) for claim in sorted(claims, key=lambda claim: claim.subject)}
    return tuple(found[claim.id] for claim in claims)


@dataclass(frozen=True)
class _Bench:
    ledger: Mapping[str, Claim]
    measure: Measure
    runs: Runs | None

    def verdict(self, claim: Claim) -> Verdict:
        if why := definition_of(claim, claim.definition).untestable:
            trial = Trial(DEFAULT_READING, claim.definition, None, None, why)
            return _verdict(claim, Finding.NOT_TESTABLE, trial, [trial])
        way, *others = claim.formulas
        trials = [self.trial(claim, way, None)]
        if trials[0].holds is None:
            return _verdict(claim, Finding.NOT_TESTABLE, trials[0], trials)
        open_readings = [r for r in READINGS if any(s.read(r) != s for s in subjects(claim))]
        trials += [self.trial(claim, way, reading) for reading in open_readings]
        decided = [trial for trial in trials if trial.holds is not None]
        if fits := [trial for trial in decided if trial.holds]:
            finding = Finding.CONFIRMED if len(fits) == len(decided) else Finding.READING
            return _verdict(claim, finding, fits[0], decided)
        # An inequality holds too easily by some other count to say what its author meant.
        for other in others if claim.printed.relation == "=" else ():
            trials.append(trial := self.trial(claim, other, None))
            if trial.holds:
                return _verdict(claim, Finding.OTHER_DEFINITION, trial, trials)
        return _verdict(claim, Finding.REFUTED, trials[0], trials)

    def trial(self, claim: Claim, definition: str, reading: Reading | None) -> Trial:
        name = " ".join(f"{k}={v}" for k, v in reading.settings) if reading else DEFAULT_READING
        try:
            sampled = claim.allowed.kind == "statistical"
            trial = self.trial_of_runs if sampled else self.trial_of_counts
            return Trial(name, definition, *trial(claim, definition, reading))
        except _UnmeasuredError as missing:
            return Trial(name, definition, None, None, str(missing))
        except ExpressionError as error:
            raise ClaimError(f"{claim.id}: {error}") from None

    def trial_of_counts(self, claim: Claim, definition: str, reading: Reading | None) -> tuple[Fraction, bool]:
        def value_of(reference: str) -> Fraction:
            if is_row_id(reference):
                return self.ledger[reference].number
            about, quantity = self.resolve(claim, reference, reading)
            if about.network in FOREIGN:
                raise _UnmeasuredError(FOREIGN[about.network])
            if (number := self.measure(about, quantity)) is None:
                raise _UnmeasuredError(f"{quantity} of {about} was not measured")
            return Fraction(number)

        measured = evaluate(claim.formulas[definition], value_of)
        return measured, claim.holds(measured)

    def trial_of_runs(
        self, claim: Claim, definition: str, reading: Reading | None
    ) -> tuple[Fraction | None, bool | None, str]:
        """Print must lie where one more run is expected; an inequality must hold all over the mean's interval."""
        expression = claim.formulas[definition]
        asked = {r: self.resolve(claim, r, reading) for r in expression.references if not is_row_id(r)}
        found = {r: dict(self.runs(*about)) if self.runs else {} for r, about in asked.items()}
        seeds = sorted(set.intersection(*map(set, found.values()))) if found else []
        if len(seeds) < LEAST_RUNS:
            about, _ = next(iter(asked.values()))
            raise _UnmeasuredError(
                f"a training result: it takes at least {LEAST_RUNS} runs with the printed recipe, {len(seeds)} given"
                + (f"; {FOREIGN[about.network]}" if about.network in FOREIGN else "")
            )

        def at(seed: int) -> Fraction:
            return evaluate(
                expression,
                lambda r: self.ledger[r].number if is_row_id(r) else Fraction(found[r][seed]),
            )

        sample = [float(at(seed) / claim.scale) for seed in seeds]
        width = _t_quantile(len(sample) - 1) * stdev(sample)
        measured = Fraction(fmean(sample)) * claim.scale
        if claim.printed.relation == "=":
            reach = Fraction(width * math.sqrt(1 + 1 / len(sample)))
            agrees = claim.holds(measured, reach + claim.allowed.slack(claim.printed))
            # Runs that scatter widely agree with anything.
            decides = not agrees or reach <= WIDEST_REACH * abs(claim.printed.number)
        else:
            ends = [measured + sign * Fraction(width / math.sqrt(len(sample))) * claim.scale for sign in (-1, 1)]
            agrees, decides = claim.holds(ends[0]), claim.holds(ends[0]) == claim.holds(ends[1])
        reason = f"{len(seeds)} runs" if decides else f"{len(seeds)} runs do not decide: they scatter too widely"
        return measured, agrees if decides else None, reason

    def resolve(self, claim: Claim, reference: str, reading: Reading | None) -> tuple[Subject, str]:
        named, quantity = split_reference(reference)
        numbered = named.isdigit() or not named
        about = claim.subjects[int(named or 1) - 1] if numbered else parse_subject(named)
        return about.read(reading), quantity


def subjects(claim: Claim) -> tuple[Subject, ...]:
    """The networks that a claim is about, those inside its formulas among them."""
    names = [split_reference(r)[0] for e in claim.formulas.values() for r in e.references if not is_row_id(r)]
    inside = [parse_subject(name) for name in names if name and not name.isdigit()]
    return tuple(dict.fromkeys((*claim.subjects, *inside)))


def _t_quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, freedom))


def _verdict(claim: Claim, finding: Finding, decisive: Trial, trials: Iterable[Trial]) -> Verdict:
    trials = tuple(trials)
    return Verdict(claim, finding, decisive, trials, WHY[finding](claim, decisive, trials))


# ---------------------------------------------------------------------------------------------- in words


def _why_confirmed(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    return f"{_counted(claim, decisive)}: {_text(claim, decisive)}" + (f" ({decisive.why})" if decisive.why else "")


def _why_refuted(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    return f"{_why_confirmed(claim, decisive, trials)}; printed {printed_text(claim)}{_band(claim)}"


def _why_other(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    as_printed = f"{_counted(claim, trials[0])} as printed ({_text(claim, trials[0])})"
    return f"{as_printed}; {_why_confirmed(claim, decisive, trials)}"


def _why_reading(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    readings = (f"{trial.reading} gives {_counted(claim, trial)}{'' if trial.holds else ' (no)'}" for trial in trials)
    return f"{'; '.join(readings)}: {_text(claim, decisive)}"


WHY = {
    Finding.CONFIRMED: _why_confirmed,
    Finding.REFUTED: _why_refuted,
    Finding.OTHER_DEFINITION: _why_other,
    Finding.READING: _why_reading,
    Finding.NOT_TESTABLE: lambda claim, decisive, trials: decisive.why,
}


def definition_of(claim: Claim, id: str) -> Definition:
    """The row of the definition table with that id, among those of the claim's quantity."""
    quantity = "=" if claim.quantity.startswith("=") else claim.quantity
    return next(d for d in DEFINITIONS if (d.quantity, d.id) == (quantity, id))


def _text(claim: Claim, trial: Trial) -> str:
    return definition_of(claim, trial.definition).text


def _counted(claim: Claim, trial: Trial) -> str:
    return "nothing" if trial.measured is None else measured_text(claim, trial.measured)


def _band(claim: Claim) -> str:
    if claim.printed.relation != "=" or not (slack := claim.allowed.slack(claim.printed)):
        return ""
    return f" \N{PLUS-MINUS SIGN} {float(slack):g}"


def printed_text(claim: Claim) -> str:
    """The printed number with its unit, as in `31.9 M`."""
    return f"{claim.value} {claim.unit}".strip()


def measured_text(claim: Claim, measured: Fraction) -> str:
    """A measured number in the printed unit, with two digits more than print has."""
    number = measured / claim.scale
    if number.denominator == 1:
        return f"{int(number):,} {claim.unit}".strip()
    decimals = len(str(claim.printed.step.denominator)) + 1
    return f"{float(number):.{decimals}f} {claim.unit}".strip()


# ---------------------------------------------------------------------------------------------- as data


def to_json(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """Every field of every row, beside what was measured and how; `measured` has no unit prefix."""
    return [_record(verdict) for verdict in verdicts]


def _record(verdict: Verdict) -> dict[str, Any]:
    claim, decisive = verdict.claim, verdict.decisive
    return {
        **{column: getattr(claim, column) for column in COLUMNS},
        "verdict": str(verdict.finding),
        "printed": _number(claim.number),
        "measured": _number(decisive.measured),
        "measured_text": "" if decisive.measured is None else measured_text(claim, decisive.measured),
        "slack": _number(claim.allowed.slack(claim.printed) * claim.scale),
        "definition_used": decisive.definition if decisive.holds else None,
        "definition_text": _text(claim, decisive),
        "reading": decisive.reading if decisive.measured is not None else None,
        "why": verdict.why,
        "trials": [
            {"reading": t.reading, "definition": t.definition, "measured": _number(t.measured), "holds": t.holds}
            for t in verdict.trials
        ],
    }


def _number(number: Fraction | None) -> int | float | None:
    if number is None:
        return None
    return int(number) if number.denominator == 1 else float(number)


TABLE_COLUMNS = (
    "id", "source", "place", "quote", "subject", "quantity", "definition", "printed", "measured", "verdict",
    "definition_used", "reading", "why", "note",
)  # fmt: skip


def verdict_table(verdicts: Iterable[Verdict]) -> DataFrame:
    """One row per claim, `printed` and `measured` as text in the printed unit.

    Columns: id, source, place, quote, subject, quantity, definition, printed, measured, verdict, definition_used,
    reading, why, note.
    """
    from pandas import DataFrame

    rows = [
        {**record, "printed": printed_text(verdict.claim), "measured": record["measured_text"]}
        for verdict, record in ((verdict, _record(verdict)) for verdict in verdicts)
    ]
    return DataFrame(rows, columns=list(TABLE_COLUMNS)).fillna("")


def verdict_text(verdicts: Iterable[Verdict]) -> str:
    """The verdicts for a terminal, by source and finding, each with what was printed and what was found."""
    return "\n".join(_lines(verdicts))


def _lines(verdicts: Iterable[Verdict]) -> Iterator[str]:
    order = list(Finding)
    ranked = sorted(verdicts, key=lambda v: (v.claim.source, order.index(v.finding)))
    for source, of_source in groupby(ranked, key=lambda v: v.claim.source):
        yield source
        for finding, found in groupby(of_source, key=lambda v: v.finding):
            group = list(found)
            yield f"  {finding} ({len(group)})"
            for verdict in group:
                about = f" of {verdict.claim.subject}" if verdict.claim.subject else ""
                yield f"    {verdict.claim.id}: {verdict.claim.quantity}{about} is {printed_text(verdict.claim)}"
                yield f"      {verdict.why}"
