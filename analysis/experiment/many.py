"""Many runs of the protocol side by side on one GPU: configs, images and records of the loop; torch and numpy alone.

First it compares its first steps with the CPU's and measures its throughput; then it decides how many whole epochs fit
the time, and only then the first run starts. Finished runs are written as they finish.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from analysis.experiment.protocol import (
    ACCELERATOR,
    BUDGET,
    EXTRA,
    RESULTS,
    RUNS,
    SWEEP,
    Planned,
    Protocol,
    ProtocolError,
    State,
    bf16_weights,
    extra_runs,
    keeps_weights,
    read_protocol,
    state_of,
)
from analysis.experiment.trainee import Trainee, restart_all, start_all
from resattn.training import data
from resattn.training.config import TrainConfig
from resattn.training.data import Dataset, Feed
from resattn.training.kept import keep, keep_diverged
from resattn.training.run import Run, TrainError, device_name, peak_memory_bytes, weights_digest, write_whole

LEAST_TORCH = (2, 8)
LEAST_CAPABILITY = (8, 0)  # bf16
BYTES_PER_RUN, BYTES_SHARED = 2**30, 4 * 2**30
STREAMS, ONE_STREAM, EAGER = "graphs on their own streams", "graphs on one stream", "no graphs"
AGREEMENT_STEPS = 4
# Relative difference of the first loss, of any of the first losses; least cosine between the changes of all weights.
# At their first steps these networks amplify a rounding error some 10^5 times in four steps: two processors give losses
# that differ by 1 % in float32. So the steps themselves are compared in float64, and in the other precisions the first
# loss, which no step has moved yet; the others are to be of the same size.
TOLERANCE = {"fp64": (1e-12, 1e-6, 0.999999), "fp32": (1e-5, 5e-2, -1.0), "bf16": (1e-2, 5e-2, -1.0)}
MEASURE_S = 2.5
SHARE_USED = 0.9  # of the time that is left when the number of epochs is decided
BLOCK = 50  # steps that are queued at a time


class ManyError(TrainError):
    """A machine on which these runs cannot be made, or steps that do not agree with the CPU's."""


@dataclass
class Session:
    """What one call has measured and decided; written to summary.json as it goes."""

    out: Path
    minutes: float
    say: Callable[[str], None]
    start: float = field(default_factory=time.monotonic)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.start

    @property
    def left_s(self) -> float:
        return 60 * self.minutes - self.elapsed_s

    def note(self, line: str, **values: Any) -> None:
        self.say(f"[{self.elapsed_s:6.1f} s] {line}")
        self.summary |= values
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(self.out / "summary.json", json.dumps(self.summary, indent=1).encode() + b"\n")


def moved(feed: Feed, device: torch.device) -> Feed:
    """The same feed on another device."""
    names = ("padded", "labels", "test", "test_labels", "mean")
    return replace(feed, **{name: getattr(feed, name).to(device) for name in names})


# ---- the machine


