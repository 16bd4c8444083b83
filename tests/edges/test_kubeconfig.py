"""Kubeconfigs that cannot be used: one line that names the file, what is wrong, and what to do."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from upstream_guard.kube.client import ConfigError, KubeClient

AAAA = "AAAA"
TEXT = base64.b64encode(b"no certificate").decode()


def made(cluster: Any = None, user: Any = None, **fields: Any) -> dict[str, Any]:
    """A kubeconfig that works, but for what is given."""
    usual: dict[str, Any] = {
        "clusters": [
            {"name": "c", "cluster": {"server": "https://127.0.0.1:1", **(cluster or {})}}
        ],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "prod"}}
        ],
        "current-context": "here",
    }
    return {**usual, **fields}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return tmp_path / "kubeconfig"


def write(path: Path, content: Any) -> None:
    if isinstance(content, dict):
        content = yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


async def refusal(kubeconfig: Path | str | None, context: str | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        await KubeClient.connect(None if kubeconfig is None else str(kubeconfig), context)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("garbage: [", "it is not YAML: line 1: "),
        ("a: b\nc: \x00", "it is not YAML: "),
        (b"\xff\xfe\xfa", "it is not YAML: "),
        ("when: 2026-99-99", "it is not YAML: "),
        ("[" * 5000, "it is not YAML: "),
        ("", "it is empty"),
        ("# nothing\n", "it is empty"),
        ("- a\n- b\n", "it holds a list"),
        ("words", "it holds a single value"),
        ("{}", "it names no current-context"),
        (made(clusters="c"), "Expected `array | null`, got `str` - at `clusters`"),
        (made(contexts=[{"context": {}}]), "missing required field `name` - at `contexts[0]`"),
        (made(users=[{"name": "u", "user": ["t"]}]), "at `users[0].user`"),
        (made(clusters=None), "context 'here': "),
        (made({"server": "nonsense"}), "the server of context 'here' is 'nonsense', not a URL"),
        (made({"server": "https://h:port"}), "is 'https://h:port', not a URL"),
        (made({"server": ""}), "the server of context 'here' is '', not a URL"),
        (made({"server": 5}), "Expected `str`, got `int` - at `clusters[0].cluster.server`"),
        (made({"certificate-authority-data": AAAA}), "certificate-authority(-data) holds no"),
        (made({"certificate-authority-data": TEXT}), "certificate-authority(-data) holds no"),
        (made({"certificate-authority-data": "A"}), "certificate-authority-data is not base64"),
        (made({"certificate-authority": "none.crt"}), "none.crt"),
        (
            made(user={"client-certificate-data": TEXT, "client-key-data": TEXT}),
            "client-certificate(-data) and client-key(-data) are no pair",
        ),
        (made(user={"exec": {"args": []}}), "missing required field `command`"),
        (made(user={"auth-provider": {"name": "oidc"}}), "oidc: missing configuration"),
        (made(user={"tokenFile": "none"}), "none"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line(kubeconfig: Path, text: Any, words: str) -> None:
    write(kubeconfig, text)
    said = await refusal(kubeconfig)
    assert said.startswith(f"cannot use the kubeconfig {kubeconfig}: ")
    assert words in said
    assert "--kubeconfig FILE" in said or "--context NAME" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-plug-in"], "No such file or directory"),
        (["sh", "-c", "echo log in first >&2; exit 3"], "log in first"),
        (["echo", "nonsense"], "failed to decode"),
    ],
)
async def test_a_plug_in_that_gives_no_credentials_is_named(
    kubeconfig: Path, command: list[str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    version = "client.authentication.k8s.io/v1"
    plugin = {"apiVersion": version, "command": command[0], "args": command[1:]}
    write(kubeconfig, made(user={"exec": plugin}))
    said = await refusal(kubeconfig)
    assert f"{kubeconfig}: its exec plug-in {command[0]!r} gave no credentials: " in said
    assert words in said
    assert "\n" not in said
    assert not caplog.records


async def test_a_context_that_is_not_there_is_told_with_those_that_are(kubeconfig: Path) -> None:
    write(kubeconfig, made())
    said = await refusal(kubeconfig, "there")
    assert "it has no context 'there'. Pass --context NAME, one of: here." in said
    write(kubeconfig, made(**{"current-context": None}))
    assert "no current-context. Pass --context NAME, one of: here." in await refusal(kubeconfig)


async def test_no_kubeconfig_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    remedy = "pass --kubeconfig FILE or set KUBECONFIG"
    monkeypatch.delenv("KUBECONFIG", raising=False)
    path = tmp_path / ".kube" / "config"
    assert await refusal(None) == f"there is no kubeconfig at {path}: {remedy}"
    monkeypatch.setenv("KUBECONFIG", "")
    assert await refusal(None) == f"there is no kubeconfig at {path}: {remedy}"
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    assert f"at {tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}: " in await refusal(None)
    assert not caplog.records


async def test_a_folder_or_an_unreadable_file_is_no_kubeconfig(tmp_path: Path) -> None:
    assert f"{tmp_path}: Is a directory" in await refusal(tmp_path)


async def test_what_works_is_left_alone(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several files of which one is missing, the context named, no current one, fields unknown to us."""
    other = made(users=None, contexts=None, clusters=None, **{"current-context": None})
    write(kubeconfig, made(preferences={}, **{"current-context": ""}))
    second = kubeconfig.with_name("second")
    write(second, other)
    paths = (kubeconfig, kubeconfig.with_name("missing"), second)
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))
    client = await KubeClient.connect(context="here")
    assert client.namespace == "prod"
    assert client.configuration.host == "https://127.0.0.1:1"
    assert client.configuration.api_key["BearerToken"] == "Bearer t"
    await client.close()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("status",), 2),
        (("explain", "window"), 2),
        (("check", "--context", "c"), 2),
        (("uninstall", "--dry-run"), 2),
        (("run",), 1),
    ],
)
def test_every_command_says_it_in_one_line(
    kubeconfig: Path, args: tuple[str, ...], code: int
) -> None:
    kubeconfig.write_text("garbage: [")
    done = subprocess.run(
        [sys.executable, "-m", "upstream_guard.cli", *args],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "POD_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    told = [line for line in done.stderr.splitlines() if "WARNING" not in line]
    assert len(told) == 1
    assert f"cannot use the kubeconfig {kubeconfig}: it is not YAML: line " in told[0]
