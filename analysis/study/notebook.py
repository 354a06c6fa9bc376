"""One strict execution of a notebook: what papermill lets pass in silence is refused or is a failure here.

Parameters are checked before a kernel starts. A run that did not execute every cell has failed, whatever the exit
status of its kernel. `result.json` is written last, so it stands beside complete outputs only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from analysis.study.dependencies import OUT_DIR, TRAINING_CODE, VERSION, run_inputs
from analysis.study.notebook_parameters import NotebookError, ParameterError, Value, check_parameters, source_of
from analysis.study.processes import exclusive, follow_parent, place
from analysis.tables.files import digest, write_atomic, write_json
from analysis.tables.provenance import provenance, scrub

RESULT, FAILURE, INPUTS, NOTEBOOK, LOG = "result.json", "failure.json", "inputs.json", "notebook.ipynb", "log.txt"
LOCK = ".lock"
AT_WORK = ".running.ipynb"  # papermill writes here while it runs, in place; the page itself appears whole


class FolderError(NotebookError):
    """An output folder that no run may write to."""

    is_usage = True


class RunError(NotebookError):
    """A run that failed; the executed notebook and its log are kept."""


class CellFailedError(RunError):
    """A cell raised an exception."""


class KernelDiedError(RunError):
    """The kernel's process ended before the notebook did."""


class NotebookExitError(RunError):
    """A cell ended the run (`sys.exit`, `quit`), with whatever status."""


class NotebookTimeoutError(RunError):
    """The notebook was not done in its time."""


class IncompleteError(RunError):
    """Cells were never executed, though nothing raised an exception."""


def run_notebook(
    path: Path | str,
    parameters: Mapping[str, Any],
    out_dir: Path | str,
    *,
    timeout_s: float | None = 3600.0,
) -> Path:
    """The `result.json` of one execution of a notebook; beside it the executed notebook, log, tables and figures.

    `parameters`: values, or texts as on the command line. `timeout_s`: for the whole notebook; None: no limit. The
    kernel is this Python, in the notebook's folder, with `resattn` and `analysis` importable. What an interrupted run
    with the same inputs left in `out_dir` stays for this one to go on from (see `keeps_state`), else it is emptied.

    Raises: ParameterError, FolderError, FolderInUseError before a kernel starts; RunError after, with the executed
    notebook and `failure.json` kept and no `result.json`.
    """
    follow_parent()
    path, out_dir = Path(path).resolve(), Path(out_dir).resolve()
    if OUT_DIR in parameters:
        raise ParameterError(f"{OUT_DIR} is where the run writes to; give it as the output folder")
    values = check_parameters(path, parameters)
    given = {name: values[name] for name in parameters}
    if OUT_DIR in values:
        # Relative, as in an interactive session: the page of a run does not tell where its checkout lay.
        values[OUT_DIR] = given[OUT_DIR] = os.path.relpath(out_dir, path.parent)
    inputs = run_inputs(path, values)
    check_folder(out_dir)
    with exclusive(out_dir / LOCK, what=str(out_dir)):
        _prepare(out_dir, inputs)
        source = digest(path)
        try:
            start_s, kernel_s = _execute(path, given, out_dir, timeout_s)
        except RunError as error:
            record_failure(out_dir, type(error).__name__, str(error))
            raise
        elapsed_s = time.monotonic() - start_s
        return write_json(
            out_dir / RESULT,
            {
                "version": VERSION,
                "notebook": path.name,
                "notebook_sha256": source,
                "parameters": json.loads(json.dumps(values)),
                "inputs": inputs,
                "executed": {NOTEBOOK: digest(out_dir / NOTEBOOK)},
                "tables": _digests(out_dir, "tables"),
                "figures": _digests(out_dir, "figures"),
                "elapsed_s": round(elapsed_s, 3),
                "kernel_s": round(kernel_s, 3),
                "provenance": provenance(start=datetime.now(UTC) - timedelta(seconds=elapsed_s)),
            },
        )


