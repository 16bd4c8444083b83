"""What the local cluster consists of, as values and texts: addresses, configurations, command lines.

Pure: nothing here touches the machine. The addresses lie in 198.18.0.0/15, which RFC 2544 sets
aside for benchmarks, so they are nobody's real network:

    this machine  198.18.0.1 ── uglab0 ──┐
                                         │ bridge, in the namespace ug-lab-edge (198.18.0.2)
    node i        198.18.0.(10+i) ───────┘ and there also a kube-proxy: the way to Services
    pods          198.18.(100+i).0/24, routed through node i
    Services      198.19.0.0/16, from this machine through ug-lab-edge

Only one interface and its routes lie in the machine's own namespace. Services are reached through a
namespace of their own, not through a node, so that a lost node cuts off its pods and nothing else.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAME = "upstream-guard-lab"
PREFIX = "ug-lab-"
HOST_LINK = "uglab0"
EDGE = f"{PREFIX}edge"
HOST_ADDRESS = "198.18.0.1"
EDGE_ADDRESS = "198.18.0.2"
LAB_RANGE = "198.18.0.0/15"
POD_RANGE = "198.18.64.0/18"
SERVICE_RANGE = "198.19.0.0/16"
CLUSTER_DOMAIN = "cluster.local"
API_SERVICE_ADDRESS = "198.19.0.1"
DNS_ADDRESS = "198.19.0.10"
API_PORT = 6443
CONTROL_PORTS: Mapping[str, int] = {
    "etcd (clients)": 2379,
    "etcd (peers)": 2380,
    "kube-apiserver": API_PORT,
    "kube-controller-manager": 10257,
    "kube-scheduler": 10259,
}
MAX_NODES = 20
PAUSE_IMAGE = "upstreamguard.io/pause:1"
CGROUP = "k8s.io"
"""Parent of every container's cgroup, in each hierarchy: containerd's own default.

It is what containerd uses when the kubelet names no parent, as it does without `cgroupsPerQOS`.
"""
SOCKET_PATH_LIMIT = 107
"""Bytes that Linux allows in a Unix socket's path."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node's names and addresses."""

    index: int
    """From 1."""
    name: str
    netns: str
    link: str
    """Its end of the cable at the bridge."""
    address: str
    pod_cidr: str
    zone: str


def plan_nodes(count: int) -> tuple[NodePlan, ...]:
    """Names and addresses of `count` nodes, in zones a, b, c by turns.

    Raises:
        ValueError: if `count` is not within 1..MAX_NODES.
    """
    if not 1 <= count <= MAX_NODES:
        raise ValueError(f"a lab has 1 to {MAX_NODES} nodes, not {count}")
    return tuple(
        NodePlan(
            index=i,
            name=f"node-{i}",
            netns=f"{PREFIX}node-{i}",
            link=link_name(f"node-{i}"),
            address=f"198.18.0.{10 + i}",
            pod_cidr=f"198.18.{100 + i}.0/24",
            zone=f"zone-{'abc'[(i - 1) % 3]}",
        )
        for i in range(1, count + 1)
    )


def link_name(node_name: str) -> str:
    """The name of a node's cable at the bridge; within the kernel's 15 bytes."""
    return f"ug-{node_name}"


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Where one node keeps its things."""

    root: Path

    @property
    def socket(self) -> Path:
        """The container runtime's socket; outside /run, which the node has for itself."""
        return self.root / "containerd.sock"

    @property
    def containerd_config(self) -> Path:
        """The container runtime's configuration."""
        return self.root / "containerd.toml"

    @property
    def kubelet_config(self) -> Path:
        """The kubelet's configuration."""
        return self.root / "kubelet.yaml"

    @property
    def proxy_config(self) -> Path:
        """kube-proxy's configuration."""
        return self.root / "kube-proxy.yaml"

    @property
    def cni_config(self) -> Path:
        """Folder with the CNI configuration."""
        return self.root / "cni"

    @property
    def script(self) -> Path:
        """The node's first process."""
        return self.root / "init.sh"


