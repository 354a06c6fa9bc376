"""The kernel of one notebook run, used by papermill: this Python, over IPC, with a deadline and limited output.

Importing this module registers the engine with papermill; only `analysis.study.runner` does so.
"""

from __future__ import annotations

import ast
import asyncio
import itertools
import logging
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.client import CellExecutionComplete
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine as PapermillEngine
from papermill.engines import papermill_engines

from analysis.study.processes import chosen_data, own_environment, pack, python_path

ENGINE = "resattn"

# A notebook that prints without end fills neither memory nor disk: what goes beyond is dropped, and the page says so.
CELL_BYTES, NOTEBOOK_BYTES, LOG_BYTES = 1 << 20, 16 << 20, 8 << 20
CUT = "\n[the rest of the output is dropped: it is too long for a page]\n"
START_S = 60.0
# A kernel says that it is done with a cell after its reply, which then takes this long at most: on an idle machine,
# a thousandth of a second. A cell that computes is never done so, however long it takes.
REPLY_S = 60.0
LONGEST_SOCKET = 107  # bytes of a Unix socket's path


class ExitRequested(Exception):
    """A cell asked its kernel to exit."""


class TooDeepError(Exception):
    """A cell that Python cannot compile; IPython would never answer."""


class MovedError(Exception):
    """A cell changed the kernel's current folder."""


@dataclass
class Execution:
    """One notebook run: the settings of its kernel, and how far it got."""

    folder: Path  # the kernel's working directory
    log: Log
    timeout_s: float | None
    stays: bool = False  # the current folder is the same after every cell
    cell: int | None = None  # the one that ran last, by its number in the source
    source: str = ""  # its first line
    exit_code: int | None = None  # of the kernel, negative for a signal; None: it was alive at the end
    is_mute: bool = False  # the kernel is done with a cell, and sent no reply
    kernel_s: float = 0.0  # from the start of its process to the end
    start_s: float = field(default_factory=time.monotonic)

    def left_s(self) -> float | None:
        """Remaining time in seconds, never exactly 0, which nbclient takes for no limit; None without a limit."""
        return None if self.timeout_s is None else max(self.timeout_s - (time.monotonic() - self.start_s), 1e-3)

    def is_late(self) -> bool:
        return self.timeout_s is not None and time.monotonic() - self.start_s >= self.timeout_s


