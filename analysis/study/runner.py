"""One strict execution of a notebook: what papermill ignores is refused here, or is a failure.

Parameters are checked before a kernel starts. A run that did not execute every cell has failed, whatever the exit
status of its kernel. `result.json` is written last, so it exists only beside complete outputs.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from analysis.study.dependencies import (
    OUT_DIR,
    VERSION,
    State,
    changes,
    file_state,
    notebook_digest,
    results_read,
    run_inputs,
    watched_files,
)
from analysis.study.job_folder import (
    AT_WORK,
    LOCK,
    LOG,
    SOURCE,
    check_folder,
    keep_page,
    listed,
    prepare_folder,
    read_listing,
    read_result,
    record_failure,
    write_result,
)
from analysis.study.light_imports import light_imports
from analysis.study.notebook_parameters import NotebookError, ParameterError, Value, check_parameters, is_place
from analysis.study.page import FAILURE_CELL, read_page, unexecuted
from analysis.study.processes import exclusive, follow_parent, place
from analysis.tables.files import digest, write_atomic
from analysis.tables.provenance import provenance


class RunError(NotebookError):
    """A run that failed; the executed notebook and its log are kept."""


class CellFailedError(RunError):
    """A cell raised an exception."""


class KernelDiedError(RunError):
    """The kernel's process ended before the notebook did."""


class NotebookExitError(RunError):
    """A cell ended the run (`sys.exit`, `quit`), with any status."""


class NotebookTimeoutError(RunError):
    """The notebook exceeded its time limit."""


class IncompleteError(RunError):
    """Cells were not executed although no exception was raised."""


class ChangedError(RunError):
    """Something that the run depends on was changed while it waited or ran."""


def run_notebook(
    path: Path | str, parameters: Mapping[str, Any], out_dir: Path | str, *, timeout_s: float | None = 3600.0
) -> Path:
    """The `result.json` of one execution of a notebook; the executed notebook, log, tables and figures are beside it.

    `parameters`: values, or texts as on the command line; a name that ends in `_dir` is a folder, relative to the
    current one. `timeout_s`: for the whole notebook; None for no limit. The kernel is this Python, in the notebook's
    folder, with `resattn` and `analysis` importable. Files in `out_dir` of an interrupted run with the same inputs are
    kept so that this run resumes (see `keeps_state`); otherwise the folder is emptied.

    Raises: ParameterError, FolderError, FolderInUseError before a kernel starts; RunError after that, with the executed
    notebook and `failure.json` kept and no `result.json`.
    """
    follow_parent()
    path, out_dir = Path(path).resolve(), Path(out_dir).resolve()
    if OUT_DIR in parameters:
        raise ParameterError(f"{OUT_DIR} is where the run writes to; give it as the output folder")
    values = check_parameters(path, parameters)
    given = {name: values[name] for name in parameters}
    for name, value in given.items():
        if is_place(name, value):
            place_ = os.path.abspath(os.path.expanduser(str(value)))
            values[name] = given[name] = os.path.relpath(place_, path.parent)
    if OUT_DIR in values:
        # Relative, as in an interactive session: the page of a run does not tell where its checkout lay.
        values[OUT_DIR] = given[OUT_DIR] = os.path.relpath(out_dir, path.parent)
    source = path.read_bytes()
    watched = _Watched(path, values)
    inputs = watched.inputs
    check_folder(out_dir)
    with exclusive(out_dir / LOCK, what=str(out_dir)):
        prepare_folder(out_dir, inputs)
        write_atomic(out_dir / SOURCE, _with_ids(source))
        try:
            start_s, kernel_s = _execute(path, given, out_dir, timeout_s, watched)
            elapsed_s = time.monotonic() - start_s
            record = {
                "version": VERSION,
                "notebook": path.name,
                "notebook_sha256": digest(source),
                "parameters": json.loads(json.dumps(values)),
                "inputs": inputs,
                "elapsed_s": round(elapsed_s, 3),
                "kernel_s": round(kernel_s, 3),
                "provenance": provenance(start=datetime.now(UTC) - timedelta(seconds=elapsed_s)),
            }
            return write_result(out_dir, record)
        except (RunError, OSError, UnicodeError) as error:
            failure, cause = error, None
            if not isinstance(error, RunError):  # a full disk, a folder that a cell removed, a name that is no UTF-8
                failure, cause = IncompleteError(f"{path.name}: its results cannot be saved ({error})"), error
            with suppress(OSError):
                record_failure(out_dir, type(failure).__name__, str(failure))
            raise failure from cause
        finally:
            with suppress(OSError):
                (out_dir / SOURCE).unlink(missing_ok=True)


def _with_ids(source: bytes) -> bytes:
    """A notebook whose cells have no ids, or valid ones of their own: nbformat would draw others by chance."""
    notebook = json.loads(source)
    taken, wrong = {FAILURE_CELL}, []
    for cell in (cell for cell in notebook["cells"] if "id" in cell):
        id_ = cell["id"]
        if isinstance(id_, str) and re.fullmatch(r"[\w-]{1,64}", id_, re.ASCII) and id_ not in taken:
            taken.add(id_)
        else:
            wrong.append(cell)
    free = (id_ for id_ in map("cell-{}".format, itertools.count(1)) if id_ not in taken)
    for cell in wrong:
        cell["id"] = next(free)
    return json.dumps(notebook).encode() if wrong else source


