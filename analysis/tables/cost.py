"""The cost of networks: by role, and beside what other instruments report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from analysis.tables.quantities import COSTS
from resattn.measures.audit import audit
from resattn.measures.quantities import QUANTITIES

if TYPE_CHECKING:
    from resattn.instruments.crosscheck import Check


def cost_frame(networks: Iterable[str]) -> pd.DataFrame:
    """Parameters, multiply-adds and FLOPs (twice those) by role: `schemas.COST`."""
    rows = []
    for name in networks:
        for role in audit(name).roles:
            values = {"params": role["params"], "macs": role["macs"], "flops": 2 * role["macs"]}
            rows += [
                {"network": name, "role": role["role"], "quantity": q, "value": values[q], "unit": QUANTITIES[q].unit}
                for q in COSTS
            ]
    return pd.DataFrame(rows)


def crosscheck_frame(checks: Iterable[Check]) -> pd.DataFrame:
    """Numbers of other instruments, our number, and the causes of the difference: `schemas.CROSSCHECK`."""
    rows = [
        {
            "network": check.target, "tool": check.tool, "version": check.version, "quantity": check.quantity,
            "definition": check.definition, "reported": check.reported, "ours": check.ours,
            "difference": check.difference,
            "explained_by": "; ".join(f"{cause}: {n:,}" for cause, n in check.causes.items()),
            "unexplained": check.unexplained, "uncounted": ", ".join(check.uncounted),
        }
        for check in checks
    ]  # fmt: skip
    return pd.DataFrame(rows)
