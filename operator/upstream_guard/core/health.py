"""What the probes of one endpoint add up to: a verdict with hysteresis."""

from dataclasses import dataclass
from enum import StrEnum

from upstream_guard.core.causes import HARD_CAUSES, Cause
from upstream_guard.core.model import ProbeResult


class Verdict(StrEnum):
    """What the operator believes of one endpoint."""

    UNKNOWN = "unknown"
    """Not probed often enough to say."""
    SERVING = "serving"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many results in a row make a verdict; both at least 1."""

    success: int = 2
    failure: int = 2

    def failures_for(self, cause: Cause) -> int:
        """Failures in a row that condemn: one fewer for a refusal than for any other cause.

        A refusal is an answer by the endpoint's own kernel that nothing listens (RFC 9293,
        3.10.7.1); Linux drops SYNs on a full backlog and never refuses for overload
        (tcp_abort_on_overflow is off by default), so one more look would only cost time.
        """
        return max(1, self.failure - 1) if cause is Cause.REFUSED else self.failure


@dataclass(frozen=True, slots=True)
class Health:
    """The running state of one endpoint's probes."""

    verdict: Verdict = Verdict.UNKNOWN
    since: float = 0.0
    """When the verdict was reached."""
    successes: int = 0
    """Successes in a row, up to the last result."""
    failures: int = 0
    cause: Cause | None = None
    """Of the last failure; kept while the verdict is `failing`."""
    detail: str = ""
    ever_served: bool = False
    status: int = 0
    """HTTP status of the last failure; 0 where there was none."""

    @property
    def hard(self) -> bool:
        """The endpoint itself said no, as opposed to having been silent."""
        return self.cause in HARD_CAUSES

    @property
    def suspect(self) -> bool:
        """It serves by all that was known, and has just said no: worth another look at once.

        Silence is not: it may be overload, which more probes would only add to.
        """
        return self.verdict is Verdict.SERVING and self.failures > 0 and self.hard


NEVER_PROBED = Health()


def observe(health: Health, result: ProbeResult, thresholds: Thresholds) -> Health:
    """The state after one more result."""
    if result.ok:
        return _after_success(health, result, thresholds)
    return _after_failure(health, result, thresholds)


def _after_success(health: Health, result: ProbeResult, thresholds: Thresholds) -> Health:
    successes = health.successes + 1
    if health.verdict is Verdict.SERVING:
        return Health(Verdict.SERVING, health.since, successes, 0, None, "", ever_served=True)
    if successes >= thresholds.success:
        return Health(Verdict.SERVING, result.at, successes, 0, None, "", ever_served=True)
    return Health(
        health.verdict,
        health.since,
        successes,
        0,
        health.cause,
        health.detail,
        health.ever_served,
        health.status,
    )


def _after_failure(health: Health, result: ProbeResult, thresholds: Thresholds) -> Health:
    cause = result.cause or Cause.READ_TIMEOUT
    failures = health.failures + 1
    condemned = failures >= thresholds.failures_for(cause)
    changed = condemned and health.verdict is not Verdict.FAILING
    return Health(
        Verdict.FAILING if condemned else health.verdict,
        result.at if changed else health.since,
        0,
        failures,
        cause,
        result.detail,
        health.ever_served,
        result.status,
    )
