"""Envoy Gateway: its controller in a pod, its Envoy on this machine, which goes to pods directly.

The controller reads Gateways, HTTPRoutes and EndpointSlices as in any cluster. It would start Envoy as
pods too, whose images and name service a lab without a registry does not have; so it is told to make
none, and an Envoy of this machine asks it for its configuration instead, as that Gateway's proxy. That
Envoy listens on every address of its network namespace (the product leaves no choice), so it gets
the lab's edge, which only the lab's own networks reach.
"""

import base64
import contextlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from upstream_guard.lab import plan, tools
from upstream_guard.lab.gateways import envoy, support
from upstream_guard.lab.gateways.model import (
    Exposure,
    GatewayStatus,
    RunningGateway,
    ServiceTarget,
)
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster, LabError, Reporter
from upstream_guard.lab.oci import ImageConfig, Layer, write_image_archive
from upstream_guard.lab.packages import Need
from upstream_guard.lab.pki import Authority, KeyPair

Json = dict[str, Any]

NAME: Final = "envoy-gateway"
NAMESPACE: Final = "envoy-gateway-system"
CONTROLLER: Final = "gateway.envoyproxy.io/gatewayclass-controller"
CLASS: Final = "envoy-gateway"
GATEWAY: Final = "lab"
HTTP_PORT: Final = 8680
ADMIN_PORT: Final = 9680
XDS_PORT: Final = 18000
UNROUTED: Final = 404
"""What Envoy answers to a host that it does not know; without any route it does not listen."""
MANAGED: Final = {"app.kubernetes.io/managed-by": "upstream-guard-lab"}
READY_SECONDS: Final = 120.0
_STATE_FILE: Final = "gateway.json"
_ENVOY: Final = f"{NAME}-envoy"
_CRD_MODULES: Final = (
    ("sigs.k8s.io/gateway-api", "config/crd/standard"),
    ("github.com/envoyproxy/gateway", "charts/gateway-crds-helm/templates/generated"),
)


