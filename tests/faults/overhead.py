"""What the scheduling of a study costs: `python tests/faults/overhead.py [jobs]`.

A study of empty notebooks on two cores, its time beside that of its kernels: the sum of the times from the start of
each kernel to its end, over two. Both are of the same run, as both grow where the machine has other work.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
CORES = 2
MOST = 1.3  # times the kernels' own time


def measure(folder: Path, jobs: int) -> dict[str, float]:
    """The times of one study, and their ratio. Raises: subprocess.CalledProcessError."""
    cell = nbformat.v4.new_code_cell('n = 0\nout_dir = "o"', metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / "empty.ipynb")
    each = {"each": {"n": list(range(jobs))}, "folder": "{n}"}
    (folder / "empty.yaml").write_text(json.dumps({"notebooks_dir": ".", "notebooks": {"empty": each}}))
    words = ["study", folder / "empty.yaml", "--out", folder / "out", "--cores", CORES]
    # A warm disk is asked first: the very first kernel reads its packages from it.
    subprocess.run([sys.executable, "-m", "ipykernel", "--version"], check=True, stdout=subprocess.DEVNULL)
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "resattn.cli", *map(str, words)],
        check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    study_s = time.monotonic() - start
    ends = (folder / "out" / "empty").glob("*/result.json")
    kernels_s = sum(json.loads(file.read_bytes())["kernel_s"] for file in ends)
    return {
        "jobs": jobs, "cores": CORES, "study_s": round(study_s, 1), "kernels_s": round(kernels_s, 1),
        "ratio": round(study_s / (kernels_s / CORES), 3), "load": os.getloadavg()[0],
    }  # fmt: skip


def main(jobs: int) -> int:
    """Print one measurement as JSON; 1 if scheduling costs too much."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        found = measure(Path(folder), jobs)
    print(json.dumps(found))
    return int(found["ratio"] > MOST)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
