"""The one resolver of what is measured: a name, a spec, a model, `module:callable`, `file.py:callable`, `timm:NAME`.

Code of the user's is imported and run with their current folder first on the path, until the measurement ends. All
modules of ours are imported as `resattn.NAME`, which no module of theirs can hide.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

import resattn
from resattn.extras import EXTRAS, MissingError, require
from resattn.graph.inputs import Inputs
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec, override

Make = Callable[[], Any]


class TargetError(ValueError):
    """There is no such target, or no input for it; the message says what was found and what is expected."""

    is_usage = True


class ModelError(TargetError):
    """The code of a model raised; the message gives its error, and the file and line where it arose."""

    is_usage = False


class LibraryError(ModelError):
    """A library of models is broken; the message gives its error."""


@dataclass(frozen=True)
class Target:
    """What is measured: its name, the arguments of its forward, and its spec where it has one.

    `make(device)` builds the model on "meta", where weights take no memory, or on "cpu".
    """

    name: str
    inputs: Inputs
    make: Callable[[str], nn.Module]
    spec: NetworkSpec | None = None


@contextmanager
def resolved(
    target: str | NetworkSpec | nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Target]:
    """A target for as long as it is measured.

    `args`, `kwargs`: as the forward takes them, or shapes without the batch, which is then 1. A spec brings its own
    input shape. `settings`: fields of a spec.
    Raises: TargetError, SpecError, MissingError; also where code of the target exits while it is measured.
    """
    name = target if isinstance(target, str) else getattr(target, "name", type(target).__name__)
    spec = _spec(target, name, settings)
    inputs = Inputs.of(args, kwargs, batch=(1,))
    if not inputs.leaves:
        if spec is None:
            raise TargetError(f"{name} needs an input: example tensors, or a shape such as channels, height, width")
        inputs = Inputs.of([spec.input_shape], inputs.kwargs, batch=(1,))
    if spec is not None:
        yield Target(spec.name, inputs, lambda device: build(spec, device=device), spec)
        return
    try:
        if isinstance(target, str):
            where, _, called = target.rpartition(":")
            with _first_on_path(*_folders(where)):
                yield Target(target, inputs, lambda device: _model(target, _found(where, called), device))
        else:
            assert isinstance(target, nn.Module)
            yield Target(name, inputs, lambda device: target)
    except SystemExit as error:
        raise ModelError(f"{name} called sys.exit({error.code!r}){_place(error)}") from error


def _spec(target: Any, name: str, settings: Mapping[str, Any] | None) -> NetworkSpec | None:
    if isinstance(target, str) and catalog.is_name(target):
        if target.endswith(".py"):
            raise TargetError(f"which callable of {target}? {target}:NAME is expected")
        return override(catalog.named(target), dict(settings or {}))
    if isinstance(target, NetworkSpec):
        return override(target, dict(settings)) if settings else target
    if settings:
        raise TargetError(f"only a named network has fields to set; {name} is not one")
    if not isinstance(target, str | nn.Module):
        raise TargetError(f"a {type(target).__name__} is not a name, a NetworkSpec or a torch.nn.Module")
    return None


def model_of(target: str, device: str = "meta") -> nn.Module:
    """The model of `package.module:callable`, `path/to/file.py:callable` or `timm:NAME`.

    Raises: TargetError, MissingError.
    """
    where, _, name = target.rpartition(":")
    with _first_on_path(*_folders(where)):
        return _model(target, _found(where, name), device)


def _model(target: str, make: Make, device: str) -> nn.Module:
    """Built on the meta device; where the constructor needs values, on the CPU."""
    if isinstance(make, nn.Module):
        return make
    if needed := _needed(make):
        raise TargetError(f"{target} needs arguments ({', '.join(needed)}); a callable without arguments is expected")
    try:
        with torch.device(device):
            model = make()
    except (Exception, SystemExit) as first:
        if device != "meta":
            raise ModelError(f"{target} raised {_described(first)}") from first
        try:
            model = make()
        except (Exception, SystemExit) as error:
            raise ModelError(f"{target} raised {_described(error)}") from error
    if not isinstance(model, nn.Module):
        raise TargetError(f"{target} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _needed(make: Make) -> list[str]:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a callable that is written in C and says nothing of its arguments
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


# -- code of the user's


@contextmanager
def _first_on_path(*folders: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _folders(where: str) -> list[str]:
    """The current folder, and behind it that of a file, which may import its neighbours as a script could."""
    if where in LIBRARIES:
        return []
    here, file = Path.cwd(), Path(where)
    return list(dict.fromkeys(str(folder) for folder in (here, *([file.parent.resolve()] * where.endswith(".py")))))


def _found(where: str, name: str) -> Make:
    if where in LIBRARIES:
        return foreign(where, name)
    module = _module(where)
    found = getattr(module, name, None)
    if not callable(found):
        known = [
            n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__
        ]
        raise TargetError(f"{where} has no callable {name!r} (it has: {', '.join(known) or 'none'})")
    return found


def _module(where: str) -> ModuleType:
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        if not Path(where).is_file():
            raise TargetError(f"no file {where}")
        return _run(Path(where))
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise ModelError(f"{where} cannot be imported: {_described(error)}") from error
        raise TargetError(f"{where} cannot be imported: ModuleNotFoundError: {error} ({_searched(where)})") from error
    except (Exception, SystemExit) as error:
        if not where.strip(".") or where.startswith("."):
            raise TargetError(f"{where!r} is not the full name of a module") from error
        raise ModelError(f"{where} cannot be imported: {_described(error)}") from error


def _searched(where: str) -> str:
    loaded = sys.modules.get(where.partition(".")[0])
    if (file := getattr(loaded, "__file__", None)) is not None:
        return f"{where.partition('.')[0]} is {_shown(file)}"
    return "searched: the current folder, then sys.path"


def _run(path: Path) -> ModuleType:
    """The module of a file."""
    # Under a name that no import statement can say: its own may be that of a module in use, and dataclasses look
    # theirs up while they are made.
    spec = importlib.util.spec_from_file_location(f"resattn target {path}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def _described(error: BaseException) -> str:
    """The error in one line, and where it arose."""
    lines = str(error.msg if isinstance(error, SyntaxError) else error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".removesuffix(": ") + _place(error)


OURS = str(Path(resattn.__file__).resolve().parent)
LIBRARY = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib"))


def _place(error: BaseException) -> str:
    """The innermost file and line of the user's own; of a library where there is none."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    frames = [(file, line) for file, line in frames if not file.startswith(("<frozen", f"{OURS}/"))]
    theirs = [(file, line) for file, line in frames if not file.startswith(LIBRARY)]
    for file, line in (theirs or frames)[-1:]:
        return f" ({_shown(file)}, line {line})"
    return ""


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# -- libraries of models


