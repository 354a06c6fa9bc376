import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.tables import files, schemas
from analysis.tables.files import TableError, check_frame, read_table, sidecar, write_atomic, write_json, write_table
from analysis.tables.schemas import Column, Schema, SchemaError


def schema(**columns: type) -> Schema:
    return Schema("t", tuple(Column(name, kind, may_be_empty=kind is not bool) for name, kind in columns.items()))


TARGETS = schema(target=str, value=float, unit=str)
FRAME = pd.DataFrame({"target": ["attention56", "NA"], "value": [0.1, 2.0], "unit": ["px", "None"]})


def test_a_table_reads_back_as_it_was_written(tmp_path):
    path = write_table(FRAME, tmp_path / "new" / "depth.csv", {"seed": 1}, schema=TARGETS)
    pd.testing.assert_frame_equal(read_table(path, TARGETS), FRAME, check_dtype=False)


@given(st.lists(st.floats(allow_nan=False), min_size=1))
@settings(max_examples=50)
def test_floats_read_back_to_the_same_bits(tmp_path_factory, values):
    path = write_table(
        pd.DataFrame({"value": values}), tmp_path_factory.mktemp("t") / "t.csv", {}, schema=schema(value=float)
    )
    assert read_table(path, schema(value=float))["value"].tolist() == values


def test_integers_of_any_size_stay_exact_beside_empty_cells(tmp_path):
    values = [2**70 + 1, -3, None]
    frame = pd.DataFrame({"value": pd.Series(values, dtype=object)})
    path = write_table(frame, tmp_path / "t.csv", {}, schema=schema(value=int))
    assert read_table(path, schema(value=int))["value"].tolist() == values


def test_typed_columns(tmp_path):
    stated = schema(n=int, big=int, x=float, b=bool)
    frame = pd.DataFrame({"n": [1, 2], "big": pd.Series([2**80, 1], dtype=object), "x": [1.0, 2.5], "b": [True, False]})
    read = read_table(write_table(frame, tmp_path / "t.csv", {}, schema=stated), stated)
    assert [read[name].tolist() for name in frame] == [frame[name].tolist() for name in frame]
    assert [read[name].dtype for name in ("n", "x", "b")] == [np.int64, np.float64, np.bool_]


def test_a_column_that_earlier_versions_lack_has_its_default(tmp_path):
    stated = Schema("t", (Column("n", int), Column("noise", float, default=0.0)))
    (tmp_path / "t.csv").write_text("n\n1\n")
    assert read_table(tmp_path / "t.csv", stated).to_dict("list") == {"n": [1], "noise": [0.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "value"}, "the frame lacks value"),
        ({"rename": "length"}, "the frame lacks value; has length, which the schema does not state"),
        ({"set": "x"}, "has 'x' in value, which holds int"),
        ({"set": 1.5}, "has 1.5 in value, which holds int"),
        ({"set": True}, "has True in value, which holds int"),
        ({"network": ""}, "has '' in network, which holds str"),
    ],
)
def test_a_frame_that_does_not_fit_its_schema_is_not_written(tmp_path, change, message):
    frame = pd.DataFrame({"network": ["a"], "quantity": ["params"], "value": [1], "unit": [""]})
    check_frame(frame, schemas.DEPTH)
    match change:
        case {"drop": name}:
            frame = frame.drop(columns=name)
        case {"rename": name}:
            frame = frame.rename(columns={"value": name})
        case {"set": value}:
            frame = frame.assign(value=[value])
        case {"network": value}:
            frame = frame.assign(network=[value])
    with pytest.raises(SchemaError, match=re.escape(message)):
        write_table(frame, tmp_path / "depth.csv", {})
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_schema_of_its_own_names_one(tmp_path):
    with pytest.raises(SchemaError, match=r"no table has the file name t.csv; give write_table the schema"):
        write_table(FRAME, tmp_path / "t.csv")
    with pytest.raises(SchemaError, match=r"2 tables have the file name published.csv"):
        write_table(FRAME, tmp_path / "published.csv")