def check_machine(device: torch.device, side_by_side: int) -> None:
    """Raises: ManyError for a torch that is too old or a GPU that is too small, before data are loaded."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < LEAST_TORCH:
        raise ManyError(f"torch {torch.__version__} is too old: at least {'.'.join(map(str, LEAST_TORCH))} is needed")
    if device.type != "cuda":
        return
    if not torch.cuda.is_available():
        raise ManyError("torch finds no CUDA device here (--device cpu trains one run after the other)")
    found = torch.cuda.get_device_properties(device)
    if (found.major, found.minor) < LEAST_CAPABILITY:
        raise ManyError(
            f"{found.name} has compute capability {found.major}.{found.minor}, without bf16: "
            f"at least {'.'.join(map(str, LEAST_CAPABILITY))} is needed"
        )
    needed = BYTES_SHARED + side_by_side * BYTES_PER_RUN
    if found.total_memory < needed:
        raise ManyError(
            f"{found.name} has {found.total_memory / 2**30:.0f} GiB of memory, {side_by_side} runs side by side need "
            f"{needed / 2**30:.0f} GiB (give fewer --seeds)"
        )


@contextmanager
def _convolutions(*, search: bool, tf32: bool) -> Iterator[None]:
    """Whether cuDNN searches for the fastest kernels, and whether float32 products may be those of TF32."""
    settings = torch.backends.cudnn
    before = settings.benchmark, settings.allow_tf32
    settings.benchmark, settings.allow_tf32 = search, tf32
    try:
        yield
    finally:
        settings.benchmark, settings.allow_tf32 = before


# ---- agreement with the CPU


def agreement(config: TrainConfig, feeds: Mapping[torch.device, Feed], precision: str, graphed: bool) -> dict[str, Any]:
    """The first steps of a run on two devices, of which the first is the CPU, where they are the loop's, bit for bit.

    Losses of each, the largest relative difference of a loss, and the cosine between the changes of all weights.
    """
    seen = []
    config = replace(config, precision="bf16" if precision == "bf16" else "fp32")
    for device, feed in feeds.items():
        run = Trainee(config, feed, device, torch.float64 if precision == "fp64" else torch.float32)
        if run.is_cuda and graphed:
            run.capture(torch.cuda.Stream())
        restart_all([run], [config], feed)
        before = torch.cat([p.detach().cpu().flatten() for p in run.masters])
        images = run.batch()[0].cpu()
        rounds_of_steps([run], AGREEMENT_STEPS, STREAMS if graphed else EAGER)
        after = torch.cat([p.detach().cpu().flatten() for p in run.masters])
        seen.append((images, run.losses[:AGREEMENT_STEPS].tolist(), (after - before).double()))
    (images, losses, change), (our_images, our_losses, our_change) = seen[0], seen[-1]
    differences = [abs(a - b) / abs(b) for a, b in zip(our_losses, losses, strict=True)]
    cosine = torch.nn.functional.cosine_similarity(our_change, change, dim=0).item()
    first, worst, least = TOLERANCE[precision]
    return {
        "precision": precision,
        "same_images": bool(torch.allclose(our_images, images, rtol=0, atol=1e-5)),
        "cpu_losses": losses,
        "losses": our_losses,
        "first_relative_difference": differences[0],
        "largest_relative_difference": max(differences),
        "cosine_of_changes": cosine,
        "agrees": differences[0] <= first and max(differences) <= worst and cosine >= least,
    }


# ---- throughput


def rounds_of_steps(runs: Sequence[Trainee], steps: int, how: str) -> None:
    """That many steps of every run, queued in turns, with at most two blocks ahead of the device."""
    one = torch.cuda.current_stream() if how == ONE_STREAM else None
    marks: list[list[torch.cuda.Event]] = []
    for first in range(0, steps, BLOCK):
        for _ in range(min(BLOCK, steps - first)):
            for run in runs:
                run.step(one)
        if how != EAGER:
            marks.append([(one or run.stream or torch.cuda.current_stream()).record_event() for run in runs])
            for mark in marks.pop(0) if len(marks) > 1 else ():
                mark.synchronize()
    if runs[0].is_cuda:
        torch.cuda.synchronize()


def throughput(runs: Sequence[Trainee], how: str, seconds: float = MEASURE_S) -> float:
    """Training images per second of all these runs together. They must be restarted afterwards."""
    graphs = [run.graph for run in runs]
    batch, most = runs[0].config.batch_size, runs[0].config.steps_in(0)
    try:
        if how == EAGER:
            for run in runs:
                run.graph = None
        start_all(runs, 0)
        rounds_of_steps(runs, min(3, most), how)
        start, n = time.monotonic(), 0
        while time.monotonic() - start < seconds and n < most - 3:
            steps = min(20, most - 3 - n)
            rounds_of_steps(runs, steps, how)
            n += steps
        return n * batch * len(runs) / (time.monotonic() - start)
    finally:
        for run, graph in zip(runs, graphs, strict=True):
            run.graph = graph


# ---- the runs


@dataclass(frozen=True)
class Plan:
    """Networks by short name, the rate of each with where it comes from, and the seeds."""

    networks: dict[str, str]
    rates: dict[str, float]
    rate_from: str
    seeds: tuple[int, ...]

    def block(self, protocol: Protocol, seeds: Sequence[int], **settings: Any) -> list[Planned]:
        """The runs of some seeds, seeds outermost."""
        runs = []
        for seed in seeds:
            for short, name in self.networks.items():
                config = protocol.config(name, lr=self.rates[short], seed=seed, **settings)
                label = f"{ACCELERATOR}-{short}-e{config.epochs}-s{seed}"
                label = protocol.run_id(label, config)
                runs.append(Planned(id=label, part=ACCELERATOR, network=short, config=config))
        return runs


def plan_of(protocol: Protocol, results: Path, lr: float | None, n_seeds: int | None) -> Plan:
    """The rate is the given one, else that of the sweep where it is complete, else the protocol's."""
    part = protocol.data["accelerator"]
    networks = dict(part["networks"])
    sweep = state_of(results / RUNS, protocol).rates
    if lr is not None:
        rates, source = dict.fromkeys(networks, lr), "given"
    elif sweep:
        rates, source = {short: sweep[short] for short in networks}, "sweep at width 8"
    else:
        rates, source = dict.fromkeys(networks, float(part["lr"])), "stated in the protocol, no sweep yet"
    return Plan(networks, rates, source, tuple(part["seeds"][:n_seeds]))


