"""What a model's own tests use: its architecture stays as a file says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from resattn.testing import assert_unchanged

pytest_plugins = ["pytester"]


def model(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 1))


def test_a_model_is_unchanged_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    with pytest.raises(AssertionError, match=r"there is no .*audit.json: assert_unchanged\(..., update=True\)"):
        assert_unchanged(model(), (3, 8, 8), file)
    assert_unchanged(model(), (3, 8, 8), file, update=True)
    assert_unchanged(model(), (3, 8, 8), file)
    assert_unchanged(model(), torch.empty(1, 3, 8, 8), str(file))
    assert_unchanged(model(), {"input": torch.empty(1, 3, 8, 8)}, file)
    with pytest.raises(AssertionError) as error:
        assert_unchanged(model(5), [torch.empty(1, 3, 8, 8)], file)
    assert "0: params 112 -> 140 (+28)" in str(error.value)
    with pytest.raises(AssertionError, match="the inputs differ, 1x3x8x8 and 1x3x9x9"):
        assert_unchanged(model(), (3, 9, 9), file)


def test_the_fixture_finds_the_file_beside_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("pytest_plugins = ['resattn.testing']")
    pytester.makepyfile(
        "from torch import nn\n"
        "def test_it(unchanged):\n"
        "    unchanged(nn.Sequential(nn.Conv2d(3, 4, 3)), (3, 8, 8), 'audit.json')\n"
    )
    how = ("-p", "no:cacheprovider")
    pytester.runpytest_inprocess(*how).assert_outcomes(failed=1)
    pytester.runpytest_inprocess(*how, "--update-audits").assert_outcomes(passed=1)
    pytester.runpytest_inprocess(*how).assert_outcomes(passed=1)
