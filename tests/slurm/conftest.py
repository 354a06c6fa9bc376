"""`make test-slurm` starts a Slurm for these tests; without --slurm they are skipped."""

from collections.abc import Iterator

import pytest

from . import cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slurm", action="store_true", help="start a Slurm on this machine and run studies through it")


@pytest.fixture(scope="session")
def slurm(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of the commands of a running Slurm."""
    if not request.config.getoption("slurm", False):
        pytest.skip("`make test-slurm` has these")
    pytest.importorskip("snakemake_executor_plugin_slurm")
    if why := cluster.missing():
        pytest.skip(why)
    with cluster.slurm() as environment:
        yield environment
