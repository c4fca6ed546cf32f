"""Fixtures of the behaviour suite, and the backends that it runs on.

A test takes a ``registry`` and runs once on each of its backends: see ``backends_of``. It creates what it needs with
``name()`` and ``source()``, so the same test can run on a registry that isn't empty. ``tests/README.md`` has the tables
of backends and markers.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from typing import TYPE_CHECKING, Any

import attrs
import grpc
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport
from google.cloud.aiplatform_v1.services.model_service.transports.rest import ModelServiceRestTransport
from google.cloud.aiplatform_v1.types import Model

from tests.cassettes import recorder, tape
from tests.live.service import Service
from vertex_registry import NotFoundError, RegistryClient, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.emulators import EmptyEmulator
    from vertex_registry.emulator import Emulator

    #: Types of fixtures, for the signatures of tests.
    Connect = Callable[..., RegistryClient]
    NewName = Callable[..., str]
    NewSource = Callable[[], str]
    UploadModels = Callable[[Iterable[str]], None]
    WaitForLists = Callable[[], None]

PROJECT = "test-project"
LOCATION = "us-central1"

#: The values that each switch of the emulator is turned to.
SWITCHES = {
    "labels-at-upload": ("model", "first-on-model"),
    "label-wins": ("model",),
    "label-filter": ("own",),
    "list-lag": ("2",),
    "default-delete": ("move",),
    "stale-etag": ("failed-precondition",),
    "id-taken": ("operation",),
}


@attrs.frozen
class Backend:
    """What answers a test: a transport to the emulator with some of its switches turned, or what replaces it."""

    id: str
    transport: str
    switches: dict[str, str] = attrs.Factory(dict)


GRPC = Backend("grpc", "grpc")
REST = Backend("rest", "rest")
ONE_SWITCH = [
    Backend(f"{switch}={value}", "grpc", {switch: value}) for switch, values in SWITCHES.items() for value in values
]
ALL_SWITCHES = Backend("all-switches", "grpc", {switch: values[0] for switch, values in SWITCHES.items()})
#: For what clients learn about each other from a list. A switch with a second value has that one.
ALL_WITHOUT_LAG = Backend(
    "all-but-lag", "grpc", {switch: values[-1] for switch, values in SWITCHES.items() if switch != "list-lag"}
)

#: The markers that choose the switches. Of several, the one closest to the test counts.
SWITCH_MARKERS = {"no_switches", "switches_together", "each_switch"}

CASSETTE = Backend("cassette", "cassette")  # a recording answers
RECORDER = Backend("recorder", "rest")  # an emulator answers, and the cassette is recorded again
RECORDED = [CASSETTE, RECORDER]

#: The service of a live run, or None.
LIVE = Service.of_this_run()


def backends_of(test: pytest.Function) -> list[Backend]:
    """Return the backends that a test runs on, as its markers choose them."""
    if LIVE is not None:
        return [Backend("live", "live")]
    switches = next((mark for mark in test.iter_markers() if mark.name in SWITCH_MARKERS), None)  # the closest one
    if switches is None:
        backends = [GRPC, REST, *ONE_SWITCH, ALL_SWITCHES]
    elif switches.name == "no_switches":
        backends = [GRPC, REST]
    elif switches.name == "switches_together":
        backends = [GRPC, REST, ALL_SWITCHES, ALL_WITHOUT_LAG]
    else:
        if not switches.args or not set(switches.args) <= SWITCHES.keys():
            raise ValueError(f"{test.nodeid}: each_switch takes names of switches, not {switches.args}.")
        alone = [backend for backend in ONE_SWITCH if not backend.switches.keys().isdisjoint(switches.args)]
        backends = [GRPC, REST, *alone, ALL_SWITCHES]
    if test.get_closest_marker("without_rest"):
        backends.remove(REST)
    if only := test.get_closest_marker("only"):
        backends = [backend for backend in backends if backend.id in only.args]
    return backends + RECORDED if test.get_closest_marker("cassette") else backends


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses a backend once on each of its backends. Pytest calls this hook for every test."""
    if "backend" in metafunc.fixturenames:
        # Coverage is only measured on the first: that takes half as much again, and the others add few lines.
        backends = [
            pytest.param(backend, id=backend.id, marks=[] if backend == GRPC else [pytest.mark.unmeasured])
            for backend in backends_of(metafunc.definition)
        ]
        metafunc.parametrize("backend", backends)


def backend_of(request: pytest.FixtureRequest) -> Backend | None:
    """Return the backend that a test runs on, or None if it uses none."""
    return request.getfixturevalue("backend") if "backend" in request.fixturenames else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests of the emulator out of a live run."""
    if LIVE is None:
        return
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and (
            "backend" not in item.fixturenames
            or "emulator" in item.fixturenames
            or item.get_closest_marker("emulator_only")
        )
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _conversation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Play or record the conversation of a test, if it has a cassette or runs live."""
    backend = backend_of(request)
    with contextlib.ExitStack() as stack:
        if LIVE is not None:
            stack.enter_context(LIVE.recording(request.node.nodeid))
        elif backend in RECORDED:
            name = request.function.__name__.removeprefix("test_").replace("_", "-")
            file = recorder.CASSETTES / "behaviour" / f"{name}.yaml"
            if backend == CASSETTE:
                request.getfixturevalue("socket_disabled")
                stack.enter_context(tape.replaying(file))
            else:
                about = request.function.__doc__.partition(".")[0]
                stack.enter_context(recorder.record_again(file, request.getfixturevalue("tmp_path"), about))
        yield


