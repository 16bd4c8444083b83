"""What users are told of a change that has begun."""

import json
import math
import shlex
from dataclasses import replace

from upstream_guard.core.causes import Cause
from upstream_guard.core.model import ObjectRef
from upstream_guard.core.predict.announce import (
    announce,
    command,
    likely,
    prediction_status,
    standing_risks,
)
from upstream_guard.core.predict.estimate import Estimate
from upstream_guard.core.predict.live import LONGEST, Begun
from upstream_guard.core.predict.review import Problem
from upstream_guard.core.predict.state import Change, ChangeKind, PodTemplate
from upstream_guard.core.predict.window import (
    Finding,
    PatchKind,
    Remedy,
    Scope,
    Severity,
    Window,
)
from upstream_guard.core.tuning import Evidence

SHOP = ObjectRef("prod", "shop")
PATCH = {"spec": {"template": {"note": "it's"}}}
REMEDY = Remedy("Deployment", SHOP, PatchKind.STRATEGIC, PATCH, "because")
WINDOW = Window(
    change=ChangeKind.ROLLOUT,
    cause=Cause.STALE_UPSTREAM,
    risk="no-pre-stop",
    start=Estimate(1.0, 2.0, 3.0),
    duration=Estimate(0.9, 1.24, 1.4),
    share=0.333,
    lost=Estimate(25, 40.4, 60),
    probability=0.98,
    status=503,
    status_note="UF",
    scope=Scope.ENDPOINT,
    evidence=Evidence.BUILTIN,
    basis="",
    gateway="contour (public)",
    message="rollout: about 40 requests fail",
    remedy=REMEDY,
)
ROLLOUT = Begun(Change(ChangeKind.ROLLOUT), "deployment/shop", 1000.0)


def test_likely_windows_come_worst_first() -> None:
    small = replace(WINDOW, lost=Estimate(1, 2, 3))
    endless = replace(small, duration=Estimate(math.inf, math.inf, math.inf))
    unlikely = replace(WINDOW, probability=0.49)
    assert likely(ROLLOUT, [small, unlikely, WINDOW, endless]) == (endless, WINDOW, small)


def test_the_note_has_the_numbers_and_the_command() -> None:
    note = announce(ROLLOUT, [WINDOW, WINDOW, WINDOW])
    assert note.startswith("deployment/shop: rollout: about 40 requests fail; 33% of the requests")
    assert "and 2 more in status.predictions" in note
    assert note.endswith(f"to prevent it: {command(REMEDY)}")
    alone = announce(ROLLOUT, [replace(WINDOW, share=1.0)])
    assert "more" not in alone
    assert "%" not in alone


def test_a_command_survives_the_shell() -> None:
    words = shlex.split(command(REMEDY))
    assert words[:6] == ["kubectl", "-n", "prod", "patch", "deployment", "shop"]
    assert words[6:9] == ["--type", "strategic", "-p"]
    assert json.loads(words[9]) == PATCH
    operations = ({"op": "remove", "path": "/spec/x"},)
    words = shlex.split(command(replace(REMEDY, patch_kind=PatchKind.JSON, patch=operations)))
    assert json.loads(words[-1]) == list(operations)
    words = shlex.split(command(replace(REMEDY, patch_kind=PatchKind.CREATE)))
    assert (words[0], json.loads(words[1]), words[2:]) == (
        "echo",
        PATCH,
        ["|", "kubectl", "apply", "-f", "-"],
    )


def test_a_remedy_that_the_rollout_itself_brings_comes_too_late_for_the_old_pods() -> None:
    replaced = replace(ROLLOUT, change=Change(ChangeKind.ROLLOUT, replaces=PodTemplate({}, ())))
    bare = replace(WINDOW, remedy=None, no_remedy="see elsewhere")
    (found,) = likely(replaced, [bare])
    assert "the new template prevents it" in found.no_remedy
    assert likely(ROLLOUT, [bare]) == (bare,)
    start = replace(bare, risk="no-readiness-probe")
    assert likely(replaced, [start]) == (start,)


def test_a_status_entry_is_rounded_and_bounded_in_time() -> None:
    entry = prediction_status(ROLLOUT, WINDOW, 1000.01234)
    assert (entry.began, entry.made_at, entry.opens_at) == (1000.0, 1000.012, 1002.0)
    assert entry.until == 1000.0 + LONGEST
    assert (entry.duration, entry.duration_range) == ("1.2s", "0.9s-1.4s")
    assert (entry.lost, entry.lost_range, entry.share, entry.probability) == (40, "25-60", 33, 98)
    forever = replace(WINDOW, duration=Estimate(math.inf, math.inf, math.inf))
    assert prediction_status(ROLLOUT, forever, 1000.0).duration == ""


def test_risks_worth_a_warning_carry_their_worst_window() -> None:
    finding = Finding(
        risk="no-pre-stop",
        severity=Severity.WARNING,
        kind="Deployment",
        ref=SHOP,
        path="spec",
        message="no hook",
        cause=Cause.STALE_UPSTREAM,
        no_remedy="none",
    )
    quiet = Problem(replace(finding, severity=Severity.INFO))
    (found,) = standing_risks([Problem(finding, (WINDOW,)), quiet])
    assert found.subject == "deployment/shop"
    assert found.message == "no hook; rollout: about 40 requests fail"
    assert found.remedy == "none"
