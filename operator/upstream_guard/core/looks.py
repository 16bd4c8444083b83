"""What the operator asks beside its probes while requests fail at a gateway and every probe is good.

Endpoints as users ask (docs/decisions/0025-closer-look.md), and DNS for the Service's name (0029-dns.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from upstream_guard.core.causes import Cause
from upstream_guard.core.evidence import CloserLook, NameLook

AGAIN: Final = 1.0
"""Seconds between two requests to an endpoint as users make them, and between two questions for the name."""
ENDPOINTS: Final = 3
"""Endpoints that are asked so; what an app does to its users it does everywhere, mostly."""
TIMES: Final = 12
"""How often in one window, of each kind."""
NAME_STAYS: Final = 3.0
"""Seconds for which gateways may fail by what DNS said before it was seen to be well again."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What came of it since something was odd.

    Attributes:
        closer: Requests to endpoints as users make them, the last one of each.
        looked: How many there were.
        name: The question for the Service's name that counts; None where there was none.
        named: How many there were.
        named_at: When the last of them ended, Unix seconds.
        mended_at: Since when DNS is well that `name` blames, Unix seconds; 0 where it is not, or none is blamed.
    """

    closer: Mapping[str, CloserLook] = field(default_factory=dict)
    looked: int = 0
    name: NameLook | None = None
    named: int = 0
    named_at: float = 0.0
    mended_at: float = 0.0

    @property
    def told(self) -> Mapping[Cause, str]:
        """What is known of causes by the name, in words."""
        look = self.name
        if look is None or not look.fault:
            return {}
        return {Cause.DNS: f"{look.name} does not resolve: {look.fault}"}

    @property
    def at(self) -> float:
        """When the last one that counts ended, Unix seconds; 0 where there was none."""
        looks = (*self.closer.values(), *((self.name,) if self.name else ()))
        return max((look.at for look in looks), default=0.0)

    def wants(self, listed: Iterable[str], now: float) -> tuple[str, ...]:
        """Which of the listed endpoints should be asked now."""
        if self.looked >= TIMES:
            return ()
        chosen = sorted(listed)[:ENDPOINTS]
        return tuple(a for a in chosen if a not in self.closer or now - self.closer[a].at >= AGAIN)

    def wants_name(self, now: float) -> bool:
        """Whether DNS should be asked now."""
        return self.named < TIMES and (not self.named or now - self.named_at >= AGAIN)

    def with_closer(self, look: CloserLook) -> "Looks":
        """With one more request to an endpoint."""
        if look.address not in self.closer and len(self.closer) >= TIMES:
            return self
        closer = {**self.closer, look.address: look}
        return replace(self, closer=closer, looked=self.looked + 1)

    def with_name(self, look: NameLook, failed_at: float) -> "Looks":
        """With one more answer of DNS.

        One that is well again takes back what it was blamed for only where requests go on to fail.

        Args:
            look: The answer.
            failed_at: When the last request that failed was sent, Unix seconds.
        """
        counts, mended_at = look, 0.0
        if self.name is not None and self.name.fault and not look.fault:
            mended_at = self.mended_at or look.at
            if failed_at < mended_at + NAME_STAYS:
                counts = self.name
        return replace(
            self, name=counts, named=self.named + 1, named_at=look.at, mended_at=mended_at
        )