class Clock:
    """A clock that moves only when its `sleep` is called."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def emulator(backend: Backend, request: pytest.FixtureRequest, empty_emulator: EmptyEmulator) -> Iterator[Emulator]:
    """Return the emulator behind the backend. A planned fault that isn't used up fails the test."""
    polls = request.node.get_closest_marker("polls")
    settings = {"assume": backend.switches, "polls_until_done": polls.args[0] if polls else 0}
    if backend in RECORDED:
        emulator = empty_emulator(shared=False, **settings, **recorder.counted())
    else:
        emulator = empty_emulator(**settings)
    yield emulator
    assert not emulator.faults(), "a planned fault was not used up"


@pytest.fixture
def connect(backend: Backend, request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return a function that creates another client of the same registry, with its own clock and long timeouts."""
    clients: list[RegistryClient] = []
    emulator: Any = None
    if LIVE is None and backend != CASSETTE:
        emulator = request.getfixturevalue("emulator")
    counted = recorder.counted_client() if backend in RECORDED else {}

    def connect(**settings: Any) -> RegistryClient:
        if LIVE is not None:
            client = LIVE.connect(**settings)
        else:
            endpoint = recorder.NO_SERVER
            if emulator is not None:
                endpoint = emulator.grpc if backend.transport == "grpc" else emulator.rest
            clock = Clock()
            retry = settings.pop("retry", Retry(call_timeout=600, sleep=clock.sleep, clock=clock))
            settings = {"project": PROJECT, "location": LOCATION, "retry": retry} | counted | settings
            client = RegistryClient(endpoint=endpoint, **settings)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def registry(connect: Connect) -> RegistryClient:
    """Return the client that a test is about."""
    return connect()


@pytest.fixture
def vertex(request: pytest.FixtureRequest) -> Iterator[ModelServiceClient]:
    """Return Google's own client of the same registry, which acts as another tool."""
    if LIVE is not None:
        with LIVE.google() as client:
            yield client
        return
    emulator = request.getfixturevalue("emulator")
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    transport: ModelServiceGrpcTransport | ModelServiceRestTransport
    if request.getfixturevalue("backend").transport == "rest":
        host = emulator.rest.removeprefix("http://")
        transport = ModelServiceRestTransport(host=host, credentials=nobody, url_scheme="http")
    else:
        transport = ModelServiceGrpcTransport(channel=grpc.insecure_channel(emulator.grpc), credentials=nobody)
    with ModelServiceClient(transport=transport) as client:
        yield client


@pytest.fixture
def upload_models(vertex: ModelServiceClient, parent: str) -> UploadModels:
    """Return a function that uploads a model for each name. That takes a seventh of the requests of a registration."""

    def upload_models(names: Iterable[str]) -> None:
        for name in names:
            model = Model(
                display_name=name,
                artifact_uri="gs://vr-test-artifacts/1",
                container_spec={"image_uri": "us-docker.pkg.dev/acme/serving/churn:1"},
            )
            vertex.upload_model(parent=parent, model=model)

    return upload_models


@pytest.fixture
def parent() -> str:
    return f"projects/{PROJECT}/locations/{LOCATION}" if LIVE is None else LIVE.parent


def _unique(request: pytest.FixtureRequest) -> str:
    """Return a word that makes the names of a test unique. In a recording it's always the same."""
    return "filed" if backend_of(request) in RECORDED else uuid.uuid4().hex[:12]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> NewName:
    """Return a function that returns a name that no model has yet, with a text of the test's choice in it."""
    numbers = itertools.count()
    unique = _unique(request)
    prefix = "vr-test" if LIVE is None else LIVE.namespace
    return lambda text="": f"{prefix}-{unique}-{next(numbers)}{text}"


@pytest.fixture
def source(request: pytest.FixtureRequest) -> NewSource:
    """Return a function that returns the directory of a new artifact."""
    numbers = itertools.count()
    unique = _unique(request)
    if LIVE is not None:
        live = LIVE
        return lambda: live.put_artifact(f"{unique}/{next(numbers)}")
    return lambda: f"gs://vr-test-artifacts/{unique}/{next(numbers)}"


@pytest.fixture
def wait_for_lists(backend: Backend, registry: RegistryClient) -> WaitForLists:
    """Return a function that waits until lists show what was written."""
    if LIVE is not None:
        return LIVE.wait_for_lists

    def wait_for_lists() -> None:
        for _ in range(int(backend.switches.get("list-lag", "0"))):
            for model in registry.list_models():
                with contextlib.suppress(NotFoundError):  # a list that lags still shows deleted models
                    list(registry.list_versions(model.resource_name))

    return wait_for_lists
