"""The configuration of one training run: a frozen, checked record. Standard library only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from resattn.networks.spec import NetworkSpec, choice
from resattn.networks.spec import override as override_spec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ConfigError(ValueError):
    """An impossible configuration; the message names the field, the value and the allowed values."""

    is_usage = True  # a usage error: exit 2


class Scene(NamedTuple):
    """(N, 3, 32, 32) uint8 images, (N,) uint8 labels, (N, 32, 32) bool foreground: the pixels of the object."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    foreground: NDArray[np.bool_] | None = None


class DatasetRow(NamedTuple):
    """Numbers of images and classes, and the function that makes the images, as `module:function`.

    `make(seed, train=n, test=m)` returns the training and the test images; its module is imported when it is called.
    Without a function the images are read from the files of a row of `resattn.training.layouts.LAYOUTS`. `mirrors`:
    a mirrored image has the same class.
    """

    train: int
    test: int
    classes: int
    mirrors: bool = True
    make: str = ""


SIDE = 32
DATASETS: dict[str, DatasetRow] = {
    "cifar10": DatasetRow(50_000, 10_000, 10),
    "cifar100": DatasetRow(50_000, 10_000, 100),
    # A mirrored digit is not a digit.
    "cluttered-digits": DatasetRow(10_000, 2_000, 10, mirrors=False, make="resattn.training.digits:cluttered_digits"),
}


