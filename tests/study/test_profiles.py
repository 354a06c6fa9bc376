"""A mistake in a profile is found before the first job, with its line and what would do."""

import json
from pathlib import Path

import pytest

from analysis.study import profiles as module
from analysis.study.profiles import ProfileError, read_profile
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
    asked = read_profile(_profile(folder))
    models = ("cifar-resnet56", "cifar-attention56")
    runs = [f"50_train/{model}-s{seed}" for model in models for seed in (0, 1)]
    assert list(asked.tasks) == ["20_depth", *runs, "60_compare"]
    assert asked.tasks["20_depth"].parameters == {"networks": ["resnet50", "attention56"]}
    run = asked.tasks["50_train/cifar-attention56-s1"]
    assert run.parameters == {
        "dataset": "auto", "epochs": 2, "images": 640, "batch_size": 64, "model": "cifar-attention56", "seed": 1,
    }  # fmt: skip
    assert isinstance(run.training, TrainConfig)
    assert (run.training.steps, run.timeout_s, asked.tasks["20_depth"].timeout_s) == (20, 7, 3600)
    compare = asked.tasks["60_compare"]
    assert asked.needs(compare) == runs
    assert compare.given(folder / "results") == {"n": 3, "runs_dir": "../results/50_train"}
    assert (asked.name, asked.dataset, asked.gpus) == ("p", "auto", 0)


def test_another_dataset_reaches_every_job(folder):
    asked = read_profile(_profile(folder), dataset="cluttered-digits")
    assert asked.tasks["50_train/cifar-resnet56-s0"].parameters["dataset"] == "cluttered-digits"
    with pytest.raises(ProfileError, match=r"unknown dataset 'cifar1O' \(nearest: cifar10"):
        read_profile(_profile(folder), dataset="cifar1O")


