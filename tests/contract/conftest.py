"""A private API server: etcd and kube-apiserver on loopback ports, nothing else (no controllers)."""

import contextlib
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from upstream_guard.lab.ports import spare_ports
from upstream_guard.lab.process import end
from upstream_guard.lab.tools import ensure_tools
from upstream_guard.webhook.certs import issue, new_authority

START_SECONDS = 90
STOP_SECONDS = 10
CRDS = ("crd/upstreamguards.upstreamguard.io", "crd/gatewayprofiles.upstreamguard.io")
TOKEN = "a-token-of-a-private-server-on-loopback"


@dataclass(frozen=True)
class ApiServer:
    """Where it is, and kubectl as its administrator."""

    url: str
    kubeconfig: Path
    """Of a user in system:masters."""
    kubectl_path: Path = field(repr=False)
    trust: ssl.SSLContext = field(repr=False)

    def kubectl(self, *args: str, stdin: str | None = None, user: str = "") -> "Result":
        """Run kubectl; `user` impersonates."""
        command = [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *args]
        if user:
            command += ["--as", user]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def patch(self, path: str, body: dict, content_type: str, user: str = "") -> "Result":
        """PATCH and nothing else (kubectl reads first); code is 0 or the HTTP status."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type}
        if user:
            headers["Impersonate-User"] = user
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), headers, method="PATCH"
        )
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.trust) as answer:
                return Result(0, answer.read().decode(), "")
        except urllib.error.HTTPError as error:
            return Result(error.code, "", error.read().decode())

    def apply(self, manifest: str | dict) -> None:
        """Apply YAML text or one object, and fail the test if that is refused."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        result = self.kubectl("apply", "--server-side", "-f", "-", stdin=text)
        assert result.ok, result.err

    def install(self, folder: Path) -> None:
        """Apply a kustomize folder that has our CRDs, and wait until they are served."""
        result = self.kubectl("apply", "--server-side", "-k", str(folder))
        assert result.ok, result.err
        waited = self.kubectl("wait", "--for=condition=Established", "--timeout=30s", *CRDS)
        assert waited.ok, waited.err


@dataclass(frozen=True)
class Result:
    """What a kubectl command did."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


@contextlib.contextmanager
def running(command: list[str], log: Path):
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        end(process, STOP_SECONDS)


def wait_ready(url: str, trust: ssl.SSLContext, process: subprocess.Popen, log: Path) -> None:
    request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=2, context=trust):
                return
        except (OSError, urllib.error.URLError) as error:
            alive = process.poll() is None
            if not alive or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-3000:]
                pytest.fail(f"kube-apiserver is not ready ({error}):\n{tail}")
            time.sleep(0.2)


def write_credentials(folder: Path) -> None:
    now = time.time()
    authority = new_authority(now)
    cert, key = issue(authority, ("127.0.0.1", "localhost"), now)
    for name, content in {
        "ca.crt": authority.cert,
        "server.crt": cert,
        "server.key": key,
        "accounts.crt": authority.cert,
        "accounts.key": authority.key,
        "tokens.csv": f'{TOKEN},admin,1,"system:masters"\n'.encode(),
    }.items():
        (folder / name).write_bytes(content)


def write_kubeconfig(path: Path, url: str, ca: Path) -> None:
    cluster = {"server": url, "certificate-authority": str(ca)}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "private", "cluster": cluster}],
                "users": [{"name": "admin", "user": {"token": TOKEN}}],
                "contexts": [
                    {"name": "private", "context": {"cluster": "private", "user": "admin"}}
                ],
                "current-context": "private",
            }
        )
    )


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory):
    """An API server with RBAC, for the whole test session; yields an `ApiServer`.

    Without controllers: namespaces are not emptied when deleted, ServiceAccounts get no tokens.
    """
    with private_apiserver(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture(scope="module")
def own_apiserver(tmp_path_factory: pytest.TempPathFactory):
    """One for a test module alone, which may take it apart."""
    with private_apiserver(tmp_path_factory.mktemp("own-apiserver")) as server:
        yield server


@contextlib.contextmanager
def private_apiserver(folder: Path):
    tools = ensure_tools(["etcd", "kube-apiserver", "kubectl"])
    write_credentials(folder)
    client, peer, secure = spare_ports(3)
    etcd = [
        str(tools["etcd"]),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    api = [
        str(tools["kube-apiserver"]),
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={secure}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--cert-dir={folder}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        f"--service-account-key-file={folder / 'accounts.crt'}",
        "--service-cluster-ip-range=198.18.0.0/24",
        # No controller makes the default ServiceAccounts that it would insist on.
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]
    url = f"https://127.0.0.1:{secure}"
    log = folder / "kube-apiserver.log"
    with (
        running(etcd, folder / "etcd.log"),
        running(api, log) as process,
    ):
        trust = ssl.create_default_context(cafile=folder / "ca.crt")
        wait_ready(url, trust, process, log)
        kubeconfig = folder / "kubeconfig"
        write_kubeconfig(kubeconfig, url, folder / "ca.crt")
        yield ApiServer(url, kubeconfig, tools["kubectl"], trust)
