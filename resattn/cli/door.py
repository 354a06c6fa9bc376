"""Loads modules of `analysis`, which are in the clone and not in the wheel."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import resattn
from resattn.extras import MissingError

CLONE = Path(resattn.__file__).resolve().parents[1]


def of_the_study(command: str, module: str) -> ModuleType:
    """A module of `analysis`, for a command of the study. No other function of this package imports from `analysis`.

    Raises: MissingError without the clone, or if another package named `analysis` is already imported.
    """
    own = CLONE / "analysis"
    if not (own / "study").is_dir() or not (CLONE / "workflow").is_dir():
        raise MissingError(f"{command} needs a clone of the repository: clone it and run `make report` there")
    sys.path.insert(0, str(CLONE))  # ahead of an `analysis` in the current folder
    importlib.invalidate_caches()
    package = importlib.import_module("analysis")
    if Path(package.__file__ or "").resolve() != own / "__init__.py":
        raise MissingError(f"{command} needs the clone's package `analysis`; {package.__file__} is already imported")
    return importlib.import_module(f"analysis.{module}")