class Log:
    """A text file with a size limit for all writers; lines of `say` are written in any case."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="replace", buffering=1)
        self._left = LOG_BYTES
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            if self._left > 0:
                self._file.write(text[: self._left])
                if len(text) >= self._left:
                    self._file.write(CUT)
            self._left -= len(text)

    def flush(self) -> None:
        with self._lock:
            self._file.flush()

    def say(self, line: str) -> None:
        """Writes a line of the runner."""
        with self._lock:
            self._file.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def pipe(self) -> Iterator[int]:
        """A file descriptor for the kernel's own stdout and stderr, outside Jupyter's protocol."""
        reading, writing = os.pipe()

        def pump() -> None:
            with open(reading, "rb", buffering=0) as source:
                while block := source.read(1 << 16):
                    self.write(block.decode(errors="replace"))

        thread = threading.Thread(target=pump, daemon=True, name="kernel-stderr")
        thread.start()
        try:
            yield writing
        finally:
            os.close(writing)
            thread.join(timeout=2)  # a process that the kernel left behind may hold its end open for ever


class KernelManager(AsyncKernelManager):
    """Starts this Python, whatever kernelspecs are installed, and records how the kernel ended."""

    exit_code: int | None = None

    @property
    def kernel_spec(self) -> KernelSpec:
        # Descriptors 1 and 2 stay what they are, our log: a dying kernel's last words never reach a page.
        raw = "--IPKernelApp.capture_fd_output=False"
        packer = f"--Session.packer={pack.__module__}.{pack.__name__}"
        streams = f"--IPKernelApp.extensions={pack.__module__}"
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", raw, packer, streams]
        return KernelSpec(argv=command, display_name="resattn", language="python")

    async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]
        if self.provisioner is not None:
            self.exit_code = await self.provisioner.poll()
        await super().cleanup_resources(restart=restart)


class Client(PapermillNotebookClient):
    """papermill's client with one deadline for the whole notebook and a limit on stored output."""

    def __init__(self, nb_man: Any, run: Execution, **options: Any) -> None:
        super().__init__(
            nb_man,
            timeout_func=lambda cell: run.left_s(),
            startup_timeout=math.ceil(min(START_S, run.left_s() or START_S)),
            # A flood may cost the message that ends a cell's output. Whether it ran is told by the other channel.
            iopub_timeout=10,
            raise_on_iopub_timeout=False,
            on_cell_execute=self._started,
            on_cell_executed=self._ended,
            stdout_file=run.log,
            stderr_file=run.log,
            **options,
        )
        self.run = run
        self.notebook_left, self.cell_left = NOTEBOOK_BYTES, CELL_BYTES

    def _started(self, cell: NotebookNode, cell_index: int) -> None:
        self.run.cell = number_in_source(self.nb.cells, cell_index)
        self.run.source = cell.source.strip().splitlines()[0][:200]
        self.cell_left = CELL_BYTES
        self.run.log.say(f"cell {self.run.cell}")
        if self.run.is_late():
            raise CellTimeoutError
        if _is_too_deep(cell.source):
            raise TooDeepError("its expressions are nested too deep, or have too many terms, to be compiled")

    def _ended(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any] | None) -> None:
        content = (execute_reply or {}).get("content", {})
        cell["execution_count"] = content.get("execution_count")
        cell["outputs"] = merged_streams(cell["outputs"])
        if "raises-exception" in cell.metadata.get("tags", ()):
            cell["outputs"] = [_as_text(output) for output in cell["outputs"]]  # papermill takes an error for a failure
            if any(output.output_type == "error" for output in cell["outputs"]):
                raise ExitRequested
        if any(payload.get("source") == "ask_exit" for payload in content.get("payload", ())):
            raise ExitRequested
        if self.run.stays and (now := self._current_folder()) not in (None, str(self.run.folder)):
            raise MovedError(f"the cell changed the current folder to {now}")

    def _current_folder(self) -> str | None:
        """That of the kernel; None where the system does not tell."""
        try:
            return os.readlink(f"/proc/{self.km.provisioner.pid}/cwd")
        except (OSError, AttributeError):
            return None

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        try:
            return super().process_message(msg, cell, cell_index)
        except CellExecutionComplete:
            asyncio.get_running_loop().call_later(REPLY_S, self._wait_no_more, self.task_poll_for_reply)
            raise

    def _wait_no_more(self, reply: asyncio.Future[Any]) -> None:
        if not reply.done():
            self.run.is_mute = True
            reply.cancel()  # nbclient takes this for the death of the kernel

    def output(self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str, cell_index: int) -> Any:
        """Stores an output while there is room; what does not fit is cut or dropped, and the page says so once."""
        content = _encodable(msg["content"])
        if msg["msg_type"] == "error":  # always kept, but no traceback is worth a megabyte
            content["evalue"] = content["evalue"][:20_000]
            content["traceback"] = [line[:20_000] for line in content["traceback"][:100]]
        elif msg["msg_type"] == "stream":
            if 0 < self.cell_left < len(content["text"]):  # progress bars may take less than they did
                before, outs[:] = _stream_bytes(outs), merged_streams(outs)
                self._spend(_stream_bytes(outs) - before)
            room = min(self.cell_left, self.notebook_left)
            if room <= 0:
                return None
            if len(content["text"]) > room:
                content["text"] = content["text"][:room] + CUT
            self._spend(len(content["text"]) + 100)  # a message of one character costs more than one byte
        elif "data" in content:
            size = sum(len(str(value)) for value in content["data"].values())
            if size > self.notebook_left:
                content["data"] = {"text/plain": CUT.strip()} if self.notebook_left > 0 else {}
            self.notebook_left -= size
        return super().output(outs, msg, display_id, cell_index)

    def _spend(self, size: int) -> None:
        self.cell_left -= size
        self.notebook_left -= size


