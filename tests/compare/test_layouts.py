"""The search over CIFAR layouts counts what would be built, and finds what the literature says it must."""

from __future__ import annotations

import pytest
from pandas import DataFrame

from resattn.compare import layouts
from resattn.networks import catalog
from resattn.networks.network import build
from resattn.networks.spec import override

# wang2017, table 6.
PRINTED = {"cifar-attention92": "1.9", "cifar-attention236": "5.1", "cifar-attention452": "8.6"}


@pytest.mark.parametrize("name", ["cifar-attention56", *PRINTED])
@pytest.mark.parametrize(
    "settings", [{}, {"poolings": "3,2,1"}, {"poolings": "2,0,1"}, {"units": "2,2,2", "tail": "0,0,0"}, {"width": "32"}]
)
def test_the_arithmetic_counts_what_is_built(name: str, settings: dict[str, str]) -> None:
    spec = override(catalog.named(name), settings)
    layout = layouts.Layout(
        width=round(spec.width), poolings=spec.poolings, extra_units="tail" if any(spec.tail) else "per stage",
        bottom=2, skip="one", outputs=2, counts_norm=True,
    )  # fmt: skip
    built = sum(p.numel() for p in build(spec, device="meta").parameters())
    assert layouts.params(layout, spec.modules[0], spec.p, spec.t, spec.r) == built


@pytest.fixture(scope="module")
def found():
    return DataFrame(layouts.search({name: (catalog.named(name), printed) for name, printed in PRINTED.items()}))


def test_thousands_of_layouts_and_none_gives_all_three_numbers(found) -> None:
    assert len(found) == 2 * 4**3 * 2 * 2 * 3 * 2 * 2 == 6144
    assert found["n_matches"].max() == 2
    pairs = found["cifar-attention92_matches"] & found["cifar-attention236_matches"]
    assert (pairs.sum(), round(found["worst_miss_m"].min(), 2)) == (42, 0.37)


def test_the_default_reading_is_the_only_one_by_the_rules_of_the_release_that_gives_two(found) -> None:
    two = found[found["follows_release"] & found["cifar-attention92_matches"] & found["cifar-attention236_matches"]]
    # A mask with one pooling has as many units as one with none.
    assert set(two["poolings"]) == {"2,2,1", "2,2,0"}
    assert set(two["extra_units"]) == {"tail"}
    assert set(two["width"]) == {16}


def test_doubled_widths_are_excluded(found) -> None:
    # The smallest of the doubled variants is more than twice the printed 1.9 M.
    assert found.loc[found["width"] == 32, "cifar-attention92"].min() > 2 * 1.95e6


def test_the_search_says_what_it_found(found) -> None:
    said = layouts.verdict(found.to_dict("records"), PRINTED)
    assert "meet 2 of the 3 printed numbers, and none meets all" in said
    assert "poolings 2,2,0 and 2,2,1" in said
