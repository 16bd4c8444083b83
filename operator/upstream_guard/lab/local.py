"""The local provider: a real cluster on a bare Linux machine, without an engine or a registry.

Real etcd, API server, controller manager and scheduler; each node is a network, PID and mount
namespace with containerd, kubelet and kube-proxy in it. A node dies, with its pods and mounts, when
its first process does: that makes node losses real and `down` thorough.
"""

import errno
import ipaddress
import json
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from upstream_guard.lab import leftovers, oci, packages, plan, process, tools
from upstream_guard.lab.api import Deadline, LabApi
from upstream_guard.lab.model import (
    CLUSTER_FILE,
    Availability,
    Cluster,
    LabError,
    LabNode,
    LabSpec,
    LabStatus,
    NodeStatus,
    Reporter,
    current_cluster,
)
from upstream_guard.lab.packages import Need
from upstream_guard.lab.pki import Authority, kubeconfig

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
NEEDS = (
    Need("containerd", program="containerd", service="containerd.service"),
    Need("runc", program="runc"),
    Need("containernetworking-plugins", paths=tuple(f"{f}/ptp" for f in CNI_FOLDERS)),
    Need("nftables", program="nft", service="nftables.service"),
    Need("conntrack", program="conntrack"),
    Need("iproute2", program="ip"),
    Need("util-linux", program="unshare"),
)
_API = f"https://{plan.HOST_ADDRESS}:{plan.API_PORT}"
_LOCK = "\0upstream-guard-lab"
_IP_FREEBIND = 15  # linux/in.h; Python has no name for it
_LOCK_DEADLINE = 900.0
_CONTROL_PLANE_DEADLINE = 90.0
_NODES_DEADLINE = 120.0
_USERS = {
    "admin": ("upstream-guard-lab-admin", ("system:masters",)),
    "apiserver-kubelet": ("kube-apiserver-kubelet-client", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kube-proxy": ("system:kube-proxy", ()),
}


class LocalProvider:
    """A cluster made of this machine's own processes. One per machine, for its addresses are fixed."""

    name = "local"

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir

    def detect(self) -> Availability:
        """Linux and root are needed; packages too, but they can be installed."""
        if platform.system() != "Linux":
            return Availability(usable=False, reason="the local cluster needs Linux")
        if os.geteuid() != 0:
            return Availability(
                usable=False,
                reason="the local cluster needs root (namespaces, cgroups)",
                remedy="sudo upstream-guard lab up --provider local",
            )
        wanted = packages.missing(NEEDS)
        if wanted and not packages.can_install():
            names = ", ".join(need.package for need in wanted)
            command = packages.install_command(wanted)
            return Availability(usable=False, reason=f"missing: {names}", remedy=command)
        return Availability(usable=True, reason="Linux, root")

    def up(self, spec: LabSpec, say: Reporter) -> Cluster:
        """Bring the cluster up, or return the one that is.

        Raises:
            LabError: what is missing or in the way, and what to do about it.
        """
        found = self.detect()
        if not found.usable:
            raise LabError("\n".join(filter(None, (found.reason, found.remedy))))
        _check_state_dir(spec.state_dir)
        with _locked(say):
            if present := self._healthy(spec):
                say.note(f"The lab is up already ({len(present.nodes)} nodes).")
                return present
            if other := leftovers.elsewhere(spec.state_dir):
                raise LabError(
                    f"a lab runs on this machine, with its state in {other}, and there can be one only: use it "
                    f"with `--state-dir {other}`, or first `upstream-guard lab down --state-dir {other}`"
                )
            if leftovers.find(spec.state_dir):
                leftovers.remove(spec.state_dir, say)
            packages.ensure_packages(NEEDS, say)
            programs = tools.ensure_tools(PROGRAMS, say)
            pause = pause_archive(say)
            return _start(spec, programs, pause, say)

    def down(self, say: Reporter) -> None:
        """Remove all that `up` made, whole or half made. Nothing there is no error.

        Raises:
            LabError: if something cannot be removed.
        """
        if os.geteuid() != 0:
            raise LabError("the local cluster is root's; run `sudo upstream-guard lab down`")
        with _locked(say):
            if not leftovers.find(self._state_dir):
                say.note("There is no lab; nothing to do.")
                return
            leftovers.remove(self._state_dir, say)

    def present(self) -> bool:
        """Whether there is anything that `down` would remove."""
        return bool(leftovers.find(self._state_dir))

    def status(self) -> LabStatus:
        """What is there now; changes nothing."""
        traces = leftovers.find(self._state_dir)
        cluster = current_cluster(self._state_dir)
        if cluster is None or cluster.provider != self.name:
            detail = "half made, or killed; `lab down` removes it" if traces else "no lab"
            if other := leftovers.elsewhere(self._state_dir):
                detail, traces = f"another one runs, with its state in {other}", ()
            return LabStatus(up=False, provider=self.name, detail=detail, leftovers=traces)
        running = {p.name for p in process.marked()}
        groups = ("control-plane", "edge", *(node.name for node in cluster.nodes))
        names = dict.fromkeys((*groups, *sorted(running)))
        processes = tuple((name, name in running) for name in names)
        nodes, version = _ask(cluster)
        ready = sum(node.ready for node in nodes)
        up = bool(version)
        return LabStatus(
            up=up,
            provider=self.name,
            detail=f"{ready} of {len(cluster.nodes)} nodes ready"
            if up
            else "no API server answers",
            version=version,
            nodes=nodes,
            leftovers=() if up else traces,
            processes=processes,
        )

    def load_image(self, cluster: Cluster, archive: Path, say: Reporter) -> None:
        """Import an archive into every node's containerd.

        Raises:
            LabError: if the archive is missing or no archive.
        """
        names = check_archive(archive)
        with say.step(f"Loading {', '.join(names)} into {len(cluster.nodes)} nodes"):
            imports = [_import(node.containerd_socket, archive) for node in cluster.nodes]
            for node, running in zip(cluster.nodes, imports, strict=True):
                _, words = running.communicate()
                if running.returncode:
                    raise LabError(f"{node.name} did not take {archive}: {words.strip()}")

    def _healthy(self, spec: LabSpec) -> Cluster | None:
        """The present cluster, if it is whole."""
        cluster = current_cluster(spec.state_dir)
        if cluster is None:
            return None
        if cluster.provider != self.name:
            raise LabError(
                f"a lab of the provider {cluster.provider} is up; `upstream-guard lab down` first"
            )
        status = self.status()
        ready = {node.name for node in status.nodes if node.ready}
        if not ready.issuperset(node.name for node in cluster.nodes):
            return None
        if len(cluster.nodes) != spec.nodes:
            raise LabError(
                f"the lab is up with {len(cluster.nodes)} nodes, not {spec.nodes}; "
                "`upstream-guard lab down` first"
            )
        return cluster


def _ask(cluster: Cluster) -> tuple[tuple[NodeStatus, ...], str]:
    """Nodes and version; empty where nobody answers, or the certificates are half removed."""
    try:
        with LabApi(_API, cluster.state_dir / "pki") as api:
            return api.nodes(), api.version()
    except OSError:
        return (), ""


def pause_archive(say: Reporter) -> Path:
    """The sandbox image's archive, built once."""
    source = Path(__file__).parent / "samples" / "pause"
    archive = tools.cache_dir() / "images" / f"pause-{tools.digest(source)}.tar"
    if not archive.exists():
        folder = archive.parent / "build"
        tools.go_build(source, {"pause": "."}, folder, say)
        layer = oci.Layer(files={"/pause": folder / "pause"})
        config = oci.ImageConfig(entrypoint=("/pause",), user="65535:65535")
        oci.write_image_archive(archive, plan.PAUSE_IMAGE, [layer], config)
    return archive


def check_archive(archive: Path) -> tuple[str, ...]:
    """The names of an archive's images.

    Raises:
        LabError: if the file is missing or no image archive.
    """
    try:
        names = oci.image_names(archive)
    except (OSError, ValueError) as error:
        raise LabError(str(error)) from error
    if not names:
        raise LabError(f"{archive} names no image; save it with a tag")
    return names


def _start(spec: LabSpec, programs: dict[str, Path], pause: Path, say: Reporter) -> Cluster:
    nodes = plan.plan_nodes(spec.nodes)
    _check_range()
    _check_ports()
    leftovers.claim(spec.state_dir)
    with say.step("Laying the network"):
        _lay_network(nodes)
    with say.step("Writing certificates and configurations"):
        _write_configuration(spec, nodes)
    with say.step("Starting etcd and the control plane") as step:
        _start_control_plane(spec.state_dir, programs)
        with LabApi(_API, spec.state_dir / "pki") as api:
            deadline = Deadline(_CONTROL_PLANE_DEADLINE)
            while not api.ready():
                step.update(process.log_tail(spec.state_dir, "kube-apiserver", 1)[:80])
                deadline.pause(f"the API server did not serve (logs in {spec.state_dir / 'logs'})")
    with say.step(f"Starting {len(nodes)} nodes") as step:
        for node in nodes:
            _start_node(spec, node, programs)
        _start_edge(spec.state_dir, programs)
        for node in nodes:
            _load_pause(_paths(spec.state_dir, node), pause)
        with LabApi(_API, spec.state_dir / "pki") as api:
            deadline = Deadline(_NODES_DEADLINE)
            while (ready := sum(n.ready for n in api.nodes())) < len(
                nodes
            ) or not api.has_default_account():
                step.update(f"{ready} of {len(nodes)} ready")
                deadline.pause(f"not all nodes became ready (logs in {spec.state_dir / 'logs'})")
    return _write_cluster(spec.state_dir, nodes, programs["kubectl"])


def _check_state_dir(path: Path) -> None:
    hidden = [Path("/run"), Path("/var/run"), Path("/var/log"), Path("/var/lib/cni")]
    if any(path.is_relative_to(folder) for folder in hidden):
        raise LabError(f"the lab's state cannot be in {path}: nodes have their own {path.parent}")
    longest = plan.NodePaths(path / "nodes" / f"node-{plan.MAX_NODES}").socket
    if len(f"{longest}.ttrpc") > plan.SOCKET_PATH_LIMIT:
        raise LabError(f"{path} is too long for a socket's path; choose a shorter --state-dir")


@contextmanager
def _locked(say: Reporter) -> Iterator[None]:
    """One `up` or `down` at a time; a second one waits.

    The lock is a name that the kernel forgets with the process, so no file is left behind.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        if not _take(lock):
            with say.step("Waiting for another `lab up` or `lab down`"):
                deadline = Deadline(_LOCK_DEADLINE)
                while not _take(lock):
                    deadline.pause("another `lab up` or `lab down` did not end")
        yield


def _take(lock: socket.socket) -> bool:
    try:
        lock.bind(_LOCK)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        raise
    return True


def _check_range() -> None:
    """Nobody else may use our addresses."""
    ours = ipaddress.ip_network(plan.LAB_RANGE)
    for route in json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        destination = route.get("dst", "default")
        if destination == "default" or "dev" not in route:
            continue
        if ipaddress.ip_network(destination, strict=False).overlaps(ours):
            raise LabError(
                f"the lab's addresses {plan.LAB_RANGE} are in use: route {destination} on "
                f"{route['dev']}. Remove that route, or use `--provider kind`."
            )


def _lay_network(nodes: Sequence[plan.NodePlan]) -> None:
    for name in (plan.EDGE, *(node.netns for node in nodes)):
        _run("ip", "netns", "add", name)
    for command in plan.network_commands(nodes):
        _run(*command)


def _check_ports() -> None:
    """Programs that listen on every address are in the way even before the lab has its own."""
    for name, port in plan.CONTROL_PORTS.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            try:
                probe.bind((plan.HOST_ADDRESS, port))
            except OSError as error:
                raise LabError(
                    f"port {port}, which {name} needs on {plan.HOST_ADDRESS}, is taken by a "
                    f"program that listens on every address ({error.strerror}); "
                    f"`ss -ltnp sport = :{port}` names it"
                ) from error


def _write_configuration(spec: LabSpec, nodes: Sequence[plan.NodePlan]) -> None:
    state = spec.state_dir
    authority = Authority.create(state / "pki")
    kubeconfigs = state / "kubeconfigs"
    kubeconfigs.mkdir(mode=0o700, exist_ok=True)
    authority.key_pair("service-accounts")
    authority.issue("etcd", "etcd", hosts=[plan.HOST_ADDRESS])
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    addresses = [plan.HOST_ADDRESS, plan.API_SERVICE_ADDRESS, "127.0.0.1"]
    names.append(f"kubernetes.default.svc.{plan.CLUSTER_DOMAIN}")
    authority.issue("apiserver", "kube-apiserver", hosts=[*names, *addresses])
    users = {
        **_USERS,
        **{node.name: (f"system:node:{node.name}", ("system:nodes",)) for node in nodes},
    }
    hosts = {node.name: [node.name, node.address] for node in nodes}
    for name, (user, groups) in users.items():
        pair = authority.issue(name, user, groups, hosts.get(name, ()))
        text = kubeconfig(_API, authority.path, pair, plan.NAME)
        target = state / "kubeconfig" if name == "admin" else kubeconfigs / name
        target.touch(mode=0o600)
        target.write_text(text, encoding="utf-8")
    (state / "audit-policy.yaml").write_text(plan.audit_policy(), encoding="utf-8")
    (state / "logs").mkdir(exist_ok=True)
    for node in nodes:
        _write_node(spec, node)


def _write_node(spec: LabSpec, node: plan.NodePlan) -> None:
    paths = _paths(spec.state_dir, node)
    for folder in ("var-log", "var-lib-cni", "pod-logs", "kubelet", "cni"):
        (paths.root / folder).mkdir(parents=True, exist_ok=True)
    cni_bin = next(Path(f) for f in CNI_FOLDERS if Path(f, "ptp").exists())
    runc = packages.find_program("runc") or Path("runc")
    snapshotter = _snapshotter(spec.state_dir)
    texts = {
        paths.containerd_config: plan.containerd_config(paths, cni_bin, snapshotter, runc),
        paths.cni_config / "10-lab.conflist": plan.cni_config(node),
        paths.kubelet_config: plan.kubelet_config(
            node, paths, spec.state_dir / "pki", spec.max_pods
        ),
        paths.proxy_config: plan.kube_proxy_config(
            node.name, node.address, spec.state_dir / "kubeconfigs" / "kube-proxy"
        ),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def _start_control_plane(state: Path, programs: dict[str, Path]) -> None:
    script = state / "control-plane.sh"
    components = plan.control_plane(state, programs)
    script.write_text(plan.init_script(state / "logs", components), encoding="utf-8")
    process.start(state, "control-plane", plan.namespace_command(script))


def _start_node(spec: LabSpec, node: plan.NodePlan, programs: dict[str, Path]) -> None:
    state, paths = spec.state_dir, _paths(spec.state_dir, node)
    Path("/var/lib/cni").mkdir(exist_ok=True)  # a mount point; `down` removes it if empty
    components = plan.node_components(node, paths, state, programs)
    script = plan.init_script(state / "logs", components, plan.node_setup(paths))
    paths.script.write_text(script, encoding="utf-8")
    process.start(state, node.name, plan.namespace_command(paths.script), netns=node.netns)


def _start_edge(state: Path, programs: dict[str, Path]) -> None:
    """The kube-proxy through which this machine reaches Services."""
    config = state / "edge-kube-proxy.yaml"
    kubeconfig_path = state / "kubeconfigs" / "kube-proxy"
    # It needs the name of a node that exists; it makes no use of it but for node ports.
    config.write_text(
        plan.kube_proxy_config("node-1", plan.EDGE_ADDRESS, kubeconfig_path), encoding="utf-8"
    )
    component = plan.proxy_component("edge", config, programs)
    script = state / "edge.sh"
    script.write_text(
        plan.init_script(state / "logs", [component], plan.router_setup()), encoding="utf-8"
    )
    process.start(state, "edge", plan.namespace_command(script), netns=plan.EDGE)


def _load_pause(paths: plan.NodePaths, archive: Path) -> None:
    deadline = Deadline(30.0)
    while True:
        running = _import(paths.socket, archive) if paths.socket.exists() else None
        words = running.communicate()[1] if running else ""
        if running and running.returncode == 0:
            return
        deadline.pause(f"containerd in {paths.root} took no image ({words.strip()})")


def _import(containerd: Path, archive: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["ctr", f"--address={containerd}", "-n=k8s.io", "images", "import", str(archive)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _write_cluster(state: Path, nodes: Sequence[plan.NodePlan], kubectl: Path) -> Cluster:
    cluster = Cluster(
        name=plan.NAME,
        provider=LocalProvider.name,
        kubeconfig=state / "kubeconfig",
        context=plan.NAME,
        state_dir=state,
        kubectl=kubectl,
        host_address=plan.HOST_ADDRESS,
        nodes=tuple(_lab_node(state, node) for node in nodes),
        service_cidr=plan.SERVICE_RANGE,
    )
    partial = state / f".{CLUSTER_FILE}"
    partial.write_text(cluster.to_json(), encoding="utf-8")
    partial.rename(state / CLUSTER_FILE)
    return cluster


def _lab_node(state: Path, node: plan.NodePlan) -> LabNode:
    paths = _paths(state, node)
    return LabNode(node.name, node.address, node.netns, paths.socket, node.pod_cidr, paths.root)


def _paths(state: Path, node: plan.NodePlan) -> plan.NodePaths:
    return plan.NodePaths(state / "nodes" / node.name)


def _snapshotter(state: Path) -> str:
    """Overlays cannot lie on an overlay, which is what a container's own root is."""
    kind = _run("stat", "--file-system", "--format=%T", str(state)).strip()
    return "native" if kind == "overlayfs" else "overlayfs"


def _run(*argv: str) -> str:
    program = packages.find_program(argv[0]) or shutil.which(argv[0])
    if program is None:
        raise LabError(f"the program {argv[0]} is missing")
    done = subprocess.run([str(program), *argv[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
    return done.stdout
