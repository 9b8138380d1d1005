"""What happens around every request: an id that the log lines and the answer carry, one line in the log, one count."""

import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.teacher import logs
from services.teacher.metrics import Metrics

log = logging.getLogger(__name__)

QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds by machines


class RequestLog:
    """ASGI middleware: `X-Request-ID` in and out, the access log, and the count of requests by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = logs.clean_request_id(Headers(scope=scope).get("x-request-id"))
        status = 500  # what the client sees where the app breaks before it answers

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with logs.request(request_id):
            began = time.perf_counter()
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                self._note(scope, status, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        name = route.path if route is not None else "unknown"  # the path itself is the client's: any number of them
        self._metrics.request(name, status, seconds)
        level = logging.DEBUG if scope["path"] in QUIET else logging.INFO
        figures = {"route": name, "status": status, "seconds": round(seconds, 4)}
        log.log(level, "%s %s %d in %.3f s", scope["method"], name, status, seconds, extra=figures)
