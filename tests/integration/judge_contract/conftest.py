"""One model folder and one judge a case for the whole suite; a judge's server is as it was after each test."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from fabula_proto import TeacherIdentity
from services.teacher.judges.base import Judge
from services.teacher.spec import SERVERS
from tests.wire.bench import Bench
from tests.wire.serving import WireServer

Case = tuple[str, str | None]


@dataclass(frozen=True)
class Served:
    """A judge, and its server where it has one."""

    judge: Judge
    own_server: WireServer | None
    identity_at_first: TeacherIdentity

    @property
    def server(self) -> WireServer:
        """The server, of a judge that has one."""
        assert self.own_server is not None
        return self.own_server


class Judges:
    """Judges by backend and mode, each built when it is first asked for."""

    def __init__(self, bench: Bench, stack: ExitStack) -> None:
        self._bench = bench
        self._stack = stack
        self._found: dict[Case, Served] = {}

    def of(self, case: Case) -> Served:
        """The judge of a backend and mode."""
        if case not in self._found:
            backend, mode = case
            server = self._stack.enter_context(self._bench.server(backend)) if backend in SERVERS else None
            judge = self._stack.enter_context(self._bench.judge(backend, mode, server))
            self._found[case] = Served(judge, server, judge.identity)
        return self._found[case]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.at(tmp_path_factory.mktemp("models") / "judge")


@pytest.fixture(scope="session")
def judges(bench: Bench) -> Iterator[Judges]:
    with ExitStack() as stack:
        yield Judges(bench, stack)


@pytest.fixture
def served(judges: Judges, case: Case) -> Iterator[Served]:
    found = judges.of(case)
    yield found
    if found.own_server is not None:
        found.own_server.controls.reset()
        found.own_server.start()


@pytest.fixture
def judge(served: Served) -> Judge:
    return served.judge
