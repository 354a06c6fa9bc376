"""Where a run is executed: device, precision, processes, and batch norm with statistics over all processes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from resattn.networks.network import Network
from resattn.training.config import TrainConfig
from resattn.training.data import Dataset
from resattn.training.run import TrainError, cpu_capabilities

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def settled(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The config with every auto replaced by the value for this machine."""
    accelerator = config.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    elif accelerator == "cuda" and not torch.cuda.is_available():
        raise TrainError("accelerator=cuda, but torch finds no CUDA device here (use auto or cpu)")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _gains_from_bf16(accelerator) else "fp32"
    strategy = "ddp" if config.n_processes > 1 else config.strategy
    return replace(config, dataset=dataset.name, accelerator=accelerator, precision=precision, strategy=strategy)


def _gains_from_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    units = cpu_capabilities()
    return bool(units.get("amx_bf16") or units.get("avx512_bf16"))


def fabric_for(config: TrainConfig) -> Fabric:
    # Imported here, because it imports torch's compiler, which takes as long as torch: reading runs needs neither.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy
    from lightning_fabric.utilities.warnings import PossibleUserWarning

    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed" if config.precision == "bf16" else "32-true"
    if config.n_processes == 1:
        # With an explicit environment, Fabric does not treat a single process as one of a cluster job's.
        return Fabric(accelerator=config.accelerator, precision=precision, plugins=LightningEnvironment())
    with warnings.catch_warnings():
        # If srun is installed, Lightning warns about processes started without it, as these are.
        warnings.simplefilter("ignore", PossibleUserWarning)
        outside = any(e.detect() for e in (TorchElasticEnvironment, SLURMEnvironment))
    # "popen" runs the caller's whole script again in each process; with several nodes nothing else is possible.
    start: Literal["popen", "spawn"] = "popen" if outside or config.nodes > 1 else "spawn"
    # No need to copy buffers before a step: batch norm has the same statistics in all processes (see below).
    strategy = DDPStrategy(start_method=start, forward_sync_buffers=False)
    return Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy,
        plugins=[] if start == "popen" else LightningEnvironment(),
        precision=precision,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the information messages of Fabric, not its warnings."""
    import lightning_fabric  # noqa: F401  # importing it sets the level of its logger

    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def process_settings(config: TrainConfig) -> Iterator[None]:
    """Set threads, convolution search and the global generator of this process; restore them afterwards."""
    threads = torch.get_num_threads()
    is_cuda = config.accelerator == "cuda"
    search = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True) if is_cuda else nullcontext()
    with torch.random.fork_rng(), search:
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads or threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the joint batch of all processes, which have equal shares of it, so that the number of processes
    does not change the trained network. torch's SyncBatchNorm does the same, but only on accelerators.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        world = dist.get_world_size()
        values = x.float()
        mean = _SumOverProcesses.apply(values.mean((0, 2, 3))) / world
        centred = values - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().mean((0, 2, 3))) / world
        self._keep(mean.detach(), variance.detach(), world * x.numel() // x.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, n: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (n / (n - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def with_global_statistics(network: Network, accelerator: str) -> None:
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.BatchNorm2d):
                kind = nn.SyncBatchNorm if accelerator == "cuda" else GlobalBatchNorm2d
                wide = kind(module.num_features, eps=module.eps, momentum=module.momentum)
                wide.load_state_dict(module.state_dict())
                setattr(parent, name, wide)


def is_first(config: TrainConfig) -> bool:
    """Whether this process is the first one that torchrun, Slurm or Fabric started for a run."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
    return config.n_processes == 1 or all(os.environ.get(name, "0") == "0" for name in ranks)


def over_all(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    reduced = fabric.all_reduce(value, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced
