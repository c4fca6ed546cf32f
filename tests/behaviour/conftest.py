"""The doors that the behaviour suite goes through.

Every test takes a ``registry`` and says what a caller may rely on. It is run through each door: the emulator over gRPC
and over REST, and the emulator over gRPC with each of its switches turned, alone and all together, because no answer
that is not documented may matter. What a test needs of the world comes from ``name()``, ``source()`` and ``settle()``,
so that the same test can run against a registry that is not empty, and not ours.

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
    "default-delete": ("refuse",),
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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test through every door, or through those that its marker says."""
    if "door" not in metafunc.fixturenames:
        return
    doors = PLAIN + TURNED
    if metafunc.definition.get_closest_marker("plain"):
        doors = PLAIN
    if metafunc.definition.get_closest_marker("once"):
        doors = [*PLAIN, TURNED[-1]]
    if only := metafunc.definition.get_closest_marker("only"):
        doors = [door for door in doors if str(door) in only.args]
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
    """In a live run, what is said is written down."""
    with LIVE.writing_down(request.node.nodeid) if LIVE is not None else contextlib.nullcontext():
        yield


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
    with Emulator(assume=door.assume, polls_until_done=looks.args[0] if looks else 0) as emulator:
        yield emulator
        assert not emulator.faults(), "a planned fault was not used up"


@pytest.fixture
def connect(door: Door, request: pytest.FixtureRequest) -> Iterator[Callable[..., RegistryClient]]:
    """What makes another client of the same registry, which has its own clock, and much time on it."""
    made: list[RegistryClient] = []
    emulator: Any = request.getfixturevalue("emulator") if LIVE is None else None

    def connect(**settings: Any) -> RegistryClient:
        if LIVE is not None:
            client = LIVE.connect(**settings)
        else:
            endpoint = emulator.rest if door.transport == "rest" else emulator.grpc
            clock = Clock()
            retry = settings.pop("retry", Retry(calls=600, sleep=clock.sleep, clock=clock))
            client = RegistryClient(endpoint=endpoint, project=PROJECT, location=LOCATION, retry=retry, **settings)
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


@pytest.fixture
def name() -> Callable[..., str]:
    """What gives a name that no model has yet, with something of the test's choice in it."""
    numbers = itertools.count()
    base = uuid.uuid4().hex[:12]
    prefix = "vr-test" if LIVE is None else LIVE.namespace
    return lambda text="": f"{prefix}-{base}-{next(numbers)}{text}"


@pytest.fixture
def source() -> Callable[[], str]:
    """What gives the directory of an artifact."""
    numbers = itertools.count()
    base = uuid.uuid4().hex[:12]
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
