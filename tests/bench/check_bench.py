"""What `check` costs on 1,000 documents, beside kube-score on the same file, in one run.

The two take turns; the wall time and the peak memory of each process are the kernel's accounting of a
finished child. Two sets of manifests: `alike`, as one team's chart makes them (eight kinds of service), and
`various`, where nearly every service is one of its kind and nothing that was computed serves twice.

    .venv/bin/python tests/bench/check_bench.py --services 200 --rounds 9 --json check.json
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from upstream_guard.lab import tools
from upstream_guard.lab.model import LabError
from upstream_guard.lab.report import RichReporter

KUBE_SCORE = "github.com/zegl/kube-score/cmd/kube-score@v1.20.0"
ALIKE_SHAPES = 8
SOME_SERVICE = "app-0"
"""Whoever looked at the manifests says something about this one."""


@dataclass(frozen=True)
class Run:
    """One process, from its start to its end."""

    program: str
    manifests: str
    wall_seconds: float
    cpu_seconds: float
    peak_mib: float


def services(count: int, shapes: int, seed: int) -> Iterator[dict[str, Any]]:
    """Documents of `count` services of `shapes` kinds: five for each service."""
    chance = random.Random(seed)
    drawn = [shape(chance) for _ in range(shapes)]
    for number in range(count):
        yield from documents(f"app-{number}", f"team-{number % 20}", drawn[number % shapes])


def shape(chance: random.Random) -> dict[str, Any]:
    """What makes a difference to a prediction or a score."""
    probe = chance.choice(
        [
            None,
            {"tcpSocket": {"port": "http"}},
            {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": chance.randint(1, 15)},
        ]
    )
    seconds = chance.randint(1, 20)
    hook = chance.choice(
        [None, {"sleep": {"seconds": seconds}}, {"exec": {"command": ["sleep", str(seconds)]}}]
    )
    return {
        "probe": probe,
        "hook": hook,
        "grace": chance.choice([None, 10, 30, 45, 60, 90]),
        "replicas": chance.randint(1, 8),
        "surge": chance.choice([None, 1, 2, "25%", "50%"]),
        "unavailable": chance.choice([0, 1, "25%"]),
        "class": chance.choice(["nginx", "traefik", "haproxy", "contour"]),
        "sidecar": chance.random() < 0.3,
        "min": chance.randint(1, 4),
    }


def documents(name: str, namespace: str, of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Deployment, Service, Ingress, HorizontalPodAutoscaler and PodDisruptionBudget."""
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": namespace}
    selector = {"app.kubernetes.io/name": name}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": of["replicas"],
            "selector": {"matchLabels": selector},
            "strategy": strategy(of),
            "template": {"metadata": {"labels": labels}, "spec": pod(name, of)},
        },
    }
    port = {"name": "http", "port": 80, "targetPort": "http"}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"selector": selector, "ports": [port]},
    }
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    yield {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": meta,
        "spec": {
            "ingressClassName": of["class"],
            "rules": [{"host": f"{name}.example.com", "http": {"paths": [path]}}],
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    yield {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": meta,
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": of["min"],
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }
    yield {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"minAvailable": 1, "selector": {"matchLabels": selector}},
    }


def strategy(of: Mapping[str, Any]) -> dict[str, Any]:
    """Kubernetes' defaults where no surge is given."""
    if of["surge"] is None:
        return {"type": "RollingUpdate"}
    limits = {"maxSurge": of["surge"], "maxUnavailable": of["unavailable"]}
    return {"type": "RollingUpdate", "rollingUpdate": limits}


def pod(name: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """One container that serves, and sometimes a second one."""
    app: dict[str, Any] = {
        "name": "app",
        "image": f"registry.example.com/{name}:1.2.3",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": f"SETTING_{n}", "value": f"value {n}"} for n in range(6)],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {"readOnlyRootFilesystem": True, "runAsNonRoot": True},
    }
    if of["probe"]:
        app["readinessProbe"] = of["probe"]
    if of["hook"]:
        app["lifecycle"] = {"preStop": of["hook"]}
    sidecar = {"name": "metrics", "image": "registry.example.com/metrics:1", "args": ["--all"]}
    spec: dict[str, Any] = {"containers": [app, *([sidecar] if of["sidecar"] else [])]}
    if of["grace"] is not None:
        spec["terminationGracePeriodSeconds"] = of["grace"]
    return spec


def kube_score() -> Path:
    """The program, built into the cache the first time.

    Raises:
        LabError: It cannot be built.
    """
    folder = tools.cache_dir() / "bin" / KUBE_SCORE.rpartition("/")[2].replace("@", "-")
    program = folder / "kube-score"
    if program.exists():
        return program
    say = RichReporter()
    env = {**tools.go_environment(say), "GOBIN": str(folder)}
    with say.step(f"Building kube-score (once, kept in {folder})"):
        done = subprocess.run(
            ["go", "install", KUBE_SCORE], env=env, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise LabError(f"`go install {KUBE_SCORE}` failed:\n{done.stderr.strip()[-800:]}")
    return program


def installed(folder: Path) -> dict[str, str]:
    """An environment in which our modules are compiled once, as pip does when it installs a package."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def measure(
    program: str, manifests: str, command: Sequence[str], environment: Mapping[str, str]
) -> Run:
    """Run a command to its end; one that found nothing, or broke, counts for nothing."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        code = child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        words = output.read().decode(errors="replace")
        if code != 1 or SOME_SERVICE not in words or "Traceback" in words:
            raise click.ClickException(f"{' '.join(command)} ended with {code}:\n{words[-800:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(program, manifests, wall, cpu, usage.ru_maxrss / 1024)


def report(console: Console, runs: Sequence[Run]) -> None:
    """Medians, and how ours compares."""
    table = Table("manifests", "program", "wall s (median)", "all", "CPU s", "peak MiB")
    for manifests in dict.fromkeys(run.manifests for run in runs):
        for program in dict.fromkeys(run.program for run in runs):
            of = [r for r in runs if (r.manifests, r.program) == (manifests, program)]
            walls = sorted(r.wall_seconds for r in of)
            table.add_row(
                manifests,
                program,
                f"{median(walls):.3f}",
                f"{walls[0]:.3f}-{walls[-1]:.3f}",
                f"{median(r.cpu_seconds for r in of):.3f}",
                f"{max(r.peak_mib for r in of):.0f}",
            )
    console.print(table)


@click.command()
@click.option("--services", "count", default=200, show_default=True, help="Five documents each.")
@click.option("--rounds", default=9, show_default=True, help="Each program once in each round.")
@click.option("--seed", default=1, show_default=True, help="Of the manifests.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def main(count: int, rounds: int, seed: int, json_file: Path | None) -> None:
    """Compare what a check of many documents costs."""
    console = Console()
    ours = Path(sys.executable).with_name("upstream-guard")
    programs = {"upstream-guard check": [str(ours), "check"]}
    try:
        programs["kube-score"] = [str(kube_score()), "score"]
    except LabError as error:
        console.print(f"[yellow]skipped:[/] kube-score: {error}")
    runs: list[Run] = []
    warm: set[Path] = set()
    with tempfile.TemporaryDirectory(prefix="check-bench-") as folder:
        environment = installed(Path(folder))
        for name, shapes in (("alike", ALIKE_SHAPES), ("various", count)):
            file = Path(folder, f"{name}.yaml")
            file.write_text(yaml.safe_dump_all(services(count, shapes, seed), sort_keys=False))
            for _ in range(rounds + 1):
                turn = [
                    measure(program, name, [*command, str(file)], environment)
                    for program, command in programs.items()
                ]
                runs += turn if file in warm else []
                warm.add(file)
    report(console, runs)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")


if __name__ == "__main__":
    main()
