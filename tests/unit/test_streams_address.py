"""An address that names the file of its password."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fabula_proto.streams import Streams, TransportError
from fabula_proto.streams.address import Address
from services.redis_server import LocalRedis

SECRET = "s3cret/with?odd&signs"  # noqa: S105 - of a server that lives for one test


@pytest.fixture
def guarded(redis_server: LocalRedis) -> Iterator[str]:
    """The session's server, asking for a password during one test."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", SECRET)
        yield redis_server.url
        client.config_set("requirepass", "")


def written(folder: Path, text: str) -> Path:
    path = folder / "password"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_password_comes_from_the_file(guarded: str, tmp_path: Path) -> None:
    with Streams(guarded) as without, pytest.raises(TransportError, match="check the user and password"):
        without.ping()
    with Streams(f"{guarded}?password_file={written(tmp_path, SECRET + chr(10))}") as streams:
        streams.ping()


def test_other_options_of_an_address_stay(tmp_path: Path) -> None:
    address = Address.read(f"redis://host:1/2?health_check_interval=3&password_file={written(tmp_path, 'x')}")
    assert (address.url, address.password) == ("redis://host:1/2?health_check_interval=3", "x")


def test_neither_file_nor_password_is_shown(tmp_path: Path) -> None:
    address = Address.read(f"redis://user@host:1/0?password_file={written(tmp_path, SECRET)}")
    assert address.shown == "redis://host:1/0"
    assert SECRET not in repr(address)


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_password_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ValueError, match=r"password_file '.*' is empty; write the server's password into it"):
        Address.read(f"redis://host?password_file={written(tmp_path, content)}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"password_file '.*nowhere' cannot be read: .*No such file"):
        Address.read(f"redis://host?password_file={tmp_path / 'nowhere'}")
