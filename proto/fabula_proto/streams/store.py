"""Values under keys, on the server that carries the streams: remembered verdicts, and small settings of a run."""

from collections.abc import Mapping, Sequence

from fabula_proto.streams.link import SOCKET_TIMEOUT_S, Link


class Store:
    """Reads and writes values. Safe to share between threads; nothing connects before the first call.

    A connection that is lost is tried again for `patience_s` seconds, and a command that has no reply after
    `timeout_s` seconds counts as lost; then, or when the server refuses a command, a method raises TransportError.
    """

    def __init__(self, url: str, *, patience_s: float, timeout_s: float = SOCKET_TIMEOUT_S):
        self._link = Link(url, patience_s=patience_s, timeout_s=timeout_s)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of `keys`, in order; None for a key that is not there, or no longer."""
        return self._link.get_many(keys) if keys else []

    def put_many(self, values: Mapping[str, bytes], ttl_s: int) -> None:
        """Set `values`, each of which the server forgets after `ttl_s` seconds (at least 1).

        A failure may leave some of them set.
        """
        if ttl_s < 1:
            raise ValueError(f"ttl_s {ttl_s} must be at least 1 second")
        if values:
            self._link.put_many(values, ttl_s)

    def read_value(self, key: str) -> str | None:
        """The text of `key`; None where there is none. Bytes that are not UTF-8 read as U+FFFD."""
        [value] = self._link.get_many([key])
        return None if value is None else value.decode("utf-8", errors="replace")

    def write_value(self, key: str, value: str | None) -> None:
        """Set `key` until further notice; None removes it."""
        if value is None:
            self._link.delete(key)
        else:
            self._link.put_many({key: value.encode()}, None)

    def close(self) -> None:
        """Close the connections."""
        self._link.close()
