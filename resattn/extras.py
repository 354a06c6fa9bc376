"""Names the missing extra of an installed wheel, with the `pip install` that adds it. Standard library only."""

from __future__ import annotations

import importlib

# Extra to the modules that it brings, each with the name of its distribution.
EXTRAS = {
    "cli": {"shtab": "shtab"},
    "crosscheck": {"fvcore.nn": "fvcore", "torchinfo": "torchinfo"},
    "train": {
        "lightning_fabric": "lightning-fabric", "platformdirs": "platformdirs", "pooch": "pooch",
        "sklearn": "scikit-learn", "tqdm": "tqdm",
    },
    "zoo": {"timm": "timm", "transformers": "transformers"},
}  # fmt: skip


class MissingError(ImportError):
    """A package of an extra is not installed; the message gives the command that installs it."""


def require(what: str, extra: str, *modules: str) -> None:
    """Imports the packages of an extra, before a user's module of the same name can be imported in their place.

    `modules`: import only these. Raises: MissingError.
    """
    wanted = {module: package for module, package in EXTRAS[extra].items() if not modules or module in modules}
    missing = [package for module, package in wanted.items() if not _imports(module)]
    if missing:
        packages = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        raise MissingError(f"{what} needs {packages}: pip install 'resattn[{extra}]'")


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is missing inside of the package is an error of its own.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return False
    return True
