"""How the tests of the rules look at findings."""

from collections.abc import Sequence

from tests.core.predict.factories import NGINX, facts

from upstream_guard.core.predict.facts import Facts
from upstream_guard.core.predict.gateway import Gateway
from upstream_guard.core.predict.rules import inspect
from upstream_guard.core.predict.state import State
from upstream_guard.core.predict.window import Finding, Severity


def risks(
    state: State, known: Facts | None = None, gateways: Sequence[Gateway] = (NGINX,)
) -> set[str]:
    """The risks that are found."""
    return {finding.risk for finding in inspect(state, gateways, known or facts())}


def only(
    risk: str, state: State, known: Facts | None = None, gateways: Sequence[Gateway] = (NGINX,)
) -> Finding:
    """The one finding of this risk."""
    found = [f for f in inspect(state, gateways, known or facts()) if f.risk == risk]
    assert len(found) == 1, [f.risk for f in inspect(state, gateways, known or facts())]
    return found[0]


def severity(
    risk: str, state: State, known: Facts | None = None, gateways: Sequence[Gateway] = (NGINX,)
) -> Severity | None:
    """The worst severity with which a risk is found; None where it is not."""
    found = {f.severity for f in inspect(state, gateways, known or facts()) if f.risk == risk}
    return next((s for s in (Severity.ERROR, Severity.WARNING, Severity.INFO) if s in found), None)


def patch_of(finding: Finding) -> object:
    """What the finding's remedy changes."""
    assert finding.remedy is not None, finding.no_remedy
    return finding.remedy.patch
