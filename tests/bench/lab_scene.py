"""What the measurements on the embedded cluster share: a kubectl, guarded services, the audit log."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from upstream_guard.core import names
from upstream_guard.lab import images, replicas
from upstream_guard.lab.demo import variants
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import Cluster, LabSpec, current_cluster, default_state_dir
from upstream_guard.lab.report import RichReporter

Json = dict[str, Any]

OPERATOR_USER = f"system:serviceaccount:{names.OPERATOR_NAMESPACE}:{names.SERVICE_ACCOUNT}"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def kubectl(cluster: Cluster, *args: str, stdin: str = "") -> str:
    """Run kubectl and return what it printed; raises with its own words."""
    done = subprocess.run(
        cluster.kubectl_command(*args), input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def apply(cluster: Cluster, items: list[Json]) -> None:
    """`kubectl apply` many objects at once."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


@contextmanager
def lab(nodes: int = 2) -> Iterator[tuple[Cluster, RichReporter]]:
    """The local lab with the sample's image; taken down at the end if it was not up before."""
    say = RichReporter()
    state_dir = default_state_dir()
    before = current_cluster(state_dir)
    provider = LocalProvider(state_dir)
    cluster = provider.up(LabSpec(state_dir, nodes=nodes), say)
    try:
        provider.load_image(cluster, images.build_upstream_image(say), say)
        replicas.install(cluster, say)
        yield cluster, say
    finally:
        if before is None:
            provider.down(say)


@contextmanager
def namespace(cluster: Cluster, name: str) -> Iterator[str]:
    """A namespace for the time of the context."""
    apply(cluster, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}])
    try:
        yield name
    finally:
        kubectl(cluster, "delete", "namespace", name, "--wait=true", "--timeout=120s")


def guarded_service(where: str, name: str, pods: int) -> tuple[list[Json], Json]:
    """(guard and Service, Deployment): the second is applied once the first is in force."""
    made = variants.deployment(
        variants.Variant.GUARDED, namespace=where, name=name, replicas=pods, start_delay=0
    )
    first = [
        variants.service(namespace=where, name=name),
        variants.guard(namespace=where, name=name),
    ]
    return first, made


def wait(what: str, check: Any, seconds: float = 180.0) -> None:
    """Poll until `check()` is true."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.5)


def condition_true(cluster: Cluster, where: str, kind: str) -> int:
    """How many guards of the namespace have the condition True."""
    items = json.loads(kubectl(cluster, "-n", where, "get", "ug", "-o", "json"))["items"]
    return sum(
        c["type"] == kind and c["status"] == "True"
        for item in items
        for c in (item.get("status") or {}).get("conditions") or ()
    )


def audited_writes(
    log: Path, offset: int, where: frozenset[str], user: str = OPERATOR_USER
) -> Counter[str]:
    """`verb resource/subresource` of every write of a user since `offset`, by the audit log.

    Writes in other namespaces than `where` are left out, so that a demo may run on the same lab;
    what has no namespace counts.
    """
    writes: Counter[str] = Counter()
    with log.open("rb") as stream:
        stream.seek(offset)
        for line in stream:
            event = json.loads(line)
            if event["user"]["username"] != user or event["verb"] not in WRITES:
                continue
            ref = event.get("objectRef") or {}
            if ref.get("namespace") and ref["namespace"] not in where:
                continue
            resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
            writes[f"{event['verb']} {resource}"] += 1
    return writes


def metrics(port: int, name: str) -> list[Sample]:
    """The samples of one of an operator's metrics, by their full name."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return [
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    ]


def rss_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
