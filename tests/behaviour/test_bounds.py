"""Time limits of methods: one budget for all calls, whatever a server answers."""

from __future__ import annotations

import itertools
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions as google_exceptions
from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2

from tests.behaviour.hostile import Hostile
from vertex_registry import (
    RegistryClient,
    RegistryError,
    Retry,
    Stage,
    StateUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.behaviour.conftest import Clock, Connect, NewName, NewSource
    from vertex_registry.emulator import Emulator


pytestmark = [pytest.mark.no_switches, pytest.mark.emulator_only("Vertex does nothing wrong on demand")]

SOURCE = "gs://vr-test-artifacts/1"

#: Every verb that talks to Vertex.
VERBS: dict[str, Callable[[RegistryClient, str], Any]] = {
    "register_version": lambda registry, name: registry.register_version(name, SOURCE, check_source=False),
    "register_version-again": lambda registry, name: registry.register_version(
        name, SOURCE, request_id="run", check_source=False
    ),
    "register_version-reuse": lambda registry, name: registry.register_version(
        name, SOURCE, version_name="1.0", reuse_existing=True, check_source=False
    ),
    "register_version-archive": lambda registry, name: registry.register_version(
        name, SOURCE, stage="Production", archive_existing=True, check_source=False
    ),
    "get_version": lambda registry, name: registry.get_version(name),
    "get_version-name": lambda registry, name: registry.get_version(name, version_name="1.0"),
    "find_version": lambda registry, name: registry.find_version(name, "2"),
    "list_versions": lambda registry, name: list(registry.list_versions(name)),
    "list_versions-all": lambda registry, name: list(registry.list_versions()),
    "latest_version": lambda registry, name: registry.latest_version(name, stage="Staging"),
    "stage_history": lambda registry, name: registry.stage_history(name),
    "update_version": lambda registry, name: registry.update_version(name, 2, metadata={"a": 1}),
    "set_stage": lambda registry, name: registry.set_stage(name, 2, "Production"),
    "promote": lambda registry, name: registry.set_stage(name, 2, "Production", archive_existing=True),
    "add_aliases": lambda registry, name: registry.add_aliases(name, 2, ["champion"]),
    "remove_aliases": lambda registry, name: registry.remove_aliases(name, 2, ["champion"]),
    "set_default": lambda registry, name: registry.set_default(name, 2),
    "delete_version": lambda registry, name: registry.delete_version(name, 2),
    "delete_model": lambda registry, name: registry.delete_model(name),
    "get_model": lambda registry, name: registry.get_model(name),
    "list_models": lambda registry, name: list(registry.list_models()),
    "update_model": lambda registry, name: registry.update_model(name, description="d"),
    "rename_model": lambda registry, name: registry.rename_model(name, f"{name}-new"),
    "duplicates": lambda registry, name: registry.duplicates(),
    "to_aiplatform": lambda registry, name: registry.to_aiplatform(name),
    "download_version": lambda registry, name: registry.download_version(name),
    "load_version": lambda registry, name: registry.load_version(name),
}

RPCS = ["GetModel", "ListModels", "ListModelVersions", "UpdateModel", "MergeVersionAliases", "DeleteModelVersion"]


# --- one budget -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["promote", "update_version", "add_aliases", "delete_version", "stage_history"])
def test_all_calls_of_a_method_share_a_budget(
    connect: Connect, emulator: Emulator, clock: Clock, name: NewName, source: NewSource, verb: str
) -> None:
    """A method whose calls are all lost waits no longer than one budget in total."""
    churn = name()
    registry = connect(retry=Retry(call_timeout=3, sleep=clock.sleep, clock=clock, random=lambda: 1.0))
    for _ in range(7):
        registry.register_version(churn, source(), stage="Production")
    start = clock.time
    for rpc in RPCS:
        for _ in range(40):
            emulator.fail(rpc, "UNAVAILABLE", times=2)
            emulator.fail(rpc, delay=0.0001)
    try:
        VERBS[verb](registry, churn)
    except RegistryError as error:
        assert isinstance(error, UnavailableError)
    emulator.forget_faults()

    assert clock.time - start <= 3 * 2  # the last lost call is checked after the budget


class Ticking:
    """A clock that moves whenever it's read, as if each step of a call took time, and when its `sleep` is called."""

    def __init__(self, tick: float = 0.0) -> None:
        self.time = 0.0
        self.tick = tick

    def __call__(self) -> float:
        self.time += self.tick
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_a_call_is_not_started_without_time_for_it(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """When the budget is used up, the method ends and says so. Calling it again finishes the work."""
    churn, clock = name(), Ticking()
    registry = connect(retry=Retry(call_timeout=5, sleep=lambda _: None, clock=clock))
    for _ in range(7):
        registry.register_version(churn, source(), stage="Production")
    before = len(emulator.requests())
    clock.tick = 0.3
    with pytest.raises(UnavailableError, match=r"wasn't sent, because the 5 s .* used up.*Retry\(call_t") as caught:
        registry.set_stage(churn, 7, Stage.PRODUCTION, archive_existing=True)
    assert caught.value.code is None
    assert len(emulator.requests()) - before < 20

    clock.tick = 0
    registry.set_stage(churn, 7, Stage.PRODUCTION, archive_existing=True)
    assert [version.version for version in registry.list_versions(churn, stage="Production")] == ["7"]


def test_a_registration_that_has_no_time_left(connect: Connect, emulator: Emulator, name: NewName) -> None:
    """If the budget runs out after the upload, the error has the request ID that finishes it."""
    churn, clock = name(), Ticking()

    def tell() -> float:
        clock.tick = 6 if any(request.rpc == "UploadModel" for request in emulator.requests()) else 0
        return clock()

    registry = connect(retry=Retry(call_timeout=5, sleep=lambda _: None, clock=tell))
    with pytest.raises(StateUnknownError) as caught:
        registry.register_version(churn, SOURCE, stage="Staging", check_source=False)
    made = connect().register_version(churn, SOURCE, stage="Staging", request_id=caught.value.request_id)
    assert (made.version, made.stage) == ("1", Stage.STAGING)


@pytest.mark.polls(40)
def test_operations_have_their_own_budget(connect: Connect, clock: Clock, name: NewName, source: NewSource) -> None:
    """Waiting for an operation doesn't use up the budget of calls."""
    churn = name()
    registry = connect(retry=Retry(call_timeout=1, sleep=clock.sleep, clock=clock, random=lambda: 1.0))
    made = registry.register_version(churn, source(), stage="Staging")
    assert made.stage is Stage.STAGING
    assert clock.time > 30
    registry.register_version(churn, source())
    registry.delete_version(churn, 1)
    registry.delete_model(churn)


def test_cleaning_up_has_its_own_budget(
    connect: Connect, emulator: Emulator, clock: Clock, name: NewName, source: NewSource
) -> None:
    """When a deletion fails late, the default still moves back and the mark is removed."""
    churn = name()
    registry = connect(retry=Retry(call_timeout=3, sleep=clock.sleep, clock=clock, random=lambda: 1.0))
    for _ in range(2):
        registry.register_version(churn, source())
    emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION")
    emulator.fail("DeleteModelVersion", "UNAVAILABLE", times=1000)
    start = clock.time
    with pytest.raises(UnavailableError):
        registry.delete_version(churn, 2)
    emulator.forget_faults()
    assert registry.get_version(churn).version == "2"
    assert clock.time - start <= 3


def test_a_verb_of_another_client(connect: Connect, clock: Clock, name: NewName, source: NewSource) -> None:
    """If clients are used within each other's calls, each has its own budget."""
    churn = name()
    inner = connect(retry=Retry(call_timeout=60, sleep=clock.sleep, clock=clock))
    outer = connect(retry=Retry(call_timeout=0.01))
    inner.register_version(churn, source())
    with outer._vertex.rpc.verb():
        assert inner._vertex.rpc.budget().seconds == 60
        assert outer._vertex.rpc.budget().seconds == 0.01
        with outer._vertex.rpc.verb():
            assert outer._vertex.rpc.budget() is outer._vertex.rpc.budget()
    assert outer._vertex.rpc.budget() is not outer._vertex.rpc.budget()


# --- servers that never end -------------------------------------------------------------------------------------------


#: The seconds that a call, and an operation, may take: the clock can be read about fifty times.
BUDGET = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with Hostile() as server:
        yield server


#: For lists of a thousand pages: counting them is the same over REST, and takes twice as long.
over_grpc = pytest.mark.parametrize("hostile", ["grpc"], indirect=True)


@pytest.fixture(params=["grpc", "rest"])
def hostile(request: pytest.FixtureRequest, server: Hostile) -> Iterator[Callable[..., RegistryClient]]:
    """Return a function that sets the server's answers and returns a client with a ticking clock."""
    made: list[RegistryClient] = []

    def hostile(
        answers: dict[str, Any], seconds: float = BUDGET, clock: Ticking | None = None, **policy: Any
    ) -> RegistryClient:
        server.answers, server.calls = answers, 0
        clock = clock or Ticking(0.1)
        times = {"call_timeout": seconds, "operation_timeout": seconds} | policy
        retry = Retry(clock=clock, sleep=clock.sleep, **times)
        endpoint = server.grpc if request.param == "grpc" else server.rest
        made.append(RegistryClient(endpoint=endpoint, project="test-project", retry=retry))
        return made[-1]

    yield hostile
    for client in made:
        client.close()


NUMBERS = itertools.count(1)
PLACE = "projects/7/locations/us-central1"


def model(name: str = "churn", number: int = 1, resource: str = f"{PLACE}/models/m", **fields: Any) -> Any:
    return types.Model(
        name=f"{resource}@{number}",
        display_name=name,
        version_id=str(number),
        version_create_time={"seconds": 1},
        etag=str(next(NUMBERS)),
        **fields,
    )


def bare(one: Any) -> Any:
    one.name = one.name.partition("@")[0]
    return one


def missing(_: Any) -> Any:
    raise google_exceptions.NotFound("It isn't here")  # type: ignore[no-untyped-call]  # untyped upstream


def refused(_: Any) -> Any:
    raise google_exceptions.FailedPrecondition("Not like this")  # type: ignore[no-untyped-call]  # untyped upstream


def aborted(_: Any) -> Any:
    raise google_exceptions.Aborted("Somebody was faster")  # type: ignore[no-untyped-call]  # untyped upstream


def taken(_: Any) -> Any:
    raise google_exceptions.AlreadyExists("It's here")  # type: ignore[no-untyped-call]  # untyped upstream


def finished(response: Any) -> Any:
    made = operations_pb2.Operation(name=f"{PLACE}/models/m/operations/1", done=True)
    made.response.Pack(type(response).pb(response))
    return made


def running(_: Any) -> Any:
    return operations_pb2.Operation(name=f"{PLACE}/models/m/operations/{next(NUMBERS)}")


def honest(request: Any) -> Any:
    """Return a version or the model, as a correct server shows it."""
    _, _, reference = request.name.partition("@")
    if reference in {"", "default", "1", "2"}:
        number = int(reference) if reference.isdigit() else 2
        aliases = ["default"] if number == 2 else []
        one = model(number=number, version_aliases=aliases)
        return one if reference else bare(one)
    return missing(request)


HONEST: dict[str, Any] = {
    "GetModel": honest,
    "ListModels": lambda _: types.ListModelsResponse(models=[bare(model(number=2))]),
    "ListModelVersions": lambda _: types.ListModelVersionsResponse(models=[model(number=1), model(number=2)]),
    "ListOperations": lambda _: operations_pb2.ListOperationsResponse(),
    "UploadModel": lambda _: finished(types.UploadModelResponse(model=f"{PLACE}/models/m", model_version_id="2")),
    "UpdateModel": lambda request: honest(request.model),
    "MergeVersionAliases": lambda request: model(number=int(request.name.rpartition("@")[2])),
    "DeleteModel": lambda _: operations_pb2.Operation(name=f"{PLACE}/models/m/operations/1", done=True),
    "DeleteModelVersion": lambda _: operations_pb2.Operation(name=f"{PLACE}/models/m/operations/1", done=True),
    "GetOperation": running,
}


def listing(response: Any, entry: Callable[[], Any], token: Callable[[Any], str]) -> Callable[[Any], Any]:
    return lambda request: response(models=entry(), next_page_token=token(request))


def lists(models: Callable[[], Any], versions: Callable[[], Any], token: Callable[[Any], str]) -> dict[str, Any]:
    return {
        "ListModels": listing(types.ListModelsResponse, models, token),
        "ListModelVersions": listing(types.ListModelVersionsResponse, versions, token),
        "ListOperations": lambda request: operations_pb2.ListOperationsResponse(next_page_token=token(request)),
    }


def same_model() -> Any:
    return [bare(model(number=2))]


def same_versions() -> Any:
    return [model(number=1), model(number=2)]


def new_model() -> Any:
    return [bare(model(resource=f"{PLACE}/models/m{next(NUMBERS)}"))]


def new_version() -> Any:
    return [model(number=next(NUMBERS))]


def fresh(_: Any) -> str:
    return f"t{next(NUMBERS)}"


#: Answers of a server that would keep a client busy forever.
ENDLESS: dict[str, dict[str, Any]] = {
    "the same token": lists(same_model, same_versions, lambda _: "again"),
    "tokens in a circle": lists(same_model, same_versions, lambda asked: "b" if asked.page_token == "a" else "a"),  # noqa: S105  # no password
    "empty pages": lists(list, list, fresh),
    "the same page": lists(same_model, same_versions, fresh),
    "new entries": lists(new_model, new_version, fresh),
    "another name": {"GetModel": lambda _: bare(model("other")), "ListModels": lambda _: types.ListModelsResponse()},
    "another name and taken": {
        "GetModel": lambda asked: bare(model("other", resource=asked.name.partition("@")[0])),
        "ListModels": lambda _: types.ListModelsResponse(),
        "UploadModel": taken,
    },
    "taken by nobody": {"GetModel": missing, "ListModels": lambda _: types.ListModelsResponse(), "UploadModel": taken},
    "models that are gone": {
        "GetModel": missing,
        "ListModels": lambda _: types.ListModelsResponse(models=new_model()),
        "UploadModel": missing,
    },
    "operations that run": dict.fromkeys(("UploadModel", "DeleteModel", "DeleteModelVersion", "GetOperation"), running)
    | {"ListOperations": lambda _: operations_pb2.ListOperationsResponse(operations=[running(None)])},
    "conflicts": dict.fromkeys(("UpdateModel", "MergeVersionAliases", "DeleteModel", "DeleteModelVersion"), aborted),
    "refusals": {"DeleteModelVersion": refused, "DeleteModel": refused},
    "a default that always comes back": {"DeleteModelVersion": refused},
    "no other version": {
        "DeleteModelVersion": refused,
        "DeleteModel": refused,
        "GetModel": lambda asked: missing(asked) if asked.name.endswith("@1") else honest(asked),
        "ListModelVersions": lambda _: types.ListModelVersionsResponse(models=[model(number=2)]),
    },
    "uploads that vanish": {"UploadModel": missing},
}


#: What's read differently over REST. The rest is above the transport.
READ_BY_REST = ("the same page", "operations that run", "conflicts")
#: Measuring takes seconds, and the other cases reach the same lines.
MEASURED = ("the same token", "refusals", "conflicts")


@pytest.mark.parametrize(
    ("endless", "hostile"),
    [
        pytest.param(endless, "grpc", marks=[] if endless in MEASURED else [pytest.mark.unmeasured])
        for endless in ENDLESS
    ]
    + [pytest.param(endless, "rest", marks=pytest.mark.unmeasured) for endless in READ_BY_REST],
    indirect=["hostile"],
)
def test_a_server_that_never_ends(hostile: Callable[..., RegistryClient], endless: str) -> None:
    """Every method ends within its bound, with a result or one of this package's errors."""
    clock = Ticking(0.25)
    registry = hostile(HONEST | ENDLESS[endless], clock=clock)
    for verb, call in VERBS.items():
        start = clock.time
        try:
            call(registry, "churn")
        except RegistryError as error:
            assert str(error)
        assert clock.time - start < 4 * BUDGET, verb  # its calls, an operation, and the checks after lost calls


def check_endless_list(registry: RegistryClient, server: Hostile, most: int) -> None:
    """Check that a list of models without an end is an error after so many requests."""
    with pytest.raises(UnavailableError, match="ListModels on .* doesn't end"):
        list(registry.list_models())
    assert server.calls <= most


@over_grpc
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
@pytest.mark.parametrize(("endless", "most"), [("empty pages", 1002), ("the same page", 1003)])
def test_a_list_with_nothing_new(
    hostile: Callable[..., RegistryClient], server: Hostile, endless: str, most: int
) -> None:
    """A thousand pages without anything new are an error."""
    check_endless_list(hostile(HONEST | ENDLESS[endless], seconds=3000), server, most)


@pytest.mark.parametrize(("endless", "most"), [("the same token", 3), ("tokens in a circle", 4)])
def test_a_list_that_does_not_end(
    hostile: Callable[..., RegistryClient], server: Hostile, endless: str, most: int
) -> None:
    """A repeated page token is an error at once."""
    registry = hostile(HONEST | ENDLESS[endless], seconds=3000)
    check_endless_list(registry, server, most)
    with pytest.raises(UnavailableError, match="doesn't end"):
        registry.get_version("churn")
    with pytest.raises(UnavailableError, match="doesn't end"):
        registry.duplicates()


def test_an_endless_list_with_new_entries(hostile: Callable[..., RegistryClient]) -> None:
    """An endless list ends within the budget of an operation, even if nothing in it matches."""
    registry = hostile(HONEST | ENDLESS["new entries"])
    with pytest.raises(UnavailableError, match="doesn't end"):
        next(registry.list_models(labels={"team": "nobody"}))
    with pytest.raises(UnavailableError, match="doesn't end"):
        registry.latest_version(f"{PLACE}/models/m".replace("/7/", "/test-project/"), stage="Staging")


def test_a_list_with_an_entry_twice(hostile: Callable[..., RegistryClient]) -> None:
    """A model or version that's on two pages is returned once, and isn't ambiguous."""

    def twice(response: Any, entries: Callable[[], Any]) -> Callable[[Any], Any]:
        return listing(response, entries, lambda request: "" if request.page_token else "next")

    registry = hostile(
        HONEST
        | {
            "ListModels": twice(types.ListModelsResponse, same_model),
            "ListModelVersions": twice(types.ListModelVersionsResponse, same_versions),
        },
        seconds=600,
    )
    assert [version.version for version in registry.list_versions("churn")] == ["2", "1"]
    assert len(list(registry.list_models())) == 1
    assert registry.duplicates() == {}


def test_empty_pages_do_not_end_a_list(hostile: Callable[..., RegistryClient]) -> None:
    """After an empty page that isn't the last one, the list goes on."""
    pages = {"": ([], "a"), "a": ([], "b"), "b": (same_versions(), "c"), "c": ([], "d"), "d": ([], "")}

    def versions(request: Any) -> Any:
        models, token = pages[request.page_token]
        return types.ListModelVersionsResponse(models=models, next_page_token=token)

    registry = hostile(HONEST | {"ListModelVersions": versions}, seconds=600)
    assert [version.version for version in registry.list_versions("churn")] == ["2", "1"]


@over_grpc
@pytest.mark.unmeasured  # likewise
def test_a_series_of_ids_that_belong_to_others(hostile: Callable[..., RegistryClient], server: Hostile) -> None:
    """If models with other names have all IDs of a name, the error says so."""
    registry = hostile(HONEST | ENDLESS["another name and taken"], seconds=3000)
    with pytest.raises(UnavailableError, match="models with other names"):
        registry.get_version("churn")
    assert server.calls < 1100
    with pytest.raises(RegistryError, match="other names"):
        registry.register_version("churn", SOURCE, check_source=False)


def test_what_a_server_asks_to_wait(hostile: Callable[..., RegistryClient]) -> None:
    """If a server requests an invalid delay, the method ends with one of this package's errors."""
    for hint in ("nan", "-5", "1e400", "soon", "inf"):

        def quota(_: Any, hint: str = hint) -> Any:
            raise google_exceptions.ResourceExhausted(f"Come back in {hint}")  # type: ignore[no-untyped-call]  # untyped upstream

        registry = hostile(HONEST | {"GetModel": quota})
        with pytest.raises(UnavailableError, match="quota"):
            registry.get_version("churn")


def test_an_answer_that_comes_byte_by_byte() -> None:
    """Over HTTP the deadline covers the whole response, and not each part of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stopped = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
                )
                while not stopped.wait(0.05):
                    connection.sendall(b" ")

        dripping = threading.Thread(target=drip)
        dripping.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with (
            RegistryClient(
                endpoint=address, project="test-project", retry=Retry(call_timeout=0.5, initial_backoff=10)
            ) as registry,
            pytest.raises(UnavailableError),
        ):
            registry.get_model("churn")
        stopped.set()
        dripping.join()


# --- the order and the time of long lists -----------------------------------------------------------------------------


def in_pages(numbers: list[int], size: int) -> Callable[[Any], Any]:
    """Return answers that list these versions in this order, in pages of this size, whatever the client requests."""

    def versions(request: Any) -> Any:
        start = int(request.page_token or 0)
        shown = numbers[start : start + size]
        token = str(start + size) if start + size < len(numbers) else ""
        return types.ListModelVersionsResponse(models=[model(number=number) for number in shown], next_page_token=token)

    return versions


def test_a_long_list_has_the_time_of_its_pages(hostile: Callable[..., RegistryClient]) -> None:
    """Pages with new entries don't use up the budget, because a list may take longer than a call."""
    clock = Ticking()
    answers = HONEST | {"ListModelVersions": in_pages([6, 5, 4, 3, 2, 1], size=1)}
    registry = hostile(answers, seconds=8, operation_timeout=1000, clock=clock)
    clock.tick = 0.3

    assert len(registry.prune("churn", keep=100, dry_run=True).kept) == 6
    assert len(list(registry.list_versions("churn"))) == 6


@pytest.mark.parametrize(
    ("numbers", "size", "listed"),
    [
        ([3, 2, 1], 1, [3, 2, 1]),
        ([1, 2, 3], 1, [3, 2, 1]),
        ([1, 2, 3], 2, [3, 2, 1]),
        ([5, 2, 3, 4], 100, [5, 4, 3, 2]),
        ([5, 4, 1, 2, 3], 2, [5, 4, 3, 2, 1]),
        ([5, 2, 3, 4], 2, [5, 2, 4, 3]),  # the first page was in order
        ([7], 1, [7]),
    ],
)
def test_a_server_that_does_not_keep_the_order(
    hostile: Callable[..., RegistryClient], numbers: list[int], size: int, listed: list[int]
) -> None:
    """If a server ignores the order, every version is listed once, and in order from the next page on."""
    registry = hostile(HONEST | {"ListModelVersions": in_pages(numbers, size)}, seconds=60)
    latest = registry.latest_version("churn")

    assert [int(version.version) for version in registry.list_versions("churn")] == listed
    assert latest is not None
    assert int(latest.version) == listed[0]


def test_the_oldest_first_from_a_server_that_does_not_keep_the_order(hostile: Callable[..., RegistryClient]) -> None:
    """The same is true for the other order."""
    registry = hostile(HONEST | {"ListModelVersions": in_pages([3, 2, 10, 1], size=2)}, seconds=60)

    assert [int(version.version) for version in registry.list_versions("churn", oldest_first=True)] == [1, 2, 3, 10]


def test_a_server_that_refuses_the_label_filter(hostile: Callable[..., RegistryClient]) -> None:
    """If Vertex doesn't accept the filter that finds a stage, the client reads the whole list instead."""
    listed = [model(number=3), model(number=2, labels={"stage": "staging"}), model(number=1)]

    def versions(request: Any) -> Any:
        if request.filter:
            raise google_exceptions.InvalidArgument("No such filter")  # type: ignore[no-untyped-call]  # upstream
        return types.ListModelVersionsResponse(models=listed)

    registry = hostile(HONEST | {"ListModelVersions": versions}, seconds=60)

    assert [version.version for version in registry.list_versions("churn", stage="Staging")] == ["2"]
    assert registry.get_version("churn", stage="Staging").version == "2"