@dataclass(frozen=True, slots=True)
class EnvoyGateway:
    """The gateway."""

    name: str = NAME
    title: str = "Envoy Gateway, to pods"

    def needs(self) -> tuple[Need, ...]:
        """Nothing: it is built from its Go module, Envoy comes from PyPI."""
        return ()

    def up(self, cluster: Cluster, say: Reporter) -> RunningGateway:
        """Start the controller and Envoy, or return the gateway that runs.

        Raises:
            LabError: if a program is missing, or one is not ready in time.
        """
        with support.locked(cluster, self.name):
            if not self._runs(cluster):
                self._start(cluster, say)
            metrics = f"http://{plan.EDGE_ADDRESS}:{ADMIN_PORT}/stats/prometheus"
            return RunningGateway(self.name, plan.EDGE_ADDRESS, HTTP_PORT, metrics)

    def expose(self, cluster: Cluster, target: ServiceTarget) -> Exposure:
        """Make an HTTPRoute for the Service; returns when Envoy knows it.

        Raises:
            LabError: if the gateway is not up, or the Service or its port does not exist.
        """
        if not self._runs(cluster):
            raise LabError(f"the gateway {self.name} is not up")
        support.get_service(cluster, target)
        envoy.apply(cluster, [http_route(target)])
        support.wait_for(
            lambda: _ask(target.host) not in {0, UNROUTED},
            support.ROUTE_SECONDS,
            f"{self.name} to know the route to {target.host}",
        )
        return Exposure(plan.EDGE_ADDRESS, HTTP_PORT, target.host)

    def unexpose(self, cluster: Cluster, target: ServiceTarget) -> None:
        """Delete the HTTPRoute. None there is no error."""
        support.kubectl(
            cluster, "delete", "httproute", route_name(target), f"--namespace={target.namespace}",
            "--ignore-not-found",
        )  # fmt: skip

    def down(self, cluster: Cluster, say: Reporter) -> None:
        """Stop Envoy and delete what was made in the cluster; the CRDs stay.

        A cluster that does not answer is no error: what was in it goes with it.
        """
        if not self._folder(cluster).exists() and not support.main_pids(cluster, _ENVOY):
            return
        with support.locked(cluster, self.name), say.step(f"Stopping the gateway {self.name}"):
            support.stop(cluster, _ENVOY)
            with contextlib.suppress(LabError):
                _route_services("del")
            selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
            with contextlib.suppress(LabError):
                support.kubectl(
                    cluster, "delete", "httproutes,gateways", "--all-namespaces",
                    f"--selector={selector}", "--ignore-not-found", "--wait=false",
                )  # fmt: skip
                support.kubectl(
                    cluster, "delete", "gatewayclasses,clusterrolebindings,namespaces",
                    f"--selector={selector}", "--ignore-not-found", "--wait=false",
                )  # fmt: skip
            support.remove_folder(cluster, self.name)

    def status(self, cluster: Cluster) -> GatewayStatus:
        """What is there now; changes nothing."""
        if not (self._folder(cluster) / _STATE_FILE).exists():
            return GatewayStatus(self.name, up=False, detail="not started")
        if not self._runs(cluster):
            detail = "was started, and its Envoy is not running"
            return GatewayStatus(self.name, up=False, detail=detail)
        return GatewayStatus(self.name, up=True, detail=f"{plan.EDGE_ADDRESS}:{HTTP_PORT}")

    def _folder(self, cluster: Cluster) -> Path:
        return support.folder(cluster, self.name)

    def _runs(self, cluster: Cluster) -> bool:
        return bool(support.main_pids(cluster, _ENVOY)) and support.listens(
            ADMIN_PORT, plan.EDGE_ADDRESS
        )

    def _start(self, cluster: Cluster, say: Reporter) -> None:
        if not cluster.nodes:
            raise LabError(
                f"{self.name} needs the lab's own networks and nodes; use --provider local"
            )
        proxy, program = envoy.envoy_program(), tools.tool_path(NAME, say)
        archive, crds = image_archive(program), crds_file(say)
        LocalProvider(cluster.state_dir).load_image(cluster, archive, say)
        support.stop(cluster, _ENVOY)
        with say.step(f"Starting the gateway {self.name} on {plan.EDGE_ADDRESS}:{HTTP_PORT}"):
            folder = self._folder(cluster)
            folder.mkdir(parents=True, exist_ok=True)
            certificates = issue(folder / "pki")
            envoy.install_crds(cluster, crds)
            envoy.apply(cluster, manifests(certificates))
            address = _ready_service(cluster)
            _route_services("replace")
            # Who asks the controller (1.9.1) before it has taken up the Gateway is never told anything.
            _lead_service_here(cluster)
            # Envoy that finds nobody waits longer and longer, for up to 30 s, before it asks again.
            support.wait_for(
                lambda: support.listens(XDS_PORT, address), support.START_SECONDS, f"{NAME}'s xDS"
            )
            document = bootstrap(address, certificates)
            support.write(folder / "envoy.json", json.dumps(document, indent=1))
            support.start(cluster, _ENVOY, envoy_command(proxy, folder), netns=plan.EDGE)
            support.until_listening(cluster, _ENVOY, ADMIN_PORT, plan.EDGE_ADDRESS)
            support.write(folder / _STATE_FILE, json.dumps({"xds": address}))


@dataclass(frozen=True, slots=True)
class Certificates:
    """Of both ends of xDS, and who signed them."""

    authority: Path
    server: KeyPair
    client: KeyPair


def issue(folder: Path) -> Certificates:
    """Those in the folder, or new ones.

    A controller that runs would learn of new ones only when the kubelet brings its Secret up to date.
    """
    kept = Certificates(
        folder / "ca.crt",
        KeyPair(folder / "server.crt", folder / "server.key"),
        KeyPair(folder / "client.crt", folder / "client.key"),
    )
    pairs = (kept.server, kept.client)
    if kept.authority.exists() and all(p.certificate.exists() and p.key.exists() for p in pairs):
        return kept
    authority = Authority.create(folder)
    return Certificates(
        authority.path,
        authority.issue("server", NAME, hosts=[NAME]),
        authority.issue("client", "envoy"),
    )


def envoy_command(program: Path, folder: Path) -> list[str]:
    """The command line of the proxy, which says whose proxy it is."""
    owner = f"{NAMESPACE}/{GATEWAY}"
    return envoy.envoy_command(
        program, folder, owner, "--service-zone", "lab", "--log-level", "warning"
    )


