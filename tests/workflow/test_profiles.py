"""A mistake in a profile is found before the first job, with its line and what would do."""

import json
from pathlib import Path

import pytest

from analysis import profiles as module
from analysis.profiles import ProfileError, read_study
from resattn.training.config import TrainConfig

from .conftest import ROOT

TRAIN = """\
model = "cifar-resnet56"
seed = 0
epochs = 1
images = 0
batch_size = 64
dataset = "auto"
settings = ""
out_dir = "o"
"""
PROFILE = """\
notebooks_dir: notebooks
shared:
  dataset: auto
  networks: [resnet50, attention56]
notebooks:
  20_depth:
  50_train:
    each:
      model: [cifar-resnet56, cifar-attention56]
      seed: [0, 1]
    folder: "{model}-s{seed}"
    budget: {epochs: 2, images: 640, batch_size: 64}
    timeout_s: 7
  60_compare:
    parameters: {n: 3}
    after: {runs_dir: 50_train}
"""


@pytest.fixture
def folder(tmp_path, write_notebook):
    write_notebook("20_depth", parameters='networks = ["resnet50"]\nout_dir = "o"')
    write_notebook("50_train", parameters=TRAIN)
    write_notebook("60_compare", parameters='runs_dir = ""\nn = 1\nout_dir = "o"')
    return tmp_path


def _profile(folder: Path, *changes: tuple[str, str]) -> Path:
    text = PROFILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "p.yaml").write_text(text)
    return folder / "p.yaml"


def test_a_profile_becomes_jobs(folder):
    study = read_study(_profile(folder))
    models = ("cifar-resnet56", "cifar-attention56")
    runs = [f"50_train/{model}-s{seed}" for model in models for seed in (0, 1)]
    assert list(study.jobs) == ["20_depth", *runs, "60_compare"]
    assert study.jobs["20_depth"].parameters == {"networks": ["resnet50", "attention56"]}
    run = study.jobs["50_train/cifar-attention56-s1"]
    assert run.parameters == {
        "dataset": "auto", "epochs": 2, "images": 640, "batch_size": 64, "model": "cifar-attention56", "seed": 1,
    }  # fmt: skip
    assert isinstance(run.training, TrainConfig)
    assert (run.training.steps, run.timeout_s, study.jobs["20_depth"].timeout_s) == (20, 7, 3600)
    compare = study.jobs["60_compare"]
    assert study.needs(compare) == runs
    assert compare.given(folder / "results") == {"n": 3, "runs_dir": "../results/50_train"}
    assert (study.name, study.dataset, study.gpus) == ("p", "auto", 0)


def test_another_dataset_reaches_every_job(folder):
    study = read_study(_profile(folder), dataset="cluttered-digits")
    assert study.jobs["50_train/cifar-resnet56-s0"].parameters["dataset"] == "cluttered-digits"
    with pytest.raises(ProfileError, match=r"unknown dataset 'cifar1O' \(nearest: cifar10"):
        read_study(_profile(folder), dataset="cifar1O")