def test_training_on_cuda_asks_for_a_gpu(folder):
    assert read_profile(_profile(folder, ("shared:", "device: cuda\ngpus: 3\nshared:"))).gpus == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cifar-attention56]", "cifar-atention56]", "line 9: unknown network 'cifar-atention56' (nearest: "),
        ("resnet50, att", "resnet51, att", "line 4: unknown network 'resnet51' (nearest: resnet50"),
        ("dataset: auto", "dataset: cifar11", "line 3: unknown dataset 'cifar11' (nearest: cifar10"),
        ("  20_depth:", "  20_dept:", "line 6: no notebook '20_dept' (nearest: 20_depth)"),
        ("    budget:", "    bugdet:", "line 12: notebooks.50_train has no 'bugdet' (nearest: budget)"),
        ("shared:", "sharde:", "line 2: a profile has no 'sharde' (nearest: shared"),
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
        ('    folder: "', '    # "', "notebooks.50_train: `each` and `folder` are given together or not at all"),
        ('-s{seed}"', '"', "line 11: two jobs would share the folder '50_train/cifar-resnet56'"),
        ('-s{seed}"', '-s{sed}"', "line 11: folder '{model}-s{sed}' names something that is not in `each`"),
        ('"{model}-s', '"../{model}-s', "line 11: '50_train/../cifar-resnet56-s0' is no folder name"),
        ("{n: 3}", "{n: three}", "line 15: parameter n of 60_compare.ipynb takes an int, such as 1, not 'three'"),
        ("{n: 3}", "{out_dir: x}", "line 15: out_dir is set by the study"),
        ("runs_dir: 50_train", "runs_dir: 50_trian", "line 16: no notebook '50_trian' above 60_compare (nearest"),
        ("runs_dir: 50_train", "runs: 50_train", "line 16: 60_compare.ipynb has no parameter 'runs'"),
        ("  20_depth:", "  20_depth: {after: {networks: 60_compare}}", "line 6: no notebook '60_compare' above"),
        ("dataset: auto", "dataset: auto\n  epoks: 1", "line 4: no notebook of this profile has a parameter 'epoks'"),
        ("-s{seed}", "-s{seed:0>500000000}", "line 11: folder '{model}-s{seed:0>500000000}' names something that is"),
        ("-s{seed}", "-s{seed.real}", "line 11: folder '{model}-s{seed.real}' names something that is not in `each`"),
        ("-s{seed}", "-s{seed}" + "x" * 200, "is no folder name: it has more than 200 bytes"),
        ("seed: [0, 1]", f"seed: {list(range(15_000))}", "line 7: 30,001 jobs; a profile has at most 2,000"),
        ("  20_depth:", "  report: {notebook: 20_depth}", "line 6: 'report' cannot be a folder of jobs"),
        ("  20_depth:", "  plan.json: {notebook: 20_depth}", "line 6: 'plan.json' cannot be a folder of jobs"),
        ("  20_depth:", "  20_depth:\n  20_depth:", "line 7: '20_depth' occurs a second time"),
        ("seed: [0, 1]", "seed: [0, 1", "line 11: no YAML"),
        ("seed: [0, 1]", "seed: !!python/name:os.system", "no YAML (could not determine a constructor"),
        ("networks: [", "networks: &n [", None),
        ("{n: 3}", "{n: *n}", "line 15: an alias, or more levels"),
        ("timeout_s: 7", "timeout_s: 0", "line 13: notebooks.50_train.timeout_s: 0 is less than the minimum of 1"),
        ("notebooks_dir: notebooks", "device: tpu", "line 1: device: 'tpu' is not one of ['cpu', 'cuda']"),
        (PROFILE, "", "p.yaml: no mapping of names to values"),
        ("20_depth:", "? [20_depth]\n  :", "line 6: a name that is no text"),
        ("{model}-s{seed}", ".{model}-s{seed}", "line 11: '50_train/.cifar-resnet56-s0' is no folder name"),
        ("dir: notebooks", 'dir: "a\\0b"', "line 1: notebooks_dir is no folder (embedded null byte)"),
        ("dir: notebooks", f"dir: {'x' * 5000}", "line 1: notebooks_dir is no folder ([Errno 36] File name too long"),
        (PROFILE, "shared: {}", "line 1: : 'notebooks' is a required property"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(folder, old, new, message):
    path = _profile(folder, (old, new))
    if message is None:
        read_profile(path)
        return
    with pytest.raises(ProfileError) as raised:
        read_profile(path)
    assert str(raised.value).startswith("p.yaml")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)  # each mistake once


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(folder):
    with pytest.raises(ProfileError) as raised:
        read_profile(_profile(folder, ("epochs: 2", "epochs: 0"), ("resnet50, att", "resnet51, att")))
    assert [line.split(":")[0] for line in str(raised.value).splitlines()] == ["p.yaml, line 4", "p.yaml, line 12"]


def test_a_notebook_that_cannot_be_run_is_found(folder, write_notebook):
    write_notebook("20_depth", parameters=None)
    with pytest.raises(ProfileError, match=r"line 6: 20_depth.ipynb: no cell tagged `parameters`"):
        read_profile(_profile(folder))


def test_settings_are_checked_as_training_will(folder):
    path = _profile(folder, ("    budget", '    parameters: {settings: "lr=-1"}\n    budget'))
    with pytest.raises(ProfileError, match="lr must be"):
        read_profile(path)
    asked = read_profile(_profile(folder, ("    budget", '    parameters: {settings: "width=8 lr=0.2"}\n    budget')))
    run = asked.tasks["50_train/cifar-attention56-s0"].training
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
        read_profile(tmp_path / "p.yaml")


def test_an_unknown_profile_is_told_the_nearest(tmp_path):
    with pytest.raises(ProfileError, match=r"no profile 'quik' \(nearest: quick, or a .yaml file\)"):
        read_profile("quik")
    with pytest.raises(ProfileError, match="no profile"):
        read_profile(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("name", "networks", "seeds", "gpus"), [("quick", 3, 2, 0), ("small", 3, 7, 0), ("paper", 4, 8, 1)]
)
def test_the_profiles_of_the_project(name, networks, seeds, gpus):
    """Every notebook of the project runs in each, with parameters that it has."""
    asked = read_profile(name)
    # Figure 4 of the paper is about networks that only its own experiment trains; 90 is to be played with. The runs of
    # the protocol belong to the result that is kept, not to a profile that trains its own.
    everything = {file.stem for file in module.NOTEBOOKS.glob("*.ipynb")} - {
        "00_start", "62_protocol", "75_response", "90_explore",
    }  # fmt: skip
    assert {task.notebook.stem for task in asked.tasks.values()} - {"62_protocol"} == everything
    runs = [task for task in asked.tasks.values() if task.step == "50_train"]
    assert len(runs) == networks * seeds
    assert asked.gpus == gpus
    if name == "paper":
        assert {run.training.steps // 1000 for run in runs} == {160}
    digits = [task.training for task in asked.tasks.values() if task.step == "65_train_digits"]
    assert {config.dataset for config in digits} == {"cluttered-digits"}
    assert {config.spec.merge for config in digits} == {"residual", "naive"}
    assert asked.needs(asked.tasks["70_masks"])[-1].startswith("65_train_digits/")


def test_the_reference_shows_no_picture_of_a_dataset_that_is_not_ours():
    assert "photos_dir" not in read_profile("reference").tasks["70_masks"].after


# experiment -> networks and levels of label noise
EXPERIMENTS = {
    "gates": (("gate", {"mixed", "channel", "spatial"}), 3),
    "merge": (("merge", {"residual", "naive"}), 8),
    "hourglass": (("mask", {"hourglass", "local"}), 2),
    "noise": (("label_noise", {0.1, 0.3, 0.5, 0.7}), 8),
    "response": (("merge", {"residual", "naive"}), 3),
}
# The fewest seeds that its comparisons need: docs/reference/statistics.md.
SEEDS = {"gates": 7, "merge": 9, "hourglass": 6, "noise": 6, "response": 7}


@pytest.mark.parametrize("scale", module.SCALES)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_of_the_paper(name, scale):
    (field, values), n_each = EXPERIMENTS[name]
    asked = read_profile(name, scale=scale)
    assert asked.name == f"{name}-{scale}"
    assert asked == read_profile(f"{name}-{scale}")
    runs = [task.training for task in asked.tasks.values() if task.training]
    assert {getattr(run, field, None) or getattr(run.spec, field) for run in runs} == values
    assert len(runs) == n_each * (3 if scale == "quick" else SEEDS[name])
    assert asked.gpus == (scale == "paper")
    widths = {run.spec.width for run in runs}
    if scale == "paper":
        assert {(run.steps // 1000, run.batch_size, run.dataset) for run in runs} == {(160, 64, "cifar10")}
    assert widths == {16} if scale != "quick" else widths <= {4, 8}
    assert ("75_response" in asked.tasks) == (name == "response")
    reference = asked.tasks["60_compare"].parameters["reference"]
    assert not reference or reference in {run.spec.name for run in runs}


SCALED = (
    PROFILE
    + """\
scales:
  small:
    notebooks:
      50_train:
        each: {seed: [3]}
        budget: {epochs: 5}
  paper: {device: cuda}
"""
)


@pytest.fixture
def scaled(folder):
    def write(*changes: tuple[str, str]) -> Path:
        text = SCALED
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (folder / "s.yaml").write_text(text)
        return folder / "s.yaml"

    return write


def test_a_scale_is_laid_over_the_rest(scaled):
    small = read_profile(scaled(), scale="small")
    assert small.name == "s-small"
    runs = [task.training for task in small.tasks.values() if task.training]
    assert [(run.seed, run.epochs, run.images) for run in runs] == [(3, 5, 640)] * 2
    assert read_profile(scaled()).name == "s-small"  # the first that is there
    paper = read_profile(scaled(), scale="paper")
    assert (paper.gpus, len(paper.tasks)) == (1, 6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget: {epochs: 5}", "budget: {epochs: 0}", "s.yaml, line 22: notebooks.50_train.budget.epochs: 0 is less"),
        ("seed: [3]", "sead: [3]", "s.yaml, line 21: 50_train.ipynb has no parameter 'sead' (did you mean seed?)"),
        ("images: 640", "images: 63", "s.yaml, line 22: batch_size must be in [1, 63]"),
        ("  small:", "  smal:", "s.yaml, line 18: scales has no 'smal' (nearest: small"),
        ("  paper: {device: cuda}", "  paper: 3", "s.yaml, line 23: scales.paper: not a mapping"),
    ],
)
def test_a_mistake_in_a_scale_is_told_with_its_line(scaled, old, new, message):
    with pytest.raises(ProfileError) as raised:
        read_profile(scaled((old, new)), scale="small" if "smal" not in new else None)
    assert message in str(raised.value)


def test_a_scale_that_is_not_there_is_told(scaled, folder):
    with pytest.raises(ProfileError, match=r"s.yaml has no scale 'quick' \(one of: small, paper\)"):
        read_profile(scaled(), scale="quick")
    with pytest.raises(ProfileError, match=r"p.yaml has no scales .*: gates, hourglass, merge, noise, response\)"):
        read_profile(_profile(folder), scale="small")
    with pytest.raises(ProfileError, match="gates-small is a scale of gates already, --scale says paper"):
        read_profile("gates-small", scale="paper")
    with pytest.raises(ProfileError, match=r"no profile 'gate-small' \(nearest: small or gates"):
        read_profile("gate-small")


def test_a_step_can_run_a_notebook_of_another_name(folder):
    step = '  65_more:\n    notebook: 50_train\n    each: {seed: [9]}\n    folder: "s{seed}"\n    budget: {epochs: 1}\n'
    path = _profile(folder, ("  60_compare:", step + "  60_compare:"), ("{runs_dir: 50_train}", "{runs_dir: 65_more}"))
    asked = read_profile(path)
    task = asked.tasks["65_more/s9"]
    assert (task.step, task.notebook.stem, task.training.seed) == ("65_more", "50_train", 9)
    assert asked.needs(asked.tasks["60_compare"]) == ["65_more/s9"]
    with pytest.raises(ProfileError, match=r"line 15: no notebook '50_trian' \(nearest: 50_train\)"):
        read_profile(_profile(folder, ("  60_compare:", step.replace("50_train", "50_trian") + "  60_compare:")))


def test_the_schema_is_one(tmp_path):
    import jsonschema

    schema = json.loads((ROOT / "workflow" / "profile.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
