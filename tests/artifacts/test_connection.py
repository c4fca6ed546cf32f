"""What the client sends to Cloud Storage and to emulators: the chosen credentials, and nothing else."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import os
import signal
import socket
import ssl
import threading
import traceback
from typing import TYPE_CHECKING, Any

import google.oauth2.credentials
import pytest
import trustme

from tests.artifacts.tools import Clock, contents, error, python
from vertex_registry.artifacts import scan
from vertex_registry.errors import (
    AuthenticationError,
    InvalidArgumentError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.storage.server import Proxy, StorageServer
    from vertex_registry.artifacts import Storage

SECRET = "s3cret-of-somebody"  # noqa: S105  # nobody's


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a .netrc with credentials for every host, as people have them for their package index."""
    path = tmp_path / "netrc"
    path.write_text(f"default login somebody password {SECRET}\n", encoding="utf-8")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    return path


def token(value: str = "chosen", *, expired: bool = False) -> Any:
    """Return credentials with a token; expired ones ask Google's token server for another."""
    expiry = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(hours=-1 if expired else 1)
    return google.oauth2.credentials.Credentials(  # type: ignore[no-untyped-call]  # untyped upstream
        value, "refresh", None, "https://oauth2.googleapis.com/token", "id", "of-the-client", expiry=expiry
    )


# --- emulators --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("netrc")
@pytest.mark.parametrize("given", [None, token()])
def test_an_emulator_gets_no_credentials(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path, given: Any
) -> None:
    """Neither a token nor what's in .netrc goes to an emulator, by any request: list, upload, session, download."""
    proxy.fail("PUT", cut="request", after=1)
    storage = make(credentials=given, project="acme")
    uri = storage.upload(scan(folder), f"gs://{bucket}/churn-1")
    storage.list_names(uri)
    storage.download(uri)

    assert {seen.method for seen in proxy.seen} == {"GET", "POST", "PUT"}
    assert not [seen for seen in proxy.seen if "authorization" in {name.lower() for name in seen.headers}]
    encoded = base64.b64encode(f"somebody:{SECRET}".encode()).decode()
    assert not [seen for seen in proxy.seen if SECRET in str(seen) or encoded in str(seen) or "chosen" in str(seen)]


@pytest.mark.usefixtures("netrc")
def test_a_redirection_of_an_emulators_adds_no_credentials(storage: Storage, proxy: Proxy, bucket: str) -> None:
    """A redirect to another host doesn't read .netrc."""
    with contextlib.closing(Recorder()) as other:
        proxy.fail("GET", "/o?", status=302, headers={"Location": f"http://localhost:{other.port}/"})
        with contextlib.suppress(RegistryError):
            storage.list_names(f"gs://{bucket}/m")

    assert other.received
    assert "authorization" not in other.received.lower()


class Recorder:
    """A server that records what it gets, and answers with an empty listing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.received = ""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                with connection:
                    self.received += connection.recv(65536).decode("latin-1")
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    def close(self) -> None:
        """End it."""
        self._socket.close()


PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_emulator_on_this_machine_is_reached_without_a_proxy(
    make: Callable[..., Storage],
    storage_server: StorageServer,
    bucket: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
) -> None:
    """A company's proxy can't reach this machine."""
    with contextlib.closing(Recorder()) as company:
        for variable in PROXIES[:6]:
            monkeypatch.setenv(variable, f"http://127.0.0.1:{company.port}")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_server.url.replace("127.0.0.1", host))
        uri = make().upload(scan(folder), f"gs://{bucket}/churn-1")
        assert contents(make().download(uri)) == contents(folder)

    assert company.received == ""


@pytest.mark.usefixtures("_no_proxies", "netrc")
def test_an_emulator_elsewhere_is_reached_through_a_proxy(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator on another machine may be behind the proxy, which gets no credentials either."""
    with contextlib.closing(Recorder()) as company:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{company.port}")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://storage.example:4443")
        assert storage.list_names("gs://bucket/m") == ()

    assert company.received.startswith("GET http://storage.example:4443/storage/v1/b/bucket/o?")
    assert "authorization" not in company.received.lower()


