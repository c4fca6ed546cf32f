"""Lost responses, refusals and limits: faults between the client and Vertex, queued in the emulator."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vertex_registry import (
    ConflictError,
    NotFoundError,
    OperationFailedError,
    OperationTimeoutError,
    PermissionDeniedError,
    RegistryClient,
    RegistryError,
    Retry,
    Stage,
    StateUnknownError,
    UnavailableError,
    _faults,
    _rpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.conftest import Backend, Clock, Connect, NewName, NewSource, UploadModels
    from vertex_registry import (
        ModelVersion,
    )
    from vertex_registry.emulator import Emulator

    Cost = Callable[[Callable[[], Any]], list[str]]

pytestmark = [pytest.mark.no_switches, pytest.mark.emulator_only("Vertex does nothing wrong on demand")]

LOST = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"]
FLOW = ["ListModels", "GetModel", "UploadModel", "GetOperation", "UpdateModel", "ListOperations", "ListModelVersions"]
SAME_EMULATOR = [HealthCheck.function_scoped_fixture]  # each example has a name of its own in it

faults = st.fixed_dictionaries(
    {
        "rpc": st.sampled_from(FLOW + ["UploadModel"] * 3 + ["UpdateModel"] * 2),
        "code": st.sampled_from([*LOST, "RESOURCE_EXHAUSTED"]),
        "when": st.sampled_from(["before", "after"]),
        "times": st.integers(1, 3),
    }
)


def plan(emulator: Emulator, fault: dict[str, Any]) -> None:
    emulator.fail(fault["rpc"], fault["code"], times=fault["times"], when=fault["when"])


def quiet(registry: RegistryClient, name: str) -> list[ModelVersion]:
    """Poll until every operation is done, then return the versions of a model."""
    for _ in range(8):
        versions = list(registry.list_versions(name))
    return versions


def patient(clock: Clock, **limits: Any) -> Retry:
    return Retry(sleep=clock.sleep, clock=clock, random=lambda: 1.0, **limits)


@pytest.mark.polls(2)
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
@pytest.mark.without_rest("each code is lost over REST in the tests below, and what follows is the same")
@settings(suppress_health_check=SAME_EMULATOR, max_examples=25)
@given(schedule=st.lists(faults, max_size=5), known=st.booleans(), own=st.booleans())
def test_an_upload_happens_once(
    connect: Connect,
    emulator: Emulator,
    source: NewSource,
    schedule: list[dict[str, Any]],
    known: bool,
    own: bool,
) -> None:
    """Whatever fails, a registration creates at most one version, and a re-run ends with exactly one."""
    name, artifact = f"vr-test-{uuid.uuid4()}", source()
    onlooker = connect()
    before = 1 if known else 0
    if known:
        onlooker.register_version(name, artifact)
    registry = connect()
    if known:
        registry.get_version(name)
    for fault in schedule:
        plan(emulator, fault)
    asked = len(emulator.requests())
    arguments: dict[str, Any] = {"metadata": {"n": 1}, "stage": "Staging", "request_id": "run" if own else None}
    made, request_id = None, arguments["request_id"]
    try:
        made = registry.register_version(name, artifact, **arguments)
    except StateUnknownError as unknown:
        assert request_id in {None, unknown.request_id}
        request_id = unknown.request_id
    except UnavailableError as error:
        # Nothing was uploaded: it ended in a look before, or was refused for its quota.
        sent = {request.rpc for request in emulator.requests()[asked:]}
        assert error.code == "RESOURCE_EXHAUSTED" or "UploadModel" not in sent
    emulator.forget_faults()

    try:
        onlooker.latest_version(name)
        there = quiet(onlooker, name)
    except NotFoundError:  # a server that goes on failing gets no model
        there = []
    assert len(there) - before in ({1} if made else {0, 1})
    if made is not None:
        assert there[0] == made
    if request_id is None:
        return
    again = connect().register_version(name, artifact, **arguments | {"request_id": request_id})
    there = quiet(onlooker, name)
    assert len(there) - before == 1
    assert there[0] == again
    assert (again.stage, again.metadata) == (Stage.STAGING, {"n": 1})
    assert made in {None, again}
    assert name not in onlooker.duplicates()


def test_failures_are_counted_by_code(connect: Connect, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """Lost connections don't use up the attempts that a failing server gets, for each kind of change."""
    registry = connect()
    for rpc in ("UploadModel", "UpdateModel", "MergeVersionAliases"):
        emulator.fail(rpc, "UNAVAILABLE", times=4)
        emulator.fail(rpc, "INTERNAL", times=4)
        emulator.fail(rpc, "UNKNOWN", times=4)
    version = registry.register_version(name(), source(), aliases=["candidate"])

    for rpc in ("DeleteModelVersion", "DeleteModel"):
        emulator.fail(rpc, "UNAVAILABLE", times=4)
        emulator.fail(rpc, "INTERNAL", times=4)
    registry.delete_version(version.name, version)

    assert set(version.aliases) == {"candidate", "default"}
    assert emulator.faults() == ()


