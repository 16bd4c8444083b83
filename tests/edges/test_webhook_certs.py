"""Certificates: made, rotated before they expire, agreed on by two replicas, never distrusted."""

import asyncio
import base64
import copy
import ssl

import pytest
from cryptography import x509

from upstream_guard.core.names import WEBHOOK_SECRET
from upstream_guard.kube.client import ApiError
from upstream_guard.webhook.certs import (
    CertAction,
    CertBundle,
    carry_out,
    new_authority,
    plan_certs,
    service_names,
)
from upstream_guard.webhook.keeper import CertKeeper, load, server_context

NAMES = service_names("upstream-guard-webhook", "upstream-guard-system")
NOW = 1_800_000_000.0
DAY = 86_400.0


def step(bundle, now, names=NAMES):
    plan = plan_certs(bundle, names, now)
    return plan.action, carry_out(plan, bundle, names, now)


@pytest.fixture(scope="module")
def fresh():
    return step(None, NOW)[1]


def trusts(bundle, ca_pem):
    """Whether a client that has `ca_pem` accepts the serving certificate."""
    cert = x509.load_pem_x509_certificate(bundle.cert)
    for ca in x509.load_pem_x509_certificates(ca_pem):
        if ca.subject == cert.issuer:
            cert.verify_directly_issued_by(ca)
            return True
    return False


def test_fresh_certificates_are_kept_until_two_thirds_of_their_life(fresh):
    plan = plan_certs(fresh, NAMES, NOW)
    assert plan.action is CertAction.KEEP
    assert plan.due == pytest.approx(NOW + 60 * DAY, abs=2 * 3600)
    assert plan_certs(fresh, NAMES, plan.due - 1).action is CertAction.KEEP
    action, renewed = step(fresh, plan.due)
    assert action is CertAction.REISSUE
    assert renewed.ca == fresh.ca
    assert renewed.cert != fresh.cert
    assert trusts(renewed, fresh.ca_bundle)


@pytest.mark.parametrize(
    ("damage", "action"),
    [
        (lambda b: {**b, "tls.crt": "AAAA"}, CertAction.REISSUE),
        (lambda b: {**b, "tls.key": b["ca.key"]}, CertAction.REISSUE),
        (lambda b: {**b, "tls.crt": b["ca.crt"], "tls.key": b["ca.key"]}, CertAction.REISSUE),
        (lambda b: {**b, "ca.crt": "AAAA"}, CertAction.CREATE),
        (lambda b: {**b, "ca.key": b["tls.key"]}, CertAction.CREATE),
        (lambda b: {k: v for k, v in b.items() if k != "ca.key"}, CertAction.CREATE),
        (lambda b: {**b, "ca.key": "not base64!"}, CertAction.CREATE),
        (lambda _: {}, CertAction.CREATE),
    ],
)
def test_a_damaged_secret_is_repaired_as_gently_as_possible(fresh, damage, action):
    bundle = CertBundle.from_data(damage(fresh.to_data()))
    assert plan_certs(bundle, NAMES, NOW).action is action
    assert plan_certs(step(bundle, NOW)[1], NAMES, NOW).action is CertAction.KEEP


def test_expiry_new_names_and_a_clock_that_jumped(fresh):
    assert plan_certs(fresh, NAMES, NOW + 91 * DAY).action is CertAction.REISSUE
    assert plan_certs(fresh, NAMES, NOW + 731 * DAY).action is CertAction.CREATE
    assert plan_certs(fresh, (*NAMES, "198.18.0.1"), NOW).action is CertAction.REISSUE
    with_ip = step(fresh, NOW, (*NAMES, "198.18.0.1"))[1]
    assert plan_certs(with_ip, (*NAMES, "198.18.0.1"), NOW).action is CertAction.KEEP
    assert plan_certs(fresh, NAMES, NOW - DAY).action is CertAction.CREATE


def test_over_years_no_client_with_yesterdays_bundle_ever_distrusts_us(fresh):
    bundle, actions = fresh, set()
    for day in range(4 * 365):
        known = bundle.ca_bundle
        now = NOW + day * DAY + 60
        action, bundle = step(bundle, now)
        actions.add(action)
        assert trusts(bundle, known), f"day {day}, {action}"
        assert len(x509.load_pem_x509_certificates(bundle.ca_bundle)) <= 3
    assert actions == {
        CertAction.KEEP,
        CertAction.REISSUE,
        CertAction.PREPARE_CA,
        CertAction.PROMOTE_CA,
    }


def test_the_secrets_data_survives_a_round_trip(fresh):
    bundle = CertBundle(fresh.cert, fresh.key, fresh.ca, new_authority(NOW), b"old")
    assert CertBundle.from_data(bundle.to_data()) == bundle
    assert base64.b64decode(bundle.to_data()["tls.crt"]) == fresh.cert


class Store:
    """One Secret with the API server's rules for concurrent writers."""

    def __init__(self):
        self.secret = None
        self.writes = 0

    async def get(self, path):
        assert path.endswith(f"/secrets/{WEBHOOK_SECRET}")
        await asyncio.sleep(0)
        if self.secret is None:
            raise ApiError(404, "NotFound", "no such Secret")
        return copy.deepcopy(self.secret)

    async def create(self, path, body):
        assert path.endswith("/secrets")
        await asyncio.sleep(0)
        if self.secret is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self._store(body)

    async def replace(self, path, body):
        await asyncio.sleep(0)
        if body["metadata"]["resourceVersion"] != self.secret["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return self._store(body)

    def _store(self, body):
        self.writes += 1
        self.secret = copy.deepcopy(body)
        self.secret["metadata"]["resourceVersion"] = str(self.writes)
        return self.secret


async def test_two_replicas_agree_when_they_create_and_when_they_rotate():
    store, now = Store(), [NOW]
    keepers = [CertKeeper(store, "ns", NAMES, lambda: now[0]) for _ in range(2)]
    first = await asyncio.gather(*(keeper.refresh() for keeper in keepers))
    assert first[0] == first[1]
    assert store.writes == 1
    now[0] += 61 * DAY
    second = await asyncio.gather(*(keeper.refresh() for keeper in keepers))
    assert second[0] == second[1] != first[0]
    assert store.writes == 2
    await keepers[0].refresh()
    assert store.writes == 2, "a steady cluster gets no writes"


async def test_other_errors_are_not_swallowed_and_endless_conflicts_end():
    class Forbidden(Store):
        async def create(self, path, body):
            raise ApiError(403, "Forbidden", "no")

    class Contended(Store):
        async def create(self, path, body):
            raise ApiError(409, "AlreadyExists", "yet never there")

    for store, status in ((Forbidden(), 403), (Contended(), 409)):
        with pytest.raises(ApiError) as caught:
            await CertKeeper(store, "ns", NAMES, lambda: NOW).refresh()
        assert caught.value.status == status


def test_a_certificate_and_a_foreign_key_are_refused_by_the_context(fresh):
    other = step(None, NOW)[1]
    with pytest.raises(ssl.SSLError):
        load(server_context(), CertBundle(fresh.cert, other.key, fresh.ca))
