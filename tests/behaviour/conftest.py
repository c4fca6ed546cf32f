"""The doors that the behaviour suite goes through.

Every test takes a ``registry`` and says what a caller may rely on. It is run through each door: the emulator over gRPC
and over REST, and the emulator over gRPC with each of its switches turned, alone and all together, because no answer
that is not documented may matter. What a test needs of the world comes from ``name()``, ``source()`` and ``settle()``,
so that the same test can run against a registry that is not empty, and not ours.

A test that is marked ``cassette`` goes through two doors more. One is its cassette, which answers in place of a server;
the other is an emulator with which the cassette is recorded again, as the same file. There nothing is left to chance:
names, moments and ids are counted.

In a live run there is one door, to the service that the run is about (``tests/live``), and what is said through it is
written down. A test that asks for the ``emulator`` itself does not run there, nor one that is marked ``local``.
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

from tests.cassettes import recorder, tape
from tests.live.service import Service
from vertex_registry import NotFoundError, RegistryClient, Retry
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = "test-project"
LOCATION = "us-central1"

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
class Door:
    """A way to a registry: a transport, and the emulator's switches that are turned."""

    transport: str
    assume: dict[str, str]

    def __str__(self) -> str:
        return "+".join(f"{name}={value}" for name, value in self.assume.items()) or self.transport


LIVE = Service.of_this_run()

PLAIN = [Door("grpc", {}), Door("rest", {})]
TURNED = [
    *(Door("grpc", {switch: value}) for switch, values in SWITCHES.items() for value in values),
    Door("grpc", {switch: values[0] for switch, values in SWITCHES.items()}),
]

