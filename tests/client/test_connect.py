"""The address and the credentials that a client uses."""

from __future__ import annotations

import hashlib
import http.server
import json
import logging
import random
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import google.oauth2.credentials
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.live.proxy import Proxy
from vertex_registry import (
    AuthenticationError,
    ClientClosedError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RegistryClient,
    Retry,
    StateUnknownError,
    UnavailableError,
    _credentials,
    _endpoint,
    local_registry,
)
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vertex_registry import RegistryError

TOKEN = "a-token-nobody-may-see"  # noqa: S105  # it opens nothing
SOURCE = "gs://models/churn/1"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def key() -> dict[str, str]:
    """Write a service account key that has no access to anything."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": "key-project",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": "registry@key-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }


def settings(
    endpoint: str | None = None, transport: str | None = None, credentials: Any = None
) -> tuple[str, bool, bool, bool]:
    made = _endpoint.resolve(endpoint, transport, "europe-west4", credentials)
    return made.host, made.rest, made.plain, made.anonymous


ADDRESSES: list[tuple[dict[str, Any], tuple[str, bool, bool, bool]]] = [
    ({}, ("europe-west4-aiplatform.googleapis.com", False, False, False)),
    ({"transport": "rest"}, ("europe-west4-aiplatform.googleapis.com", True, False, False)),
    ({"endpoint": "127.0.0.1:8470"}, ("127.0.0.1:8470", False, True, True)),
    ({"endpoint": "localhost:8470", "transport": "rest"}, ("localhost:8470", True, True, True)),
    ({"endpoint": "[::1]:8470"}, ("[::1]:8470", False, True, True)),
    ({"endpoint": "http://127.0.0.1:8471/"}, ("127.0.0.1:8471", True, True, True)),
    ({"endpoint": "https://localhost:8470"}, ("localhost:8470", False, False, False)),
    ({"endpoint": "vertex.example.com"}, ("vertex.example.com", False, False, False)),
    ({"endpoint": "http://vertex.example.com"}, ("vertex.example.com", True, True, True)),
    ({"endpoint": "127.0.0.1:8470", "credentials": "key.json"}, ("127.0.0.1:8470", False, True, False)),
]


@pytest.mark.parametrize(("given", "expected"), ADDRESSES)
def test_addresses(given: dict[str, Any], expected: tuple[str, bool, bool, bool]) -> None:
    """An address decides the host, and whether it's REST, plain text and without credentials."""
    assert settings(**given) == expected


def test_addresses_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """VERTEX_AI_EMULATOR_HOST is the address unless you pass one to the client."""
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", "emulator:8470")
    assert settings() == ("emulator:8470", False, True, True)
    assert settings(credentials="key.json") == ("emulator:8470", False, True, True)
    assert settings("127.0.0.1:1") == ("127.0.0.1:1", False, True, True)
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", "http://127.0.0.1:8471")
    assert settings() == ("127.0.0.1:8471", True, True, True)


