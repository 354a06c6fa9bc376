"""The regular pattern in which the receptive fields of a map's units move over the input."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from resattn.rules.intervals import Extent

MOST_PHASES = 64  # of an up-sampling: with more, the pattern is not looked for


@dataclass(frozen=True, slots=True)
class Grid:
    """Unit i of a map sees the input indices from first[r] + q * step to last[r] + q * step.

    Here q, r = divmod(i, period), with `period` the length of `first`. Borders are ignored.
    """

    step: int
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def period(self) -> int:
        return len(self.first)

    @property
    def stride(self) -> Fraction:
        """Input pixels from one unit to the next, on average."""
        return Fraction(self.step, self.period)

    @property
    def offset(self) -> int:
        """The first index that unit 0 sees; a negative one is in the padding."""
        return self.first[0]

    @property
    def side(self) -> int:
        return max(b - a + 1 for a, b in zip(self.first, self.last, strict=True))

    def seen(self, start: int, stop: int) -> tuple[int, int]:
        """First and last input index seen by the units from `start` to `stop`, `stop` excluded."""
        units = [divmod(i, self.period) for i in (*range(start, min(start + self.period, stop)),
                                                  *range(max(start, stop - self.period), stop))]  # fmt: skip
        return (
            min(self.first[r] + q * self.step for q, r in units),
            max(self.last[r] + q * self.step for q, r in units),
        )


def grid(extent: Extent, dim: int) -> Grid | None:
    """The pattern of the intervals along one dimension, from the positions that no border clips.

    None if they also differ along another dimension, or have no pattern (up-sampling with aligned corners).
    """
    if extent.dims != (dim,) or extent.is_bound:
        return None
    free = np.flatnonzero(~extent.clipped)
    if free.size < 2 or free[-1] - free[0] + 1 != free.size:
        return None
    lo, hi, start = extent.lo[free], extent.hi[free], int(free[0])
    for period in range(1, min(MOST_PHASES, free.size // 2) + 1):
        steps = np.concatenate([lo[period:] - lo[:-period], hi[period:] - hi[:-period]])
        if (steps == steps[0]).all():
            step = int(steps[0])
            # The positions before the first free one continue the pattern to the left.
            units = [next(i for i in range(start, start + period) if i % period == r) for r in range(period)]
            first = tuple(int(lo[i - start]) - i // period * step for i in units)
            last = tuple(int(hi[i - start]) - i // period * step for i in units)
            return Grid(step, first, last)
    return None
