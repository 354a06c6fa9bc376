"""A LightningModule is a module: what its forward computes is measured, before and after it was trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from resattn import audit

lightning = pytest.importorskip("lightning")


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


@pytest.mark.filterwarnings("ignore")
def test_a_lightning_module_has_the_numbers_of_the_network_in_it() -> None:
    class Lit(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net, self.example_input_array = net(), torch.zeros(1, 3, 16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self(batch).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    model, expected = Lit(), audit(net(), (3, 16, 16))
    for _ in range(2):
        found = audit(model, (3, 16, 16))
        assert found.quantities == expected.quantities
        assert found.training(batch=2).macs == expected.training(batch=2).macs
        assert found.scaling().at(B=3, H=40) == expected.scaling().at(B=3, H=40)
        trainer = lightning.Trainer(fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False,
                                    enable_model_summary=False)  # fmt: skip
        trainer.fit(model, DataLoader(torch.zeros(4, 3, 16, 16), batch_size=2))
