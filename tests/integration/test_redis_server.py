"""The Redis server as a child process: real programs, real folders, real kills."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from services import redis_server as subject
from services.redis_server import LocalRedis, RedisBinary, RedisServerError, find_server, start_server

ROOT = Path(__file__).resolve().parents[2]


def script(path: Path, text: str) -> Path:
    """A program for the PATH."""
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_it_keeps_what_was_written_and_evicts_nothing(redis_server: LocalRedis, tmp_path: Path) -> None:
    folder = tmp_path / "data with spaces"
    with start_server(folder, binary=redis_server.binary) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        said = client.config_get("*")
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}
        text = {_text(key): _text(value) for key, value in said.items()}
        assert {key: text[key] for key in wanted} == wanted
        assert os.getsid(server.pid) == server.pid  # Ctrl-C in our terminal does not reach it
    assert server.exit_code() == 0
    with start_server(folder, binary=redis_server.binary) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_stopping_twice_is_fine(redis_server: LocalRedis, tmp_path: Path) -> None:
    server = start_server(tmp_path, binary=redis_server.binary)
    server.stop()
    server.stop()
    assert server.exit_code() == 0


def test_a_folder_in_use_is_refused(redis_server: LocalRedis) -> None:
    with pytest.raises(RedisServerError, match=f"in use by process {os.getpid()}; stop that process or choose another"):
        start_server(redis_server.folder, binary=redis_server.binary)
    assert redis_server.exit_code() is None


def test_a_taken_port_is_an_error_that_shows_the_servers_log(redis_server: LocalRedis, tmp_path: Path) -> None:
    with pytest.raises(RedisServerError, match=r"(?s)ended with exit code 1 on port \d+.*Address already in use"):
        start_server(tmp_path, redis_server.port, binary=redis_server.binary)
    with start_server(tmp_path, binary=redis_server.binary):
        pass  # the failed start left nothing behind


def test_a_server_that_outlived_its_killed_parent_is_replaced_with_its_data(
    redis_server: LocalRedis, tmp_path: Path
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from services.redis_server import start_server\n"
        "server = start_server(Path(sys.argv[1])); print(server.pid, server.url, flush=True); time.sleep(3600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        with redis.Redis.from_url(url) as client:
            client.set("kept", "yes")
        parent.send_signal(signal.SIGKILL)
    with start_server(tmp_path, binary=redis_server.binary) as server:
        assert server.pid != int(pid)
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"
        with pytest.raises(redis.ConnectionError), redis.Redis.from_url(url) as client:
            client.ping()


def test_a_server_of_somebody_else_on_the_remembered_port_is_left_alone(
    redis_server: LocalRedis, tmp_path: Path
) -> None:
    (tmp_path / "redis.port").write_text(str(redis_server.port), encoding="utf-8")
    with start_server(tmp_path, binary=redis_server.binary) as server:
        assert server.pid != redis_server.pid
    assert redis_server.exit_code() is None


def test_data_of_a_newer_server_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    old = RedisBinary(Path("/nowhere/redis-server"), "a test", (6, 2, 14))
    with pytest.raises(RedisServerError, match=r"Redis 7 or newer and /nowhere/redis-server is 6\.2\.14"):
        start_server(tmp_path, binary=old)


def test_a_program_that_never_answers_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "START_S", 0.3)
    silent = RedisBinary(script(tmp_path / "redis-server", "echo thinking; exec sleep 3600"), "a test", (7, 0, 0))
    with pytest.raises(RedisServerError, match=r"(?s)did not answer within 0 s.*thinking"):
        start_server(tmp_path / "data", binary=silent)


def test_the_path_comes_before_the_wheel_and_redis_before_valkey(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = script(tmp_path / "valkey-server", 'echo "Valkey server v=8.1.0 sha=0:0"')
    assert find_server() == RedisBinary(valkey, "valkey-server on the PATH", (8, 1, 0))
    other = script(tmp_path / "redis-server", 'echo "Redis server v=7.0.15 sha=0:0"')
    assert find_server() == RedisBinary(other, "redis-server on the PATH", (7, 0, 15))
    # Too old, then broken: passed over.
    script(other, 'echo "Redis server v=6.0.16 sha=0:0"')
    assert find_server() == RedisBinary(valkey, "valkey-server on the PATH", (8, 1, 0))
    script(other, "exit 127")
    assert find_server() == RedisBinary(valkey, "valkey-server on the PATH", (8, 1, 0))


def test_without_any_server_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subject, "_bundled", lambda: None)
    with pytest.raises(RedisServerError, match=r"neither redis-server nor valkey-server 6\.2 or newer is on the PATH"):
        start_server(tmp_path)


def test_it_starts_from_any_thread(redis_server: LocalRedis, tmp_path: Path) -> None:
    codes: list[int | None] = []

    def start_and_stop() -> None:
        with start_server(tmp_path, binary=redis_server.binary) as server:
            codes.append(server.exit_code())

    thread = threading.Thread(target=start_and_stop)
    thread.start()
    thread.join(30)
    assert codes == [None]
