"""The recorded conversations: each has a few calls of the client, and checks what they return.

A scenario is deterministic: its clock and its IDs count up, and another client acts after a certain call.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

from tests.behaviour.incompressible import incompressible
from vertex_registry import (
    AlreadyExistsError,
    AmbiguousNameError,
    AuthenticationError,
    ConflictError,
    HistoryUnknownError,
    InvalidArgumentError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionDeniedError,
    RegistryClient,
    Retry,
    Stage,
    StateUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from vertex_registry import (
        RegistryError,
    )

_START: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Clock:
    """A clock that moves only when its `sleep` is called."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@attrs.frozen
class World:
    """The server, the names and the clients of a scenario.

    Attributes:
        settings: The settings of a `RegistryClient` for the server.
        parent: The resource name of the location.
        name: The display name of the scenario's model.
        source: A function that returns the directory of an artifact.
        google: A function that creates Google's own client of the same server, over REST.
    """

    settings: dict[str, Any]
    parent: str
    name: str
    source: Callable[[int], str]
    _google: Callable[[], ModelServiceClient]
    _seconds: Iterator[int] = attrs.field(factory=itertools.count, init=False)
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _open: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack, init=False)

    def connect(self, **limits: float) -> RegistryClient:
        """Create a client with nothing cached. The limits are those of `Retry`."""
        clock = Clock()
        retry = {} if "retry" in self.settings else {"retry": _retry(clock, **limits)}
        registry = RegistryClient(
            transport="rest",
            now=lambda: _START + dt.timedelta(seconds=next(self._seconds)),
            new_id=lambda: f"request-{next(self._ids)}",
            **self.settings | retry,
        )
        return self._open.enter_context(registry)

    def google(self) -> ModelServiceClient:
        """Create Google's own client, which acts as another tool."""
        return self._open.enter_context(self._google())

    def close(self) -> None:
        """Close every connection."""
        self._open.close()


def _retry(clock: Clock, **limits: float) -> Retry:
    return Retry(sleep=clock.sleep, clock=clock, random=lambda: 1.0, **limits)


@attrs.frozen
class Scenario:
    """A conversation.

    Attributes:
        file: The name of its cassette.
        about: What it is about.
        play: A function that makes the calls and checks their results.
        faults: The faults of the emulator, as arguments of ``Emulator.fail``.
        polls: The number of polls after which the emulator's operations are done.
        page: The largest number of entries on a page.
        shows_all_models: Whether an answer lists all models of the project, which don't belong in a cassette.
    """

    file: str
    about: str
    play: Callable[[World], None]
    faults: tuple[dict[str, Any], ...] = ()
    polls: int = 0
    page: int | None = None
    shows_all_models: bool = False

    def run(self, world: World) -> None:
        """Run the conversation, and close its connections."""
        with contextlib.closing(world):
            self.play(world)

    @property
    def live(self) -> bool:
        """Return whether the scenario can run against the real service, which can't fail on demand."""
        return not (self.faults or self.polls or self.page or self.shows_all_models)

    @property
    def note(self) -> str:
        """Describe what was done to the server."""
        notes = [f"{fault['rpc']} fails with {fault['code']}" for fault in self.faults]
        notes += [f"an operation is done after {self.polls} polls"] if self.polls else []
        notes += ["the list shows every model of the project"] if self.shows_all_models else []
        notes += [f"a page has at most {self.page} entries"] if self.page else []
        return "; ".join(notes)


@contextlib.contextmanager
def _meanwhile(rpc: str, act: Callable[[], object], calls: int = 1) -> Iterator[None]:
    """Call `act` after this many calls of an RPC, which are counted in the client's log."""
    log = logging.getLogger("vertex_registry")
    actions: list[Callable[[], object]] = [act, *(lambda: None for _ in range(calls - 1))]

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if actions and record.levelno == logging.DEBUG and record.getMessage().startswith(f"{rpc} "):
                actions.pop()()

    listener, level = Listener(), log.level
    log.addHandler(listener)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


def _numbers(versions: Any) -> list[str]:
    return [version.version for version in versions]


def _stages(registry: RegistryClient, name: str) -> list[str]:
    return [str(registry.get_version(name, version).stage) for version in (1, 2)]


@contextlib.contextmanager
def _raises(error: type[RegistryError], code: str | None = None) -> Iterator[None]:
    """Require an error of exactly this class and code."""
    try:
        yield
    except error as caught:
        assert type(caught) is error, caught
        assert caught.code == code, caught.code
    else:
        raise AssertionError(f"no {error.__name__} was raised")


# --- the conversations ------------------------------------------------------------------------------------------------


