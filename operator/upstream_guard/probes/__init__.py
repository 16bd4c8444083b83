"""Asks endpoints whether they serve.

One file per protocol (`http`, `tcp`, `grpc`, `tls`), all with one signature (`exchange.Prepare`), one table of them and
one loop (`scheduler`) that decides when.
"""

from upstream_guard.probes.exchange import ProbeTarget
from upstream_guard.probes.scheduler import ProbeScheduler
from upstream_guard.probes.stats import Histogram, SchedulerStats

__all__ = ["Histogram", "ProbeScheduler", "ProbeTarget", "SchedulerStats"]
