"""A port that another program takes between our look at it and our service's start."""

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from services.local import http, ports
from services.local.house import House
from services.local.interrupts import Interrupts
from services.local.plan import Request, make_plan, write_plan
from services.local.processes import Children
from services.local.sessions import Stopwatch


@pytest.fixture
def answering() -> Iterator[int]:
    """Port of a program that answers every request with 200, as another `up`'s teacher would."""
    listening = socket.create_server((ports.HOST, 0))
    port: int = listening.getsockname()[1]

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    thread = threading.Thread(target=serve)
    thread.start()
    yield port
    listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
    thread.join()
    listening.close()


def test_a_lost_port_is_replaced_and_the_other_program_is_not_taken_for_ours(
    answering: int, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(Request(tmp_path, preset="smoke", teacher="rules:"))
    write_plan(plan)
    monkeypatch.setattr(ports, "is_free", lambda port: True)  # as it was a moment ago
    out = io.StringIO()
    with Interrupts() as interrupts, Children() as children:
        house = House(plan, Console(file=out, width=200), interrupts, children, Stopwatch())
        url = house.teacher(answering, redis_url)
        assert url != f"http://{ports.HOST}:{answering}"
        assert http.readiness(url).ready
        assert len(children.running) == 1
    assert f"Port {answering} is taken; the teacher rules: gets" in out.getvalue()
