"""The display of a frame in a notebook."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import pandas as pd
from pandas.io.formats.style import Styler


def shown(frame: pd.DataFrame, formats: Mapping[str, str] | None = None, *, index: bool = False) -> Styler:
    """The frame as a notebook displays it: text to the left, grouped digits; the same frame gives the same markup."""
    uuid = f"{zlib.crc32(frame.to_csv().encode()):08x}"
    styler = Styler(frame, uuid=uuid, precision=2, thousands=",", na_rep="")
    texts = [c for c in frame.columns if not pd.api.types.is_numeric_dtype(frame[c]) and not holds_integers(frame[c])]
    styler = styler.set_properties(subset=texts, **{"text-align": "left"})
    left = [{"selector": f"th.col{frame.columns.get_loc(c)}", "props": "text-align: left"} for c in texts]
    styler = styler.set_table_styles(left)
    if formats:
        styler = styler.format(formats, subset=list(formats), na_rep="")
    return styler if index else styler.hide(axis="index")


def holds_integers(column: pd.Series) -> bool:
    """Whether a column of objects holds integers; pandas keeps large integers as objects."""
    return bool(len(column)) and all(isinstance(value, int) for value in column)
