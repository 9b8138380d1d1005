"""A small server that answers what it is told, whatever it is asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, dict[str, str], str]
Responder = Callable[[int, dict[str, str]], Answer | None]
FINE: Answer = (200, {}, '{"fine": true}')


@contextmanager
def answering(respond: Responder, bodies: list[bytes] | None = None) -> Iterator[str]:
    """A server whose n-th request (from 0), with its headers, gets what `respond` says; None drops the connection.

    The bodies of the requests are kept in `bodies`.
    """
    count, lock, kept = iter(range(1_000_000)), threading.Lock(), [] if bodies is None else bodies

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with lock:
                number = next(count)
                kept.append(body)
            answer = respond(number, {name.lower(): value for name, value in self.headers.items()})
            if answer is None:
                self.close_connection = True
                return
            status, headers, text = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
