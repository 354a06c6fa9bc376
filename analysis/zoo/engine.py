"""Runs all models: resumable, in processes of several models each, with the families in turn.

The state is the file of rows alone. A row counts if it was made by the same code and versions.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.tables.provenance import ROOT, versions
from analysis.zoo.worker import append

CODE = ("resattn/graph", "resattn/rules", "resattn/measures", "resattn/targets.py", "resattn/instruments/counters.py",
        "resattn/views/tree.py",
        "analysis/zoo/models.py", "analysis/zoo/measure.py", "analysis/zoo/operators.py")  # fmt: skip
LIBRARIES = ("torch", "timm", "torchvision", "transformers", "segmentation-models-pytorch", "diffusers",
            "open-clip-torch", "pytorchcv", "monai")  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Limits for one model."""

    cpu_s: float = 60
    mib: int = 8000


def digest() -> str:
    """The digest of what a row depends on: our code and the versions of the libraries."""
    text = hashlib.sha256()
    for place in (ROOT / name for name in CODE):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            text.update(file.read_bytes())
    text.update(json.dumps(versions(LIBRARIES)).encode())
    return text.hexdigest()[:12]


def rows_in(path: Path, start: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    """The last row of each model after a position in the file, by family and name; an incomplete line is ignored."""
    found = {}
    for line in path.read_bytes()[start:].splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["family"], row["model"]] = row
    return found


def run(
    models: Mapping[str, Sequence[str]], rows: Path, *, chunks: Mapping[str, int], limits: Limits, again: bool = False
) -> Iterator[tuple[str, int]]:
    """Measures every model that has no row yet, then those whose row was made by other code, or all if `again`.

    Yields the family and the rows of each process. `models`: names by family. `chunks`: how many models of a family one
    process measures.
    """
    now = digest()
    done = {} if again else rows_in(rows)
    stale = {
        family: [name for name in names if done.get((family, name), {}).get("digest") != now]
        for family, names in models.items()
    }
    left = {family: sorted(names, key=lambda name: (family, name) in done) for family, names in stale.items()}
    start = rows.stat().st_size if rows.is_file() else 0
    while any(left.values()):
        for family, names in left.items():
            if not names:
                continue
            chunk = names[: chunks[family]]
            job = {
                "family": family, "models": chunk, "rows": str(rows), "digest": now, "limit_s": limits.cpu_s,
                "limit_mib": limits.mib,
            }  # fmt: skip
            ended = _process(job)
            finished = rows_in(rows, start)
            measured = [name for name in chunk if (family, name) in finished]
            if len(measured) < len(chunk) and ended:
                # The first without a row is the one that the process died of.
                died = next(name for name in chunk if name not in measured)
                append(rows, {"family": family, "model": died, "digest": now, "outcome": "failed", "message": ended})
                measured.append(died)
            left[family] = [name for name in names if name not in measured]
            yield family, len(measured)


def _process(job: Mapping[str, Any]) -> str:
    """Runs a worker; how it ended, "" where it did as it should."""
    # torchvision compiles its roi_align.
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "analysis.zoo.worker", json.dumps(job)], env={**os.environ, **settings},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    return f"the process failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"[:400]
