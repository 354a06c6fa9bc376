"""Resolves a target: a name, a spec, a model, `module:callable`, `file.py:callable`, `timm:NAME`, `torchvision:NAME` or
`hf:NAMEConfig`.

The user's code is imported and run with the current folder first on the path, until the measurement ends. Modules of
this package are imported as `resattn.NAME`, so that no module of the user's can replace them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import os
import sys
import sysconfig
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

import resattn
from resattn.extras import EXTRAS, MissingError, require
from resattn.graph.graph import Shape
from resattn.graph.inputs import Blank, Inputs
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import NetworkSpec, override

Make = Callable[[], Any]


class TargetError(ValueError):
    """There is no such target, or no input for it; the message says what was found and what is expected."""

    is_usage = True


class ModelError(TargetError):
    """The code of a model raised an exception; the message gives it, with file and line."""

    is_usage = False


class LibraryError(ModelError):
    """A library of models cannot be used; the message gives its error."""


@dataclass(frozen=True)
class Target:
    """What is measured: a name, the arguments of its forward, and its spec if it has one.

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
    """A context manager that gives the target; its code can be imported inside the block.

    `args`, `kwargs`: as the forward takes them, or shapes without the batch, for a batch of 1. A spec has its own input
    shape. `settings`: fields of a spec.
    Raises: TargetError, SpecError, MissingError; also if code of the target exits while it is measured.
    """
    name = target if isinstance(target, str) else getattr(target, "name", type(target).__name__)
    spec = _spec(target, name, settings)
    inputs = Inputs.of(args, kwargs, batch=(1,))
    where, _, called = target.rpartition(":") if isinstance(target, str) else ("", "", "")
    if not inputs.leaves:
        if spec is None and where not in LIBRARIES:
            if isinstance(target, str):
                with _first_on_path(*_folders(where)):
                    _found(where, called)  # what does not exist needs no input
            raise TargetError(f"{name} needs an input: example tensors, or a shape such as channels, height, width")
        if spec is not None:
            inputs = Inputs.of([spec.input_shape], inputs.kwargs, batch=inputs.batch)
    if spec is not None:
        _check_image(spec, inputs.shapes[0])
        yield Target(spec.name, inputs, lambda device: build(spec, device=device), spec)
        return
    try:
        if isinstance(target, str):
            with _first_on_path(*_folders(where)), _no_end():
                made = functools.cache(lambda device: _model(target, _found(where, called), device))
                if not inputs.leaves:
                    own = LIBRARIES[where].inputs(made("meta"), called, inputs.batch)
                    inputs = Inputs(own.args, {**own.kwargs, **inputs.kwargs})
                yield Target(target, inputs, made)
        else:
            assert isinstance(target, nn.Module)
            with _no_end():
                yield Target(name, inputs, lambda device: target)
    except SystemExit as error:
        call = str(error) if isinstance(error, _EndError) else f"sys.exit({error.code!r})"
        raise ModelError(f"{name} called {call}{_place(error)}") from error


class _EndError(SystemExit):
    """The target called `os._exit`, which would end this process without a word."""

    def __str__(self) -> str:
        return f"os._exit({self.code!r})"


@contextmanager
def _no_end() -> Iterator[None]:
    """Within the block `os._exit` raises, as `sys.exit` does; a process that the target forked may still end so."""
    end, own = os._exit, os.getpid()

    def refused(code: int) -> None:
        if os.getpid() != own:
            end(code)
        raise _EndError(code)

    with mock.patch.object(os, "_exit", refused):
        yield


def _check_image(spec: NetworkSpec, shape: Shape) -> None:
    """Raises: TargetError where an input is no batch of images with as many channels as the spec has."""
    if len(shape) != 4 or shape[1] != spec.input_shape[0]:
        given = ",".join(map(str, shape[1:]))
        example = ",".join(map(str, spec.input_shape))
        raise TargetError(
            f"{spec.name} takes images of {spec.input_shape[0]} channels: C,H,W without the batch, such as {example}; "
            f"found {given}"
        )


def _spec(target: Any, name: str, settings: Mapping[str, Any] | None) -> NetworkSpec | None:
    if isinstance(target, str) and catalog.is_name(target):
        if target.endswith(".py"):
            raise TargetError(f"which callable of {target}? {target}:NAME is expected")
        try:
            return override(catalog.named(target), dict(settings or {}))
        except catalog.UnknownNetworkError:
            from resattn.networks.classic import ZOO

            if target not in ZOO:
                raise
            shape = ",".join(map(str, ZOO[target].input_shape))
            raise TargetError(
                f"{target} is one of the census; its target is resattn.networks.classic:{target} --input {shape}"
            ) from None
    if isinstance(target, NetworkSpec):
        return override(target, dict(settings)) if settings else target
    if settings:
        raise TargetError(f"only a named network has fields to set; {name} is not one")
    if not isinstance(target, str | nn.Module):
        raise TargetError(f"a {type(target).__name__} is not a name, a NetworkSpec or a torch.nn.Module")
    return None


