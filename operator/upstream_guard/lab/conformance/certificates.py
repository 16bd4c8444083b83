"""Certificates for upstreams, good and bad ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upstream_guard.lab.conformance.model import Source
from upstream_guard.lab.pki import Authority, KeyPair
from upstream_guard.lab.ports import LOOPBACK

NAME: Final = "upstream.test"
"""What upstreams are called in their certificates, beside their address."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """The authority to trust, and the pair of each TLS upstream."""

    authority: Path
    pairs: Mapping[Source, KeyPair]


def issue(folder: Path) -> Certificates:
    """Make them all anew."""
    trusted = Authority.create(folder / "trusted")
    unknown = Authority.create(folder / "unknown")
    hosts = (NAME, "localhost", LOOPBACK)
    return Certificates(
        trusted.path,
        {
            Source.TLS_GOOD: trusted.issue("good", NAME, hosts=hosts),
            Source.TLS_UNTRUSTED: unknown.issue("untrusted", NAME, hosts=hosts),
            Source.TLS_EXPIRED: trusted.issue("expired", NAME, hosts=hosts, expired=True),
            Source.TLS_NAME: trusted.issue("name", "other.test", hosts=("other.test",)),
        },
    )