def _first_registration(world: World) -> None:
    registry = world.connect()
    version = registry.register_version(
        world.name,
        world.source(1),
        version_name="Release Candidate 1",
        description="a first try",
        metadata={"accuracy": 0.93, "team": "growth"},
        stage=Stage.STAGING,
        aliases=["candidate"],
        model_description="who leaves",
    )
    assert (version.version, version.stage, version.version_name) == ("1", Stage.STAGING, "Release Candidate 1")
    assert version.metadata == {"accuracy": 0.93, "team": "growth"}
    assert world.connect().get_version(world.name, version_name="Release Candidate 1") == version


def _next_version(world: World) -> None:
    registry = world.connect()
    registry.register_version(world.name, world.source(1))
    version = registry.register_version(world.name, world.source(2), make_default=False)
    again = world.connect().register_version(world.name, world.source(3), request_id="run-7")
    assert (version.version, version.is_default) == ("2", False)
    assert (again.version, again.is_default) == ("3", True)
    assert world.connect().register_version(world.name, world.source(3), request_id="run-7") == again


def _race_lost(world: World) -> None:
    rival = world.connect()
    # After ListModels, the client reads the name's first three IDs. Only then does it know that the name is new.
    with _meanwhile("GetModel", lambda: rival.register_version(world.name, world.source(1)), calls=3):
        version = world.connect().register_version(world.name, world.source(2))
    assert version.version == "2"
    assert rival.get_version(world.name, 1).artifact_uri == world.source(1)


def _promote_with_archive(world: World) -> None:
    registry = world.connect()
    for number in (1, 2):
        registry.register_version(world.name, world.source(number))
    registry.set_stage(world.name, 1, Stage.PRODUCTION)
    promoted = registry.set_stage(world.name, 2, Stage.PRODUCTION, archive_existing=True)
    assert promoted.stage is Stage.PRODUCTION
    assert _stages(registry, world.name) == ["Archived", "Production"]


def _metadata_at_the_limit(world: World) -> None:
    registry = world.connect()
    # With the labels that this package adds, these are all 64. Each value fills a label and can't be compressed.
    metadata: dict[str, Any] = incompressible(53)
    version = registry.register_version(world.name, world.source(1), metadata=metadata)
    assert version.metadata == metadata
    assert len(version.labels) == 56
    with _raises(InvalidArgumentError):
        registry.update_version(world.name, 1, metadata=incompressible(1, "one-more"))
    del metadata["key-52"]
    metadata |= {"key-0": 0.5, "Größe": None}
    changed = registry.update_version(world.name, 1, metadata={"key-0": 0.5, "Größe": None}, remove_metadata=["key-52"])
    assert changed.metadata == metadata
    assert len(changed.labels) == 56


def _paging(world: World) -> None:
    registry = world.connect()
    for number in range(1, 4):
        registry.register_version(world.name, world.source(number))
    assert _numbers(registry.list_versions(world.name)) == ["3", "2", "1"]


def _delete_default(world: World) -> None:
    registry = world.connect()
    for number in (1, 2):
        registry.register_version(world.name, world.source(number))
    registry.delete_version(world.name, "default")
    assert registry.get_version(world.name).version == "1"


def _delete_last(world: World) -> None:
    registry = world.connect()
    registry.register_version(world.name, world.source(1))
    registry.delete_version(world.name, 1)
    with _raises(NotFoundError):
        registry.get_model(world.name)


def _not_found(world: World) -> None:
    registry = world.connect()
    with _raises(NotFoundError):
        registry.get_version(world.name)
    registry.register_version(world.name, world.source(1))
    with _raises(NotFoundError, "NOT_FOUND"):
        registry.get_version(world.name, 2)
    with _raises(NotFoundError, "NOT_FOUND"):
        registry.set_stage(world.name, "candidate", Stage.PRODUCTION)


def _ambiguous_name(world: World) -> None:
    google = world.google()
    for number in (1, 2):
        model: Any = {
            "display_name": world.name,
            "artifact_uri": world.source(number),
            "container_spec": {"image_uri": "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"},
        }
        google.upload_model(parent=world.parent, model=model)
    with _raises(AmbiguousNameError):
        world.connect().register_version(world.name, world.source(3))


def _invalid_argument(world: World) -> None:
    # Only the server knows the number of the client's own project.
    registry = world.connect()
    version = registry.register_version(world.name, world.source(1))
    model_id = version.model_resource_name.rpartition("/")[2]
    parent = f"projects/999999999999/locations/{world.parent.rpartition('/')[2]}"
    with _raises(InvalidArgumentError):
        registry.get_model(f"{parent}/models/{model_id}")


