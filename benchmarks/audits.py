"""How long the whole audit takes, and how much memory, beside other tools: `python -m benchmarks FILE.json`.

And our training loop beside its limit and beside the usual way, see `benchmarks.training`.

Each tool measures each network in a process of its own, one thread, after a small network has paid for all imports.
Only ratios are worth quoting: machines differ and are shared.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tables.files import write_atomic

NETWORKS = ("attention56", "attention92", "resnet152", "cifar-attention452", "cifar-resnet1001")
WARM_UP = "cifar-attention56"
REPEATS = 3

# Our audit against the number of operators: the same network with more modules a stage.
GROWING, MODULES = "cifar-attention92", (2, 4, 8, 16)


@dataclass(frozen=True)
class Tool:
    """`measure(name, settings)` builds a model untimed and gives what is to be timed."""

    name: str
    what: str
    prepare: Callable[[str, dict[str, Any]], Callable[[], Any]]


def _spec(name: str, settings: dict[str, Any]) -> Any:
    from resattn.networks import catalog
    from resattn.networks.spec import override

    return override(catalog.named(name), settings)


def _audit(name: str, settings: dict[str, Any]) -> Callable[[], Any]:
    from resattn.measures.audit import audit

    spec = _spec(name, settings)
    return lambda: audit(spec)


def _model(name: str, settings: dict[str, Any], device: str) -> tuple[Any, tuple[int, ...]]:
    from resattn.networks.network import build

    spec = _spec(name, settings)
    return build(spec, device=device).eval(), spec.input_shape


def _fvcore(name: str, settings: dict[str, Any]) -> Callable[[], Any]:
    import torch
    from fvcore.nn import FlopCountAnalysis

    model, shape = _model(name, settings, "cpu")

    def measure() -> Any:
        analysis = FlopCountAnalysis(model, torch.zeros(1, *shape))
        return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

    return measure


def _torchinfo(name: str, settings: dict[str, Any]) -> Callable[[], Any]:
    import torch
    import torchinfo

    model, shape = _model(name, settings, "meta")
    return lambda: torchinfo.summary(model, input_data=torch.zeros(1, *shape, device="meta"), verbose=0, device="meta")


def _flop_counter(name: str, settings: dict[str, Any]) -> Callable[[], Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model, shape = _model(name, settings, "meta")

    def measure() -> Any:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, *shape, device="meta"))
        return counter.get_total_flops()

    return measure


def _torchscan(name: str, settings: dict[str, Any]) -> Callable[[], Any]:
    from torchscan import crawl_module

    model, shape = _model(name, settings, "meta")
    return lambda: crawl_module(model, shape)


OURS = Tool("resattn", "audit: every quantity", _audit)
TOOLS = (
    OURS,
    Tool("fvcore", "FlopCountAnalysis: FLOPs", _fvcore),
    Tool("torchinfo", "summary: FLOPs and parameters, on meta", _torchinfo),
    Tool("torchscan", "crawl_module: FLOPs and parameters, on meta", _torchscan),
    Tool("FlopCounterMode", "FLOPs, on meta", _flop_counter),
)


def _one(tool_name: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Runs in a process of its own."""
    import torch

    torch.set_num_threads(1)
    tool = next(t for t in TOOLS if t.name == tool_name)
    tool.prepare(WARM_UP, {})()
    measure = tool.prepare(name, settings)
    before = _peak_kib()
    times = []
    for _ in range(REPEATS):
        # Processor time: there is one thread, and what else the machine does is no part of the comparison.
        start = time.process_time()
        measure()
        times.append(time.process_time() - start)
    return {"s": min(times), "peak_growth_mib": (_peak_kib() - before) / 1024}


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _in_process(tool: Tool, name: str, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    job = json.dumps([tool.name, name, settings or {}])
    done = subprocess.run([sys.executable, "-m", "benchmarks.audits", job], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def _n_ops(settings: dict[str, Any]) -> int:
    from resattn.measures.captured import capture
    from resattn.networks.network import build

    spec = _spec(GROWING, settings)
    return len(capture(build(spec, device="meta"), (1, *spec.input_shape)).ops)


def _compare() -> list[dict[str, Any]]:
    rows = []
    for name in NETWORKS:
        ours = None
        for tool in TOOLS:
            found = _in_process(tool, name)
            ours = found if tool is OURS else ours
            row = {"network": name, "tool": tool.name, "what": tool.what, **found}
            if "s" in found and ours and "s" in ours:
                row["our_time_ratio"] = ours["s"] / found["s"]
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    label = f"{row['network']:20} {row['tool']:16}"
    if "failed" in row:
        return f"{label} failed: {row['failed']}"
    return (
        f"{label} {row['s']:8.3f} s  +{row['peak_growth_mib']:6.1f} MiB"
        f"  our time / its time {row['our_time_ratio']:.2f}"
    )


def _grow() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for modules in MODULES:
        settings = {"modules": modules}
        row = {"modules": modules, "n_ops": _n_ops(settings), **_in_process(OURS, GROWING, settings)}
        rows.append(row)
        per_op = 1e6 * row["s"] / row["n_ops"]
        growth = row["s"] / rows[-2]["s"] / (row["n_ops"] / rows[-2]["n_ops"]) if len(rows) > 1 else 1.0
        print(
            f"{GROWING} with {modules:2} modules a stage: {row['n_ops']:5} operators, {row['s']:.3f} s, "
            f"{per_op:.0f} us each; time ratio / operator ratio {growth:.2f}",
            flush=True,
        )
        row["time_ratio_over_op_ratio"] = growth
    return rows


def main(path: Path) -> None:
    result: dict[str, Any] = {"tools": _compare(), "growth": _grow()}
    fvcore = [r["our_time_ratio"] for r in result["tools"] if r["tool"] == "fvcore" and "our_time_ratio" in r]
    if fvcore:
        print(f"our whole audit takes {statistics.median(fvcore):.2f} times fvcore's FLOP count (median over networks)")
    # In this process, which has measured nothing itself so far.
    from benchmarks.training import bench_training, report

    result["training"] = bench_training()
    print(report(result["training"]))
    write_atomic(path, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":  # one tool on one network, in a process of its own
    print(json.dumps(_one(*json.loads(sys.argv[1]))))
