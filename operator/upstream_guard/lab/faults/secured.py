"""The matrix's service over TLS: what differs from the one in clear, as manifests. Pure.

Gateways go to it by HTTPS and verify nothing, which is the default of nginx, HAProxy's `verify none`, and Contour
without a validation. The sample makes its own certificate.
"""

from typing import Any, Final

from upstream_guard.lab.gateways.model import TLS_PORT

Json = dict[str, Any]

PORT_NAME: Final = "https"
"""Tells the operator what the port speaks."""
CONTOUR_TLS: Final = "projectcontour.io/upstream-protocol.tls"


def secured_service(made: Json) -> Json:
    """The same Service, its only port for HTTPS; Contour has to be told."""
    annotations = {CONTOUR_TLS: str(TLS_PORT)}
    port = {"name": PORT_NAME, "port": TLS_PORT, "targetPort": PORT_NAME}
    return {
        **made,
        "metadata": {**made["metadata"], "annotations": annotations},
        "spec": {**made["spec"], "ports": [port]},
    }


def secured_deployment(made: Json) -> Json:
    """The same Deployment of the sample, which speaks TLS on the app's port."""
    template = made["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = container["ports"]
    secured = {
        **container,
        "ports": [{**port, "name": PORT_NAME}],
        "env": [*container["env"], {"name": "TLS", "value": "1"}],
    }
    pod = {**template["spec"], "containers": [secured]}
    return {**made, "spec": {**made["spec"], "template": {**template, "spec": pod}}}
