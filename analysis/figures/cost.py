"""The cost of networks, by role."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import ON_ROLE, ROLES, percent, scaled_label, styled
from analysis.tables.formats import display_name


@styled
def cost_bars(ax: Axes, costs: pd.DataFrame, id: str) -> str:
    """One quantity of each network, stacked by role. `costs`: of `analysis.tables.cost.cost_frame`."""
    part = costs[costs["quantity"] == id]
    networks = list(part["network"].unique())
    scale, label = scaled_label(id, part.groupby("network")["value"].sum().max())
    most = part.groupby("network")["value"].sum().max() / scale
    alt = [f"{label} by role."]
    for row, network in enumerate(networks):
        left = 0.0
        for role in ROLES:
            value = part.loc[(part["network"] == network) & (part["role"] == role), "value"].sum() / scale
            ax.barh(row, value, left=left, height=0.62, color=ROLES[role])
            if role == "mask" and value > most * 0.055:
                share = percent(value * scale / part.loc[part["network"] == network, "value"].sum())
                ax.text(left + value / 2, row, share, ha="center", va="center", color=ON_ROLE[role], fontsize=8)
            left += value
        ax.text(left + most * 0.012, row, f"{left:.{1 if left >= 10 else 2}f}", va="center", fontsize=8.5)
        mask = part.loc[(part["network"] == network) & (part["role"] == "mask"), "value"].sum() / scale
        in_masks = f", {percent(mask / left)} in the masks" if mask else ""
        alt.append(f"{display_name(network)}: {left:.3g}{in_masks}.")
    ax.set_yticks(range(len(networks)), [display_name(n) for n in networks])
    ax.set_ylim(len(networks) - 0.5, -0.5)  # not inverted: panels may share the axis
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(0, most * 1.12)
    ax.set_xlabel(label)
    ax.grid(axis="x")
    return " ".join(alt)
