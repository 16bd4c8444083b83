"""Envoy Gateway in the lab: what is made for it, and what its Envoy is told."""

from pathlib import Path

import pytest
import yaml

from upstream_guard.lab import plan
from upstream_guard.lab.gateways import ServiceTarget, envoy_gateway
from upstream_guard.lab.model import Cluster, LabError
from upstream_guard.lab.report import QuietReporter

SHOP = ServiceTarget("prod", "shop", 80)


class TestEnvoyGateway:
    def test_gets_a_route_of_its_gateway(self) -> None:
        spec = envoy_gateway.http_route(SHOP)["spec"]
        (parent,) = spec["parentRefs"]
        assert spec["hostnames"] == ["shop.prod.test"]
        assert spec["rules"] == [{"backendRefs": [{"name": "shop", "port": 80}]}]
        made = envoy_gateway.manifests(envoy_gateway.issue(self.folder))
        (gateway,) = [m["metadata"] for m in made if m["kind"] == "Gateway"]
        assert parent == {"name": gateway["name"], "namespace": gateway["namespace"]}

    def test_makes_no_pods_of_envoy_and_asks_for_the_configuration_of_one(self) -> None:
        certificates = envoy_gateway.issue(self.folder)
        made = envoy_gateway.manifests(certificates)
        (proxy,) = [m["spec"] for m in made if m["kind"] == "EnvoyProxy"]
        assert proxy["provider"]["kubernetes"]["envoyDeployment"] == {"replicas": 0}
        command = envoy_gateway.envoy_command(Path("/envoy"), self.folder)
        # The controller keeps configurations by the Gateway's namespace and name.
        assert command[command.index("--service-cluster") + 1] == "envoy-gateway-system/lab"
        document = envoy_gateway.bootstrap("198.19.0.9", certificates)
        (cluster,) = document["static_resources"]["clusters"]
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        where = endpoint["endpoint"]["address"]["socket_address"]
        assert where == {"address": "198.19.0.9", "port_value": 18000}

    def test_keeps_its_certificates_for_the_controller_that_runs(self) -> None:
        first = envoy_gateway.issue(self.folder)
        text = first.client.certificate.read_bytes()
        assert envoy_gateway.issue(self.folder) == first
        assert first.client.certificate.read_bytes() == text
        first.client.key.unlink()
        envoy_gateway.issue(self.folder)
        assert first.client.certificate.read_bytes() != text

    def test_listens_where_only_the_lab_gets(self) -> None:
        document = envoy_gateway.bootstrap("198.19.0.9", envoy_gateway.issue(self.folder))
        admin = document["admin"]["address"]["socket_address"]
        assert admin["address"] == plan.EDGE_ADDRESS

    def test_puts_our_envoy_in_the_place_of_pods(self) -> None:
        service = {
            "metadata": {"name": "envoy-lab-1a2b"},
            "spec": {"ports": [{"name": "http-8680", "port": 8680}]},
        }
        made = envoy_gateway.endpoint_slice(service)
        assert made["metadata"]["labels"]["kubernetes.io/service-name"] == "envoy-lab-1a2b"
        assert made["endpoints"][0]["addresses"] == [plan.EDGE_ADDRESS]
        assert made["ports"] == [{"name": "http-8680", "port": 8680}]

    def test_takes_definitions_out_of_a_chart(self) -> None:
        text = "{{- if .Values.crds.envoyGateway.enabled }}\n---\nkind: CustomResourceDefinition\nmetadata: {name: backends.gateway.envoyproxy.io}\n---\nkind: ValidatingAdmissionPolicy\n{{- end }}"
        found = list(yaml.safe_load_all(envoy_gateway.definitions(text)))
        assert [document["metadata"]["name"] for document in found] == [
            "backends.gateway.envoyproxy.io"
        ]
        assert envoy_gateway.definitions("kind: ConfigMap") == ""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def test_is_refused_where_pods_cannot_be_reached(self) -> None:
        cluster = Cluster(
            name="lab",
            provider="kind",
            kubeconfig=self.folder / "kubeconfig",
            context="lab",
            state_dir=self.folder,
            kubectl=self.folder / "kubectl",
            host_address="",
            nodes=(),
            service_cidr="10.96.0.0/16",
        )
        with pytest.raises(LabError, match="--provider local"):
            envoy_gateway.ADDON.up(cluster, QuietReporter())
