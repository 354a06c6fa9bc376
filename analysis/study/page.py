"""The executed notebook of a run as a file: read, saved in one step, and marked where the run failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.study.notebook_parameters import source_of
from analysis.tables.files import read_regular, write_atomic
from analysis.tables.provenance import scrub

FAILURE_CELL = "failure"  # id of the cell that says why the run failed


def read_page(path: Path) -> dict[str, Any]:
    """The executed notebook in a file; an empty one if the file is missing or incomplete."""
    try:
        return json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def unexecuted(page: Mapping[str, Any]) -> list[str]:
    """The numbers of the code cells that were not executed, without empty ones."""
    source = [cell for cell in page["cells"] if "injected-parameters" not in cell["metadata"].get("tags", ())]
    return [str(number) for number, cell in enumerate(source, 1) if _is_unexecuted(cell)]


def _is_unexecuted(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(source_of(cell).strip()) and cell.get("execution_count") is None


def save_page(page: dict[str, Any], path: Path, failure: str | None) -> None:
    """Saves an executed notebook without anything that identifies the machine; `failure` becomes its first cell."""
    page["metadata"].pop("papermill", None)
    for cell in page["cells"]:
        record = cell["metadata"].get("papermill", {})
        if _is_unexecuted(cell) and record:
            record["status"] = "pending"  # papermill marks every cell completed once the kernel is gone
    if failure:
        text = f"This run failed:\n\n```\n{failure}\n```"
        page["cells"].insert(0, {"cell_type": "markdown", "id": FAILURE_CELL, "metadata": {}, "source": text})
    write_atomic(path, f"{scrub(json.dumps(page, indent=1, ensure_ascii=False))}\n".encode("utf-8", "replace"))
