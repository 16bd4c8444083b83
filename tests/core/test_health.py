"""Verdicts from results: thresholds, hysteresis, suspicion."""

import pytest

from upstream_guard.core.causes import Cause
from upstream_guard.core.health import NEVER_PROBED, Health, Thresholds, Verdict, observe
from upstream_guard.core.model import ProbeResult


def after(*words: str, thresholds: Thresholds | None = None) -> Health:
    """The health after results given as `ok` or a cause, a second apart."""
    health = NEVER_PROBED
    for at, word in enumerate(words, 1):
        result = (
            ProbeResult(float(at), True)
            if word == "ok"
            else ProbeResult(float(at), False, Cause(word))
        )
        health = observe(health, result, thresholds or Thresholds())
    return health


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ((), Verdict.UNKNOWN),
        (("ok",), Verdict.UNKNOWN),
        (("ok", "ok"), Verdict.SERVING),
        (("ok", "reset", "ok"), Verdict.UNKNOWN),
        (("ok", "ok", "reset"), Verdict.SERVING),
        (("ok", "ok", "reset", "ok", "reset"), Verdict.SERVING),
        (("ok", "ok", "reset", "reset"), Verdict.FAILING),
        (("ok", "ok", "refused"), Verdict.FAILING),
        (("ok", "ok", "read-timeout"), Verdict.SERVING),
        (("reset", "reset", "ok"), Verdict.FAILING),
        (("reset", "reset", "ok", "ok"), Verdict.SERVING),
    ],
)
def test_a_verdict_takes_its_number_of_results(words, verdict):
    assert after(*words).verdict is verdict


def test_a_refusal_needs_one_failure_less_but_never_none():
    strict = Thresholds(failure=3)
    assert after("ok", "ok", "refused", thresholds=strict).verdict is Verdict.SERVING
    assert after("ok", "ok", "refused", "refused", thresholds=strict).verdict is Verdict.FAILING
    assert Thresholds(failure=1).failures_for(Cause.REFUSED) == 1


def test_since_is_when_the_verdict_fell():
    assert after("ok", "ok", "ok").since == 2
    assert after("ok", "ok", "reset", "reset", "reset").since == 4


def test_the_cause_is_the_last_one_and_goes_with_recovery():
    assert after("ok", "ok", "reset", "refused").cause is Cause.REFUSED
    assert after("reset", "reset", "ok", "ok").cause is None


def test_hard_failures_of_a_serving_endpoint_are_suspect_silence_is_not():
    assert after("ok", "ok", "reset").suspect
    assert not after("ok", "ok", "read-timeout").suspect
    assert not after("ok", "ok", "reset", "reset").suspect
    assert not after("reset").suspect
