"""Computes verdicts from claims and measured numbers.

No verdict is entered by hand. A quoted number is compared with the row that it cites. Any other verdict follows from
the printed definition under each open reading, then from other definitions of the same quantity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from statistics import fmean, stdev

from resattn.claims.claims import (
    Claim,
    ClaimError,
    Measure,
    Runs,
    Subject,
    UnmeasuredError,
    is_row_id,
    parse_subject,
    split_reference,
)
from resattn.claims.expressions import ExpressionError, evaluate
from resattn.claims.vocabulary import (
    ANOTHERS_NETWORK,
    DEFINITIONS,
    FOREIGN,
    NEEDS_IMAGENET,
    NEEDS_RECIPE,
    READINGS,
    TYPED,
    Definition,
    Reading,
)


class Finding(StrEnum):
    CONFIRMED = "confirmed"
    BUILT_SO = "built so"
    OTHER_DEFINITION = "other definition"
    READING = "by reading"
    OFF = "off"
    CONTRADICTS = "contradicts itself"
    MISQUOTES = "misquotes"
    SUPERSEDED = "superseded"
    NOT_TESTABLE = "not testable"


MEANING = {
    Finding.CONFIRMED: "the number holds, counted or computed as its source defines it",
    Finding.BUILT_SO: "a field of our spec was taken from that source, so the match confirms nothing",
    Finding.OTHER_DEFINITION: "the number holds if the quantity is counted in another way, which is named",
    Finding.READING: "the number holds under some readings of what the source leaves open",
    Finding.OFF: "the number differs beyond its printed digits, by the per cent given",
    Finding.CONTRADICTS: "the source prints another number elsewhere, or numbers that give another",
    Finding.MISQUOTES: "the source that it cites prints another number",
    Finding.SUPERSEDED: "the source that it rests on has since printed another number",
    Finding.NOT_TESTABLE: "nothing here can measure it, for the reason given",
}


@dataclass(frozen=True)
class Trial:
    """The value of one definition under one reading. `holds` is None if undecidable, for the reason in `why`."""

    reading: str
    definition: str
    measured: Fraction | None
    holds: bool | None
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim, its verdict, and the trials behind it; `decisive` is the trial that the verdict rests on."""

    claim: Claim
    finding: Finding
    decisive: Trial
    trials: tuple[Trial, ...]
    why: str
    reason: str = ""  # one of REASONS, where nothing was tested

    @property
    def off_pct(self) -> float | None:
        """The printed number minus the measured one, in per cent of the measured one; None unless it is off."""
        measured = self.decisive.measured
        if self.finding is not Finding.OFF or not measured or self.claim.printed.relation != "=":
            return None
        return float(100 * (self.claim.number - measured) / abs(measured))


DEFAULT_READING = "default"
LEAST_RUNS = 3
CONFIDENCE = 0.95
WIDEST_REACH = Fraction(1, 10)  # of the printed number, to either side


def judge(
    claims: Sequence[Claim], measure: Measure, runs: Runs | None = None, *, among: Sequence[Claim] = ()
) -> tuple[Verdict, ...]:
    """The verdict on every claim, in the order given.

    `measure(subject, quantity)`: the counted number, or None if it cannot be counted. `runs(subject, quantity)`:
    results of training runs with the printed recipe, by seed, as fractions; without it training results are not
    testable. `among`: all claims of the table, if `claims` are only some of its rows.
    Raises: ClaimError if a formula has no value (division by zero), or a subject has no such part or callable: one line
    for each row, with file, line and column.
    """
    bench = _Bench({claim.id: claim for claim in (*among, *claims)}, measure, runs)
    found, problems = {}, []
    # By subject, so that a measure which captures networks has one at a time before it.
    for claim in sorted(claims, key=lambda claim: claim.subject):
        try:
            found[claim.id] = bench.verdict(claim)
        except ExpressionError as error:
            problems.append(f"{claim.where}, column quantity: {error}")
        except ClaimError as error:
            problems.append(f"{claim.where}, column subject: {error}")
    if problems:
        raise ClaimError("\n".join(problems))
    return tuple(found[claim.id] for claim in claims)


