from __future__ import annotations

import csv
import errno
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training.conftest import N_TEST, N

from resattn.networks.catalog import named
from resattn.networks.network import build
from resattn.networks.spec import override
from resattn.training import checkpoint, data, devices, loop, record
from resattn.training.checkpoint import OtherRunError, trained
from resattn.training.config import ConfigError
from resattn.training.loop import train
from resattn.training.run import (
    CheckpointError,
    DivergedError,
    Run,
    RunInUseError,
    TrainError,
    alone_in,
    packed,
    read_run,
    score,
    sgd,
    unpacked,
)

FILES = [".lock", "checkpoint.pt", "correct.bin", "metrics.csv", "run.json", "timing.csv"]


def quiet(config, out, dataset) -> Run:
    return train(config, out, dataset=dataset, say=lambda line: None)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def alone(digits, tmp_path_factory, request):
    """A run that was left alone: its folder and what it came to. To be read only."""
    out = tmp_path_factory.mktemp("alone")
    return out, quiet(_config(), out, digits)


def _config(**changes):
    spec = override(named("cifar-resnet20-basic"), {"width": 4})
    values = {
        "spec": spec, "dataset": "cluttered-digits", "epochs": 3, "batch_size": 20, "images": N,
        "test_images": N_TEST, "threads": 1, "accelerator": "cpu",
    }  # fmt: skip
    return loop.TrainConfig(**values | changes)


# ---- same seed, same bits


def test_one_seed_gives_the_same_bits_and_another_does_not(alone, digits, tmp_path):
    out, run = alone
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    again = quiet(_config(), tmp_path / "again", digits)
    assert (tmp_path / "again" / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()
    assert again.weights_digest == run.weights_digest
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.get_num_threads() == threads
    other = quiet(_config(seed=1), tmp_path / "other", digits)
    assert other.rows != run.rows
    assert other.weights_digest != run.weights_digest


def test_a_run_writes_what_it_came_to(alone):
    out, run = alone
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert read_run(out) == run
    table = rows(out / "metrics.csv")
    assert list(table[0]) == ["epoch", "step", "lr", "train_loss", "train_error_pct", "test_loss", "test_error_pct"]
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "6"), ("2", "12"), ("3", "18")]
    assert [float(row["lr"]) for row in table] == pytest.approx([0.1, 0.001, 0.001])
    assert [{k: float(v) for k, v in row.items()} for row in table] == list(run.rows)
    assert list(rows(out / "timing.csv")[0]) == ["epoch", "train_s", "images_per_s", "elapsed_s", "peak_memory_bytes"]
    record = json.loads((out / "run.json").read_text())
    assert record["test_error_pct"] == run.rows[-1]["test_error_pct"]
    assert record["config"]["precision"] in ("fp32", "bf16")
    assert record["config"]["accelerator"] == "cpu"
    assert record["spec_digest"] == run.config.spec.digest
    assert record["execution"]["threads"] == 1
    assert run.images_per_s > 0
    assert run.elapsed_s > sum(row["train_s"] for row in run.timing)


def test_the_last_epoch_is_reported_not_the_best(alone):
    _, run = alone
    better = tuple({**row, "test_error_pct": error} for row, error in zip(run.rows, (5.0, 50.0, 60.0), strict=True))
    assert replace(run, rows=better).test_error_pct == 60.0


def test_the_errors_are_those_of_the_weights_that_are_kept(alone, digits):
    out, run = alone
    network = trained(out)
    assert not network.training
    feed = data.prepare(digits, run.config)
    with torch.no_grad():
        wrong = sum(int((network(images).argmax(1) != labels).sum()) for images, labels in feed.test_batches())
    # bf16 may turn a close decision.
    assert 100 * wrong / N_TEST == pytest.approx(run.test_error_pct, abs=100 * 2 / N_TEST)