def read_result(out_dir: Path | str) -> dict[str, Any] | None:
    """The result in a job's folder; None unless every file that it lists is there as it was written."""
    out_dir = Path(out_dir)
    try:
        result = json.loads((out_dir / RESULT).read_bytes())
        files = result["executed"] | result["tables"] | result["figures"]
        whole = result["version"] == VERSION and all(digest(out_dir / name) == sha for name, sha in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if whole else None


def record_failure(out_dir: Path, error: str, message: str) -> None:
    """Say in a job's folder and on its page that its run failed; where it saved no page, papermill's becomes it."""
    page = _page(out_dir / NOTEBOOK)  # snakemake makes an empty file
    if not any(cell.get("id") == "failure" for cell in page["cells"]):  # killed behind its last cell, or before
        _keep_page(page if page["cells"] else _page(out_dir / AT_WORK), out_dir, message)
    write_json(out_dir / FAILURE, {"error": error, "message": scrub(message)})


def _digests(out_dir: Path, kind: str) -> dict[str, str]:
    files = sorted(file for file in (out_dir / kind).rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(out_dir)): digest(file) for file in files}


def check_folder(out_dir: Path) -> None:
    """Refuse a folder that holds what no run wrote: a run may empty its folder. Raises: FolderError."""
    if out_dir.exists() and not out_dir.is_dir():
        raise FolderError(f"{out_dir} is a file; give a folder")
    if not out_dir.is_dir() or (out_dir / INPUTS).exists():
        return
    ours = {LOCK, RESULT, FAILURE, NOTEBOOK, LOG}
    if strangers := sorted(entry.name for entry in out_dir.iterdir() if entry.name not in ours):
        raise FolderError(
            f"{out_dir} holds {strangers[0]!r}, which no notebook run wrote; give a new or an empty folder"
        )


def keeps_state(out_dir: Path, inputs: Mapping[str, Any]) -> bool:
    """Whether a run with these inputs may go on from what an earlier one left in the folder, such as a checkpoint.

    It may where all is equal but code that measures and draws and does not train.
    """
    try:
        left = json.loads((out_dir / INPUTS).read_bytes())
        return _of_training(left) == _of_training(inputs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _of_training(inputs: Mapping[str, Any]) -> dict[str, Any]:
    code = {file: sha for file, sha in inputs["code"].items() if file.startswith(TRAINING_CODE)}
    return {**inputs, "code": code}


def _prepare(out_dir: Path, inputs: Mapping[str, Any]) -> None:
    """Leave in the folder only what a run with these inputs may go on from."""
    remove(out_dir / RESULT)  # first of all: from here on nothing here is a result
    keep = keeps_state(out_dir, inputs)
    made = {"tables", "figures", FAILURE, NOTEBOOK, LOG, AT_WORK}
    for entry in out_dir.iterdir():
        if entry.name != LOCK and (not keep or entry.name in made):
            remove(entry)
    write_json(out_dir / INPUTS, inputs)  # before anything else, so that the folder can be told to be ours
    for kind in ("tables", "figures"):
        (out_dir / kind).mkdir()


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# --- papermill ------------------------------------------------------------------------------------------------------


def _execute(path: Path, given: Mapping[str, Value], out_dir: Path, timeout_s: float | None) -> tuple[float, float]:
    """Run the notebook, once there is a place for its kernel, and keep it as `notebook.ipynb`, failed or not.

    When it began, on the monotonic clock, and the kernel's own time, in seconds. Raises: RunError.
    """
    with light_imports():
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from papermill import execute_notebook
        from papermill.exceptions import PapermillExecutionError

        from analysis.study import kernel

    running = out_dir / AT_WORK
    failure: RunError | None = None
    with closing(kernel.Log(out_dir / LOG)) as log:
        run = kernel.Run(folder=path.parent, log=log, timeout_s=timeout_s)

        def failed(kind: type[RunError], what: str) -> RunError:
            where = f", cell {run.cell + 1} (`{run.source}`)" if run.cell is not None else ""
            return kind(f"{path.name}{where}: {what}; the executed notebook and its log are in {out_dir}")

        late = f"the notebook was not done within its {timeout_s or 0:g} s"
        log.say(f"{path.name} {json.dumps(given)}")
        try:
            with place():
                run.start_s = time.monotonic()
                execute_notebook(
                    path, running, dict(given), engine_name=kernel.ENGINE, kernel_name="python3", language="python",
                    progress_bar=False, run=run,
                )  # fmt: skip
        except KeyboardInterrupt:
            log.say("interrupted")
            _keep_page(_page(running), out_dir, "interrupted")
            raise
        except PapermillExecutionError as error:
            log.write(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)) + "\n")
            kind = NotebookExitError if error.ename == "SystemExit" else CellFailedError
            failure = failed(kind, f"{error.ename}: {error.evalue}")
        except CellTimeoutError:
            failure = failed(NotebookTimeoutError, late)
        except kernel.ExitRequested:
            failure = failed(NotebookExitError, "the cell ended the kernel; a notebook runs to its last cell")
        except (DeadKernelError, RuntimeError) as error:
            if run.is_late():  # its kernel took all the time to start
                failure = failed(NotebookTimeoutError, late)
            else:
                failure = failed(KernelDiedError, f"{error} {_ending(run.exit_code)}".strip())
        page = _page(running)
        if failure is None:
            if exits := [
                o for cell in page["cells"] for o in cell.get("outputs", ()) if o.get("ename") == "SystemExit"
            ]:
                failure = failed(
                    NotebookExitError, f"SystemExit: {exits[0]['evalue']}; a notebook runs to its last cell"
                )
            elif skipped := [str(number) for number, cell in enumerate(page["cells"], 1) if _is_unexecuted(cell)]:
                run.cell = None
                failure = failed(IncompleteError, f"cells {', '.join(skipped)} were never executed")
        _keep_page(page, out_dir, str(failure) if failure else None)
        log.say(str(failure or "done"))
    if failure:
        raise failure
    return run.start_s, run.kernel_s


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    if exit_code >= 0:
        return f"(its process exited with {exit_code})"
    killed = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
    return f"(its process ended by {signal.Signals(-exit_code).name}{killed})"


