"""Each way in which papermill calls a run good that was none, and what stands in the folder afterwards."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from analysis.study import kernel, runner
from analysis.study.job_folder import FolderError, read_result, write_result
from analysis.study.notebook_parameters import ParameterError
from analysis.study.processes import FolderInUseError, exclusive
from analysis.study.runner import (
    CellFailedError,
    ChangedError,
    IncompleteError,
    KernelDiedError,
    NotebookExitError,
    NotebookTimeoutError,
    run_notebook,
)
from analysis.tables.files import digest

from .conftest import LIMIT_S, ROOT, WRITE_TABLE, resattn, run_resattn, wait_for


def _texts(page: Path) -> str:
    """All that the cells of an executed notebook printed."""
    cells = nbformat.read(page, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", ()))


def test_a_run_leaves_page_log_tables_and_last_a_result(write_notebook, tmp_path):
    path = write_notebook(
        "20_depth",
        "import os, sys, pathlib, analysis.tables.files, resattn.networks.spec\nprint(depth, out_dir, os.getcwd())",
        WRITE_TABLE,
        "open(f'{out_dir}/figures/f.svg', 'w').write('<svg/>')",
    )
    out = tmp_path / "out"
    assert run_notebook(path, {"depth": "92"}, out) == out / "result.json"
    assert _texts(out / "notebook.ipynb").split() == ["92", "../out", str(path.parent)]
    result = read_result(out)
    assert result is not None
    assert (result["notebook"], result["notebook_sha256"]) == ("20_depth.ipynb", digest(path))
    assert result["parameters"] == {"depth": 92, "out_dir": "../out"}
    assert result["tables"] == {"tables/t.csv": digest(out / "tables" / "t.csv")}
    assert result["figures"] == {"figures/f.svg": digest(out / "figures" / "f.svg")}
    assert 0 < result["kernel_s"] < result["elapsed_s"] < 60
    assert result["provenance"]["versions"]["papermill"]
    assert {"analysis/tables/files.py", "resattn/networks/spec.py"} <= result["inputs"]["code"].keys()
    assert "cell 4" in (out / "log.txt").read_text()
    assert not (out / "failure.json").exists()


@pytest.mark.parametrize(
    ("cells", "error", "message"),
    [
        (["1 / 0", "2"], CellFailedError, "cell 2 (`1 / 0`): ZeroDivisionError: division by zero"),
        (["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "2"], KernelDiedError, "ended by SIGKILL (out of"),
        (["import os\nos._exit(0)", "2"], KernelDiedError, "Kernel died (its process exited with 0)"),
        (["import sys\nsys.exit(0)", "2"], NotebookExitError, "cell 2 (`import sys`): SystemExit: 0; a notebook runs"),
        (["1", "import sys\nsys.exit(0)"], NotebookExitError, "cell 3 (`import sys`): SystemExit: 0; a notebook runs"),
        (["raise SystemExit('enough')"], NotebookExitError, "SystemExit: enough"),
        (["quit()"], NotebookExitError, "cell 2 (`quit()`): the cell ended the kernel"),
        (["%%bash\nexit 3", "2"], CellFailedError, "CalledProcessError"),
        (["input('name')"], CellFailedError, "StdinNotImplementedError"),
        (
            ["import os\nos.chdir('/')", "2"],
            CellFailedError,
            "cell 2 (`import os`): the cell changed the current folder to /",
        ),
        (["1" + " + 1" * 20_000, "2"], CellFailedError, "nested too deep, or have too many terms"),
        (["import os\nos.utime('a.ipynb')"], ChangedError, "a.ipynb: a.ipynb changed while this job ran: run it again"),
    ],
    ids=[
        "exception",
        "killed",
        "_exit",
        "exit-0",
        "exit-0-at-the-end",
        "exit-text",
        "quit",
        "bash",
        "input",
        "moved",
        "20,000-terms",
        "edited",
    ],
)
def test_a_failed_run_says_where_keeps_its_page_and_has_no_result(write_notebook, tmp_path, cells, error, message):
    out = tmp_path / "out"
    with pytest.raises(error) as raised:
        run_notebook(write_notebook("a", *cells), {}, out)
    assert message in str(raised.value)
    assert str(out) in str(raised.value)
    assert json.loads((out / "failure.json").read_text())["error"] == error.__name__
    assert message in (out / "log.txt").read_text()
    assert not (out / "result.json").exists()
    page = nbformat.read(out / "notebook.ipynb", as_version=4)
    nbformat.validate(page)
    assert page.cells[0].source.startswith("This run failed:")
    assert message in page.cells[0].source
    for cell in page.cells:  # papermill marks what never ran as completed
        if cell.cell_type == "code" and cell.execution_count is None:
            assert cell.metadata.papermill.status == "pending"


def test_a_crash_outside_python_leaves_its_stack_in_the_log(write_notebook, tmp_path):
    with pytest.raises(KernelDiedError, match="ended by SIGSEGV"):
        run_notebook(write_notebook("a", "import faulthandler\nfaulthandler._sigsegv()"), {}, tmp_path / "out")
    assert "Fatal Python error: Segmentation fault" in (tmp_path / "out" / "log.txt").read_text()


def test_a_cell_that_was_skipped_makes_the_run_incomplete(write_notebook, tmp_path):
    path = write_notebook("a", "1", "", "2")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].metadata["tags"] = ["skip-execution"]
    nbformat.write(notebook, path)
    with pytest.raises(IncompleteError, match=r"cells 4 were never executed"):  # the blank cell is no matter
        run_notebook(path, {}, tmp_path / "out")


def test_a_cell_that_is_meant_to_raise_does(write_notebook, tmp_path):
    path = write_notebook("a", "1 / 0", WRITE_TABLE, "{}['b']", "2")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    with pytest.raises(CellFailedError, match=r"cell 4 \(`{}\['b'\]`\): KeyError"):
        run_notebook(path, {}, tmp_path / "out")
    notebook.cells[3].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    run_notebook(path, {}, tmp_path / "out")
    page = (tmp_path / "out" / "notebook.ipynb").read_text()
    assert "ZeroDivisionError" in page
    assert "KeyError" in page
    notebook.cells[1].source = "import sys\nsys.exit(3)"
    nbformat.write(notebook, path)
    with pytest.raises(NotebookExitError, match=r"cell 2 \(`import sys`\)"):
        run_notebook(path, {}, tmp_path / "out")


def test_a_cell_that_takes_the_streams_away_does_not_hang_the_next(write_notebook, tmp_path):
    cells = [
        "import sys as s\ns.stdout = s.stderr = None\nprint('gone')",
        "print('back')\nassert 'sys' not in globals()",
    ]
    run_notebook(write_notebook("a", *cells), {}, tmp_path / "out", timeout_s=60)
    assert "back" in (tmp_path / "out" / "notebook.ipynb").read_text()


@pytest.mark.parametrize(
    "cell",
    [
        "import shutil\nshutil.rmtree(out_dir)",
        "import shutil\nshutil.rmtree(out_dir)\nopen(out_dir, 'w')",
        "import os\nos.mkdir(f'{out_dir}/result.json')",
        "import os\nopen(os.fsencode(out_dir) + b'/tables/\\xff.csv', 'w')",
        "import os\nos.rmdir(f'{out_dir}/tables')\nos.symlink('/usr', f'{out_dir}/tables')",
    ],
    ids=["removed", "a file in its place", "a folder in place of its result", "a name that is no UTF-8", "a link"],
)
def test_a_cell_that_spoils_its_folder_is_a_failure(write_notebook, tmp_path, cell):
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match="a.ipynb"):
        run_notebook(write_notebook("a", cell), {}, out)
    assert out.is_file() or json.loads((out / "failure.json").read_text())["error"] == "IncompleteError"
    assert read_result(out) is None


def test_text_that_utf_8_has_not_and_ids_that_are_null_leave_a_valid_page(write_notebook, tmp_path):
    no_json = "from IPython.display import display\ndisplay({'application/json': {'a': float('nan')}}, raw=True)"
    path = write_notebook("a", "print('before \\udc80 after')", "print('next \\ud800')", no_json)
    source = json.loads(path.read_text())
    for cell, id_ in zip(source["cells"], (None, None, "failure", "failure"), strict=True):
        cell["id"] = id_
    path.write_text(json.dumps(source))
    run_notebook(path, {}, tmp_path / "out")
    page = nbformat.read(tmp_path / "out" / "notebook.ipynb", as_version=4)
    nbformat.validate(page)
    assert (
        _texts(tmp_path / "out" / "notebook.ipynb")
        == "before \N{REPLACEMENT CHARACTER} after\nnext \N{REPLACEMENT CHARACTER}\n"
    )
    assert page.cells[-1].outputs[0].data["application/json"] == {"a": "nan"}


def test_folders_of_the_caller_are_the_same_in_the_notebook(write_notebook, tmp_path, monkeypatch):
    path = write_notebook(
        "a", "import os\nprint(os.path.exists(runs_dir + '/here'), os.environ['RESATTN_DATA'])",
        parameters='runs_dir = ""\nout_dir = "o"',
    )  # fmt: skip
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "here").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESATTN_DATA", "mine")
    run_notebook(path, {"runs_dir": "mine"}, "out")
    assert _texts(tmp_path / "out" / "notebook.ipynb") == f"True {tmp_path / 'mine'}\n"
    assert read_result("out")["parameters"] == {"runs_dir": "../mine", "out_dir": "../out"}


def test_the_time_limit_is_for_the_whole_notebook(write_notebook, tmp_path):
    path = write_notebook("a", *["import time\ntime.sleep(1)"] * 30)
    start = time.monotonic()
    with pytest.raises(NotebookTimeoutError, match=r"cell \d.*: the notebook was not done within its 6 s"):
        run_notebook(path, {}, tmp_path / "out", timeout_s=6)
    assert 6 <= time.monotonic() - start < 20


def test_the_start_of_the_kernel_counts_too(write_notebook, tmp_path):
    with pytest.raises(NotebookTimeoutError, match=r"not done within its 0.05 s"):
        run_notebook(write_notebook("a", "1"), {}, tmp_path / "out", timeout_s=0.05)


def test_a_flood_of_output_is_cut(write_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "NOTEBOOK_BYTES", 3 << 20)
    flood = [
        "for i in range(100): print('a' * 1_000_000)",
        "import os\nfor i in range(100): os.write(2, b'b' * 1_000_000)",
        "from IPython.display import display\nfor i in range(10): display({'image/png': 'c' * 1_000_000}, raw=True)",
        "raise ValueError('d' * 1_000_000)",
    ]
    with pytest.raises(CellFailedError):
        run_notebook(write_notebook("a", *flood[:2], "print('between')", *flood[2:]), {}, tmp_path / "out")
    page = tmp_path / "out" / "notebook.ipynb"
    assert page.stat().st_size < 6 << 20
    assert (tmp_path / "out" / "log.txt").stat().st_size < kernel.LOG_BYTES + (2 << 20)
    text = page.read_text()
    assert "between" in text
    assert text.count("is dropped: it is too long") == 2
    assert "This run failed" in text


def test_what_is_printed_after_a_flood_counts_in_the_next_cell(write_notebook, tmp_path):
    run_notebook(write_notebook("a", "print('a' * 3_000_000)", "print('after')"), {}, tmp_path / "out")
    assert _texts(tmp_path / "out" / "notebook.ipynb").endswith("after\n")


def test_a_progress_bar_takes_the_room_of_its_last_line(write_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "CELL_BYTES", 20_000)
    bar = "import sys, time\nfor i in range(300):\n  sys.stderr.write(f'\\r{i:0500}')\n  sys.stderr.flush()"
    run_notebook(write_notebook("a", bar + "\nprint('\\nafter')"), {}, tmp_path / "out")
    assert _texts(tmp_path / "out" / "notebook.ipynb") == f"{299:0500}\nafter\n"


def test_the_kernel_is_this_python_whatever_is_installed(write_notebook, tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    spec.joinpath("kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "no", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    startup = tmp_path / "home" / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    startup.joinpath("mine.py").write_text("print('somebody is here')")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = write_notebook("a", f"import sys\nprint(sys.executable == {sys.executable!r})")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "gone", "display_name": "Gone", "language": "python"}
    nbformat.write(notebook, path)
    run_notebook(path, {}, tmp_path / "out")
    assert _texts(tmp_path / "out" / "notebook.ipynb") == "True\n"


def test_kernels_side_by_side_share_no_port(write_notebook, tmp_path):
    code = (
        "import json\nfrom ipykernel.connect import get_connection_info\n"
        "info = json.loads(get_connection_info())\nprint(info['transport'], info['ip'])"
    )
    path = write_notebook("a", code)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: run_resattn("notebook", path, "--out", tmp_path / str(n)), range(3)))
    seen = {_texts(tmp_path / str(n) / "notebook.ipynb") for n in range(3)}
    assert len(seen) == 3
    assert all(text.startswith("ipc ") for text in seen)
    assert not any(Path(text.split()[1]).parent.exists() for text in seen)


def test_a_long_temporary_folder_does_not_break_the_sockets(write_notebook, tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(kernel.tempfile, "tempdir", str(folder))
    run_notebook(write_notebook("a", "1"), {}, tmp_path / "out")
    assert read_result(tmp_path / "out")


def test_the_page_does_not_tell_where_it_was_made(write_notebook, tmp_path):
    with pytest.raises(CellFailedError):
        run_notebook(
            write_notebook("a", "import resattn.networks.catalog\nresattn.networks.catalog.named('nobody')"),
            {},
            tmp_path / "out",
        )
    page = (tmp_path / "out" / "notebook.ipynb").read_text()
    assert "resattn/networks/catalog.py" in page
    assert str(ROOT) not in page


def test_a_bad_parameter_starts_nothing_and_touches_nothing(write_notebook, tmp_path):
    run = run_resattn("notebook", write_notebook("a", "1"), "-p", "deth=92", "--out", tmp_path / "out")
    assert run.returncode == 2
    assert "has no parameter 'deth' (did you mean depth?)" in run.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(ParameterError, match="give it as the output folder"):
        run_notebook(write_notebook("a", "1"), {"out_dir": "x"}, tmp_path / "out")


def test_a_stale_result_is_gone_before_the_run_and_a_checkpoint_stays_for_the_same_inputs_only(
    write_notebook, tmp_path
):
    cells = [
        "import os\nprint(sorted(os.listdir(out_dir)))\nprint(os.listdir(f'{out_dir}/tables'))",
        "open(f'{out_dir}/checkpoint', 'w').write('x')",
        WRITE_TABLE,
    ]
    out = tmp_path / "out"
    run_notebook(write_notebook("a", *cells), {}, out)
    run_notebook(write_notebook("a", *cells), {}, out)
    first, tables = _texts(out / "notebook.ipynb").splitlines()
    assert "checkpoint" in first
    assert "result.json" not in first
    assert tables == "[]"
    run_notebook(write_notebook("a", *cells), {"depth": "3"}, out)
    assert "checkpoint" not in _texts(out / "notebook.ipynb").splitlines()[0]
    with pytest.raises(CellFailedError):
        run_notebook(write_notebook("a", "1 / 0"), {}, out)
    assert read_result(out) is None
    assert sorted(entry.name for entry in out.iterdir()) == [
        ".lock", "failure.json", "figures", "inputs.json", "log.txt", "notebook.ipynb", "tables",
    ]  # fmt: skip


def test_a_folder_that_holds_something_else_is_refused(write_notebook, tmp_path):
    path, out = write_notebook("a", "1"), tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("")
    with pytest.raises(FolderError, match=r"holds 'thesis.tex', which no notebook run wrote"):
        run_notebook(path, {}, out)
    with pytest.raises(FolderError, match="is a file; give a folder"):
        run_notebook(path, {}, out / "thesis.tex")
    assert (out / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("inputs.json", '{"version": 1, "parameters": {}}'), ("inputs.json", "[]"), ("inputs.json", "{"),
        ("result.json", '{"tables": {}}'), ("failure.json", '{"message": "mine"}'), ("log.txt", "mine"),
        ("notebook.ipynb", '{"cells": []}'), (".lock", "mine"),
    ],
)  # fmt: skip
def test_a_folder_of_a_user_s_that_has_a_file_of_a_run_s_name_is_refused_too(write_notebook, tmp_path, name, text):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(text)
    with pytest.raises(FolderError, match=f"holds {name!r}, which no notebook run wrote"):
        run_notebook(write_notebook("a", "1"), {}, out)
    assert [entry.name for entry in out.iterdir()] == [name]
    assert (out / name).read_text() == text


def test_a_notebook_that_is_edited_while_its_job_waits_is_not_run(write_notebook, tmp_path):
    path, out = write_notebook("a", WRITE_TABLE), tmp_path / "out"
    with (tmp_path / "places").open("ab") as places:
        fcntl.lockf(places.fileno(), fcntl.LOCK_EX, 1, 0)
        process = resattn("notebook", path, "--out", out, RESATTN_PLACES=f"1:{tmp_path / 'places'}")
        wait_for((out / "log.txt").exists)
        write_notebook("a", WRITE_TABLE.replace("1", "2"))
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "a.ipynb: notebook changed while this job waited: run it again" in stderr
    assert not (out / "result.json").exists()
    assert not list((out / "tables").iterdir())


@pytest.mark.parametrize("moment", ["while it is digested", "while the job waits"])
def test_an_edit_that_no_size_and_no_time_tell_is_found(write_notebook, tmp_path, monkeypatch, moment):
    path = write_notebook("a", WRITE_TABLE, parameters='photos_dir = ""\nout_dir = "o"')
    photo = tmp_path / "photos" / "p"
    photo.parent.mkdir()
    photo.write_text("1")
    at = photo.stat()

    def edit_after(real):
        def call(*words):
            value = real(*words)
            photo.write_text("2")
            os.utime(photo, ns=(at.st_atime_ns, at.st_mtime_ns))
            return value

        return call

    name = {"while it is digested": "run_inputs", "while the job waits": "prepare_folder"}[moment]
    monkeypatch.setattr(runner, name, edit_after(getattr(runner, name)))
    with pytest.raises(ChangedError, match="photos_dir/p changed while this job waited"):
        run_notebook(path, {"photos_dir": str(photo.parent)}, tmp_path / "out")


def test_a_kernel_that_is_done_with_a_cell_and_sends_no_reply_is_not_waited_for(write_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(kernel, "REPLY_S", 0.5)
    away = "get_ipython().kernel.session = None"  # which is put back
    path = write_notebook("a", away, "import time\ntime.sleep(1)", "get_ipython().kernel.do_execute = None", "1")
    with pytest.raises(KernelDiedError, match=r"cell 5 \(`1`\): the kernel is done with the cell and sends no reply"):
        run_notebook(path, {}, tmp_path / "out", timeout_s=LIMIT_S)


def test_results_that_a_run_reads_are_whole_before_it_and_the_same_after_it(write_notebook, tmp_path):
    job = tmp_path / "runs" / "s0"
    (job / "tables").mkdir(parents=True)
    (job / "notebook.ipynb").write_text("n")
    table = job / "tables" / "t.csv"
    table.write_text("value\n1\n")
    write_result(job, {"version": 1})
    put_back = (
        "import os\nold, at = open(t).read(), os.stat(t)\nopen(t, 'w').write('value\\n2\\n')\nopen(t, 'w').write(old)"
    )
    path = write_notebook(
        "a", f"t = f'{{runs_dir}}/s0/tables/t.csv'\n{put_back}\nos.utime(t, ns=(at.st_atime_ns, at.st_mtime_ns))",
        parameters='runs_dir = ""\nout_dir = "o"',
    )  # fmt: skip
    with pytest.raises(ChangedError, match="runs_dir/s0/tables/t.csv changed while this job ran"):
        run_notebook(path, {"runs_dir": str(tmp_path / "runs")}, tmp_path / "out")
    table.write_text("value\n3\n")
    with pytest.raises(ChangedError, match="runs_dir/s0 changed while this job waited"):
        run_notebook(path, {"runs_dir": str(tmp_path / "runs")}, tmp_path / "out")


def test_two_runs_do_not_share_a_folder(write_notebook, tmp_path):
    with (
        exclusive(tmp_path / "out" / ".lock", what="it"),
        pytest.raises(FolderInUseError, match=f"process {os.getpid()}"),
    ):
        run_notebook(write_notebook("a", "1"), {}, tmp_path / "out")


@pytest.mark.parametrize(
    "damage", ["result", "truncated", "table", "gone", "page", "version", "list", "run", "weights", "a number"]
)
def test_a_damaged_result_is_none(write_notebook, tmp_path, damage):
    out = tmp_path / "out"
    (out / "tables").mkdir(parents=True)
    (out / "run").mkdir()
    (out / "notebook.ipynb").write_text("n")
    (out / "tables" / "t.csv").write_text("t")
    for name in ("run.json", "checkpoint.pt", "checkpoint-1.aside"):
        (out / "run" / name).write_text(name)
    write_result(out, {"version": 1, "elapsed_s": 5})
    result = read_result(out)
    assert result["run"].keys() == {"run/run.json", "run/checkpoint.pt"}
    match damage:
        case "result":
            (out / "result.json").write_bytes(b"\xff\x00")
        case "truncated":
            (out / "result.json").write_text(json.dumps(result)[:-1])
        case "table":
            (out / "tables" / "t.csv").write_text("u")
        case "gone":
            (out / "tables" / "t.csv").unlink()
        case "page":
            (out / "notebook.ipynb").write_text("")
        case "version":
            (out / "result.json").write_text(json.dumps(result | {"version": 2}))
        case "run":
            (out / "run" / "run.json").write_text("of another job")
        case "weights":
            (out / "run" / "checkpoint.pt").unlink()
            assert read_result(out) == result  # a run whose weights are not kept is done
            (out / "run" / "checkpoint.pt").write_text("of another job")
        case "a number":
            (out / "result.json").write_text((out / "result.json").read_text().replace("5", "6", 1))
        case "list":
            (out / "result.json").write_text("[]")
    assert read_result(out) is None


def _kernels_of(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_result_and_no_kernel(write_notebook, tmp_path, number):
    out = tmp_path / "out"
    path = write_notebook("a", "open(f'{out_dir}/begun', 'w').close()\nimport time\ntime.sleep(60)")
    process = resattn("notebook", path, "--out", out)
    wait_for(lambda: (out / "begun").exists())
    kernels = _kernels_of(process)
    assert len(kernels) == 1
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{kernels[0]}").exists())
    assert not (out / "result.json").exists()
    assert not (out / "failure.json").exists()
    if number == signal.SIGINT:
        assert "interrupted" in (out / "notebook.ipynb").read_text()


def test_a_run_does_not_outlive_the_parent_it_is_bound_to(write_notebook, tmp_path):
    out = tmp_path / "out"
    path = write_notebook("a", "open(f'{out_dir}/begun', 'w').close()\nimport time\ntime.sleep(60)")
    command = f"RESATTN_PARENT=$PPID exec {sys.executable} -m resattn.cli notebook {path} --out {out}"
    parent = subprocess.Popen([sys.executable, "-c", f"import os; os.system('''bash -c '{command}' ''')"], cwd=ROOT)
    wait_for(lambda: (out / "begun").exists())
    runner = int((out / ".lock").read_text())
    shell = _kernels_of(parent)  # the shell that os.system started is the parent that the run is bound to
    parent.kill()
    parent.wait()
    for pid in shell:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{runner}").exists())
    assert not (out / "result.json").exists()
