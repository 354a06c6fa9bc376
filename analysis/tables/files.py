"""Tables on disk: tidy CSV, each with a schema and a sidecar with its provenance."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.tables.provenance import ROOT
from analysis.tables.provenance import provenance as circumstances
from analysis.tables.schemas import Column, Schema, SchemaError, schema_of

if TYPE_CHECKING:  # what only writes files beside a table need not wait for pandas
    import pandas as pd


NOTEBOOKS = "notebooks"  # their folder
INTERACTIVE = "../results/interactive/"  # seen from it: where notebooks write and read by default


class FrameError(ValueError):
    """There is nothing to make a frame of; the message says what was searched, and where."""


class TableError(ValueError):
    """A file does not agree with the schema of its table."""

    def __init__(self, path: Path, actual: str, expected: str) -> None:
        super().__init__(f"{path}: found {actual}; expected {expected}")
        self.path, self.actual, self.expected = path, actual, expected


def output(out_dir: str, *names: str) -> Path:
    """A path in the folder that a notebook writes to, which is relative to the current folder.

    The default of our notebooks, `../results/interactive/...`, is relative to their own folder. papermill may run one
    in another folder; its results are then still in this checkout.
    """
    is_default = out_dir.startswith(INTERACTIVE) and Path.cwd().name != NOTEBOOKS
    return Path(ROOT / NOTEBOOKS if is_default else "", out_dir, *names)


def write_atomic(path: Path | str, data: str | bytes) -> Path:
    """Writes `data` to `path`: afterwards the file is complete, or as it was before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.part")
    try:
        # Not tempfile: its files are for their owner alone, and results are shared.
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself survives a power cut
    finally:
        os.close(folder)
    return path


def write_json(path: Path | str, value: Any) -> Path:
    """Writes `value` as JSON to `path` in one step; NaN is refused, since JSON has none."""
    return write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def open_regular(path: Path | str) -> BufferedReader:
    """A file, open for reading. Raises: OSError, also for a device or a FIFO, which may never end; it is not opened."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def read_regular(path: Path | str, most: int = 1 << 28) -> bytes:
    """The content of a file of at most `most` bytes. Raises: OSError as `open_regular`, and for a larger file."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return content


def read_json(path: Path | str) -> dict[str, Any]:
    """The mapping in a JSON file; empty if there is no file or no mapping in it."""
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def digest(data: bytes | Path) -> str:
    """The sha256 of bytes or of a file, in hex. Raises: OSError as `open_regular`."""
    if isinstance(data, Path):
        with open_regular(data) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


def sidecar(path: Path | str) -> Path:
    """The path of a table's provenance."""
    path = Path(path)
    return path.with_name(f"{path.stem}.provenance.json")


def write_table(
    frame: pd.DataFrame, path: Path | str, provenance: Mapping[str, Any] | None = None, *, schema: Schema | None = None
) -> Path:
    """Writes `frame` as CSV without its index, after its sidecar: no table exists without one.

    `provenance`: of the computation (default: now, this process). `schema`: of the table (default: by the file's name).
    The sidecar also holds the rows, columns and sha256 of the table. Floats are written so that they are read back to
    the same bits. Raises: SchemaError if the frame has other columns or types.
    """
    path = Path(path)
    check_frame(frame, schema or schema_of(path.name))
    text = frame.to_csv(index=False, lineterminator="\n").encode()
    about = {"table": path.name, "rows": len(frame), "columns": [str(name) for name in frame.columns]}
    write_json(
        sidecar(path),
        {**about, "sha256": digest(text), "provenance": dict(circumstances() if provenance is None else provenance)},
    )
    return write_atomic(path, text)


def check_frame(frame: pd.DataFrame, schema: Schema) -> None:
    """Raises: SchemaError naming every column of the frame that is missing, extra, or of another type."""
    wrong = [f"lacks {name}" for name in schema.names if name not in frame.columns]
    for name in map(str, frame.columns):
        if (column := schema.column(name)) is None:
            wrong.append(f"has {name}, which the schema does not state")
        elif (bad := _misfit(frame[name], column)) is not None:
            wrong.append(f"has {bad!r} in {name}, which holds {column.kind.__name__}")
    if wrong:
        raise SchemaError(f"{schema.file}: the frame {'; '.join(wrong)}")


def _misfit(values: pd.Series, column: Column) -> Any:
    """The first value that is not of the column's type; None where all are."""
    return next(
        (value for value in values if not (column.may_be_empty if _is_empty(value) else column.holds(value))), None
    )


def _is_empty(value: Any) -> bool:
    return value is None or value != value or value == ""


def read_table(path: Path | str, schema: Schema) -> pd.DataFrame:
    """The table in `path`, with the columns and types of `schema`; unchanged since it was written if it has a sidecar.

    A column that earlier versions did not write gets its default; one that is not in the schema stays as it is. In a
    column of strings an empty cell is the empty string, in others it is missing; a string such as "NA" or "None" is a
    string.

    Raises: TableError: no such file, not CSV, altered since it was written, or a column or type that is not as stated.
    """
    import pandas as pd

    path = Path(path)
    try:
        data = read_regular(path)
    except OSError as error:
        raise TableError(path, error.strerror or str(error), "a table") from error
    _check_sidecar(path, data)
    try:
        # Read as text and converted here: pandas would round a large integer without a word.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise TableError(path, f"no CSV ({error})", f"columns {', '.join(schema.required)}") from error
    if missing := [name for name in schema.required if name not in frame.columns]:
        raise TableError(path, f"columns {', '.join(map(str, frame.columns))}", f"also {', '.join(missing)}")
    for name in frame.columns:
        if column := schema.column(name):
            frame[name] = _converted(frame[name], column, path)
    return frame.assign(**{c.name: c.default for c in schema.columns if c.may_lack and c.name not in frame})


def _check_sidecar(path: Path, data: bytes) -> None:
    try:
        about = json.loads(read_regular(sidecar(path)))
        recorded = about["sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TableError(sidecar(path), f"no provenance ({error!r})", "JSON with the table's sha256") from error
    if recorded != (actual := digest(data)):
        raise TableError(path, f"sha256 {actual[:12]}", f"{str(recorded)[:12]}, as its provenance says")


def _converted(column: pd.Series, stated: Column, path: Path) -> pd.Series:
    import pandas as pd

    parse, kind = _PARSERS[stated.kind], stated.kind
    values = []
    for row, cell in enumerate(column, start=2):  # line 1 is the header
        try:
            if cell == "" and not stated.may_be_empty:
                raise ValueError(cell)
            values.append(parse(cell) if cell != "" or kind is str else None)
        except ValueError:
            raise TableError(path, f"{cell!r} in column {column.name}, line {row}", kind.__name__) from None
    exact = kind is not int or all(v is not None and abs(v) < 2**63 for v in values)
    return pd.Series(values, index=column.index, name=column.name, dtype=None if exact and values else object)


def _bool(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


_PARSERS: dict[type, Callable[[str], Any]] = {int: int, float: float, bool: _bool, str: str}
