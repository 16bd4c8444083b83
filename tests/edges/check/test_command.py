"""`upstream-guard check` from its arguments to its exit code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from upstream_guard.cli.check import sources
from upstream_guard.cli.check.command import command
from upstream_guard.cli.check.documents import read_documents

SOURCES = Path(__file__).parents[3] / "operator"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  namespace: prod
spec:
  replicas: 3
  selector:
    matchLabels: {app: shop}
  template:
    metadata:
      labels: {app: shop}
    spec:
      containers:
        - name: web  # the app
          image: "web:1"
          ports:
            - containerPort: 8080
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: prod}
spec:
  selector: {app: shop}
  ports:
    - port: 80
      targetPort: 8080
"""
SHOP = f"{DEPLOYMENT}---\n{SERVICE}"
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: prod}
spec:
  parentRefs: [{name: public}]
  rules:
    - backendRefs: [{name: TARGET, port: 80}]
"""

INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: prod}
spec:
  ingressClassName: public
  defaultBackend: {service: {name: shop, port: {number: 80}}}
"""
INGRESS_CLASS = """\
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: public}
spec: {controller: projectcontour.io/ingress-controller}
"""

Check = Callable[..., Result]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs the command in a folder with a `shop.yaml`."""
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text(SHOP)

    def run(*args: str, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(command, args, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert "Traceback" not in result.output
        return result

    return run


def findings(result: Result) -> dict[str, dict[str, object]]:
    return {f["id"]: f for f in json.loads(result.stdout)["findings"]}


def test_findings_have_windows_lines_and_remedies(check: Check) -> None:
    result = check("shop.yaml", "-o", "json")
    assert result.exit_code == 1
    found = findings(result)
    probe = found["no-readiness-probe"]
    assert probe["object"] == {"kind": "Deployment", "namespace": "prod", "name": "shop"}
    assert probe["location"] == {"file": "shop.yaml", "line": 15, "column": 11}
    assert probe["windows"]
    assert probe["windows"][0]["lost"]["value"] > 0
    assert probe["remedy"]["kind"] == "Deployment"
    document = json.loads(result.stdout)
    assert document["rate"] == {"value": 10.0, "assumed": True}
    assert document["summary"]["documents"] == 2
    assert document["summary"]["services"] == 1


def test_the_table_is_for_people(check: Check) -> None:
    text = check("shop.yaml").stdout
    assert text.startswith("Deployment prod/shop\n")
    assert "shop.yaml:15" in text
    assert "requests" in text
    assert "assumed (--rate)" in text
    assert "\x1b" not in text


def test_the_rate_scales_what_is_lost(check: Check) -> None:
    def lost(*args: str) -> float:
        found = findings(check("shop.yaml", "-o", "json", *args))
        return float(found["no-readiness-probe"]["windows"][0]["lost"]["value"])

    assert lost("--rate", "100") == pytest.approx(10 * lost("--rate", "10"), rel=0.3)


def test_a_slower_start_costs_more(check: Check) -> None:
    def seconds(start: str) -> float:
        found = findings(check("shop.yaml", "-o", "json", "--start-seconds", start))
        return float(found["no-readiness-probe"]["windows"][0]["duration"]["value"])

    assert seconds("20") > seconds("2") + 5


def test_the_gateway_decides_the_status(check: Check) -> None:
    def statuses(gateway: str) -> set[int]:
        found = findings(check("shop.yaml", "-o", "json", "--gateway", gateway))
        return {w["status"] for f in found.values() for w in f["windows"]}

    assert 502 in statuses("ingress-nginx")
    assert statuses("contour") == {503}


@pytest.mark.parametrize(
    ("threshold", "code"), [("error", 0), ("warning", 1), ("info", 1), ("never", 0)]
)
def test_the_threshold_decides_the_exit_code(check: Check, threshold: str, code: int) -> None:
    assert check("shop.yaml", "--fail-on", threshold).exit_code == code


def test_folders_globs_stdin_and_json(check: Check) -> None:
    Path("k8s/deep").mkdir(parents=True)
    Path("k8s/deployment.yml").write_text(DEPLOYMENT)
    service = json.dumps(yaml.safe_load(SERVICE))
    Path("k8s/deep/service.json").write_text(service)
    Path("k8s/notes.txt").write_text("no: [yaml")
    Path("k8s/.git").mkdir()
    Path("k8s/.git/x.yaml").write_text("no: [yaml")
    expected = set(findings(check("shop.yaml", "-o", "json")))
    assert expected
    assert set(findings(check("-f", "k8s", "-o", "json"))) == expected
    assert set(findings(check("-f", "k8s/**/*.*m*", "-f", "k8s/deep", "-o", "json"))) == expected
    piped = check("-", "-o", "json", stdin=SHOP)
    assert set(findings(piped)) == expected
    assert findings(piped)["no-readiness-probe"]["location"]["file"] == "stdin"
    listed = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": list(yaml.safe_load_all(SHOP))}, indent=1
    )
    assert set(findings(check("-", "-o", "json", stdin=listed))) == expected


def test_the_same_file_twice_is_read_once(check: Check) -> None:
    assert (
        json.loads(check("shop.yaml", "-f", "*.yaml", "-o", "json").stdout)["summary"]["documents"]
        == 2
    )


def test_a_broken_file_is_named_and_the_others_are_checked(check: Check) -> None:
    Path("bad.yaml").write_text("a: 1\nkind: [\n")
    Path("binary.yaml").write_bytes(b"\x00\x01")
    result = check(".", "nowhere.yaml", "none*.yaml", "-o", "json")
    assert result.exit_code == 2
    assert "no-readiness-probe" in findings(result)
    assert "error: bad.yaml:3:1: not valid YAML:" in result.stderr
    assert "error: binary.yaml: it has NUL bytes" in result.stderr
    assert "error: nowhere.yaml: cannot be read: No such file or directory" in result.stderr
    assert "error: none*.yaml: no file matches" in result.stderr


def test_nothing_found_is_not_said_where_nothing_was_checked(check: Check) -> None:
    missing = "error: missing/: cannot be read: No such file or directory\n"
    for args in (("missing/",), ("missing/", "--fix")):
        result = check(*args)
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", missing)
    Path("shop.yaml").write_text(SERVICE.replace("  selector: {app: shop}\n", ""))
    some = check("missing/", "shop.yaml")
    assert some.exit_code == 2
    assert some.stdout == "Nothing found in 1 Service in 1 document.\n"


def test_other_yaml_is_passed_over_quietly(check: Check) -> None:
    Path("other.yaml").write_text(
        "a: 1\n---\n- b\n---\ntext\n---\napiVersion: example.com/v1\nkind: Thing\n---\n"
        "apiVersion: v1\nkind: ConfigMap\ndata: !Ref x\n"
    )
    result = check("other.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "Nothing found in 0 Services in 5 documents.\n"
        "No Service is among them, and windows are those of Services.\n"
    )
    assert result.stderr == ""


OUTPUTS = {
    "table": lambda r: r.stderr,
    "json": lambda r: json.loads(r.stdout)["problems"][0]["text"],
    "sarif": lambda r: r.stdout,
    "github": lambda r: r.stdout,
    "junit": lambda r: r.stdout,
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_pipe_without_objects_is_no_success(check: Check, output: str) -> None:
    result = check("-", "-o", output, "--fail-on", "never", stdin="")
    assert result.exit_code == 2
    words = "standard input has no Kubernetes object; did the command before the pipe fail?"
    assert words in OUTPUTS[output](result)
    assert f"error: stdin: {words}\n" == result.stderr
    assert "othing found" not in result.output


@pytest.mark.parametrize("text", ["", "# soon\n", "---\n---\n", "hello\n", "kind: Service\n", "[]"])
def test_a_named_file_without_objects_is_told(check: Check, text: str) -> None:
    """Alone it is an error; a shell names it beside others, where `*.yaml` means manifests."""
    Path("none.yaml").write_text(text)
    words = "none.yaml: no Kubernetes object in it: no document has both apiVersion and kind\n"
    alone = check("none.yaml")
    assert (alone.exit_code, alone.stderr) == (2, f"error: {words}")
    beside = check("none.yaml", "shop.yaml", "none.yaml", "-o", "json")
    assert beside.exit_code == 1
    assert words in beside.stderr
    assert "error: " not in beside.stderr
    assert "no-readiness-probe" in findings(beside)


def test_a_broken_file_is_told_once(check: Check) -> None:
    Path("bad.yaml").write_text("kind: [\n")
    assert check("bad.yaml", "-f", "b*.yaml").stderr.count("error: ") == 1


def test_a_folder_or_glob_may_hold_files_without_objects_but_not_only_such(check: Check) -> None:
    Path("values").mkdir()
    Path("values/prod.yaml").write_text("replicas: 3\n")
    Path("values/kept.d").mkdir()
    for given in (".", "**/*.yaml"):
        result = check(given, "--fail-on", "never")
        assert (result.exit_code, result.stderr) == (0, "")
    for given in ("values", "values/*.yaml"):
        result = check(given, "--fail-on", "never")
        assert result.exit_code == 2
        assert f"error: {given}: no Kubernetes object in it" in result.stderr
    assert "error: values/*.d: no file matches" in check("values/*.d").stderr


def test_an_empty_list_of_a_cluster_is_an_object(check: Check) -> None:
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": []})
    assert check("-", stdin=listed).exit_code == 0


def test_tags_are_refused_in_what_is_read(check: Check) -> None:
    Path("tag.yaml").write_text(SERVICE.replace("selector: {app", "selector: !!python/dict {app"))
    result = check("tag.yaml")
    assert result.exit_code == 2
    assert "error: tag.yaml:5:13: the tag !!python/dict is refused" in result.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "nothing to check"),
        (("shop.yaml", "--context", "c"), "pass no files"),
        (("--gateway", "ngnix", "shop.yaml"), "ingress-nginx"),
        (("--rate", "0", "shop.yaml"), "--rate"),
        (("--rate", "nan", "shop.yaml"), "--rate"),
        (("-n", "a", "-n", "b", "shop.yaml"), "only one -n"),
        (("-", "-"), "only once"),
        (("-o", "xml", "shop.yaml"), "junit"),
        (("--baseline", "none.json", "shop.yaml"), "--write-baseline none.json"),
        (
            (
                "--kubeconfig",
                "none",
            ),
            "kubeconfig",
        ),
    ],
)
def test_wrong_usage_is_told(check: Check, args: tuple[str, ...], words: str) -> None:
    result = check(*args)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


def test_suppressions_need_a_reason(check: Check) -> None:
    annotation = (
        'metadata:\n  annotations:\n    upstreamguard.io/ignore: "no-readiness-probe: batch; '
        'no-pre-stop; no-such-thing: x"'
    )
    Path("shop.yaml").write_text(SHOP.replace("metadata:", annotation, 1))
    result = check("shop.yaml", "-o", "json")
    found = findings(result)
    assert found["no-readiness-probe"]["suppressed"] == "batch"
    assert all(f["suppressed"] is None for i, f in found.items() if i != "no-readiness-probe")
    assert (
        "note: shop.yaml:5:5: upstreamguard.io/ignore: no-pre-stop is not suppressed"
        in result.stderr
    )
    assert "there is no finding 'no-such-thing'" in result.stderr
    assert "no-readiness-probe" not in check("shop.yaml").stdout


def test_a_baseline_is_adopted_and_only_news_count(check: Check) -> None:
    wrote = check("shop.yaml", "--write-baseline", "known.json")
    assert wrote.exit_code == 0
    again = check("shop.yaml", "--baseline", "known.json")
    assert again.exit_code == 0
    assert "in the baseline" in again.stdout
    Path("shop.yaml").write_text("# moved\n" + SHOP)
    assert check("shop.yaml", "--baseline", "known.json").exit_code == 0
    Path("new.yaml").write_text(
        SHOP.replace("name: shop", "name: new").replace("app: shop", "app: new")
    )
    new = check("shop.yaml", "new.yaml", "--baseline", "known.json")
    assert new.exit_code == 1
    assert "prod/new" in new.stdout
    assert "prod/shop" not in new.stdout
    Path("shop.yaml").unlink()
    assert "of the baseline no longer found" in check("new.yaml", "--baseline", "known.json").stdout


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "findings": {}}', "[" * 100_000])
def test_a_broken_baseline_is_told(check: Check, text: str) -> None:
    Path("known.json").write_text(text)
    result = check("shop.yaml", "--baseline", "known.json")
    assert result.exit_code == 2
    assert "known.json" in result.stderr


def test_the_fix_is_a_diff_that_git_applies(check: Check) -> None:
    result = check("shop.yaml", "--fix")
    assert result.stdout.startswith("--- a/shop.yaml\n+++ b/shop.yaml\n")
    assert Path("shop.yaml").read_text() == SHOP
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "apply", "-"], input=result.stdout.encode(), check=True)
    _assert_mended(check)


@pytest.mark.parametrize(
    ("folder", "given"),
    [
        (".", "{here}/k8s/shop.yaml"),
        (".", "k8s/../k8s/shop.yaml"),
        (".", "{here}/k8s/../k8s"),
        ("k8s", "{here}/k8s/shop.yaml"),
        (".", "link/shop.yaml"),
    ],
)
def test_however_a_file_is_named_git_applies_its_fix(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str, given: str
) -> None:
    Path("k8s").mkdir()
    Path("shop.yaml").rename("k8s/shop.yaml")
    Path("link").symlink_to("k8s")
    subprocess.run(["git", "init", "-q", "."], check=True)
    monkeypatch.chdir(folder)
    result = check(given.format(here=tmp_path), "--fix")
    assert "note:" not in result.stderr
    subprocess.run(["git", "apply", "-"], input=result.stdout.encode(), check=True)
    monkeypatch.chdir(tmp_path / "k8s")
    _assert_mended(check)


@pytest.mark.parametrize("tree", [True, False])
def test_a_fix_of_files_elsewhere_says_how_to_apply_it(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tree: bool
) -> None:
    if tree:
        subprocess.run(["git", "init", "-q", "."], check=True)
    Path("app").mkdir()
    monkeypatch.chdir("app")
    result = check("../shop.yaml", "--fix")
    base = tmp_path if tree else Path("/")
    assert f"note: apply this with `patch -p1 -d {base}`\n" in result.stderr
    assert result.stdout.startswith(f"--- a/{(tmp_path / 'shop.yaml').relative_to(base)}\n")
    if tree:
        subprocess.run(["git", "-C", base, "apply", "-"], input=result.stdout.encode(), check=True)
        monkeypatch.chdir(base)
        _assert_mended(check)


def test_the_fix_is_written_into_the_file(check: Check) -> None:
    result = check("shop.yaml", "--write")
    assert result.exit_code == 0
    assert "shop.yaml: changed" in result.stderr
    _assert_mended(check)


def _assert_mended(check: Check) -> None:
    text = Path("shop.yaml").read_text()
    assert all(line in text.splitlines() for line in DEPLOYMENT.splitlines())
    documents = [d.value for d in read_documents(text, [])]
    (container,) = documents[0]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]
    assert container["lifecycle"]["preStop"]
    assert check("shop.yaml").exit_code == 0


def test_each_overlay_is_fixed(check: Check) -> None:
    for name in ("base", "prod"):
        Path(name).mkdir()
        Path(name, "shop.yaml").write_text(SHOP)
    assert "2 files changed" in check("base", "prod", "--write").stderr
    for name in ("base", "prod"):
        assert "readinessProbe:" in Path(name, "shop.yaml").read_text()


def test_what_is_not_a_file_is_printed_as_patch(check: Check) -> None:
    result = check("-", "--fix", stdin=SHOP)
    patches = list(yaml.safe_load_all(result.stdout))
    assert any("spec" in patch for patch in patches)
    assert "kubectl -n prod patch deployment shop --type strategic" in result.stdout
    assert "it was read from stdin" in result.stdout


def test_each_overlay_is_a_world_of_its_own(check: Check) -> None:
    for name in ("base", "prod"):
        Path(name).mkdir()
        Path(name, "shop.yaml").write_text(
            SHOP if name == "base" else SHOP.replace("replicas: 3", "replicas: 1")
        )
    Path("shop.yaml").unlink()
    report = json.loads(check(".", "-o", "json").stdout)
    assert report["summary"]["services"] == 2
    alone = {f["location"]["file"] for f in report["findings"] if f["id"] == "single-replica"}
    assert alone == {"prod/shop.yaml"}


def test_a_route_may_lead_to_a_service_of_another_folder(check: Check) -> None:
    Path("routes").mkdir()
    for name, target in (("a", "shop"), ("b", "shopp")):
        Path("routes", f"{name}.yaml").write_text(ROUTE.replace("TARGET", target))
    told = [
        (f["location"]["file"], f["message"])
        for f in json.loads(check(".", "-o", "json").stdout)["findings"]
        if f["id"] == "route-to-nowhere"
    ]
    assert [file for file, _ in told] == ["routes/b.yaml"]
    assert "(there is `shop`)" in told[0][1]


def test_a_service_may_mean_pods_of_another_file(check: Check) -> None:
    Path("shop.yaml").write_text(DEPLOYMENT)
    Path("canary.yaml").write_text(DEPLOYMENT.replace("replicas: 3", "replicas: 1"))
    Path("service.yaml").write_text(SERVICE)
    assert "selector-matches-nothing" not in findings(check(".", "-o", "json"))
    Path("service.yaml").write_text(SERVICE.replace("{app: shop}", "{app: store}"))
    assert "selector-matches-nothing" in findings(check(".", "-o", "json"))


def test_classes_of_another_folder_are_known(check: Check) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "shop.yaml").write_text(f"{SHOP}---\n{INGRESS}")
    Path("class.yaml").write_text(INGRESS_CLASS)
    report = json.loads(check("a", "b", "class.yaml", "-o", "json").stdout)
    told = {w["gateway"] for f in report["findings"] for w in f["windows"]}
    assert told == {"contour (public)"}


def test_an_object_that_is_twice_in_a_file_is_told(check: Check) -> None:
    Path("shop.yaml").write_text(f"{SHOP}---\n{SERVICE}")
    assert (
        "note: shop.yaml:29:1: Service prod/shop is also in shop.yaml:20"
        in check("shop.yaml").stderr
    )


def test_a_namespace_for_objects_that_name_none(check: Check) -> None:
    Path("shop.yaml").write_text(
        SHOP.replace("  namespace: prod\n", "").replace(", namespace: prod", "")
    )
    assert {
        f["object"]["namespace"] for f in findings(check("shop.yaml", "-o", "json")).values()
    } == {""}
    found = findings(check("shop.yaml", "-o", "json", "-n", "stage"))
    assert {f["object"]["namespace"] for f in found.values()} == {"stage"}
    assert found["no-readiness-probe"]["location"]["line"] == 14


def test_helm_charts_are_left_to_helm(check: Check) -> None:
    Path("chart/templates").mkdir(parents=True)
    Path("chart/Chart.yaml").write_text("name: x\n")
    Path("chart/values.yaml").write_text("a: 1\n")
    Path("chart/templates/d.yaml").write_text("{{ if .x }}\n")
    result = check(".")
    assert result.exit_code == 1
    assert "helm template ./chart | upstream-guard check -" in result.stderr


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders kustomize folders")
def test_kustomize_folders(check: Check) -> None:
    Path("kustomization.yaml").write_text("resources: [shop.yaml]\nnamespace: stage\n")
    result = check("-k", ".", "-o", "json")
    found = findings(result)
    assert found["no-readiness-probe"]["object"]["namespace"] == "stage"
    assert found["no-readiness-probe"]["location"] == {
        "file": "kustomize .",
        "line": None,
        "column": None,
    }
    Path("none").mkdir()
    Path("none/kustomization.yaml").write_text("resources: []\nnamePrefix: x-\n")
    empty = check("-k", "none")
    assert empty.exit_code == 2
    assert "error: kustomize none: no Kubernetes object in it" in empty.stderr
    broken = check("-k", "nowhere")
    assert broken.exit_code == 2
    assert "kubectl kustomize nowhere" in broken.stderr


def test_kustomize_without_kubectl(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = check("-k", ".")
    assert result.exit_code == 2
    assert "kubectl is not installed" in result.stderr


def test_what_is_too_large_is_refused(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 100)
    result = check("shop.yaml")
    assert result.exit_code == 2
    assert "split it" in result.stderr


def test_quiet(check: Check) -> None:
    result = check("shop.yaml", "-q")
    assert all(
        "Deployment prod/shop" in line or "Service prod/shop" in line
        for line in result.stdout.splitlines()
    )
    assert result.stderr == ""


def test_names_that_a_terminal_would_obey_are_harmless(check: Check) -> None:
    evil = SHOP.replace("name: shop", 'name: "sh\\e[31mop"')
    result = check("-", stdin=evil)
    assert "\x1b" not in result.output


def test_a_narrow_encoding_is_no_reason_to_fail(check: Check) -> None:
    assert check("shop.yaml").exit_code == 1
    program = [sys.executable, "-m", "upstream_guard.cli", "check", "shop.yaml"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(program, capture_output=True, check=False, env=environment)
    assert done.returncode == 1
    assert b"no-readiness-probe" in done.stdout
    assert b"Traceback" not in done.stderr


def test_help_has_examples(check: Check) -> None:
    text = check("--help").stdout
    assert "helm template shop ./chart | upstream-guard check -" in text
    assert "upstreamguard.io/ignore" in text


def test_it_starts_without_what_only_the_operator_needs() -> None:
    """Most of the time that a small check takes is imports."""
    heavy = ["prometheus_client", "kubernetes", "kopf", "httpx", "aiohttp", "asyncio", "ssl"]
    code = f"import sys, upstream_guard.cli.check.command; print(set({heavy}) & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


GUARD = """\
apiVersion: upstreamguard.io/v1alpha1
kind: UpstreamGuard
metadata: {name: shop, namespace: prod}
spec:
  targetRef: {kind: Service, name: shop}
