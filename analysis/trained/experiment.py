"""The experiment of docs/protocol.md as tables and sentences, for the runs that are kept.

A budget is shown only when all its networks have all their seeds, so that no comparison is seen early.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.experiment.protocol import (
    BUDGET,
    EXTRA,
    PROTOCOL,
    RESULTS,
    RUNS,
    SWEEP,
    TRAINED,
    WHOLE,
    Planned,
    Protocol,
    State,
    read_protocol,
    state_of,
    state_on_cpu,
)
from analysis.statistics.comparisons import Comparison, compare_networks
from analysis.statistics.conclusions import chance_pct
from analysis.statistics.intervals import mean_interval
from analysis.statistics.interventions import intervention_summary
from analysis.statistics.protocol import sweep_of
from analysis.tables import schemas
from analysis.tables.files import FrameError, read_table
from analysis.tables.formats import counted, display_name, listed, signed
from analysis.tables.runs import run_frame
from resattn.measures.captured import captured
from resattn.measures.quantities import count
from resattn.training.kept import KeptRunError


@dataclass(frozen=True)
class Experiment:
    """The runs that are shown. All of one budget, and all of the sweep, were made on one kind of device; `device` says
    on which."""

    state: State
    device: str

    @property
    def protocol(self) -> Protocol:
        return self.state.protocol

    @property
    def complete_epochs(self) -> list[int]:
        """The budgets that have all seeds of all networks."""
        part = self.protocol.data["budgets"]
        n_runs = len(part["seeds"]) * len(self.protocol.networks)
        return [e for e in part["epochs"] if len(self.state.errors(BUDGET, e)) == n_runs]


def experiment(folder: Path | str = RESULTS, protocol: Protocol | None = None) -> Experiment:
    """For the sweep and for each budget, the runs of the kind of device that has more of them.

    Raises: FrameError for a damaged run.
    """
    protocol = protocol or read_protocol()
    try:
        sets = {
            "an accelerator": state_of(Path(folder, WHOLE, RUNS), protocol),
            "a CPU": state_on_cpu(Path(folder), protocol),
        }
    except KeptRunError as error:
        raise FrameError(str(error)) from error
    device, state = max(sets.items(), key=lambda found: (bool(found[1].rates), len(found[1].errors(SWEEP))))
    kept = {run.id: state.kept[run.id] for run in protocol.sweep if run.id in state.kept}
    elsewhere = []
    for epochs in protocol.data["budgets"]["epochs"]:
        where, most = max(sets.items(), key=lambda found: len(found[1].errors(BUDGET, epochs)))
        found = {run.id: most.kept[run.id] for run in most.planned if _is_of(run, epochs) and run.id in most.kept}
        kept |= found
        if found and where != device:
            elsewhere.append(f"{counted(epochs, 'epoch')}: {where}")
    others = [run for found in sets.values() for run in found.others]
    shown = replace(state, kept=kept, others=others)
    return Experiment(shown, device + (f" ({'; '.join(elsewhere)})" if elsewhere else ""))


def _is_of(run: Planned, epochs: int) -> bool:
    return run.part == BUDGET and run.config.epochs == epochs


def sweep_frame(found: Experiment) -> pd.DataFrame:
    """One row for each kept run of the sweep: `schemas.SWEEP`."""
    names, rates = found.protocol.networks, found.state.rates
    rows = [
        {
            "network": names[short], "lr": lr, "seed": seed, "error_pct": error, "diverged": error != error,
            "chosen": rates.get(short) == lr,
        }
        for (short, lr, seed), error in sorted(found.state.errors(SWEEP).items())
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.SWEEP.names).astype({"error_pct": float})


def budget_frame(found: Experiment) -> pd.DataFrame:
    """One row for each run of a complete budget: `schemas.BUDGETS`. A run that diverged counts as chance level."""
    rows = []
    chance = chance_pct(found.protocol.data["dataset"]["label"])
    for planned in found.state.planned:
        config = planned.config
        if planned.part == BUDGET and config.epochs in found.complete_epochs:
            run = found.state.kept[planned.id].run
            rows.append(
                {
                    "network": found.protocol.networks[planned.network], "epochs": config.epochs, "seed": config.seed,
                    "lr": config.lr, "test_error_pct": run.test_error_pct if run else chance,
                    "training_macs": 3 * count(captured(config.spec), "macs") * config.steps * config.batch_size,
                    "elapsed_s": run.elapsed_s if run else float("nan"),
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=schemas.BUDGETS.names)


def comparisons(found: Experiment, budgets: pd.DataFrame) -> dict[int, tuple[Comparison, ...]]:
    """Epochs -> the comparisons at that budget, by the protocol's model."""
    asked, chance = found.protocol.data["comparisons"], chance_pct(found.protocol.data["dataset"]["label"])
    first, others = (found.protocol.networks[asked["first"]], [found.protocol.networks[s] for s in asked["minus"]])
    wide = budgets.pivot_table(index=["epochs", "seed"], columns="network", values="test_error_pct")
    return {
        epochs: compare_networks(wide.loc[epochs, [first, *others]].to_dict(), first, chance=chance)
        for epochs in found.complete_epochs
    }


