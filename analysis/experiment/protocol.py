"""The experiment with a protocol fixed in advance: its runs, those that are kept, and how missing ones are made.

What is left to do follows from the protocol file and the kept runs alone, so that a batch can be stopped and resumed at
any time. Every kept run records the digest of the protocol file.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from resattn.networks.catalog import named
from resattn.training.config import ConfigError, TrainConfig

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "docs" / "protocol.json"
RESULTS = ROOT / "results" / "protocol"
RUNS, WORK, ACCELERATOR, EXTRA, WHOLE, TRAINED = "runs", ".work", "accelerator", "extra", "whole", "trained"
SWEEP, BUDGET = "sweep", "budget"
WAIT_S = 5.0


class ProtocolError(ValueError):
    """An invalid protocol, or data other than those of the protocol."""

    is_usage = True


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One run of the protocol. `network`: its short name there; `part`: sweep or budget."""

    id: str
    part: str
    network: str
    config: TrainConfig


@dataclass(frozen=True)
class Protocol:
    """The protocol as data, and the sha256 of its file."""

    data: Mapping[str, Any]
    digest: str

    @property
    def networks(self) -> dict[str, str]:
        return dict(self.data["networks"])

    def config(self, network: str, *, lr: float, seed: int, **changes: Any) -> TrainConfig:
        """The config of a run with the protocol's recipe; `network` is a full name."""
        recipe = {"dataset": self.data["dataset"]["name"], **self.data["recipe"], "accelerator": "cpu", "threads": 1}
        return TrainConfig(**{"spec": named(network), "lr": lr, "seed": seed, **recipe, **changes})

    def run_id(self, name: str, config: TrainConfig) -> str:
        from resattn.training.kept import run_id

        return run_id(name, config, self.data["dataset"]["sha256"], self.digest)

    @cached_property
    def sweep(self) -> tuple[Planned, ...]:
        """The runs of the sweep: seeds in the outer loop, rates in the inner one."""
        part = self.data["sweep"]
        size = {key: part[key] for key in ("holdout", "epochs", "presentations")}
        return tuple(
            self._planned(SWEEP, f"{SWEEP}-{short}-lr{lr:g}-s{seed}", short, lr=lr, seed=seed, **size)
            for seed in part["seeds"]
            for lr in part["lr"]
            for short in self.networks
        )

    def budgets(self, rates: Mapping[str, float]) -> tuple[Planned, ...]:
        """The runs of the budgets: seeds in the outer loop, so that a stopped batch has complete blocks."""
        part = self.data["budgets"]
        return tuple(
            self._planned(BUDGET, f"{BUDGET}-{short}-e{epochs}-s{seed}", short, lr=lr, seed=seed, epochs=epochs)
            for seed in part["seeds"]
            for epochs in part["epochs"]
            for short, lr in ((short, rates[short]) for short in self.networks)
        )

    @property
    def n_runs(self) -> int:
        part = self.data["budgets"]
        return len(self.sweep) + len(part["seeds"]) * len(part["epochs"]) * len(self.networks)

    def _planned(self, part: str, name: str, short: str, **settings: Any) -> Planned:
        config = self.config(self.networks[short], **settings)
        return Planned(id=self.run_id(name, config), part=part, network=short, config=config)


def extra_runs(
    protocol: Protocol, rows: Sequence[Mapping[str, Any]], rates: Mapping[str, float], kept: Path
) -> list[Planned]:
    """Runs beside the protocol, with its recipe, that a folder of kept runs does not hold yet.

    A row has the keys network (its short name), spec, epochs, seeds, and lr: a number, or the short name of the network
    of the protocol whose rate it uses; such a row waits for the sweep.

    Raises: ProtocolError for an invalid row.
    """
    runs = []
    for row in rows:
        try:
            lr: float = row["lr"] if row["lr"] not in protocol.networks else rates.get(row["lr"], 0.0)
            for seed in row["seeds"] if lr else ():
                config = protocol.config(row["spec"], lr=lr, seed=seed, epochs=row["epochs"])
                name = protocol.run_id(f"{EXTRA}-{row['network']}-e{config.epochs}-s{seed}", config)
                runs.append(Planned(id=name, part=EXTRA, network=row["network"], config=config))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"no run beside the protocol: {row} ({error!r})") from error
    runs.sort(key=lambda run: run.config.seed)  # whole blocks first, as in the protocol
    return [run for run in runs if not (kept / run.id).exists()]


