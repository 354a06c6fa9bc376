"""The census sets the depth in a name beside what is counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from resattn import cli
from resattn.compare import census as module
from resattn.compare.census import COLUMNS, census
from resattn.networks import catalog
from resattn.networks.classic import ZOO


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    networks = ["vgg16", "efficientnet_b0", "inception_v3", "attention56", "cifar-resnet236"]
    return {row["network"]: row for row in census(networks)}


def test_it_sets_the_name_beside_the_counts(rows: dict[str, dict[str, Any]]) -> None:
    assert all(tuple(row) == COLUMNS for row in rows.values())
    assert (rows["vgg16"]["named_depth"], rows["vgg16"]["named_by"], rows["vgg16"]["longest_path"]) == (16, "name", 16)
    assert rows["efficientnet_b0"]["named_depth"] is None
    assert rows["inception_v3"]["named_by"] == "szegedy2016, section 6"
    assert rows["attention56"]["named_depth"] == rows["attention56"]["trunk_depth"] == 56
    assert rows["attention56"]["longest_path"] > 56
    assert "the whole input" in rows["efficientnet_b0"]["notes"]
    assert rows["cifar-resnet236"]["n_paths"] == 2**78


@pytest.fixture
def two_own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ZOO", {name: ZOO[name] for name in ("vgg16", "resnet50", "unet")})
    monkeypatch.setattr(catalog, "names", lambda: ("resnet50", "cifar-resnet236"))


@pytest.mark.usefixtures("two_own_networks")
def test_it_is_printed_as_a_table_and_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert cli.main(["census", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    # Each network once, and those of the catalog.
    assert [row["network"] for row in rows] == ["vgg16", "resnet50", "unet", "cifar-resnet236"]
    assert rows[-1]["n_paths"] == 2**78
    assert cli.main(["census"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(rows)
    assert lines[0].split() == list(COLUMNS)
    assert "138,357,544" in lines[1]
    assert "3.02e+23" in lines[4]
