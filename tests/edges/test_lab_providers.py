"""Choosing a provider, kind's command lines, and what people are told when something is missing."""

import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from upstream_guard.cli.lab import _install_prometheus, command
from upstream_guard.lab import (
    kind,
    leftovers,
    local,
    packages,
    plan,
    process,
    prometheus,
    providers,
)
from upstream_guard.lab.existing import ExistingProvider
from upstream_guard.lab.kind import KindProvider
from upstream_guard.lab.local import _check_ports, _check_state_dir
from upstream_guard.lab.model import (
    CLUSTER_FILE,
    Availability,
    Cluster,
    LabError,
    LabNode,
    LabSpec,
    current_cluster,
)
from upstream_guard.lab.packages import Need
from upstream_guard.lab.report import QuietReporter


class FakeEngine:
    """Answers command lines by their first words."""

    def __init__(self, answers: Mapping[tuple[str, ...], tuple[int, str]]) -> None:
        self.answers = answers
        self.ran: list[tuple[list[str], dict[str, str]]] = []

    def __call__(
        self, argv: Sequence[str], env: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        self.ran.append((list(argv), dict(env)))
        words = [Path(argv[0]).name, *argv[1:]]
        for start, (code, out) in self.answers.items():
            if tuple(words[: len(start)]) == start:
                return subprocess.CompletedProcess(list(argv), code, out, "it broke")
        return subprocess.CompletedProcess(list(argv), 127, "", "unknown")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH with podman, kind and kubectl that do nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("podman", "kind", "kubectl"):
        (folder / name).write_text("#!/bin/sh\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


NETWORK = json.dumps([{"IPAM": {"Config": [{"Gateway": "fc00::1"}, {"Gateway": "172.18.0.1"}]}}])


def test_kind_up_creates_a_cluster_with_the_engine_that_answers(
    programs: Path, tmp_path: Path
) -> None:
    engine = FakeEngine(
        {("podman", "info"): (0, ""), ("podman", "network"): (0, NETWORK), ("kind",): (0, "")}
    )
    state = tmp_path / "state"
    cluster = KindProvider(state, engine).up(LabSpec(state, nodes=2), QuietReporter())

    assert (cluster.context, cluster.host_address) == ("kind-upstream-guard-lab", "172.18.0.1")
    assert current_cluster(state) == cluster
    [created] = [(argv, env) for argv, env in engine.ran if "create" in argv]
    assert created[0][1:3] == ["create", "cluster"]
    assert f"--kubeconfig={state / 'kubeconfig'}" in created[0]
    assert created[1] == {"KIND_EXPERIMENTAL_PROVIDER": "podman"}


def test_kind_says_what_failed(programs: Path, tmp_path: Path) -> None:
    engine = FakeEngine({("podman", "info"): (0, ""), ("kind", "delete"): (0, "")})
    with pytest.raises(LabError, match=r"create cluster(.|\n)*unknown"):
        KindProvider(tmp_path, engine).up(LabSpec(tmp_path), QuietReporter())
    assert current_cluster(tmp_path) is None


def test_kind_without_an_engine_says_so(programs: Path, tmp_path: Path) -> None:
    provider = KindProvider(tmp_path, FakeEngine({}))
    assert not provider.detect().usable
    with pytest.raises(LabError, match="none answers"):
        provider.up(LabSpec(tmp_path), QuietReporter())


@pytest.mark.parametrize(("nodes", "roles"), [(1, 1), (2, 3), (3, 4)])
def test_kind_has_as_many_nodes_for_pods_as_asked(nodes: int, roles: int) -> None:
    config = yaml.safe_load(kind.config(LabSpec(Path("/s"), nodes=nodes, max_pods=77)))
    assert len(config["nodes"]) == roles
    assert yaml.safe_load(config["kubeadmConfigPatches"][0])["maxPods"] == 77
    zones = [n["labels"]["topology.kubernetes.io/zone"] for n in config["nodes"][1:]]
    assert zones == ["zone-a", "zone-b", "zone-c"][: len(zones)]


def test_kind_command_lines_name_the_cluster() -> None:
    commands = [
        kind.create_command(Path("kind"), Path("c"), Path("k")),
        kind.delete_command(Path("kind"), Path("k")),
        kind.load_command(Path("kind"), Path("i.tar")),
    ]
    assert all("--name=upstream-guard-lab" in argv for argv in commands)


@pytest.mark.parametrize(
    ("answer", "address"),
    [
        (NETWORK, "172.18.0.1"),
        ('[{"subnets": [{"gateway": "10.89.0.1"}]}]', "10.89.0.1"),
        ("[]", ""),
        ("Error: no such network", ""),
    ],
)
def test_the_machines_address_in_the_engines_network(answer: str, address: str) -> None:
    assert kind.gateway_address(answer) == address


def test_an_existing_cluster_has_to_be_named(tmp_path: Path) -> None:
    provider = ExistingProvider(tmp_path)
    assert not provider.detect().usable
    with pytest.raises(LabError, match="--context NAME"):
        provider.up(LabSpec(tmp_path), QuietReporter())


class Never:
    """A provider that cannot work here."""

    def __init__(self, state_dir: Path) -> None:
        del state_dir

    def detect(self) -> Availability:
        return Availability(usable=False, reason="no such thing", remedy="buy one")


def test_nothing_is_chosen_where_nothing_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = {"kind": Never, "local": Never, "existing": ExistingProvider}
    monkeypatch.setattr(providers, "PROVIDERS", table)
    with pytest.raises(LabError, match=r"kind: no such thing\n\s+buy one\n\s+local: no such"):
        providers.choose(None, tmp_path)


CLUSTER = Cluster(
    name="lab",
    provider="existing",
    kubeconfig=Path("/k"),
    context="c",
    state_dir=Path("/s"),
    kubectl=Path("/usr/bin/kubectl"),
    host_address="",
    nodes=(LabNode("n", "198.18.0.11", "ns", Path("/c.sock"), "198.18.101.0/24", Path("/r")),),
    service_cidr="",
)


def test_a_cluster_survives_its_file(tmp_path: Path) -> None:
    (tmp_path / CLUSTER_FILE).write_text(CLUSTER.to_json())
    assert current_cluster(tmp_path) == CLUSTER
    assert isinstance(providers.choose(None, tmp_path), ExistingProvider)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nodes": [{}]}', "no JSON"])
def test_a_broken_state_file_is_said_plainly(text: str, tmp_path: Path) -> None:
    (tmp_path / CLUSTER_FILE).write_text(text)
    with pytest.raises(LabError, match="lab down"):
        current_cluster(tmp_path)


def test_down_looks_no_further_than_the_lab_whose_state_it_was_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A local lab is found by name anywhere on the machine; it must survive another's `down`."""
    (tmp_path / CLUSTER_FILE).write_text(CLUSTER.to_json())
    monkeypatch.setitem(providers.PROVIDERS, "local", Never)  # type: ignore[index]
    providers.remove(None, tmp_path, QuietReporter())
    assert current_cluster(tmp_path) is None


def test_an_existing_clusters_down_leaves_another_providers_lab_alone(tmp_path: Path) -> None:
    (tmp_path / CLUSTER_FILE).write_text(replace(CLUSTER, provider="local").to_json())
    with pytest.raises(LabError, match="without --provider"):
        ExistingProvider(tmp_path).down(QuietReporter())
    assert current_cluster(tmp_path) is not None


def test_a_broken_state_file_does_not_hinder_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(providers, "PROVIDERS", {"existing": ExistingProvider})
    (tmp_path / CLUSTER_FILE).write_text("no JSON")
    providers.remove(None, tmp_path, QuietReporter())
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_port_is_named() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "CONTROL_PORTS", {"kube-apiserver": port})
            with pytest.raises(LabError, match=f"port {port}, which kube-apiserver needs"):
                _check_ports()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CONTROL_PORTS", {"kube-apiserver": port})
        _check_ports()


def test_a_second_up_waits_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"\0upstream-guard-test-{os.getpid()}"
    monkeypatch.setattr(local, "_LOCK", name)
    monkeypatch.setattr(local, "_LOCK_DEADLINE", 0.2)
    say = QuietReporter()
    with local._locked(say):
        assert say.said == []
        with pytest.raises(LabError, match="did not end"), local._locked(say):
            pytest.fail("two at a time")
    assert say.said == ["Waiting for another `lab up` or `lab down`"]
    with local._locked(say):
        pass


@pytest.mark.parametrize(
    ("route", "refused"),
    [
        ({"dst": "default", "dev": "eth0"}, False),
        ({"dst": "10.0.0.0/8", "dev": "eth0"}, False),
        ({"dst": "198.18.7.0/24", "dev": "tun0"}, True),
        ({"type": "local", "dst": "198.19.3.4", "dev": "dummy0"}, True),
        ({"dst": "198.16.0.0/12", "dev": "vpn0"}, True),
    ],
)
def test_addresses_in_use_are_refused(
    route: dict[str, str], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_run", lambda *_: json.dumps([route]))
    if refused:
        with pytest.raises(LabError, match=route["dev"]):
            local._check_range()
    else:
        local._check_range()


NEEDS = (Need("nothing-such", program="no-such-program"), Need("coreutils", program="ls"))


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "can_install", lambda: False)
    with pytest.raises(LabError) as told:
        packages.ensure_packages(NEEDS, QuietReporter())
    assert "missing on this machine: nothing-such\n" in str(told.value)
    assert "--no-install-recommends -y nothing-such" in str(told.value)
    assert "coreutils" not in str(told.value)


def test_nothing_is_installed_where_nothing_is_missing() -> None:
    say = QuietReporter()
    packages.ensure_packages(NEEDS[1:], say)
    assert say.said == []


def test_a_build_goes_on_where_prometheus_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "NEEDS", NEEDS)
    monkeypatch.setattr(packages, "can_install", lambda: False)
    say = QuietReporter()
    _install_prometheus(say)
    (note,) = say.said
    assert "Alerts and dashboard are not tested here" in note
    assert "missing on this machine: nothing-such" in note