class _Watched:
    """All that a run reads, which must stay as it was digested until the run ends."""

    def __init__(self, path: Path, values: Mapping[str, Value]) -> None:
        self.path, self.values = path, values
        self.states = self._states()  # before the digests: what is edited while they are taken is found
        self.inputs = run_inputs(path, values)

    def _states(self) -> dict[str, State | None]:
        files = {self.path.name: self.path} | watched_files(self.path, self.values)
        for inside, folder in results_read(self.path, self.values).items():
            names = listed(result) if (result := read_listing(folder)) else ()
            files |= {f"{inside}/{name}": folder / name for name in names}
        return {name: _state(file) for name, file in files.items()}

    def changed_while_waiting(self, source: Path) -> list[str]:
        """What is not as it was digested when the kernel may start."""
        if notebook_digest(source) != self.inputs["notebook"]:
            return [self.path.name]
        self.states, before = self._states(), self.states
        read = results_read(self.path, self.values)
        if altered := [inside for inside, folder in read.items() if read_result(folder) is None]:
            return altered
        return changes(self.inputs, run_inputs(self.path, self.values)) if self.states != before else []

    def changed_while_running(self) -> list[str]:
        """The files that were written since the kernel started, even if they were put back."""
        now = self._states()
        return [name for name in sorted(now.keys() | self.states.keys()) if now.get(name) != self.states.get(name)]


def _state(file: Path) -> State | None:
    try:
        return file_state(file)
    except OSError:
        return None


def _execute(
    path: Path, given: Mapping[str, Value], out_dir: Path, timeout_s: float | None, watched: _Watched
) -> tuple[float, float]:
    """The start of the run on the monotonic clock, and the kernel's own time, in seconds.

    Executes the copy of the notebook once there is a place for its kernel, and keeps it as `notebook.ipynb`, failed or
    not. Raises: RunError.
    """
    with light_imports():
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
        from papermill import execute_notebook
        from papermill.exceptions import PapermillExecutionError

        from analysis.study import kernel

    running = out_dir / AT_WORK
    failure: RunError | None = None
    with closing(kernel.Log(out_dir / LOG)) as log:
        run = kernel.Execution(folder=path.parent, log=log, timeout_s=timeout_s, stays=OUT_DIR in given)

        def failed(kind: type[RunError], what: str) -> RunError:
            where = f", cell {run.cell} (`{run.source}`)" if run.cell is not None else ""
            return kind(f"{path.name}{where}: {what}; the executed notebook and its log are in {out_dir}")

        late = f"the notebook was not done within its {timeout_s or 0:g} s"
        log.say(f"{path.name} {json.dumps(given)}")
        try:
            with place():
                run.start_s = time.monotonic()
                if changed := watched.changed_while_waiting(out_dir / SOURCE):
                    raise failed(ChangedError, f"{', '.join(changed)} changed while this job waited: run it again")
                execute_notebook(
                    _literal(out_dir / SOURCE), _literal(running), dict(given), engine_name=kernel.ENGINE,
                    kernel_name="python3", language="python", progress_bar=False, run=run,
                )  # fmt: skip
        except KeyboardInterrupt:
            log.say("interrupted")
            keep_page(read_page(running), out_dir, "interrupted")
            raise
        except ChangedError as error:
            failure = error
        except PapermillExecutionError as error:
            log.write(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)) + "\n")
            kind = NotebookExitError if error.ename == "SystemExit" else CellFailedError
            failure = failed(kind, f"{error.ename}: {error.evalue}")
        except CellTimeoutError:
            failure = failed(NotebookTimeoutError, late)
        except kernel.TooDeepError as error:
            failure = failed(CellFailedError, str(error))
        except kernel.MovedError as error:
            failure = failed(CellFailedError, f"{error}; out_dir is relative, so later cells would write elsewhere")
        except OSError as error:
            failure = failed(IncompleteError, f"cannot continue ({type(error).__name__}: {error.strerror or error})")
        except kernel.ExitRequested:
            failure = failed(NotebookExitError, "the cell ended the kernel; a notebook runs to its last cell")
        except (DeadKernelError, RuntimeError) as error:
            if run.is_late():  # its kernel took all the time to start
                failure = failed(NotebookTimeoutError, late)
            elif run.is_mute:
                failure = failed(KernelDiedError, "the kernel is done with the cell and sends no reply")
            else:
                failure = failed(KernelDiedError, f"{error} {_ending(run.exit_code)}".strip())
        page = read_page(running)
        if failure is None:
            outputs = [output for cell in page["cells"] for output in cell.get("outputs", ())]
            if exits := [output["evalue"] for output in outputs if output.get("ename") == "SystemExit"]:
                failure = failed(NotebookExitError, f"SystemExit: {exits[0]}; a notebook runs to its last cell")
            elif not page["cells"]:
                failure = failed(IncompleteError, "it has no cells, or its page was not written")
            elif skipped := unexecuted(page):
                run.cell = None
                failure = failed(IncompleteError, f"cells {', '.join(skipped)} were never executed")
            elif changed := watched.changed_while_running():
                run.cell = None
                failure = failed(ChangedError, f"{', '.join(changed)} changed while this job ran: run it again")
        keep_page(page, out_dir, str(failure) if failure else None)
        log.say(str(failure or "done"))
    if failure:
        raise failure
    return run.start_s, run.kernel_s


def _literal(path: Path) -> str:
    """A path for papermill, which fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _ending(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    if exit_code >= 0:
        return f"(its process exited with {exit_code})"
    killed = " (out of memory?)" if exit_code == -signal.SIGKILL else ""
    return f"(its process ended by {signal.Signals(-exit_code).name}{killed})"
