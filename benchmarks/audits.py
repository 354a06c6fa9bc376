"""The time of an audit beside other tools: repeated, in a fresh process, and by size of network; and `resattn claims`.

Processor time of one thread. What is compared takes turns in one process, or in consecutive processes, and each ratio
is of one turn. Only ratios are comparable, because machines differ and are shared.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analysis.tables.files import write_atomic
from benchmarks.foreign import FOREIGN, SHAPE

NETWORKS = ("attention56", "attention92", "resnet152", "cifar-attention452", "cifar-resnet1001", *FOREIGN)
ROUNDS = 3
# Our audit against the number of operators: the same network with more modules a stage.
GROWING, MODULES = "cifar-attention92", (2, 4, 8, 16, 32, 64)
FIRST_USE = ("resnet50", "unet", "transformer")
# What `resattn notebook` imports before its kernel starts.
RUNNER = """
import resattn.cli, analysis.study.runner
from analysis.study.light_imports import light_imports
with light_imports():
    import analysis.study.kernel
"""

Turn = Callable[[], Any]


def _memoised() -> Any:
    """The floor of a capture: a mode that makes results on meta from shapes it has met, and records nothing."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    def form(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.shape, value.stride(), value.dtype
        return tuple(map(form, value)) if isinstance(value, list | tuple) else value

    class Memoised(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.known: dict[Any, Any] = {}

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            key = func, form(args), form(tuple((kwargs or {}).values()))
            if (known := self.known.get(key)) is None:
                result = func(*args, **(kwargs or {}))
                results = result if isinstance(result, tuple) else [result]
                if not any(a.alias_info for a in func._schema.arguments):
                    self.known[key] = type(results)(map(form, results))
                return result
            made = [torch.empty_strided(*f[:2], dtype=f[2], device="meta") for f in known]
            return tuple(made) if isinstance(known, tuple) else made[0]

    return Memoised()


def _turns(name: str) -> dict[str, Turn]:
    """What takes turns on one network. Models are built before; an audit "by name" builds its own."""
    import torch
    from fvcore.nn import FlopCountAnalysis
    from torch.utils.flop_counter import FlopCounterMode

    from resattn.graph.capture import without_collection
    from resattn.measures.audit import audit
    from resattn.measures.captured import capture, captured
    from resattn.networks.catalog import named
    from resattn.networks.network import build

    with torch.device("meta"):
        on_meta = (FOREIGN[name]() if name in FOREIGN else build(named(name), device="meta")).eval()
    model = (FOREIGN[name]() if name in FOREIGN else build(named(name))).eval()
    shape = SHAPE if name in FOREIGN else named(name).input_shape
    floor = _memoised()

    def by_name() -> Any:
        captured.cache_clear()
        return audit(named(name))

    def forward(*modes: Any) -> Any:
        with torch.no_grad():
            for mode in modes:
                mode.__enter__()
            on_meta(torch.empty(1, *shape, device="meta"))
            for mode in modes:
                mode.__exit__(None, None, None)

    def least() -> None:
        with without_collection():  # as a capture: the garbage of other turns is no part of its floor
            forward(floor)

    def fvcore() -> Any:
        counter = FlopCountAnalysis(model, torch.zeros(1, *shape))
        return counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()

    return {
        "audit": lambda: audit(on_meta, shape),
        **({} if name in FOREIGN else {"audit by name": by_name}),
        "capture": lambda: capture(on_meta, (1, *shape)),
        "floor": least,
        "forward": forward,
        "FlopCounterMode": lambda: forward(FlopCounterMode(display=False)),
        "fvcore": fvcore,
    }


def take_turns(
    turns: Mapping[str, Turn], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """The times of each turn in seconds; another comes first in each round."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for k in range(rounds + 1):  # the first round pays for imports and fills memories
        for name in sorted(turns, key=lambda name: (list(turns).index(name) + k) % len(turns)):
            start = clock()
            turns[name]()
            times[name].append(clock() - start)
    return {name: values[1:] for name, values in times.items()}


def _ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    each = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(each), "least": min(each), "most": max(each)}


def _warm(name: str) -> dict[str, Any]:
    before = _peak_mib()
    times = take_turns(_turns(name), ROUNDS)
    ratios = {
        f"audit/{other}": _ratio(times["audit"], times[other]) for other in ("fvcore", "FlopCounterMode", "forward")
    }
    ratios["capture/floor"] = _ratio(times["capture"], times["floor"])
    return {
        "ms": {k: 1e3 * min(v) for k, v in times.items()},
        "ratios": ratios,
        "peak_growth_mib": _peak_mib() - before,
    }


def _growth() -> list[dict[str, Any]]:
    from resattn.measures.audit import audit
    from resattn.measures.captured import captured
    from resattn.networks.catalog import named
    from resattn.networks.spec import override

    rows: list[dict[str, Any]] = []
    for modules in (MODULES[0], *MODULES):  # the first one twice: it pays for imports
        captured.cache_clear()
        start = time.process_time()
        found = audit(override(named(GROWING), {"modules": modules}))
        seconds = time.process_time() - start
        rows.append({"modules": modules, "n_ops": len(found.captured.graph.ops), "s": seconds})
    first = rows[1]
    return [row | {"time_over_ops": row["s"] / first["s"] / (row["n_ops"] / first["n_ops"])} for row in rows[1:]]


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_of(code: str, **environment: str) -> float:
    """Processor time of a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # With the bytecode that an installed package has, also where the environment says to write none.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _first_use(name: str) -> dict[str, float]:
    foreign = f"from benchmarks.foreign import FOREIGN\nx = FOREIGN[{name!r}](), {SHAPE}"
    build = f"import torch\n{foreign if name in FOREIGN else f'x = {name!r},'}"
    pairs = [(_cpu_of(f"{build}\nfrom resattn import audit\naudit(*x)"), _cpu_of(build)) for _ in range(3)]
    return _ratio(*zip(*pairs, strict=True))


def _imports_of(notebook: Path) -> str:
    """The import statements of a notebook's cells, as a program."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = [ast.parse("".join(cell["source"])).body for cell in cells if cell["cell_type"] == "code"]
    return "\n".join(
        ast.unparse(node) for body in parts for node in body if isinstance(node, ast.Import | ast.ImportFrom)
    )


def _jobs() -> dict[str, dict[str, float]]:
    """What each job of a study imports before it works, over the import of torch: the process that runs its notebook,
    the kernel, and the notebook itself, in fresh processes."""
    codes = {"the runner": RUNNER, "the kernel": "import ipykernel.kernelapp"}
    codes |= {path.stem: _imports_of(path) for path in sorted(Path("notebooks").glob("*.ipynb"))}
    rounds = [(_cpu_of("import torch"), {name: _cpu_of(code) for name, code in codes.items()}) for _ in range(ROUNDS)]
    return {name: _ratio([found[name] for _, found in rounds], [torch_s for torch_s, _ in rounds]) for name in codes}


def _claims() -> dict[str, float]:
    code = "import sys\nfrom resattn.cli import main\nsys.exit(main(['claims', '--json']))"
    with tempfile.TemporaryDirectory() as folder:
        return {f"{which}_s": _cpu_of(code, XDG_CACHE_HOME=folder) for which in ("cold", "warm")}


def _in_process(what: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.audits", what], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def _training() -> dict[str, Any]:
    from benchmarks.training import bench_training

    return bench_training()


PARTS: Mapping[str, Callable[[], Any]] = {
    **{name: partial(_in_process, name) for name in NETWORKS},
    "growth": partial(_in_process, "growth"),
    "first use": lambda: {name: _first_use(name) for name in FIRST_USE},
    "jobs": _jobs,
    "claims": _claims,
    "training": _training,
}


def main(path: Path, parts: Sequence[str] = ()) -> None:
    """Writes each part when it is measured; parts that are not asked for are unchanged."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if parts and path.exists() else {}
    for part in parts or PARTS:
        result[part] = PARTS[part]()
        print(part, json.dumps(result[part]), flush=True)
        write_atomic(path, json.dumps({name: result[name] for name in PARTS if name in result}, indent=1) + "\n")


if __name__ == "__main__":  # one network in a process of its own
    import logging

    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(json.dumps(_growth() if sys.argv[1] == "growth" else _warm(sys.argv[1])))