@dataclass(frozen=True)
class _Bench:
    ledger: Mapping[str, Claim]
    measure: Measure
    runs: Runs | None

    def verdict(self, claim: Claim) -> Verdict:
        if found := self.quoted(claim) or self.superseded(claim):
            return found
        way = definition_of(claim, claim.definition)
        if way.untestable:
            trial = Trial(DEFAULT_READING, claim.definition, None, None, way.text)
            return _verdict(claim, Finding.NOT_TESTABLE, trial, [trial])
        trials = [self.trial(claim, way.id, None)]
        if trials[0].holds is None:
            return _verdict(claim, Finding.NOT_TESTABLE, trials[0], trials)
        open_readings = [r for r in READINGS if any(s.read(r, claim.source) != s for s in subjects(claim))]
        trials += [self.trial(claim, way.id, reading) for reading in open_readings]
        decided = [trial for trial in trials if trial.holds is not None]
        if fits := [trial for trial in decided if trial.holds]:
            finding = Finding.CONFIRMED if len(fits) == len(decided) else Finding.READING
            if finding is Finding.CONFIRMED and is_built_so(claim):
                finding = Finding.BUILT_SO
            return self.outdated(claim, fits[0]) or _verdict(claim, finding, fits[0], decided)
        if claim.definition == ARITHMETIC and self.is_own(claim):
            return _verdict(claim, Finding.CONTRADICTS, trials[0], trials)
        # An inequality holds too easily by some other count to say what its author meant.
        for other in [id for id in claim.formulas if id != way.id] if claim.printed.relation == "=" else ():
            trials.append(trial := self.trial(claim, other, None))
            if trial.holds:
                return _verdict(claim, Finding.OTHER_DEFINITION, trial, trials)
        return _verdict(claim, Finding.OFF, trials[0], trials)

    def quoted(self, claim: Claim) -> Verdict | None:
        """The verdict on a number that its source takes from another row, where that decides."""
        if not claim.cites:
            return None
        cited = self.ledger[claim.cites]
        if claim.prints_as(cited):
            later = self.later(cited)
            return self._by_print(claim, Finding.SUPERSEDED, later, "has since printed") if later else None
        finding = Finding.CONTRADICTS if cited.source == claim.source else Finding.MISQUOTES
        about = {subject.network for subject in claim.subjects}
        elsewhere = [
            other for other in self.ledger.values()
            if other.source != claim.source and (other.quantity, other.number) == (claim.quantity, claim.number)
            and (other.source == cited.source or about & {subject.network for subject in other.subjects})
        ]  # fmt: skip
        more = ""
        if finding is Finding.MISQUOTES and elsewhere:
            where = dict.fromkeys(f"{_printed_in(other)} (for {other.subject})" for other in elsewhere)
            more = f"; {printed_text(claim)} is printed in {' and '.join(where)}"
        return self._by_print(claim, finding, cited, "prints", more)

    def superseded(self, claim: Claim) -> Verdict | None:
        later = self.later(claim)
        return self._by_print(claim, Finding.SUPERSEDED, later, "has since printed") if later else None

    def later(self, claim: Claim) -> Claim | None:
        """The row that took the place of this one with another number: the last of a chain."""
        later, passed = claim, {claim.id}
        while later.superseded_by and later.superseded_by not in passed:
            later = self.ledger[later.superseded_by]
            passed.add(later.id)
        return None if claim.prints_as(later) else later

    def outdated(self, claim: Claim, held: Trial) -> Verdict | None:
        """The verdict on a formula over printed numbers that holds, and fails with those that took their place."""
        if claim.definition != ARITHMETIC:
            return None

        def newest(reference: str) -> Fraction:
            row = self.ledger[reference]
            cited = self.ledger[row.cites] if row.cites else row
            later = self.later(row) or (self.later(cited) if row.prints_as(cited) else None)
            replaced.extend([later] if later else [])
            return (later or row).number

        replaced: list[Claim] = []
        value = evaluate(claim.formulas[ARITHMETIC], newest)
        if not replaced or claim.holds(value):
            return None
        trial = Trial(held.reading, ARITHMETIC, value, False)
        since = " and ".join(f"{printed_text(row)} ({_printed_in(row)})" for row in replaced)
        why = f"{_counted(claim, held)} with the numbers as printed; {_counted(claim, trial)} with {since}"
        return Verdict(claim, Finding.SUPERSEDED, trial, (held, trial), why)

    def is_own(self, claim: Claim) -> bool:
        """Whether a formula is over numbers of the claim's own source alone."""
        return all(self.ledger[r].source == claim.source for r in claim.formulas[ARITHMETIC].references)

    def _by_print(self, claim: Claim, finding: Finding, other: Claim, verb: str, more: str = "") -> Verdict:
        trial = Trial(DEFAULT_READING, claim.definition, other.number, False)
        why = f"{_printed_in(other)} {verb} {printed_text(other)}{more}"
        return Verdict(claim, finding, trial, (trial,), why)

    def trial(self, claim: Claim, definition: str, reading: Reading | None) -> Trial:
        name = " ".join(f"{k}={v}" for k, v in reading.settings) if reading else DEFAULT_READING
        try:
            sampled = claim.allowed.kind == "statistical"
            trial = self.trial_of_runs if sampled else self.trial_of_counts
            return Trial(name, definition, *trial(claim, definition, reading))
        except UnmeasuredError as missing:
            return Trial(name, definition, None, None, str(missing))

    def trial_of_counts(self, claim: Claim, definition: str, reading: Reading | None) -> tuple[Fraction, bool]:
        def value_of(reference: str) -> Fraction:
            if is_row_id(reference):
                return self.ledger[reference].number
            about, quantity = self.resolve(claim, reference, reading)
            if about.network in FOREIGN:
                raise UnmeasuredError(FOREIGN[about.network])
            if (number := self.measure(about, quantity)) is None:
                raise UnmeasuredError(f"{quantity} of {about} was not measured")
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
            raise UnmeasuredError(
                f"a training result: it takes at least {LEAST_RUNS} runs with the printed recipe, {len(seeds)} given"
                + (f"; {FOREIGN[about.network]}" if about.network in FOREIGN else "")
            )

        def at(seed: int) -> Fraction:
            return evaluate(expression, lambda r: self.ledger[r].number if is_row_id(r) else Fraction(found[r][seed]))

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
        reason = f"{len(seeds)} runs" if decides else f"{len(seeds)} runs do not decide: their spread is too large"
        return measured, agrees if decides else None, reason

    def resolve(self, claim: Claim, reference: str, reading: Reading | None) -> tuple[Subject, str]:
        named, quantity = split_reference(reference)
        numbered = named.isdigit() or not named
        about = claim.subjects[int(named or 1) - 1] if numbered else parse_subject(named)
        return about.read(reading, claim.source), quantity