"""
PROFILE = """\
apiVersion: upstreamguard.io/v1alpha1
kind: GatewayProfile
metadata: {name: edge}
spec:
  match: {ingressClasses: [public]}
"""


def test_own_resources_are_checked_field_by_field(check: Check) -> None:
    broken = f"{GUARD}  probe:\n    interval: 1s\n    timeout: 3s\n  drian: {{}}\n"
    found = json.loads(check("-", "-o", "json", stdin=broken).stdout)["findings"]
    assert [(f["id"], f["field"], f["location"]["line"]) for f in found] == [
        ("invalid-guard", "spec.drian", 9)
    ]
    contradicting = broken.replace("  drian: {}\n", "")
    (one,) = json.loads(check("-", "-o", "json", stdin=contradicting).stdout)["findings"]
    assert (one["id"], one["location"]["line"]) == ("invalid-guard", 8)
    profile = check("-", stdin=f"{PROFILE}  retries: many\n")
    assert profile.exit_code == 1
    assert "spec.retries: must be a whole number, not 'many'" in profile.stdout
    assert "stdin:6" in profile.stdout


def test_a_guard_of_a_service_that_is_not_given(check: Check) -> None:
    Path("guard.yaml").write_text(GUARD.replace("name: shop}\n", "name: shopp}\n"))
    alone = findings(check("guard.yaml", "-o", "json"))
    assert alone["guard-not-accepted"]["severity"] == "info"
    assert check("guard.yaml").exit_code == 0
    together = findings(check(".", "-o", "json"))
    assert together["guard-not-accepted"]["severity"] == "warning"
    assert "guard-not-accepted" not in findings(
        check("-", "-o", "json", stdin=f"{SHOP}---\n{GUARD}")
    )


def test_a_finding_about_a_guard_is_suppressed_with_a_reason(check: Check) -> None:
    accepted = GUARD.replace(
        "namespace: prod}",
        'namespace: prod, annotations: {upstreamguard.io/ignore: "invalid-guard: for 2.0"}}',
    )
    assert check("-", stdin=f"{accepted}  later: 1\n").exit_code == 0


def test_a_gateway_profile_counts_for_predictions(check: Check) -> None:
    def lost(text: str) -> float:
        windows = findings(check("-", "-o", "json", stdin=text))["no-pre-stop"]["windows"]
        return sum(w["lost"]["value"] for w in windows)  # type: ignore[attr-defined] # JSON

    routed = f"{SHOP}---\n{INGRESS}---\n{INGRESS_CLASS}"
    slow = f"{routed}---\n{PROFILE}  detachLatency: 20s\n"
    assert lost(slow) > 3 * lost(routed)


def test_a_field_of_the_wrong_type_is_told_with_its_line(check: Check) -> None:
    wrong = SHOP.replace("replicas: 3", 'replicas: "three"').replace("8080\n---", '"8080"\n---')
    result = check("-", stdin=wrong)
    assert (
        "note: stdin:7:3: spec.replicas must be a whole number from 0 to 2147483647, not 'three'; "
        "Kubernetes refuses it, and here it counts as left out\n"
    ) in result.stderr
    assert "stdin:18:15: spec.template.spec.containers[0].ports[0].containerPort" in result.stderr
    assert not any("replicas" in line for line in check("-", "-q", stdin=wrong).stderr.splitlines())
    problems = json.loads(check("-", "-o", "json", stdin=wrong).stdout)["problems"]
    assert [(p["line"], p["fatal"]) for p in problems] == [(7, False), (18, False)]


def test_of_many_wrong_fields_the_first_are_told(check: Check) -> None:
    many = "".join(f"    l{n}: {n}\n" for n in range(500))
    text = f"{SERVICE.replace(', namespace: prod}', '}')}"
    text = text.replace("metadata: {name: shop}", f"metadata:\n  name: shop\n  labels:\n{many}")
    lines = check("-", stdin=text.rstrip() + "\n").stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "note: stdin: 480 more fields have a type that Kubernetes refuses"
