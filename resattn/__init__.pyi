# What a type checker reads in the place of the lazy table in __init__.py; a test compares the two.
from resattn.compare.matching import match as match
from resattn.instruments.crosscheck import crosscheck as crosscheck
from resattn.measures.audit import Audit as Audit
from resattn.measures.audit import audit as audit
from resattn.measures.captured import capture as capture
from resattn.networks.catalog import named as named
from resattn.networks.network import build as build
from resattn.networks.spec import NetworkSpec as NetworkSpec
from resattn.rules.rule import Rule as Rule

__version__: str
DOOR: dict[str, str]
STARTED_NS: int
