"""Questions to the cluster's DNS, answered by a real server on loopback."""

import asyncio
import time

import pytest

from upstream_guard.controller import name_looks
from upstream_guard.controller.name_looks import NameLooks
from upstream_guard.core.model import ObjectRef
from upstream_guard.lab.nameserver import Fault, Nameserver
from upstream_guard.probes.dns import Resolver

SHOP = ObjectRef("prod", "shop")
NAME = "shop.prod.svc.cluster.local"
KNOWN = "kubernetes.default.svc.cluster.local"


@pytest.fixture
def server():
    with Nameserver({KNOWN: {"A": ["10.96.0.1"]}, NAME: {"A": ["10.96.0.7"]}}) as made:
        yield made


@pytest.fixture
async def looks(server):
    made = NameLooks(
        Resolver([server.address], try_seconds=0.1, lookup_seconds=0.2), None, time.time
    )
    made.seen = []
    made._on_look = lambda service, look: made.seen.append((service, look.name, look.fault))
    yield made
    made.close()


async def test_says_whether_a_services_name_resolves(server, looks, until):
    await looks.run()
    looks.want(SHOP)
    await until(lambda: looks.seen)
    del server.records[NAME]
    looks.want(SHOP)
    await until(lambda: len(looks.seen) == 2)
    server.fault = Fault.SILENT
    looks.want(SHOP)
    await until(lambda: len(looks.seen) == 3)
    assert looks.seen[:2] == [(SHOP, NAME, ""), (SHOP, NAME, "no such name")]
    assert looks.seen[2][2] == "no answer"


async def test_an_answer_that_users_would_not_wait_for_is_none(server, looks, until, monkeypatch):
    """A resolver may ask again and again until DNS is back."""
    await looks.run()
    looks._resolver = Resolver([server.address], try_seconds=0.1, lookup_seconds=60.0)
    monkeypatch.setattr(name_looks, "PATIENCE_SECONDS", 0.3)
    server.fault = Fault.SILENT
    looks.want(SHOP)
    await until(lambda: looks.seen)
    assert looks.seen == [(SHOP, NAME, "no answer")]


async def test_a_name_that_has_only_another_kind_of_address_resolves(server, looks, until):
    server.records[NAME] = {"AAAA": ["fd00::7"]}
    await looks.run()
    looks.want(SHOP)
    await until(lambda: looks.seen)
    assert looks.seen == [(SHOP, NAME, "")]


async def test_a_server_that_does_not_know_the_cluster_is_not_believed(
    server, looks, until, monkeypatch, background
):
    monkeypatch.setattr(name_looks, "AGAIN_SECONDS", 0.01)
    known = server.records.pop(KNOWN)
    background(looks.run())
    await until(lambda: len(server.asked) > 2)
    looks.want(SHOP)
    assert not looks._tasks
    server.records[KNOWN] = known
    await until(lambda: looks.trusted)
    asked = len(server.asked)
    await asyncio.sleep(0.05)
    assert len(server.asked) == asked, "known once, it is not asked again"


async def test_one_question_at_a_time_for_each_service(server, looks, until):
    await looks.run()
    for _ in range(3):
        looks.want(SHOP)
    await until(lambda: looks.seen)
    assert [name for name, _, _ in server.asked].count(NAME) == 1


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("search prod.svc.corp.example svc.corp.example corp.example\n", "corp.example"),
        ("search office.example\n", "cluster.local"),
    ],
)
def test_the_clusters_domain_is_what_the_kubelet_wrote(tmp_path, text, domain):
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver 10.96.0.10\n{text}")
    assert Resolver(resolv_conf=conf).cluster_domain == domain
