"""The only way from this package to the study's, which lies in the clone beside it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import resattn
from resattn.extras import MissingError

CLONE = Path(resattn.__file__).resolve().parents[1]


def of_the_study(command: str, module: str) -> ModuleType:
    """A module of the study's package, which lies in the clone beside this one: the only way from here to there.

    Raises: MissingError without the clone, or where another package of the same name is already imported.
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