def containerd_config(paths: NodePaths, cni_bin: Path, snapshotter: str, runc: Path) -> str:
    """The container runtime's configuration, version 2 of the format (read by containerd 1.6 to 2.x).

    `restrict_oom_score_adj` keeps runc from lowering a score, which needs CAP_SYS_RESOURCE. The
    folders that containerd takes from the machine unless told otherwise (/etc/containerd, /opt,
    /run/containerd) are all moved into the node's own.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = {_toml(paths.root / "containerd")}
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
address = {_toml(paths.socket)}

[plugins."io.containerd.internal.v1.opt"]
path = {_toml(paths.root / "opt")}

[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
enable_selinux = false
disable_apparmor = true
stream_server_address = "127.0.0.1"

[{cri}.cni]
bin_dir = {_toml(cni_bin)}
conf_dir = {_toml(paths.cni_config)}

[{cri}.containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[{cri}.containerd.runtimes.runc.options]
BinaryName = {_toml(runc)}
SystemdCgroup = false
"""


def cni_config(node: NodePlan) -> str:
    """The pod network: a routed cable per pod (`ptp`), no bridge.

    With a bridge, replies between two pods of one node would bypass the node's NAT table unless the
    kernel module br_netfilter is loaded; with routes they cannot.
    """
    ipam = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": node.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": ipam}]
    return json.dumps({"cniVersion": "0.4.0", "name": node.netns, "plugins": plugins}, indent=2)


def kubelet_config(node: NodePlan, paths: NodePaths, pki: Path, max_pods: int) -> str:
    """The kubelet's configuration: no evictions for want of disk, no cgroup tree of its own."""
    return _yaml(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(pki / f"{node.name}.crt"),
            "tlsPrivateKeyFile": str(pki / f"{node.name}.key"),
            "containerRuntimeEndpoint": f"unix://{paths.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "clusterDomain": CLUSTER_DOMAIN,
            "clusterDNS": [DNS_ADDRESS],
            "resolvConf": "/dev/null",
            "maxPods": max_pods,
            "podLogsDir": str(paths.root / "pod-logs"),
            "volumePluginDir": str(paths.root / "volume-plugins"),
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
                "imagefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "healthzPort": 0,
            "readOnlyPort": 0,
        }
    )


def kube_proxy_config(node_name: str, address: str, kubeconfig: Path) -> str:
    """kube-proxy's configuration; masquerades what comes from outside the pods' range."""
    return _yaml(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "bindAddress": address,
            "healthzBindAddress": f"{address}:10256",
            "metricsBindAddress": f"{address}:10249",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "hostnameOverride": node_name,
            "detectLocalMode": "ClusterCIDR",
            "clusterCIDR": POD_RANGE,
            "conntrack": {"maxPerCore": 0},
            "oomScoreAdj": 0,
        }
    )


def audit_policy() -> str:
    """Every write, its metadata only; no reads."""
    return _yaml(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "verbs": ["get", "list", "watch"]},
                {"level": "Metadata"},
            ],
        }
    )


@dataclass(frozen=True, slots=True)
class Component:
    """A program that is started again when it ends."""

    name: str
    """Its log's name."""
    argv: tuple[str, ...]


