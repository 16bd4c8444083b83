"""Who may take the Lease, and when a standby must act; all by the observer's own clock."""

from upstream_guard.core.leadership import (
    LeaseRecord,
    LeaseTimes,
    Observation,
    Step,
    is_fresh,
    must_sweep,
    next_step,
    observe_lease,
)

TIMES = LeaseTimes()


def seen(holder: str = "other", since: float = 0.0) -> Observation:
    return Observation(LeaseRecord(holder, "1"), since)


def test_the_times_keep_their_promises():
    assert TIMES.renew_every * 3 < TIMES.give_up < TIMES.duration < TIMES.sweep < 30


def test_an_unchanged_record_ages_and_a_changed_one_is_young():
    first = observe_lease(None, LeaseRecord("other", "1"), 5.0)
    assert observe_lease(first, LeaseRecord("other", "1"), 9.0).since == 5.0
    assert observe_lease(first, LeaseRecord("other", "2"), 9.0).since == 9.0


def test_steps():
    assert next_step(Observation(None, 0.0), "me", TIMES, 1.0) is Step.CREATE
    assert next_step(seen("me"), "me", TIMES, 1.0) is Step.RENEW
    assert next_step(seen(""), "me", TIMES, 0.1) is Step.TAKE
    assert next_step(seen(), "me", TIMES, TIMES.duration - 0.1) is Step.WAIT
    assert next_step(seen(), "me", TIMES, TIMES.duration) is Step.TAKE


def test_gates_are_given_only_while_somebody_controls():
    assert is_fresh(seen(), TIMES, 1.0)
    assert not is_fresh(seen(), TIMES, TIMES.duration)
    assert not is_fresh(seen(""), TIMES, 0.1)
    assert not is_fresh(None, TIMES, 0.0)
    assert not is_fresh(Observation(None, 0.0), TIMES, 0.0)


def test_a_standby_sweeps_when_nobody_took_over():
    assert not must_sweep(seen(), TIMES, TIMES.sweep - 0.1)
    assert must_sweep(seen(), TIMES, TIMES.sweep)
    assert must_sweep(Observation(None, 0.0), TIMES, TIMES.sweep)
    assert not must_sweep(None, TIMES, 100.0)