def test_a_policy_file_left_by_a_kill_is_removed_and_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", policy)
    policy.write_text("#!/bin/sh\nexit 101\n")
    packages.remove_held_policy()
    assert policy.exists()
    policy.write_text(f"#!/bin/sh\n{packages._POLICY_MARK}\n")
    packages.remove_held_policy()
    assert not policy.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the local cluster is root's")
def test_a_lab_that_runs_elsewhere_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    monkeypatch.setattr(leftovers, "POINTER", tmp_path / "pointer")
    leftovers.POINTER.write_text(f"{theirs}\n", encoding="utf-8")
    monkeypatch.setattr(local.packages, "missing", lambda _needs: ())
    provider = local.LocalProvider(ours)
    process.start(theirs, "etcd", ["sleep", "60"])
    try:
        status = provider.status()
        assert (status.up, status.leftovers) == (False, ())
        assert str(theirs) in status.detail
        with pytest.raises(LabError, match=f"`upstream-guard lab down --state-dir {theirs}`"):
            provider.up(LabSpec(ours, nodes=1), QuietReporter())
        assert [p.name for p in process.marked() if p.state_dir == theirs] == ["etcd"]
    finally:
        process.kill_all([p for p in process.marked() if p.state_dir == theirs])
    assert leftovers.elsewhere(ours) is None


