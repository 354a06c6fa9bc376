"""A process that measures some models, one row each: `python -m analysis.zoo.worker JOB`, started by the engine.

Importing a library of models takes seconds, so that one process measures many. What kills it ends only one model.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

MOST_MIB = 3000  # of a process that goes on to the next model


class LimitError(BaseException):
    """A model exceeded its limit of CPU seconds; no `except Exception` of an audit or of a model catches it."""


def main(job: Mapping[str, Any]) -> None:
    """Measures `models` of `family` in order, and appends a row for each to `rows`."""
    import torch

    from analysis.zoo.gradients import measured_field
    from analysis.zoo.measure import first_line, measured
    from analysis.zoo.models import FAMILIES, as_targets
    from analysis.zoo.operators import declare

    torch.set_num_threads(1)
    kept = declare()
    limit, of_targets = float(job["limit_s"]), FAMILIES[job["family"]].is_targets
    resource.setrlimit(resource.RLIMIT_DATA, (int(job["limit_mib"]) << 20, resource.RLIM_INFINITY))

    def late(*_: Any) -> None:
        raise LimitError(f"more than {limit:g} CPU seconds")

    signal.signal(signal.SIGPROF, late)
    warnings.simplefilter("ignore")
    for name in job["models"]:
        start = time.process_time()
        # Code that never comes back to Python is killed somewhat later.
        resource.setrlimit(resource.RLIMIT_CPU, (int(_cpu_s() + 2 * limit + 10), resource.RLIM_INFINITY))
        row: dict[str, Any] = {"outcome": "measured"}
        try:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere), as_targets():
                signal.setitimer(signal.ITIMER_PROF, limit)
                try:
                    row |= measured_field(name) if of_targets else measured(f"{job['family']}:{name}")
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
        except LimitError as error:
            row |= {"outcome": "unfinished", "message": str(error)}
        except (Exception, SystemExit) as error:
            row |= {"outcome": "failed", "message": first_line(error)}
        row["cpu_s"] = round(time.process_time() - start, 3)
        append(Path(job["rows"]), {"family": job["family"], "model": name, "digest": job["digest"], **row})
        gc.collect()
        if _mib() > MOST_MIB:
            break
    del kept


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Appends one line to a file of rows in one write; it starts a new line even after an incomplete one."""
    line = ("\n" + json.dumps(row, ensure_ascii=False) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _mib() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
    except OSError:  # not Linux: the peak
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
