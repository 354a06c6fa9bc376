"""Random networks of the family that the page's explorer shows, and their counts by the captured network.

`python tests/explore/counted.py N SEED FILE` writes N of them as JSON lines; tests and the record compare the page with
these. A run that was interrupted goes on after the lines that FILE has. Only `resattn` is needed, so any machine with
torch can count.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from resattn.measures.captured import captured
from resattn.measures.quantities import count
from resattn.measures.receptive import extents
from resattn.networks.catalog import named
from resattn.networks.spec import NetworkSpec, SpecError

QUANTITIES = (
    "trunk_depth", "longest_path", "shortest_path", "weighted_layers", "n_paths", "params", "params_mask", "macs",
    "macs_mask",
)  # fmt: skip
BASES = {"attention56": (97, 128, 160, 193, 224, 256), "cifar-attention56": (29, 32, 40, 48, 63)}


def specs(n: int, seed: int) -> Iterator[NetworkSpec]:
    """So many networks that can be built, drawn from the seed alone."""
    rng = random.Random(seed)
    while n:
        base = named(rng.choice(list(BASES)))
        stages = len(base.units)
        px = rng.choice(BASES[base.name])
        try:
            spec = replace(
                base, name="drawn", p=rng.randint(0, 3), t=rng.randint(1, 4), r=rng.randint(1, 3),
                modules=tuple(rng.randint(0, 3) for _ in range(stages)),
                poolings=tuple(rng.randint(0, 4) for _ in range(stages)),
                units=tuple(rng.randint(0, 2) for _ in range(stages)), tail=tuple(rng.randint(0, 2) for _ in range(stages)),
                width=rng.choice((8, 16, 24, 64)), classes=rng.choice((10, 100, 1000)), input_shape=(3, px, px),
                merge=rng.choice(("residual", "naive")),
            )  # fmt: skip
        except SpecError:
            continue
        yield spec
        n -= 1


def as_page(spec: NetworkSpec) -> dict[str, Any]:
    """The spec as the page's script takes it."""
    fields = ("stem", "units", "tail", "modules", "poolings", "p", "t", "r", "width", "merge", "classes")
    return {**{name: getattr(spec, name) for name in fields}, "input": spec.input_shape[1]}


def counts(spec: NetworkSpec) -> dict[str, Any]:
    """Every number by the captured network. `n_paths` is text, since it is longer than JSON's numbers; the number of
    paths of each length is a digest of `length:number,...`."""
    body = captured(spec)
    found: dict[str, Any] = {q: count(body, q) for q in QUANTITIES}
    found["n_paths"] = str(found["n_paths"])
    lengths = ",".join(f"{k}:{n}" for k, n in sorted(body.path_lengths.items()))
    return {**found, "path_lengths": hashlib.sha256(lengths.encode()).hexdigest(), "fields": fields(spec)}


def fields(spec: NetworkSpec) -> list[list[int]]:
    """For each stage the side that a unit at its end sees, through the masks and with the masks removed."""
    body = captured(spec)
    last = {op.module.split(".", 1)[0]: op.index for op in body.large.ops}
    ends = [last[stage.name] for stage in spec.stages]
    views = [body.large, body.large.without(body.masks) if spec.has_masks else body.large]
    seen = [extents(view, 0, ends) for view in views]
    return [[int(found[end].sides[~found[end].clipped].max()) for found in seen] for end in ends]


def row(spec: NetworkSpec) -> str:
    result = json.dumps({"spec": as_page(spec), "counts": counts(spec)})
    captured.cache_clear()
    return result


if __name__ == "__main__":
    n, seed, file = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    whole = [line for line in file.open(encoding="utf-8") if line.endswith("\n")] if file.exists() else []
    file.write_text("".join(whole), encoding="utf-8")  # without the line at which the run before was killed
    with ProcessPoolExecutor() as pool, file.open("a", encoding="utf-8") as out:
        for line in pool.map(row, islice(specs(n, seed), len(whole), None), chunksize=8):
            out.write(line + "\n")
            out.flush()
