"""The folder of one job: the files that a notebook run leaves, their digests, and what makes a folder ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.study.dependencies import KINDS, RESULT, VERSION
from analysis.study.notebook_parameters import NotebookError
from analysis.study.page import FAILURE_CELL, read_page, save_page
from analysis.tables.files import digest, read_json, write_json
from analysis.tables.provenance import scrub

FAILURE, INPUTS, NOTEBOOK, LOG = "failure.json", "inputs.json", "notebook.ipynb", "log.txt"
LOCK = ".lock"
AT_WORK = ".running.ipynb"  # papermill writes here, in place, while it runs; the page appears when it is complete
SOURCE = ".source.ipynb"  # the notebook as it was digested, which is what papermill executes
RUN = "run"  # what training leaves; it can tell by itself which run it is of
WEIGHTS = ".pt"  # files that may be absent: a run whose weights are not kept is done
SELF = "sha256"  # of the rest of a result


class FolderError(NotebookError):
    """An output folder that no run may write to."""

    is_usage = True


def write_result(out_dir: Path, record: Mapping[str, Any]) -> Path:
    """Write result.json, which lists the folder's files with their digests. It is the last file of a run."""
    listed = {kind: _digests(out_dir, kind) for kind in KINDS}
    result = {**record, "executed": {NOTEBOOK: digest(out_dir / NOTEBOOK)}, **listed}
    return write_json(out_dir / RESULT, result | {SELF: _digest_of(result)})


def read_result(out_dir: Path | str) -> dict[str, Any] | None:
    """The result in a job's folder; None unless every file that it lists is there as it was written.

    Weights may be absent, and are compared where they are there.
    """
    out_dir, result = Path(out_dir), read_listing(out_dir)
    try:
        is_whole = result.get("version") == VERSION and all(
            digest(out_dir / name) == sha
            for name, sha in listed(result).items()
            if not name.endswith(WEIGHTS) or (out_dir / name).exists()
        )
    except (OSError, ValueError):
        return None
    return result if is_whole else None


def read_listing(out_dir: Path | str) -> dict[str, Any]:
    """What result.json in a job's folder says; empty where it is missing, or is not as it was written."""
    result = read_json(Path(out_dir) / RESULT)
    try:
        own = result.pop(SELF, None)
        is_own = own in (None, _digest_of(result)) and bool(listed(result))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return result if is_own else {}


def listed(result: Mapping[str, Any]) -> dict[str, str]:
    """Of each file that a result lists, its digest."""
    return {**result["executed"], **result["tables"], **result["figures"], **result.get(RUN, {})}


def _digest_of(value: Any) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())


def _digests(out_dir: Path, kind: str) -> dict[str, str]:
    files = sorted(file for file in (out_dir / kind).rglob("*") if file.is_file())
    own = [file for file in files if not file.name.startswith(".") and not file.name.endswith((".aside", ".partial"))]
    return {str(file.relative_to(out_dir)): digest(file) for file in own}


def record_failure(out_dir: Path, error: str, message: str) -> None:
    """Say in a job's folder and on its page that its run failed; where it saved no page, papermill's becomes it."""
    page = read_page(out_dir / NOTEBOOK)  # snakemake makes an empty file
    if not any(cell.get("id") == FAILURE_CELL for cell in page["cells"]):  # killed after its last cell, or before
        keep_page(page if page["cells"] else read_page(out_dir / AT_WORK), out_dir, message)
    write_json(out_dir / FAILURE, {"error": error, "message": scrub(message)})


def keep_page(page: dict[str, Any], out_dir: Path, failure: str | None) -> None:
    """Save a page as that of the job, in place of the one that papermill worked on."""
    save_page(page, out_dir / NOTEBOOK, failure)
    (out_dir / AT_WORK).unlink(missing_ok=True)


def check_folder(out_dir: Path) -> None:
    """Refuse a folder that holds what no run wrote: a run may empty its folder. Raises: FolderError."""
    if out_dir.exists() and not out_dir.is_dir():
        raise FolderError(f"{out_dir} is a file; give a folder")
    if not out_dir.is_dir() or _is_ours(out_dir):
        return
    ours = {LOCK, RESULT, FAILURE, NOTEBOOK, LOG}
    if others := sorted(entry.name for entry in out_dir.iterdir() if entry.name not in ours):
        raise FolderError(f"{out_dir} holds {others[0]!r}, which no notebook run wrote; give a new or an empty folder")


def _is_ours(out_dir: Path) -> bool:
    """Whether inputs.json is one that a run wrote: a user's file may have that name too."""
    return read_inputs(out_dir).keys() >= {"version", "notebook", "parameters", "code", "networks", "data"}


def read_inputs(out_dir: Path) -> dict[str, Any]:
    """What the run in a folder followed from; empty where that is not known."""
    return read_json(out_dir / INPUTS)


def prepare_folder(out_dir: Path, inputs: Mapping[str, Any]) -> None:
    """Leave in the folder only what a run with these inputs may go on from: the same inputs, or a training run."""
    remove(out_dir / RESULT)  # first of all: from here on nothing here is a result
    keep = read_inputs(out_dir) == inputs
    made = {"tables", "figures", FAILURE, NOTEBOOK, LOG, AT_WORK, SOURCE}
    for entry in out_dir.iterdir():
        if entry.name not in (LOCK, RUN) and (not keep or entry.name in made):
            remove(entry)
    write_json(out_dir / INPUTS, inputs)  # before anything else: it makes the folder ours
    for kind in ("tables", "figures"):
        (out_dir / kind).mkdir()


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