def bootstrap(xds_address: str, certificates: Certificates) -> Json:
    """Envoy's own configuration: everything else comes from the controller."""
    grpc = {"envoy_grpc": {"cluster_name": "xds_cluster"}}
    ads = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    tls: Json = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(certificates.client.certificate)},
                    "private_key": {"filename": str(certificates.client.key)},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(certificates.authority)}},
        },
    }
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster: Json = {
        "name": "xds_cluster",
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": "xds_cluster",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(xds_address, XDS_PORT)}}]}
            ],
        },
        "typed_extension_protocol_options": {
            protocol: {
                "@type": f"type.googleapis.com/{protocol}",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        "connection_keepalive": {"interval": "30s", "timeout": "5s"}
                    }
                },
            }
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    return {
        "admin": {"address": _address(plan.EDGE_ADDRESS, ADMIN_PORT)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc],
                "set_node_on_first_message_only": True,
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": [cluster]},
        "stats_config": {"use_all_default_tags": True},
    }


def manifests(certificates: Certificates) -> list[Json]:
    """The controller, and a Gateway that serves routes of every namespace."""
    inside = {"namespace": NAMESPACE, "labels": MANAGED}
    account = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    everything = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": MANAGED},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, **inside}},
        {
            # What its chart grants is a template; in a lab it may do all.
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"lab-{NAME}", "labels": MANAGED},
            "roleRef": {**everything, "name": "cluster-admin"},
            "subjects": [account],
        },
        _secret(NAME, certificates.server, certificates.authority),
        _secret("envoy", certificates.client, certificates.authority),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{NAME}-config", **inside},
            "data": {"envoy-gateway.yaml": yaml.safe_dump(configuration())},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, **inside},
            "spec": {
                "selector": {"control-plane": NAME},
                "ports": [{"name": "grpc", "port": XDS_PORT}],
            },
        },
        _deployment(inside),
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": {"name": GATEWAY, **inside},
            "spec": {
                "provider": {
                    "type": "Kubernetes",
                    "kubernetes": {
                        "envoyDeployment": {"replicas": 0},
                        "envoyService": {"type": "ClusterIP"},
                    },
                }
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": CLASS, "labels": MANAGED},
            "spec": {"controllerName": CONTROLLER},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": GATEWAY, **inside},
            "spec": {
                "gatewayClassName": CLASS,
                "infrastructure": {
                    "parametersRef": {
                        "group": "gateway.envoyproxy.io",
                        "kind": "EnvoyProxy",
                        "name": GATEWAY,
                    }
                },
                "listeners": [
                    {
                        "name": "http",
                        "protocol": "HTTP",
                        "port": HTTP_PORT,
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            },
        },
    ]


def configuration() -> Json:
    """The controller's own."""
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": {"controllerName": CONTROLLER},
        "logging": {"level": {"default": "info"}},
        "provider": {
            "type": "Kubernetes",
            "kubernetes": {
                "leaderElection": {"disable": True},
                "proxyTopologyInjector": {"disabled": True},
            },
        },
    }


def route_name(target: ServiceTarget) -> str:
    """Of the HTTPRoute that is made for a Service."""
    return f"lab-{target.name}"


