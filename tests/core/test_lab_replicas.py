"""The operator beside the cluster: whose Lease it is, and whose rights it has."""

from typing import Any

import pytest

from upstream_guard.lab import replicas

RENEWED = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""


def lease(**spec: Any) -> dict[str, Any]:
    return {
        "spec": {
            "holderIdentity": "operator-1",
            "renewTime": "2026-01-01T00:00:00.000000Z",
            "leaseDurationSeconds": 15,
            **spec,
        }
    }


@pytest.mark.parametrize(
    ("given", "later", "holder"),
    [
        (lease(), 0, "operator-1"),
        (lease(), 15, "operator-1"),
        (lease(), 16, ""),
        (lease(holderIdentity=""), 0, ""),
        (lease(renewTime=None), 0, ""),
        ({}, 0, ""),
    ],
)
def test_a_stale_lease_belongs_to_nobody(given: dict[str, Any], later: float, holder: str) -> None:
    assert replicas.lease_holder(given, RENEWED + later) == holder


def test_the_account_gets_its_token_and_nothing_of_the_administrator() -> None:
    config = {
        "clusters": [{"name": "lab", "cluster": {"server": "https://198.18.0.1:6443"}}],
        "users": [{"name": "admin", "user": {"client-key-data": "c2VjcmV0"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
    }
    made = replicas.as_account(config, "token")
    assert "c2VjcmV0" not in str(made)
    assert made["clusters"] == config["clusters"]
    assert made["users"] == [{"name": "upstream-guard", "user": {"token": "token"}}]
    assert made["contexts"][0]["context"] == {"cluster": "lab", "user": "upstream-guard"}


def test_the_manifests_are_found_in_a_checkout() -> None:
    assert (replicas.manifests_folder() / "kustomization.yaml").is_file()
