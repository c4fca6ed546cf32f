"""Credentials: their sources, which servers get them, and errors of token endpoints."""

from __future__ import annotations

import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.oauth2.credentials import Credentials

from vertex_registry import (
    AuthenticationError,
    InvalidArgumentError,
    RegistryClient,
    Retry,
    UnavailableError,
    _credentials,
    _endpoint,
)
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "a-key-nobody-may-see"  # noqa: S105  # it opens nothing


@attrs.define
class Server:
    """A token endpoint: it answers with the statuses that are queued, and then with a token.

    Attributes:
        port: The port. Nobody listens on it until ``listen``.
        statuses: The statuses of the next answers, and what their bodies hold.
        headers: The headers of the requests that came.
    """

    port: int
    statuses: list[tuple[int, dict[str, str]]]
    headers: list[dict[str, str]]
    listen: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"


@pytest.fixture
def tokens() -> Iterator[Server]:
    server = Server(0, [], [], lambda: None)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.headers.append(dict(self.headers.items()))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            good = {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
            status, body = server.statuses.pop(0) if server.statuses else (200, good)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    made.server_bind()
    server.port = made.server_port
    began: list[threading.Thread] = []

    def listen() -> None:
        if not began:
            made.server_activate()
            began.append(threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True))
            began[0].start()

    server.listen = listen
    yield server
    if began:
        made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def pem() -> str:
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture
def key(pem: str, tokens: Server) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "registry@acme.iam.gserviceaccount.com",
        "token_uri": tokens.url,
    }


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(params=["grpc", "rest"])
def address(request: pytest.FixtureRequest, emulator: Emulator) -> str:
    return str(emulator.grpc if request.param == "grpc" else emulator.rest)


class Clock:
    """A clock that only moves when its `sleep` is called, and that calls a function during the first wait."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.time = 0.0
        self.meanwhile = meanwhile

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.meanwhile()

    @property
    def retry(self) -> Retry:
        return Retry(call_timeout=25, sleep=self.sleep, clock=lambda: self.time)


# --- no token ---------------------------------------------------------------------------------------------------------


def test_a_token_endpoint_that_refuses_connections_for_a_while(
    address: str, key: dict[str, str], tokens: Server
) -> None:
    """The client waits for it within the budget, for an upload too, because nothing was sent yet."""
    clock = Clock(meanwhile=tokens.listen)
    with RegistryClient(endpoint=address, credentials=key, retry=clock.retry) as registry:
        assert registry.register_version("churn", "gs://models/1").version == "1"
    assert clock.time > 0


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_token_endpoint_that_has_a_fault(address: str, key: dict[str, str], tokens: Server, status: int) -> None:
    """A fault of the token endpoint is retried as well."""
    tokens.listen()
    tokens.statuses = [(status, {})]
    with RegistryClient(endpoint=address, credentials=key, retry=Clock().retry) as registry:
        assert list(registry.list_models()) == []
    assert not tokens.statuses


def test_a_token_endpoint_that_stays_unavailable(address: str, key: dict[str, str], emulator: Emulator) -> None:
    """At the end of the budget you get an UnavailableError. The credentials aren't blamed, and nothing was sent."""
    clock = Clock()
    with (
        RegistryClient(endpoint=address, credentials=key, retry=clock.retry) as registry,
        pytest.raises(UnavailableError, match="wasn't sent: No token could be fetched: Connection refused") as caught,
    ):
        registry.get_model("churn")
    assert 15 < clock.time < 26
    assert "gcloud" not in str(caught.value)
    assert not emulator.requests()