def test_one_bit_is_kept_for_each_test_image(alone, digits, tmp_path):
    out, run = alone
    bits = (out / "correct.bin").read_bytes()
    right = unpacked(bits, N_TEST)
    assert len(bits) == N_TEST // 8
    assert 100 * (N_TEST - right.sum()) / N_TEST == run.test_error_pct
    _, again = score(data.prepare(digits, run.config), trained(out))
    assert (again.numpy() != right).sum() <= 2  # bf16 may turn a close decision
    assert packed(torch.tensor([True, False, False])) == b"\x80"
    with pytest.raises(ValueError, match="5 bytes do not hold 41 bits"):
        unpacked(bits, N_TEST + 1)
    # Two processes share the images, and a killed run writes the bits of its last checkpoint.
    two = replace(run.config, devices=2, strategy="ddp", epochs=1, lr=1e-3, precision="fp32")
    quiet(two, tmp_path / "two", digits)
    quiet(replace(two, devices=1), tmp_path / "one", digits)
    assert (tmp_path / "two" / "correct.bin").read_bytes() == (tmp_path / "one" / "correct.bin").read_bytes()
    (tmp_path / "one" / "correct.bin").unlink()
    quiet(replace(two, devices=1), tmp_path / "one", digits)
    assert (tmp_path / "two" / "correct.bin").read_bytes() == (tmp_path / "one" / "correct.bin").read_bytes()


