"""Which provider makes the lab."""

from collections.abc import Callable, Mapping
from pathlib import Path

from upstream_guard.lab.existing import ExistingProvider
from upstream_guard.lab.kind import KindProvider
from upstream_guard.lab.local import LocalProvider
from upstream_guard.lab.model import (
    CLUSTER_FILE,
    LabError,
    Provider,
    Reporter,
    current_cluster,
    readable_cluster,
)

PROVIDERS: Mapping[str, Callable[[Path], Provider]] = {
    "kind": KindProvider,
    "local": LocalProvider,
    "existing": ExistingProvider,
}
"""In the order in which they are tried; `existing` is never chosen by itself."""


def remove(name: str | None, state_dir: Path, say: Reporter) -> None:
    """Take the lab down: that of the provider named, else the one whose state is in the folder.

    A half-made lab has no state that says whose it is; then every provider is asked.

    Raises:
        LabError: if something cannot be removed.
    """
    if name is None and (cluster := readable_cluster(state_dir)):
        name = cluster.provider
    if name is not None:
        PROVIDERS[name](state_dir).down(say)
        return
    removed = False
    for candidate in PROVIDERS:
        provider = PROVIDERS[candidate](state_dir)
        if provider.present():
            provider.down(say)
            removed = True
    (state_dir / CLUSTER_FILE).unlink(missing_ok=True)  # unreadable, or it would have been taken
    if not removed:
        say.note("There is no lab; nothing to do.")


def choose(name: str | None, state_dir: Path) -> Provider:
    """The provider named, else that of the lab that is up, else the first that can work here.

    Raises:
        LabError: if the name is unknown, or nothing works here; it lists why.
    """
    if name is None and (cluster := current_cluster(state_dir)):
        name = cluster.provider
    if name is not None:
        if name not in PROVIDERS:
            raise LabError(f"no provider {name!r}; there are {', '.join(PROVIDERS)}")
        return PROVIDERS[name](state_dir)
    reasons = []
    for candidate in ("kind", "local"):
        provider = PROVIDERS[candidate](state_dir)
        found = provider.detect()
        if found.usable:
            return provider
        reasons.append(f"  {candidate}: {found.reason}")
        if found.remedy:
            reasons.append(f"      {found.remedy}")
    raise LabError("no lab can be made on this machine:\n" + "\n".join(reasons))