def model_of(target: str) -> nn.Module:
    """The model of `package.module:callable`, `path/to/file.py:callable` or `timm:NAME`.

    Raises: TargetError, MissingError.
    """
    where, _, name = target.rpartition(":")
    with _first_on_path(*_folders(where)):
        return _model(target, _found(where, name), "meta")


def _model(target: str, make: Make, device: str) -> nn.Module:
    """Built with its parameters on the meta device; where the constructor needs their values, on the CPU."""
    if isinstance(make, nn.Module):
        return make
    if needed := _needed(make):
        raise TargetError(f"{target} needs arguments ({', '.join(needed)}); a callable without arguments is expected")
    errors: list[BaseException] = []
    on_meta = functools.partial(torch.device, "meta")
    for place in (_parameters_on_meta, nullcontext, on_meta) if device == "meta" else (nullcontext,):
        # What asks for a value is made on the CPU; what the memory cannot hold is never made.
        if errors and _is_too_large(errors[-1]) == (place is nullcontext):
            continue
        try:
            with place():
                model = make()
            break
        except (Exception, SystemExit) as error:
            errors.append(error)
    else:
        # That of the CPU, or of another place where the CPU has not the memory.
        cause = next((error for error in (*errors[1:], errors[0]) if not _is_too_large(error)), errors[0])
        raise ModelError(f"{target} raised {_described(cause)}") from cause
    if not isinstance(model, nn.Module):
        raise TargetError(f"{target} returned a {type(model).__name__}, not a torch.nn.Module")
    return model


def _is_too_large(error: BaseException) -> bool:
    return "allocate memory" in str(error)


