"""The lab's container images, made on this machine: no engine and no registry is asked.

Each function returns an archive that a provider's `load_image` takes. Archives are kept in the cache
under a hash of what they were made from, so the second call costs nothing.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from upstream_guard import __version__
from upstream_guard.lab import packages
from upstream_guard.lab.model import LabError, Reporter
from upstream_guard.lab.oci import ImageConfig, Layer, write_image_archive
from upstream_guard.lab.packages import Need
from upstream_guard.lab.report import RichReporter
from upstream_guard.lab.tools import cache_dir, go_build

SAMPLES: Final = Path(__file__).parent / "samples"
UPSTREAM_IMAGE: Final = "upstream-guard.local/upstream:dev"
"""The faulty upstream; healthy unless told otherwise."""
SERVERS_IMAGE: Final = "upstream-guard.local/servers:dev"
"""Node.js, gunicorn and uvicorn; the argument says which."""
OPERATOR_IMAGE: Final = f"docker.io/library/upstream-guard:{__version__}"
"""What `deploy/` calls `upstream-guard:VERSION`."""
NOBODY: Final = "65532:65532"
"""Who the samples run as; distroless images call it `nonroot`."""

DEBIAN: Final = "bookworm"
SERVER_PACKAGES: Final = ("gunicorn", "nodejs", "tini", "uvicorn")
PYTHON_PACKAGES: Final = ("ca-certificates", "python3", "python3-venv")
"""What the operator's Dockerfile asks of its base."""
_CONTEXT: Final = (
    "Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml",
    "requirements-build.lock", "requirements-operator.lock", "crds", "deploy", "operator",
)  # fmt: skip
"""What the operator's image is made of, in the repository."""
_UNWANTED: Final = (
    "var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man",
    "usr/share/info", "usr/share/locale", "usr/share/lintian", "var/cache/ldconfig",
    "var/cache/debconf",
)  # fmt: skip
"""Folders of a Debian tree that are emptied: unused here, or different at each run."""
_BASE: Final = "localhost/upstream-guard-base:dev"
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def upstream_program(say: Reporter | None = None, cache: Path | None = None) -> Path:
    """The faulty upstream as a program of this machine, built if need be.

    Args:
        say: Where progress goes.
        cache: Folder to keep it in; the user's cache unless given.

    Raises:
        LabError: if it cannot be built.
    """
    source = SAMPLES / "upstream"
    folder = (cache or cache_dir()) / "samples" / digest(source.iterdir())
    program = folder / "upstream"
    if not program.exists():
        reporter = say or RichReporter()
        go_build(source, {"upstream": "."}, folder, reporter)
    return program


def build_upstream_image(say: Reporter | None = None, cache: Path | None = None) -> Path:
    """Archive of `UPSTREAM_IMAGE`: one static program, which is its `sleep` too, nothing else.

    Args:
        say: Where progress goes.
        cache: Folder to keep it in; the user's cache unless given.

    Raises:
        LabError: if the program cannot be built.
    """
    program = upstream_program(say, cache)
    archive = program.parent / "upstream.tar"
    if not archive.exists():
        layer = Layer(files={"/upstream": program, "/bin/sleep": program})
        config = ImageConfig(entrypoint=("/upstream",), user=NOBODY)
        write_image_archive(archive, UPSTREAM_IMAGE, [layer], config)
    return archive


def build_servers_image(say: Reporter | None = None, cache: Path | None = None) -> Path:
    """Archive of `SERVERS_IMAGE`: Debian's Node.js, gunicorn and uvicorn, each with a small app.

    Args:
        say: Where progress goes.
        cache: Folder to keep it in; the user's cache unless given.

    Raises:
        LabError: if Debian's packages cannot be had, or this is not root.
    """
    reporter = say or RichReporter()
    apps = {
        f"/samples/{path.relative_to(SAMPLES)}": path
        for path in sorted(SAMPLES.rglob("*"))
        if path.suffix in {".js", ".py", ".sh"}
    }
    key = _key(digest(apps.values()), *SERVER_PACKAGES)
    archive = (cache or cache_dir()) / "images" / f"servers-{key}.tar"
    if archive.exists():
        return archive
    with debian_tree(SERVER_PACKAGES, reporter) as tree:
        layers = [Layer(tree=tree), Layer(files=apps)]
        config = ImageConfig(entrypoint=("/samples/start.sh",), command=("node",), user=NOBODY)
        with reporter.step("Packing the sample servers' image"):
            write_image_archive(archive, SERVERS_IMAGE, layers, config)
    return archive


