"""A server on a real socket, which can die and come back at the same address."""

import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from tests.wire.controls import Controlled, Controls


class WireServer:
    """`app` on a free port of this machine, under `controls`, from entering to leaving."""

    def __init__(self, app: FastAPI, controls: Controls) -> None:
        self.controls = controls
        self._app = Controlled(app, controls)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        """The address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen at the address; again, after `stop`. Nothing happens where it listens already."""
        if self._server is not None:
            return
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=self.port, log_config=None, access_log=False, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), f"nothing can listen at {self.url}"
            self._thread.join(0.005)

    def stop(self) -> None:
        """Die: connections are cut, and the address is refused."""
        if self._server is None or self._thread is None:
            return
        self._server.force_exit = self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "the server did not end"
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.controls.gate.set()
        self.stop()
