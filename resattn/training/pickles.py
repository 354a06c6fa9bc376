"""Arrays, lists and text from a pickle that is never executed."""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resattn.training.layouts import DataError


@dataclass(eq=False)
class _Noted:
    """An object in a pickle, described and not built: the name of its callable, the arguments, and its state."""

    name: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None


# The callables in the pickle of an array, as numpy 1, numpy 2 and each protocol write them.
_OF_AN_ARRAY = {
    **{f"numpy.{core}.multiarray _reconstruct": "array" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": "frombuffer" for core in ("core", "_core")},
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
}
# fmt: off
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))
# fmt: on
_PYTHON_2_BYTES = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MOST_OPCODES = 1_000_000  # the official files have about 40,000 (CIFAR-10) and 250,000 (CIFAR-100)


def unpickle(raw: bytes, where: str) -> Any:
    """The value of a pickle of arrays, lists, tuples, dictionaries, text, bytes and numbers only.

    The opcodes are read one by one without Python's unpickler, so nothing can be called: names that belong to arrays
    are noted, all others are refused, and arrays are made from their bytes afterwards. So memory use is bounded by the
    size of the file. Strings written by Python 2 are returned as bytes.

    Raises: DataError for anything else.
    """
    try:
        value = _value(raw, where)
        if isinstance(value, dict):
            return {k: _array(v, where) if isinstance(v, _Noted) else v for k, v in value.items()}
        return _array(value, where) if isinstance(value, _Noted) else value
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise any error
        raise DataError(f"{where}: no readable pickle: {error!r}") from error


def _value(raw: bytes, where: str) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
        if count > MOST_OPCODES:
            raise DataError(f"{where}: refused: a pickle of more than {MOST_OPCODES} parts")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "POP":
                stack.pop()
            case name if name in _LITERALS:
                stack.append(argument)
            case name if name in _PYTHON_2_BYTES:
                stack.append(str(argument).encode("latin1"))
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_LIST" | "EMPTY_TUPLE" | "EMPTY_DICT":
                stack.append({"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}[opcode.name]())
            case "LIST":
                stack.append(since_mark())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "DICT":
                stack.append(_filled({}, since_mark(), where))
            case "APPEND" | "APPENDS":
                items = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                _filled(stack[-1], items, where)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_named(str(argument), where))
            case "STACK_GLOBAL":
                name = stack.pop()
                stack.append(_named(f"{stack.pop()} {name}", where))
            case "REDUCE":
                arguments, callee = stack.pop(), stack.pop()
                stack.append(_called(callee, tuple(arguments)))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case name:
                raise DataError(f"{where}: refused: the pickle contains more than data ({name})")
    raise DataError(f"{where}: no readable pickle: it is truncated")


def _named(name: str, where: str) -> _Noted:
    if name not in _OF_AN_ARRAY:
        raise DataError(f"{where}: refused: the pickle asks for {name.replace(' ', '.')}; nothing was run")
    return _Noted(_OF_AN_ARRAY[name])


def _called(callee: _Noted, arguments: tuple[Any, ...]) -> _Noted | bytes:
    # Up to protocol 2, Python 3 writes bytes as a call of _codecs.encode(text, "latin1") or bytes().
    match callee.name, arguments:
        case "encode", (str(text), "latin1"):
            return text.encode("latin1")
        case "bytes", ():
            return b""
    return _Noted(callee.name, arguments)


def _filled(target: dict[Any, Any], items: list[Any], where: str) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int):
            raise DataError(f"{where}: refused: a dictionary with a {type(key).__name__} as key")
        target[key] = value
    return target


def _array(noted: _Noted, where: str) -> NDArray[Any]:
    match noted:
        case _Noted("array", state=(_, tuple(shape), _Noted("dtype") as kind, bool(fortran), content)):
            pass
        case _Noted("frombuffer", arguments=(content, _Noted("dtype") as kind, tuple(shape), str(order))):
            fortran = order == "F"
        case _:
            raise DataError(f"{where}: refused: the pickle has {noted.name!r} in the place of an array")
    dtype = _dtype(kind, where)
    if not isinstance(content, bytes | bytearray) or not all(type(n) is int and n >= 0 for n in shape):
        raise DataError(f"{where}: refused: an array without a shape or without bytes")
    expected = dtype.itemsize
    for n in shape:
        expected *= n
    if len(content) != expected:
        raise DataError(
            f"{where}: refused: an array of shape {shape} needs {expected} bytes, the pickle has {len(content)}"
        )
    return np.frombuffer(bytes(content), dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(noted: _Noted, where: str) -> np.dtype[Any]:
    match noted:
        case _Noted("dtype", arguments=(str() | bytes() as code, *_), state=None | (_, _, None, None, None, _, _, _)):
            pass
        case _:
            raise DataError(f"{where}: refused: a dtype that is not a plain number")
    code = code.decode("ascii", "replace") if isinstance(code, bytes) else code
    if code not in {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}:
        raise DataError(f"{where}: refused: an array of dtype {code!r}; only numbers are read")
    order = noted.state[1] if noted.state else "="
    return np.dtype(code).newbyteorder(">" if order in (">", b">") else "<")
