"""Frames against numbers from outside: the counts of the released prototxts and of published tables."""

from __future__ import annotations

from fractions import Fraction
from math import comb
from pathlib import Path

import pandas as pd
import pytest

from analysis.tables import frames
from analysis.tables.files import TableError, write_table
from resattn.networks.catalog import named
from resattn.networks.spec import override

# fwang91, Attention-56 and -92 deploy.prototxt: multiply-adds by arithmetic on the files.
RELEASED = {
    "attention56": {"layers": 111, "mask": 51, "macs": 6_270_836_736, "macs_mask": 1_744_920_576, "params": 31_810_728},
    "attention92": {
        "layers": 180,
        "mask": 84,
        "macs": 10_533_789_696,
        "macs_mask": 3_387_482_112,
        "params": 52_466_344,
    },
}


@pytest.mark.parametrize("network", RELEASED)
def test_a_row_for_each_layer_and_nothing_lost(network: str) -> None:
    layers, released = frames.layer_frame(network), RELEASED[network]
    mask = layers[layers["role"] == "mask"]
    assert len(layers) == released["layers"]
    assert len(mask) == released["mask"]
    assert layers["macs"].sum() == released["macs"]
    assert mask["macs"].sum() == released["macs_mask"]


def test_layers_of_the_longest_path_stand_one_after_the_other() -> None:
    layers = frames.layer_frame("attention56")
    assert sorted(layers.loc[layers["on_longest"], "start"]) == list(range(80))
    assert layers["on_trunk"].sum() == 56
    assert set(layers.loc[layers["on_trunk"], "role"]) == {"trunk"}


def test_levels_are_the_halvings_of_the_masks() -> None:
    layers = frames.layer_frame("attention56")
    mask = layers[layers["role"] == "mask"]
    # wang2017, section 4.2: 3, 2 and 1 poolings.
    assert mask.groupby("stage")["level"].max().to_dict() == {"stage1": 3, "stage2": 2, "stage3": 1}
    assert set(mask.loc[mask["layer"].str.contains(".head."), "level"]) == {0}
    assert (layers.loc[layers["role"] != "mask", "level"] == 0).all()


def test_a_mask_without_poolings_has_one_level() -> None:
    layers = frames.layer_frame(override(named("cifar-attention56"), {"mask": "local"}))
    assert set(layers["level"]) == {0}


def test_depth_by_role_sums_to_the_audit() -> None:
    counts = frames.depth_by_role(["attention56", "resnet50"]).groupby(["network", "notion"])["value"].sum()
    for network in ("attention56", "resnet50"):
        for notion in ("claimed_depth", "longest_path", "weighted_layers"):
            assert counts[network, notion] == cached_audit(network).quantities[notion]


def test_stages_sum_to_the_whole() -> None:
    stages = frames.stage_frame(["attention92"])
    sums = stages.groupby("notion")["value"].sum().to_dict()
    assert sums == {"trunk_depth": 92, "longest_path": 128, "weighted_layers": 180}


def test_modules_are_not_what_the_article_says() -> None:
    modules = frames.module_frame(["attention56", "attention92"])
    assert set(modules["said"]) == {20}
    of_56 = modules[modules["network"] == "attention56"]
    assert list(of_56["longest_path"]) == [26, 20, 14]
    assert list(of_56["trunk_path"]) == [12, 12, 12]
    assert list(modules.loc[modules["network"] == "attention92", "longest_path"]) == [26, 20, 20, 14, 14, 14]


def test_the_article_step_by_step() -> None:
    steps = frames.article_steps(["attention56", "attention92"])
    assert list(steps["said"]) == [18, 36, 2, 56, *(12, 14, 20) * 3, 80, 140]
    assert list(steps["counted"]) == [18, 36, 2, 56, 12, 20, 26, 12, 14, 20, 12, 8, 14, 80, 128]
    assert list(steps.loc[~steps["holds"], "network"]) == ["attention56"] * 4 + ["attention92"]


def test_the_ratios_of_the_abstract_by_each_notion() -> None:
    ratios = frames.depth_ratios("attention92", "resnet200").set_index("quantity")
    assert ratios.loc["trunk_depth", "share"] == 0.46  # wang2017, abstract
    assert ratios.loc["longest_path", "share"] == 0.64
    # ResNet-200 has four projections beside the 200 layers of its name.
    assert ratios.loc["weighted_layers", "share"] == 180 / 204
    assert ratios.loc["weighted_layers", "share_of_name"] == 0.9


def test_paths_of_a_basic_resnet_are_binomial() -> None:
    # 54 units of two layers between the first and the last layer (veit2016, section 3: unravelled view).
    paths = frames.path_length_frame(["cifar-resnet110-basic"])
    assert dict(zip(paths["length"], paths["n_paths"], strict=True)) == {2 + 2 * k: comb(54, k) for k in range(55)}
    assert paths["share"].sum() == pytest.approx(1)
    # veit2016: 5 to 17 of 54 units are 0.45 % of all paths; the first and the last layer are counted here.
    summary = frames.path_summary(paths, 2 + 2 * 5, 2 + 2 * 17).iloc[0]
    assert summary["share_between"] == float(Fraction(sum(comb(54, k) for k in range(5, 18)), 2**54))
    assert round(100 * summary["share_between"], 2) == 0.45
    assert summary["mean_length"] == 2 + 54
    assert summary["n_paths"] == 2**54