def test_a_token_that_takes_too_long(address: str, key: dict[str, str]) -> None:
    """A token endpoint that never answers blocks a call for its budget, and no longer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_key = key | {"token_uri": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        with (
            RegistryClient(endpoint=address, credentials=silent_key, retry=Retry(call_timeout=1)) as registry,
            pytest.raises(UnavailableError, match="No token could be fetched"),
        ):
            registry.get_model("churn")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_credentials_that_are_refused(address: str, key: dict[str, str], tokens: Server, status: int) -> None:
    """A refusal is an AuthenticationError at once, with the token endpoint's reason."""
    tokens.listen()
    tokens.statuses = [(status, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})]
    clock = Clock()
    with (
        RegistryClient(endpoint=address, credentials=key, retry=clock.retry) as registry,
        pytest.raises(AuthenticationError, match="got no token: invalid_grant: Invalid JWT Signature. Run"),
    ):
        registry.get_model("churn")
    assert clock.time == 0


def test_what_else_credentials_can_raise(address: str) -> None:
    """Any exception of your own credentials becomes one of this package's errors."""

    class Odd:
        def before_request(self, *_: object) -> None:
            raise ZeroDivisionError

    with (
        RegistryClient(endpoint=address, credentials=Odd(), project="acme") as registry,
        pytest.raises(AuthenticationError, match="got no token: ZeroDivisionError"),
    ):
        registry.get_model("churn")


# --- what is sent where -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["", "http://", "https://"])
def test_an_emulator_elsewhere_gets_no_credentials(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """An emulator gets credentials only if it's on this machine; `endpoint=` sends them on purpose."""
    credentials = Credentials("token")  # type: ignore[no-untyped-call]  # untyped upstream
    for host in ("emulator:8470", "[::1].example.com", "localhost.example.com", "10.0.0.7:8470", "127.0.0.1.nip.io:1"):
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", scheme + host)
        if "[" in host:
            with pytest.raises(InvalidArgumentError, match="isn't an address"):
                _endpoint.resolve(None, None, "us-central1", credentials)
            continue
        for transport in (None, "rest"):
            found = _endpoint.resolve(None, transport, "us-central1", credentials)
            assert (found.anonymous, found.credentials) == (True, credentials)  # Cloud Storage may get them
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", f"{scheme}localhost:8470")
    assert not _endpoint.resolve(None, None, "us-central1", credentials).anonymous
    assert not _endpoint.resolve("https://vertex.example.com", None, "us-central1", credentials).anonymous


TLS = """
import sys
from google.oauth2.credentials import Credentials
from vertex_registry import RegistryClient, Retry, _deferred

_deferred.defer_packages()
endpoint, transport = sys.argv[1:]
settings = {"endpoint": endpoint or None, "transport": transport, "project": "acme", "retry": Retry(call_timeout=5)}
with RegistryClient(credentials=Credentials("a-token"), **settings) as registry:
    registry.register_version("churn", "gs://models/1")
    assert registry.get_version("churn").version == "1"
"""


class Tunnel(http.server.BaseHTTPRequestHandler):
    """A proxy that sends every CONNECT to one local port."""

    target = 0

    def do_CONNECT(self) -> None:
        with socket.create_connection(("127.0.0.1", self.target)) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self._copy, args=(there, self.connection), daemon=True)
            back.start()
            self._copy(self.connection, there)
            back.join(5)

    @staticmethod
    def _copy(start: socket.socket, end: socket.socket) -> None:
        try:
            while data := start.recv(65536):
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("way", ["endpoint", "emulator"])
def test_over_tls_and_through_a_proxy(tmp_path: Path, transport: str, way: str) -> None:
    """Requests to a real address go through the proxy, with the token and without .netrc. An emulator gets neither.

    That is so for an emulator over TLS, too, which VERTEX_AI_EMULATOR_HOST names on another machine.
    """
    authority = trustme.CA()
    certificate = authority.issue_cert("vertex.example.com")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / ".netrc").write_text("default login ann password sesame\n")
    (tmp_path / ".netrc").chmod(0o600)
    with Emulator(
        tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem", allowed_hosts=["vertex.example.com"]
    ) as emulator:
        port = (emulator.grpc if transport == "grpc" else emulator.rest).rpartition(":")[2]
        handler = type("To", (Tunnel,), {"target": int(port)})
        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        endpoint = f"https://vertex.example.com:{port}"
        environment = {
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "HTTPS_PROXY": address,
            "https_proxy": address,
            "REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem"),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "ca.pem"),
        }
        code = TLS
        if way == "emulator":
            # The name leads nowhere without the proxy, and an emulator isn't asked through one: look at this machine.
            environment["VERTEX_AI_EMULATOR_HOST"] = endpoint
            code = RESOLVED + TLS
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, endpoint if way == "endpoint" else "", transport],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        proxy.shutdown()
        proxy.server_close()
        if way == "emulator" and transport == "grpc":
            assert "UnavailableError" in ended.stderr  # gRPC resolves names by itself, and finds none
        else:
            assert ended.returncode == 0, ended.stderr
        sent = {request.metadata.get("authorization") for request in emulator.requests()}
    if way == "endpoint":
        assert len(sent) == 1
        assert re.fullmatch("Bearer sha256:[0-9a-f]{64}", str(sent.pop()))
    else:
        assert sent <= {None}


