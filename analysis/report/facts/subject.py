"""The network that the report is about, and the one it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.report.reading import Study
from analysis.tables.schemas import Schema

SUBJECT = "attention56"  # whose number the page asks about
PEER = "resnet152"  # what the article calls it a rival of


def subject_of(table: Mapping[str, Any], study: Study, schema: Schema) -> str:
    """Attention-56; without it the first network of a table with a mask, else the first one. Raises: MissingError."""
    if not table:
        raise study.no_rows(schema)
    return next((n for n in (SUBJECT, *(n for n in table if "attention" in n)) if n in table), next(iter(table)))