def subjects(claim: Claim) -> tuple[Subject, ...]:
    """The networks that a claim is about, including those inside its formulas."""
    names = [split_reference(r)[0] for e in claim.formulas.values() for r in e.references if not is_row_id(r)]
    inside = [parse_subject(name) for name in names if name and not name.isdigit()]
    return tuple(dict.fromkeys((*claim.subjects, *inside)))


def _t_quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _verdict(claim: Claim, finding: Finding, decisive: Trial, trials: Iterable[Trial]) -> Verdict:
    trials = tuple(trials)
    reason = reason_of(claim) if finding is Finding.NOT_TESTABLE else ""
    return Verdict(claim, finding, decisive, trials, WHY[finding](claim, decisive, trials), reason)


ARITHMETIC = "arithmetic"


def reason_of(claim: Claim) -> str:
    """Why a claim cannot be tested here: one of REASONS."""
    if given := definition_of(claim, claim.definition).untestable:
        return given
    if any(subject.network in FOREIGN for subject in subjects(claim)):
        return ANOTHERS_NETWORK
    asked = [split_reference(r)[1] for e in claim.formulas.values() for r in e.references if not is_row_id(r)]
    if any(quantity.startswith("imagenet") for quantity in asked):
        return NEEDS_IMAGENET
    return NEEDS_RECIPE if claim.allowed.kind == "statistical" else ANOTHERS_NETWORK


def is_built_so(claim: Claim) -> bool:
    """Whether the number is read from a field that was set from the claim's own source, for each network in it."""
    way, networks = definition_of(claim, claim.definition), {subject.network for subject in subjects(claim)}
    return bool(networks) and all(any(t.covers(name, claim.source, way) for t in TYPED) for name in networks)


def _printed_in(claim: Claim) -> str:
    return f"{claim.source}, {claim.places[0]}"


# ---------------------------------------------------------------------------------------------- in words


def _why_confirmed(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    return f"{_counted(claim, decisive)}: {_text(claim, decisive)}" + (f" ({decisive.why})" if decisive.why else "")


def _why_off(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    return f"{_why_confirmed(claim, decisive, trials)}; printed {printed_text(claim)}{_band(claim)}"


def _why_other(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    as_printed = f"{_counted(claim, trials[0])} as printed ({_text(claim, trials[0])})"
    return f"{as_printed}; {_why_confirmed(claim, decisive, trials)}"


def _why_reading(claim: Claim, decisive: Trial, trials: Sequence[Trial]) -> str:
    readings = (f"{trial.reading} gives {_counted(claim, trial)}{'' if trial.holds else ' (no)'}" for trial in trials)
    return f"{'; '.join(readings)}: {_text(claim, decisive)}"


WHY = {
    Finding.CONFIRMED: _why_confirmed,
    Finding.BUILT_SO: lambda claim, decisive, trials: (
        f"{_why_confirmed(claim, decisive, trials)}; the spec takes it from {claim.source}"
    ),
    Finding.OFF: _why_off,
    Finding.CONTRADICTS: _why_off,
    Finding.OTHER_DEFINITION: _why_other,
    Finding.READING: _why_reading,
    Finding.NOT_TESTABLE: lambda claim, decisive, trials: decisive.why,
}


def definition_of(claim: Claim, id: str) -> Definition:
    """The row with this id in the definition table, among the definitions of the claim's quantity."""
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
    """A measured number in the printed unit, with two digits more than printed."""
    number = measured / claim.scale
    if number.denominator == 1:
        return f"{int(number):,} {claim.unit}".strip()
    decimals = len(str(claim.printed.step.denominator)) + 1
    return f"{float(number):.{decimals}f} {claim.unit}".strip()
