"""Values under keys, on a real server, and on one that went away."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from fabula_proto.streams import Store, TransportError
from services.redis_server import LocalRedis, start_server


@pytest.fixture
def store(redis_url: str) -> Iterator[Store]:
    with closing(Store(redis_url, patience_s=0.0)) as store:
        yield store


def test_what_was_put_comes_back_in_the_order_of_the_keys(store: Store) -> None:
    values = {"a": b"\x00\xff", "b": b"", "c": "\u00e9".encode()}
    store.put_many(values, ttl_s=60)
    assert store.get_many(["c", "missing", "a", "b", "a"]) == [values["c"], None, values["a"], b"", values["a"]]


def test_nothing_asks_for_nothing(redis_server: LocalRedis, tmp_path: Path) -> None:
    with start_server(tmp_path, binary=redis_server.binary) as server:
        url = server.url
    with closing(Store(url, patience_s=0.0)) as store:
        assert store.get_many([]) == []
        store.put_many({}, ttl_s=1)


def test_many_values_are_forgotten_in_time_and_written_anew(store: Store, redis_url: str) -> None:
    store.put_many({"a": b"1", "b": b"1"}, ttl_s=100)
    store.put_many({"a": b"2"}, ttl_s=1000)
    with redis.Redis.from_url(redis_url) as client:
        lifetimes = [client.ttl("a"), client.ttl("b")]
    assert lifetimes[0] in range(990, 1001)
    assert lifetimes[1] in range(90, 101)
    assert store.get_many(["a", "b"]) == [b"2", b"1"]


def test_a_lifetime_below_a_second_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="ttl_s 0 must be at least 1"):
        store.put_many({"a": b"1"}, ttl_s=0)


def test_a_value_stays_until_it_is_removed(store: Store, redis_url: str) -> None:
    assert store.read_value("run") is None
    store.write_value("run", "llama-\u00e9")
    assert store.read_value("run") == "llama-\u00e9"
    with redis.Redis.from_url(redis_url) as client:
        assert client.ttl("run") == -1
        client.set("run", b"\xff")
    assert store.read_value("run") == "\ufffd"
    store.write_value("run", None)
    assert store.read_value("run") is None
    store.write_value("run", None)


def test_a_key_of_another_kind_reads_as_missing_and_cannot_hide_the_others(store: Store, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.xadd("stream", {"body": "x"})
    store.put_many({"a": b"1"}, ttl_s=60)
    assert store.get_many(["stream", "a"]) == [None, b"1"]


def test_a_server_that_is_away_or_refuses_is_a_transport_error(redis_server: LocalRedis, tmp_path: Path) -> None:
    with (
        start_server(tmp_path, binary=redis_server.binary) as server,
        closing(Store(server.url, patience_s=0.0)) as store,
    ):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", 1)
        with pytest.raises(TransportError, match=r"cannot write a: .* answered .*'maxmemory'.*give it more memory"):
            store.put_many({"a": b"1"}, ttl_s=60)
        server.stop()
        for ask in (lambda: store.get_many(["a"]), lambda: store.read_value("a"), lambda: store.write_value("a", "1")):
            with pytest.raises(TransportError, match=r"no Redis server answers at redis://127\.0\.0\.1"):
                ask()


def test_a_server_that_came_back_needs_no_second_try(redis_server: LocalRedis, tmp_path: Path) -> None:
    with start_server(tmp_path, binary=redis_server.binary) as server:
        store = Store(server.url, patience_s=0.0)
        store.write_value("kept", "yes")
    with closing(store), start_server(tmp_path, server.port, binary=redis_server.binary):
        assert store.read_value("kept") == "yes"


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="Redis address 'somewhere' cannot be used"):
        Store("somewhere", patience_s=0.0)
