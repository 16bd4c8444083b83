"""Brings the demo's services under guard, as a user does: one `kubectl apply`, one `delete`."""

import asyncio
import json
from typing import Any

from upstream_guard.core import names
from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.lab.demo import variants
from upstream_guard.lab.demo.stage import Stage
from upstream_guard.lab.demo.variants import Variant
from upstream_guard.lab.model import LabError

Json = dict[str, Any]

PROTECT_SECONDS = 30.0
POLL_SECONDS = 0.1


class KubectlGuarding:
    """Guards and releases services of a cluster whose operator runs.

    Attributes:
        seen: `kubectl get ug` as it was at the end of each service's last guarded run.
        found: The guard itself, then.
    """

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.seen: dict[str, str] = {}
        self.found: dict[str, Json] = {}

    async def guard(self, stage: Stage) -> None:
        """Create the shortest guard and wait until new pods are protected.

        Raises:
            LabError: the guard was not accepted, or pods did not get their gate, in time.
        """
        await stage.apply(variants.guard(namespace=stage.namespace, name=stage.name))
        gated = False
        try:
            async with asyncio.timeout(PROTECT_SECONDS):
                while not gated:
                    gated = await self.injects(stage)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            status = await stage.kubectl("get", "ug", stage.name, "--output=json")
            raise LabError(
                f"{PROTECT_SECONDS:g} s after the guard was created, pods still get no readiness "
                f"gate; its status is {json.loads(status).get('status', 'empty')}"
            ) from None

    async def look_on(self, stage: Stage) -> None:
        """Create a guard that changes nothing, and wait until the operator has taken it up.

        Raises:
            LabError: it was not accepted in time.
        """
        await stage.apply(variants.onlooker(namespace=stage.namespace, name=stage.name))
        await stage.kubectl(
            "wait", f"ug/{stage.name}", "--for=condition=Accepted",
            f"--timeout={PROTECT_SECONDS:g}s",
        )  # fmt: skip

    async def look(self, stage: Stage) -> None:
        """Take note of what `kubectl get ug` says now."""
        self.seen[stage.name] = await stage.kubectl("get", "ug", "--output=wide")
        text = await stage.kubectl("get", "ug", stage.name, "--output=json")
        self.found[stage.name] = json.loads(text)

    async def release(self, stage: Stage) -> None:
        """Delete the guard and wait until it is gone."""
        await stage.kubectl(
            "delete", "ug", stage.name, "--ignore-not-found", "--wait=true", "--timeout=20s"
        )

    async def injects(self, stage: Stage) -> bool:
        """Whether a pod made now would get the gate: a dry run that goes through the webhook."""
        template = variants.deployment(
            Variant.GUARDED, namespace=stage.namespace, name=stage.name, replicas=1, start_delay=0
        )["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            **template,
            "metadata": {**template["metadata"], "name": "would-be"},
        }
        try:
            made = await self._client.create(
                f"/api/v1/namespaces/{stage.namespace}/pods?dryRun=All", pod
            )
        except ApiError:
            return False
        gates = made["spec"].get("readinessGates") or ()
        return any(gate.get("conditionType") == names.GATE for gate in gates)
