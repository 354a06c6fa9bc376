"""Kept runs give their networks back, and their tables are written once for each run."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
import torch

from analysis.experiment.protocol import bf16_weights
from analysis.tables import schemas
from analysis.tables.files import read_table
from analysis.trained import mask_maps, protocol_runs
from analysis.trained.mask_maps import runs_below
from resattn.networks.catalog import named
from resattn.training import data, kept
from resattn.training.checkpoint import trained
from resattn.training.config import TrainConfig, override
from resattn.training.kept import KeptRunError, kept_network
from resattn.training.loop import train
from resattn.training.record import CORRECT


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.digits(train=40, test=20)


@pytest.fixture(scope="module")
def results(digits: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two kept runs with their weights, and one without."""
    folder = tmp_path_factory.mktemp("protocol")
    for name, seed, has_weights in (("cifar-attention56[width=2]", 0, True), ("cifar-resnet11[width=2]", 0, True),
                                    ("cifar-resnet11[width=2]", 1, False)):  # fmt: skip
        config = TrainConfig(spec=named(name), epochs=1, seed=seed, dataset="cluttered-digits", threads=1)
        config = override(config, "images=40 batch_size=20 test_images=20 accelerator=cpu")
        work = folder / "work" / f"{name}-{seed}"
        run = train(config, work, dataset=digits, say=lambda line: None)
        weights = bf16_weights(trained(work)) if has_weights else None
        kept.keep(
            folder / "extra" / f"{name}-{seed}", run, (work / CORRECT).read_bytes(), {"protocol": "p"}, weights=weights
        )
    return folder


def test_a_kept_network_is_that_of_the_run_rounded_to_bf16(results: Path) -> None:
    name = "cifar-attention56[width=2]-0"
    network, run = kept_network(results / "extra" / name), trained(results / "work" / name)
    assert not network.training
    for key, value in run.state_dict().items():
        expected = value.bfloat16().float() if value.is_floating_point() else value
        assert torch.equal(network.state_dict()[key], expected)


def test_weights_that_cannot_be_read(results: Path, tmp_path: Path) -> None:
    with pytest.raises(KeptRunError, match="the weights of this run are not kept"):
        kept_network(results / "extra" / "cifar-resnet11[width=2]-1")
    source = results / "extra" / "cifar-resnet11[width=2]-0"
    why = {"cut": "they are not those that run.json records", "other": ""}
    for case, content in (("cut", (source / "weights.pt").read_bytes()[:100]), ("other", b"")):
        place = tmp_path / case
        place.mkdir()
        for file in source.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
        if case == "other":
            buffer = io.BytesIO()
            torch.save({"weight": torch.zeros(1)}, buffer)
            content = buffer.getvalue()
            record = json.loads((place / "run.json").read_text())
            record["kept"]["weights_sha256"] = hashlib.sha256(content).hexdigest()
            (place / "run.json").write_text(json.dumps(record))
        (place / "weights.pt").write_bytes(content)
        with pytest.raises(
            KeptRunError, match=rf"weights.pt: not the weights of cifar-resnet11\[width=2\] \({why[case]}"
        ):
            kept_network(place)


def test_tables_of_kept_runs_are_written_once(
    results: Path, digits: data.Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "load", lambda name: digits)
    command = ["--results", str(results), "--images", "20", "--used-images", "2"]
    out = results / "trained" / "extra"
    assert protocol_runs.main([*command, "--only", "responses"]) == 0
    assert [path.name for path in out.glob("*.csv")] == ["responses.csv"]
    assert protocol_runs.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 + 3  # interventions need masks
    interventions = read_table(out / "interventions.csv", schemas.INTERVENTIONS)
    assert set(interventions["network"]) == {"cifar-attention56[width=2]"}
    used = read_table(out / "used_depth.csv", schemas.USED)
    assert set(used["network"]) == {"cifar-attention56[width=2]", "cifar-resnet11[width=2]"}
    before = {path.name: path.read_bytes() for path in out.glob("*.csv")}
    assert set(before) == {
        f"{name}.csv" for name in ("interventions", "intervention_means", "lesions", "responses", "used_depth",
                                   "used_depth_means")
    }  # fmt: skip
    assert protocol_runs.main(command) == 0
    assert capsys.readouterr().out == ""
    assert {path.name: path.read_bytes() for path in out.glob("*.csv")} == before


def test_without_weights_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert protocol_runs.main(["--results", str(tmp_path)]) == 1
    assert "has its weights" in capsys.readouterr().err


def test_the_network_of_a_kept_run_is_read_by_all_analyses(
    results: Path, digits: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "load", lambda name: digits)
    (run,) = runs_below(results / "extra")
    assert isinstance(run, mask_maps.Trained)
    assert torch.equal(
        run.network("after").state_dict()["head.fc.weight"], kept_network(run.folder).state_dict()["head.fc.weight"]
    )
    assert json.loads((run.folder / "run.json").read_text())["kept"]["protocol"] == "p"