def merged_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs with consecutive texts of one stream merged, and for each line what was last written over it.

    nbclient can also do this, but in time quadratic in the length of a line.
    """
    merged: list[NotebookNode] = []
    for (kind, _), group in itertools.groupby(outputs, lambda output: (output.output_type, output.get("name"))):
        if kind != "stream":
            merged += group
            continue
        first, *rest = group
        lines = "".join([first.text, *(output.text for output in rest)]).split("\n")
        first.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        merged.append(first)
    return merged


def _is_too_deep(source: str) -> bool:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit - 100)  # the kernel compiles from within more calls than this
    try:
        compile(source, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (RecursionError, MemoryError):
        return True
    except (SyntaxError, ValueError):
        return False  # IPython's own words, or no Python: the kernel says so
    finally:
        sys.setrecursionlimit(limit)
    return False


def number_in_source(cells: Sequence[Mapping[str, Any]], index: int) -> int:
    """The number of a cell in the original notebook, without the cell of parameters that papermill inserts."""
    before = cells[: index + 1]
    return len(before) - sum("injected-parameters" in cell["metadata"].get("tags", ()) for cell in before)


def _as_text(output: NotebookNode) -> NotebookNode:
    """An exception that a cell was meant to raise, as text; one that ends the notebook stays."""
    if output.output_type != "error" or output.ename == "SystemExit":
        return output
    return NotebookNode(output_type="stream", name="stderr", text="\n".join(output.traceback) + "\n")


def _encodable(value: Any) -> Any:
    """A message in place, its texts without lone surrogates, which no file in UTF-8 can hold."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        for name, item in value.items():
            value[name] = _encodable(item)
    elif isinstance(value, list):
        value[:] = map(_encodable, value)
    return value


def _stream_bytes(outputs: list[NotebookNode]) -> int:
    return sum(len(output.text) + 100 for output in outputs if output.output_type == "stream")


class StrictEngine(PapermillEngine):
    """The engine that papermill calls; it makes an `Execution`."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, run: Execution, **_: Any) -> None:
        logger = logging.Logger("kernel", logging.WARNING)
        logger.addHandler(logging.StreamHandler(run.log))
        with tempfile.TemporaryDirectory(prefix="resattn-", dir=_socket_folder()) as runtime, run.log.pipe() as pipe:
            # IPC: sockets in a folder of this run's own, where parallel kernels race for TCP ports.
            manager = KernelManager(
                transport="ipc", connection_file=f"{runtime}/kernel.json", shutdown_wait_time=2.0, log=logger
            )
            environment = {
                **own_environment(),
                "PYTHONPATH": python_path(),
                "IPYTHONDIR": runtime,  # no start-up files of whoever runs this
                "PYTHONFAULTHANDLER": "1",  # where a crash outside Python happened
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            } | chosen_data()
            client = Client(nb_man, run, km=manager, log=logger)
            start = time.monotonic()
            try:
                client.execute(cleanup_kc=True, cwd=str(run.folder), env=environment, stdout=pipe, stderr=pipe)
            finally:
                run.exit_code, run.kernel_s = manager.exit_code, time.monotonic() - start


def _socket_folder() -> str:
    folder = tempfile.gettempdir()
    is_usable = folder.isascii() and len(folder) + len("/resattn-12345678/kernel-ipc-5") < LONGEST_SOCKET
    return folder if is_usable else "/tmp"


papermill_engines.register(ENGINE, StrictEngine)
