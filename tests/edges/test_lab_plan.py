"""The local cluster as values and texts: addresses, configurations, command lines."""

import ipaddress
import json
import os
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from upstream_guard.lab import local, plan

STATE = Path("/var/lib/upstream-guard-lab")
TOOLS = {name: Path("/tools") / name for name in local.PROGRAMS}
NODE = plan.plan_nodes(2)[1]
PATHS = plan.NodePaths(STATE / "nodes" / NODE.name)


@given(st.integers(1, plan.MAX_NODES))
def test_addresses_never_overlap(count: int) -> None:
    nodes = plan.plan_nodes(count)
    pods = [ipaddress.ip_network(node.pod_cidr) for node in nodes]
    link = ipaddress.ip_network("198.18.0.0/24")
    taken = [plan.HOST_ADDRESS, plan.EDGE_ADDRESS, *(node.address for node in nodes)]
    assert len(set(taken)) == len(taken)
    assert all(ipaddress.ip_address(address) in link for address in taken)
    networks = [*pods, link, ipaddress.ip_network(plan.SERVICE_RANGE)]
    for i, first in enumerate(networks):
        assert first.subnet_of(ipaddress.ip_network(plan.LAB_RANGE))
        assert not any(first.overlaps(other) for other in networks[i + 1 :])
    assert all(network.subnet_of(ipaddress.ip_network(plan.POD_RANGE)) for network in pods)


@given(st.integers(1, plan.MAX_NODES))
def test_every_name_is_ours_and_fits_the_kernel(count: int) -> None:
    nodes = plan.plan_nodes(count)
    assert all(node.netns.startswith(plan.PREFIX) for node in nodes)
    links = [plan.HOST_LINK, *(node.link for node in nodes)]
    assert len(set(links)) == len(links)
    assert all(len(link) <= 15 for link in links)


@pytest.mark.parametrize("count", [-1, 0, plan.MAX_NODES + 1])
def test_impossible_numbers_of_nodes_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=str(count)):
        plan.plan_nodes(count)


def test_nodes_are_spread_over_zones() -> None:
    assert [n.zone for n in plan.plan_nodes(4)] == ["zone-a", "zone-b", "zone-c", "zone-a"]


def test_only_one_link_lies_in_the_machines_own_namespace() -> None:
    own = [c for c in plan.network_commands(plan.plan_nodes(3)) if c[1] != "-n"]
    assert {word for c in own for word in c if c[1:3] == ("link", "add")} >= {plan.HOST_LINK}
    assert sum(c[1:3] == ("link", "add") for c in own) == 1
    routes = [c for c in own if c[1] == "route"]
    assert len(routes) == 4
    assert all(c[-2:] == ("dev", plan.HOST_LINK) for c in routes)


def test_what_a_cluster_ip_leads_back_to_this_machine_may_leave_by_its_own_port() -> None:
    commands = [" ".join(command) for command in plan.network_commands(plan.plan_nodes(2))]
    joined = commands.index(f"ip -n {plan.EDGE} link set host master br0 up")
    assert f"ip -n {plan.EDGE} link set host type bridge_slave hairpin on" in commands[joined:]


def test_each_node_knows_the_way_to_every_other_nodes_pods() -> None:
    nodes = plan.plan_nodes(3)
    commands = set(plan.network_commands(nodes))
    for node in nodes:
        for other in nodes:
            way = ("route", "add", other.pod_cidr, "via", other.address)
            assert (("ip", "-n", node.netns, *way) in commands) is (node is not other)


def test_containerd_keeps_to_its_own_folders() -> None:
    text = plan.containerd_config(PATHS, Path("/usr/lib/cni"), "overlayfs", Path("/usr/sbin/runc"))
    config = tomllib.loads(text)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert config["root"].startswith(str(PATHS.root))
    assert config["grpc"]["address"] == str(PATHS.socket)
    assert cri["restrict_oom_score_adj"] is True
    assert cri["sandbox_image"] == plan.PAUSE_IMAGE
    assert cri["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False
    assert "/etc/containerd" not in text
    assert "/opt/containerd" not in text


def test_paths_with_quotes_stay_valid_toml() -> None:
    paths = plan.NodePaths(Path('/tmp/a "lab"'))
    text = plan.containerd_config(paths, Path("/opt/cni/bin"), "native", Path("/usr/bin/runc"))
    assert tomllib.loads(text)["grpc"]["address"] == str(paths.socket)


def test_the_pod_network_is_the_nodes_own() -> None:
    config = json.loads(plan.cni_config(NODE))
    ipam = config["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": NODE.pod_cidr}]]


def test_the_kubelet_evicts_nothing_and_takes_as_many_pods_as_asked() -> None:
    config = yaml.safe_load(plan.kubelet_config(NODE, PATHS, STATE / "pki", max_pods=40))
    assert config["maxPods"] == 40
    assert set(config["evictionHard"].values()) == {"0%"}
    assert config["containerRuntimeEndpoint"] == f"unix://{PATHS.socket}"
    assert config["authentication"]["anonymous"]["enabled"] is False


def test_kube_proxy_masquerades_what_is_no_pod() -> None:
    config = yaml.safe_load(plan.kube_proxy_config(NODE.name, NODE.address, STATE / "k"))
    assert (config["mode"], config["clusterCIDR"]) == ("nftables", plan.POD_RANGE)
    assert config["detectLocalMode"] == "ClusterCIDR"


def test_the_control_plane_listens_on_the_labs_address_only() -> None:
    flags = [flag for c in plan.control_plane(STATE, TOOLS) for flag in c.argv]
    listening = [f for f in flags if f.startswith(("--bind-address", "--listen-"))]
    assert len(listening) == 5
    assert all(plan.HOST_ADDRESS in flag for flag in listening)
    assert not any("0.0.0.0" in flag for flag in flags)


def test_the_audit_log_holds_writes_only() -> None:
    rules = yaml.safe_load(plan.audit_policy())["rules"]
    assert rules[0] == {"level": "None", "verbs": ["get", "list", "watch"]}
    assert rules[-1] == {"level": "Metadata"}


def test_the_first_process_restarts_what_ends(tmp_path: Path) -> None:
    once = plan.Component("once", ("sh", "-c", "echo run; exit 1"))
    script = tmp_path / "init.sh"
    setup = [("touch", str(tmp_path / "it's set up"))]
    script.write_text(plan.init_script(tmp_path, [once], setup))
    log = tmp_path / "once.log"
    deadline = time.monotonic() + 10
    with subprocess.Popen(["sh", str(script)], start_new_session=True) as init:
        try:
            while not log.exists() or log.read_text().count("run") < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            os.killpg(init.pid, signal.SIGKILL)
    assert (tmp_path / "it's set up").exists()


def test_the_first_process_stops_if_its_setup_fails(tmp_path: Path) -> None:
    script = tmp_path / "init.sh"
    script.write_text(plan.init_script(tmp_path, [plan.Component("c", ("true",))], [("false",)]))
    done = subprocess.run(["sh", str(script)], check=False, timeout=5)
    assert done.returncode != 0
    assert not (tmp_path / "c.log").exists()