def _is_unexecuted(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "code" and bool(source_of(cell).strip()) and cell.get("execution_count") is None


def _page(running: Path) -> dict[str, Any]:
    """What papermill wrote, or an empty notebook where it did not come that far."""
    try:
        return json.loads(running.read_bytes())
    except (FileNotFoundError, ValueError):
        return {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def _keep_page(page: dict[str, Any], out_dir: Path, failure: str | None) -> None:
    """Save the executed notebook in one step, with nothing in it that tells where it ran, or that is not so."""
    page["metadata"].pop("papermill", None)
    for cell in page["cells"]:
        record = cell["metadata"].get("papermill", {})
        if _is_unexecuted(cell) and record:
            record["status"] = "pending"  # papermill marks every cell completed once the kernel is gone
    if failure:
        note = {
            "cell_type": "markdown",
            "id": "failure",
            "metadata": {},
            "source": f"This run failed:\n\n```\n{failure}\n```",
        }
        page["cells"].insert(0, note)
    write_atomic(out_dir / NOTEBOOK, scrub(json.dumps(page, indent=1, ensure_ascii=False)) + "\n")
    (out_dir / AT_WORK).unlink(missing_ok=True)


# What jsonschema takes, if it is there, to check formats that neither notebooks nor profiles have.
_FORMATS = (
    "fqdn", "isoduration", "jsonpointer", "rfc3339_validator", "rfc3986_validator", "rfc3987", "rfc3987_syntax",
    "uri_template", "webcolors",
)  # fmt: skip


class _Later(ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


@contextmanager
def light_imports() -> Iterator[None]:
    """Import papermill and jsonschema in half their time: without format checks, and without `requests`, which
    papermill has for notebooks on the web."""
    absent = dict.fromkeys(_FORMATS) | {"requests": _Later("requests")}
    absent = {name: module for name, module in absent.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
