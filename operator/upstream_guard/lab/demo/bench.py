"""All that the demo stands on, brought up as far as it is not there, and taken down again."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upstream_guard.core import names
from upstream_guard.kube.client import KubeClient
from upstream_guard.lab import nodes, plan, replicas
from upstream_guard.lab.demo.guarding import KubectlGuarding
from upstream_guard.lab.demo.variants import GO, App
from upstream_guard.lab.gateways import GATEWAYS
from upstream_guard.lab.gateways.model import TLS_PORT, Exposure, RunningGateway, ServiceTarget
from upstream_guard.lab.gateways.profile import gateway_profile
from upstream_guard.lab.gateways.support import kubectl
from upstream_guard.lab.images import build_servers_image, build_upstream_image
from upstream_guard.lab.model import (
    Cluster,
    LabError,
    LabSpec,
    Provider,
    Reporter,
    current_cluster,
    default_state_dir,
)
from upstream_guard.lab.providers import choose
from upstream_guard.lab.replicas import Replica

NODES = 2
"""One of them is drained."""
FORGET_SETTING = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close"
FORGET_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Wish:
    """What the demo needs."""

    gateways: Sequence[str]
    guarded: bool
    """Some run is guarded, so the operator is needed."""
    provider: str | None
    context: str | None
    keep: bool
    """Take nothing down at the end."""
    output: Path
    """Folder that gets the operator's logs at the end."""
    nodes: int = NODES
    """How many, where the lab is brought up."""
    apps: Sequence[App] = (GO,)
    operator_flags: Sequence[str] = ()
    """Further flags of `upstream-guard run`."""
    profiled: bool = False
    """Say in a GatewayProfile where the operator reaches each gateway and its metrics. Needs `guarded`."""


@dataclass(slots=True)
class Bench:
    """A cluster with gateways, and the operator where it is needed."""

    cluster: Cluster
    guarded: bool
    statuses: list[str] = field(default_factory=list)
    """`kubectl get ug` at the end of the last guarded run of each service."""
    crew: Sequence[Replica] = ()
    """The operator's processes where the lab runs them, as they are now."""
    profiled: Mapping[str, RunningGateway] = field(default_factory=dict)
    """The gateways of which the operator is told in GatewayProfiles."""
    _exposed: list[tuple[str, ServiceTarget]] = field(default_factory=list)

    def expose(
        self, gateway: str, namespace: str, service: str, port: int = 80, resolver: str = ""
    ) -> Exposure:
        """Put a port of a Service behind a gateway; `clear` takes the route away again."""
        target = ServiceTarget(namespace, service, port, port == TLS_PORT, resolver)
        self._exposed.append((gateway, target))
        exposure = GATEWAYS[gateway].expose(self.cluster, target)
        if gateway in self.profiled:
            text = json.dumps(self._profile(gateway))
            kubectl(self.cluster, "apply", "--server-side", "-f", "-", stdin=text)
        return exposure

    def clear(self) -> None:
        """Take all routes away, and what the operator was told of the gateways."""
        profiles = [self._profile(name) for name in self.profiled if name in dict(self._exposed)]
        for gateway, target in self._exposed:
            GATEWAYS[gateway].unexpose(self.cluster, target)
        self._exposed.clear()
        if profiles:
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": profiles})
            kubectl(self.cluster, "delete", "--ignore-not-found", "-f", "-", stdin=text)

    def _profile(self, gateway: str) -> dict[str, Any]:
        services = [f"{t.namespace}/{t.name}" for name, t in self._exposed if name == gateway]
        return gateway_profile(self.profiled[gateway], services)

    def flush(self) -> None:
        """Make the lab's kernel forget connections to pods that are gone, and reset ones soon.

        Linux remembers a NATed connection for 10 s after the pod has reset it, and sends a new one
        from the same client port to the same pod, though it left the list long ago. One gateway
        address that opens 200 connections a second comes back to a port within 6 s (Linux 6.18,
        which picks ports at random), so the lab remembers resets for one second only.
        """
        nodes.flush_conntrack(self.cluster)
        if self.cluster.provider == "local":
            command = f"echo {FORGET_SECONDS} > {FORGET_SETTING}"
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{plan.EDGE}", "sh", "-c", command],
                capture_output=True, check=False, timeout=20,
            )  # fmt: skip

    def forget(self, addresses: Iterable[str]) -> None:
        """As `flush`, of connections to these pods only, so that other runs go on undisturbed."""
        nodes.forget_pods(self.cluster, addresses)

    @asynccontextmanager
    async def guarding(self, client: KubeClient) -> AsyncIterator[KubectlGuarding | None]:
        """Something that guards services, and afterwards what it saw; None if nothing is guarded."""
        if not self.guarded:
            yield None
            return
        guarding = KubectlGuarding(client)
        yield guarding
        self.statuses.extend(guarding.seen.values())


