"""The clusters' profiles, as far as they can be tested without a cluster."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from study.conftest import ROOT, WRITE_TABLE, run_resattn, write_notebook

from analysis.study import engine as module
from analysis.study.batch import run_study
from analysis.study.engine import CLUSTERS
from analysis.study.plan import all_tasks, write_plan
from analysis.study.profiles import StudyError, read_profile
from resattn.cli import parser

__all__ = ["write_notebook"]  # a fixture


OUT = Path("/results")


@pytest.fixture
def profile(tmp_path: Path, write_notebook) -> Path:
    write_notebook("20_depth", WRITE_TABLE)
    write_notebook("60_compare", WRITE_TABLE, parameters='runs_dir = ""\nout_dir = "o"')
    text = "notebooks_dir: notebooks\nnotebooks:\n  20_depth:\n  60_compare:\n    after: {runs_dir: 20_depth}\n"
    (tmp_path / "p.yaml").write_text(text)
    return tmp_path / "p.yaml"


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_snakemake_takes_the_profile_and_plans_the_jobs(name, profile, tmp_path):
    pytest.importorskip(f"snakemake_executor_plugin_{name}")
    out, asked = tmp_path / "out", read_profile(profile)
    out.mkdir()
    write_plan(asked, out, all_tasks(asked))
    command = module.snakemake_command(asked, out, module.engine_for(out, None, name, ()))
    command += ["--dry-run", "--printshellcmds"]
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr
    assert "--cores" not in command  # the profile says how many at a time
    assert run.stdout.count("rule notebook:") == 2
    # In a pod the folder is told to a job, which snakemake starts in another one.
    start, folder = ("Shell command: ", "") if name == "slurm" else (f"cd {out} && ", f"{out}/")
    assert run.stdout.count(f"{start}RESATTN_PARENT=$PPID exec {sys.executable} -P -m resattn.cli notebook ../") == 2
    assert f"output: {folder}60_compare/result.json" in run.stdout
    settings = yaml.safe_load((CLUSTERS / name / "config.yaml").read_text())
    assert settings["executor"] == name
    assert settings["restart-times"] > 0


def test_a_profile_of_ones_own_is_a_folder(profile, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("executor: local\njobs: 1\n")
    run = run_resattn("study", profile, "--out", tmp_path / "out", "--on", tmp_path / "mine")
    assert run.returncode == 0, run.stderr
    assert "localrule notebook" in (tmp_path / "out" / "snakemake.log").read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("slrum", None, r"no snakemake profile 'slrum' .a folder with a config.yaml, or one of: slurm."),
        ("./none", None, r"no snakemake profile './none' .a folder with a config.yaml, or one of: kubernetes, slurm."),
        (None, "executor: flux-of-time\n", r"snakemake has no executor 'flux-of-time' here: pip install .*'.\[flux-of"),
        (None, "executor: [", r"config.yaml is no snakemake profile"),
        (None, "[1]", r"config.yaml is no snakemake profile"),
        (None, "", r"config.yaml is no snakemake profile"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_before_anything_is_made(profile, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "config.yaml").write_text(content)
        name = str(tmp_path / "mine")
    with pytest.raises(StudyError, match=message):
        run_study(profile, report=lambda: pytest.fail("no report"), out=tmp_path / "out", on=name)
    assert not (tmp_path / "out").exists()


def test_jobs_elsewhere_are_not_as_many_as_this_machine_has_cores():
    here = module.usable_cpus()
    assert module.engine_for(OUT, None, None, ()) == (["--cores", str(here + module.AHEAD)], here)
    assert module.engine_for(OUT, 3, None, ("--quiet",)) == (["--cores", str(3 + module.AHEAD), "--quiet"], 3)
    assert module.engine_for(OUT, None, None, ("--executor=slurm", "-j", "9")) == (
        ["--executor=slurm", "-j", "9"],
        None,
    )
    assert module.engine_for(OUT, 4, None, ("--profile", "mine")) == (["--profile", "mine", "--cores", "4"], None)


def test_the_plan_of_a_gpu_study_fills_this_machine_s_gpus_only(profile, tmp_path):
    asked = replace(read_profile(profile), gpus=2)
    here, away = module.Engine(("--cores", "4"), 2), module.Engine(("--profile", "mine"), None)
    assert "--resources=gpu=2" in module.snakemake_command(asked, tmp_path, here)
    assert "--resources=gpu=2" not in module.snakemake_command(asked, tmp_path, away)


def test_the_page_names_commands_and_profiles_that_there_are():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    studies = re.findall(r"^resattn (study .*)$", page, re.MULTILINE)
    assert len(studies) > 3
    for words in studies:
        ours, _, _ = words.partition(" -- ")
        given = parser().parse_args(shlex.split(ours))
        assert read_profile(given.profile).tasks
        assert given.on in (None, "slurm", "~/profiles/our-cluster")
    settings = yaml.safe_load((CLUSTERS / "kubernetes" / "config.yaml").read_text())
    for told in (settings["container-image"], *settings["kubernetes-persistent-volumes"][0].split(":")):
        assert told in page