@pytest.mark.parametrize(
    "address",
    [
        f"http://somebody:{SECRET}@127.0.0.1:9",
        f"somebody:{SECRET}@127.0.0.1:9",
        f"http://127.0.0.1:9/?token={SECRET}",
        f"http://127.0.0.1:9#{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"http://[::1]{SECRET}:9",
        f"http://localhost:{SECRET}",
        f"http:///{SECRET}",
        "",  # a script may have set it to a variable that is unset
        " ",
    ],
)
def test_an_emulators_address_is_checked(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """An address with a user, a password or a query is refused, and no error repeats it."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    for action in (
        lambda: storage.list_names("gs://bucket/m"),
        lambda: storage.download("gs://bucket/m"),
        lambda: storage.upload(scan(folder), "gs://bucket/m"),
    ):
        with pytest.raises(InvalidArgumentError, match="Set it to http://host:port") as caught:
            action()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


# --- Cloud Storage itself ---------------------------------------------------------------------------------------------


class Cloud:
    """An HTTPS proxy that answers in place of Cloud Storage and Google's token server.

    Attributes:
        requests: The first line and the headers of each request, by host.
        answers: What is answered next, by host: a status, a body, and perhaps a header. Else an empty object.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self.requests: list[tuple[str, str]] = []
        self.answers: dict[str, list[tuple[int, bytes, str]]] = {}
        self._authority = authority
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self._socket.accept()[:1], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        asked = connection.recv(65536).decode("latin-1")
        host = asked.split()[1].partition(":")[0]
        self.requests.append(("proxy", asked))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(host).configure_cert(context)
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(connection, server_side=True) as wrapped,
            wrapped.makefile("rb") as stream,
        ):
            while line := stream.readline():
                head = [line.decode("latin-1"), *map(bytes.decode, iter(stream.readline, b"\r\n"))]
                sizes = [text.partition(":")[2] for text in head if text.lower().startswith("content-length:")]
                stream.read(int(sizes[0]) if sizes else 0)
                self.requests.append((host, "".join(head)))
                queued = self.answers.get(host)
                status, body, header = queued.pop(0) if queued else (200, b"{}", "")
                answer = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
                wrapped.sendall("\r\n".join([*answer, *filter(None, [header]), "", ""]).encode() + body)

    def sent_to(self, host: str) -> list[str]:
        """Return the requests to a host."""
        return [text for name, text in self.requests if name == host]

    def close(self) -> None:
        """End it."""
        self._socket.close()


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_proxies: None) -> Iterator[Cloud]:
    """Cloud Storage behind the proxy that the environment names."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    made = Cloud(authority)
    monkeypatch.setenv("HTTPS_PROXY", made.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    yield made
    made.close()


@pytest.mark.usefixtures("netrc")
def test_cloud_storage_gets_the_chosen_credentials(make: Callable[..., Storage], cloud: Cloud) -> None:
    """Cloud Storage gets the token that the caller chose, through the proxy, and never what's in .netrc."""
    assert make(credentials=token(), project="acme").list_names("gs://bucket/m") == ()

    (asked,) = cloud.sent_to("storage.googleapis.com")
    assert asked.lower().count("authorization:") == 1
    assert "Bearer chosen" in asked
    (connect,) = cloud.sent_to("proxy")
    assert connect.startswith("CONNECT storage.googleapis.com:443")
    assert "authorization" not in connect.lower()


@pytest.mark.usefixtures("netrc")
def test_a_token_server_gets_nothing_else(make: Callable[..., Storage], cloud: Cloud) -> None:
    """Google's token server gets the credentials that were chosen, and not what's in .netrc."""
    cloud.answers["oauth2.googleapis.com"] = [FRESH]
    assert make(credentials=token(expired=True), project="acme").list_names("gs://bucket/m") == ()

    (refresh,) = [text for text in cloud.sent_to("oauth2.googleapis.com") if text.startswith("POST")]
    assert "authorization" not in refresh.lower()
    assert "Bearer fresh" in cloud.sent_to("storage.googleapis.com")[0]


@pytest.mark.usefixtures("netrc")
def test_a_session_at_cloud_storage_gets_no_credentials(
    make: Callable[..., Storage], cloud: Cloud, folder: Path
) -> None:
    """A session's address is its permission, so its chunks carry neither the token nor .netrc's credentials."""
    cloud.answers["storage.googleapis.com"] = [
        (200, b"{}", ""),
        (200, b"{}", "Location: https://storage.googleapis.com/upload?upload_id=1"),
        (403, error("No."), ""),
    ]
    with pytest.raises(PermissionDeniedError):
        make(credentials=token(), project="acme").upload(scan(folder / "model.joblib"), "gs://bucket/m")

    listed, begun, put = cloud.sent_to("storage.googleapis.com")
    assert put.startswith("PUT /upload?upload_id=1")
    assert "authorization" not in put.lower()
    for asked in (listed, begun):
        assert "Bearer chosen" in asked
        assert asked.lower().count("authorization:") == 1


