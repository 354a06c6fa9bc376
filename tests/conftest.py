"""Settings of every test."""

from __future__ import annotations

import os
import signal

# Two test processes with two threads each wait for one another on two cores: a pass takes fifty times as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

from analysis.study.light_imports import light_imports

with light_imports():  # what notebooks are read with: a second less in each process
    import jsonschema  # noqa: F401

# The same examples in every run: what fails, fails for everyone. HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell starts what runs behind it with interrupts ignored, nohup with hang-ups, which children inherit; some tests
# send them to a child.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
