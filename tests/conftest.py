"""Settings of every test."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a failure is one for everyone. `--hypothesis-profile=search` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, max_examples=500)
settings.load_profile("same")
