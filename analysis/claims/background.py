"""Does a mask filter the background? The rule for claim 6 of the article, and its result for trained networks.

The rule was written before the first run. The interventions are those of `analysis.trained.interventions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from analysis.statistics.comparisons import is_near_chance
from analysis.statistics.conclusions import chance_pct
from analysis.statistics.intervals import least_seeds, mean_interval

OBJECT, GROUND = "constant at the object", "constant at as much ground"
RULE = (
    "A mask filters the ground if its values at the object's place matter more than those of the ground: the test "
    f"error under '{OBJECT}' minus that under '{GROUND}', batch norms as they are, is above 0 in the mean over seeds, "
    "with a 95 % interval that does not contain 0 (at least 6 seeds), and the area under the ROC curve of the mask is "
    "above that of another image's mask. It does not if the difference is below 0 with such an interval, or the area "
    "is not above. Else, or with fewer seeds: not decided."
)
FILTERS, FILTERS_NOT, OPEN = "filters the ground", "does not filter the ground", "not decided"
# The numbers of `RULE` as measured quantities, one for each seed; the claim of the ledger is about the first.
DIFFERENCE, AREA = "object_over_ground", "mask_area_over_another"


@dataclass(frozen=True)
class Filtering:
    """The numbers of `RULE` for the masks of one network, by seed.

    `differences`: error with the mask constant on the object minus error with it constant on an equal area of
    background, in percentage points. `areas`: area under the ROC curve of the mask minus that of another image's mask.
    `is_near_chance`: the network is near chance level.
    """

    network: str
    differences: Mapping[int, float]
    areas: Mapping[int, float]
    dataset: str = ""
    is_near_chance: bool = False
    mean: float = field(init=False)
    low: float | None = field(init=False)
    high: float | None = field(init=False)

    def __post_init__(self) -> None:
        found = mean_interval(list(self.differences.values()))
        for name in ("mean", "low", "high"):
            object.__setattr__(self, name, getattr(found, name))

    @property
    def area(self) -> float:
        return sum(self.areas.values()) / len(self.areas)

    @property
    def finding(self) -> str:
        if self.low is None or self.high is None or self.is_near_chance:
            return OPEN
        if self.area <= 0 or self.high < 0:
            return FILTERS_NOT
        return FILTERS if self.low > 0 else OPEN

    @property
    def why(self) -> str:
        """The numbers that decide, in a sentence."""
        n = len(self.differences)
        interval = f"an interval needs {least_seeds()} seeds"
        if self.low is not None:
            interval = f"95 % interval {self.low:+.1f} to {self.high:+.1f}"
        each = ", ".join(f"{value:+.1f}" for value in self.differences.values())
        chance = ", but the network is near chance level" if self.is_near_chance else ""
        return (
            f"{self.finding}{chance}: the test error with the mask constant on the object minus that with it constant "
            f"on an equal area of background is {self.mean:+.1f} percentage points (mean of {n} seeds: {each}; "
            f"{interval}), and its area under the ROC curve minus that of another image's mask is {self.area:+.2f}"
        )


def filtering(interventions: pd.DataFrame, masks: pd.DataFrame) -> list[Filtering]:
    """The numbers of `RULE` for each network. Frames: `schemas.INTERVENTIONS` and `schemas.MASKS`."""
    found = []
    both = interventions[interventions["intervention"].isin((OBJECT, GROUND))]
    for network, part in both.groupby("network", sort=False):
        wide = part.pivot_table(index="seed", columns="intervention", values="test_error_pct")
        of_network = masks[(masks["network"] == network) & (masks["state"] == "after") & (masks["quantity"] == "auc")]
        area = of_network.pivot_table(index="seed", columns="map", values="value")
        dataset = str(part["dataset"].iloc[0])
        found.append(
            Filtering(
                str(network), _by_seed(wide[OBJECT] - wide[GROUND]), _by_seed(area["mask"] - area["other image"]),
                dataset, is_near_chance(float(of_network["test_error_pct"].mean()), chance_pct(dataset)),
            )
        )  # fmt: skip
    return found


def _by_seed(values: pd.Series) -> dict[int, float]:
    return {int(str(seed)): float(value) for seed, value in values.items()}
