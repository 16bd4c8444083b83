"""Data stores: pods that each keep data of their own, so that a second one is no reserve."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from upstream_guard.core.predict.rules.serving import target_numbers
from upstream_guard.core.predict.state import State, Workload

_STORES: Final[Mapping[int, str]] = MappingProxyType(
    {
        1433: "SQL Server",
        1521: "Oracle Database",
        2181: "ZooKeeper",
        2379: "etcd",
        3306: "MySQL",
        4222: "NATS",
        5432: "PostgreSQL",
        5672: "RabbitMQ",
        6379: "Redis",
        9042: "Cassandra",
        9092: "Kafka",
        9200: "Elasticsearch",
        11211: "Memcached",
        26257: "CockroachDB",
        27017: "MongoDB",
    }
)
"""By the port that the product's documentation names as its default for clients."""


def store_behind(state: State, workload: Workload) -> str:
    """The data store whose usual port the Service's traffic arrives at, e.g. `Redis`; empty if none."""
    numbers = sorted(target_numbers(state, workload))
    return next((_STORES[number] for number in numbers if number in _STORES), "")
