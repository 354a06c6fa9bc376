"""For the tests of a model's own project: its architecture is compared with an audit in a file.

    from resattn.testing import assert_unchanged

    def test_architecture():
        assert_unchanged(build(), (3, 224, 224), "audit.json")

With `pytest_plugins = ["resattn.testing"]` in `conftest.py` there is a fixture `unchanged`, which is this function, and
an option `--update-audits`, which rewrites the files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resattn.compare.diff import Change, diff, read_audits
from resattn.measures.audit import audit

try:
    import pytest
except ModuleNotFoundError:  # the assertion needs no test runner
    pytest = None  # type: ignore[assignment]

MOST_SHOWN = 20  # changes in a message


def assert_unchanged(model: nn.Module, inputs: Any, file: str | Path, *, update: bool = False) -> None:
    """Asserts that the audit of a model equals the audit in a file, in every quantity and every module.

    `inputs`: an example tensor, a shape without the batch, several of either in a list or tuple, or a mapping of
    keyword arguments. `file`: written by `resattn audit --json --tree`, or by this function with `update`.
    Raises: AssertionError that names the differences, or the missing file; AuditFileError.
    """
    path = Path(file)
    args, kwargs = _call(inputs)
    found = json.loads(json.dumps(audit(model, *args, **kwargs).to_json(tree=True)))
    if update:
        _write(path, found)
        return
    if not path.exists():
        raise AssertionError(f"there is no {path}: {HOW}")
    changes = diff(read_audits(path), {found["target"]: found})
    if changes:
        raise AssertionError(_message(path, changes))


HOW = "assert_unchanged(..., update=True) or `pytest --update-audits` writes it"


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    is_several = isinstance(inputs, list | tuple) and not all(isinstance(n, int) for n in inputs)
    return (tuple(inputs) if is_several else (inputs,)), {}


def _write(path: Path, found: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps([found], indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _message(path: Path, changes: list[Change]) -> str:
    inputs = [c for c in changes if c.quantity == "input_shape"]
    what = f"; the inputs differ, {inputs[0].before} and {inputs[0].after}" if inputs else ""
    lines = [f"  {change}" for change in changes[:MOST_SHOWN]]
    rest = len(changes) - MOST_SHOWN
    more = [f"  and {rest} more"] if rest > 0 else []
    return "\n".join([f"{len(changes)} values differ from {path}{what}:", *lines, *more, f"  if intended: {HOW}"])


if pytest is not None:

    def pytest_addoption(parser: Any) -> None:
        parser.addoption("--update-audits", action="store_true", help="rewrite the files of `unchanged`")

    @pytest.fixture
    def unchanged(request: Any) -> Callable[[nn.Module, Tensor | Any, str | Path], None]:
        """`assert_unchanged(model, inputs, file)`; a relative file lies beside the test."""
        update = bool(request.config.getoption("--update-audits"))

        def check(model: nn.Module, inputs: Any, file: str | Path) -> None:
            assert_unchanged(model, inputs, request.path.parent / file, update=update)

        return check
