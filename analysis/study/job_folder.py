"""The folder of one job: the files of a notebook run, their digests, and how the folder is recognised."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.study.dependencies import INPUTS, KINDS, OTHERS, RESULT, VERSION
from analysis.study.notebook_parameters import NotebookError
from analysis.study.page import FAILURE_CELL, read_page, save_page
from analysis.tables.files import digest, read_json, write_json
from analysis.tables.provenance import scrub

FAILURE, NOTEBOOK, LOG = "failure.json", "notebook.ipynb", "log.txt"
LOCK = ".lock"
AT_WORK = ".running.ipynb"  # papermill writes here, in place, while it runs; the page appears when it is complete
SOURCE = ".source.ipynb"  # the notebook as it was digested, which is what papermill executes
RUN = "run"  # what training leaves; it can tell by itself which run it is of
WEIGHTS = ".pt"  # files that may be absent: a run whose weights are not kept is done
SELF = "sha256"  # of the rest of a result
OWN = (LOCK, RESULT, INPUTS, FAILURE, NOTEBOOK, LOG, AT_WORK, SOURCE)  # the runner's own files
UNREAD = (".aside", ".partial", ".part")  # what no other job reads


class FolderError(NotebookError):
    """An output folder that no run may write to."""

    is_usage = True


def write_result(out_dir: Path, record: Mapping[str, Any]) -> Path:
    """Writes result.json, which lists the folder's files with their digests. It is the last file of a run."""
    listed = {kind: {name: digest(out_dir / name) for name in _files(out_dir, kind)} for kind in KINDS}
    others = {name: digest(out_dir / name) for name in _files(out_dir, ".") if Path(name).parts[0] not in KINDS}
    result = {**record, "executed": {NOTEBOOK: digest(out_dir / NOTEBOOK)}, **listed}
    result |= {OTHERS: others} if others else {}
    return write_json(out_dir / RESULT, result | {SELF: _digest_of(result)})


def read_result(out_dir: Path | str) -> dict[str, Any] | None:
    """The result in a job's folder; None unless every file in its list is unchanged and the run has no other table or
    figure.

    Weights may be absent; if present they are compared too.
    """
    out_dir, result = Path(out_dir), read_listing(out_dir)
    try:
        is_whole = result.get("version") == VERSION and all(
            digest(out_dir / name) == sha
            for name, sha in listed(result).items()
            if not name.endswith(WEIGHTS) or (out_dir / name).exists()
        )
        if not is_whole:
            return None
        added = {name for kind in KINDS if kind in result for name in _files(out_dir, kind)} - listed(result).keys()
    except (OSError, ValueError):
        return None
    return result if all(name.endswith(WEIGHTS) for name in added) else None


def read_listing(out_dir: Path | str) -> dict[str, Any]:
    """The content of result.json in a job's folder; empty if it is missing or altered."""
    result = read_json(Path(out_dir) / RESULT)
    try:
        own = result.pop(SELF, None)
        is_own = own in (None, _digest_of(result)) and bool(listed(result))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return result if is_own else {}


def listed(result: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each file that a result lists."""
    kinds = (result["executed"], result["tables"], result["figures"], result.get(RUN, {}), result.get(OTHERS, {}))
    return {name: sha for of_kind in kinds for name, sha in of_kind.items()}


def _digest_of(value: Any) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())


def _files(out_dir: Path, kind: str) -> list[str]:
    """The files below a folder of a job that another job may read.

    Raises: OSError for a link, which leads to what somebody else may change or remove.
    """
    places = sorted([out_dir / kind, *(out_dir / kind).rglob("*")])
    if links := [place for place in places[kind == "." :] if place.is_symlink()]:
        raise OSError(errno.ELOOP, "a symbolic link; the files of a job lie in its folder", str(links[0]))
    found = [file for file in places if file.is_file()]
    names = [str(file.relative_to(out_dir)) for file in found if not file.name.startswith((".lock", ".nfs"))]
    return [name for name in names if name not in OWN and not name.endswith(UNREAD)]


def record_failure(out_dir: Path, error: str, message: str) -> None:
    """Records in a job's folder and on its page that the run failed; without a saved page, papermill's is kept."""
    page = read_page(out_dir / NOTEBOOK)  # snakemake makes an empty file
    if not any(cell.get("id") == FAILURE_CELL for cell in page["cells"]):  # killed after its last cell, or before
        keep_page(page if page["cells"] else read_page(out_dir / AT_WORK), out_dir, message)
    write_json(out_dir / FAILURE, {"error": error, "message": scrub(message)})


def keep_page(page: dict[str, Any], out_dir: Path, failure: str | None) -> None:
    """Saves a page as the job's page, in place of papermill's working copy."""
    save_page(page, out_dir / NOTEBOOK, failure)
    (out_dir / AT_WORK).unlink(missing_ok=True)


def check_folder(out_dir: Path) -> None:
    """Refuses a folder with files that no run wrote, since a run may empty its folder. Raises: FolderError."""
    if out_dir.exists() and not out_dir.is_dir():
        raise FolderError(f"{out_dir} is a file; give a folder")
    if not out_dir.is_dir() or _is_ours(out_dir):
        return
    if others := sorted(entry.name for entry in out_dir.iterdir() if not _is_record(entry)):
        raise FolderError(f"{out_dir} holds {others[0]!r}, which no notebook run wrote; give a new or an empty folder")


def _is_record(entry: Path) -> bool:
    """Whether a file is what a run leaves that never began: told by its content, as a user's may have its name."""
    if not entry.is_file():
        return False
    if entry.stat().st_size == 0:
        return entry.name in OWN
    match entry.name:
        case ".lock":
            return re.fullmatch(rb"\d{1,20}\n", entry.read_bytes()[:32]) is not None
        case "result.json":
            return bool(read_listing(entry.parent))
        case "failure.json":
            return read_json(entry).keys() == {"error", "message"}
        case "notebook.ipynb":
            return any(cell.get("id") == FAILURE_CELL for cell in read_page(entry)["cells"])
    return False


def is_of_a_run(folder: Path) -> bool:
    """Whether a folder has files that only a run writes, complete or not."""
    return _is_ours(folder) or bool(read_listing(folder))


def _is_ours(out_dir: Path) -> bool:
    """Whether inputs.json is one that a run wrote: a user's file may have that name too."""
    return read_inputs(out_dir).keys() >= {"version", "notebook", "parameters", "code", "networks", "data"}


def read_inputs(out_dir: Path) -> dict[str, Any]:
    """The inputs of the run in a folder; empty if unknown."""
    return read_json(out_dir / INPUTS)


def prepare_folder(out_dir: Path, inputs: Mapping[str, Any]) -> None:
    """Keeps in the folder only what a run with these inputs can resume: files of the same inputs, or a training run."""
    remove(out_dir / RESULT)  # first of all: from here on nothing here is a result
    keep = read_inputs(out_dir) == inputs
    if not keep:  # it makes the folder ours, and is equal to no inputs if this is killed on the way
        write_json(out_dir / INPUTS, {**inputs, "emptied": False})
    made = {"tables", "figures", FAILURE, NOTEBOOK, LOG, AT_WORK, SOURCE}
    for entry in out_dir.iterdir():
        if entry.name not in (LOCK, RUN, INPUTS) and (not keep or entry.name in made):
            remove(entry)
    write_json(out_dir / INPUTS, inputs)
    for kind in ("tables", "figures"):
        (out_dir / kind).mkdir()


def remove(path: Path) -> None:
    """Removes a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