def test_it_talks_on_stderr_only_and_names_the_data_first(digits, tmp_path, capfd):
    run = train(_config(epochs=2), tmp_path, dataset=digits)
    out, err = capfd.readouterr()
    assert out == ""
    first, *epochs = err.splitlines()
    assert first == f"dataset: {digits}"
    # Without a terminal there is no bar, but a line for each epoch.
    assert [line.split(":")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert f"test error {run.test_error_pct:.2f} %" in epochs[1]


def test_auto_becomes_what_was_found(digits, tmp_path):
    run = quiet(_config(dataset="auto", epochs=1), tmp_path, replace(digits, note="auto: because"))
    assert (run.config.dataset, run.dataset_note, run.dataset_digest) == (
        "cluttered-digits",
        "auto: because",
        digits.digest,
    )


def test_label_noise_is_recorded(digits, tmp_path):
    run = quiet(_config(label_noise=0.5, epochs=1), tmp_path, digits)
    assert run.n_flipped_labels == data.prepare(digits, run.config).n_flipped > 0


def test_the_config_decides_on_the_precision(alone, digits, tmp_path):
    exact = quiet(_config(precision="fp32", epochs=1), tmp_path / "fp32", digits)
    short = quiet(_config(precision="bf16", epochs=1), tmp_path / "bf16", digits)
    assert exact.rows != short.rows
    assert exact.rows[0]["train_loss"] == pytest.approx(short.rows[0]["train_loss"], rel=0.05)


# ---- the recipe of the protocol


def test_presentations_end_a_run_within_an_epoch(digits, tmp_path):
    config = _config(
        epochs=2, images=N - 20, holdout=20, test_images=0, presentations=140, schedule="linear", warmup=0.3
    )
    assert (config.steps_per_epoch, config.steps, config.steps_in(0), config.steps_in(1)) == (5, 7, 5, 2)
    run = quiet(config, tmp_path, digits)
    assert [(row["epoch"], row["step"]) for row in run.rows] == [(1, 5), (2, 7)]
    assert [row["lr"] for row in run.rows] == [config.lr_at(4), config.lr_at(6)]
    # The test images are the last of the training set.
    feed = data.prepare(digits, run.config)
    assert torch.equal(feed.test, digits.images[-20:].permute(0, 2, 3, 1))
    assert len(unpacked((tmp_path / "correct.bin").read_bytes(), 20)) == 20


def test_a_held_out_image_is_never_trained_on(digits):
    kept = data.prepare(digits, _config(images=N - 20, holdout=20, test_images=0))
    alone = data.prepare(digits, _config(images=N - 20))
    for ours, theirs in ((kept.padded, alone.padded), (kept.mean, alone.mean), (kept.labels, alone.labels)):
        assert torch.equal(ours, theirs)
    assert kept.scale == alone.scale
    with pytest.raises(ConfigError, match=f"images must be in .1, {N - 20}., as this cluttered-digits has {N - 20}"):
        data.prepare(digits, _config(images=N, holdout=20, test_images=0))


def test_a_checkpoint_with_another_recipe_is_refused(alone, digits):
    with pytest.raises(CheckpointError, match="is of another run: warmup is 0.0 there and 0.1 here"):
        quiet(_config(warmup=0.1), alone[0], digits)


# ---- resume

KILLED = """
import os, signal, sys
from pathlib import Path
from resattn.training import checkpoint, data, devices, loop, record
from resattn.training.config import TrainConfig
import json

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def batches(self, epoch, **share, _all=data.Feed.batches):
    for i, batch in enumerate(_all(self, epoch, **share)):
        if (epoch, i) == (1, 3):
            die()
        yield batch

def replace(source, target, _replace=os.replace, count=[]):
    count.append(target)
    if [Path(t).name for t in count].count("checkpoint.pt") == 2:
        die()
    _replace(source, target)

if sys.argv[1] == "epoch":
    data.Feed.batches = batches
else:
    os.replace = replace
config = TrainConfig.from_json(json.loads(sys.argv[2]))
loop.train(config, sys.argv[3], dataset=data.digits(train=config.images, test=config.test_images))
""".replace("epoch, **share, _all=data.Feed.batches", "epoch, _all=data.Feed.batches, **share")


@pytest.mark.parametrize("moment", ["epoch", "checkpoint"])
def test_a_killed_run_goes_on_to_the_same_bits(alone, digits, tmp_path, moment):
    out, run = alone
    config = json.dumps(_config().to_json())
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, moment, config, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(rows(tmp_path / "metrics.csv")) == 1
    assert not (tmp_path / "run.json").exists()
    assert bool(list(tmp_path.glob(".checkpoint.pt.*.partial"))) == (moment == "checkpoint")
    resumed = quiet(_config(), tmp_path, digits)
    assert (tmp_path / "metrics.csv").read_bytes() == (out / "metrics.csv").read_bytes()
    assert resumed.weights_digest == run.weights_digest
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES


def test_a_finished_run_is_only_read(alone, digits, monkeypatch):
    out, run = alone
    before = (out / "checkpoint.pt").stat().st_mtime_ns
    monkeypatch.setattr(loop, "train_epoch", None)
    again = quiet(_config(), out, digits)
    assert again == run
    assert (out / "checkpoint.pt").stat().st_mtime_ns == before


def test_a_finished_run_whose_weights_are_not_kept_is_finished(alone, digits, tmp_path, monkeypatch):
    out, run = tmp_path / "run", alone[1]
    shutil.copytree(alone[0], out)
    (out / "checkpoint.pt").unlink()
    monkeypatch.setattr(loop, "train_epoch", None)
    heard: list[str] = []
    assert train(_config(), out, dataset=digits, say=heard.append) == run
    assert "finished earlier, not trained again; its weights are not kept" in heard[-1]
    # As elsewhere, where auto would have come to another precision.
    monkeypatch.setattr(devices, "_gains_from_bf16", lambda accelerator: run.config.precision == "fp32")
    assert quiet(_config(), out, digits) == run
    with pytest.raises(
        CheckpointError, match="run: the weights of this finished run are not kept; to train it again, d"
    ):
        trained(out)
    for changes, message in (
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"lr": 0.2}, "lr is 0.1 there and 0.2 here"),
    ):
        with pytest.raises(OtherRunError, match=f"run.json is of another run: {message}"):
            quiet(_config(**changes), out, digits)
    monkeypatch.setattr(record, "TRAINING_VERSION", 2)
    with pytest.raises(OtherRunError, match="training version is 1 there and 2 here"):
        quiet(_config(), out, digits)