def test_path_counts_stay_exact() -> None:
    paths = frames.path_length_frame(["attention92"])
    assert sum(paths["n_paths"]) == 51_951_924_412_416


def test_costs_are_those_of_the_release() -> None:
    costs = frames.cost_frame(list(RELEASED)).groupby(["network", "quantity"])["value"].sum()
    for network, released in RELEASED.items():
        assert costs[network, "params"] == released["params"]
        assert costs[network, "macs"] == released["macs"]
        assert costs[network, "flops"] == 2 * released["macs"]


def test_torchinfo_finds_the_same_parameters() -> None:
    summary = frames.summary_frame(["attention56", "cifar-resnet56"])
    assert (summary["params"] == summary["params_torchinfo"]).all()
    assert (summary["macs_torchinfo"] > summary["macs"]).all()


# Side in px at the end of each stage, from the prototxts: trunk alone, and through the masks.
SEEN = {
    "attention56": {"trunk": [51, 123, 267, 427], "mask": [387, 707, 995, 1155]},
    "attention92": {"trunk": [51, 187, 587, 747], "mask": [387, 1027, 1827, 1987]},
}


@pytest.mark.parametrize("network", SEEN)
def test_receptive_fields_of_the_release(network: str) -> None:
    fields = frames.receptive_frame([network])
    for branch, sides in SEEN[network].items():
        assert list(fields.loc[fields["branch"] == branch, "value"]) == sides
    first = fields[(fields["branch"] == "mask") & (fields["stage"] == "stage1")].iloc[0]
    assert first["least"] == 355  # "355 or 387 by position"
    assert first["high_px"] - first["low_px"] in (355, 387)


def test_a_network_without_masks_has_one_branch() -> None:
    assert set(frames.receptive_frame(["cifar-resnet20-basic"])["branch"]) == {"trunk"}


@pytest.mark.parametrize("network", ["attention56", "cifar-attention56", "cifar-resnet20-basic"])
def test_the_gradient_sees_what_the_intervals_say(network: str) -> None:
    fields = frames.gradient_frame([network])
    assert fields["agrees"].all()
    assert (fields["central_low_px"] >= fields["low_px"]).all()
    assert (fields["central_high_px"] <= fields["high_px"]).all()


def test_published_rows_of_tables_2_and_7() -> None:
    published = frames.published_frame("wang2017", ["Table 2", "Table 7"]).set_index("id")
    assert published.loc["t7.attention56.flops", "verdict"] == "confirmed"
    assert published.loc["t2.attention56.flops", "verdict"] == "refuted"
    assert published.loc["t2.attention92.params", "verdict"] == "refuted"
    assert published.loc["t2.attention56.params", "verdict"] == "matches under another definition"
    assert set(published["quantity"]) == {"params", "cost", "depth"}


def test_published_rows_that_are_not_there() -> None:
    with pytest.raises(frames.FrameError, match="no counted row from wang2017 in Table 99"):
        frames.published_frame("wang2017", ["Table 99"])


def test_counts_of_verdicts_lose_no_claim() -> None:
    claims = pd.DataFrame({"source": ["a"] * 3 + ["b"] * 2 + ["c"], "verdict": ["confirmed", "refuted"] * 3})
    counts = frames.finding_counts(claims, least=3)
    assert list(counts["source"].unique()) == ["a", "2 others"]
    assert counts["n"].sum() == len(claims)


def test_specs_side_by_side_show_only_what_differs() -> None:
    wide = frames.differing(frames.spec_frame(["attention56", "attention92"]))
    assert list(wide.index) == ["attention56", "attention92"]
    assert set(wide.columns) == {"claimed_depth", "modules"}
    assert wide.loc["attention92", "modules"] == "1, 2, 3, 0"


def test_networks_by_the_side_of_their_input() -> None:
    groups = frames.by_input_side(["resnet50", "cifar-resnet56", "attention56"])
    assert groups == {224: ["resnet50", "attention56"], 32: ["cifar-resnet56"]}
    assert frames.with_masks(["resnet50", "attention56"]) == ["attention56"]


def test_a_shown_frame_is_the_same_each_time() -> None:
    frame = pd.DataFrame({"word": ["a"], "number": [1234567]})
    markup = frames.shown(frame).to_html()
    assert markup == frames.shown(frame.copy()).to_html()
    assert "1,234,567" in markup


# -- runs, made up: only their arithmetic is looked at


def _run(network: str, seed: int, error: float, **changes: object) -> dict[str, object]:
    return {
        "network": network, "dataset": "cluttered-digits", "seed": seed, "epochs": 4, "images": 2000,
        "label_noise": 0.0, "test_error_pct": error, "images_per_s": 100.0, "elapsed_s": 80.0, "params": 10, "macs": 20, "trunk_depth": 56,
        "longest_path": 74, "weighted_layers": 101, "s_per_epoch": 20.0, "peak_memory_bytes": float("nan"),
        "training_macs": 480_000, **changes,
    }  # fmt: skip