def test_an_empty_table_keeps_its_columns(tmp_path):
    path = write_table(FRAME.iloc[:0], tmp_path / "t.csv", {}, schema=TARGETS)
    assert list(read_table(path, TARGETS).columns) == list(FRAME.columns)


def test_the_sidecar_says_where_the_table_came_from(tmp_path):
    path = write_table(FRAME, tmp_path / "depth.csv", {"seed": 3}, schema=TARGETS)
    about = json.loads((tmp_path / "depth.provenance.json").read_text())
    assert (about["table"], about["rows"], about["columns"]) == ("depth.csv", 2, ["target", "value", "unit"])
    assert about["provenance"] == {"seed": 3}
    assert about["sha256"] == files.digest(path)


def test_without_provenance_the_circumstances_are_written(tmp_path):
    write_table(FRAME, tmp_path / "t.csv", schema=TARGETS)
    assert "versions" in json.loads(sidecar(tmp_path / "t.csv").read_text())["provenance"]


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (None, {"a": str}, "found No such file or directory; expected a table"),
        (b"a,b\n1,2\n", {"a": str, "c": str}, "found columns a, b; expected also c"),
        (b"a\n1\nx\n", {"a": int}, "found 'x' in column a, line 3; expected int"),
        (b"a\nyes\n", {"a": bool}, "found 'yes' in column a, line 2; expected bool"),
        (b"a,b\n,1\n", {"a": bool}, "found '' in column a, line 2; expected bool"),
        (b"", {"a": str}, "found no CSV"),
        (b'a\n"1\n', {"a": str}, "found no CSV"),
        (b"\xff\xfe\x00", {"a": str}, "found no CSV"),
    ],
)
def test_what_is_not_the_table_is_refused(tmp_path, content, columns, message):
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError) as raised:
        read_table(path, schema(**columns))
    assert str(raised.value).startswith(f"{path}: {message}")


def test_a_table_cut_at_the_end_of_a_line_is_refused(tmp_path):
    path = write_table(FRAME, tmp_path / "t.csv", {}, schema=TARGETS)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(TableError, match="as its provenance says"):
        read_table(path, TARGETS)


def test_a_broken_sidecar_is_refused(tmp_path):
    path = write_table(FRAME, tmp_path / "t.csv", {}, schema=TARGETS)
    sidecar(path).write_text("{")
    with pytest.raises(TableError, match=r"t.provenance.json: found no provenance"):
        read_table(path, TARGETS)


def test_no_table_ever_stands_without_its_sidecar(tmp_path, monkeypatch):
    def full(path, data):
        if Path(path).suffix == ".csv":
            raise OSError(28, "No space left on device", str(path))
        return write_atomic(path, data)

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(FRAME, tmp_path / "t.csv", {}, schema=TARGETS)
    assert [file.name for file in tmp_path.iterdir()] == ["t.provenance.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / ("a" * 255), "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        write_atomic(path, "new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_written_file_is_for_everyone_that_the_umask_lets_in(tmp_path):
    old = os.umask(0o022)
    try:
        assert write_atomic(tmp_path / "a", "").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(old)


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_killed_while_writing_the_file_is_complete(tmp_path):
    path = tmp_path / "t.txt"
    sizes = [100_000, 3_000_000]
    code = (
        "import sys; from analysis.tables.files import write_atomic\n"
        f"while True:\n  for n in {sizes}: write_atomic(sys.argv[1], str(n)[0] * n)"
    )
    versions = [str(n)[0] * n for n in sizes]
    for delay_s in (0.01, 0.03, 0.07, 0.11, 0.2):
        writer = subprocess.Popen([sys.executable, "-c", code, path], cwd=Path(__file__).parents[2])
        while not path.exists():
            time.sleep(0.005)
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert path.read_text() in versions
        path.unlink()
