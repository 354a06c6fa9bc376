"""A small ledger to judge, without a network."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from resattn.claims.claims import COLUMNS, Claim, Subject, load

KNOWN = {"attention56", "attention92", "resnet152", "cifar-attention92", "resnext101"}
ROW = {
    "id": "a.1", "source": "wang2017", "place": "Table 2", "quote": "31.9", "subject": "attention56",
    "quantity": "params", "definition": "learnable", "value": "31.9", "unit": "M", "base": "1000", "mac_or_flop": "",
    "tolerance": "printed", "note": "",
}  # fmt: skip

Ledger = Callable[..., tuple[Claim, ...]]


def check_known(subject: Subject) -> None:
    if subject.network not in KNOWN:
        raise ValueError(f"unknown network {subject.network!r}")


@pytest.fixture(autouse=True)
def _no_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a stand-in counts is not kept where the user's counted numbers are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Loads rows, each given by what differs from one row about the parameters of Attention-56."""

    def loaded(*rows: dict[str, str]) -> tuple[Claim, ...]:
        path, references = tmp_path / "ledger.csv", tmp_path / "references.bib"
        references.write_text("@article{wang2017,\n}\n@misc{he2016,\n}\n")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows({**ROW, **row} for row in rows)
        return load(path, references, check_subject=check_known)

    return loaded
