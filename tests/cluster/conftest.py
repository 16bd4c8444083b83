"""The cluster that these tests run on: the embedded lab, and never another."""

import os
from collections.abc import Iterator

import pytest

from upstream_guard.lab import leftovers
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import (
    Cluster,
    LabError,
    LabSpec,
    current_cluster,
    default_state_dir,
)
from upstream_guard.lab.report import QuietReporter, RichReporter

NODES = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a machine without a lab come first, before a session's lab is brought up."""
    items.sort(key=lambda item: "no_lab" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def no_lab() -> Iterator[LocalProvider]:
    """A provider on a machine where no lab is, and none is afterwards."""
    provider = LocalProvider(default_state_dir())
    if not provider.detect().usable:
        pytest.skip(provider.detect().reason)
    if leftovers.find(default_state_dir()):
        pytest.skip("a lab is here already, and this test would take it down")
    yield provider
    provider.down(QuietReporter())


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The local lab with three nodes; one that is up already is used, and then left as it was."""
    state_dir = default_state_dir()
    provider = LocalProvider(state_dir)
    found = provider.detect()
    if not found.usable:
        pytest.skip(f"{found.reason}. {found.remedy}")
    before = current_cluster(state_dir)
    if before is not None and before.provider != provider.name:
        pytest.exit(
            f"refusing to test on the {before.provider} cluster {before.name!r}: "
            "only the embedded lab may be used",
            returncode=2,
        )
    say = RichReporter()
    try:
        yield provider.up(LabSpec(state_dir, nodes=NODES), say)
    except LabError as error:
        pytest.exit(str(error), returncode=2)
    finally:
        if before is None and not os.environ.get("UPSTREAM_GUARD_KEEP_LAB"):
            provider.down(say)