FILED = [Door("cassette", {}), Door("recorder", {})]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test through every door, or through those that its marker says."""
    if "door" not in metafunc.fixturenames:
        return
    doors = PLAIN + TURNED
    if metafunc.definition.get_closest_marker("plain"):
        doors = PLAIN
    if metafunc.definition.get_closest_marker("once"):
        doors = [*PLAIN, TURNED[-1], UNLAGGED]
    if only := metafunc.definition.get_closest_marker("only"):
        doors = [door for door in doors if str(door) in only.args]
    if metafunc.definition.get_closest_marker("cassette"):
        doors = doors + FILED
    if LIVE is not None:
        doors = [Door("live", {})]
    metafunc.parametrize("door", doors, ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of a live run what is about the emulator."""
    if LIVE is None:
        return
    left_out = [
        item
        for item in items
        if isinstance(item, pytest.Function)
        and ("door" not in item.fixturenames or "emulator" in item.fixturenames or item.get_closest_marker("local"))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def _conversation(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is said is written down, in a live run and for a cassette, or is answered from a cassette."""
    door = request.getfixturevalue("door") if "door" in request.fixturenames else None
    with contextlib.ExitStack() as stack:
        if LIVE is not None:
            stack.enter_context(LIVE.writing_down(request.node.nodeid))
        elif door in FILED:
            name = request.function.__name__.removeprefix("test_").replace("_", "-")
            file = recorder.CASSETTES / "behaviour" / f"{name}.yaml"
            if door == FILED[0]:
                request.getfixturevalue("socket_disabled")
                stack.enter_context(tape.replaying(file))
            else:
                about = request.function.__doc__.partition(".")[0]
                stack.enter_context(recorder.again(file, request.getfixturevalue("tmp_path"), about))
        yield


@pytest.fixture(autouse=True)
def _uncounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Coverage is counted at the plain doors: it costs half as much again, and a switch shows few lines more."""
    door = request.getfixturevalue("door") if "door" in request.fixturenames else None
    coverage = request.getfixturevalue("cov") if door and door.assume else None
    if coverage:
        coverage.stop()
    yield
    if coverage:
        coverage.start()


# All switches but the lag of lists, for what two clients learn of each other from a list.
UNLAGGED = Door("grpc", {switch: value for switch, value in TURNED[-1].assume.items() if switch != "list-lag"})


class Clock:
    """A clock that only sleeping moves."""

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
def emulator(door: Door, request: pytest.FixtureRequest) -> Iterator[Emulator]:
    looks = request.node.get_closest_marker("looks")
    counted = recorder.counted() if door in FILED else {}
    with Emulator(assume=door.assume, polls_until_done=looks.args[0] if looks else 0, **counted) as emulator:
        yield emulator
        assert not emulator.faults(), "a planned fault was not used up"


@pytest.fixture
def connect(door: Door, request: pytest.FixtureRequest) -> Iterator[Callable[..., RegistryClient]]:
    """What makes another client of the same registry, which has its own clock, and much time on it."""
    made: list[RegistryClient] = []
    emulator: Any = None
    if LIVE is None and door != FILED[0]:
        emulator = request.getfixturevalue("emulator")
    counted = recorder.counted_client() if door in FILED else {}

    def connect(**settings: Any) -> RegistryClient:
        if LIVE is not None:
            client = LIVE.connect(**settings)
        else:
            endpoint = (
                recorder.NOBODY if emulator is None else emulator.grpc if door.transport == "grpc" else emulator.rest
            )
            clock = Clock()
            retry = settings.pop("retry", Retry(call_timeout=600, sleep=clock.sleep, clock=clock))
            settings = {"project": PROJECT, "location": LOCATION, "retry": retry} | counted | settings
            client = RegistryClient(endpoint=endpoint, **settings)
        made.append(client)
        return client

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def registry(connect: Callable[..., RegistryClient]) -> RegistryClient:
    return connect()


@pytest.fixture
def vertex(request: pytest.FixtureRequest) -> Iterator[ModelServiceClient]:
    """Google's own client of the same registry: somebody else."""
    if LIVE is not None:
        with LIVE.google() as client:
            yield client
        return
    emulator = request.getfixturevalue("emulator")
    nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]  # untyped upstream
    transport: ModelServiceGrpcTransport | ModelServiceRestTransport
    if request.getfixturevalue("door").transport == "rest":
        host = emulator.rest.removeprefix("http://")
        transport = ModelServiceRestTransport(host=host, credentials=nobody, url_scheme="http")
    else:
        transport = ModelServiceGrpcTransport(channel=grpc.insecure_channel(emulator.grpc), credentials=nobody)
    with ModelServiceClient(transport=transport) as client:
        yield client


@pytest.fixture
def parent() -> str:
    return f"projects/{PROJECT}/locations/{LOCATION}" if LIVE is None else LIVE.parent


def _base(request: pytest.FixtureRequest) -> str:
    """What makes names of this test's own."""
    filed = "door" in request.fixturenames and request.getfixturevalue("door") in FILED
    return "filed" if filed else uuid.uuid4().hex[:12]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Callable[..., str]:
    """What gives a name that no model has yet, with something of the test's choice in it."""
    numbers = itertools.count()
    base = _base(request)
    prefix = "vr-test" if LIVE is None else LIVE.namespace
    return lambda text="": f"{prefix}-{base}-{next(numbers)}{text}"


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Callable[[], str]:
    """What gives the directory of an artifact."""
    numbers = itertools.count()
    base = _base(request)
    if LIVE is not None:
        live = LIVE
        return lambda: live.put(f"{base}/{next(numbers)}")
    return lambda: f"gs://vr-test-artifacts/{base}/{next(numbers)}"


@pytest.fixture
def settle(door: Door, registry: RegistryClient) -> Callable[[], None]:
    """What waits until lists show what was written."""
    if LIVE is not None:
        return LIVE.settle

    def settle() -> None:
        for _ in range(int(door.assume.get("list-lag", "0"))):
            for model in registry.list_models():
                with contextlib.suppress(NotFoundError):  # a list that lags shows models that are gone
                    list(registry.list_versions(model.resource_name))

    return settle
