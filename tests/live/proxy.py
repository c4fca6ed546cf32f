"""A proxy that alters responses, so a service differs from the emulator on purpose."""

from __future__ import annotations

import threading
import urllib.parse
from http.client import HTTPConnection  # by name: vcrpy puts another one into the module while it records
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    #: What is to be asked in place of a method, a target and a body: a target and a body.
    Ask = Callable[[str, str, bytes], tuple[str, bytes]]
    #: What is to be answered in place of a status and a body to a method and a target: a status and a body.
    Answer = Callable[[str, str, int, bytes], tuple[int, bytes]]

_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


class Proxy:
    """A proxy on a free port of loopback.

    Attributes:
        address: Its URL.
    """

    def __init__(self, upstream: str, *, request: Ask | None = None, answer: Answer | None = None) -> None:
        host = urllib.parse.urlsplit(upstream).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _pass(self) -> None:
                target, body = self.path, self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if request is not None:
                    target, body = request(self.command, target, body)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                connection = HTTPConnection(host)
                connection.request(self.command, target, body or None, headers)
                response = connection.getresponse()
                status, said = response.status, response.read()
                connection.close()
                if answer is not None:
                    status, said = answer(self.command, target, status, said)
                self.send_response(status)
                for name, value in response.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = do_PATCH = do_DELETE = _pass  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Say nothing."""

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
