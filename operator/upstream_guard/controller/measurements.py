"""What is known of gateways by measurement, on every replica: the controller measures, status remembers.

A standby's webhook sizes preStop hooks as the controller's does, and a restart loses nothing, because both
take over what the status of some guard says.
"""

from typing import Final

from upstream_guard.core.canary import Sample, is_news, measured, succeed
from upstream_guard.core.latency import Measured
from upstream_guard.core.tuning import GatewayFacts, GatewayKind, with_measurement
from upstream_guard.resources.status import parse_measurements

Key = tuple[GatewayKind, str]

SAME_SECONDS: Final = 1.0
"""A status tells times to the whole second."""


class Measurements:
    """By gateway: what status tells of it, and why it is not measured."""

    def __init__(self) -> None:
        self._told: dict[Key, Measured] = {}
        self._notes: dict[Key, str] = {}
        self._heard: dict[Key, str] = {}
        """Notes of whoever controls, or did; they hold until there is one of our own."""

    def apply(self, facts: GatewayFacts) -> GatewayFacts:
        """The facts of a gateway with what was measured."""
        key = (facts.kind, facts.name)
        return with_measurement(facts, self._told.get(key), self._note(key))

    def of(self, key: Key) -> Measured | None:
        """What is told of a gateway."""
        return self._told.get(key)

    def inherit(self, status: object) -> None:
        """Take over what the status of a guard says, where it is news."""
        for key, found, note in parse_measurements(status):
            self._heard[key] = note
            told = self._told.get(key)
            if found is None:
                if note and key not in self._notes:
                    self.forget(key)
            elif told is None or found.last > told.last + SAME_SECONDS:
                self._told[key] = found

    def found(self, key: Key, samples: tuple[Sample, ...], now: float) -> bool:
        """Take in what the canary found so far; whether that is worth telling.

        Args:
            key: The gateway.
            samples: Since the canary, or the gateway, last began anew; oldest first.
            now: Unix seconds.
        """
        told, own = self._told.get(key), measured(samples)
        if own is None:
            return False
        following = own if told is None else succeed(told, own)
        if not is_news(told, following, now):
            return False
        self._told[key] = following
        return True

    def note(self, key: Key, text: str) -> bool:
        """Say why a gateway is not measured, or what its numbers leave out; whether that is new."""
        before = self._note(key)
        self._notes[key] = text
        return before != text

    def forget(self, key: Key) -> bool:
        """Say nothing more of a gateway; whether there was anything."""
        return self._told.pop(key, None) is not None

    def _note(self, key: Key) -> str:
        return self._notes.get(key, self._heard.get(key, ""))