def slope(found: Experiment, budgets: pd.DataFrame) -> tuple[float, ...]:
    """The slope of the primary difference over log2 of the epochs, by seed; empty before all budgets are complete."""
    asked = found.protocol.data["comparisons"]
    if found.complete_epochs != found.protocol.data["budgets"]["epochs"] or len(found.complete_epochs) < 2:
        return ()
    first, other = (found.protocol.networks[name] for name in (asked["first"], asked["primary"]["minus"]))
    wide = budgets.pivot_table(index="epochs", columns=["network", "seed"], values="test_error_pct")
    difference = wide[first] - wide[other]
    return tuple(np.polyfit(np.log2(difference.index), difference.to_numpy(), 1)[0])


def progress_words(found: Experiment) -> str:
    """How many runs are kept, and which budgets are complete."""
    state, data = found.state, found.protocol.data
    kept = len(state.planned) - len(state.missing)
    words = f"{kept} of the protocol's {found.protocol.n_runs} runs are kept; they were made on {found.device}."
    if state.others:
        words += f" {len(state.others)} more are of another version of the protocol or of training, and not counted."
    if not state.rates:
        n = len(state.errors(SWEEP))
        return (
            f"{words} The sweep of learning rates has {n} of its {len(found.protocol.sweep)} runs; no rate is chosen."
        )
    open_ = [e for e in data["budgets"]["epochs"] if e not in found.complete_epochs]
    for epochs in open_:
        words += f" {_seeds_words(found, epochs)}, so nothing is compared yet."
    return words


def sweep_words(found: Experiment) -> str:
    """The chosen rates, the spread of a run, and the difference that the budgets can detect."""
    swept = sweep_of(found.state)
    if swept is None:
        return ""
    names = found.protocol.networks
    rates = listed(f"{display_name(names[short])} {lr:g}" for short, lr in swept.rates.items())
    edge = (
        f" At the edge of the grid: {listed(display_name(names[s]) for s in swept.at_edge)}." if swept.at_edge else ""
    )
    time = "is" if swept.equal_time else "is not"
    return (
        f"Learning rates: {rates}.{edge} The residual standard deviation of a run is {swept.sd_points:.2f} points "
        f"({swept.df} degrees of freedom), so eight seeds detect a difference of {swept.detectable_points:.2f} points "
        f"with a power of 80 %. {display_name(names['resnet74'])} {time} also the twin of equal training time: "
        f"{swept.images_per_s['resnet74'] / swept.images_per_s['attention56']:.2f} of the images per second."
    )


def outcome_words(found: Experiment, budgets: pd.DataFrame) -> str:
    """The primary comparison, the secondary ones and the slope; empty if no budget is complete."""
    data, sentences = found.protocol.data, []
    primary = data["comparisons"]["primary"]
    for epochs, rows in comparisons(found, budgets).items():
        for c in rows:
            is_primary = (c.network, epochs) == (found.protocol.networks[primary["minus"]], primary["epochs"])
            kind = "Primary comparison" if is_primary else "Secondary"
            ends = f"95 % simultaneous interval {c.low:+.2f} to {c.high:+.2f}" if c.low is not None else ""
            where = f" ({ends}, adjusted p = {c.p_value:.2g})" if ends else ""
            verdict = f"the error is {c.order}" if c.order else "no difference is shown"
            note = f"no order is claimed, because {c.note}" if c.note else verdict
            sentences.append(
                f"{kind}, {counted(epochs, 'epoch')}: {display_name(c.reference)} minus {display_name(c.network)} is "
                f"{signed(c.mean)} points{where}: {note}. {c.equivalence(EQUAL_POINTS)}"
            )
    if slopes := slope(found, budgets):
        sentences.append(slope_words(slopes))
    return "\n\n".join(sentences)


def slope_words(slopes: Sequence[float]) -> str:
    """The change of the primary difference with the budget."""
    mean = mean_interval(slopes)
    where = f" ({mean.low:+.2f} to {mean.high:+.2f})" if mean.low is not None else ""
    return f"The primary difference changes by {mean.mean:+.2f} points with each doubling{where}."


# -- masks replaced in the runs beside the protocol


