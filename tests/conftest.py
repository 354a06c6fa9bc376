"""Settings of every test."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples in every run: what fails, fails for everyone. HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None, database=None)
settings.register_profile("search", deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