def foreign(library: str, name: str) -> Make:
    """What makes a model of timm or torchvision, if that is installed; untrained, so nothing is downloaded.

    Raises: TargetError, LibraryError, MissingError.
    """
    if library not in LIBRARIES:
        raise TargetError(f"no library {library!r} (one of: {', '.join(LIBRARIES)})")
    try:
        if library in EXTRAS["zoo"]:
            require(f"{library}:{name}", "zoo")
        module = importlib.import_module(library)
    except MissingError:
        raise
    except Exception as error:
        raise LibraryError(
            f"{library} cannot be imported: {type(error).__name__}: {error} "
            f"({library}:{name} needs a {library} that fits torch {torch.__version__})"
        ) from error
    known, make = LIBRARIES[library](module, name)
    # timm names the weights behind a dot; the architecture is what stands before it.
    if name.partition(".")[0] not in known:
        near = get_close_matches(name, known, n=3)
        nearest = f"nearest: {', '.join(near)}" if near else "none is near"
        raise TargetError(f"{library} has no model {name!r} ({nearest})")
    return make


def _timm(timm: ModuleType, name: str) -> tuple[list[str], Make]:
    return timm.list_models(), lambda: timm.create_model(name, pretrained=False)


def _torchvision(torchvision: ModuleType, name: str) -> tuple[list[str], Make]:
    def make() -> nn.Module:
        builder = torchvision.models.get_model_builder(name)
        # A detector's backbone is fetched from the network unless it is told not to.
        given = inspect.signature(builder).parameters
        return builder(**{option: None for option in ("weights", "weights_backbone") if option in given})

    return torchvision.models.list_models(), make


LIBRARIES: dict[str, Callable[[ModuleType, str], tuple[list[str], Make]]] = {
    "timm": _timm,
    "torchvision": _torchvision,
}
