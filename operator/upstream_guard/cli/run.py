"""`upstream-guard run`: the operator."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import click
import uvloop

from upstream_guard.controller.app import App, server_minor
from upstream_guard.controller.external import ExternalOptions
from upstream_guard.controller.options import Options
from upstream_guard.core.allowance import AllowList, Network, parse_name_pattern, parse_range
from upstream_guard.core.names import OPERATOR_NAMESPACE
from upstream_guard.kube.client import KubeClient, KubeError
from upstream_guard.kube.lease import LeaseLostError
from upstream_guard.probes.dns import parse_server

T = TypeVar("T")

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
OUT_OF_REACH: Final = (
    "This process runs outside the cluster, and the API server does not know where: new pods get neither "
    "gate nor preStop hook. Pass --webhook-host ADDRESS (where the API server reaches this machine), or "
    "--no-webhook to only watch."
)


def each(parse: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, object], object]:
    """A callback that parses every value of a repeatable option, and says what is wrong with one."""

    def callback(context: click.Context, option: click.Parameter, values: object) -> tuple[T, ...]:
        del context, option
        try:
            return tuple(parse(str(value)) for value in values if value)  # type: ignore[attr-defined]
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


@click.command("run")
@click.option(
    "--kubeconfig", metavar="FILE", type=click.Path(), help="Kubeconfig file (default: as kubectl)."
)
@click.option(
    "--context", metavar="NAME", help="Context of the kubeconfig (default: the current one)."
)
@click.option("--namespace", metavar="NAME", help="Guard this namespace only (default: all).")
@click.option(
    "--operator-namespace",
    envvar="POD_NAMESPACE",
    default=OPERATOR_NAMESPACE,
    show_default=True,
    help="Where the Lease and the webhook's Secret live.",
)
@click.option("--identity", envvar="POD_NAME", help="Name in the Lease (default: host and PID).")
@click.option("--bind", default="", help="Address to listen on (default: all).")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of /metrics, /healthz and /readyz; 0 picks one.",
)
@click.option(
    "--webhook-port",
    type=click.IntRange(0, 65535),
    default=9443,
    show_default=True,
    help="Port of the admission webhook; 0 picks one.",
)
@click.option(
    "--webhook-host",
    default="",
    help="Address at which the API server reaches this process, when it runs outside the cluster.",
)
@click.option("--no-webhook", is_flag=True, help="Serve no admission: new pods get nothing.")
@click.option(
    "--allow-upstream-names",
    multiple=True,
    metavar="NAME",
    callback=each(parse_name_pattern),
    help="External upstreams may have this name, or *.example.com for all names below it. Repeatable; default: none.",
)
@click.option(
    "--allow-upstream-ranges",
    multiple=True,
    metavar="RANGE",
    callback=each(parse_range),
    help="And addresses in this range, such as 203.0.113.0/24. Repeatable; default: none. Never the cluster's own.",
)
@click.option(
    "--cluster-ranges",
    multiple=True,
    metavar="RANGE",
    callback=each(parse_range),
    help="A range of pods, Services or nodes beside those that the API tells; needed with --namespace. Repeatable.",
)
@click.option(
    "--dns-server",
    multiple=True,
    metavar="ADDRESS",
    callback=each(parse_server),
    help="Ask this server for external upstreams (default: those of /etc/resolv.conf). Repeatable.",
)
@click.option(
    "--canary-address",
    envvar="POD_IP",
    default="",
    help="IP address at which gateways reach this process (default: --webhook-host).",
)
@click.option(
    "--canary-port",
    type=click.IntRange(0, 65534),
    default=0,
    show_default=True,
    help="First of the two ports that gateways are measured with; 0 picks two.",
)
@click.option("--no-canary", is_flag=True, help="Measure no gateway: built-in numbers are used.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def command(  # one parameter per flag
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    operator_namespace: str,
    identity: str | None,
    bind: str,
    http_port: int,
    webhook_port: int,
    webhook_host: str,
    no_webhook: bool,  # click passes flags by position
    allow_upstream_names: tuple[str, ...],
    allow_upstream_ranges: tuple[Network, ...],
    cluster_ranges: tuple[Network, ...],
    dns_server: tuple[tuple[str, int], ...],
    canary_address: str,
    canary_port: int,
    no_canary: bool,
    log_level: str,
) -> None:
    """Run the operator, in or out of the cluster.

    \b
    Examples:
      upstream-guard run                                  # with your kubeconfig, or in a pod
      upstream-guard run --context staging --namespace shop
      upstream-guard run --webhook-host 192.0.2.7         # outside: where the API server finds us
      upstream-guard run --allow-upstream-names '*.example.com' --allow-upstream-ranges 203.0.113.0/24

    Exit codes: 0 stopped by a signal, 1 the Lease was lost, a port is taken, or the cluster cannot
    be used.
    """  # noqa: D301 - click reads \b
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    for talkative in ("kopf", "httpx"):
        logging.getLogger(talkative).setLevel(max(logging.WARNING, logging.getLogger().level))
    options = Options(
        kubeconfig=kubeconfig or os.environ.get("KUBECONFIG") or None,
        context=context,
        namespace=namespace,
        operator_namespace=operator_namespace,
        identity=identity or "",
        http_port=http_port,
        webhook_port=None if no_webhook else webhook_port,
        webhook_host=webhook_host,
        bind=bind,
        external=ExternalOptions(
            AllowList(allow_upstream_names, allow_upstream_ranges),
            tuple(str(network) for network in cluster_ranges),
        ),
        dns_servers=dns_server,
        canary=not no_canary,
        canary_address=canary_address,
        canary_port=canary_port,
    )
    if is_out_of_reach(options, os.environ):
        logging.getLogger(__name__).warning(OUT_OF_REACH)
    try:
        uvloop.run(_run(options))
    except (KubeError, LeaseLostError, OSError) as error:
        logging.getLogger(__name__).error("%s", error)  # noqa: TRY400  # the message is the point
        sys.exit(1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)


def is_out_of_reach(options: Options, environ: Mapping[str, str]) -> bool:
    """Whether the API server looks for the webhook in the cluster while this process is outside."""
    in_pod = "KUBERNETES_SERVICE_HOST" in environ
    return not in_pod and options.webhook_port is not None and not options.webhook_host


async def _run(options: Options) -> None:
    client = await KubeClient.connect(options.kubeconfig, options.context)
    try:
        version = await client.get("/version")
        await App(options, client, server_minor(version)).run()
    finally:
        await client.close()
