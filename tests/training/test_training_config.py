from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resattn.networks.catalog import named
from resattn.networks.spec import SpecError
from resattn.networks.spec import override as override_spec
from resattn.training.config import ConfigError, TrainConfig, override

ROOT = Path(__file__).parents[2]
SPEC = named("cifar-resnet20-basic")


def run(**changes):
    return TrainConfig(**{"spec": SPEC, "epochs": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"epochs": 2.5}, "epochs must be an integer at least 1, found 2.5"),
        ({"epochs": True}, "epochs must be an integer at least 1, found True"),
        ({"label_noise": 1.0}, "label_noise must be in [0, 1), found 1.0"),
        ({"label_noise": -0.1}, "label_noise must be in [0, 1), found -0.1"),
        ({"label_noise": float("nan")}, "label_noise must be in [0, 1), found nan"),
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"batch_size": 50_001}, "batch_size must be in [1, 50000], the number of training images, found 50001"),
        (
            {"images": 100, "batch_size": 128},
            "batch_size must be in [1, 100], the number of training images, found 128",
        ),
        (
            {"dataset": "cluttered-digits", "images": 10_001},
            "images must be in [0, 10000], as cluttered-digits has 10000",
        ),
        ({"test_images": 10_001}, "test_images must be in [0, 10000], as auto has 10000, found 10001"),
        ({"seed": -1}, "seed must be in [0, 9223372036854775808), found -1"),
        ({"lr": 0}, "lr must be above 0, found 0"),
        ({"lr": float("inf")}, "lr must be at least 0, found inf"),
        ({"momentum": 1}, "momentum must be in [0, 1), found 1"),
        ({"milestones": (0.6, 0.4)}, "milestones must be rising fractions of the run, in (0, 1), found (0.6, 0.4)"),
        ({"milestones": (0.4, 1.0)}, "milestones must be rising fractions of the run, in (0, 1)"),
        ({"dataset": "cifar"}, "unknown dataset 'cifar' (one of: auto, cifar10, cifar100, cluttered-digits)"),
        ({"dataset": "cifar100"}, "has 10 classes, cifar100 has 100 (set classes=100)"),
        ({"precision": "fp16"}, "unknown precision 'fp16' (one of: auto, fp32, bf16)"),
        ({"devices": 3}, "batch_size must be a multiple of the 3 processes (devices=3 x nodes=1), found 64"),
        ({"holdout": 50_000}, "holdout must be in [0, 50000), as auto has 50000"),
        (
            {"holdout": 5_000, "images": 45_001},
            "images must be in [0, 45000], as auto has 50000, 5000 of them held out, found 45001",
        ),
        ({"presentations": 50_000}, "presentations must be in [64, 49984] for epochs=1, each of which shows 49984"),
        ({"epochs": 2, "presentations": 50_000}, "presentations must be in [50048, 99968] for epochs=2"),
        ({"warmup": 1.0}, "warmup must be in [0, 1), found 1.0"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine' (one of: drops, linear)"),
        ({"spec": named("resnet50")}, "resnet50 takes images of (3, 224, 224), auto has (3, 32, 32)"),
    ],
)
def test_nonsense_is_refused_with_the_allowed_range(changes, message):
    with pytest.raises(ConfigError) as error:
        run(**changes)
    assert message in str(error.value)


def test_the_config_needs_neither_torch_nor_numpy():
    code = "import sys, resattn.training.config; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(
    epochs=st.integers(1, 500), batch_size=st.integers(1, 512), seed=st.integers(0, 2**63 - 1),
    label_noise=st.floats(0, 1, exclude_max=True), lr=st.floats(1e-6, 10), augment=st.sampled_from(["standard", "none"]),
)  # fmt: skip
def test_a_config_survives_json(**values):
    config = run(**values)
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.digest == config.digest


def test_the_digest_names_the_experiment_and_not_its_execution():
    config = run(epochs=10)
    assert replace(config, devices=2, threads=1, strategy="ddp", accelerator="cpu").digest == config.digest
    assert replace(config, spec=replace(SPEC, name="another name")).digest == config.digest
    others = [replace(config, seed=1), replace(config, lr=0.2), replace(config, spec=override_spec(SPEC, {"width": 8}))]
    assert len({c.digest for c in (config, *others)}) == 4


def test_the_schedule_is_the_papers():
    # wang2017, section 4.1: 0.1, divided by 10 at 64k and 96k of 160k iterations of 64 images.
    config = run(epochs=205, batch_size=64)
    rates = [config.lr_at(step) for step in range(config.steps)]
    drops = [i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert drops == [round(0.4 * config.steps), round(0.6 * config.steps)]
    assert [rates[0], rates[drops[0]], rates[-1]] == pytest.approx([0.1, 0.01, 0.001])
    assert config.steps == pytest.approx(160_000, rel=0.002)


def test_the_linear_schedule_warms_up_and_ends_at_0():
    config = run(epochs=2, batch_size=32, presentations=50_000, holdout=5_000, schedule="linear", warmup=0.05, lr=0.1)
    assert (config.n_images, config.n_test_images) == (45_000, 5_000)
    assert (config.steps, [config.steps_in(e) for e in range(2)]) == (1562, [1406, 156])
    rates = [config.lr_at(step) for step in range(config.steps)]
    n_warm = round(0.05 * 1562)
    assert rates[0] == pytest.approx(0.1 / n_warm)
    assert rates[n_warm - 1] == rates[n_warm] == max(rates) == 0.1
    steps = [b - a for a, b in zip(rates[n_warm:], rates[n_warm + 1 :], strict=False)]
    assert steps == pytest.approx([-0.1 / (1562 - n_warm)] * len(steps))
    assert config.lr_at(config.steps) == 0


def test_fields_that_came_later_leave_older_digests_as_they_were():
    # Digests of runs in results/reference, made before these fields existed.
    folder = ROOT / "results" / "reference" / "50_train"
    records = [json.loads(path.read_text()) for path in folder.glob("*/run/run.json")]
    assert len(records) == 24
    assert {TrainConfig.from_json(r["config"]).digest == r["config_digest"] for r in records} == {True}
    assert run(warmup=0.05).digest != run().digest
    assert "holdout" not in run().settings


def test_settings_reach_the_run_and_its_spec():
    config = override(run(), "lr=0.05 width=8 milestones=0.5,0.9 label_noise=0.3 precision=fp32 seed=3")
    assert (config.lr, config.milestones, config.label_noise, config.precision, config.seed) == (
        0.05, (0.5, 0.9), 0.3, "fp32", 3,
    )  # fmt: skip
    assert config.spec.width == 8
    assert override(config, {"lr": 0.1}).lr == 0.1
    assert override(config, "") == config


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ("lable_noise=0.1", ConfigError, "unknown field 'lable_noise' of a training run (nearest: label_noise"),
        ("widht=8", ConfigError, "unknown field 'widht' of a training run (nearest: width"),
        ("epochs=ten", ConfigError, "epochs must be a number, found 'ten'"),
        ("epochs", ConfigError, "a setting has the form field=value, found 'epochs'"),
        ({"spec": 1}, ConfigError, "unknown field 'spec'"),
        ("merge=naive", SpecError, "the network has no attention module"),
    ],
)
def test_wrong_settings_are_refused(settings, kind, message):
    with pytest.raises(kind) as error:
        override(run(), settings)
    assert message in str(error.value)


def test_an_unknown_field_in_a_record_is_refused():
    with pytest.raises(ConfigError, match="unknown field 'epoch' of a training run \\(nearest: epochs"):
        TrainConfig.from_json({"spec": SPEC.to_json(), "epoch": 1})
