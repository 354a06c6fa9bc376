"""A run whose training step runs without Python: captured once as a CUDA graph, replayed for every batch.

The step has the operations of the training loop; on the CPU it gives the same bits. Order, crops and mirrored images
are those of `Feed`; the batch is cut on the device from indices that are uploaded once for each epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from resattn.networks.network import Network
from resattn.training.config import TrainConfig
from resattn.training.data import Feed
from resattn.training.run import first_weights, packed, score

WARM_UP_STEPS = 3  # before a capture: the search for convolutions and lazy buffers
TEST_BATCH_CUDA = 1000


class Trainee:
    """One run on its device. `feed` may be shared: its seed is replaced by the config's. `dtype`: of the weights;
    float64 is for a comparison of two devices, without autocast and with the same float32 learning rates.

    `network` holds the weights. Under bf16 a copy of each convolution's and the linear layer's weight in bf16 is what
    a step reads, which is what autocast would make anew in each step. `stream` and `graph` are None until `capture`.
    """

    stream: torch.cuda.Stream | None = None
    graph: torch.cuda.CUDAGraph | None = None

    def __init__(
        self, config: TrainConfig, feed: Feed, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        if config.label_noise:
            raise ValueError("label noise differs by seed; runs that share their images have none")
        self.device, self.is_cuda, self.dtype = device, device.type == "cuda", dtype
        self.network = first_weights(config).to(device, dtype)
        self._bind()
        n, size = len(feed.labels), config.steps_per_epoch
        self.position = torch.zeros((), dtype=torch.int64, device=device)  # of the next step in its epoch
        self.places = torch.arange(config.batch_size, device=device)
        self.order = torch.zeros(n, dtype=torch.int64, device=device)
        self.rows, self.columns = (torch.zeros(n, t, dtype=torch.int64, device=device) for t in (32, 32))
        self.rates = torch.zeros(size, device=device)
        self.losses = torch.zeros(size, device=device, dtype=dtype)
        self.wrong = torch.zeros((), dtype=torch.int64, device=device)
        self.restart(config, feed)

    def _bind(self) -> None:
        """The tensors that a step reads and writes; their addresses stay."""
        self.model: Network = copy.deepcopy(self.network)
        self.masters: list[Tensor] = list(self.network.parameters())
        self.gradients = [torch.zeros_like(p) for p in self.masters]
        self.momenta = [torch.zeros_like(p) for p in self.masters]

    def restart(self, config: TrainConfig, feed: Feed) -> None:
        """Begins another run of the same network from its initial weights, with this run's buffers and graph."""
        self.config, self.feed = config, replace(feed, seed=config.seed)
        fresh = first_weights(config).state_dict()
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                value.copy_(fresh[name])
            for momentum in self.momenta:
                momentum.zero_()
        self._prepare_model()
        self.start_epoch(0)

    def _prepare_model(self) -> None:
        if getattr(self, "leaves", None) is None:
            self.leaves: list[Tensor] = []
            theirs = dict(self.model.named_modules())
            for name, module in self.network.named_modules():
                for key, parameter in list(module._parameters.items()):
                    if parameter is None:
                        continue
                    is_half = self.config.precision == "bf16" and isinstance(module, nn.Conv2d | nn.Linear)
                    leaf = nn.Parameter(parameter.detach().bfloat16()) if is_half else parameter
                    theirs[name]._parameters[key] = leaf
                for key, buffer in list(module._buffers.items()):
                    # The number of steps is known: a counter in every layer would be a kernel each.
                    theirs[name]._buffers[key] = None if key == "num_batches_tracked" else buffer
            self.leaves = list(self.model.parameters())
            self.halves = [i for i, leaf in enumerate(self.leaves) if leaf.dtype != self.dtype]
            # A convolution's gradient can come in another layout than its weight, which the optimiser needs.
            maps = [i for i, leaf in enumerate(self.leaves) if leaf.dim() == 4 and i not in self.halves]
            self.copied = [places for places in (self.halves, maps) if places]
        self._refresh_halves()

    @torch.no_grad()
    def _refresh_halves(self) -> None:
        if self.halves:
            torch._foreach_copy_([self.leaves[i] for i in self.halves], [self.masters[i] for i in self.halves])

    def start_epoch(self, epoch: int) -> None:
        """Upload the order of an epoch and its learning rates, on the run's stream: see `start_all`."""
        self.epoch, self.done = epoch, 0
        order, rows, columns = self.feed.drawn(epoch)
        first = epoch * self.config.steps_per_epoch
        rates = [self.config.lr_at(first + i) for i in range(self.config.steps_in(epoch))]
        with torch.cuda.stream(self.stream) if self.stream is not None else nullcontext():
            for target, values in ((self.order, order), (self.rows, rows), (self.columns, columns)):
                target.copy_(values)
            self.rates[: len(rates)].copy_(torch.tensor(rates))
            self.position.zero_()
            self.wrong.zero_()
        self.model.train()

    def autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Images and labels of the step at `position`."""
        places = self.position * self.config.batch_size + self.places
        chosen = self.order[places]
        images = self.feed.cut(chosen, self.rows[places], self.columns[places])
        return images.to(self.dtype), self.feed.labels[chosen]

    def _step(self) -> None:
        images, labels = self.batch()
        with self.autocast():
            scores = self.model(images)
        scores = scores.to(self.dtype)
        loss = cross_entropy(scores, labels)
        found = torch.autograd.grad(loss, self.leaves)
        with torch.no_grad():
            gradients = list(found)
            for places in self.copied:  # of one dtype each: one kernel copies many
                own = [self.gradients[i] for i in places]
                torch._foreach_copy_(own, [_laid_out(found[i], self.masters[i]) for i in places])
                for i, gradient in zip(places, own, strict=True):
                    gradients[i] = gradient
            settings = {
                "weight_decay": self.config.weight_decay, "momentum": self.config.momentum, "dampening": 0.0,
                "nesterov": self.config.momentum > 0, "maximize": False, "is_first_step": False,
            }  # fmt: skip
            # On a GPU the rate is read there, so that a graph can be replayed; on the CPU it is the loop's number.
            if self.is_cuda:
                lr = self.rates.index_select(0, self.position.view(1)).squeeze(0)
                torch.ops.aten._fused_sgd_.tensor_lr(self.masters, gradients, self.momenta, lr=lr, **settings)
            else:
                rate = self.config.lr_at(self.epoch * self.config.steps_per_epoch + self.done)
                if self.dtype == torch.float64:
                    rate = float(self.rates[self.done])
                torch.ops.aten._fused_sgd_.default(self.masters, gradients, self.momenta, lr=rate, **settings)
            self._refresh_halves()
            self.losses.index_copy_(0, self.position.view(1), loss.detach().view(1))
            self.wrong += (scores.argmax(1) != labels).sum()
            self.position += 1

    def capture(self, stream: torch.cuda.Stream) -> None:
        """Records the step as a CUDA graph on its own stream. Restart the run afterwards: warm-up changes weights."""
        self.stream = stream
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._step()
        torch.cuda.synchronize()
        self.graph = graph

    def step(self) -> None:
        """The next step of the epoch, on the run's own stream or the current one."""
        if self.graph is not None:
            with torch.cuda.stream(self.stream):
                self.graph.replay()
        else:
            self._step()
        self.done += 1

    def training_row(self) -> dict[str, float]:
        """Loss and error of the epoch on the augmented images."""
        losses = self.losses[: self.done]
        return {
            "train_loss": losses.double().mean().item(),
            "train_error_pct": 100 * int(self.wrong) / (self.done * self.config.batch_size),
        }

    def test(self) -> tuple[dict[str, float], bytes]:
        """Loss and error on the test images, and one bit for each image."""
        size = {"batch": TEST_BATCH_CUDA} if self.is_cuda else {}
        loss, right = score(self.feed, self.model, precision=self.autocast(), **size)
        self.model.train()
        n = len(right)
        return {"test_loss": float(loss) / n, "test_error_pct": 100 * (n - int(right.sum())) / n}, packed(right)

    def finish(self) -> Network:
        """The network with its number of steps, as after the training loop."""
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked is not None:
                module.num_batches_tracked.fill_(self.config.steps)
        return self.network


def start_all(runs: Sequence[Trainee], epoch: int) -> None:
    """Starts an epoch of every run; afterwards any stream may execute its steps."""
    for run in runs:
        run.start_epoch(epoch)
    if runs[0].is_cuda:
        torch.cuda.synchronize()


def restart_all(runs: Sequence[Trainee], configs: Sequence[TrainConfig], feed: Feed) -> None:
    """Begins other runs, each with the network of the trainee at its place."""
    if runs[0].is_cuda:
        torch.cuda.synchronize()
    for run, config in zip(runs, configs, strict=True):
        run.restart(config, feed)
    if runs[0].is_cuda:
        torch.cuda.synchronize()


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient with the strides of the parameter where its memory is the same: one kernel copies many of them."""
    if gradient.stride() != parameter.stride() and gradient.dim() == 4:
        for order in (torch.channels_last, torch.contiguous_format):
            if gradient.is_contiguous(memory_format=order) and parameter.is_contiguous(memory_format=order):
                return gradient.as_strided(parameter.shape, parameter.stride())
    return gradient