def _runs() -> pd.DataFrame:
    ours = [_run("ours", seed, error) for seed, error in enumerate([10.0, 12.0, 11.0])]
    theirs = [_run("theirs", seed, error) for seed, error in enumerate([13.0, 12.5, 12.0])]
    return pd.DataFrame(ours + theirs)


def test_pairs_are_those_of_one_seed_and_budget() -> None:
    runs = pd.concat([_runs(), pd.DataFrame([_run("theirs", 7, 50.0), _run("theirs", 0, 60.0, epochs=1)])])
    pairs = frames.pair_frame(runs, "ours")
    assert dict(zip(pairs["seed"], pairs["difference"], strict=True)) == {0: -3.0, 1: -0.5, 2: -1.0}
    differences = frames.difference_frame(pairs).iloc[0]
    assert (differences["n"], differences["mean"]) == (3, pytest.approx(-1.5))
    assert pd.isna(differences["p_value"])
    assert "6 pairs" in differences["note"]
    assert differences["equivalence"].startswith("3 pairs: nothing is said about a margin of 1")


def test_runs_with_other_label_noise_are_no_pair() -> None:
    noisy = [_run(n, seed, 40.0 + (n == "theirs"), label_noise=0.3) for n in ("ours", "theirs") for seed in (0, 1)]
    pairs = frames.pair_frame(pd.concat([_runs(), pd.DataFrame(noisy)]), "ours")
    assert dict(pairs.groupby("label_noise")["difference"].mean()) == {0.0: pytest.approx(-1.5), 0.3: -1.0}
    assert list(frames.difference_frame(pairs)["n"]) == [3, 2]
    assert "0 % or 30 % label noise" in frames.budget(pd.concat([_runs(), pd.DataFrame(noisy)]))


def test_without_a_reference_each_network_meets_the_one_without_its_setting() -> None:
    names = ("a[width=8]", "a[gate=channel][width=8]", "b[width=8]", "b[merge=naive][width=8]", "c[width=8]")
    pairs = frames.pair_frame(pd.DataFrame([_run(name, 0, 10.0 + k) for k, name in enumerate(names)]))
    found = {row.network: (row.reference, row.difference) for row in pairs.itertuples()}
    assert found == {names[1]: (names[0], -1.0), names[3]: (names[2], -1.0)}
    with pytest.raises(frames.FrameError, match="no network has a twin without its settings"):
        frames.pair_frame(_runs())


def test_a_reference_that_was_not_trained() -> None:
    with pytest.raises(frames.FrameError, match=r"no run of 'other' \(there are runs of: ours, theirs\)"):
        frames.pair_frame(_runs(), "other")


def test_comparison_keeps_the_range_and_the_mean() -> None:
    comparison = frames.comparison_frame(_runs()).set_index(["network", "quantity"])
    ours = comparison.loc["ours", "test_error_pct"]
    assert (ours["n"], ours["mean"], ours["least"], ours["largest"]) == (3, 11.0, 10.0, 12.0)
    assert ours["least"] <= ours["low"] <= ours["mean"] <= ours["high"] <= ours["largest"]


def test_the_budget_says_what_the_runs_were_given() -> None:
    said = frames.budget(_runs())
    assert said == "cluttered-digits, 4 epochs, 2,000 training images; 3 seeds of each network"


def test_runs_are_read_from_their_tables(tmp_path: Path) -> None:
    for seed in (1, 0):
        write_table(pd.DataFrame([_run("ours", seed, 10.0 + seed)]), tmp_path / f"ours-s{seed}/tables/run.csv")
    runs = frames.run_frame(tmp_path)
    assert list(runs["seed"]) == [0, 1]
    assert list(runs["test_error_pct"]) == [10.0, 11.0]
    assert list(runs["s_per_epoch"]) == [20.0, 20.0]
    assert list(runs["training_macs"]) == [3 * 20 * 2000 * 4] * 2


def test_a_run_of_an_earlier_version_has_no_noise_and_no_memory(tmp_path: Path) -> None:
    row = {k: v for k, v in _run("ours", 0, 10.0).items() if k not in ("label_noise", "peak_memory_bytes")}
    write_table(pd.DataFrame([row]), tmp_path / "ours-s0/tables/run.csv")
    runs = frames.run_frame(tmp_path)
    assert runs["label_noise"].tolist() == [0.0]
    assert "peak_memory_bytes" not in set(frames.comparison_frame(runs)["quantity"])


def test_a_folder_without_runs(tmp_path: Path) -> None:
    with pytest.raises(frames.FrameError, match=r"no run in .*run 50_train"):
        frames.run_frame(tmp_path)


def test_a_run_table_that_lacks_a_column(tmp_path: Path) -> None:
    write_table(pd.DataFrame([{"network": "ours"}]), tmp_path / "ours-s0/tables/run.csv")
    with pytest.raises(TableError, match="also dataset"):
        frames.run_frame(tmp_path)