@pytest.mark.parametrize("code", LOST)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_upload_of_a_new_model(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, code: str, when: str
) -> None:
    """The model ID prevents a second model, whatever was lost."""
    churn = name()
    emulator.fail("UploadModel", code, when=when)

    assert registry.register_version(churn, source()).version == "1"
    assert [version.version for version in registry.list_versions(churn)] == ["1"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "UNKNOWN"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.polls(7)
def test_a_lost_upload_of_a_version(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, code: str, when: str
) -> None:
    """The client searches for a lost upload, even while its operation runs, before it retries."""
    churn = name()
    registry.register_version(churn, source())
    emulator.fail("UploadModel", code, when=when)

    assert registry.register_version(churn, source(), stage="Staging").version == "2"
    assert [version.version for version in quiet(registry, churn)] == ["2", "1"]


def test_an_upload_that_may_still_arrive(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """An upload that timed out and can't be found isn't sent again."""
    churn = name()
    registry.register_version(churn, source())
    emulator.fail("UploadModel", "DEADLINE_EXCEEDED", when="before")
    with pytest.raises(StateUnknownError, match="request_id=") as caught:
        registry.register_version(churn, source())

    artifact = source()
    made = registry.register_version(churn, artifact, request_id=caught.value.request_id)
    assert made.version == "2"
    assert registry.register_version(churn, artifact, request_id=caught.value.request_id) == made


@pytest.mark.parametrize("code", ["UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED"])
@pytest.mark.parametrize(("lost", "known"), [("UNAVAILABLE", False), ("UNAVAILABLE", True), ("ALREADY_EXISTS", False)])
def test_a_search_for_an_upload_that_fails(
    connect: Connect,
    clock: Clock,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    known: bool,
    code: str,
    lost: str,
) -> None:
    """If the search for an upload fails, the error has the request ID that finishes the version."""
    churn, artifact, registry = name(), source(), connect(retry=patient(clock, call_timeout=3))
    if known:
        registry.register_version(churn, source())
    emulator.fail("UploadModel", lost, when="after")
    emulator.fail("GetModel", delay=0.0001, times=1 if known else 3)  # what proves the name
    emulator.fail("GetModel", code, times=1000)
    with pytest.raises(StateUnknownError) as caught:
        registry.register_version(churn, artifact, stage="Staging")

    emulator.forget_faults()
    made = registry.register_version(churn, artifact, stage="Staging", request_id=caught.value.request_id)
    assert (made.version, made.stage) == ("2" if known else "1", Stage.STAGING)
    assert len(list(registry.list_versions(churn))) == int(made.version)


def test_a_second_search_for_an_upload_that_fails(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The same is true for the second search, just before the upload is sent again."""

    def sleep(seconds: float) -> None:
        if seconds == 1:
            emulator.fail("GetModel", "PERMISSION_DENIED")
        clock.sleep(seconds)

    churn, registry = name(), connect(retry=Retry(sleep=sleep, clock=clock))
    registry.register_version(churn, source())
    emulator.fail("UploadModel", "UNAVAILABLE")
    with pytest.raises(StateUnknownError, match="isn't allowed"):
        registry.register_version(churn, source())


@pytest.mark.polls(3)
@pytest.mark.parametrize("code", ["UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED"])
def test_an_upload_whose_operation_cannot_be_polled(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource, code: str
) -> None:
    """If an operation can't be polled, the error has the request ID that finishes the version."""
    churn, artifact, registry = name(), source(), connect(retry=patient(clock, call_timeout=3))
    emulator.fail("GetOperation", code, times=1000)
    with pytest.raises(StateUnknownError, match="with request_id=") as caught:
        registry.register_version(churn, artifact, stage="Staging")

    emulator.forget_faults()
    made = registry.register_version(churn, artifact, stage="Staging", request_id=caught.value.request_id)
    assert (made.version, made.stage) == ("1", Stage.STAGING)


def test_an_upload_that_stays_lost(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """An upload that's never answered ends within its budget, as a StateUnknownError."""
    churn = name()
    registry = connect(retry=patient(clock))
    registry.register_version(churn, source())
    emulator.fail("UploadModel", "UNAVAILABLE", times=1000)
    start = clock.time
    with pytest.raises(StateUnknownError):
        registry.register_version(churn, source())

    assert clock.time - start <= 60
    emulator.forget_faults()
    assert [version.version for version in registry.list_versions(churn)] == ["1"]


def test_a_registration_that_was_cut_off(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """An interrupted registration leaves a version without a stage, until the same request ID finishes it."""
    churn, artifact = name(), source()
    registry = connect(retry=patient(clock))
    arguments: dict[str, Any] = {
        "stage": "Production",
        "metadata": {"a": 1},
        "version_name": "1.0",
        "request_id": "run",
    }
    emulator.fail("UpdateModel", "UNAVAILABLE", times=1000)
    with pytest.raises(StateUnknownError, match="couldn't be completed"):
        registry.register_version(churn, artifact, **arguments)
    emulator.forget_faults()

    half = registry.get_version(churn, 1)
    assert (half.stage, half.metadata, half.version_name) == (Stage.NONE, {}, None)
    assert registry.get_version(churn, version_name="1.0").version_name == "1.0"
    whole = connect().register_version(churn, artifact, **arguments)
    assert (whole.version, whole.stage, whole.metadata) == ("1", Stage.PRODUCTION, {"a": 1})


def test_a_promotion_that_was_cut_off(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """Running an interrupted promotion again finishes it."""
    churn = name()
    registry = connect(retry=patient(clock))
    for _ in range(3):
        registry.register_version(churn, source(), stage=Stage.PRODUCTION)
    registry.set_stage(churn, 3, Stage.STAGING)
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.set_stage(churn, 3, Stage.PRODUCTION, archive_existing=True)
    standing = [version.version for version in registry.list_versions(churn, stage="Production")]
    assert standing == ["3", "2", "1"]

    registry.set_stage(churn, 3, Stage.PRODUCTION, archive_existing=True)
    assert [version.version for version in registry.list_versions(churn, stage="Production")] == ["3"]


def test_an_operation_that_fails(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The error has the operation's name, and the model's name can be used again."""
    churn = name()
    emulator.fail("UploadModel", "FAILED_PRECONDITION", when="operation")
    with pytest.raises(OperationFailedError, match="/operations/") as caught:
        registry.register_version(churn, source())

    assert caught.value.code == "FAILED_PRECONDITION"
    assert "/operations/" in str(caught.value.resource)
    with pytest.raises(NotFoundError):
        registry.get_model(churn)
    assert registry.register_version(churn, source()).version == "1"


def test_an_operation_that_was_cancelled(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The error says that the operation was canceled."""
    emulator.fail("UploadModel", "CANCELLED", when="operation")
    with pytest.raises(OperationFailedError, match="was canceled"):
        registry.register_version(name(), source())


@pytest.mark.polls(10_000)
def test_an_operation_that_does_not_end(connect: Connect, clock: Clock, name: NewName, source: NewSource) -> None:
    """After its budget, the error has the operation's name and the request ID."""
    registry = connect(retry=patient(clock, operation_timeout=300))
    with pytest.raises(OperationTimeoutError, match="/operations/") as caught:
        registry.register_version(name(), source(), request_id="run")

    assert caught.value.request_id == "run"
    assert "again with request_id='run'" in str(caught.value)
    assert "/operations/" in str(caught.value.resource)
    assert 299 < clock.time < 301
    assert clock.slept[:3] == [0.05, 0.05, 0.05]
    assert max(clock.slept) == 10


@pytest.mark.no_switches
@pytest.mark.polls(10_000)
def test_the_last_poll_has_enough_time(
    connect: Connect, emulator: Emulator, clock: Clock, name: NewName, source: NewSource
) -> None:
    """The last poll has enough time for a slow response."""
    emulator.fail("GetOperation", delay=0.2, times=2)
    with pytest.raises(OperationTimeoutError, match="is still running after 0.05 s"):
        connect(retry=patient(clock, operation_timeout=0.05)).register_version(name(), source())


@pytest.mark.polls(10_000)
def test_a_name_whose_first_upload_does_not_end(
    connect: Connect, clock: Clock, name: NewName, source: NewSource
) -> None:
    """Waiting for another client's first upload ends within the budget, and the error says what it waited for."""
    churn = name()
    with pytest.raises(OperationTimeoutError):
        connect(retry=patient(clock, operation_timeout=1)).register_version(churn, source())
    with pytest.raises(OperationTimeoutError, match="is taken by an upload"):
        connect(retry=patient(clock, operation_timeout=300)).register_version(churn, source())
    assert clock.time < 305


def test_reads_are_sent_again(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """Every read is retried, and so is every single page of a list."""
    churn = name()
    for _ in range(3):
        registry.register_version(churn, source())
    for code in [*LOST, "CANCELLED", "DATA_LOSS", "RESOURCE_EXHAUSTED"]:
        emulator.fail("GetModel", code, times=2)
        emulator.fail("ListModelVersions", code, when="after")
        assert registry.get_version(churn, 2).version == "2"
        assert len(list(registry.list_versions(churn))) == 3


@pytest.mark.parametrize("code", _faults.ATTEMPTS)
def test_a_server_that_keeps_failing(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource, code: str
) -> None:
    """A failure of the server's own is repeated a few times, and not for the whole budget, whatever the method."""
    churn, most = name(), _faults.ATTEMPTS[code]
    registry = connect(retry=patient(clock, call_timeout=600))
    for _ in range(3):
        registry.register_version(churn, source())
    calls: dict[str, Callable[[], Any]] = {
        "GetModel": lambda: registry.get_version(churn, 1),
        "ListModelVersions": lambda: list(registry.list_versions(churn)),
        "UpdateModel": lambda: registry.update_version(churn, 1, description=f"{code} {len(emulator.requests())}"),
        "MergeVersionAliases": lambda: registry.add_aliases(churn, 1, [f"fresh-{len(emulator.requests())}"]),
        "UploadModel": lambda: registry.register_version(churn, source()),
        "DeleteModelVersion": lambda: registry.delete_version(churn, 2),
        "DeleteModel": lambda: registry.delete_model(churn),
    }
    for rpc, call in calls.items():
        before = len(emulator.requests())
        emulator.fail(rpc, code, times=most)
        with pytest.raises((UnavailableError, StateUnknownError), match=rf"{rpc} on .* \({code}\)"):
            call()
        assert sum(request.rpc == rpc for request in emulator.requests()[before:]) == most
        emulator.fail(rpc, code, times=most - 1)
        call()


@pytest.mark.parametrize("rpc", ["GetModel", "ListModelVersions", "UpdateModel", "MergeVersionAliases"])
def test_what_is_refused_is_not_sent_again(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, rpc: str
) -> None:
    """A refusal isn't retried, and raises the error of the table."""
    churn = name()
    registry.register_version(churn, source())
    calls: dict[str, Callable[[], Any]] = {
        "GetModel": lambda: registry.get_version(churn, 1),
        "ListModelVersions": lambda: list(registry.list_versions(churn)),
        "UpdateModel": lambda: registry.update_version(churn, 1, description="x"),
        "MergeVersionAliases": lambda: registry.set_default(churn, 1),
    }
    for code in ("PERMISSION_DENIED", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNAUTHENTICATED", "UNIMPLEMENTED"):
        emulator.fail(rpc, code)
        sent = len(emulator.requests())
        with pytest.raises(_faults.ERRORS[code]) as caught:
            calls[rpc]()
        assert caught.value.code == code
        assert sum(request.rpc == rpc for request in emulator.requests()[sent:]) in {1, 2}
        assert isinstance(caught.value.__cause__, Exception)


def test_a_requested_delay_is_kept(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If the server says how long to wait, the client waits at least that long."""
    churn = name()
    registry = connect(retry=patient(clock))
    registry.register_version(churn, source())
    clock.slept.clear()
    emulator.fail("GetModel", "RESOURCE_EXHAUSTED", retry_after=7)
    registry.get_version(churn, 1)
    assert clock.slept == [7]
    emulator.fail("GetModel", "RESOURCE_EXHAUSTED", retry_after=61)
    with pytest.raises(UnavailableError, match="quota"):
        registry.get_version(churn, 1)
    assert clock.slept == [7]


def test_a_budget_is_kept(connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """A call that never succeeds ends within its budget, and its waits grow."""
    churn = name()
    registry = connect(retry=patient(clock, call_timeout=20))
    registry.register_version(churn, source())
    clock.slept.clear()
    start = clock.time
    emulator.fail("GetModel", "UNAVAILABLE", times=1000)
    with pytest.raises(UnavailableError, match="no usable response"):
        registry.get_version(churn, 1)

    assert clock.time - start <= 20
    assert clock.slept == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    emulator.forget_faults()


@pytest.mark.parametrize("code", [*LOST, None])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_deletion(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, code: str | None, when: str
) -> None:
    """If the response to a deletion is lost, it's checked, and sent again only if the version still exists."""
    churn = name()
    for _ in range(3):
        registry.register_version(churn, source())
    emulator.fail("DeleteModelVersion", code, when=when, drop=code is None)
    registry.delete_version(churn, 2)
    assert [version.version for version in registry.list_versions(churn)] == ["3", "1"]
    emulator.fail("DeleteModel", code, when=when, drop=code is None)
    registry.delete_model(churn)
    with pytest.raises(NotFoundError):
        registry.get_model(churn)


@pytest.mark.parametrize("rpc", ["DeleteModel", "DeleteModelVersion"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_deletion_and_somebody_elses_model(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, rpc: str, when: str
) -> None:
    """A model that was registered under the name after the lost response stays."""
    churn, somebody = name(), connect()

    def register_anew(_: float) -> None:
        with contextlib.suppress(NotFoundError):
            connect().delete_model(churn)
        for _ in range(3):
            somebody.register_version(churn, source())

    registry = connect(retry=Retry(sleep=register_anew))
    for _ in range(3):
        registry.register_version(churn, source())
    emulator.fail(rpc, "UNAVAILABLE", when=when)
    if rpc == "DeleteModel":
        registry.delete_model(churn)
    else:
        registry.delete_version(churn, 2)

    assert [version.version for version in somebody.list_versions(churn)] == ["3", "2", "1"]


@pytest.mark.polls(3)
def test_a_deletion_that_has_begun(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The client waits for a running deletion and doesn't start it twice."""
    churn, registry = name(), connect(retry=patient(clock, call_timeout=10))
    for _ in range(3):
        registry.register_version(churn, source())

    def begun() -> int:
        return sum(request.rpc == "DeleteModelVersion" for request in emulator.requests())

    emulator.fail("GetOperation", "UNAVAILABLE", times=8)
    registry.delete_version(churn, 2)
    assert begun() == 1
    emulator.fail("GetOperation", "UNAVAILABLE", times=1000)
    with pytest.raises(UnavailableError, match="@1 has started, and goes on"):
        registry.delete_version(churn, 1)
    assert begun() == 2

    emulator.forget_faults()
    assert [version.version for version in quiet(registry, churn)] == ["3"]


def test_a_deployed_version(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """If Vertex refuses a deletion, a ConflictError says why, and the default version doesn't change."""
    churn = name()
    for _ in range(2):
        registry.register_version(churn, source())
    emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION", message="The version is deployed", times=2)
    with pytest.raises(ConflictError, match="undeploy it"):
        registry.delete_version(churn, 2)
    assert registry.get_version(churn).version == "2"
    emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION", times=2)
    with pytest.raises(ConflictError, match="wasn't deleted"):
        registry.delete_version(churn, 1)
    emulator.fail("DeleteModel", "FAILED_PRECONDITION")
    with pytest.raises(ConflictError, match="undeploy it"):
        registry.delete_model(churn)
    assert len(list(registry.list_versions(churn))) == 2


def test_a_deletion_whose_operation_fails(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If the operation reports the refusal, the error is the same, and the model stays."""
    churn = name()
    registry.register_version(churn, source())
    emulator.fail("DeleteModel", "FAILED_PRECONDITION", when="operation")
    with pytest.raises(ConflictError, match="undeploy it"):
        registry.delete_model(churn)
    assert registry.get_version(churn).version == "1"


def test_dropped_connections(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """A connection that ends without a response counts as a lost response."""
    churn = name()
    emulator.fail("UploadModel", drop=True, when="after")
    assert registry.register_version(churn, source()).version == "1"
    emulator.fail("UploadModel", drop=True, when="after")
    assert registry.register_version(churn, source()).version == "2"
    emulator.fail("GetModel", drop=True)
    assert registry.get_version(churn, 1).version == "1"
    assert len(list(registry.list_versions(churn))) == 2


def test_a_stale_etag(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """If another client updates the version first, the update starts again from the new state."""
    churn = name()
    registry.register_version(churn, source(), metadata={"a": 1})
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")

    assert registry.update_version(churn, 1, metadata={"b": 2}).metadata == {"a": 1, "b": 2}


CHANGES: dict[str, Callable[[RegistryClient, str, str], ModelVersion]] = {
    "update": lambda registry, name, _: registry.update_version(name, 2, stage="Production"),
    "stage": lambda registry, name, _: registry.set_stage(name, 2, "Production"),
    "promote": lambda registry, name, _: registry.set_stage(name, 2, "Production", archive_existing=True),
    "register": lambda registry, name, source: registry.register_version(name, source, stage="Production"),
    "replace": lambda registry, name, source: registry.register_version(
        name, source, stage="Production", archive_existing=True
    ),
}


WRITES = [*((change, 0) for change in CHANGES), ("promote", 1), ("replace", 1)]


def stage_two(registry: RegistryClient, emulator: Emulator, name: str, source: NewSource, well: int) -> None:
    """Register a version in Production and one in Staging, and let only this many of the next updates succeed."""
    for stage in ("Production", "Staging"):
        registry.register_version(name, source(), stage=stage)
    for _ in range(well):
        emulator.fail("UpdateModel", delay=0.0001)


@pytest.mark.parametrize(("change", "well"), WRITES)
def test_a_change_that_was_aborted(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, change: str, well: int
) -> None:
    """Each write is retried after ABORTED, even if nothing has changed in between."""
    churn = name()
    stage_two(registry, emulator, churn, source, well)
    emulator.fail("UpdateModel", stale_etag=True)

    assert CHANGES[change](registry, churn, source()).stage is Stage.PRODUCTION


@pytest.mark.parametrize(("change", "well"), WRITES)
def test_a_change_that_is_forbidden(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, change: str, well: int
) -> None:
    """FAILED_PRECONDITION is final if nothing has changed, because the etag wasn't stale."""
    churn = name()
    stage_two(registry, emulator, churn, source, well)
    before = len(emulator.requests())
    emulator.fail("UpdateModel", "FAILED_PRECONDITION", times=1000)
    with pytest.raises(ConflictError):
        CHANGES[change](registry, churn, source())

    emulator.forget_faults()
    sent = sum(request.rpc == "UpdateModel" for request in emulator.requests()[before:])
    assert sent <= well + 2  # a version that was just made is written without having been read


@pytest.mark.parametrize("rpc", ["UploadModel", "ListModels", "UpdateModel"])
def test_permissions(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, rpc: str) -> None:
    """The error names the missing permission and the role that grants it."""
    emulator.fail(rpc, "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError) as caught:
        registry.register_version(name(), source())

    assert _rpc.METHODS[rpc].permission in str(caught.value)
    assert "roles/aiplatform.user" in str(caught.value)


def test_logging(
    connect: Connect,
    clock: Clock,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An RPC is logged at DEBUG and a retry at INFO, and neither shows metadata."""
    registry = connect(retry=patient(clock))
    churn = name()
    emulator.fail("UpdateModel", "UNAVAILABLE")
    emulator.fail("GetModel", delay=0.0001, times=3)
    emulator.fail("GetModel", "UNAVAILABLE")
    with caplog.at_level(logging.DEBUG, "vertex_registry"):
        registry.register_version(churn, source(), metadata={"secret": "open-sesame", "Big": "Open Sesame"})

    lines = [(record.levelname, record.getMessage().split(" ")[0]) for record in caplog.records]
    assert lines == [
        ("DEBUG", "ListModels"),
        *[("DEBUG", "GetModel")] * 3,
        ("DEBUG", "UploadModel"),
        ("DEBUG", "GetModel"),
        ("INFO", "GetModel"),
        ("DEBUG", "GetModel"),
        ("DEBUG", "UpdateModel"),
        ("DEBUG", "GetModel"),
        ("INFO", "next"),
        ("DEBUG", "UpdateModel"),
    ]
    assert "UNAVAILABLE, sent again in 0.20 s" in caplog.text
    assert "sesame" not in caplog.text.lower()


@pytest.fixture
def cost(emulator: Emulator) -> Cost:
    """Return a function that makes a call and returns the RPCs that it sent."""

    def cost(act: Callable[[], Any]) -> list[str]:
        before = len(emulator.requests())
        act()
        return [request.rpc for request in emulator.requests()[before:]]

    return cost


#: A version is read by the alias of its upload before it's completed.
COMPLETE = ["GetModel", "UpdateModel"]
#: An existing model is read after the upload, because somebody may be about to delete it.
UPLOAD = ["UploadModel", "GetModel"]


def test_what_a_registration_costs(connect: Connect, cost: Cost, name: NewName, source: NewSource) -> None:
    """A registration costs three RPCs for a new model and five for an existing one, plus those that find the model."""
    registry, churn = connect(), name()

    found = ["ListModels", "GetModel", "GetModel", "GetModel"]  # by the name, and by the first IDs of its series
    assert cost(lambda: registry.register_version(churn, source())) == [*found, "UploadModel", *COMPLETE]
    # The model is read first, because it may have another name by now.
    assert cost(lambda: registry.register_version(churn, source())) == ["GetModel", *UPLOAD, *COMPLETE]
    again = ["ListModels", "GetModel", *UPLOAD, *COMPLETE]
    assert cost(lambda: connect().register_version(churn, source())) == again
    aliased = ["GetModel", *UPLOAD, *COMPLETE, "MergeVersionAliases"]
    assert cost(lambda: registry.register_version(churn, source(), aliases=["candidate"])) == aliased


def test_what_a_request_id_costs(registry: RegistryClient, cost: Cost, name: NewName, source: NewSource) -> None:
    """A request ID costs two RPCs in the first run; a re-run costs two in all."""
    churn, artifact = name(), source()
    registry.register_version(churn, source())

    first = ["GetModel", "GetModel", "ListOperations", *UPLOAD, *COMPLETE]
    assert cost(lambda: registry.register_version(churn, artifact, request_id="run")) == first
    assert cost(lambda: registry.register_version(churn, artifact, request_id="run")) == ["GetModel", "GetModel"]


def test_what_a_read_costs(connect: Connect, cost: Cost, name: NewName, source: NewSource) -> None:
    """A version is read with one RPC, after one that finds the model the first time."""
    registry, churn = connect(), name()
    registry.register_version(churn, source())
    registry.register_version(churn, source(), version_name="1.0")

    assert cost(lambda: registry.get_version(churn, 1)) == ["GetModel"]
    assert cost(lambda: registry.get_version(churn)) == ["GetModel"]
    assert cost(lambda: registry.get_version(churn, version_name="1.0")) == ["GetModel"]
    assert cost(lambda: list(registry.list_versions(churn))) == ["ListModelVersions"]
    assert cost(lambda: connect().get_version(churn, 1)) == ["ListModels", "GetModel"]


def test_what_a_change_costs(registry: RegistryClient, cost: Cost, name: NewName, source: NewSource) -> None:
    """A change costs a read and a write; a new default costs a second read."""
    churn = name()
    for _ in range(3):
        registry.register_version(churn, source())

    assert cost(lambda: registry.update_version(churn, 1, description="x")) == ["GetModel", "UpdateModel"]
    assert cost(lambda: registry.set_stage(churn, 1, "Staging")) == ["GetModel", "UpdateModel"]
    assert cost(lambda: registry.set_default(churn, 1)) == ["GetModel", "GetModel", "MergeVersionAliases"]
    assert cost(lambda: registry.delete_version(churn, 2)) == ["GetModel", "DeleteModelVersion"]
    assert cost(lambda: registry.delete_model(churn)) == ["GetModel", "DeleteModel"]


def test_stopping_early_stops_calling(
    registry: RegistryClient, emulator: Emulator, name: NewName, upload_models: UploadModels
) -> None:
    """Versions of all models are requested in a window, so stopping early saves requests."""
    upload_models(name() for _ in range(80))
    before = len(emulator.requests())
    listed = registry.list_versions()
    next(listed)
    listed.close()
    asked = sum(request.rpc == "ListModelVersions" for request in emulator.requests()[before:])

    assert 1 <= asked <= 40
    assert len(list(registry.list_versions())) == 80


def test_two_clients_share_nothing(emulator: Emulator, backend: Backend, name: NewName, source: NewSource) -> None:
    """Clients of two projects in one process share nothing."""
    endpoint = emulator.rest if backend.transport == "rest" else emulator.grpc
    churn, artifact = name(), source()
    with (
        RegistryClient(endpoint=endpoint, project="one") as one,
        RegistryClient(endpoint=endpoint, project="other") as other,
    ):
        made = one.register_version(churn, artifact)
        with pytest.raises(NotFoundError):
            other.get_version(churn)
        assert other.register_version(churn, artifact).version == "1"
        with pytest.raises(RegistryError, match="another project"):
            other.get_version(made.model_resource_name)
        one.close()
        assert other.get_version(churn).version == "1"


def test_closing_while_others_call(connect: Connect, name: NewName, source: NewSource) -> None:
    """If a client is closed while threads use it, they only get errors of this package."""
    registry, churn = connect(), name()
    registry.register_version(churn, source())
    seen: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                registry.get_version(churn)
        except BaseException as error:  # noqa: BLE001  # the test checks which errors are raised
            seen.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    registry.close()
    registry.close()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, RegistryError) for error in seen)
    assert len(seen) == 4


def test_an_artifact_that_vertex_cannot_read(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If Vertex's service agent can't read the artifact, the error names the agent and its missing role."""
    said = (
        "Service account `service-7@gcp-sa-aiplatform.iam.gserviceaccount.com` does not have `[storage.objects.get]` "
        "IAM permission(s) to the directory."
    )
    emulator.fail("UploadModel", "FAILED_PRECONDITION", message=said)
    with pytest.raises(PermissionDeniedError, match="service agent") as caught:
        registry.register_version(name(), source())

    assert "Storage Object Viewer" in str(caught.value)
    assert "service-7@" in str(caught.value)


@pytest.mark.polls(40)
def test_a_re_run_while_the_first_run_is_at_work(
    connect: Connect, clock: Clock, name: NewName, source: NewSource
) -> None:
    """A second run with the same request ID waits for the first run's upload and doesn't start another."""
    churn, artifact = name(), source()
    connect().register_version(churn, source())
    hasty = connect(retry=patient(clock, operation_timeout=0.3))
    with pytest.raises(OperationTimeoutError) as caught:
        hasty.register_version(churn, artifact, request_id="run")
    assert caught.value.request_id == "run"
    with pytest.raises(OperationTimeoutError, match="again with request_id='run'") as caught:
        hasty.register_version(churn, artifact, request_id="run")
    assert caught.value.request_id == "run"

    registry = connect()
    made = registry.register_version(churn, artifact, request_id="run")
    for _ in range(5):
        quiet(registry, churn)
    assert [version.version for version in quiet(registry, churn)] == [made.version, "1"] == ["2", "1"]


def test_what_others_wrote_meanwhile_is_kept(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """Finishing an interrupted registration overwrites nothing that was written since."""
    churn, artifact = name(), source()
    hasty = connect(retry=patient(clock, call_timeout=1))
    arguments: dict[str, Any] = {"metadata": {"a": 1, "b": 2}, "stage": "Staging", "request_id": "run"}
    emulator.fail("UpdateModel", "UNAVAILABLE", times=1000)
    with pytest.raises(StateUnknownError):
        hasty.register_version(churn, artifact, **arguments)
    emulator.forget_faults()
    somebody = connect()
    somebody.update_version(churn, 1, metadata={"reviewed": "yes", "b": 3}, stage="Production")

    made = connect().register_version(churn, artifact, **arguments)
    assert made.stage is Stage.PRODUCTION
    assert made.metadata == {"a": 1, "b": 3, "reviewed": "yes"}


def test_a_completion_whose_answer_is_lost(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If only the response to the completing write is lost, the version is read, and not written again."""
    churn, somebody = name(), connect()
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    clock_of_the_first: list[float] = []

    def meanwhile(seconds: float) -> None:
        clock_of_the_first.append(seconds)
        somebody.set_stage(churn, 1, "Archived")

    registry = connect(retry=Retry(sleep=meanwhile))
    made = registry.register_version(churn, source(), stage="Production")

    assert made.stage is Stage.PRODUCTION
    assert not clock_of_the_first


def test_a_completion_that_is_refused(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """An error after the upload says that the version exists, and how to finish it."""
    churn, artifact = name(), source()
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError, match="request_id='run' to finish it"):
        registry.register_version(churn, artifact, stage="Staging", request_id="run")

    assert registry.register_version(churn, artifact, stage="Staging", request_id="run").stage is Stage.STAGING


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED", "FAILED_PRECONDITION"])
def test_default_stays_where_nothing_was_deleted(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, code: str
) -> None:
    """A refused deletion leaves the default version as it was."""
    churn = name()
    for _ in range(2):
        registry.register_version(churn, source())
    emulator.fail("DeleteModelVersion", code, times=2 if code == "FAILED_PRECONDITION" else 1)
    with pytest.raises(RegistryError):
        registry.delete_version(churn, 2)

    assert registry.get_version(churn).version == "2"


def test_default_that_cannot_move_back(
    connect: Connect,
    clock: Clock,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refused deletion says why, even if the default can't move back. A warning is logged."""
    churn, registry = name(), connect(retry=patient(clock, call_timeout=1))
    for _ in range(2):
        registry.register_version(churn, source())
    emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION", message="The version is deployed", times=2)
    emulator.fail("MergeVersionAliases", delay=0.0001, times=2)  # the number is kept, and default moves away
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", times=1000)
    with pytest.raises(ConflictError, match="is deployed"):
        registry.delete_version(churn, 2)

    emulator.forget_faults()
    assert f"set_default({churn!r}, 2)" in caplog.text
    assert registry.get_version(churn).version == "1"


def test_ctrl_c_during_a_deletion(connect: Connect, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """KeyboardInterrupt is raised after one attempt to move the default back."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    churn, registry = name(), connect(retry=Retry(sleep=interrupt))
    for _ in range(2):
        registry.register_version(churn, source())
    for _ in range(2):  # default is moved after a refusal
        emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION")
        emulator.fail("DeleteModelVersion", "UNAVAILABLE")
    with pytest.raises(KeyboardInterrupt):
        registry.delete_version(churn, 2)
    assert registry.get_version(churn).version == "2"

    emulator.fail("MergeVersionAliases", delay=0.0001, times=2)  # the number is kept, and default moves away
    emulator.fail("MergeVersionAliases", "UNAVAILABLE")
    with pytest.raises(KeyboardInterrupt):
        registry.delete_version(churn, 2)
    assert registry.get_version(churn).version == "1"


def test_a_promotion_that_was_finished_long_ago(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Re-running a finished registration changes nothing."""
    churn, artifact = name(), source()
    arguments: dict[str, Any] = {"stage": "Production", "archive_existing": True, "request_id": "run"}
    first = registry.register_version(churn, artifact, **arguments)
    second = registry.register_version(churn, source(), stage="Production")

    again = registry.register_version(churn, artifact, **arguments)
    assert (again.stage, registry.get_version(churn, 2).stage) == (Stage.PRODUCTION, Stage.PRODUCTION)
    assert again.stage_changed_at == first.stage_changed_at
    assert second == registry.get_version(churn, 2)


def test_an_archiving_that_was_cut_off(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If a registration is killed before it archives the others, the same request ID finishes it."""
    churn, artifact = name(), source()
    registry.register_version(churn, source(), stage="Production")
    arguments: dict[str, Any] = {"stage": "Production", "archive_existing": True, "request_id": "run"}
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError, match="request_id='run'"):
        registry.register_version(churn, artifact, **arguments)
    assert [version.version for version in registry.list_versions(churn, stage="Production")] == ["2", "1"]

    registry.register_version(churn, artifact, **arguments)
    assert [version.version for version in registry.list_versions(churn, stage="Production")] == ["2"]