def control_plane(state_dir: Path, tools: Mapping[str, Path]) -> tuple[Component, ...]:
    """etcd, API server, controller manager and scheduler, on 198.18.0.1 only.

    No leader election: with one of each it would only add writes to the audit log.
    """
    pki = state_dir / "pki"
    kubeconfigs = state_dir / "kubeconfigs"
    etcd_url, peer_url = f"https://{HOST_ADDRESS}:2379", f"http://{HOST_ADDRESS}:2380"
    return (
        Component(
            "etcd",
            (
                str(tools["etcd"]),
                f"--data-dir={state_dir / 'etcd'}",
                "--unsafe-no-fsync",
                "--name=lab",
                f"--listen-client-urls={etcd_url}",
                f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=lab={peer_url}",
                "--client-cert-auth",
                f"--trusted-ca-file={pki / 'ca.crt'}",
                f"--cert-file={pki / 'etcd.crt'}",
                f"--key-file={pki / 'etcd.key'}",
                "--log-level=warn",
            ),
        ),
        Component("kube-apiserver", _apiserver(state_dir, tools["kube-apiserver"], etcd_url)),
        Component(
            "kube-controller-manager",
            (
                str(tools["kube-controller-manager"]),
                f"--kubeconfig={kubeconfigs / 'kube-controller-manager'}",
                f"--bind-address={HOST_ADDRESS}",
                f"--cert-dir={state_dir / 'kube-controller-manager'}",
                f"--service-account-private-key-file={pki / 'service-accounts.key'}",
                f"--root-ca-file={pki / 'ca.crt'}",
                f"--flex-volume-plugin-dir={state_dir / 'volume-plugins'}",
                "--use-service-account-credentials=true",
                "--leader-elect=false",
            ),
        ),
        Component(
            "kube-scheduler",
            (
                str(tools["kube-scheduler"]),
                f"--kubeconfig={kubeconfigs / 'kube-scheduler'}",
                f"--bind-address={HOST_ADDRESS}",
                f"--cert-dir={state_dir / 'kube-scheduler'}",
                "--leader-elect=false",
            ),
        ),
    )


def _apiserver(state_dir: Path, program: Path, etcd_url: str) -> tuple[str, ...]:
    pki = state_dir / "pki"
    return (
        str(program),
        f"--etcd-servers={etcd_url}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'etcd.crt'}",
        f"--etcd-keyfile={pki / 'etcd.key'}",
        f"--bind-address={HOST_ADDRESS}",
        f"--advertise-address={HOST_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--cert-dir={state_dir / 'kube-apiserver'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--audit-policy-file={state_dir / 'audit-policy.yaml'}",
        f"--audit-log-path={state_dir / 'logs' / 'audit.log'}",
        "--audit-log-mode=blocking",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    )


def node_components(
    node: NodePlan, paths: NodePaths, state_dir: Path, tools: Mapping[str, Path]
) -> tuple[Component, ...]:
    """containerd, kubelet and kube-proxy of one node."""
    kubeconfigs = state_dir / "kubeconfigs"
    return (
        Component(f"containerd-{node.name}", ("containerd", f"--config={paths.containerd_config}")),
        Component(
            f"kubelet-{node.name}",
            (
                str(tools["kubelet"]),
                f"--config={paths.kubelet_config}",
                f"--kubeconfig={kubeconfigs / node.name}",
                f"--root-dir={paths.root / 'kubelet'}",
                f"--cert-dir={paths.root / 'kubelet-pki'}",
                f"--hostname-override={node.name}",
                f"--node-ip={node.address}",
                f"--node-labels=topology.kubernetes.io/zone={node.zone}",
            ),
        ),
        proxy_component(node.name, paths.proxy_config, tools),
    )


def proxy_component(name: str, config: Path, tools: Mapping[str, Path]) -> Component:
    """kube-proxy of a node or of the edge."""
    return Component(f"kube-proxy-{name}", (str(tools["kube-proxy"]), f"--config={config}"))


def init_script(
    logs: Path, components: Sequence[Component], setup: Sequence[Sequence[str]] = ()
) -> str:
    """The first process of a PID namespace: sets up, starts everything, reaps, and starts again.

    `wait` without arguments also reaps what was orphaned (containerd's shims). When this process is
    killed the kernel kills the whole namespace, pods included, and drops its mounts.
    """
    lines = [
        "#!/bin/sh",
        "# Written by `upstream-guard lab up`; the first process of a namespace of its own.",
        "set -eu",
        *[shlex.join(command) for command in setup],
        "set +e",
        'keep() { log=$1; shift; while :; do "$@" >>"$log" 2>&1 </dev/null; sleep 0.5; done; }',
        *[
            f"keep {shlex.quote(str(logs / f'{component.name}.log'))} "
            f"{shlex.join(component.argv)} &"
            for component in components
        ],
        "while :; do wait; sleep 1; done",
    ]
    return "\n".join(lines) + "\n"