def run_many(
    *,
    out: Path,
    minutes: float,
    device: torch.device,
    protocol: Protocol,
    dataset: Callable[[], Dataset],
    lr: float | None = None,
    n_seeds: int | None = None,
    epochs: int | None = None,
    how: str | None = None,
    force: bool = False,
    code: str | None = None,
    check_only: bool = False,
    results: Path = RESULTS,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> int:
    """Agreement, throughput, then the runs; the number of runs that were finished and kept.

    Raises: ManyError, ProtocolError before data are loaded where the machine or the words are not fit.
    """
    session = Session(out, minutes, say)
    plan = plan_of(protocol, results, lr, n_seeds)
    check_machine(device, len(plan.networks) * len(plan.seeds))
    wanted = protocol.data["dataset"]
    found = dataset()
    if found.digest != wanted["sha256"]:
        raise ProtocolError(f"the protocol is about {wanted['label']}, sha256 {wanted['sha256'][:12]}; found {found}")
    session.note(
        f"{device_name(device)}, torch {torch.__version__}, {found.label}; rates {plan.rates} ({plan.rate_from})",
        device=device_name(device), torch=torch.__version__, cuda=torch.version.cuda, dataset=found.label,
        cudnn=torch.backends.cudnn.version() if device.type == "cuda" else None, protocol=protocol.digest,
        rates=plan.rates, rate_from=plan.rate_from,
    )  # fmt: skip
    settings = {**_execution(device), "epochs": 1}
    first_block = plan.block(protocol, plan.seeds[:1], **settings)
    on_cpu = data.prepare(found, first_block[0].config)
    feed = moved(on_cpu, device)
    with _convolutions(search=True, tf32=True) if device.type == "cuda" else nullcontext():
        checks = _check_agreement(session, first_block, {torch.device("cpu"): on_cpu, device: feed}, how)
        if check_only:
            return 0
        if not (force or all(check["agrees"] and check["same_images"] for check in checks)):
            raise ManyError("the first steps do not agree with the CPU's; nothing was trained (--force trains anyway)")
        block = plan.block(protocol, plan.seeds, **settings)
        runs, how, n_side = _measure(session, block, feed, device, how, len(plan.networks))
        chosen, seeds = _decide(session, plan, runs[:n_side], epochs, how)
        about = {"rate_from": plan.rate_from}
        context = _Context(session, out, protocol, found, feed, device, how, code, about)
        kept = 0
        per_round = n_side // len(plan.networks)
        for first in range(0, len(seeds), per_round):
            part = plan.block(protocol, seeds[first : first + per_round], **(settings | {"epochs": chosen}))
            kept += _train_block(context, part, runs)
    session.note(f"done: {kept} runs kept", kept=kept, elapsed_s=session.elapsed_s)
    return kept


def _check_agreement(
    session: Session, block: Sequence[Planned], feeds: Mapping[torch.device, Feed], how: str | None,
    precisions: Sequence[str] = tuple(TOLERANCE),
) -> list[dict[str, Any]]:  # fmt: skip
    checks = []
    is_cuda = any(device.type == "cuda" for device in feeds)

    def exact() -> AbstractContextManager[None]:
        return _convolutions(search=False, tf32=False) if is_cuda else nullcontext()

    for short, config in ((planned.network, planned.config) for planned in block):
        for precision in precisions:
            graphed = is_cuda and how != EAGER
            try:
                with exact() if precision != "bf16" else nullcontext():
                    check = agreement(config, feeds, precision, graphed)
            except RuntimeError as error:
                if not graphed:
                    raise
                session.note(f"{short}: the step is not captured as a graph: {_first_line(error)}")
                graphed = False
                with exact() if precision != "bf16" else nullcontext():
                    check = agreement(config, feeds, precision, graphed)
            checks.append({"network": short, "graph": graphed, **check})
            session.note(
                f"{short} {precision}: the first loss differs by {check['first_relative_difference']:.1e}, the first "
                f"{AGREEMENT_STEPS} by {check['largest_relative_difference']:.1e} at most, cosine of the changes of "
                f"the weights {check['cosine_of_changes']:.6f}, "
                f"{'the same images' if check['same_images'] else 'OTHER IMAGES'}: "
                f"{'agrees' if check['agrees'] else 'DOES NOT AGREE'}",
                agreement=checks,
            )
    return checks


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _measure(
    session: Session, block: Sequence[Planned], feed: Feed, device: torch.device, how: str | None, n_networks: int,
) -> tuple[list[Trainee], str, int]:  # fmt: skip
    """The runs, captured where that works; which way is fastest; and how many are best side by side."""
    runs = [Trainee(planned.config, feed, device) for planned in block]
    measured: dict[str, float] = {}

    def measure(way: str, n: int) -> None:
        try:
            speed = throughput(runs[:n], way)
        except RuntimeError as error:
            session.note(f"{way}, {n} runs: failed: {_first_line(error)}")
            return
        measured[f"{way}: {n}"] = speed
        session.note(f"{way}, {n} runs: {speed:,.0f} images/s", images_per_s=dict(measured))

    ways: list[tuple[str, int]] = []
    if device.type == "cuda" and how != EAGER:
        try:
            for run in runs:
                run.capture(torch.cuda.Stream())
            session.note(f"{len(runs)} graphs captured, {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB reserved")
            halves = sorted({n for n in (len(runs), len(runs) // 2, len(runs) // 4) if n and n % n_networks == 0})
            ways = [(STREAMS, n) for n in reversed(halves)] + [(ONE_STREAM, n_networks)]
        except RuntimeError as error:
            session.note(f"graphs cannot be captured: {_first_line(error)}")
            for run in runs:
                run.graph = run.stream = None
    if how is not None:
        ways = [way for way in ways if way[0] == how]
    for way, n in ways or [(EAGER, n_networks)]:
        measure(way, n)
    if ways and how is None:
        measure(EAGER, n_networks)  # for the record
    if not measured:
        raise ManyError("no way of running the steps works here")
    # Fewer side by side finish earlier: more only where it pays.
    best = max(measured.values())
    way, n = min(
        ((key.rpartition(": ")[0], int(key.rpartition(": ")[2])) for key, v in measured.items() if v >= 0.95 * best),
        key=lambda pair: pair[1],
    )
    if way == EAGER:
        for run in runs:
            run.graph = run.stream = None
    session.note(f"chosen: {way}, {n} runs side by side", how=way, side_by_side=n, best_images_per_s=best)
    return runs, way, n


def _decide(
    session: Session, plan: Plan, runs: Sequence[Trainee], epochs: int | None, how: str
) -> tuple[int, tuple[int, ...]]:
    """How many whole epochs, and of which seeds: all of them if one epoch fits, else as many as do."""
    for run in runs[: len(plan.networks)]:
        run.test()  # the first time searches for convolutions
    start = time.monotonic()
    for run in runs[: len(plan.networks)]:
        run.test()
    test_s = (time.monotonic() - start) / len(plan.networks)
    config = runs[0].config
    speed = session.summary["images_per_s"][f"{how}: {len(runs)}"]
    epoch_s = config.steps_per_epoch * config.batch_size / speed + test_s + 0.05  # of one run; its share of the device
    left = SHARE_USED * session.left_s
    per_seed = epoch_s * len(plan.networks)
    seeds = plan.seeds
    if epochs is None:
        epochs = int(left / (per_seed * len(seeds)))
        if epochs < 1:
            epochs, seeds = 1, seeds[: int(left / per_seed)]
    if not seeds:
        raise ManyError(
            f"{session.left_s:.0f} s are left, one epoch of one seed takes {per_seed:.0f} s: give more --minutes"
        )
    session.note(
        f"{session.left_s:.0f} s left, one epoch of one run takes {epoch_s:.2f} s of the device: "
        f"{epochs} epochs of {len(seeds)} seeds, expected {epoch_s * epochs * len(seeds) * len(plan.networks):.0f} s",
        epochs=epochs, seeds=list(seeds), test_s=test_s,
    )  # fmt: skip
    return epochs, seeds


@dataclass(frozen=True)
class _Context:
    """What the runs of a block share. `folder`: where finished ones appear."""

    session: Session
    folder: Path
    protocol: Protocol
    dataset: Dataset
    feed: Feed
    device: torch.device
    how: str
    code: str | None
    about: Mapping[str, Any] = field(default_factory=dict)


def _train_block(context: _Context, block: Sequence[Planned], trainees: Sequence[Trainee]) -> int:
    """Train runs of equal length side by side, on trainees of the same networks, and keep them; how many."""
    session, device = context.session, context.device
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    runs = list(trainees[: len(block)])
    restart_all(runs, [planned.config for planned in block], context.feed)
    rows: list[list[dict[str, Any]]] = [[] for _ in runs]
    timing: list[list[dict[str, Any]]] = [[] for _ in runs]
    bits = [b""] * len(runs)
    config = block[0].config
    for epoch in range(config.epochs):
        start = time.perf_counter()
        start_all(runs, epoch)
        rounds_of_steps(runs, config.steps_in(epoch), context.how)
        train_s = time.perf_counter() - start
        step = epoch * config.steps_per_epoch + config.steps_in(epoch)
        for i, run in enumerate(runs):
            seen = run.training_row()
            tested, bits[i] = run.test()
            rows[i].append({"epoch": epoch + 1, "step": step, "lr": run.config.lr_at(step - 1), **seen, **tested})
        elapsed_s = time.perf_counter() - start
        for times in timing:
            times.append(
                {
                    "epoch": epoch + 1,
                    "train_s": train_s,
                    "images_per_s": config.steps_in(epoch) * config.batch_size / train_s,
                    "elapsed_s": elapsed_s,
                    "peak_memory_bytes": peak_memory_bytes(device),
                }
            )
        # Of the training images alone: no comparison is looked at before it is complete.
        session.note(
            f"epoch {epoch + 1}/{config.epochs} of {len(runs)} runs ({block[0].id} ...): {train_s:.1f} s, "
            f"{len(runs) * config.steps_in(epoch) * config.batch_size / train_s:,.0f} images/s; training loss "
            + ", ".join(f"{row[-1]['train_loss']:.3f}" for row in rows[:4])
        )
    for i, (run, planned) in enumerate(zip(runs, block, strict=True)):
        about = {
            "protocol": context.protocol.digest,
            "part": planned.part,
            "network": planned.network,
            "start": begun,
            "commit": context.code,
            "side_by_side": len(runs),
            **context.about,
        }
        first_bad = next((row for row in rows[i] if not _is_finite(row)), None)
        if first_bad is None:
            _keep(context, planned, run, rows[i], timing[i], bits[i], about)
        else:
            message = f"the loss is no finite number in epoch {first_bad['epoch']}"
            keep_diverged(context.folder / planned.id, planned.config, message, about)
            session.note(f"{planned.id}: diverged")
    return len(block)


def _is_finite(row: dict[str, Any]) -> bool:
    return all(abs(row[name]) < float("inf") for name in ("train_loss", "test_loss"))


def _keep(
    context: _Context, planned: Planned, trainee: Trainee, rows: list[dict[str, Any]], timing: list[dict[str, Any]],
    bits: bytes, about: Mapping[str, Any],
) -> None:  # fmt: skip
    dataset, network = context.dataset, trainee.finish()
    run = Run(
        config=trainee.config,
        dataset_label=dataset.label,
        dataset_note="",
        dataset_digest=dataset.digest,
        n_flipped_labels=0,
        rows=tuple(rows),
        timing=tuple(timing),
        weights_digest=weights_digest(network),
        execution={
            "device": device_name(context.device),
            "n_processes": 1,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "how": context.how,
        },
        out_dir=planned.id,
    )
    weights = bf16_weights(network) if keeps_weights(context.protocol, planned) else None
    keep(context.folder / planned.id, run, bits, about, weights=weights)


# ---- all runs of the protocol


def run_whole(
    *,
    out: Path,
    minutes: float,
    device: torch.device,
    protocol: Protocol,
    dataset: Callable[[], Dataset],
    also: Sequence[Mapping[str, Any]] = (),
    side_by_side: int = 16,
    force: bool = False,
    code: str | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> int:
    """The runs of the protocol that `out`/runs lacks, in blocks side by side; the number of those that were kept.

    The sweep goes network by network, so that each network's runs share the device with its own kind alone and their
    speeds compare. The budgets go seed by seed, as in the protocol; a block that would outlast `minutes` is not begun.
    `also` has runs beside the protocol, kept in `out`/extra: see `extra_runs`.

    Raises: ManyError, ProtocolError before data are loaded where the machine or the data are not fit.
    """
    session = Session(out, minutes, say)
    check_machine(device, side_by_side)
    found = dataset()
    if found.digest != protocol.data["dataset"]["sha256"]:
        raise ProtocolError(f"the protocol is about {protocol.data['dataset']['label']}; found {found}")
    session.note(
        f"{device_name(device)}, torch {torch.__version__}, {found.label}",
        device=device_name(device), torch=torch.__version__, cuda=torch.version.cuda, dataset=found.label,
        cudnn=torch.backends.cudnn.version() if device.type == "cuda" else None, protocol=protocol.digest,
    )  # fmt: skip
    is_cuda = device.type == "cuda"
    how, kept, speed = STREAMS if is_cuda else EAGER, 0, 0.0
    state = state_of(out / RUNS, protocol)
    with _convolutions(search=True, tf32=True) if is_cuda else nullcontext():
        first = [next(p for p in protocol.sweep if p.network == short) for short in protocol.networks]
        first = [replace(p, config=replace(p.config, **_execution(device))) for p in first]
        on_cpu = data.prepare(found, first[0].config)
        checks = _check_agreement(session, first, {torch.device("cpu"): on_cpu, device: moved(on_cpu, device)}, how,
                                  ("fp64",))  # fmt: skip
        if not (force or all(check["agrees"] and check["same_images"] for check in checks)):
            raise ManyError("the first steps do not agree with the CPU's; nothing was trained (--force trains anyway)")
        for part in (SWEEP, BUDGET, EXTRA):
            feed, trainees = None, {}
            for block in _blocks(state, part, side_by_side, extra_runs(protocol, also, state.rates, out / EXTRA)):
                block = [replace(p, config=replace(p.config, **_execution(device))) for p in block]
                config = block[0].config
                images = len(block) * config.steps * config.batch_size
                if speed and images / speed > session.left_s:
                    session.note(f"{session.left_s:.0f} s left: {block[0].id} and {len(block) - 1} others not begun")
                    break
                if feed is None:
                    feed = moved(data.prepare(found, config), device)
                names = tuple(p.config.spec.digest for p in block)
                if names not in trainees:
                    trainees[names] = _captured(block, feed, device)
                    session.note(f"{len(block)} steps captured")
                folder = out / (EXTRA if part == EXTRA else RUNS)
                context = _Context(session, folder, protocol, found, feed, device, how, code)
                start = time.monotonic()
                kept += _train_block(context, block, trainees[names])
                speed = images / (time.monotonic() - start)
            if part == SWEEP:
                state = state_of(out / RUNS, protocol)
                session.note("rates: " + (str(state.rates) if state.rates else "the sweep is not complete"))
    session.note(f"done: {kept} runs kept", kept=kept, elapsed_s=session.elapsed_s)
    return kept


def _execution(device: torch.device) -> dict[str, Any]:
    return {"accelerator": device.type, "threads": 0 if device.type == "cuda" else 1}


def _blocks(state: State, part: str, side_by_side: int, extra: Sequence[Planned]) -> Iterator[list[Planned]]:
    """Runs of equal length, at most `side_by_side` of them. The trainees of equal networks serve block after block."""
    planned = extra if part == EXTRA else [run for run in state.missing if run.part == part]
    n_seeds = max(1, side_by_side // len(state.protocol.networks))
    seeds = {seed: i // n_seeds for i, seed in enumerate(state.protocol.data["budgets"]["seeds"])}
    groups: dict[Any, list[Planned]] = {}
    for run in planned:
        block = seeds[run.config.seed] if part == BUDGET else run.network
        groups.setdefault((block, run.config.epochs), []).append(run)
    yield from groups.values()


def _captured(block: Sequence[Planned], feed: Feed, device: torch.device) -> list[Trainee]:
    runs = [Trainee(planned.config, feed, device) for planned in block]
    if device.type == "cuda":
        for run in runs:
            run.capture(torch.cuda.Stream())
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m analysis.experiment.many", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything, the start of this program included")
    parser.add_argument("--out", type=Path, default=RESULTS / ACCELERATOR, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--lr", type=float, help="for every network, instead of the sweep's or the protocol's")
    parser.add_argument("--seeds", type=int, metavar="N", help="the first N seeds of the protocol; default: all")
    parser.add_argument("--epochs", type=int, help="instead of as many as fit the time")
    parser.add_argument("--how", choices=("streams", "one-stream", "eager"), help="default: what measures best")
    parser.add_argument("--force", action="store_true", help="train although the first steps do not agree")
    parser.add_argument(
        "--check", action="store_true", help="compare the first steps with the CPU's, and train nothing"
    )
    parser.add_argument(
        "--whole", action="store_true", help="make the missing runs of the protocol (width 8) in DIR/runs, not width 16"
    )
    parser.add_argument(
        "--also", type=Path, metavar="FILE", help="with --whole: also make the runs of this JSON file, in DIR/extra"
    )
    parser.add_argument("--code", metavar="COMMIT", help="of this code, for the records")
    parser.add_argument("--protocol", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    # Hardware queues between the program and the device: each stream can have its own. Read when CUDA starts.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    ways = {"streams": STREAMS, "one-stream": ONE_STREAM, "eager": EAGER, None: None}
    try:
        protocol = read_protocol(args.protocol)
        common: dict[str, Any] = {
            "out": args.out, "minutes": args.minutes, "device": torch.device(args.device), "protocol": protocol,
            "dataset": lambda: data.load(protocol.data["dataset"]["name"]), "force": args.force, "code": args.code,
        }  # fmt: skip
        if args.whole:
            also = json.loads(args.also.read_text(encoding="utf-8")) if args.also else ()
            kept = run_whole(**common, also=also)
        else:
            kept = run_many(
                **common, lr=args.lr, n_seeds=args.seeds, epochs=args.epochs, how=ways[args.how], check_only=args.check
            )
    except (TrainError, ProtocolError, data.DataError) as error:
        print(f"many: {error}", file=sys.stderr)
        return 2 if isinstance(error, ProtocolError) else 1
    return 0 if kept or args.check else 1


if __name__ == "__main__":
    sys.exit(main())
