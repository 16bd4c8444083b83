"""Findings made by hand, for tests of what becomes of them."""

from collections.abc import Callable

import pytest

from upstream_guard.cli.check.objects import Location, ObjectKey, Trouble
from upstream_guard.cli.check.report import Entry, Report
from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.review import Problem
from upstream_guard.core.predict.state import ChangeKind
from upstream_guard.core.predict.window import (
    Finding,
    PatchKind,
    Remedy,
    Scope,
    Severity,
    Window,
)
from upstream_guard.core.tuning import Evidence

SLEEP = {
    "spec": {
        "template": {
            "spec": {
                "containers": [{"name": "web", "lifecycle": {"preStop": {"sleep": {"seconds": 2}}}}]
            }
        }
    }
}

PLACE = Location("k8s/shop, v1.yaml", 12, 7)


def make_window(seconds: float = 1.2, lost: float = 40, gateway: str = "nginx (public)") -> Window:
    return Window(
        change=ChangeKind.ROLLOUT,
        cause=Cause.STALE_UPSTREAM,
        risk="no-pre-stop",
        start=Estimate(0.1, 0.2, 0.3),
        duration=Estimate(seconds, seconds, seconds),
        share=0.3,
        lost=Estimate(lost / 2, lost, lost * 2),
        probability=1.0,
        status=502,
        status_note="connect() failed",
        scope=Scope.ENDPOINT,
        evidence=Evidence.BUILTIN,
        basis="kube-proxy",
        gateway=gateway,
        message="rollout: about 40 requests fail",
        remedy=Remedy(
            "Deployment", ObjectRef("prod", "shop"), PatchKind.STRATEGIC, SLEEP, "it serves on"
        ),
    )


def make_entry(
    severity: Severity = Severity.WARNING,
    risk: str = "no-pre-stop",
    *,
    message: str = "container `web` has no preStop hook",
    windows: tuple[Window, ...] = (),
    location: Location | None = PLACE,
    name: str = "shop",
    suppressed: str = "",
    known: bool = False,
) -> Entry:
    ref = ObjectRef("prod", name)
    finding = Finding(
        risk=risk,
        severity=severity,
        kind="Deployment",
        ref=ref,
        path="spec.template.spec.containers[0].lifecycle",
        message=message,
        cause=Cause.STALE_UPSTREAM,
        changes=frozenset({ChangeKind.ROLLOUT}),
        no_remedy="" if windows else "nothing helps",
    )
    key = ObjectKey("Deployment", "prod", name)
    return Entry(Problem(finding, windows), key, location, suppressed, known)


@pytest.fixture
def report() -> Callable[..., Report]:
    """A report of entries that differ in every respect that formats look at."""

    def make(**fields: object) -> Report:
        entries = (
            make_entry(
                windows=(
                    make_window(),
                    make_window(float("inf")),
                    make_window(0.01, 0.4),
                    make_window(),
                )
            ),
            make_entry(
                Severity.ERROR,
                "target-port-unserved",
                message="50% of\r\nnothing: a, b <&>\x00",
                name="two",
            ),
            make_entry(Severity.INFO, "one-node", location=None, name="three"),
            make_entry(risk="single-replica", suppressed="dev", name="four"),
            make_entry(risk="crash", known=True, name="five"),
        )
        defaults = {
            "entries": entries,
            "troubles": (
                Trouble(Location("bad.yaml", 3, 1), "not valid YAML: x"),
                Trouble(Location("b.yaml", 1, 1), "twice", fatal=False),
            ),
            "notes": ("a Helm chart was left out",),
            "documents": 12,
            "services": 3,
            "version": "0.1.0",
        }
        return Report(**{**defaults, **fields})

    return make