def read_protocol(path: Path | None = None) -> Protocol:
    """The protocol in a file. Raises: ProtocolError."""
    path = path or PROTOCOL
    try:
        raw = path.read_bytes()
        protocol = Protocol(json.loads(raw), hashlib.sha256(raw).hexdigest())
        protocol.sweep  # noqa: B018  # every network and number is checked here
        protocol.budgets(dict.fromkeys(protocol.networks, 0.1))
    except FileNotFoundError:
        raise ProtocolError(f"{path}: no protocol; `study protocol` needs a clone of the repository") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"{path}: not readable as a protocol ({error})") from error
    return protocol


# ---- what is kept, and what follows from it


@dataclass(frozen=True, kw_only=True)
class State:
    """The kept runs of this protocol by id, runs of other protocols, the chosen rates, and the missing runs.

    `rates` is empty until the sweep is complete; until then no runs of the budgets are planned.
    """

    protocol: Protocol
    kept: Mapping[str, Any]  # id -> Kept
    others: Sequence[Any]
    rates: Mapping[str, float]
    planned: tuple[Planned, ...]

    @property
    def missing(self) -> tuple[Planned, ...]:
        return tuple(run for run in self.planned if run.id not in self.kept)

    @property
    def is_complete(self) -> bool:
        return bool(self.rates) and not self.missing

    def errors(self, part: str, epochs: int | None = None) -> dict[tuple[str, float, int], float]:
        """(network, rate, seed) -> error of the last epoch in percent; nan where the run diverged."""
        return {
            (run.network, run.config.lr, run.config.seed): kept.run.test_error_pct if kept.run else float("nan")
            for run in self.planned
            if run.part == part and (epochs is None or run.config.epochs == epochs)
            if (kept := self.kept.get(run.id))
        }


def state_of(folder: Path, protocol: Protocol, sweep: Path | None = None) -> State:
    """The state of the kept runs in a folder. A run of another protocol or training version is listed but not counted.

    `sweep`: another folder whose complete sweep replaces this one's; the primary comparison's budget is then first.

    Raises: KeptRunError for a damaged record.
    """
    from resattn.training.kept import read_all
    from resattn.training.record import TRAINING_VERSION

    kept, others = {}, []
    for run in read_all(folder):
        is_ours = (run.about.get("protocol"), run.about.get("training_version")) == (protocol.digest, TRAINING_VERSION)
        if is_ours:
            kept[run.id] = run
        else:
            others.append(run)
    swept = state_of(sweep, protocol) if sweep else None
    if swept and swept.rates:
        kept |= {run.id: swept.kept[run.id] for run in protocol.sweep}
    rates = chosen_rates(protocol, kept)
    budgets = protocol.budgets(rates) if rates else ()
    if swept and swept.rates:
        first = protocol.data["comparisons"]["primary"]["epochs"]
        budgets = tuple(sorted(budgets, key=lambda run: run.config.epochs != first))
    return State(protocol=protocol, kept=kept, others=others, rates=rates, planned=protocol.sweep + budgets)


def state_on_cpu(out: Path, protocol: Protocol) -> State:
    """The runs that were made on a CPU; their rates are those of an accelerator's sweep if it is complete."""
    return state_of(out / RUNS, protocol, out / WHOLE / RUNS)


