"""What is said about parameters before any kernel starts: the first rows of papermill's failure cases."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.study.notebook_parameters import (
    NotebookError,
    ParameterError,
    _coerced,
    check_parameters,
    parameter_text,
    read_parameters,
)

CELL = '''"""What to measure."""
depth: int = 56
rate = -0.5  # a comment
pretrained = False
name = "attention56"
networks = ["resnet50", "resnet101"]
seeds = (0, 1)
limit = None
out_dir = "out"
'''


@pytest.fixture
def notebook(write_notebook):
    return write_notebook("20_depth", parameters=CELL)


def test_names_and_defaults_in_order(notebook):
    assert read_parameters(notebook) == {
        "depth": 56,
        "rate": -0.5,
        "pretrained": False,
        "name": "attention56",
        "networks": ["resnet50", "resnet101"],
        "seeds": (0, 1),
        "limit": None,
        "out_dir": "out",
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("depth", "92", 92),
        ("depth", "-1", -1),
        ("rate", "3", 3.0),
        ("rate", "1e-3", 0.001),
        ("pretrained", "true", True),
        ("pretrained", "False", False),
        ("name", "92", "92"),
        ("name", "a=b, [c", "a=b, [c"),
        ("name", "", ""),
        ("networks", "resnet152", ["resnet152"]),
        ("networks", "a, b", ["a", "b"]),
        ("networks", '["a, b", "2"]', ["a, b", "2"]),
        ("networks", "", []),
        ("seeds", "3,4,5", (3, 4, 5)),
        ("seeds", "[3]", (3,)),
        ("limit", "7", 7),
        ("limit", "null", None),
        ("limit", "word", "word"),
        ("depth", 92, 92),
        ("rate", 1, 1.0),
        ("seeds", [1], (1,)),
    ],
)
def test_text_and_values_come_to_the_type_of_the_default(notebook, name, text, value):
    found = check_parameters(notebook, {name: text})[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("depth", "ninetytwo", "an int, such as 56"),
        ("depth", "92.0", "an int"),
        ("depth", "true", "an int"),
        ("depth", True, "an int"),
        ("depth", None, "an int"),
        ("rate", "fast", "a float, such as -0.5"),
        ("rate", "nan", "a float"),
        ("rate", "inf", "a float"),
        ("pretrained", "yes", "true or false"),
        ("pretrained", "1", "true or false"),
        ("pretrained", 1, "true or false"),
        ("name", 5, "text"),
        ("networks", "[1, 2]", "a list of texts"),
        ("networks", "[broken", "a list of texts"),
        ("networks", 3, "a list of texts"),
        ("seeds", "1,x", "a list of ints"),
        ("seeds", '{"a": 1}', "a list of ints"),
        ("seeds", ["1"], "a list of ints"),
    ],
)
def test_a_wrong_type_is_refused(notebook, name, value, kind):
    with pytest.raises(ParameterError) as raised:
        check_parameters(notebook, {name: value})
    assert str(raised.value).startswith(f"parameter {name} of 20_depth.ipynb takes {kind}")
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("annotation", ["Optional[int]", "typing.Optional[int]", "int | None", "'None | int'"])
@pytest.mark.parametrize("default", ["None", "3"])
def test_an_annotation_says_what_may_be_none(write_notebook, annotation, default):
    path = write_notebook("a", "1", parameters=f"k: {annotation} = {default}")
    assert [check_parameters(path, {"k": text})["k"] for text in ("5", "None", None)] == [5, None, None]
    with pytest.raises(ParameterError, match=rf"k of a.ipynb takes an int or none, such as {default}, not 'x'"):
        check_parameters(path, {"k": "x"})


@pytest.mark.parametrize(
    ("name", "hint"), [("deth", "did you mean depth?"), ("zzz", "it has depth, rate, pretrained, name")]
)
def test_an_unknown_name_is_refused_with_the_nearest(notebook, name, hint):
    with pytest.raises(ParameterError, match="has no parameter") as raised:
        check_parameters(notebook, {name: "92"})
    assert hint in str(raised.value)


@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.text(),
        st.lists(st.integers()),
        st.lists(st.text()),
        st.none(),
    )
)
def test_the_text_of_a_value_makes_the_same_value(value):
    assert _coerced(parameter_text(value), value) == value


def test_a_notebook_needs_a_parameters_cell(write_notebook):
    with pytest.raises(ParameterError, match=r"a.ipynb: no cell tagged `parameters`; a notebook needs exactly one"):
        read_parameters(write_notebook("a", "1", parameters=None))


def test_two_parameters_cells_are_refused(notebook):
    content = json.loads(notebook.read_text())
    content["cells"] = content["cells"] * 2
    notebook.write_text(json.dumps(content))
    with pytest.raises(ParameterError, match=r"2 cells \(1, 2\) tagged `parameters`"):
        read_parameters(notebook)


def test_what_a_run_wrote_is_no_source(notebook):
    content = json.loads(notebook.read_text())
    content["cells"].append(content["cells"][0] | {"metadata": {"tags": ["injected-parameters"]}})
    notebook.write_text(json.dumps(content))
    with pytest.raises(ParameterError, match="is what a run wrote"):
        read_parameters(notebook)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('depth = 56\nname = f"attention-{depth}"', "a.ipynb, cell 1, line 2: `name = f'attention-{depth}'` computes"),
        ("depth = 28 * 2", "line 1: `depth = 28 * 2` computes"),
        ("import os\na = 1", "line 1: `import os` is no `name = literal`; import in a cell of its own above it"),
        (
            "from typing import Optional\na: Optional[int] = None",
            "`from typing import Optional` is no `name = literal`; i",
        ),
        ("a = 1" + " + 1" * 20_000, "a.ipynb, cell 1"),
        ("a = b = 1", "line 1: `a = b = 1` is no `name = literal`"),
        ("a, b = 1, 2", "is no `name = literal`"),
        ("a += 1", "is no `name = literal`"),
        ("a: int", "is no `name = literal`"),
        ("\nif True:\n    a = 1", "line 2: `if True:` is no `name = literal`"),
        (
            "a = {'b': 1}",
            "`a = {'b': 1}` is a dictionary; write it as text, such as a = '{\"b\": 1}', and read it with json",
        ),
        ("a = b'x'", "computes, or is no number"),
        ("a = [1, {}]", "computes, or is no number"),
        ("a = 1\na = 2", "line 2: a is set a second time"),
        ("a = 1\n%matplotlib inline", "line 2: no Python"),
    ],
)
def test_a_parameters_cell_holds_literals_only(write_notebook, source, message):
    with pytest.raises(ParameterError) as raised:
        read_parameters(write_notebook("a", parameters=source))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("", "is no notebook"),
        ("[]", "is no notebook"),
        ("{}", "is no notebook"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "is no notebook"),
        ('{"nbformat": 3, "worksheets": []}', "has notebook format 3; 4 is needed"),
        ('{"nbformat": 4, "nbformat_minor": "5", "metadata": {}, "cells": []}', "its nbformat_minor is no number"),
        *(
            (f'{{"nbformat": 4, "nbformat_minor": 5, "metadata": {{}}, "cells": [{cell}]}}', message)
            for cell, message in (
                ('{"cell_type": "x", "source": "", "metadata": {}}', "cell 1 has a type, tags or outputs that no cell"),
                ('{"cell_type": "raw", "source": "", "metadata": {"tags": "x"}}', "cell 1 has a type, tags or outputs"),
                ('{"cell_type": "raw", "source": 5, "metadata": {}}', "is no notebook"),
                ('{"cell_type": "raw", "source": "\\ud800", "metadata": {}}', "cell 1 has a lone surrogate"),
            )
        ),
    ],
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path, content, message):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(NotebookError, match=message):
        read_parameters(path)


def test_a_truncated_notebook_is_refused(notebook):
    notebook.write_text(notebook.read_text()[:-20])
    with pytest.raises(NotebookError, match="is no notebook"):
        read_parameters(notebook)