def http_route(target: ServiceTarget) -> Json:
    """The HTTPRoute that leads to a Service."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": route_name(target),
            "namespace": target.namespace,
            "labels": MANAGED,
        },
        "spec": {
            "parentRefs": [{"name": GATEWAY, "namespace": NAMESPACE}],
            "hostnames": [target.host],
            "rules": [{"backendRefs": [{"name": target.name, "port": target.port}]}],
        },
    }


def image() -> str:
    """The controller's image; its tag is the program's version."""
    return f"upstream-guard.local/{NAME}:{tools.version(NAME)}"


def image_archive(program: Path) -> Path:
    """Archive of `image`: one static program."""
    archive = program.with_name(f"{NAME}.tar")
    if not archive.exists():
        path = f"/usr/local/bin/{NAME}"
        config = ImageConfig(entrypoint=(path,), user="65532:65532")
        write_image_archive(archive, image(), [Layer(files={path: program})], config)
    return archive


def crds_file(say: Reporter) -> Path:
    """The Gateway API's CRDs and its own, from the Go modules that the program was built from.

    Raises:
        LabError: if the modules cannot be had.
    """
    kept = tools.cached_path(NAME).with_name(f"{NAME}-crds.yaml")
    if kept.exists():
        return kept
    texts: list[str] = []
    with say.step("Fetching Envoy Gateway's CRDs"):
        for module, folder in _CRD_MODULES:
            source = envoy.module_folder(module, tools.MODULES / NAME, say) / folder
            texts += [
                definitions(path.read_text("utf-8")) for path in sorted(source.glob("*.yaml"))
            ]
        kept.parent.mkdir(parents=True, exist_ok=True)
        support.write(kept, "\n---\n".join(filter(None, texts)))
    return kept


def definitions(text: str) -> str:
    """The CRDs in a file, which may be a template that only switches it on or off."""
    lines = [line for line in text.splitlines() if not line.startswith("{{")]
    found = [
        document
        for document in yaml.safe_load_all("\n".join(lines))
        if document and document["kind"] == "CustomResourceDefinition"
    ]
    return yaml.safe_dump_all(found, sort_keys=False) if found else ""


def _ready_service(cluster: Cluster) -> str:
    """Wait until the controller serves; returns its Service's address."""
    support.kubectl(
        cluster, "rollout", "status", f"deployment/{NAME}", f"--namespace={NAMESPACE}",
        f"--timeout={READY_SECONDS:g}s", seconds=READY_SECONDS + 10,
    )  # fmt: skip
    service = support.get_service(cluster, ServiceTarget(NAMESPACE, NAME, XDS_PORT))
    return str(service["spec"]["clusterIP"])


def _route_services(action: str) -> None:
    """Give the edge a route to Services, or take it away.

    What it forwards is translated before it is routed; what begins there has to find a route first.
    """
    command = ["ip", "-n", plan.EDGE, "route", action, plan.SERVICE_RANGE, "dev", "br0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _lead_service_here(cluster: Cluster) -> None:
    """Make the address in the Gateway's status lead to our Envoy, in the place of pods."""
    owner = "gateway.envoyproxy.io/owning-gateway-name=" + GATEWAY
    found: list[Json] = []

    def there() -> bool:
        text = support.kubectl(
            cluster, "get", "services", f"--namespace={NAMESPACE}", f"--selector={owner}",
            "--output=json",
        )  # fmt: skip
        found[:] = json.loads(text)["items"]
        return bool(found)

    support.wait_for(
        there, support.ROUTE_SECONDS, f"{NAME} to make its Gateway's Service", poll=0.5
    )
    envoy.apply(cluster, [endpoint_slice(found[0])])


def endpoint_slice(service: Json) -> Json:
    """One that lists our Envoy as an endpoint of the Service."""
    name = service["metadata"]["name"]
    ports = [{"name": p.get("name", ""), "port": p["port"]} for p in service["spec"]["ports"]]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-lab",
            "namespace": NAMESPACE,
            "labels": {**MANAGED, "kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [plan.EDGE_ADDRESS], "conditions": {"ready": True}}],
        "ports": ports,
    }


def _secret(name: str, pair: KeyPair, authority: Path) -> Json:
    def encoded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": MANAGED},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": encoded(pair.certificate),
            "tls.key": encoded(pair.key),
            "ca.crt": encoded(authority),
        },
    }


def _deployment(inside: Json) -> Json:
    labels = {"control-plane": NAME}
    mounts = {"config": "/config", "certs": "/certs", "wasm": "/var/lib/eg/wasm"}
    probe = {"httpGet": {"path": "/readyz", "port": 8081}, "periodSeconds": 1}
    container: Json = {
        "name": NAME,
        "image": image(),
        "imagePullPolicy": "Never",
        "args": ["server", "--config-path=/config/envoy-gateway.yaml"],
        "env": [{"name": "ENVOY_GATEWAY_NAMESPACE", "value": NAMESPACE}],
        "readinessProbe": {**probe, "failureThreshold": 3},
        # As its own chart has it: with nothing asked for, a busy machine lets it wait for seconds.
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    volumes: list[Json] = [
        {"name": "config", "configMap": {"name": f"{NAME}-config"}},
        {"name": "certs", "secret": {"secretName": NAME}},
        {"name": "wasm", "emptyDir": {}},
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, **inside},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": NAME,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _ask(host: str) -> int:
    return support.ask(HTTP_PORT, host, address=plan.EDGE_ADDRESS).status


ADDON = EnvoyGateway()