def chosen_rates(protocol: Protocol, kept: Mapping[str, Any]) -> dict[str, float]:
    """The rate of each network by the protocol's rule; empty before the sweep is complete.

    Raises: ProtocolError if a network diverged at every rate.
    """
    if not all(run.id in kept for run in protocol.sweep):
        return {}
    rates = {}
    for short in protocol.networks:
        means = {}
        for lr in protocol.data["sweep"]["lr"]:
            runs = [kept[p.id].run for p in protocol.sweep if p.network == short and p.config.lr == lr]
            if all(runs):
                means[lr] = fmean(run.test_error_pct for run in runs)
        if not means:
            raise ProtocolError(f"{short} diverged at every rate of the sweep: there is no rate for its budgets")
        rates[short] = min(means, key=lambda lr: (means[lr], lr))
    return rates


# ---- making what is missing


def run_protocol(
    *,
    out: Path | None = None,
    cores: int = 1,
    dry_run: bool = False,
    protocol: Protocol | None = None,
    dataset: Any = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """Makes the missing runs of the protocol in its order, one for each core; 0 if all are kept.

    It resumes; several calls in one folder share the work. `protocol` and `dataset` are for tests.

    Raises: ProtocolError if the data are not those of the protocol; TrainError, KeptRunError.
    """
    out = out or RESULTS
    protocol = protocol or read_protocol()
    state = state_on_cpu(out, protocol)
    if dry_run:
        print(describe(state))
        return 0
    if cores < 1:
        raise ConfigError(f"the protocol needs at least 1 core, not {cores}")
    say(describe(state))
    for done in state.kept:  # killed between keeping a run and removing its checkpoint
        shutil.rmtree(out / WORK / done, ignore_errors=True)
    if state.is_complete:
        return 0
    command = [sys.executable, "-m", "analysis.experiment.protocol", str(out)]
    others = [subprocess.Popen(command) for _ in range(cores - 1)]
    try:
        dataset = dataset or _dataset(protocol)
        while not (state := state_on_cpu(out, protocol)).is_complete:
            if not _make_one(state, out, dataset, say):
                time.sleep(WAIT_S)  # others are at the rest
    finally:
        for other in others:
            other.terminate()
            other.wait()
    say(describe(state))
    return 0


def describe(state: State) -> str:
    """The progress of the experiment, without any comparison before it is complete."""
    data, n = state.protocol.data, len(state.planned) - len(state.missing)
    lines = [f"protocol {state.protocol.digest[:12]}: {n} of {state.protocol.n_runs} runs are kept"]
    if state.others:
        names = ", ".join(run.id for run in state.others)
        lines.append(f"of another protocol or training version, not counted: {names}")
    if state.rates:
        lines.append("rates: " + ", ".join(f"{short} {lr:g}" for short, lr in state.rates.items()))
    for epochs in data["budgets"]["epochs"] if state.rates else ():
        runs = state.errors(BUDGET, epochs)
        seeds = [len({seed for network, _, seed in runs if network == short}) for short in state.protocol.networks]
        lines.append(f"{epochs} x 50,000 presentations: {min(seeds)} of {len(data['budgets']['seeds'])} seeds complete")
    if state.missing:
        lines.append(f"next: {state.missing[0].id}")
    return "\n".join(lines)


def _dataset(protocol: Protocol) -> Any:
    from resattn.training import data

    wanted = protocol.data["dataset"]
    dataset = data.load(wanted["name"])
    if dataset.digest != wanted["sha256"]:
        raise ProtocolError(
            f"the protocol is about {wanted['label']}, sha256 {wanted['sha256'][:12]}; found {dataset.label}, "
            f"sha256 {dataset.digest[:12]} (RESATTN_DATA names the folder that is read)"
        )
    return dataset


def _make_one(state: State, out: Path, dataset: Any, say: Callable[[str], None]) -> bool:
    """Make the first missing run that no other process is making. False: there is none."""
    for planned in state.missing:
        with _claimed(out / WORK / f"{planned.id}.lock") as is_ours:
            if not is_ours:
                continue
            if not (out / RUNS / planned.id).exists():
                _make(state.protocol, planned, out, dataset, say)
            shutil.rmtree(out / WORK / planned.id, ignore_errors=True)
            return True
    return False


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone holds a lock, which the system frees when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _make(protocol: Protocol, planned: Planned, out: Path, dataset: Any, say: Callable[[str], None]) -> None:
    # Imported here: a machine that only reads the protocol need not have lightning-fabric.
    from resattn.training.checkpoint import CHECKPOINT, trained
    from resattn.training.kept import keep, keep_diverged
    from resattn.training.loop import train
    from resattn.training.record import CORRECT
    from resattn.training.run import DivergedError

    work = out / WORK / planned.id
    target = out / (EXTRA if planned.part == EXTRA else RUNS) / planned.id
    start, cpu_start = time.monotonic(), time.process_time()
    about: dict[str, Any] = {
        "protocol": protocol.digest,
        "part": planned.part,
        "network": planned.network,
        "start": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }
    resumed = (work / CHECKPOINT).exists()
    try:
        # Without its lines: they give test errors of runs that the protocol does not look at yet.
        run = train(planned.config, work, dataset=dataset, on_other="set aside", say=lambda line: None)
    except DivergedError as error:
        keep_diverged(target, planned.config, str(error).partition(": stopped")[0], about)
        say(f"{planned.id}: diverged")
        return
    # Of this process, so that other work on the machine is not in it; of the last part alone, where a run was resumed.
    about |= {"side_by_side": 1, "cpu_s": round(time.process_time() - cpu_start, 1), "resumed": resumed}
    weights = bf16_weights(trained(work)) if keeps_weights(protocol, planned) else None
    keep(target, run, (work / CORRECT).read_bytes(), about, weights=weights)
    say(f"{planned.id}: kept after {time.monotonic() - start:.0f} s, {run.images_per_s:.0f} images/s")


def keeps_weights(protocol: Protocol, planned: Planned) -> bool:
    part = protocol.data["weights"]
    is_asked = planned.config.epochs == part["epochs"] and planned.config.seed in part["seeds"]
    return planned.part == EXTRA or (planned.part == BUDGET and is_asked)


def bf16_weights(network: Any) -> bytes:
    import torch

    content = io.BytesIO()
    state = {k: v.bfloat16() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save(state, content)
    return content.getvalue()


def commit() -> str | None:
    """The commit of this checkout; None outside one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def run_extra(
    rows: Sequence[Mapping[str, Any]],
    *,
    out: Path | None = None,
    protocol: Protocol | None = None,
    dataset: Any = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Makes the runs beside the protocol (see `extra_runs`) that `out`/extra does not hold yet, one after the other.

    Raises: ProtocolError for an invalid row, or if the data are not those of the protocol.
    """
    out, protocol = out or RESULTS, protocol or read_protocol()
    missing = extra_runs(protocol, rows, state_on_cpu(out, protocol).rates, out / EXTRA)
    dataset = dataset or (_dataset(protocol) if missing else None)
    for planned in missing:
        with _claimed(out / WORK / f"{planned.id}.lock") as is_ours:
            if is_ours and not (out / EXTRA / planned.id).exists():
                _make(protocol, planned, out, dataset, say)
                shutil.rmtree(out / WORK / planned.id, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """A process of `run_protocol`, or the runs beside the protocol."""
    parser = argparse.ArgumentParser(prog="python3 -m analysis.experiment.protocol", description=main.__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--also", type=Path, metavar="FILE", help="make the runs of this JSON file alone")
    args = parser.parse_args(argv)
    if args.also:
        run_extra(json.loads(args.also.read_text(encoding="utf-8")), out=args.out)
        return 0
    return run_protocol(out=args.out)


if __name__ == "__main__":
    sys.exit(main())
