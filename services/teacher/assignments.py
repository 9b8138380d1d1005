"""Which teachers a run asked for, kept in Redis: every teacher that serves the queue follows it, restarts included."""

import json

from fabula_proto.streams import Store

PATIENCE_S = 5.0


def assignment_key(run: str) -> str:
    """Where the choice of `run` stands."""
    return f"fabula:teachers:{run}"


class Assignments:
    """The teachers of each run, by name; a run without an entry is judged by each service's own teacher."""

    def __init__(self, redis_url: str) -> None:
        self._store = Store(redis_url, patience_s=PATIENCE_S)

    def of(self, run: str) -> tuple[str, ...]:
        """Names of the run's teachers; empty where it has none of its own.

        Raises:
            TransportError: Redis does not answer.
        """
        value = self._store.read_value(assignment_key(run))
        return tuple(json.loads(value)) if value else ()

    def assign(self, run: str, names: tuple[str, ...]) -> None:
        """From its next batch on, `run` is judged by `names`; nobody named: by each service's own teacher.

        Raises:
            TransportError: Redis does not answer.
        """
        self._store.write_value(assignment_key(run), json.dumps(names) if names else None)

    def close(self) -> None:
        """Close the connections."""
        self._store.close()