RESOLVED = """
import socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: real("127.0.0.1", *rest, **more)
"""


@pytest.mark.parametrize("given", ["nothing", "key"])
def test_netrc_is_not_read(
    emulator: Emulator,
    key: dict[str, str],
    tokens: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    """A `default` entry in .netrc goes neither to an emulator nor to a token endpoint."""
    tokens.listen()
    (tmp_path / "netrc").write_text("default login ann password sesame\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    credentials = None if given == "nothing" else key
    for address in (emulator.grpc, emulator.rest):
        with RegistryClient(endpoint=address, credentials=credentials, project="acme") as registry:
            assert list(registry.list_models()) == []
    sent = [request.metadata.get("authorization", "none") for request in emulator.requests()]
    assert all(value == "none" or value.startswith("Bearer") for value in sent)
    assert all("Authorization" not in headers for headers in tokens.headers)
    assert bool(tokens.headers) == (given == "key")


# --- loading ----------------------------------------------------------------------------------------------------------


def kinds(pem: str) -> dict[str, dict[str, Any]]:
    """Return the content of a credentials file of every kind."""
    user = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    external = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
    }
    key = {"type": "service_account", "private_key": pem, "client_email": "a@b", "token_uri": "http://x"}
    impersonation = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@b:generateAccessToken"
    aws = {
        "environment_id": "aws1",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity",
    }
    return {
        "service_account": key,
        "authorized_user": user,
        "workload identity": external | {"credential_source": {"file": "/token"}},
        "of a program": external | {"credential_source": {"executable": {"command": "/bin/token"}}},
        "of aws": external
        | {"subject_token_type": "urn:ietf:params:aws:token-type:aws4_request", "credential_source": aws},
        "impersonated": {
            "type": "impersonated_service_account",
            "source_credentials": user,
            "service_account_impersonation_url": impersonation,
        },
        "workforce": {
            "type": "external_account_authorized_user",
            "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q",
            "refresh_token": "3",
            "token_url": "https://sts.googleapis.com/v1/oauthtoken",
            "token_info_url": "https://sts.googleapis.com/v1/introspect",
            "client_id": "1",
            "client_secret": "2",
        },
        "gdch": {
            "type": "gdch_service_account",
            "format_version": "1",
            "project": "acme",
            "private_key_id": "1",
            "private_key": pem_of(ec.generate_private_key(ec.SECP256R1())),
            "name": "a",
            "ca_cert_path": "/ca",
            "token_uri": "https://x",
        },
    }


@pytest.mark.parametrize("kind", list(kinds("")))
def test_every_kind_of_file(pem: str, kind: str, tmp_path: Path) -> None:
    """You can pass every kind of credentials that google-auth loads, as a file or as its content."""
    info = kinds(pem)[kind]
    (tmp_path / "key.json").write_text(json.dumps(info))
    for given in (info, json.dumps(info), tmp_path / "key.json", str(tmp_path / "key.json")):
        assert hasattr(_credentials.load(given)[0], "before_request")


def all_texts(error: BaseException | None) -> str:
    """Return all texts of an error and of its causes."""
    said = ""
    while error is not None:
        said += repr(vars(error)) + repr(error.args) + "".join(traceback.format_exception_only(error))
        said += repr(getattr(error, "doc", "")) + repr(getattr(error, "object", ""))
        assert error.__cause__ is None or error.__context__ is error.__cause__
        error = error.__context__
    return said


def test_a_malformed_key_is_in_no_error(pem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that may be a key is in no error, and in no cause of one."""
    torn = json.dumps({"type": "service_account", "private_key": SECRET})[:-1]
    odd = tmp_path / "odd.json"
    odd.write_bytes(torn.encode() + b"\xff")
    file = tmp_path / "key.json"
    file.write_text(torn)
    whole = kinds(pem)
    broken: list[Any] = [
        torn,
        "x" + torn,
        SECRET,
        file,
        str(file),
        odd,
        {"type": SECRET + "!"},
        {"type": "service_account", "private_key": SECRET},
        whole["service_account"] | {"private_key": SECRET},
        whole["impersonated"] | {"source_credentials": {"type": SECRET}},
        whole["impersonated"] | {"service_account_impersonation_url": SECRET},
        whole["workload identity"] | {"credential_source": SECRET},
        whole["of aws"] | {"credential_source": {"environment_id": SECRET}},
        whole["gdch"] | {"format_version": SECRET},
        "[" * 100_000,
        [SECRET],
    ]
    for given in broken:
        with pytest.raises(AuthenticationError) as caught:
            _credentials.load(given)
        assert SECRET not in all_texts(caught.value), given
    for path in (file, odd):
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with pytest.raises(AuthenticationError, match=re.escape(path.name)) as caught:
            _credentials.load(None)
        assert SECRET not in all_texts(caught.value)


def test_a_missing_credentials_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing file, even if it's from GOOGLE_APPLICATION_CREDENTIALS."""
    missing = tmp_path / "missing.json"
    with pytest.raises(AuthenticationError, match=f"file '{missing}' can't be read: No such file or directory"):
        _credentials.load(missing)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(missing))
    with pytest.raises(
        AuthenticationError, match=f"GOOGLE_APPLICATION_CREDENTIALS: .*'{missing}' can't be read: No such"
    ):
        _credentials.load(None)
    missing.write_text('{"type": "service_account"}')
    with pytest.raises(AuthenticationError, match="missing: .*client_email"):
        _credentials.load(None)
    missing.write_text('{"type": "other"}')
    with pytest.raises(AuthenticationError, match="type 'other' is none of service_account, "):
        _credentials.load(None)


# --- Google's own errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", " ", "https://x", "a b"])
def test_an_odd_universe(monkeypatch: pytest.MonkeyPatch, address: str, value: str) -> None:
    """An invalid universe domain is refused when you create the client. An emulator needs none."""
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", value)
    with pytest.raises(InvalidArgumentError, match="GOOGLE_CLOUD_UNIVERSE_DOMAIN isn't a domain. Unset it"):
        RegistryClient(project="acme")
    with RegistryClient(endpoint=address) as registry:
        registry.register_version("churn", "gs://models/1")
        assert registry.to_aiplatform("churn").display_name == "churn"


def test_another_universe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sovereign cloud has its own address."""
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "apis.example.goog")
    found = _endpoint.resolve(None, None, "u-france-east1", None)
    assert found.host == "u-france-east1-aiplatform.apis.example.goog"


@pytest.mark.parametrize(("variable", "value"), [("GOOGLE_API_USE_MTLS_ENDPOINT", "yes")])
def test_odd_settings_of_googles_client(
    monkeypatch: pytest.MonkeyPatch, address: str, variable: str, value: str
) -> None:
    """If Google's client doesn't understand a setting, the first call's error names it."""
    monkeypatch.setenv(variable, value)
    with RegistryClient(endpoint=address) as registry:
        for call in (lambda: list(registry.list_models()), lambda: registry.to_aiplatform("churn")):
            with pytest.raises(InvalidArgumentError, match=variable):
                call()
