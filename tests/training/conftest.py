"""Cluttered digits small enough to train on in seconds, and a CIFAR of 50 + 10 images."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resattn.networks.catalog import named
from resattn.networks.spec import override
from resattn.training import data, download
from resattn.training.config import DATASETS, DatasetRow, TrainConfig

N, N_TEST = 120, 40


@pytest.fixture(autouse=True)
def _no_user_data(monkeypatch, tmp_path):
    """No test reads or fills the cache of the user, or leaves the machine."""
    monkeypatch.setenv("RESATTN_DATA", str(tmp_path / "no-data"))
    monkeypatch.setattr(download, "SITE", "http://127.0.0.1:9/")


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setitem(DATASETS, "cifar10", DatasetRow(50, 10, 10))
    monkeypatch.setitem(DATASETS, "cifar100", DatasetRow(50, 10, 100))


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.digits(train=N, test=N_TEST)


@pytest.fixture
def config() -> Callable[..., TrainConfig]:
    """Makes the config of a run of a second: three epochs of six steps."""

    def make(**changes: object) -> TrainConfig:
        spec = override(named("cifar-resnet20-basic"), {"width": 4})
        values = {
            "spec": spec, "dataset": "cluttered-digits", "epochs": 3, "batch_size": 20, "images": N,
            "test_images": N_TEST, "threads": 1, "accelerator": "cpu",
        }  # fmt: skip
        return TrainConfig(**values | changes)

    return make
