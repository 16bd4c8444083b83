"""One service on a real cluster, and everything that a scenario may do to it."""

import asyncio
import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from upstream_guard.kube.client import ApiError, KubeClient
from upstream_guard.lab.demo.mirror import Mirror, Objects
from upstream_guard.lab.demo.variants import APP_LABEL, APP_PORT, CONTROL_PORT
from upstream_guard.lab.model import Cluster, LabError, LabNode

Json = dict[str, Any]

SERVE_POLL_SECONDS = 0.25


async def kubectl(cluster: Cluster, *args: str, stdin: str = "", seconds: float = 120.0) -> str:
    """Run kubectl as a user would, and return its output.

    Raises:
        LabError: it failed, with its own words, or took longer than `seconds`.
    """
    process = await asyncio.create_subprocess_exec(
        *cluster.kubectl_command(*args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A session of its own: Ctrl-C must reach us first, for we have to clean up with kubectl.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        raise LabError(f"`kubectl {' '.join(args)}` took longer than {seconds:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    if process.returncode != 0:
        raise LabError(f"`kubectl {' '.join(args)}` failed: {err.decode().strip()}")
    return out.decode()


class Stage:
    """The Deployment and Service `name` in `namespace`, followed while the context is open."""

    def __init__(
        self,
        cluster: Cluster,
        client: KubeClient,
        namespace: str,
        name: str,
        *,
        secured: bool = False,
    ) -> None:
        """Make a stage.

        Args:
            cluster: Where.
            client: Of the cluster.
            namespace: Of the service.
            name: Of Deployment and Service.
            secured: The app's port speaks TLS.
        """
        self._scheme = "https:" if secured else ""
        self.cluster = cluster
        self.client = client
        self.namespace = namespace
        self.name = name
        self.listed: list[tuple[float, int]] = []
        """(Unix time, endpoints listed as ready) after each change of the EndpointSlices."""
        self._pods = Mirror(client, f"/api/v1/namespaces/{namespace}/pods", f"{APP_LABEL}={name}")
        self._slices = Mirror(
            client,
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            f"kubernetes.io/service-name={name}",
            lambda at, objects: self.listed.append((at, count_listed(objects))),
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._pods)
        await self._stack.enter_async_context(self._slices)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def deployment(self) -> str:
        """What kubectl calls the Deployment."""
        return f"deployment/{self.name}"

    async def kubectl(self, *args: str) -> str:
        """Run kubectl in the service's namespace.

        Raises:
            LabError: it failed.
        """
        return await kubectl(self.cluster, "--namespace", self.namespace, *args)

    async def apply(self, *manifests: Json) -> None:
        """`kubectl apply` these manifests."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        await kubectl(self.cluster, "apply", "--filename=-", stdin=text)

    async def delete(self, *manifests: Json) -> None:
        """Delete what these manifests made, without waiting for it to be gone."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        flags = ("--filename=-", "--ignore-not-found", "--wait=false")
        await kubectl(self.cluster, "delete", *flags, stdin=text)

    def pods(self) -> list[Json]:
        """The pods that are not being deleted, by name."""
        living = [p for p in self._pods.objects.values() if not _terminating(p)]
        return sorted(living, key=lambda pod: str(pod["metadata"]["name"]))

    def uids(self) -> frozenset[str]:
        """Of the pods that are not being deleted."""
        return frozenset(pod["metadata"]["uid"] for pod in self.pods())

    def listed_uids(self) -> frozenset[str]:
        """Of the pods whose endpoints are listed as ready now."""
        return frozenset(
            str((endpoint.get("targetRef") or {}).get("uid", ""))
            for endpoint in ready_endpoints(self._slices.objects)
        )

    async def until_gone(self, uids: Iterable[str], seconds: float = 120.0) -> None:
        """Wait until none of these pods is left in the API."""
        old = frozenset(uids)
        await self._pods.until(old.isdisjoint, f"{len(old)} old pods to be gone", seconds)

    async def until_pods(self, number: int, seconds: float = 120.0) -> None:
        """Wait until exactly so many pods are left in the API, those being deleted included."""
        await self._pods.until(
            lambda pods: len(pods) == number, f"{number} pods to be left", seconds
        )

    async def until_restarted(self, pod: Json, seconds: float = 60.0) -> None:
        """Wait until `pod` runs another container than it does now."""
        uid, old = pod["metadata"]["uid"], container_id(pod)
        await self._pods.until(
            lambda pods: uid in pods and container_id(pods[uid]) not in {"", old},
            f"pod {pod['metadata']['name']} to restart",
            seconds,
        )

    async def until_listed(self, number: int, seconds: float = 90.0) -> None:
        """Wait until so many endpoints are listed as ready."""
        await self._slices.until(
            lambda slices: count_listed(slices) == number,
            f"{number} endpoints to be listed for {self.name}",
            seconds,
        )

    async def until_serving(self, number: int, seconds: float = 90.0) -> None:
        """Wait until `number` pods answer and all of them are listed."""
        await self._pods.until(
            lambda _pods: len(self.pods()) == number and all(map(_running, self.pods())),
            f"{number} pods to run",
            seconds,
        )
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*map(self._until_serves, self.pods()))
        except TimeoutError:
            raise LabError(f"waited {seconds:g} s for every pod of {self.name} to serve") from None
        await self.until_listed(number, seconds)

    async def sample_state(self, pod: Json) -> Json:
        """What the sample in `pod` says of itself.

        Raises:
            LabError: it does not answer.
        """
        try:
            return await self.client.get(self._proxy(pod, CONTROL_PORT, "state"))
        except ApiError as error:
            raise LabError(
                f"the sample in pod {pod['metadata']['name']} does not say how it is: {error}"
            ) from error

    async def fault(self, pod: Json, mode: str, seconds: float, delay: float = 0.0) -> None:
        """Tell the sample in `pod` to fail in this way, and to heal by itself after `seconds`.

        Args:
            pod: Which.
            mode: Of the sample.
            seconds: After which it heals by itself; 0 is never.
            delay: Seconds by which `slow` answers late.
        """
        command = f"fault?mode={mode}&seconds={seconds:g}&delay_seconds={delay:g}"
        await self.client.create(self._proxy(pod, CONTROL_PORT, command), {})

    async def crash(self, pod: Json) -> None:
        """Kill the main process of `pod` with SIGKILL, or have it die where we cannot reach it."""
        pids = container_pids(container_id(pod))
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            path = self._proxy(pod, CONTROL_PORT, "crash")
            await kubectl(self.cluster, "create", "--raw", path, "--filename=-", stdin="{}")

    async def clear_pods(self, patience: float = 6.0) -> None:
        """See every pod off, whatever hooks it has: at once, and by force after `patience` s."""
        mine = ("delete", "pod", f"--selector={APP_LABEL}={self.name}", "--wait=false")
        await self.kubectl(*mine, "--grace-period=1")
        try:
            await self.until_pods(0, patience)
        except LabError:
            await self.kubectl(*mine, "--grace-period=0", "--force")
            await self.until_pods(0)

    def node_to_drain(self) -> str:
        """A node with pods of ours, and not the one through which this machine reaches ClusterIPs.

        Raises:
            LabError: the pods are all on one node.
        """
        first = self.cluster.nodes[0].name if self.cluster.nodes else ""
        nodes = {str(pod["spec"].get("nodeName", "")) for pod in self.pods()}
        if len(nodes) < 2:
            raise LabError(
                "the drain needs two nodes: `upstream-guard lab down`, then run the demo again "
                "(it starts two), or use a cluster with two schedulable nodes"
            )
        return max(nodes - {first})

    def node_to_lose(self) -> LabNode:
        """One of three nodes or more with pods of ours; a node whose cable this machine can pull.

        Raises:
            LabError: there is none.
        """
        places = {str(pod["spec"].get("nodeName", "")) for pod in self.pods()}
        found = [node for node in self.cluster.nodes if node.name in places]
        if len(found) < 3:
            raise LabError(
                "a lost node needs the embedded lab with three nodes: `upstream-guard lab down`, then "
                "run the demo again (it starts three)"
            )
        return found[-1]

    async def _until_serves(self, pod: Json) -> None:
        while True:
            try:
                await self.client.get(self._proxy(pod, APP_PORT, "", self._scheme))
            except ApiError:
                await asyncio.sleep(SERVE_POLL_SECONDS)
            else:
                return

    def _proxy(self, pod: Json, port: int, rest: str, scheme: str = "") -> str:
        """The API server's own way to a pod: works wherever the pods' network is."""
        name = pod["metadata"]["name"]
        return f"/api/v1/namespaces/{self.namespace}/pods/{scheme}{name}:{port}/proxy/{rest}"


def count_listed(slices: Objects) -> int:
    """How many distinct endpoints these EndpointSlices list as ready."""
    return len({tuple(endpoint.get("addresses") or ()) for endpoint in ready_endpoints(slices)})


def ready_endpoints(slices: Objects) -> Iterator[Json]:
    """The endpoints that these EndpointSlices list as ready (no value counts as ready)."""
    for item in slices.values():
        for endpoint in item.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                yield endpoint


def container_id(pod: Json) -> str:
    """The ID of the pod's running container, without its runtime's scheme; "" if it has none."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        if "running" in (status.get("state") or {}):
            return str(status.get("containerID", "")).rpartition("//")[2]
    return ""


def container_pids(identity: str, proc: Path = Path("/proc")) -> list[int]:
    """The processes of this machine that live in the container's cgroup; empty where none do."""
    if not identity:
        return []
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                if identity in (entry / "cgroup").read_text(encoding="utf-8"):
                    found.append(int(entry.name))
    return found


def _terminating(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _running(pod: Json) -> bool:
    return bool(container_id(pod))