def _conflict(world: World) -> None:
    registry = world.connect()
    registry.register_version(world.name, world.source(1), request_id="run-7")
    with _raises(ConflictError):
        world.connect().register_version(world.name, world.source(2), request_id="run-7")
    # If another client makes a change in between, the update starts again, and both changes survive.
    rival = world.connect()
    with _meanwhile("GetModel", lambda: rival.update_version(world.name, 1, metadata={"theirs": 1})):
        ours = registry.update_version(world.name, 1, metadata={"ours": 2})
    assert ours.metadata == {"theirs": 1, "ours": 2}


def _refused(error: type[RegistryError], code: str) -> Callable[[World], None]:
    def play(world: World) -> None:
        with _raises(error, code):
            world.connect(call_timeout=5).get_model(world.name)

    return play


def _already_exists(world: World) -> None:
    registry = world.connect()
    registry.register_version(world.name, world.source(1))
    with _raises(AlreadyExistsError, "ALREADY_EXISTS"):
        registry.add_aliases(world.name, 1, ["candidate"])


def _operation_failed(world: World) -> None:
    with _raises(OperationFailedError, "FAILED_PRECONDITION"):
        world.connect().register_version(world.name, world.source(1))


def _operation_timeout(world: World) -> None:
    with _raises(OperationTimeoutError):
        world.connect(operation_timeout=0.2).register_version(world.name, world.source(1))


def _state_unknown(world: World) -> None:
    registry = world.connect(call_timeout=5)
    with _raises(StateUnknownError):
        registry.register_version(world.name, world.source(1))


def _history_unknown(world: World) -> None:
    registry = world.connect()
    for number in (1, 2):
        registry.register_version(world.name, world.source(number))
    for number in (1, 2, 1):
        entered = registry.set_stage(world.name, number, "Production", archive_existing=True).stage_changed_at
    registry.delete_version(world.name, 2)
    assert entered is not None
    with _raises(HistoryUnknownError):
        registry.version_at(world.name, entered - dt.timedelta(microseconds=1))


def _fault(rpc: str, code: str, **how: Any) -> tuple[dict[str, Any], ...]:
    return ({"rpc": rpc, "code": code, **how},)


SCENARIOS: Final = (
    Scenario("first-registration", "the first version of a new model, with every field set", _first_registration),
    Scenario(
        "next-version", "two more versions; the second is registered twice, with the same request ID", _next_version
    ),
    Scenario("race-lost", "a new name whose model another client creates between the check and the upload", _race_lost),
    Scenario("promote-with-archive", "a version that takes another one's place in Production", _promote_with_archive),
    Scenario("metadata-at-the-limit", "metadata that uses all the labels of a version", _metadata_at_the_limit),
    Scenario("paging", "a list of more than one page", _paging, page=2),
    Scenario("delete-default", "the default version is deleted", _delete_default),
    Scenario("delete-last", "the last version is deleted, and the model with it", _delete_last, shows_all_models=True),
    Scenario("error-not-found", "a model and a version that don't exist", _not_found, shows_all_models=True),
    Scenario("error-ambiguous-name", "a name that two models have", _ambiguous_name),
    Scenario("error-invalid-argument", "a resource name of another project", _invalid_argument),
    Scenario("error-conflict", "a request ID that was used with another source, and two updates at once", _conflict),
    Scenario(
        "error-already-exists",
        "an alias that is rejected because it already exists",
        _already_exists,
        faults=_fault("MergeVersionAliases", "ALREADY_EXISTS"),
    ),
    Scenario(
        "error-permission-denied",
        "a call that is not allowed",
        _refused(PermissionDeniedError, "PERMISSION_DENIED"),
        faults=_fault("ListModels", "PERMISSION_DENIED"),
    ),
    Scenario(
        "error-authentication",
        "credentials that Vertex rejects",
        _refused(AuthenticationError, "UNAUTHENTICATED"),
        faults=_fault("ListModels", "UNAUTHENTICATED"),
    ),
    Scenario(
        "error-unavailable",
        "a quota that stays used up for longer than the client waits",
        _refused(UnavailableError, "RESOURCE_EXHAUSTED"),
        faults=_fault("ListModels", "RESOURCE_EXHAUSTED", times=9, retry_after=2.0),
    ),
    Scenario(
        "error-operation-failed",
        "an upload whose operation fails",
        _operation_failed,
        faults=_fault("UploadModel", "FAILED_PRECONDITION", when="operation"),
    ),
    Scenario("error-operation-timeout", "an upload whose operation doesn't end", _operation_timeout, polls=1000),
    Scenario(
        "error-history-unknown", "a time at which a version that was later deleted was in Production", _history_unknown
    ),
    Scenario(
        "error-state-unknown",
        "an upload that never gets a response",
        _state_unknown,
        faults=_fault("UploadModel", "UNAVAILABLE", times=9),
    ),
)

BY_FILE: Final = {scenario.file: scenario for scenario in SCENARIOS}
