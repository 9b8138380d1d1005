"""One finished run of the whole loop, for all tests that look at one."""

import socket

import pytest

from tests.e2e.up_helpers import ONE_THREAD, Finished, only_run, start, tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    runs_dir = tmp_path_factory.mktemp("up")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start(tiny(runs_dir, "--teacher-port", str(port)), runs_dir / "out", runs_dir, ONE_THREAD) as running:
            status = running.end()
    assert status == 0, running.text
    return Finished(runs_dir, only_run(runs_dir), status, running.text, port)
