"""Runs side by side: on the CPU one step after the other, with the bits of the loop. CUDA graphs need a GPU."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training.conftest import N_TEST, N

from analysis.experiment import agreement
from analysis.experiment.machine import ManyError, check_machine
from analysis.experiment.many import main, run_whole
from analysis.experiment.protocol import Protocol, ProtocolError, extra_runs, read_protocol, run_extra, run_protocol
from analysis.experiment.trainee import Trainee, _laid_out, restart_all, start_all
from resattn.networks.catalog import named
from resattn.training import data
from resattn.training.config import DATASETS
from resattn.training.kept import read_all
from resattn.training.loop import train
from resattn.training.run import weights_digest

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
NETWORKS = {"attention56": "cifar-attention56[width=2]", "resnet74": "cifar-resnet20-basic[width=2]"}


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setitem(DATASETS, "cluttered-digits", DATASETS["cluttered-digits"]._replace(train=N, test=N_TEST))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(digits) -> Protocol:
    values = json.loads((ROOT / "docs" / "protocol.json").read_text())
    values["dataset"] = {"name": "cluttered-digits", "label": "cluttered-digits", "sha256": digits.digest}
    values["recipe"] |= {"batch_size": 20, "images": 100}
    values["networks"] = NETWORKS
    values["sweep"] |= {"lr": [0.01], "seeds": [7], "holdout": 20, "epochs": 1, "presentations": 100}
    values["budgets"] |= {"epochs": [1], "seeds": [0]}
    return Protocol(values, hashlib.sha256(json.dumps(values).encode()).hexdigest())


# ---- the step


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "network", ["cifar-attention56[width=4]", "cifar-attention56[width=4, mask=constant]", "cifar-resnet20-basic[width=4]"]
)  # fmt: skip
def test_the_step_has_the_bits_of_the_loop(config, digits, tmp_path, precision, network):
    asked = config(spec=named(network), precision=precision, schedule="linear", warmup=0.2, epochs=2, presentations=200, images=N, lr=0.05)  # fmt: skip
    run = train(asked, tmp_path, dataset=digits, say=lambda line: None)
    feed = data.prepare(digits, asked)
    ours = Trainee(replace(asked, seed=3), feed, CPU)
    start_all([ours], 0)
    ours.step()
    restart_all([ours], [asked], feed)  # nothing is left of the other run
    for epoch, row in enumerate(run.rows):
        start_all([ours], epoch)
        for _ in range(asked.steps_in(epoch)):
            ours.step()
        tested, bits = ours.test()
        assert ours.training_row() | tested == {k: row[k] for k in row if k not in ("epoch", "step", "lr")}
    assert bits == (tmp_path / "correct.bin").read_bytes()
    assert weights_digest(ours.finish()) == run.weights_digest


def test_a_gradient_is_laid_out_like_its_weight_without_a_copy():
    weight = torch.zeros(8, 4, 1, 1).to(memory_format=torch.channels_last)
    other = torch.randn(8, 4, 1, 1)
    laid = _laid_out(other, weight.contiguous(memory_format=torch.channels_last))
    assert torch.equal(laid, other)
    assert laid.data_ptr() == other.data_ptr()
    kernel = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    assert torch.equal(_laid_out(torch.ones(8, 4, 3, 3), kernel), torch.ones(8, 4, 3, 3))


def test_label_noise_is_refused(config, digits):
    asked = config(label_noise=0.1)
    with pytest.raises(ValueError, match="label noise differs by seed"):
        Trainee(asked, data.prepare(digits, asked), CPU)


def test_rounding_is_amplified_in_float32_and_not_in_float64(config, digits):
    """Why the steps are compared in float64: an order of sums is enough to move the later losses."""
    asked = config(spec=named("cifar-attention56[width=2]"), precision="fp32", lr=0.05, images=100)
    feed = data.prepare(digits, asked)
    losses = {}
    for dtype in (torch.float32, torch.float64):
        for noise in (0.0, 2.0**-24 if dtype == torch.float32 else 2.0**-53):
            run = Trainee(asked, feed, CPU, dtype)
            with torch.no_grad():
                for weight in run.masters:
                    weight.mul_(1 + noise * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
            for _ in range(4):
                run.step()
            losses[dtype, bool(noise)] = run.losses[:4].double()
    apart = {
        d: ((losses[d, True] - losses[d, False]).abs() / losses[d, False]).max().item()
        for d in (torch.float32, torch.float64)
    }
    assert apart[torch.float64] < 1e-6 < apart[torch.float32]


# ---- the whole protocol


def whole(protocol, digits, out, **changes):
    lines: list[str] = []
    n = run_whole(
        out=out, device=CPU, protocol=protocol, dataset=lambda: digits, say=lines.append, **{"minutes": 5} | changes
    )
    return n, lines


def test_the_whole_protocol_side_by_side_is_that_of_the_loop(tiny, digits, tmp_path):
    """The same runs with the same ids, curves and bits, the budgets after the sweep, a stopped one resumed."""
    values = json.loads(json.dumps(tiny.data))
    values["sweep"] |= {"lr": [0.01, 0.02]}
    values["budgets"] |= {"epochs": [1, 2], "seeds": [0, 1]}
    values["weights"] = {"epochs": 2, "seeds": [0]}
    protocol = Protocol(values, "another digest")
    run_protocol(out=tmp_path / "loop", protocol=protocol, dataset=digits, say=lambda line: None)
    first, lines = whole(protocol, digits, tmp_path / "many", side_by_side=2, minutes=0)  # too short for a second block
    assert 0 < first < protocol.n_runs
    assert any("not started" in line for line in lines)
    rest, lines = whole(protocol, digits, tmp_path / "many", side_by_side=2)
    assert first + rest == protocol.n_runs
    assert not any("test error" in line for line in lines)
    ours, loops = (read_all(tmp_path / name / "runs") for name in ("many", "loop"))
    assert [run.id for run in ours] == [run.id for run in loops]
    for run, loop in zip(ours, loops, strict=True):
        assert (run.run.rows, run.run.weights_digest) == (loop.run.rows, loop.run.weights_digest)
        for name in ("metrics.csv", "correct.bin", "weights.pt"):
            assert (run.folder / name).exists() == (loop.folder / name).exists()
            if (run.folder / name).exists() and name != "weights.pt":
                assert (run.folder / name).read_bytes() == (loop.folder / name).read_bytes()
    weights = [torch.load(path) for path in sorted(tmp_path.glob("*/runs/*/weights.pt"))]
    assert len(weights) == 4
    assert all(torch.equal(a, b) for x, y in zip(weights[:2], weights[2:], strict=True) for a, b in zip(x.values(), y.values(), strict=True))  # fmt: skip
    assert whole(protocol, digits, tmp_path / "many")[0] == 0


def test_the_check_trains_nothing(tiny, digits, tmp_path):
    n, _ = whole(tiny, digits, tmp_path, check_only=True)
    assert n == 0
    checks = json.loads((tmp_path / "summary.json").read_text())["agreement"]
    assert [(c["network"], c["precision"]) for c in checks] == [
        (short, precision) for short in NETWORKS for precision in ("fp64", "fp32", "bf16")
    ]
    assert not (tmp_path / "runs").exists()


def test_the_command_makes_the_protocol_and_the_runs_beside_it(tiny, digits, tmp_path, capsys):
    """A rate of the protocol's is waited for; a run that diverges is kept as diverged; the records name the code."""
    also = [
        {"network": "naive", "spec": "cifar-attention56[width=2, merge=naive]", "epochs": 1, "lr": "attention56", "seeds": [0]},
        {"network": "plain", "spec": "cifar-resnet20-basic[width=2]", "epochs": 1, "lr": 0.03, "seeds": [0, 1]},
    ]  # fmt: skip
    assert [run.network for run in extra_runs(tiny, also, {}, tmp_path)] == ["plain", "plain"]
    bad = [{"network": "bad", "spec": "cifar-resnet20-basic[width=2]", "epochs": 1, "lr": 1e30, "seeds": [0]}]
    (tmp_path / "also.json").write_text(json.dumps(also + bad))
    (tmp_path / "protocol.json").write_text(json.dumps(dict(tiny.data)))
    tiny = read_protocol(tmp_path / "protocol.json")
    asked = [
        "--whole",
        "--also",
        str(tmp_path / "also.json"),
        "--minutes",
        "5",
        "--out",
        str(tmp_path),
        "--code",
        "abc",
    ]
    assert main([*asked, "--device", "cpu", "--protocol", str(tmp_path / "protocol.json")]) == 0
    assert f"done: {tiny.n_runs + 4} runs kept" in capsys.readouterr().out
    diverged, *extra = read_all(tmp_path / "extra")
    assert (diverged.run, diverged.about["diverged"].partition(" in ")[0]) == (None, "the loss is no finite number")
    assert {run.about["commit"] for run in extra} == {"abc"}
    assert [(run.about["network"], run.config.lr, run.config.seed) for run in extra] == [("naive", 0.01, 0), ("plain", 0.03, 0), ("plain", 0.03, 1)]  # fmt: skip
    assert all((run.folder / "weights.pt").exists() for run in extra)
    run_extra(also[1:], out=tmp_path / "loop", protocol=tiny, dataset=digits, say=lambda line: None)
    by_loop = read_all(tmp_path / "loop" / "extra")
    assert [(run.id, run.run.rows) for run in by_loop] == [(run.id, run.run.rows) for run in extra[1:]]
    with pytest.raises(ProtocolError, match="no run beside the protocol: .*'seeds'"):
        extra_runs(tiny, [{"network": "naive", "spec": "cifar-attention56", "epochs": 1, "lr": 0.1}], {}, tmp_path)


