"""A notebook's parameters: names, types and defaults, read from its `parameters` cell without running it."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from analysis.tables.files import read_regular

Value = bool | int | float | str | list[Any] | tuple[Any, ...] | None


class NotebookError(Exception):
    """A notebook that cannot be run, or whose run failed."""


class ParameterError(NotebookError, ValueError):
    """A parameter that the notebook does not have, a value of the wrong type, or an invalid `parameters` cell."""

    is_usage = True  # the command's words are off: exit 2


def read_parameters(path: Path | str) -> dict[str, Value]:
    """Names and default values in the one cell tagged `parameters`, in its order.

    Raises: ParameterError with cell and line, unless the cell only assigns literals to names.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, Value], dict[str, Value]]:
    """The defaults, and of each parameter annotated as optional a value of its type."""
    cells = cells_of(path)
    tags = [set(cell["metadata"].get("tags", ())) for cell in cells]
    if any("injected-parameters" in of_cell for of_cell in tags):
        raise ParameterError(f"{path.name} is what a run wrote (it has an `injected-parameters` cell), not a source")
    tagged = [index for index, of_cell in enumerate(tags) if "parameters" in of_cell]
    if len(tagged) != 1:
        found = f"{len(tagged)} cells ({', '.join(str(i + 1) for i in tagged)})" if tagged else "no cell"
        raise ParameterError(f"{path.name}: {found} tagged `parameters`; a notebook needs exactly one")
    return _literals(source_of(cells[tagged[0]]), where=f"{path.name}, cell {tagged[0] + 1}")


def check_parameters(path: Path | str, given: Mapping[str, Any]) -> dict[str, Value]:
    """Every parameter of the notebook: its default, or the given value or text converted to the type of the default.

    Raises: ParameterError with the nearest names, or the expected type.
    """
    path = Path(path)
    defaults, optional = _read(path)
    for name in given:
        if name not in defaults:
            near = get_close_matches(name, defaults, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(defaults) or 'none'}"
            raise ParameterError(f"{path.name} has no parameter {name!r} ({hint})")
    values = dict(defaults)
    for name, value in given.items():
        try:
            values[name] = _coerced(value, defaults[name], optional.get(name))
        except (ValueError, TypeError, RecursionError):
            kind = f"{_kind(optional[name])} or none" if name in optional else _kind(defaults[name])
            raise ParameterError(
                f"parameter {name} of {path.name} takes {kind}, such as {defaults[name]!r}, not {value!r:.200}"
            ) from None
    return values


def is_place(name: str, value: Any) -> bool:
    """Whether a parameter names a folder by a path relative to the caller's folder."""
    return name.endswith("_dir") and isinstance(value, str) and value != "" and "\0" not in value and value[0] != "/"


def parameter_text(value: Value) -> str:
    """`value` as text for the command line; `check_parameters` converts it back to the same value."""
    return value if isinstance(value, str) else json.dumps(value)