MOST_FILLED = 2**26  # numbers of a tensor that a constructor fills; a larger one is a parameter and is made on meta


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters take no memory once they are a module's; buffers and constants keep their values."""
    register = nn.Module.register_parameter
    # By the id of what was made; that is held weakly, so that its memory is free once the constructor drops it.
    made: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}

    def register_parameter(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(module, name, param)
        if type(param) is nn.Parameter and not param.is_meta:
            if id(param) not in made or made[id(param)][0]() is not param:  # one that several modules share stays one
                shown = nn.Parameter(torch.empty_like(param, device="meta"), param.requires_grad)
                made[id(param)] = weakref.ref(param), shown
            module._parameters[name] = made[id(param)][1]

    move = nn.Module.to

    def to(module: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        """A constructor that moves what it made: on meta there is nothing to move."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is None or not any(p.is_meta for p in module.parameters()):
            return move(module, *args, **kwargs)
        return move(module, dtype) if dtype is not None else module

    def filled(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @functools.wraps(make)
        def fill(*size: Any, **kwargs: Any) -> torch.Tensor:
            sizes = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
            if all(type(n) is int for n in sizes) and prod(sizes) > MOST_FILLED:
                kwargs.setdefault("device", "meta")
            return make(*size, **kwargs)

        return fill

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(nn.Module, "register_parameter", register_parameter))
        patches.enter_context(mock.patch.object(nn.Module, "to", to))
        for name in ("zeros", "ones", "rand", "randn"):
            patches.enter_context(mock.patch.object(torch, name, filled(getattr(torch, name))))
        yield


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
    lines = [line for line in str(error.msg if isinstance(error, SyntaxError) else error).splitlines() if line.strip()]
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
    """A function that makes a model of a library, if that is installed. Models are untrained, so nothing is downloaded.

    Raises: TargetError, LibraryError, MissingError.
    """
    if library not in LIBRARIES:
        raise TargetError(f"no library {library!r} (one of: {', '.join(LIBRARIES)})")
    row = LIBRARIES[library]
    try:
        if row.package in EXTRAS["zoo"]:
            require(f"{library}:{name}", "zoo", row.package)
        with mock.patch.dict("os.environ", {"HF_HUB_OFFLINE": "1"}):  # nothing is ever downloaded
            module = importlib.import_module(row.package)
    except MissingError:
        raise
    except Exception as error:
        raise LibraryError(
            f"{row.package} cannot be imported: {_described(error)} "
            f"({library}:{name} needs a {row.package} that fits torch {torch.__version__})"
        ) from error
    return row.make(module, name)


def _unknown(library: str, name: str, known: Sequence[str]) -> TargetError:
    near = get_close_matches(name, known, n=3)
    nearest = f"nearest: {', '.join(near)}" if near else "none is near"
    return TargetError(f"{library} has no model {name!r} ({nearest})")


def _timm(timm: ModuleType, name: str) -> Make:
    # timm names the weights behind a dot; the architecture is what stands before it.
    if name.partition(".")[0] not in (known := timm.list_models()):
        raise _unknown("timm", name, known)
    return lambda: timm.create_model(name, pretrained=False)


def _timm_inputs(model: Any, name: str, batch: Shape) -> Inputs:
    return _images(batch, *model.pretrained_cfg["input_size"])


def _torchvision(torchvision: ModuleType, name: str) -> Make:
    if name not in (known := torchvision.models.list_models()):
        raise _unknown("torchvision", name, known)

    def make() -> nn.Module:
        builder = torchvision.models.get_model_builder(name)
        # A detector's backbone is fetched from the network unless it is told not to.
        given = inspect.signature(builder).parameters
        return builder(**{option: None for option in ("weights", "weights_backbone") if option in given})

    return make


FRAMES = 16  # of a video
FLOW = (3, 520, 960)  # the frames for which RAFT's weights are evaluated


def _torchvision_inputs(model: Any, name: str, batch: Shape) -> Inputs:
    """The size at which the library's own weights are evaluated."""
    import torchvision

    transforms = next(iter(torchvision.models.get_model_weights(name))).transforms
    kind = getattr(getattr(transforms, "func", transforms), "__name__", "")
    if kind == "OpticalFlow":
        return Inputs((Blank((*batch, *FLOW)), Blank((*batch, *FLOW))))
    if kind == "ObjectDetection":  # a list of images, each of its own size
        side = int((model.transform.fixed_size or model.transform.min_size)[0])
        return Inputs(([Blank((3, side, side)) for _ in range(prod(batch))],))
    own = getattr(model, "image_size", None)  # a transformer's, whose first weights may be those for another size
    size = own or transforms.keywords.get("crop_size") or transforms.keywords["resize_size"]
    height, width = size if isinstance(size, Sequence) else (size, size)
    return _images(batch, 3, *([FRAMES] if kind == "VideoClassification" else []), height, width)


def _hf(transformers: ModuleType, name: str) -> Make:
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise TargetError(f"no file {name}")
        config = _config_of(transformers, Path(name))
    else:
        known = [n for n in dir(transformers) if n.endswith("Config") and n != "AutoConfig"]
        if name not in known:
            raise _unknown("transformers", name, known)
        config = getattr(transformers, name)()

    def make() -> nn.Module:
        if getattr(config, "use_pretrained_backbone", False):
            config.use_pretrained_backbone = False
        for field in ("image_token_id", "video_token_id"):
            if getattr(config, field, 0) is None:  # compared with each token
                setattr(config, field, -1)
        config.architectures = config.architectures or []  # where a configuration has several, transformers iterates
        for architecture in config.architectures or ():
            if hasattr(transformers, architecture):
                return getattr(transformers, architecture)(config)
        return transformers.AutoModel.from_config(config)

    return make


def _config_of(transformers: ModuleType, path: Path) -> Any:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    except KeyError as error:
        raise TargetError(f"{path} has no model_type") from error
    except (AttributeError, ValueError) as error:
        raise TargetError(f"{path} is no configuration of transformers: {str(error).splitlines()[0]}") from error


def _hf_inputs(model: Any, name: str, batch: Shape) -> Inputs:
    from resattn.conventions import UnknownArgumentError, inputs_of  # needed for this library only

    if type(model).forward is nn.Module.forward:
        raise ModelError(f"hf:{name}: {type(model).__name__} has no forward: other methods call its parts")
    try:
        return inputs_of(model, batch)
    except UnknownArgumentError as error:
        raise TargetError(f"hf:{name} needs an input: --input {error}=D,D,...") from None


def _images(batch: Shape, *size: int) -> Inputs:
    return Inputs((Blank((*batch, *size)),))


@dataclass(frozen=True)
class Library:
    """A library of models: its package, a function that makes a model by name, and the model's default inputs."""

    package: str
    make: Callable[[ModuleType, str], Make]
    inputs: Callable[[Any, str, Shape], Inputs]


LIBRARIES: dict[str, Library] = {
    "timm": Library("timm", _timm, _timm_inputs),
    "torchvision": Library("torchvision", _torchvision, _torchvision_inputs),
    "hf": Library("transformers", _hf, _hf_inputs),
}