def replaced_masks(folder: Path | str = RESULTS) -> pd.DataFrame:
    """The interventions on the runs kept beside the protocol: `schemas.INTERVENTIONS`, empty if there are none.

    Raises: TableError for a table that does not agree with its schema.
    """
    path = Path(folder, TRAINED, EXTRA, schemas.INTERVENTIONS.file)
    if not path.exists():
        return pd.DataFrame(columns=schemas.INTERVENTIONS.names)
    return read_table(path, schemas.INTERVENTIONS)


def replaced_summary(replaced: pd.DataFrame, folder: Path | str = RESULTS) -> pd.DataFrame:
    """Means over the seeds, and the epochs of the runs: `schemas.REPLACED_MASKS`. Raises: FrameError, TableError."""
    if replaced.empty:
        return pd.DataFrame(columns=schemas.REPLACED_MASKS.names)
    epochs = run_frame(Path(folder, EXTRA)).groupby("network")["epochs"].first()
    means = intervention_summary(replaced)
    return means.assign(epochs=means["network"].map(epochs))


# -- what was expected

TEXT = PROTOCOL.with_suffix(".md")
EXPECTED_TITLE = "What was expected before"


def expected_frame(found: Experiment, budgets: pd.DataFrame, text: Path = TEXT) -> pd.DataFrame:
    """The protocol's expectations from before the first run, beside the results: `schemas.EXPECTED`.

    `text`: the protocol, whose list of expectations is in the order of `OUTCOMES`. Raises: FrameError.
    """
    words = text.read_text(encoding="utf-8").partition(f"## {EXPECTED_TITLE}\n")[2].partition("\n## ")[0]
    expected = re.findall(r"^- (.+)$", words, re.MULTILINE)
    if len(expected) != len(OUTCOMES):
        raise FrameError(f"{text.name} lists {len(expected)} expectations, {len(OUTCOMES)} outcomes are known")
    rows = [(said.replace("`", ""), outcome(found, budgets)) for said, outcome in zip(expected, OUTCOMES, strict=True)]
    return pd.DataFrame(rows, columns=schemas.EXPECTED.names)


def _against(other: str, every_budget: bool) -> Callable[[Experiment, pd.DataFrame], str]:
    """The first network minus another, at every budget or at the largest."""

    def outcome(found: Experiment, budgets: pd.DataFrame) -> str:
        epochs = found.protocol.data["budgets"]["epochs"]
        network, compared = found.protocol.networks[other], comparisons(found, budgets)
        words = []
        for n in epochs if every_budget else epochs[-1:]:
            if n not in compared:
                words.append(_seeds_words(found, n))
                continue
            c = next(c for c in compared[n] if c.network == network)
            ends = f" ({c.low:+.2f} to {c.high:+.2f})" if c.low is not None else f" ({c.note})"
            words.append(f"{counted(n, 'epoch')}: {signed(c.mean)} points{ends}")
        return "; ".join(words) + "."

    return outcome


def _shrinks(found: Experiment, budgets: pd.DataFrame) -> str:
    if not (slopes := slope(found, budgets)):
        open_ = [n for n in found.protocol.data["budgets"]["epochs"] if n not in found.complete_epochs]
        return "; ".join(_seeds_words(found, n) for n in open_) + "."
    return slope_words(slopes)


def _rates(found: Experiment, budgets: pd.DataFrame) -> str:
    names, rates = found.protocol.networks, found.state.rates
    if not rates:
        return f"{len(found.state.errors(SWEEP))} of {len(found.protocol.sweep)} runs of the sweep are kept."
    least, most = min(rates.values()), max(rates.values())
    ends = f"All are {least:g}" if least == most else f"They lie between {least:g} and {most:g}"
    first, other = (found.protocol.data["comparisons"][key] for key in ("first", "primary"))
    order = "is not lower than" if rates[first] >= rates[other["minus"]] else "is lower than"
    edge = f" {most:g} is the edge of the grid." if most == max(found.protocol.data["sweep"]["lr"]) else ""
    return f"{ends}; that of {display_name(names[first])} {order} that of {display_name(names[other['minus']])}.{edge}"


# In the order of the protocol's list.
OUTCOMES: tuple[Callable[[Experiment, pd.DataFrame], str], ...] = (
    _against("constant", every_budget=True), _against("resnet83", every_budget=False), _shrinks, _rates,
)  # fmt: skip


def _seeds_words(found: Experiment, epochs: int) -> str:
    """How many seeds of a budget all networks have, where it is not complete."""
    runs, names = found.state.errors(BUDGET, epochs), found.protocol.networks
    n = len(set.intersection(*({seed for name, _, seed in runs if name == short} for short in names)))
    return f"{counted(epochs, 'epoch')}: {n} of {len(found.protocol.data['budgets']['seeds'])} seeds are complete"


EQUAL_POINTS = 0.5  # the margin of equivalence that the protocol states