@pytest.mark.usefixtures("netrc")
def test_a_redirection_takes_no_credentials_elsewhere(make: Callable[..., Storage], cloud: Cloud) -> None:
    """A redirect to another host gets neither the token nor what's in .netrc."""
    with contextlib.closing(Recorder()) as other:
        cloud.answers["storage.googleapis.com"] = [(302, b"", f"Location: http://127.0.0.1:{other.port}/")]
        assert make(credentials=token(), project="acme").list_names("gs://bucket/m") == ()

    assert "Bearer chosen" in cloud.sent_to("storage.googleapis.com")[0]
    assert other.received
    assert "authorization" not in other.received.lower()


FRESH = (200, b'{"access_token": "fresh", "expires_in": 3600}', "")


def test_a_token_servers_outage_is_not_the_credentials_fault(
    make: Callable[..., Storage], cloud: Cloud, clock: Clock
) -> None:
    """A token server that's temporarily unavailable is retried."""
    unavailable = (503, b'{"error": "internal_failure"}', "")
    cloud.answers["oauth2.googleapis.com"] = [*[unavailable] * 3, FRESH]
    assert make(credentials=token(expired=True), project="acme").list_names("gs://bucket/m") == ()

    assert clock.slept == [0.2]


def test_a_refusal_is_the_credentials_fault(make: Callable[..., Storage], cloud: Cloud, clock: Clock) -> None:
    """If the token server refuses the credentials, the call fails at once."""
    cloud.answers["oauth2.googleapis.com"] = [(400, b'{"error": "invalid_grant"}', "")] * 2
    with pytest.raises(AuthenticationError, match="couldn't be refreshed"):
        make(credentials=token(expired=True), project="acme").list_names("gs://bucket/m")

    assert clock.slept == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.com"),
        ("GOOGLE_CLOUD_UNIVERSE_DOMAIN", ""),
        ("GOOGLE_API_USE_MTLS_ENDPOINT", "yes"),
        ("GOOGLE_API_USE_CLIENT_CERTIFICATE", "true"),
        ("GOOGLE_API_CERTIFICATE_CONFIG", "/nowhere"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere"),
    ],
)
@pytest.mark.usefixtures("cloud")
@pytest.mark.parametrize("given", [True, False])
def test_googles_variables_never_raise_googles_errors(
    make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, *, given: bool
) -> None:
    """With any value in Google's variables, you get a result or one of this package's errors."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv(variable, value)
    storage = make(credentials=token() if given else None, project="acme", retry=Clock().once())
    with contextlib.suppress(RegistryError):
        storage.list_names("gs://bucket/m")
    with contextlib.suppress(RegistryError):
        storage.download("gs://bucket/m")


@pytest.mark.usefixtures("cloud")
def test_credentials_of_another_cloud_are_refused(make: Callable[..., Storage]) -> None:
    """If Google's client refuses the credentials, you get one of this package's errors that says why."""
    theirs = token().with_universe_domain("example.com")
    with pytest.raises(RegistryError, match=r"can't be created: .*universe domain"):
        make(credentials=theirs, project="acme").list_names("gs://bucket/m")


@pytest.mark.usefixtures("_no_proxies")
@pytest.mark.parametrize("content", [None, f'{{"private_key": "{SECRET}", oops', f'{{"private_key": "{SECRET}"}}'])
def test_a_credentials_file_is_named(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """A credentials file that can't be used is named, and its content isn't reachable from the error."""
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with pytest.raises(AuthenticationError, match=r"no usable credentials .*key\.json.*gcloud auth") as caught:
        storage.list_names("gs://bucket/m")

    chain: list[BaseException | None] = [caught.value]
    while (last := chain[-1]) is not None:
        chain.append(last.__cause__ or last.__context__)
    assert SECRET not in "".join(str(vars(error)) + str(error.args) for error in chain if error is not None)


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_a_fork_waits_for_no_thread_of_its_parents(storage: Storage, stored: str) -> None:
    """A thread that connects while the process forks doesn't block the child."""
    with storage._cloud._lock:
        child = os.fork()
        if not child:
            signal.alarm(20)
            with contextlib.suppress(BaseException):
                os._exit(0 if storage.list_names(stored) else 1)
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads
def test_a_fork_has_connections_of_its_own(storage: Storage, proxy: Proxy, stored: str, folder: Path) -> None:
    """A child that inherits a client opens its own connections, and gets its own answers."""
    storage.list_names(stored)
    before = storage._cloud.connection()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            whole = contents(storage.download(stored)) == contents(folder)
            os.write(writer, b"same" if storage._cloud.connection() is before else b"own" if whole else b"other")
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as said:
        assert said.read() == b"own"
    assert storage._cloud.connection() is before
    assert len(proxy.sent("GET", "alt=media")) == 6


