"""Nothing that is read can run: of the sources, each call that could let it is named here."""

import ast

import pytest

from .conftest import ROOT

FILES = sorted(file for package in ("resattn", "analysis") for file in (ROOT / package).rglob("*.py"))
NEVER = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "dill.loads", "marshal.load",
    "marshal.loads", "shelve.open", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load",
    "yaml.unsafe_load_all", "pd.read_pickle", "pandas.read_pickle", "shutil.unpack_archive", "os.system", "os.popen",
    "eval", "exec",
}  # fmt: skip
SUBPROCESS = {
    "subprocess.run",
    "subprocess.Popen",
    "subprocess.call",
    "subprocess.check_call",
    "subprocess.check_output",
}


def unsafe_calls(source: str) -> list[str]:
    """The calls in a source that could run what they read, each with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "dill", "shelve"):
            found.append(f"{node.lineno}: from {node.module} import")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        is_unsafe = (
            name in NEVER
            or name.endswith((".extractall", ".extract"))
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False")
            or (name in SUBPROCESS and given.get("shell", "False") != "False")
        )
        if is_unsafe:
            found.append(f"{node.lineno}: {name}")
    return found


# Python that torch's own expressions print, compiled without built-ins: nothing that was read.
ALLOWED = {"resattn/forecast/scaling.py": ["eval"]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_runs_what_it_reads(file):
    found = [call.partition(": ")[2] for call in unsafe_calls(file.read_text(encoding="utf-8"))]
    assert found == ALLOWED.get(str(file.relative_to(ROOT)), [])


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "from pickle import loads",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "tar.extractall(folder)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_what_runs_is_found(source):
    assert len(unsafe_calls(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "yaml.safe_load(text)",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "model.eval()",
        "pickletools.genops(raw)",
    ],
)
def test_what_only_reads_is_let_be(source):
    assert unsafe_calls(source) == []