def build_operator_image(
    say: Reporter | None = None,
    cache: Path | None = None,
    *,
    tag: str = OPERATOR_IMAGE,
    repository: Path | None = None,
) -> Path:
    """Archive of the operator's image, built from the repository's own Dockerfile by buildah.

    The base is a Debian tree made here instead of the image of a registry; all else is as it is
    where a container engine builds it.

    Args:
        say: Where progress goes.
        cache: Folder to keep it in; the user's cache unless given.
        tag: The image's name.
        repository: A checkout; the one that this file is in unless given.

    Raises:
        LabError: if there is no checkout, this is not root, or the build fails, with its last words.
    """
    reporter = say or RichReporter()
    source = repository or Path(__file__).parents[3]
    if not (source / "Dockerfile").is_file():
        raise LabError(
            f"the operator's image is built from a checkout, and {source} has no Dockerfile"
        )
    folder = (cache or cache_dir()) / "images"
    archive = folder / f"operator-{_key(digest(_context_files(source)), tag, *PYTHON_PACKAGES)}.tar"
    if archive.exists():
        return archive
    packages.ensure_packages([Need("buildah", program="buildah")], reporter)
    base = _base_archive(folder, reporter)
    with tempfile.TemporaryDirectory(prefix="upstream-guard-image-") as work:
        buildah = _buildah(Path(work))
        with reporter.step("Building the operator's image from its Dockerfile"):
            _run([*buildah, "pull", "--quiet", f"docker-archive:{base}"])
            _run(
                [
                    *buildah, "bud", "--isolation=chroot", "--pull-never", f"--build-arg=BASE={_BASE}",
                    *_pip_options(Path(work)), f"--tag={tag}", str(source),
                ]
            )  # fmt: skip
            partial = archive.with_name(f".{archive.name}.{os.getpid()}")
            try:
                _run([*buildah, "push", "--quiet", tag, f"docker-archive:{partial}:{tag}"])
                for old in folder.glob("operator-*.tar"):  # hundreds of megabytes a change
                    old.unlink(missing_ok=True)
                partial.rename(archive)
            finally:
                partial.unlink(missing_ok=True)
    return archive


@contextmanager
def debian_tree(wanted: Sequence[str], say: Reporter) -> Iterator[Path]:
    """A minimal Debian with some packages in a folder, while the context is open.

    Raises:
        LabError: if this is not root, or debootstrap fails.
    """
    if os.geteuid() != 0:
        raise LabError("an image with Debian packages needs debootstrap, and that needs root")
    packages.ensure_packages(
        [
            Need("debootstrap", program="debootstrap"),
            Need(
                "debian-archive-keyring",
                paths=("/usr/share/keyrings/debian-archive-keyring.gpg",),
            ),
        ],
        say,
    )
    with (
        tempfile.TemporaryDirectory(prefix="upstream-guard-debian-") as work,
        say.step(f"Installing Debian {DEBIAN} with {', '.join(wanted)} (a minute, once)") as step,
    ):
        tree = Path(work, "tree")
        # A root folder that only root may enter would be useless to an image's user.
        tree.mkdir(mode=0o755)
        _debootstrap(tree, wanted, step.update)
        for name in _UNWANTED:
            _empty(tree / name)
        yield tree


def digest(files: Iterable[Path]) -> str:
    """A short hash of the contents of files, and of their paths below the folder they share."""
    found = sorted(files)
    shared = os.path.commonpath([path.parent for path in found])
    total = hashlib.sha256()
    for path in found:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(shared)}\0{content}\n".encode())
    return total.hexdigest()[:16]


def _debootstrap(tree: Path, wanted: Sequence[str], update: Callable[[str], None]) -> None:
    # What it mounts in the tree (/proc) goes with its namespace, also when it is killed: the tree is
    # deleted afterwards, and nothing of the machine may hang in it.
    command = [
        "unshare",
        "--mount",
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(wanted)}",
    ]
    command += [
        "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg",
        DEBIAN,
        str(tree),
    ]
    tail: deque[str] = deque(maxlen=8)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            update(line.strip())
    if process.returncode:
        raise LabError(f"`{' '.join(command)}` failed:\n" + "\n".join(tail))


def _empty(folder: Path) -> None:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _base_archive(folder: Path, say: Reporter) -> Path:
    """Archive of the image that stands in for the Dockerfile's BASE."""
    archive = folder / f"python-{_key(*PYTHON_PACKAGES)}.tar"
    if not archive.exists():
        with debian_tree(PYTHON_PACKAGES, say) as tree:
            write_image_archive(
                archive, _BASE, [Layer(tree=tree)], ImageConfig(entrypoint=(), command=("/bin/sh",))
            )
    return archive


def _buildah(work: Path) -> list[str]:
    """Buildah with a storage of its own, so that the machine's stays as it is."""
    return [
        "buildah", f"--root={work}/storage", f"--runroot={work}/run", "--storage-driver=vfs",
    ]  # fmt: skip


def _pip_options(work: Path) -> list[str]:
    """Let pip in the build find packages where pip on this machine would.

    What this machine trusts goes in as a mount, for it may be more than Debian does (a company's
    proxy); nothing of it stays in the image.
    """
    options = [
        f"--build-arg={key}={os.environ[key]}"
        for key in ("PIP_INDEX_URL", "PIP_NO_INDEX")
        if os.environ.get(key)
    ]
    if _CERTIFICATES.exists():
        config = work / "pip.conf"
        config.write_text(f"[global]\ncert = {_CERTIFICATES}\n", encoding="utf-8")
        options.append(f"--volume={_CERTIFICATES}:{_CERTIFICATES}:ro")
        options.append(f"--volume={config}:/etc/pip.conf:ro")
    links = Path(os.environ.get("PIP_FIND_LINKS", ""))
    if links.is_absolute() and links.is_dir():
        options += [f"--volume={links}:{links}:ro", f"--build-arg=PIP_FIND_LINKS={links}"]
    return options


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-1500:]
        raise LabError(f"`{' '.join(command)}` failed:\n{words}")


def _context_files(source: Path) -> list[Path]:
    found: list[Path] = []
    for name in _CONTEXT:
        path = source / name
        inside = path.rglob("*") if path.is_dir() else [path]
        found += [p for p in inside if p.is_file() and "__pycache__" not in p.parts]
    return found


def _key(*parts: str) -> str:
    """A short hash of everything that makes an image what it is."""
    text = "\0".join((platform.machine(), DEBIAN, *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
