"""Architecture analysis of torch models: depth, paths, cost and receptive field, from what one forward executes.

    from resattn import audit
    print(audit(model, torch.empty(1, 3, 224, 224)))

Each name of `DOOR` is imported when it is first used: `import resattn` does not import torch.
"""

import importlib
import time

__version__ = "0.1.0"
STARTED_NS = time.time_ns()  # files of this package that are newer may not be what runs

# Name to the module that defines it. The digest of a notebook's dependencies reads this table from the source.
DOOR = {
    "Audit": "resattn.measures.audit",
    "NetworkSpec": "resattn.networks.spec",
    "Rule": "resattn.rules.rule",
    "audit": "resattn.measures.audit",
    "build": "resattn.networks.network",
    "capture": "resattn.measures.captured",
    "crosscheck": "resattn.instruments.crosscheck",
    "match": "resattn.compare.matching",
    "named": "resattn.networks.catalog",
}
__all__ = [*DOOR]


def __getattr__(name: str) -> object:
    if name not in DOOR:
        raise AttributeError(f"module 'resattn' has no attribute {name!r} (one of: {', '.join(DOOR)})")
    found = getattr(importlib.import_module(DOOR[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *DOOR})