@pytest.mark.parametrize("what", ["a digit", "cut", "deep", "no field", "metrics.csv", "another run"])
def test_a_finished_run_without_weights_and_with_a_damaged_record_starts_again(alone, digits, tmp_path, what):
    out, run = tmp_path / "run", alone[1]
    shutil.copytree(alone[0], out)
    (out / "checkpoint.pt").unlink()
    text = (out / "run.json").read_text()
    match what:
        case "a digit":
            (out / "run.json").write_text(text.replace('"train_loss": 2.', '"train_loss": 3.', 1))
        case "cut":
            (out / "run.json").write_text(text[: len(text) // 2])
        case "deep":
            (out / "run.json").write_text("[" * 100_000)
        case "no field":
            (out / "run.json").write_text(text.replace('"execution"', '"executed"'))
        case "metrics.csv":
            (out / "metrics.csv").unlink()
        case "another run":
            (out / "run.json").write_text(text.replace('"dataset_digest": "', '"dataset_digest": "0'))
    heard: list[str] = []
    again = train(_config(), out, dataset=digits, on_other="set aside", say=heard.append)
    assert (again.rows, again.weights_digest) == (run.rows, run.weights_digest)
    assert any("; it is now run-" in line and line.endswith("aside, and the run starts again") for line in heard)


def test_weights_of_another_run_are_not_taken_for_those_of_this(alone, digits, tmp_path):
    shutil.copytree(alone[0], tmp_path / "run")
    quiet(_config(seed=1, epochs=1), tmp_path / "other", digits)
    shutil.copy(tmp_path / "other" / "checkpoint.pt", tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="these are not the weights that run.json records"):
        trained(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 4}, "epochs is 3 there and 4 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"label_noise": 0.1}, "label_noise is 0.0 there and 0.1 here"),
        ({"spec": override(named("cifar-resnet20-basic"), {"width": 5})}, "spec digest is"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(alone, digits, changes, message):
    out, _ = alone
    before = (out / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError) as error:
        quiet(_config(**changes), out, digits)
    assert f"{out / 'checkpoint.pt'} is of another run: {message}" in str(error.value)
    assert "give another folder" in str(error.value)
    assert (out / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_dataset_is_refused(alone):
    out, run = alone
    with pytest.raises(CheckpointError, match=f"dataset digest is '{run.dataset_digest}' there"):
        quiet(_config(), out, data.digits(1, train=N, test=N_TEST))


# ---- a folder has one run at a time


def test_two_trainings_do_not_share_a_folder(digits, tmp_path, monkeypatch):
    script = KILLED.replace("die()", "Path(sys.argv[3], 'here').touch() or sys.stdin.read()")
    command = [sys.executable, "-c", script, "epoch", json.dumps(_config(seed=1).to_json()), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        while not (tmp_path / "here").exists():
            assert first.poll() is None
            time.sleep(0.05)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        monkeypatch.setattr(alone_in, "__kwdefaults__", {"wait_s": 0.2})
        with pytest.raises(RunInUseError, match=f"is in use by process {first.pid}, which trains there"):
            quiet(_config(), tmp_path, digits)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert first.returncode == 0  # its input ended
    assert read_run(tmp_path).config.seed == 1


# ---- a checkpoint that somebody forged


def _forged(saved: dict, what: str) -> None:
    """Each refused because of one thing, which torch would have loaded, or crashed on."""
    state = saved["optimizer"]["state"]
    weight = saved["model"]["head.fc.weight"]
    match what:
        case "a momentum of another shape":
            state[0]["momentum_buffer"] = torch.zeros(1)
        case "a momentum of another type":
            state[0]["momentum_buffer"] = state[0]["momentum_buffer"].double()
        case "a momentum without memory":
            state[0]["momentum_buffer"] = torch.empty_like(state[0]["momentum_buffer"], device="meta")
        case "a momentum of no parameter":
            state[10_000] = state[0]
        case "a momentum that is none":
            state[0]["momentum_buffer"] = None
        case "a momentum that is no number":
            state[0]["momentum_buffer"].fill_(math.nan)
        case "a state by another name":
            state[0]["exp_avg"] = state[0].pop("momentum_buffer")
        case "no state":
            saved["optimizer"] = {}
        case "a weight of another shape":
            saved["model"]["head.fc.weight"] = weight[:1]
        case "a weight of another type":
            saved["model"]["head.fc.weight"] = weight.half()
        case "a weight that is no number":
            weight[0] = math.inf
        case "a sparse weight":
            saved["model"]["head.fc.weight"] = weight.to_sparse()
        case "a weight that is text":
            saved["model"]["head.fc.weight"] = "weights"
        case "a weight too many":
            saved["model"]["more"] = weight
        case "a weight too few":
            del saved["model"]["head.fc.weight"]
        case "a model that is a list":
            saved["model"] = [weight]
        case "a short generator":
            saved["generators"]["cpu"] = saved["generators"]["cpu"][:100]
        case "a generator of zeros":
            saved["generators"]["cpu"] = torch.zeros_like(saved["generators"]["cpu"])
        case "a generator of other numbers":
            saved["generators"]["cpu"] = torch.full_like(saved["generators"]["cpu"], 7)
        case "a variance below 0":
            saved["model"]["stage3.unit3.branch.norm1.running_var"].fill_(-1)
        case "an error that is no percentage":
            saved["rows"][0]["test_error_pct"] = 500.0
        case "no generator":
            saved["generators"] = {"cpu": None}
        case "no row":
            saved["rows"] = saved["timing"] = []
        case "a row too many":
            saved["rows"] = saved["rows"] * 2
            saved["timing"] = saved["timing"] * 2
        case "a row without a column":
            del saved["rows"][0]["test_loss"]
        case "a row of text":
            saved["rows"][0]["test_loss"] = "0.1"
        case "a row of a number that no float holds":
            saved["rows"][0]["test_error_pct"] = 10**400
        case "an epoch of no time":
            saved["timing"][0]["train_s"] = 0.0
        case "a version that is a tensor":
            saved["version"] = torch.zeros(0)
        case "a row of another epoch":
            saved["rows"][0]["step"] += 1
        case "bits of other images":
            saved["correct"] = saved["correct"] + b"x"
        case "an identity that is a list":
            saved["identity"] = [1]
        case "an identity of mappings":
            saved["identity"]["lr"] = {"a": 0.1}


FORGED = [
    "a momentum of another shape", "a momentum of another type", "a momentum without memory",
    "a momentum of no parameter", "a momentum that is none", "a momentum that is no number",
    "a weight that is no number", "a row of a number that no float holds", "an epoch of no time",
    "a version that is a tensor", "a state by another name", "no state", "a weight of another shape",
    "a weight of another type", "a sparse weight", "a weight that is text", "a weight too many", "a weight too few",
    "a model that is a list", "a short generator", "a generator of zeros", "no generator", "no row", "a row too many",
    "a row without a column", "a row of text", "a row of another epoch", "bits of other images",
    "an identity that is a list", "an identity of mappings", "a generator of other numbers", "a variance below 0",
    "an error that is no percentage",
]  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_checkpoint_is_refused_before_anything_of_it_is_used(unfinished, digits, tmp_path, what):
    path = tmp_path / "checkpoint.pt"
    saved = torch.load(unfinished / "checkpoint.pt", weights_only=True)
    _forged(saved, what)
    torch.save(saved, path)
    config, network = devices.settled(_config(), digits), build(_config().spec)
    with pytest.raises(CheckpointError, match="checkpoint"):
        checkpoint.resume(path, config, digits, network, sgd(network, config))
    if "weight" in what or "model" in what:
        with pytest.raises(CheckpointError, match="checkpoint"):
            trained(tmp_path)
    checkpoint.set_aside_unusable(path, config, digits, True, print)
    assert not path.exists()


@pytest.fixture(scope="module")
def unfinished(digits, tmp_path_factory) -> Path:
    """The folder of a run that stopped after its first epoch."""
    out = tmp_path_factory.mktemp("unfinished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_epoch", lambda *words, real=loop.train_epoch: 1 / 0 if words[5] else real(*words))
        with pytest.raises(ZeroDivisionError):
            quiet(_config(), out, digits)
    return out


def test_a_momentum_in_another_order_of_memory_changes_nothing(alone, unfinished, digits, tmp_path):
    """The fused step reads memory in the order of the parameter, whatever the strides of the momentum."""
    saved = torch.load(unfinished / "checkpoint.pt", weights_only=True)
    for of_one in saved["optimizer"]["state"].values():
        buffer = of_one["momentum_buffer"]
        order = list(range(buffer.dim()))[::-1]
        of_one["momentum_buffer"] = buffer.permute(order).contiguous().permute(order)
    torch.save(saved, tmp_path / "checkpoint.pt")
    assert quiet(_config(), tmp_path, digits).weights_digest == alone[1].weights_digest


def test_a_parameter_without_a_momentum_begins_with_zeros(unfinished, digits, tmp_path):
    """As one that no forward reads; with momenta of some parameters alone the fused step fails."""
    saved = torch.load(unfinished / "checkpoint.pt", weights_only=True)
    del saved["optimizer"]["state"][0]
    torch.save(saved, tmp_path / "checkpoint.pt")
    assert len(quiet(_config(), tmp_path, digits).rows) == _config().epochs


class Hostile:
    def __init__(self, proof: Path):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


def test_a_broken_checkpoint_is_refused_and_a_hostile_one_not_run(alone, tmp_path):
    out, _ = alone
    path, proof = tmp_path / "checkpoint.pt", tmp_path / "ran"
    torch.save({"version": 1, "model": Hostile(proof)}, path)
    hostile = path.read_bytes()
    torch.save({"version": 1, "identity": {}}, path)
    whole = (out / "checkpoint.pt").read_bytes()
    for raw in (whole[:1000], whole[:-100], b"", hostile, pickle.dumps(Hostile(proof)), path.read_bytes()):
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match="not readable as a checkpoint"):
            trained(tmp_path)
    assert not proof.exists()
    torch.save({"version": 0}, path)
    with pytest.raises(CheckpointError, match="a checkpoint of version 0, expected 1"):
        trained(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint found"):
        trained(tmp_path / "nowhere")


def test_a_flipped_bit_in_a_weight_is_found(alone, tmp_path):
    """torch.load takes it for a weight."""
    raw = bytearray((alone[0] / "checkpoint.pt").read_bytes())
    weight = trained(alone[0]).state_dict()["head.fc.weight"].numpy().tobytes()
    raw[raw.index(weight) + 2] ^= 1
    (tmp_path / "checkpoint.pt").write_bytes(raw)
    torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    with pytest.raises(CheckpointError, match="not readable as a checkpoint .*/data/[0-9]+ is damaged"):
        trained(tmp_path)


@pytest.mark.parametrize("what", ["truncated", "hostile", "of another run", "of another version"])
def test_a_run_starts_again_where_no_run_can_go_on(alone, digits, tmp_path, what):
    out, run = alone
    path, proof, said = tmp_path / "checkpoint.pt", tmp_path / "ran", []
    match what:
        case "truncated":
            path.write_bytes((out / "checkpoint.pt").read_bytes()[:-100])
        case "hostile":
            torch.save({"version": 1, "model": Hostile(proof)}, path)
        case "of another run":
            quiet(_config(seed=1, epochs=1), tmp_path, digits)
        case "of another version":
            torch.save({"version": 0}, path)
    raw = path.read_bytes()
    on_other = "set aside" if what.startswith("of another") else "refuse"
    again = train(_config(), tmp_path, dataset=digits, on_other=on_other, say=said.append)
    assert replace(again, timing=run.timing, out_dir=run.out_dir) == run
    assert not proof.exists()
    (aside,) = tmp_path.glob("checkpoint-*.aside")
    assert aside.read_bytes() == raw
    assert f"it is now {aside.name}, and the run starts again" in said[1]
    assert read_run(tmp_path).weights_digest == run.weights_digest


# ---- what goes wrong


def test_nonsense_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", None)
    with pytest.raises(ConfigError):
        _config(epochs=0)


def test_a_loss_that_is_no_number_stops_the_run(digits, tmp_path):
    # The learning rate explodes after one good epoch.
    config = _config(lr=0.01, decay=1e30, milestones=(1 / 3,))
    with pytest.raises(DivergedError) as error:
        quiet(config, tmp_path, digits)
    message = str(error.value)
    assert "loss is nan in epoch 2, at step " in message or "loss is inf in epoch 2, at step " in message
    assert 7 <= int(message.split("at step ")[1].split(":")[0]) <= 12
    assert f"the checkpoint of epoch 1 is kept in {tmp_path}" in message
    assert [row["epoch"] for row in rows(tmp_path / "metrics.csv")] == ["1"]
    assert all(value.isfinite().all() for value in trained(tmp_path).state_dict().values())
    with pytest.raises(DivergedError, match="in epoch 1, at step 2: stopped; no epoch was finished"):
        quiet(_config(lr=1e30), tmp_path / "at once", digits)


@pytest.mark.parametrize(
    ("named", "files"),
    [
        ("metrics.csv", {"metrics.csv": "mine", ".thesis.partial": "mine"}),
        ("metrics.csv", {"metrics.csv": "mine", ".lock": ""}),
        ("run.json", {"run.json": '{"config": {}, "summary": 1}', "metrics.csv": "mine"}),
        (".lock", {".lock": "mine"}),
    ],
)
def test_a_folder_with_somebody_s_files_is_refused(digits, tmp_path, named, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"holds {named}, which no training run wrote"):
        quiet(_config(), tmp_path, digits)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == files


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(digits, tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor: int, real=os.fsync) -> None:
        synced.append(descriptor)
        if len(synced) > 3:  # checkpoint and two tables of the first epoch
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(CheckpointError) as error:
            quiet(_config(), tmp_path, digits)
    assert "checkpoint.pt: not written: No space left on device" in str(error.value)
    assert "the earlier file is intact" in str(error.value)
    assert not list(tmp_path.glob(".*.partial"))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 6


def test_a_missing_device_is_named(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match="accelerator=cuda, but torch finds no CUDA device here .use auto or cpu."):
        quiet(_config(accelerator="cuda"), tmp_path, digits)


# ---- several processes


def test_two_processes_train_as_one_and_talk_once(digits, tmp_path, capfd):
    # Same batches, same statistics, averaged gradients: what is left is the order of the sums, which a small step
    # keeps small.
    config = _config(epochs=2, lr=1e-3, precision="fp32", label_noise=0.2)
    one = quiet(config, tmp_path / "one", digits)
    two = quiet(replace(config, devices=2, strategy="ddp"), tmp_path / "two", digits)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for ours, theirs in zip(two.rows, one.rows, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-4)
        assert ours["test_loss"] == pytest.approx(theirs["test_loss"], rel=1e-3)
    assert two.execution["n_processes"] == 2
    assert two.n_flipped_labels == one.n_flipped_labels
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == FILES
    assert [row["epoch"] for row in rows(tmp_path / "two" / "metrics.csv")] == ["1", "2"]
    weights = [trained(tmp_path / name).state_dict() for name in ("one", "two")]
    for name, value in weights[0].items():
        assert torch.allclose(value.float(), weights[1][name].float(), rtol=1e-2, atol=1e-3), name
    # One process takes over where two have stopped: the checkpoint does not know how many wrote it.
    assert quiet(config, tmp_path / "two", digits).weights_digest == two.weights_digest


def test_an_error_in_another_process_is_an_error_here(digits, tmp_path):
    with pytest.raises(TrainError, match="DivergedError: .* in epoch 1, at step 2: stopped; no epoch was finished"):
        quiet(_config(lr=1e30, devices=2), tmp_path, digits)


# ---- it learns


@pytest.fixture(scope="module")
def all_digits() -> data.Dataset:
    return data.digits()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "changes"),
    [
        ("cifar-resnet20-basic[width=8]", {"images": 4000, "epochs": 4, "batch_size": 32}),
        # A mask that is wired wrong learns too slowly for this.
        ("cifar-attention56[width=8]", {"images": 2000, "epochs": 4, "batch_size": 16}),
    ],
    ids=["resnet", "attention"],
)
def test_a_small_network_learns_the_digits(all_digits, tmp_path, network, changes):
    config = _config(spec=named(network), lr=0.05, milestones=(0.6, 0.85), test_images=1000, **changes)
    assert quiet(config, tmp_path, all_digits).test_error_pct <= 40


@pytest.mark.slow
def test_nothing_is_learnt_from_shuffled_labels(all_digits, tmp_path):
    digits = all_digits
    config = _config(spec=named("cifar-resnet20-basic[width=8]"), images=4000, test_images=0, batch_size=32, lr=0.05)
    # Noise of 0.9 puts every label at 1 / 10: nothing of the image is left in it.
    shuffled = quiet(replace(config, label_noise=0.9, epochs=1), tmp_path / "shuffled", digits)
    n = len(digits.test_labels)
    assert abs(shuffled.test_error_pct - 90) < 100 * 4 * math.sqrt(0.09 / n)
