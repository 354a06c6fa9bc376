"""Sentences follow their frames: other numbers, other words."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from scipy import stats

from analysis.report import sentences
from analysis.statistics.interventions import intervention_summary
from analysis.tables.depth import (
    article_steps,
    depth_frame,
    depth_ratios,
    module_frame,
    path_length_frame,
    path_summary,
)

ROOT = Path(__file__).resolve().parents[2]


def test_depths_say_how_much_longer() -> None:
    text = sentences.depths(depth_frame(["attention56", "attention92", "resnet50"]))
    assert "The longest path of ResNet-50 is the trunk." in text
    assert "Attention-56 passes through the masks and is 43 % longer than its trunk; the network has 2.0 times" in text
    assert "Attention-92 passes through the masks and is 39 % longer" in text


def test_modules_say_for_how_many_the_article_holds() -> None:
    text = sentences.modules(module_frame(["attention56", "attention92"]))
    assert "Attention-56 are 26, 20 and 14 layers deep; the article's 20 is correct for 1 of the 3" in text
    assert "correct for 2 of the 6" in text


def test_the_article_is_right_in_its_sum_for_one_network_only() -> None:
    text = sentences.article(article_steps(["attention56", "attention92"]))
    assert "The sum for Attention-56 is correct, but 4 of its 13 terms are wrong: " in text
    assert "mask and p units of stage 1, module 1 is 26, not 20" in text
    assert "For Attention-92 the same rule gives 140, and 128 are counted." in text


def test_ratios_are_those_of_the_networks_asked_about() -> None:
    found = depth_ratios("attention92", "resnet200")
    text = sentences.ratios(found, "attention92", "resnet200")
    assert "Attention-92 has 46 % of the trunk depth of ResNet-200." in text
    assert (
        "by the longest path the share is 64 %, and by weighted layers 88 %, or 90 % of the number in its name" in text
    )
    other = sentences.ratios(depth_ratios("attention56", "resnet152"), "attention56", "resnet152")
    assert "has 37 % of the trunk depth of ResNet-152" in other


def test_path_lengths_name_the_nearest_network() -> None:
    names = ["attention56", "cifar-resnet56-basic", "cifar-resnet80-basic", "cifar-resnet110-basic"]
    paths = path_length_frame(names)
    text = sentences.path_lengths(paths, path_summary(paths, 10, 34), "attention56", "cifar-resnet110-basic")
    assert "nearest to that is CIFAR ResNet-80 basic" in text
    # veit2016, section 4.2: paths of 10 to 34 layers are 0.45 % of all.
    assert "paths of 10 to 34 layers" in text
    assert "0.45 % of the paths of CIFAR ResNet-110 basic are that short" in text


def test_the_notebook_types_no_counted_number_into_its_prose() -> None:
    notebook = nbformat.read(ROOT / "notebooks/20_depth.ipynb", as_version=4)
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.findall(r"\d+(?:\.\d+)? %|\b\d+ layers", prose)
    assert text == ["46 %"], "the abstract's own words, and nothing else"


def interventions(n: int) -> pd.DataFrame:
    rows = []
    for seed in range(n):
        for kind, change in (("none", 0.0), ("another image's", 20.0 + seed), ("off", 60.0 - seed)):
            about = {
                "network": "cifar-attention56",
                "dataset": "digits",
                "seed": seed,
                "n_images": 100,
                "module": "all",
            }
            rows.append({**about, "intervention": kind, "norms": "as they are", "test_error_pct": 4.0 + change,
                         "change": change})  # fmt: skip
    return intervention_summary(pd.DataFrame(rows))


def test_interventions_are_told_with_an_interval_or_as_a_range() -> None:
    few, many = interventions(3), interventions(6)
    (text,) = sentences.mask_findings(few, "digits")
    assert text.startswith(
        "On digits, with the masks of other images, the test error of CIFAR Attention-56 is 25.0 % instead"
    )
    assert "change in each seed +20.0 to +22.0 points, 3 seeds): too few seeds to conclude" in text
    areas = {"cifar-attention56[merge=naive]": 0.6, "cifar-attention56": 0.41}
    assert sentences.outline(areas, "digits") == (
        "On digits, averaged over channels, the masks are lower on the object than on the background (AUC 0.41)."
    )
    assert sentences.outline({}, "digits") == ""
    reach = stats.t.ppf(0.975, 5) * np.std([20, 21, 22, 23, 24, 25], ddof=1) / 6**0.5
    interval = f"{22.5 - reach:+.1f} to {22.5 + reach:+.1f}"
    (text,) = sentences.mask_findings(many, "digits")
    assert (
        f"95 % interval of the change {interval} points, 6 seeds): the network needs the masks of the image itself"
        in text
    )
    assert interval in sentences.interventions(many)
    assert "95 % intervals" in sentences.interventions(many)
    assert "too few for intervals" in sentences.interventions(few)
    one = interventions(1)
    assert sentences.interventions(one).endswith("in percentage points.")  # one seed has no range
    assert "instead of 4.0 % (1 seed): too few" in sentences.mask_findings(one, "digits")[0]
    naive = one.assign(network="cifar-attention56[merge=naive]")
    texts = sentences.mask_findings(pd.concat([naive, one], ignore_index=True), "digits")
    assert ["merge=naive" in text for text in texts] == [False, True]  # the network of the paper first
    assert "+60.0 with the masks off" not in sentences.interventions(few)  # the mean of the seeds, not the first
    assert "+59.0 with the masks off (+58.0 to +60.0)" in sentences.interventions(few)


def test_used_depth_stands_beside_the_number_in_the_name() -> None:
    rows = [("cifar-resnet56", n, share, 0.25) for n, share in ((10, 0.02), (20, 0.48), (30, 0.48), (56, 0.02))]
    text = sentences.used_depth(pd.DataFrame(rows, columns=["network", "length", "share", "share_of_paths"]))
    assert text == (
        "CIFAR ResNet-56 is named 56; its longest path has 56 weighted layers, its mean path 29.0. With random weights "
        "the gradient passes 25.3 on average; 90 % of its energy passes 20 to 30."
    )