def test_a_folder_with_other_things_in_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leftovers, "POINTER", tmp_path / "pointer")
    precious = tmp_path / "home" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("important")
    with pytest.raises(LabError, match="not a lab's"):
        leftovers.claim(precious.parent)
    leftovers._remove_state(precious.parent)
    assert precious.read_text() == "important"


def test_only_cgroups_without_a_process_are_left_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process of another PID namespace is listed as 0, or only counted."""
    monkeypatch.setattr(leftovers, "_CGROUPS", tmp_path)
    pids = {"mine": "7\n8\n", "others": "0\n0\n", "hidden": "", "left": ""}
    for hierarchy in ("cpu", "pids"):
        for name, text in pids.items():
            folder = tmp_path / hierarchy / "k8s.io" / name
            folder.mkdir(parents=True)
            (folder / "cgroup.procs").write_text(text)
            if hierarchy == "pids":
                (folder / "pids.current").write_text("0\n" if name == "left" else "2\n")
    parents = (tmp_path / "cpu" / "k8s.io", tmp_path / "pids" / "k8s.io")
    assert set(leftovers._cgroups()) == {parent / "left" for parent in parents}
    assert leftovers.cgroup_pids("mine") == (7, 8)


@pytest.mark.parametrize("path", ["/run/lab", "/var/log/lab", "/srv/" + "x" * 80])
def test_impossible_state_folders_are_refused(path: str) -> None:
    with pytest.raises(LabError):
        _check_state_dir(Path(path))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["kubeconfig"], "lab up"),
        (["load-image", "x.tar"], "lab up"),
        (["logs"], "is the lab up"),
        (["up", "--gateway", "nonsense"], "no gateway nonsense"),
        (["up", "--provider", "existing"], "--context NAME"),
    ],
)
def test_the_command_line_tells_what_to_do(words: list[str], told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [*words, "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert told in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("words", [["up", "--nodes", "0"], ["up", "--provider", "x"], ["nope"]])
def test_bad_usage_is_exit_code_2(words: list[str]) -> None:
    assert CliRunner().invoke(command, words).exit_code == 2


def test_status_as_json(tmp_path: Path) -> None:
    words = ["status", "--provider", "existing", "--json", "--state-dir", str(tmp_path)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 1
    assert json.loads(result.output)["up"] is False


def test_logs_are_listed_and_printed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "etcd.log").write_text("a\nb\n")
    run = CliRunner().invoke
    assert run(command, ["logs", "--state-dir", str(tmp_path)]).output == "etcd\n"
    missing = run(command, ["logs", "nope", "--state-dir", str(tmp_path)])
    assert "there are:\n  etcd" in missing.output
