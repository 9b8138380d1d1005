"""How messages travel: Redis Streams (or Valkey), with leases, retries, dead letters and results that come once.

`Store` keeps values beside them that may be forgotten.
"""

from fabula_proto.streams.answers import ResultStream, Work
from fabula_proto.streams.client import START, DeadLetter, Lag, Streams, UnreadableEntryError, dead_stream
from fabula_proto.streams.consumer import Consumer
from fabula_proto.streams.link import TransportError
from fabula_proto.streams.store import Store

__all__ = [
    "START",
    "Consumer",
    "DeadLetter",
    "Lag",
    "ResultStream",
    "Store",
    "Streams",
    "TransportError",
    "UnreadableEntryError",
    "Work",
    "dead_stream",
]