def test_an_empty_address_in_the_environment_is_not_googles(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a script sets VERTEX_AI_EMULATOR_HOST to nothing, no request goes to Vertex AI by accident."""
    for empty in ("", " "):
        monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", empty)
        with pytest.raises(InvalidArgumentError, match="VERTEX_AI_EMULATOR_HOST"):
            settings()
        assert settings("127.0.0.1:1") == ("127.0.0.1:1", False, True, True)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_the_environment_alone_is_enough(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """VERTEX_AI_EMULATOR_HOST alone reaches an emulator: no credentials, no project, no location."""
    monkeypatch.setenv("VERTEX_AI_EMULATOR_HOST", emulator.grpc if transport == "grpc" else emulator.rest)
    with RegistryClient() as registry:
        assert registry.register_version("churn", SOURCE).version == "1"

    assert {request.transport for request in emulator.requests()} == {transport}
    assert emulator.requests()[0].message.parent == "projects/local-project/locations/us-central1"


def test_project_and_location(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project and the location come from the arguments, then from the environment."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    with RegistryClient(endpoint=emulator.grpc) as registry:
        list(registry.list_models())
    with RegistryClient(endpoint=emulator.grpc, project="other", location="us-east1") as registry:
        list(registry.list_models())

    assert [request.message.parent for request in emulator.requests()] == [
        "projects/acme/locations/europe-west4",
        "projects/other/locations/us-east1",
    ]


@pytest.mark.parametrize("setting", ["project", "location", "endpoint"])
def test_an_empty_setting(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty argument is refused, because it's more likely an unset variable. An empty variable counts as unset."""
    settings: dict[str, Any] = {setting: ""}
    with pytest.raises(InvalidArgumentError, match=f"^{setting} is empty. Leave it out"):
        RegistryClient(**settings)
    for variable in ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.setenv(variable, "")
    assert "us-central1-aiplatform" in repr(RegistryClient())


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_token_in_plain_text(emulator: Emulator, transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """A token that you pass reaches an emulator on this machine, and is in no log and no repr."""
    credentials = google.oauth2.credentials.Credentials(TOKEN)  # type: ignore[no-untyped-call]  # untyped upstream
    endpoint = emulator.grpc if transport == "grpc" else emulator.rest
    with (
        caplog.at_level(logging.DEBUG),
        RegistryClient(endpoint=endpoint, project="acme", credentials=credentials) as registry,
    ):
        registry.register_version("churn", SOURCE)
        assert TOKEN not in repr(registry)

    sha = hashlib.sha256(TOKEN.encode()).hexdigest()
    assert {request.metadata.get("authorization") for request in emulator.requests()} == {f"Bearer sha256:{sha}"}
    assert TOKEN not in caplog.text


def test_credentials_as_json(emulator: Emulator, key: dict[str, str], tmp_path: Path) -> None:
    """You can pass a service account's key as a file or as its content. It names its project and account."""
    path = tmp_path / "key.json"
    path.write_text(json.dumps(key))
    for given in (key, path, str(path)):
        credentials, project = _credentials.load(given)
        assert project == "key-project"
        assert _credentials.principal(credentials) == "registry@key-project.iam.gserviceaccount.com"
    with (
        RegistryClient(endpoint=emulator.grpc, credentials=key, retry=Retry(call_timeout=0.001)) as registry,
        pytest.raises(UnavailableError, match="token") as caught,
    ):
        next(registry.list_models())  # nobody gives tokens at its token_uri
    assert key["private_key"] not in str(caught.value)


def test_invalid_credentials(tmp_path: Path) -> None:
    """Invalid credentials are an AuthenticationError that says what to do, and doesn't show them."""
    path = tmp_path / "key.json"
    path.write_text("{")
    nothing: tuple[Any, ...] = (path, tmp_path / "missing.json", {"type": "service_account"}, {"type": "?"}, [TOKEN])
    for given in nothing:
        with pytest.raises(AuthenticationError) as caught:
            _credentials.load(given)
        assert TOKEN not in str(caught.value)


def test_who_changed_a_stage(emulator: Emulator) -> None:
    """If the credentials don't name an account, the client's actor is recorded."""
    with RegistryClient(endpoint=emulator.grpc, actor="ann@example.com") as registry:
        registry.register_version("churn", SOURCE, stage="Staging")
        assert registry.get_version("churn").stage_changed_by == "ann@example.com"


def test_the_user_agent(emulator: Emulator) -> None:
    """The user agent names this package, after what the caller adds."""
    with RegistryClient(endpoint=emulator.rest, user_agent="acme-trainer/7") as registry:
        list(registry.list_models())

    agent = emulator.requests()[0].metadata
    assert "acme-trainer/7 vertex-registry/" in agent.get("x-goog-api-client", "") + agent.get("user-agent", "")


def test_nothing_is_sent_on_construction() -> None:
    """Creating a client sends nothing, closing it twice is fine, and its repr shows its address."""
    registry = RegistryClient(project="acme", endpoint="127.0.0.1:1")
    registry.close()
    registry.close()

    assert repr(registry) == "RegistryClient(project='acme', location='us-central1', endpoint='127.0.0.1:1')"
    with pytest.raises(ClientClosedError, match="closed"):
        registry.get_version("churn")


def test_leaving_a_local_registry_with_a_planned_fault_left_fails() -> None:
    """Leaving a local registry closes its emulator, which reports faults that no request met."""
    registry = local_registry()
    registry.emulator.fail("GetModel", "ABORTED")

    with pytest.raises(AssertionError, match="GetModel: ABORTED"), registry:
        pass


def test_a_local_registry_in_a_file(tmp_path: Path) -> None:
    """A local registry keeps its data in a file, which only one process at a time can open."""
    path = tmp_path / "registry.db"
    with local_registry(path) as registry:
        made = registry.register_version("churn", SOURCE, metadata={"a": 1}, stage="Production")
        with pytest.raises(ConflictError, match="open"):
            local_registry(path)
    with local_registry(path) as registry:
        assert registry.get_version("churn") == made
        assert registry.register_version("churn", SOURCE).version == "2"


def cut_off(registry: RegistryClient, call: Callable[[], Any], begun: Callable[[], bool]) -> Any:
    """Start a call in a thread, close the client as soon as it's running, and return the call's error."""
    ended: Future[Any] = Future()

    def run() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:  # noqa: BLE001  # it is what is asked about
            ended.set_result(error)

    threading.Thread(target=run, daemon=True).start()
    while not begun():
        assert not ended.done(), ended.result()
    registry.close()
    return ended.result(timeout=60)


def has_arrived(emulator: Emulator, rpc: str) -> Callable[[], bool]:
    """Return a function that returns whether another request of this RPC has arrived."""
    before = len(emulator.requests())
    return lambda: any(request.rpc == rpc for request in emulator.requests()[before:])


@pytest.fixture(params=["grpc", "rest"])
def busy(emulator: Emulator, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> RegistryClient:
    """Return a client with a running call that would be retried for days."""
    caplog.set_level(logging.DEBUG, "vertex_registry")
    endpoint = emulator.grpc if request.param == "grpc" else emulator.rest
    retry = Retry(call_timeout=1e6, operation_timeout=1e6, initial_backoff=1e5, max_backoff=1e5, random=lambda: 1.0)
    registry = RegistryClient(endpoint=endpoint, retry=retry)
    registry.register_version("churn", SOURCE)
    return registry


CALLS: dict[str, Callable[[RegistryClient], Any]] = {
    "GetModel": lambda registry: registry.get_version("churn", 1),
    "ListModelVersions": lambda registry: list(registry.list_versions()),
    "UpdateModel": lambda registry: registry.update_version("churn", 1, description="x"),
}
DELETIONS: dict[str, Callable[[RegistryClient], Any]] = {
    "DeleteModel": lambda registry: registry.delete_model("churn"),
    "DeleteModelVersion": lambda registry: registry.delete_version("churn", 1),
}


@pytest.mark.parametrize("rpc", CALLS)
def test_closed_while_it_waits(
    emulator: Emulator, busy: RegistryClient, rpc: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing the client ends a wait between two attempts at once, with a ClientClosedError."""
    emulator.fail(rpc, "UNAVAILABLE")
    error = cut_off(busy, lambda: CALLS[rpc](busy), lambda: "sent again in" in caplog.text)

    assert type(error) is ClientClosedError
    assert "closed" in str(error)


@pytest.mark.parametrize("rpc", [*CALLS, *DELETIONS])
def test_closed_while_it_is_answered(emulator: Emulator, busy: RegistryClient, rpc: str) -> None:
    """Closing ends a call without a response; for a change, the error says that it may have happened."""
    emulator.fail(rpc, delay=1e6)
    error = cut_off(busy, lambda: (CALLS | DELETIONS)[rpc](busy), has_arrived(emulator, rpc))

    assert type(error) is ClientClosedError
    assert "closed" in str(error)
    assert ("may have been" in str(error)) == (rpc in {"UpdateModel", *DELETIONS})


def test_closed_while_it_uploads(emulator: Emulator, busy: RegistryClient) -> None:
    """If you close the client during a registration, the error has the request ID that's safe to retry."""
    emulator.fail("UploadModel", delay=1e6)
    error = cut_off(
        busy, lambda: busy.register_version("churn", SOURCE, request_id="run-7"), has_arrived(emulator, "UploadModel")
    )

    assert isinstance(error, StateUnknownError)
    assert error.request_id == "run-7"
    assert "closed" in str(error)
    assert "request_id='run-7'" in str(error)


def test_an_iterator_of_a_closed_client(emulator: Emulator, busy: RegistryClient) -> None:
    """A list that's being read ends with a ClientClosedError, and sends no more requests."""
    busy.register_version("fraud", SOURCE)
    for listed in (busy.list_versions(), busy.list_versions("churn"), busy.list_models()):
        assert next(listed)
    begun = busy.list_versions("churn")
    busy.close()
    before = len(emulator.requests())

    with pytest.raises(ClientClosedError, match="closed"):
        next(begun)
    assert len(emulator.requests()) == before


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
def test_a_wait_that_is_longer_than_the_budget(emulator: Emulator, busy: RegistryClient, code: str) -> None:
    """If the server asks for a wait that's longer than the budget, the error says how long it is."""
    emulator.fail("GetModel", code, retry_after=1.5e6)

    with pytest.raises(UnavailableError, match=r"Try again in 1.5e\+06 s") as caught:
        busy.get_version("churn", 1)
    assert caught.value.retry_after == 1.5e6


UNCLOSED = """
from vertex_registry import RegistryClient, _deferred, local_registry
_deferred.defer_packages()
from vertex_registry.emulator import Emulator

emulator = Emulator()
registry = {registry}
for number in range(40):
    registry.register_version(f"model-{{number}}", "gs://models/1")
print(*(version.name for version in registry.list_versions(limit=3)), flush=True)
"""


@pytest.mark.parametrize(
    "registry",
    ["local_registry()", "RegistryClient(endpoint=emulator.rest)", "RegistryClient(endpoint=emulator.grpc)"],
)
def test_a_script_that_closes_nothing(registry: str) -> None:
    """A script that stops in the middle of a list and closes nothing ends without any output."""
    # Google's libraries warn of the end of their support for a Python version.
    command = [sys.executable, "-W", "ignore::FutureWarning", "-c", UNCLOSED.format(registry=registry)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "model-39 model-38 model-37\n", "")


def test_a_file_that_is_not_a_registry(tmp_path: Path) -> None:
    """A file with other content is refused in one sentence, and isn't changed."""
    path = tmp_path / "notes.txt"
    path.write_text("milk, eggs")
    with pytest.raises(InvalidArgumentError, match="notes.txt"):
        local_registry(path)

    assert path.read_text() == "milk, eggs"
    with pytest.raises(InvalidArgumentError):
        local_registry(tmp_path / "no" / "such" / "folder.db")


def test_a_key_in_the_wrong_place(key: dict[str, str]) -> None:
    """A key that you pass as text works. Errors about credentials or an address never show it."""
    assert _credentials.load(json.dumps(key))[1] == "key-project"
    with pytest.raises(AuthenticationError) as caught:
        _credentials.load("x" + json.dumps(key))
    assert "PRIVATE KEY" not in str(caught.value)
    with pytest.raises(InvalidArgumentError) as wrong:
        RegistryClient(endpoint="https://ann:open-sesame@vertex.example.com")
    assert "sesame" not in str(wrong.value)


def test_no_proxy_in_plain_text(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain-text requests to this machine bypass every proxy."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with RegistryClient(endpoint=emulator.rest) as registry:
        assert list(registry.list_models()) == []


@pytest.mark.parametrize(
    ("status", "body", "error", "told"),
    [
        (200, b"<html>Log in</html>", UnavailableError, "isn't one that Vertex sends"),
        (200, b"null", UnavailableError, "isn't one that Vertex sends"),
        (200, b'{"models": [{"createTime": "x"}]}', UnavailableError, "isn't one that Vertex sends"),
        (302, b"moved", UnavailableError, "isn't one that Vertex sends"),
        (400, b'{"error": "invalid_request"}', UnavailableError, "isn't one that Vertex sends"),
        (403, b"<html>No</html>", PermissionDeniedError, "isn't allowed"),
        (403, b'{"error": {"code": 403, "message": null}}', PermissionDeniedError, "isn't allowed"),
        (403, b'{"error": {"code": 403, "details": null}}', UnavailableError, "isn't one that Vertex sends"),
        (404, b'{"error": {"code": 404, "details": {"a": 1}}}', UnavailableError, "isn't one that Vertex sends"),
        (404, b'{"error": {"message": "m", "status": "NONSENSE"}}', NotFoundError, "doesn't exist: m."),
    ],
)
def test_responses_of_a_proxy(
    emulator: Emulator, status: int, body: bytes, error: type[RegistryError], told: str
) -> None:
    """Any response of a proxy becomes one of this package's errors."""
    with (
        Proxy(str(emulator.rest), answer=lambda *_: (status, body)) as proxy,
        RegistryClient(
            endpoint=proxy.address, retry=Retry(call_timeout=5, initial_backoff=10, max_backoff=10, random=lambda: 1.0)
        ) as registry,
        pytest.raises(error, match=told),
    ):
        list(registry.list_models())


def test_addresses_of_this_machine() -> None:
    """Only this machine's addresses count as local, and what isn't an address is refused."""
    for address in ("localhost:1", "LOCALHOST", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:1", "http://[::1]:1/"):
        assert _endpoint.resolve(address, None, "us-central1", None).loopback, address
    for address in (
        *("localhost.example.com:1", "127.0.0.1.example.com", "notlocalhost", "127.1", "2130706433", "0x7f000001:1"),
        *("128.0.0.1:1", "10.0.0.1", "[::2]:1", "[::ffff:10.0.0.1]", "0.0.0.0:1", "https://localhost.:1", "my_host:1"),
    ):
        assert not _endpoint.resolve(address, None, "us-central1", None).loopback, address
    for address in (
        *("[::1]evil.com:80", "localhost:evil.com:80", "[::1", "::1]", "::1", "localhost:80:80", "localhost,evil:80"),
        *(
            "localhost\\evil",
            "localhost%2eevil.com",
            "ⓛocalhost",
            "localhost:\uff180",
            "localhost:+80",
            "localhost:8_0",
        ),
        *(
            "localhost:0",
            "localhost:99999",
            "unix:/x",
            "ipv4:127.0.0.1:80",
            "http://http://x",
            "a://b",
            "//",
            "http://",
        ),
        *("localhost\t:80", "localhost:80\n", " localhost", "evil.com/.localhost", "-x", "a..b", "[127.0.0.1"),
    ):
        with pytest.raises(InvalidArgumentError, match="isn't an address|endpoint"):
            _endpoint.resolve(address, None, "us-central1", None)


@pytest.mark.parametrize("setting", ["endpoint", "VERTEX_AI_EMULATOR_HOST"])
@pytest.mark.parametrize(
    "address",
    [
        "https://ann:sesame@vertex.example.com",
        "https://sesame@vertex.example.com",
        "https://ann:ses@ame-sesame@vertex.example.com",
        "https://ann:pa?sesame@vertex.example.com",
        "https://vertex.example.com?token=sesame",
        "https://vertex.example.com/?token=sesame@x",
        "https://vertex.example.com/sesame/v1",
        "vertex.example.com#sesame",
        "localhost:1?sesame",
        "ftp://vertex.example.com/?sesame",
    ],
)
def test_an_address_with_a_secret_in_it(monkeypatch: pytest.MonkeyPatch, setting: str, address: str) -> None:
    """An address with a user, a path or a query is refused. The error names the setting, but shows no part of it."""
    if setting != "endpoint":
        monkeypatch.setenv(setting, address)
    with pytest.raises(InvalidArgumentError, match=setting) as caught:
        RegistryClient(endpoint=address if setting == "endpoint" else None)
    assert "sesame" not in str(caught.value)
    assert caught.value.__context__ is None


REGIONS = """
africa-south1 asia-east1 asia-east2 asia-northeast1 asia-northeast2 asia-northeast3 asia-south1 asia-south2
asia-southeast1 asia-southeast2 australia-southeast1 australia-southeast2 europe-central2 europe-north1 europe-north2
europe-southwest1 europe-west1 europe-west2 europe-west3 europe-west4 europe-west6 europe-west8 europe-west9
europe-west10 europe-west12 me-central1 me-central2 me-west1 northamerica-northeast1 northamerica-northeast2
northamerica-south1 southamerica-east1 southamerica-west1 us-central1 us-east1 us-east4 us-east5 us-south1 us-west1
us-west2 us-west3 us-west4 u-france-east1
"""


def test_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every region is accepted. Anything else is refused when you create the client."""
    for region in REGIONS.split():
        RegistryClient(project="acme", location=region).close()
    refused = {
        "global": "models live in a region. Pass a region, such as location='us-central1'",
        "us": "models live in a region",
        "eu": "models live in a region",
        "us-central1-a": "is a zone. Use its region: location='us-central1'",
        "europe-west12-c": "is a zone. Use its region: location='europe-west12'",
        **dict.fromkeys(
            ("us-central-1", "us-central", "uscentral1", "US-CENTRAL1", "us-central01", "us_central1", "us-central1 "),
            "isn't the name of a region",
        ),
    }
    for location, told in refused.items():
        with pytest.raises(InvalidArgumentError, match=told):
            RegistryClient(project="acme", location=location)
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
        with pytest.raises(InvalidArgumentError, match=told):
            RegistryClient(project="acme")


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Emulator]:
    """Start an emulator with an untrusted certificate."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Emulator(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as emulator:
        yield emulator


@pytest.fixture
def stranger() -> Iterator[int]:
    """Return the port of an HTTP server that's neither Vertex nor a working proxy."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_CONNECT(self) -> None:
            self.send_error(407)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def error_at(endpoint: str, seconds: float, **settings: Any) -> str:
    """Return the error of a call to the wrong server. A call that must fail immediately gets a very long budget."""
    credentials = google.oauth2.credentials.Credentials(TOKEN)  # type: ignore[no-untyped-call]  # untyped upstream
    budget = Retry(call_timeout=600 if seconds < 600 else 1)  # one that is retried would take the ten minutes
    with (
        RegistryClient(
            endpoint=endpoint, retry=budget, credentials=credentials, project="acme", **settings
        ) as registry,
        pytest.raises(UnavailableError) as caught,
    ):
        list(registry.list_models())
    assert TOKEN not in str(caught.value)
    return str(caught.value)


AT_ONCE = 60.0  # of a machine that is busy; ten minutes is the budget
LATER = 600.0


def test_the_wrong_port(emulator: Emulator, stranger: int) -> None:
    """The error for a wrong port says what kind of server answers there."""
    rest = emulator.rest.removeprefix("http://")
    grpc_there = error_at(rest, AT_ONCE)
    assert "speaks HTTP/1, not gRPC. Is it the port for REST?" in grpc_there
    assert "isn't gRPC. Is it the port for REST?" in error_at(f"127.0.0.1:{stranger}", AT_ONCE)
    assert "doesn't speak HTTP. Is it the port for gRPC?" in error_at(f"http://{emulator.grpc}", AT_ONCE)
    not_vertex = error_at(f"http://127.0.0.1:{stranger}", AT_ONCE)
    assert "answers HTTP 404 with text/html, which isn't how Vertex answers. Is that the address" in not_vertex
    assert "Does" not in grpc_there
    assert "emulator running" not in grpc_there + not_vertex


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_nobody_listens(transport: str) -> None:
    """If nobody listens on the port, the error asks whether the emulator is running."""
    address = "127.0.0.1:1" if transport == "grpc" else "http://127.0.0.1:1"
    assert "Is the emulator running? Start one: python -m vertex_registry.emulator" in error_at(address, LATER)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_certificate_that_is_not_trusted(
    emulator: Emulator, tls: Emulator, transport: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error comes at once and names the variable to set. For REST, so does a missing file."""
    address = f"https://{tls.grpc}" if transport == "grpc" else tls.rest
    variable = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" if transport == "grpc" else "REQUESTS_CA_BUNDLE"
    untrusted = error_at(address, AT_ONCE, transport=transport)
    assert "certificate isn't trusted" in untrusted
    assert f"Set {variable} to the file of the certificate authority" in untrusted
    plain = f"https://{emulator.grpc if transport == 'grpc' else emulator.rest.removeprefix('http://')}"
    assert "TLS" in error_at(plain, AT_ONCE, transport=transport)
    if transport == "rest":
        monkeypatch.setenv(variable, str(tmp_path / "missing.pem"))
        assert "missing.pem. Check REQUESTS_CA_BUNDLE" in error_at(address, AT_ONCE, transport=transport)
        monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
        with RegistryClient(endpoint=address, transport="rest", project="acme") as registry:
            registry.list_models()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_proxy_that_refuses(transport: str, stranger: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the proxy's answer, comes at once, and shows no user or password of its URL."""
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, f"http://ann:sesame@127.0.0.1:{stranger}")
    said = error_at("https://vertex.example.com", AT_ONCE, transport=transport)
    assert "407" in said
    assert "The proxy" in said
    assert "Check HTTPS_PROXY" in said
    assert "sesame" not in said
    assert "ann" not in said.replace("channel", "")
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(variable, "http://ann:sesame@127.0.0.1:1")
    assert "refused" in (said := error_at("https://vertex.example.com", LATER, transport=transport))
    assert "sesame" not in said


def test_an_account_that_is_known_later() -> None:
    """A machine's credentials only know their account after the first call. A change of stage then uses it."""

    class OfAMachine:
        service_account_email = "default"

    credentials = OfAMachine()
    assert _credentials.principal(credentials) is None
    credentials.service_account_email = "vm@acme.iam.gserviceaccount.com"
    assert _credentials.principal(credentials) == "vm@acme.iam.gserviceaccount.com"


def test_waits_leave_the_random_numbers_of_an_experiment_alone() -> None:
    """Retries don't use up a script's random seed, and a seed doesn't make many processes wait equally long."""
    random.seed(7)
    seeded = random.getstate()
    first = Retry().random()
    assert random.getstate() == seeded
    random.seed(7)
    assert Retry().random() != first