def _number(
    default: Any = MISSING, *, least: float = -math.inf, below: float = math.inf, doc: str, **extra: Any
) -> Any:
    return field(default=default, metadata={"least": least, "below": below, "doc": doc, **extra})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run: a network, a dataset, a budget and a seed. The defaults are the recipe of wang2017, section 4.1.

    The paper trains for 160k iterations and divides the learning rate at 64k and 96k; here the milestones are the same
    fractions of a run of any length. The last, partial batch of an epoch is dropped, so every step averages over the
    same number of images.

    Source: wang2017, section 4.1.
    Raises: ConfigError with the allowed range, before any data is read.
    """

    spec: NetworkSpec = field(metadata={"doc": "the network, or its JSON record"})
    dataset: str = choice(
        "auto", *DATASETS, doc="auto: CIFAR-10 if it is here or can be downloaded, else cluttered-digits"
    )
    epochs: int = _number(least=1, doc="passes over the training images")
    batch_size: int = _number(64, least=1, doc="images in a step, summed over all processes")
    images: int = _number(0, least=0, doc="number of training images, from the start of the set; 0 = all")
    test_images: int = _number(0, least=0, doc="number of test images, from the start of the set; 0 = all")
    seed: int = _number(0, least=0, below=2**63, doc="weights, label noise, order of the images and augmentation")
    lr: float = _number(0.1, least=0, doc="full learning rate, before any drop")
    momentum: float = _number(0.9, least=0, below=1, doc="Nesterov momentum")
    weight_decay: float = _number(1e-4, least=0, doc="weight decay of every parameter")
    milestones: tuple[float, ...] = field(
        default=(0.4, 0.6), metadata={"doc": "the learning rate drops at these fractions of the run"}
    )
    decay: float = _number(0.1, least=0, doc="factor of each drop")
    label_noise: float = _number(0.0, least=0, below=1, doc="share of wrong labels: 1 - r of wang2017, equation 7")
    normalise: str = choice("pixel-mean", "channel", doc="subtract the mean image, or the mean colour")
    augment: str = choice("standard", "none", doc="standard: pad 4, crop 32, and mirror if the class allows it")
    precision: str = choice("auto", "fp32", "bf16", doc="auto: bf16 if the processor has bf16 units")
    # Added later: left out of the digest at their defaults, so that the digests of older runs stay the same.
    presentations: int = _number(
        0,
        least=0,
        doc="number of training images shown in all epochs; the last epoch may be shorter; 0 = whole epochs",
        added=True,
    )
    schedule: str = choice(
        "drops", "linear", doc="the learning rate drops at the milestones, or falls linearly to 0", added=True
    )
    warmup: float = _number(
        0.0, least=0, below=1, doc="share of the steps over which the learning rate rises linearly", added=True
    )
    holdout: int = _number(
        0, least=0, doc="number of training images, from the end of the set, that replace the test images", added=True
    )
    # How the run is executed: not in the digest.
    accelerator: str = choice("auto", "cpu", "cuda", doc="the device to train on", execution=True)
    devices: int = _number(1, least=1, doc="processes on each node, one device each", execution=True)
    nodes: int = _number(1, least=1, doc="machines", execution=True)
    strategy: str = choice("auto", "ddp", doc="auto: ddp if there is more than one process", execution=True)
    threads: int = _number(0, least=0, doc="processor threads of each process; 0 = torch's default", execution=True)

    def __post_init__(self) -> None:
        if isinstance(self.spec, Mapping):
            object.__setattr__(self, "spec", NetworkSpec.from_json(self.spec))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for f in fields(self):
            _check(f.name, getattr(self, f.name), f.type, f.metadata)
        if not self.lr > 0:
            raise ConfigError(f"lr must be above 0, found {self.lr}")
        if list(self.milestones) != sorted(set(self.milestones)) or not all(0 < m < 1 for m in self.milestones):
            raise ConfigError(f"milestones must be rising fractions of the run, in (0, 1), found {self.milestones}")
        self._check_sizes()

    def _check_sizes(self) -> None:
        size = self.size
        if self.holdout >= size.train:
            raise ConfigError(f"holdout must be in [0, {size.train}), as {self.dataset} has {size.train}")
        kept = f", {self.holdout} of them held out" if self.holdout else ""
        for name, most in (("images", size.train - self.holdout), ("test_images", self.holdout or size.test)):
            if getattr(self, name) > most:
                has = size.train if name == "images" else size.test
                whole = f"as {self.dataset} has {has}{kept}"
                raise ConfigError(f"{name} must be in [0, {most}], {whole}, found {getattr(self, name)}")
        if self.batch_size > self.n_images:
            raise ConfigError(
                f"batch_size must be in [1, {self.n_images}], the number of training images, found {self.batch_size}"
            )
        if self.presentations:
            most = self.epochs * self.steps_per_epoch * self.batch_size
            least = most - (self.steps_per_epoch - 1) * self.batch_size
            if not least <= self.presentations <= most:
                raise ConfigError(
                    f"presentations must be in [{least}, {most}] for epochs={self.epochs}, each of which shows "
                    f"{self.steps_per_epoch * self.batch_size} images, found {self.presentations}"
                )
        if self.batch_size % self.n_processes:
            raise ConfigError(
                f"batch_size must be a multiple of the {self.n_processes} processes "
                f"(devices={self.devices} x nodes={self.nodes}), found {self.batch_size}"
            )
        if tuple(self.spec.input_shape) != (3, SIDE, SIDE):
            raise ConfigError(
                f"{self.spec.name} takes images of {tuple(self.spec.input_shape)}, "
                f"{self.dataset} has (3, {SIDE}, {SIDE}): use a network of the CIFAR family"
            )
        if self.spec.classes != size.classes:
            raise ConfigError(
                f"{self.spec.name} has {self.spec.classes} classes, {self.dataset} has {size.classes} "
                f"(set classes={size.classes})"
            )

    @property
    def size(self) -> DatasetRow:
        """The row of the dataset; for auto that of CIFAR-10, the larger of the two possible datasets."""
        return DATASETS["cifar10" if self.dataset == "auto" else self.dataset]

    @property
    def n_processes(self) -> int:
        return self.devices * self.nodes

    @property
    def n_images(self) -> int:
        """Number of training images in use."""
        return self.images or self.size.train - self.holdout

    @property
    def n_test_images(self) -> int:
        return self.test_images or self.holdout or self.size.test

    @property
    def steps_per_epoch(self) -> int:
        return self.n_images // self.batch_size

    @property
    def steps(self) -> int:
        if self.presentations:
            return self.presentations // self.batch_size
        return self.epochs * self.steps_per_epoch

    def steps_in(self, epoch: int) -> int:
        """Number of steps in an epoch (counted from 0); `presentations` may shorten the last epoch."""
        return min(self.steps_per_epoch, self.steps - epoch * self.steps_per_epoch)

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over the whole run.

        Warm-up reaches the full rate at its last step. The linear schedule starts at the full rate after warm-up and
        would reach 0 one step after the last.
        """
        n_warm = round(self.warmup * self.steps)
        if step < n_warm:
            return self.lr * (step + 1) / n_warm
        if self.schedule == "linear":
            return self.lr * (self.steps - step) / (self.steps - n_warm)
        return self.lr * self.decay ** sum(step >= round(m * self.steps) for m in self.milestones)

    @property
    def digest(self) -> str:
        """16 hex digits that identify the experiment; the device and the number of processes do not change them."""
        record = self.settings | {"spec": self.spec.digest}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that identify the experiment, without the network, as plain JSON values."""
        return {
            name: value
            for name, value in self.to_json().items()
            if name != "spec" and name not in EXECUTION and (name not in ADDED or value != FIELDS[name].default)
        }

    def to_json(self) -> dict[str, Any]:
        record = {f.name: getattr(self, f.name) for f in fields(self)}
        return record | {"spec": self.spec.to_json(), "milestones": list(self.milestones)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> TrainConfig:
        for name in record:
            if name not in FIELDS:
                raise _unknown(name, FIELDS)
        return cls(**record)


FIELDS = {f.name: f for f in fields(TrainConfig)}
EXECUTION = frozenset(name for name, f in FIELDS.items() if f.metadata.get("execution"))
ADDED = frozenset(name for name, f in FIELDS.items() if f.metadata.get("added"))


def override(config: TrainConfig, settings: Mapping[str, Any] | str) -> TrainConfig:
    """The config with some fields of the config or its spec changed. Values may be text, and `settings` "a=1 b=2".

    Raises: ConfigError or SpecError for an unknown field or an impossible value.
    """
    if isinstance(settings, str):
        settings = dict(_pair(item) for item in settings.split())
    spec_fields = [f.name for f in fields(NetworkSpec)]
    for name in settings:
        if name == "spec" or (name not in FIELDS and name not in spec_fields):
            raise _unknown(name, [*(f for f in FIELDS if f != "spec"), *spec_fields])
    changes = {name: _parse(name, value) for name, value in settings.items() if name in FIELDS}
    of_spec = {name: value for name, value in settings.items() if name not in FIELDS}
    return replace(config, spec=override_spec(config.spec, of_spec), **changes)


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise ConfigError(f"a setting has the form field=value, found {item!r}")
    return name, value


def _parse(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        match FIELDS[name].type:
            case "int":
                return int(value)
            case "float":
                return float(value)
            case "tuple[float, ...]":
                return tuple(float(v) for v in value.split(",") if v)
    except ValueError:
        raise ConfigError(f"{name} must be a number, found {value!r}") from None
    return value


def _check(name: str, value: Any, kind: Any, rule: Mapping[str, Any]) -> None:
    if "choices" in rule and value not in rule["choices"]:
        raise ConfigError(f"unknown {name} {value!r} (one of: {', '.join(rule['choices'])})")
    if "least" not in rule:
        return
    least, below = rule["least"], rule["below"]
    allowed = f"in [{least}, {below})" if below < math.inf else f"at least {least}"
    kinds = int if kind == "int" else int | float
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ConfigError(f"{name} must be {'an integer' if kind == 'int' else 'a number'} {allowed}, found {value!r}")
    if kind == "int" and value >= 2**63:
        raise ConfigError(f"{name} must be below 2**63, found a number of {value.bit_length()} bits")
    if not (least <= value < below and value < math.inf):  # false for NaN, too
        raise ConfigError(f"{name} must be {allowed}, found {value}")


def _unknown(name: str, known: Any) -> ConfigError:
    near = get_close_matches(name, list(known), n=3) or sorted(known)
    return ConfigError(f"unknown field {name!r} of a training run (nearest: {', '.join(near)})")