@contextmanager
def open_bench(wish: Wish, say: Reporter, state_dir: Path | None = None) -> Iterator[Bench]:
    """Bring up what is missing, and on leaving take down what was brought up (unless `keep`).

    Raises:
        LabError: something cannot be brought up; the message says what to do.
    """
    folder = state_dir or default_state_dir()
    with ExitStack() as stack:
        cluster = _cluster(wish, folder, say, stack)
        running = {}
        for name in wish.gateways:
            gateway = GATEWAYS[name]
            started = not gateway.status(cluster).up
            running[name] = gateway.up(cluster, say)
            if started and not wish.keep:
                stack.callback(gateway.down, cluster, say)
        crew = _operator(cluster, wish, say, stack) if wish.guarded else ()
        profiled = running if wish.profiled else {}
        bench = Bench(cluster, wish.guarded, crew=crew, profiled=profiled)
        if not wish.keep:
            stack.callback(bench.clear)
        yield bench


def _cluster(wish: Wish, folder: Path, say: Reporter, stack: ExitStack) -> Cluster:
    provider = choose(wish.provider, folder)
    present = current_cluster(folder)
    if present is not None and not _is_wanted(present, provider, wish):
        raise LabError(
            f"the lab {present.name} ({present.provider}) is up, and another was asked for; "
            "use it without --provider and --context, or `upstream-guard lab down` first"
        )
    if present is not None and provider.status().up:
        say.note(f"Using the lab that is up ({present.provider}, {len(present.nodes)} nodes).")
        cluster = present
    else:
        if not wish.keep:
            stack.callback(provider.down, say)
        cluster = provider.up(LabSpec(folder, nodes=wish.nodes, context=wish.context), say)
    for archive in _images(wish.apps, say):
        _load_image(provider, cluster, archive, say)
    return cluster


def _is_wanted(present: Cluster, provider: Provider, wish: Wish) -> bool:
    same_context = wish.context is None or wish.context == present.context
    return present.provider == provider.name and same_context


def _images(apps: Sequence[App], say: Reporter) -> list[Path]:
    """Archives of the images that these apps are in."""
    makers = {GO.image: build_upstream_image}
    images = dict.fromkeys(app.image for app in apps)
    return [makers.get(image, build_servers_image)(say) for image in images]


def _load_image(provider: Provider, cluster: Cluster, archive: Path, say: Reporter) -> None:
    if provider.name == "existing":
        say.note(f"The demo's image has to be on your nodes already; it is in {archive}")
        return
    provider.load_image(cluster, archive, say)


def _operator(cluster: Cluster, wish: Wish, say: Reporter, stack: ExitStack) -> Sequence[Replica]:
    """The processes that were started; none where somebody else's operator runs."""
    if holder := replicas.running_elsewhere(cluster):
        say.note(f"Using the operator that runs ({holder}).")
        return ()
    fresh = not _has_crds(cluster)
    replicas.install(cluster, say)
    if fresh and not wish.keep and cluster.provider == "existing":
        stack.callback(replicas.uninstall, cluster, say)
    logs: list[Path] = []
    stack.callback(_save_logs, logs, wish.output, say)  # called when they have ended
    running = stack.enter_context(replicas.operator(cluster, say, extra=wish.operator_flags))
    logs.extend(replica.log for replica in running)
    return running


def _save_logs(logs: Sequence[Path], folder: Path, say: Reporter) -> None:
    """Copy the logs, for the lab's own folder goes with the lab."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in logs:
        shutil.copyfile(log, folder / log.name)
    if logs:
        say.note(f"The operator's logs: {', '.join(str(folder / log.name) for log in logs)}")


def _has_crds(cluster: Cluster) -> bool:
    done = subprocess.run(
        cluster.kubectl_command(
            "get", "crd", f"{names.GUARD_PLURAL}.{names.GROUP}", "--ignore-not-found", "-o", "json"
        ),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return bool(done.stdout.strip() and json.loads(done.stdout))
