"""The state of each job, from its own files, and the progress line while a study runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from analysis.study.dependencies import RESULT
from analysis.study.job_folder import AT_WORK, FAILURE
from analysis.study.profiles import Profile
from analysis.tables.files import read_json

DONE, FAILED, NOT_RUN, RUNNING = "done", "failed", "not run", "running"


def states_of(profile: Profile, out: Path) -> dict[str, dict[str, Any]]:
    """The state of each job."""
    return {name: state_of(out / name) for name in profile.tasks}


def state_of(folder: Path, *, begun: str = NOT_RUN) -> dict[str, Any]:
    """The state of a job, from its own files. `begun`: the state of a job that began and recorded no end."""
    if (folder / RESULT).exists():
        return {"state": DONE, "message": None, "elapsed_s": read_json(folder / RESULT).get("elapsed_s")}
    if (folder / FAILURE).exists():
        return {"state": FAILED, "message": read_json(folder / FAILURE).get("message"), "elapsed_s": None}
    return {"state": begun if (folder / AT_WORK).exists() else NOT_RUN, "message": None, "elapsed_s": None}


class Progress:
    """One line on a terminal, rewritten; elsewhere one line for each job that ends."""

    def __init__(self, profile: Profile, out: Path) -> None:
        self.profile, self.out = profile, out
        self.states = states_of(profile, out)
        self.width = 0

    def update(self) -> None:
        for name, before in self.states.items():
            if before["state"] != DONE:  # one that failed may be tried again
                now = self.states[name] = state_of(self.out / name, begun=RUNNING)
                if now["state"] in {DONE, FAILED} - {before["state"]} and not sys.stderr.isatty():
                    self._say_ended(name, now)
        if sys.stderr.isatty():
            count = Counter(row["state"] for row in self.states.values())
            line = f"{count[DONE]} of {len(self.states)} done, {count[RUNNING]} running, {count[FAILED]} failed"
            line += self._left(count[RUNNING])
            print(f"\r{line:{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(line)

    def close(self) -> None:
        if self.width:
            print(file=sys.stderr)

    def _say_ended(self, name: str, row: Mapping[str, Any]) -> None:
        ended = sum(row["state"] in (DONE, FAILED) for row in self.states.values())
        took = f" in {row['elapsed_s']:.0f} s" if row["elapsed_s"] is not None else ""
        print(f"{ended}/{len(self.states)} {name} {row['state']}{took}", file=sys.stderr, flush=True)

    def _left(self, n_running: int) -> str:
        """What is left, if each job takes as long as those of its notebook, or of all, have taken.

        As many at a time as are running now: how many a cluster will run is not known.
        """
        took: dict[str, list[float]] = {}
        for name, row in self.states.items():
            if row["elapsed_s"] is not None:
                took.setdefault(self.profile.tasks[name].step, []).append(row["elapsed_s"])
        everything = [elapsed_s for each in took.values() for elapsed_s in each]
        if not everything:
            return ""
        left = [
            self.profile.tasks[name].step for name, row in self.states.items() if row["state"] in (RUNNING, NOT_RUN)
        ]
        left_s = sum(fmean(took.get(step, everything)) for step in left) / max(n_running, 1)
        return f", about {left_s / 60:.0f} min left" if left_s >= 90 else f", about {left_s:.0f} s left"
