"""The named networks: which names there are, and what is said of those that are not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from resattn.networks import catalog
from resattn.networks.catalog import UnknownNetworkError, named, names
from resattn.networks.spec import NetworkSpec, SpecError

CONTRACT = (
    "attention56", "attention92", "attentionnext56", "attentionnext92", "attentioninception56", "resnet50",
    "resnet101", "resnet152", "resnet200", "cifar-attention56", "cifar-attention92", "cifar-attention128",
    "cifar-attention164", "cifar-attention236", "cifar-attention452", "cifar-resnet164", "cifar-resnet110-basic",
)  # fmt: skip


@pytest.mark.parametrize("name", CONTRACT)
def test_every_name_that_users_rely_on(name: str) -> None:
    spec = named(name)
    assert isinstance(spec, NetworkSpec)
    assert spec.name == name
    assert str(spec.claimed_depth) in name


@pytest.mark.parametrize("n", [1, 2, 6, 18, 111])
def test_a_resnet_for_every_depth_that_the_rule_gives(n: int) -> None:
    assert named(f"cifar-resnet{9 * n + 2}").units == (n, n, n)
    assert named(f"cifar-resnet{6 * n + 2}-basic").units == (n, n, n)


def test_listed_names_are_names_of_their_specs_and_no_two_networks_are_the_same() -> None:
    specs = [named(name) for name in names()]
    assert [spec.name for spec in specs] == list(names())
    assert len(set(names())) == len(names())
    published = [spec.digest for spec in specs if not spec.name.startswith("port:")]
    assert len(set(published)) == len(published)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("atention56", "unknown network 'atention56' (nearest: attention56"),
        ("resnet51", "unknown network 'resnet51' (nearest: resnet50"),
        ("cifar-attention57", "unknown network 'cifar-attention57' (nearest: cifar-attention56"),
        ("qqqq", "unknown network 'qqqq' (`resattn list` shows all)"),
        ("", "unknown network ''"),
        ("cifar-resnet165", "no cifar-resnet165: bottleneck networks have 9n+2 layers (nearest: 164, 173)"),
        ("cifar-resnet19-basic", "no cifar-resnet19-basic: basic networks have 6n+2 layers (nearest: 14, 20)"),
        ("cifar-resnet2", "no cifar-resnet2: bottleneck networks have 9n+2 layers (nearest: 11, 20)"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(name: str, said: str) -> None:
    with pytest.raises(UnknownNetworkError) as error:
        named(name)
    assert said in str(error.value)
    assert isinstance(error.value, SpecError)


def test_a_name_is_told_from_a_path_to_a_callable() -> None:
    assert all(map(catalog.is_name, names()))
    assert not catalog.is_name("package.module:callable")
    assert not catalog.is_name("nets.py:make")


def test_listing_the_networks_does_not_import_torch() -> None:
    code = "import sys, resattn.networks.catalog, resattn.networks.spec; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "cifar-resnet56[width=19]",
        "cifar-attention56[modules=2,2,2, merge=naive]",
        "cifar-attention56[width=8][p=2]",
    ],
)
def test_a_network_with_settings_is_named_as_it_calls_itself(name: str) -> None:
    assert named(name).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar-resnet5[width=19]", "no cifar-resnet5: bottleneck networks have 9n+2 layers (nearest: 11, 20)"),
        ("cifar-resnet56[widht=3]", "unknown field 'widht' of cifar-resnet56 (nearest: width"),
        ("cifar-resnet56[width=]", "width of cifar-resnet56 takes numbers, found ''"),
        ("cifar-resnet56[width=19", "unknown network 'cifar-resnet56[width=19' (nearest: cifar-resnet56"),
    ],
)
def test_settings_in_a_name_are_checked(name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        named(name)
    assert message in str(caught.value)