def node_setup(paths: NodePaths) -> tuple[tuple[str, ...], ...]:
    """Commands that give a node its own /run, /var/log/… and network settings.

    All mounts are made inside the node's mount namespace and vanish with it. The whole tree is made
    shared there, for the kubelet's volumes have to reach containerd's containers.
    """
    return (
        ("mount", "--make-rshared", "/"),
        ("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"),
        ("mount", "--bind", str(paths.root / "var-log"), "/var/log"),
        ("mount", "--bind", str(paths.root / "var-lib-cni"), "/var/lib/cni"),
        *router_setup(),
    )


def router_setup() -> tuple[tuple[str, ...], ...]:
    """Commands that make the present network namespace forward packets."""
    settings = {"ip_forward": 1, "conf/all/rp_filter": 0, "conf/default/rp_filter": 0}
    return tuple(
        ("sh", "-c", f"echo {value} >/proc/sys/net/ipv4/{name}") for name, value in settings.items()
    )


def namespace_command(script: Path) -> tuple[str, ...]:
    """Runs a script as the first process of new PID and mount namespaces.

    `--kill-child` ties the namespace's life to this process's.
    """
    return (
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("--mount", "--propagation", "slave", "sh", str(script)),
    )


def network_commands(nodes: Sequence[NodePlan]) -> tuple[tuple[str, ...], ...]:
    """`ip` command lines that build the network, in order; namespaces exist when they start.

    Where the kernel module br_netfilter is loaded, the bridge itself translates what goes to a ClusterIP;
    what then leads back to this machine (an endpoint that is no pod, as the operator's canaries) leaves by
    the port by which it came, which a bridge does in hairpin mode only.
    """
    commands = [
        *_ip(f"-n {EDGE} link set lo up"),
        *_ip(f"-n {EDGE} link add br0 type bridge"),
        *_ip(f"-n {EDGE} addr add {EDGE_ADDRESS}/24 dev br0"),
        *_ip(f"-n {EDGE} link set br0 up"),
        *_ip(f"link add {HOST_LINK} type veth peer name host netns {EDGE}"),
        *_ip(f"-n {EDGE} link set host master br0 up"),
        *_ip(f"-n {EDGE} link set host type bridge_slave hairpin on"),
        *_ip(f"addr add {HOST_ADDRESS}/24 dev {HOST_LINK}"),
        *_ip(f"link set {HOST_LINK} up"),
        *_ip(f"route add {SERVICE_RANGE} via {EDGE_ADDRESS} dev {HOST_LINK}"),
    ]
    for node in nodes:
        commands += [
            *_ip(f"-n {EDGE} link add {node.link} type veth peer name eth0 netns {node.netns}"),
            *_ip(f"-n {EDGE} link set {node.link} master br0 up"),
            *_ip(f"-n {node.netns} link set lo up"),
            *_ip(f"-n {node.netns} addr add {node.address}/24 dev eth0"),
            *_ip(f"-n {node.netns} link set eth0 up"),
            *_ip(f"-n {node.netns} route add default via {HOST_ADDRESS}"),
            *_ip(f"-n {EDGE} route add {node.pod_cidr} via {node.address}"),
            *_ip(f"route add {node.pod_cidr} via {node.address} dev {HOST_LINK}"),
        ]
    for node in nodes:
        for other in nodes:
            if other is not node:
                commands += _ip(f"-n {node.netns} route add {other.pod_cidr} via {other.address}")
    return tuple(commands)


def _ip(words: str) -> list[tuple[str, ...]]:
    return [("ip", *words.split())]


def _toml(path: Path) -> str:
    return json.dumps(str(path))


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False)