def test_the_whole_protocol_needs_its_data_and_agreement(tiny, digits, tmp_path, monkeypatch):
    with pytest.raises(ProtocolError, match="the protocol is about another; found cluttered-digits"):
        whole(
            Protocol(dict(tiny.data) | {"dataset": {"label": "another", "sha256": "0", "name": "x"}}, "d"),
            digits,
            tmp_path,
        )
    monkeypatch.setattr(agreement, "TOLERANCE", agreement.TOLERANCE | {"fp64": (-1.0, 1.0, 0.9)})
    with pytest.raises(ManyError, match="do not agree with the CPU's"):
        whole(tiny, digits, tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_machine_that_is_not_fit_says_so_before_data_are_loaded(tiny, tmp_path, monkeypatch):
    def loaded():
        raise AssertionError("data were loaded")

    cuda = torch.device("cuda")
    go = {"out": tmp_path, "minutes": 1, "device": cuda, "protocol": tiny, "dataset": loaded, "side_by_side": 4}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ManyError, match="torch finds no CUDA device here"):
        run_whole(**go)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    class Small:
        name, major, minor, total_memory = "a GPU", 8, 6, 4 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Small)
    with pytest.raises(ManyError, match="a GPU has 4 GiB of memory, 4 runs side by side need 8 GiB"):
        run_whole(**go)
    monkeypatch.setattr(Small, "major", 7)
    with pytest.raises(ManyError, match=r"a GPU has compute capability 7.6, without bf16: at least 8.0 is needed"):
        check_machine(cuda, 1)
    monkeypatch.setattr(torch, "__version__", "2.3.1+cu121")
    with pytest.raises(ManyError, match=r"torch 2.3.1\+cu121 is too old: at least 2.8 is needed"):
        run_whole(**go)


def test_the_command_says_what_is_wrong(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--whole", "--minutes", "1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "many: torch finds no CUDA device here (--device cpu trains one run after the other)\n"
    )
    assert main(["--whole", "--protocol", str(tmp_path / "none.json")]) == 2


def test_it_needs_no_more_than_torch_and_numpy():
    missing = [
        "lightning_fabric",
        "pandas",
        "papermill",
        "snakemake",
        "sklearn",
        "scipy",
        "yaml",
        "tqdm",
        "pooch",
    ]
    code = (
        "import sys\n"
        f"for name in {missing}: sys.modules[name] = None\n"
        "import analysis.experiment.many\n"
    )  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