def _literals(source: str, where: str) -> tuple[dict[str, Value], dict[str, Value]]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise ParameterError(f"{where}, line {error.lineno}: no Python ({error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ParameterError(f"{where}: no Python that can be read ({type(error).__name__})") from error
    values: dict[str, Value] = {}
    optional: dict[str, Value] = {}
    for statement in statements:
        line = f"{where}, line {statement.lineno}"
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=node):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=ast.expr() as node):
                if (text := _first_line(annotation).strip("'\"").replace("typing.", "")) in OPTIONAL:
                    optional[name] = OPTIONAL[text]
            case ast.Expr(value=ast.Constant(value=str())):
                continue  # a docstring
            case ast.Import() | ast.ImportFrom():
                raise ParameterError(
                    f"{line}: `{_first_line(statement)}` is no `name = literal`; import in a cell of its own above it"
                )
            case _:
                raise ParameterError(f"{line}: `{_first_line(statement)}` is no `name = literal`")
        try:
            value = ast.literal_eval(node)
            _kind(value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            if isinstance(node, ast.Dict):
                raise ParameterError(
                    f"{line}: `{_first_line(statement)}` is a dictionary; write it as text, such as "
                    f"{name} = '{{\"b\": 1}}', and read it with json.loads({name}) in the next cell"
                ) from None
            raise ParameterError(
                f"{line}: `{_first_line(statement)}` computes, or is no number, text, truth value, list or None; "
                f"papermill would set {name} beside it and not what follows from it"
            ) from None
        if name in values:
            raise ParameterError(f"{line}: {name} is set a second time")
        values[name] = value
    return values, optional


# A value of the type, for each annotation that says `or None`.
OPTIONAL: dict[str, Value] = {
    form.format(type(example).__name__): example
    for form in ("Optional[{}]", "{} | None", "None | {}", "Union[{}, None]", "Union[None, {}]")
    for example in (False, 0, 0.0, "")
}


def _first_line(statement: ast.AST) -> str:
    try:
        return ast.unparse(statement).splitlines()[0][:200]
    except RecursionError:
        return "..."


def _kind(value: Value) -> str:
    """The type of a default, in words. Raises: TypeError for a type that is no parameter's."""
    words = {bool: "true or false", int: "an int", float: "a float", str: "text", type(None): "any literal"}
    if isinstance(value, (list, tuple)):
        kinds = {_kind(item) for item in value}
        return "a list of " + (kinds.pop().split()[-1] + "s" if len(kinds) == 1 else "values")
    if type(value) not in words:
        raise TypeError(type(value).__name__)
    return words[type(value)]


def _coerced(value: Any, default: Value, optional: Value = None) -> Value:
    """`value`, or the value that the text `value` stands for, in the type of `default`; with `optional` in that type,
    or None.

    Raises: ValueError, TypeError.
    """
    if optional is not None:
        is_none = value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null"))
        return None if is_none else _coerced(value, optional)
    if default is None:
        return _literal(value) if isinstance(value, str) else value
    if isinstance(default, (list, tuple)):
        items = _items(value) if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise TypeError(type(items).__name__)
        return type(default)(_item(item, default, texts=isinstance(value, str)) for item in items)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise TypeError(type(value).__name__)
        return value
    if isinstance(value, str):
        value = _literal(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise TypeError(type(value).__name__)
    return value


def _item(item: Any, default: Sequence[Value], *, texts: bool) -> Value:
    kinds = {type(of_default) for of_default in default}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) != 1:
        _kind(item)
        return item
    example = next(of_default for of_default in default if type(of_default) in kinds)
    if isinstance(item, str) and not isinstance(example, str) and not texts:
        raise TypeError("str")
    return _coerced(item, example)


def _items(text: str) -> Any:
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [part.strip() for part in text.split(",")] if text.strip() else []


def _literal(text: str) -> Value:
    """`3` -> 3, `1e-3` -> 0.001, `true` -> True, `null` -> None, else the text itself. NaN and infinity are text."""
    lowered = text.strip().lower()
    if lowered in ("true", "false", "none", "null"):
        return {"true": True, "false": False}.get(lowered)
    for number in (int, float):
        try:
            parsed = number(text)
        except ValueError:
            continue
        return parsed if math.isfinite(parsed) else text
    return _items(text) if text.lstrip().startswith("[") else text


def cells_of(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file. Raises: NotebookError if it is not a notebook."""
    try:
        notebook = json.loads(read_regular(path))
        if notebook["nbformat"] != 4:
            raise NotebookError(f"{path} has notebook format {notebook['nbformat']}; 4 is needed")
        if not isinstance(notebook["nbformat_minor"], int) or not isinstance(notebook["metadata"], dict):
            raise ValueError("its nbformat_minor is no number, or its metadata are no mapping")
        cells = notebook["cells"]
        for number, cell in enumerate(cells, 1):
            source_of(cell).encode()
            is_list = isinstance(cell["metadata"].get("tags", []), list) and isinstance(cell.get("outputs", []), list)
            if cell["cell_type"] not in ("code", "markdown", "raw") or not is_list:
                raise ValueError(f"cell {number} has a type, tags or outputs that no cell has")
    except OSError as error:
        raise NotebookError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NotebookError(f"{path} is no notebook (byte {error.start} is no UTF-8)") from error
    except UnicodeEncodeError as error:
        raise NotebookError(f"{path} is no notebook (cell {number} has a lone surrogate)") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(f"{path} is no notebook ({error!r})") from error
    return cells


def source_of(cell: Mapping[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)
