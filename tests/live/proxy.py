"""A proxy that alters requests or responses, so a service differs from the emulator on purpose."""

from __future__ import annotations

import threading
import urllib.parse
from http.client import HTTPConnection  # by name, because vcrpy replaces the module's attribute while it records
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    #: Takes the method, target and body of a request. Returns the target and body to send instead.
    AlterRequest = Callable[[str, str, bytes], tuple[str, bytes]]
    #: Takes the method and target of a request, and the status and body of its response. Returns the status and body
    #: to answer instead.
    AlterResponse = Callable[[str, str, int, bytes], tuple[int, bytes]]

_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class Proxy:
    """A proxy on a free port of loopback.

    Attributes:
        address: The proxy's URL.
    """

    def __init__(
        self, upstream: str, *, request: AlterRequest | None = None, answer: AlterResponse | None = None
    ) -> None:
        host = urllib.parse.urlsplit(upstream).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _forward(self) -> None:
                target, body = self.path, self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if request is not None:
                    target, body = request(self.command, target, body)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                connection = HTTPConnection(host)
                connection.request(self.command, target, body or None, headers)
                response = connection.getresponse()
                status, content = response.status, response.read()
                connection.close()
                if answer is not None:
                    status, content = answer(self.command, target, status, content)
                self.send_response(status)
                for name, value in response.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _forward  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