def test_training_on_cuda_asks_for_a_gpu(folder):
    assert read_study(_profile(folder, ("shared:", "device: cuda\ngpus: 3\nshared:"))).gpus == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cifar-attention56]", "cifar-atention56]", "line 9: unknown network 'cifar-atention56' (nearest: "),
        ("resnet50, att", "resnet51, att", "line 4: unknown network 'resnet51' (nearest: resnet50"),
        ("dataset: auto", "dataset: cifar11", "line 3: unknown dataset 'cifar11' (nearest: cifar10"),
        ("  20_depth:", "  20_dept:", "line 6: no notebook '20_dept' (nearest: 20_depth)"),
        ("    budget:", "    bugdet:", "line 12: notebooks.50_train has no 'bugdet' (nearest: budget)"),
        ("shared:", "sharde:", "line 2: a profile has no 'sharde' (nearest: shared)"),
        ("epochs: 2", "epochs: 0", "line 12: notebooks.50_train.budget.epochs: 0 is less than the minimum of 1"),
        ("epochs: 2", "epoch: 2", "line 12: notebooks.50_train.budget has no 'epoch' (nearest: epochs)"),
        ("epochs: 2", 'epochs: "2"', "line 12: notebooks.50_train.budget.epochs: '2' is not of type 'integer'"),
        ("images: 640", "images: -1", "line 12: notebooks.50_train.budget.images: -1 is less than the minimum of 0"),
        ("images: 640", "images: 50001", "line 12: images must be in [0, 50000]"),
        ("images: 640", "images: 63", "line 12: batch_size must be in [1, 63]"),
        ("seed: [0, 1]", "seed: [1, 1]", "line 10: notebooks.50_train.each.seed: [1, 1] has non-unique elements"),
        ("seed: [0, 1]", "seed: [0, -1]", "line 10: notebooks.50_train.each.seed.1: -1 is less than the minimum of 0"),
        ("seed: [0, 1]", "seed: []", "line 10: notebooks.50_train.each.seed: [] should be non-empty"),
        ("seed: [0, 1]", "sead: [0, 1]", "line 10: 50_train.ipynb has no parameter 'sead' (did you mean seed?)"),
        ('-s{seed}"', '"', "line 11: two jobs would share the folder '50_train/cifar-resnet56'"),
        ('-s{seed}"', '-s{sed}"', "line 11: folder '{model}-s{sed}' names something that is not in `each`"),
        ('"{model}-s', '"../{model}-s', "line 11: '50_train/../cifar-resnet56-s0' is no folder name"),
        ("{n: 3}", "{n: three}", "line 15: parameter n of 60_compare.ipynb takes an int, such as 1, not 'three'"),
        ("{n: 3}", "{out_dir: x}", "line 15: out_dir is set by the study"),
        ("runs_dir: 50_train", "runs_dir: 50_trian", "line 16: no notebook '50_trian' above 60_compare (nearest"),
        ("runs_dir: 50_train", "runs: 50_train", "line 16: 60_compare.ipynb has no parameter 'runs'"),
        ("  20_depth:", "  20_depth: {after: {networks: 60_compare}}", "line 6: no notebook '60_compare' above"),
        ("dataset: auto", "dataset: auto\n  epoks: 1", "line 4: no notebook of this profile has a parameter 'epoks'"),
        ("  20_depth:", "  20_depth:\n  20_depth:", "line 7: '20_depth' stands here a second time"),
        ("seed: [0, 1]", "seed: [0, 1", "line 11: no YAML"),
        ("seed: [0, 1]", "seed: !!python/name:os.system", "no YAML (could not determine a constructor"),
        ("networks: [", "networks: &n [", None),
        ("{n: 3}", "{n: *n}", "line 15: an alias, or more levels"),
        ("timeout_s: 7", "timeout_s: 0", "line 13: notebooks.50_train.timeout_s: 0 is less than the minimum of 1"),
        ("notebooks_dir: notebooks", "device: tpu", "line 1: device: 'tpu' is not one of ['cpu', 'cuda']"),
        (PROFILE, "", "p.yaml: no mapping of names to values"),
        (PROFILE, "shared: {}", "line 1: : 'notebooks' is a required property"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(folder, old, new, message):
    path = _profile(folder, (old, new))
    if message is None:
        read_study(path)
        return
    with pytest.raises(ProfileError) as raised:
        read_study(path)
    assert str(raised.value).startswith("p.yaml")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)  # each mistake once


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(folder):
    with pytest.raises(ProfileError) as raised:
        read_study(_profile(folder, ("epochs: 2", "epochs: 0"), ("resnet50, att", "resnet51, att")))
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == ["p.yaml, line 4", "p.yaml, line 12"]


def test_a_notebook_that_cannot_be_run_is_found(folder, write_notebook):
    write_notebook("20_depth", parameters=None)
    with pytest.raises(ProfileError, match=r"line 6: 20_depth.ipynb: no cell tagged `parameters`"):
        read_study(_profile(folder))


def test_settings_are_checked_as_training_will(folder):
    path = _profile(folder, ("    budget", '    parameters: {settings: "lr=-1"}\n    budget'))
    with pytest.raises(ProfileError, match="lr must be"):
        read_study(path)
    study = read_study(_profile(folder, ("    budget", '    parameters: {settings: "width=8 lr=0.2"}\n    budget')))
    run = study.jobs["50_train/cifar-attention56-s0"].training
    assert (run.spec.width, run.lr) == (8, 0.2)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",  # grows with the power of its lines
        "[" * 20_000,
        "notebooks: {" * 5_000,
        "x: " + "y" * 100_000,
        "\x00",
    ],
    ids=["aliases", "nested", "nested-maps", "large", "binary"],
)
def test_a_hostile_profile_is_refused(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ProfileError, match=r"^p\.yaml"):
        read_study(tmp_path / "p.yaml")


def test_an_unknown_profile_is_told_the_nearest(tmp_path):
    with pytest.raises(ProfileError, match=r"no profile 'quik' \(nearest: quick, or a .yaml file\)"):
        read_study("quik")
    with pytest.raises(ProfileError, match="no profile"):
        read_study(tmp_path / "p.yaml")


@pytest.mark.parametrize(("name", "seeds", "gpus"), [("quick", 2, 0), ("small", 6, 0), ("paper", 5, 1)])
def test_the_profiles_of_the_project(name, seeds, gpus):
    """Every notebook of the project runs in each, with parameters that it has."""
    study = read_study(name)
    assert {job.step for job in study.jobs.values()} == {file.stem for file in module.NOTEBOOKS.glob("*.ipynb")}
    runs = [job for job in study.jobs.values() if job.training]
    assert len(runs) == 3 * seeds
    assert study.gpus == gpus
    if name == "paper":
        assert {run.training.steps // 1000 for run in runs} == {160}


def test_the_schema_is_one(tmp_path):
    import jsonschema

    schema = json.loads((ROOT / "workflow" / "profile.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