# --- settings ---------------------------------------------------------------------------------------------------------


def test_no_credentials_are_sent_to_an_emulator(
    make: Callable[..., Storage], proxy: Proxy, bucket: str, folder: Path
) -> None:
    """A token never goes to an emulator, which listens in plain text."""
    credentials = google.oauth2.credentials.Credentials(token="secret")  # type: ignore[no-untyped-call]  # noqa: S106
    make(credentials=credentials, project="acme").upload(scan(folder), f"gs://{bucket}/churn-1")

    assert proxy.seen
    assert all("secret" not in str(seen.headers) for seen in proxy.seen)


def test_an_emulators_address_needs_no_scheme(
    storage: Storage, storage_server: StorageServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``host:port`` is enough, as for Google's other emulators."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_server.url.removeprefix("http://"))

    assert storage.list_names(f"gs://{bucket}/nothing") == ()


def test_an_emulators_address_may_end_in_a_slash(
    storage: Storage,
    storage_server: StorageServer,
    bucket: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trailing slash isn't part of the address, as in Google's own libraries."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"{storage_server.url}/")

    assert contents(storage.download(storage.upload(scan(folder), f"gs://{bucket}/churn-1"))) == contents(folder)


def test_missing_credentials_are_reported(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an emulator and without credentials, the error says which command to run."""
    for variable in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(AuthenticationError, match="gcloud auth application-default login"):
        storage.list_names("gs://some-bucket/churn-1")


def test_expired_credentials_are_reported(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that can't be refreshed are one of this package's errors, at once."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    expired = google.oauth2.credentials.Credentials(token=None)  # type: ignore[no-untyped-call]  # untyped upstream
    with pytest.raises(AuthenticationError, match="couldn't be refreshed"):
        make(credentials=expired, project="acme").list_names("gs://some-bucket/churn-1")


def test_no_request_follows_a_failed_call(make: Callable[..., Storage], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a call has failed, Google's package has no thread that keeps requesting the bucket."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    before = set(threading.enumerate())
    with pytest.raises(UnavailableError):
        make(retry=Clock().once()).list_names("gs://some-bucket/churn-1")
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("uri", ["s3://bucket/dir", "gs:///dir", "./model", "bucket/dir"])
def test_a_uri_of_another_store_is_refused(storage: Storage, tmp_path: Path, folder: Path, uri: str) -> None:
    """A URI of another store is refused before anything is sent."""
    for action in (
        lambda: storage.list_names(uri),
        lambda: storage.download(uri, tmp_path / "dest"),
        lambda: storage.upload(scan(folder), uri),
    ):
        with pytest.raises(InvalidArgumentError, match="isn't in Cloud Storage"):
            action()


def test_google_is_not_imported_before_a_transfer() -> None:
    """Importing the storage module and creating a client import neither google-cloud-storage nor requests."""
    run = python(
        "import sys; from vertex_registry.artifacts import Storage; Storage(); "
        "print([name for name in sys.modules if name.startswith(('google.cloud.storage', 'google.auth', 'requests'))])"
    )
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["google.cloud.storage", "google_crc32c"])
@pytest.mark.usefixtures("storage_emulator")
def test_a_missing_package_is_reported(missing: str, folder: Path, bucket: str) -> None:
    """Without the extra, the error says what to install."""
    run = python(
        f"import sys; sys.modules[{missing!r}] = None; from vertex_registry.artifacts import Storage, scan; "
        "Storage().upload(scan(sys.argv[1]), sys.argv[2])",
        folder,
        f"gs://{bucket}/churn-1",
    )
    assert run.returncode == 1
    assert 'pip install "vertex-registry[storage]"' in run.stderr.splitlines()[-1]


def test_closing_twice_is_fine(storage: Storage) -> None:
    """You can close a client that never connected, or that's closed already."""
    storage.close()
    storage.close()
