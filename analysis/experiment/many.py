"""Many runs of the protocol side by side on one GPU: configs, images and records of the loop; torch and numpy alone.

First it compares its first steps with the CPU's; only then the first run starts. Finished runs are written as they
finish, so a call that was stopped resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from analysis.experiment.agreement import TOLERANCE, check_agreement
from analysis.experiment.machine import ManyError, check_machine, convolutions, execution, moved
from analysis.experiment.protocol import (
    BUDGET,
    EXTRA,
    RESULTS,
    RUNS,
    SWEEP,
    WHOLE,
    Planned,
    Protocol,
    ProtocolError,
    State,
    extra_runs,
    read_protocol,
    state_of,
)
from analysis.experiment.side_by_side import EAGER, GRAPHS, Context, Session, train_block
from analysis.experiment.trainee import Trainee
from resattn.training import data
from resattn.training.data import Dataset, Feed
from resattn.training.run import TrainError, device_name


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
    check_only: bool = False,
    code: str | None = None,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> int:
    """Trains the runs of the protocol that `out`/runs does not hold yet, in parallel blocks; gives their number.

    The sweep goes network by network, so that runs of one network share the device and their speeds can be compared.
    Budgets go seed by seed, as in the protocol; a block that would take longer than `minutes` is not started. `also`:
    runs beside the protocol, written to `out`/extra: see `extra_runs`. `check_only`: only compare the first steps with
    the CPU's in every precision; train nothing.

    Raises: ManyError, ProtocolError, before data are loaded, if the machine or the data cannot be used.
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
    how, kept, speed = GRAPHS if is_cuda else EAGER, 0, 0.0
    state = state_of(out / RUNS, protocol)
    with convolutions(search=True, tf32=True) if is_cuda else nullcontext():
        first = [next(p for p in protocol.sweep if p.network == short) for short in protocol.networks]
        first = [replace(p, config=replace(p.config, **execution(device))) for p in first]
        on_cpu = data.prepare(found, first[0].config)
        feeds = {torch.device("cpu"): on_cpu, device: moved(on_cpu, device)}
        checks = check_agreement(session, first, feeds, tuple(TOLERANCE) if check_only else ("fp64",))
        if check_only:
            return 0
        if not (force or all(check["agrees"] and check["same_images"] for check in checks)):
            raise ManyError("the first steps do not agree with the CPU's; nothing was trained (--force trains anyway)")
        for part in (SWEEP, BUDGET, EXTRA):
            feed, trainees = None, {}
            for block in _blocks(state, part, side_by_side, extra_runs(protocol, also, state.rates, out / EXTRA)):
                block = [replace(p, config=replace(p.config, **execution(device))) for p in block]
                config = block[0].config
                images = len(block) * config.steps * config.batch_size
                if speed and images / speed > session.left_s:
                    session.note(f"{session.left_s:.0f} s left: {block[0].id} and {len(block) - 1} others not started")
                    break
                if feed is None:
                    feed = moved(data.prepare(found, config), device)
                names = tuple(p.config.spec.digest for p in block)
                if names not in trainees:
                    trainees[names] = _captured(block, feed, device)
                    session.note(f"{len(block)} steps captured")
                folder = out / (EXTRA if part == EXTRA else RUNS)
                context = Context(session, folder, protocol, found, feed, device, how, code)
                start = time.monotonic()
                kept += train_block(context, block, trainees[names])
                speed = images / (time.monotonic() - start)
            if part == SWEEP:
                state = state_of(out / RUNS, protocol)
                session.note("rates: " + (str(state.rates) if state.rates else "the sweep is not complete"))
    session.note(f"done: {kept} runs kept", kept=kept, elapsed_s=session.elapsed_s)
    return kept


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
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--whole", action="store_true", help="make the missing runs of the protocol, in DIR/runs")
    asked.add_argument("--check", action="store_true", help="compare the first steps with the CPU's, and train nothing")
    parser.add_argument("--also", type=Path, metavar="FILE", help="also make the runs of this JSON file, in DIR/extra")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything, the start of this program included")
    parser.add_argument("--out", type=Path, default=RESULTS / WHOLE, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--force", action="store_true", help="train although the first steps do not agree")
    parser.add_argument("--code", metavar="COMMIT", help="of this code, for the records")
    parser.add_argument("--protocol", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    # Hardware queues between the program and the device: each stream can have its own. Read when CUDA starts.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    try:
        protocol = read_protocol(args.protocol)
        kept = run_whole(
            out=args.out, minutes=args.minutes, device=torch.device(args.device), protocol=protocol,
            dataset=lambda: data.load(protocol.data["dataset"]["name"]), force=args.force, check_only=args.check,
            code=args.code, also=json.loads(args.also.read_text(encoding="utf-8")) if args.also else (),
        )  # fmt: skip
    except (TrainError, ProtocolError, data.DataError) as error:
        print(f"many: {error}", file=sys.stderr)
        return 2 if isinstance(error, ProtocolError) else 1
    return 0 if kept or args.check else 1


if __name__ == "__main__":
    sys.exit(main())
