"""Two clients at once: changes between the steps of a registration are kept, and one request creates one version.

The tests are deterministic. Another client acts in one of the first client's own functions: in its clock, which it
reads between reading its version and completing it, or in its `sleep`, after a planned fault.
"""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from google.cloud.aiplatform_v1.types import Model, UploadModelRequest
from google.protobuf.field_mask_pb2 import FieldMask

from vertex_registry import (
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    Retry,
    Stage,
    StateUnknownError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, NewSource, WaitForLists
    from vertex_registry import ModelVersion, RegistryClient
    from vertex_registry.emulator import Emulator


pytestmark = [
    pytest.mark.switches_together,
    pytest.mark.without_rest("what clients do to each other doesn't depend on it"),
    pytest.mark.emulator_only("Vertex does nothing wrong on demand"),
]

DELETING = "vr-deleting"


def between(emulator: Emulator, act: Callable[[], object], after: str = "UploadModel") -> Callable[[], dt.datetime]:
    """Return a clock that calls a function once, when it's first read after a request of an RPC."""
    waiting = [act]
    before = len(emulator.requests())

    def now() -> dt.datetime:
        if waiting and any(request.rpc == after for request in emulator.requests()[before:]):
            waiting.pop()()
        return dt.datetime.now(dt.UTC)

    return now


def once(act: Callable[[], object]) -> Callable[[float], None]:
    """Return a `sleep` function that takes no time, and calls a function once."""
    waiting = [act]

    def sleep(_: float) -> None:
        if waiting:
            waiting.pop()()

    return sleep


def once_before(act: Callable[[], object], emulator: Emulator) -> Callable[[], str]:
    """Return a generator of IDs that calls a function before the first upload after a failed one."""
    waiting = [act]
    before = sum(request.rpc == "UploadModel" for request in emulator.requests())

    def new_id() -> str:
        if waiting and sum(request.rpc == "UploadModel" for request in emulator.requests()) > before:
            waiting.pop()()
        return uuid.uuid4().hex

    return new_id


def register_incompletely(registry: RegistryClient, emulator: Emulator, name: str, source: str, **given: Any) -> None:
    """Upload a version whose completing write is refused, as if its call was killed."""
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(name, source, **given)


def numbers(registry: RegistryClient, name: str, wait_for_lists: WaitForLists) -> list[str]:
    wait_for_lists()
    return [version.version for version in registry.list_versions(name)]


# --- what others write before the completion --------------------------------------------------------------------------


@pytest.mark.each_switch("labels-at-upload", "label-filter")
def test_a_promotion_before_the_completion(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Metadata and a stage that another client writes before the version is complete stay."""
    churn, somebody = name(), connect()
    somebody.register_version(churn, source(), stage="Production")

    def promote() -> None:
        wait_for_lists()
        somebody.update_version(churn, 2, metadata={"reviewed": True, "b": "theirs"})
        somebody.set_stage(churn, 2, "Production", archive_existing=True)

    registry = connect(now=between(emulator, promote))
    made = registry.register_version(churn, source(), stage="Staging", metadata={"a": 1, "b": "ours"})

    assert made.metadata == {"reviewed": True, "a": 1, "b": "theirs"}
    assert made.stage is Stage.PRODUCTION
    assert made == somebody.get_version(churn, 2)
    assert somebody.get_version(churn, 1).stage is Stage.ARCHIVED


def test_a_stage_without_a_timestamp_before_the_completion(
    connect: Connect, vertex: ModelServiceClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A stage that another tool has written on the version is kept, though it has no timestamp."""
    churn = name()
    first = connect().register_version(churn, source())

    def write() -> None:
        labels = {"stage": "production", "team": "growth"}
        version = Model(name=f"{first.model_resource_name}@2", labels=labels)
        vertex.update_model(model=version, update_mask=FieldMask(paths=["labels"]))

    registry = connect(now=between(emulator, write))
    made = registry.register_version(churn, source(), stage="Staging", metadata={"a": 1})

    assert (made.stage, made.metadata) == (Stage.PRODUCTION, {"a": 1, "team": "growth"})


@pytest.mark.each_switch("labels-at-upload", "label-wins")
@pytest.mark.parametrize("labels", [{"stage": "production"}, {"team": "growth", "stage": "nonsense"}])
def test_a_stage_of_the_model_itself(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, labels: dict[str, str]
) -> None:
    """A stage that the model itself is labeled with isn't the version's, and its labels aren't copied."""
    churn, registry = name(), connect()
    first = registry.register_version(churn, source())
    model = Model(name=first.model_resource_name, labels=labels)
    vertex.update_model(model=model, update_mask=FieldMask(paths=["labels"]))

    try:
        made = registry.register_version(churn, source(), stage="Staging")
    except ConflictError as hidden:
        assert "which hide what was written" in str(hidden)
    else:
        assert made.stage is Stage.STAGING
    vertex.update_model(model=Model(name=first.model_resource_name), update_mask=FieldMask(paths=["labels"]))
    made = registry.get_version(churn, 2)
    assert (made.stage, made.metadata) == (Stage.STAGING, {})


def test_a_completion_that_arrives_late(
    connect: Connect, vertex: ModelServiceClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A completing write that arrives after its client gave up overwrites nothing."""
    churn, artifact, somebody = name(), source(), connect()
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        connect().register_version(churn, artifact, stage="Staging", request_id="run")
    late = [request.message for request in emulator.requests() if request.rpc == "UpdateModel"][-1]
    somebody.update_version(churn, 1, metadata={"theirs": 1}, stage="Production")
    with pytest.raises(Exception, match="stale"):
        vertex.update_model(model=Model.deserialize(late.model.SerializeToString()), update_mask=late.update_mask)

    assert somebody.get_version(churn, 1).metadata == {"theirs": 1}
    made = connect().register_version(churn, artifact, stage="Staging", request_id="run")
    assert (made.stage, made.metadata) == (Stage.PRODUCTION, {"theirs": 1})


# --- another version under the number ---------------------------------------------------------------------------------


@pytest.mark.parametrize("versions", [0, 1, 2])
@pytest.mark.parametrize("anew", [False, True])
def test_a_model_that_is_deleted_before_the_completion(
    connect: Connect,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    versions: int,
    anew: bool,
) -> None:
    """The error says that the version is gone, and a new version with its number is kept."""
    churn, artifact, somebody = name(), source(), connect()
    for _ in range(versions):
        somebody.register_version(churn, source())
    theirs: list[ModelVersion] = []

    def replace() -> None:
        somebody.delete_model(churn)
        theirs.extend(
            somebody.register_version(churn, source(), stage="Production", metadata={"theirs": 1})
            for _ in range((versions + 1) if anew else 0)
        )

    registry = connect(now=between(emulator, replace))
    with pytest.raises(NotFoundError, match=r"deleted.* request_id='run' uploads it once more, as a new version"):
        registry.register_version(churn, artifact, stage="Staging", metadata={"ours": 1}, request_id="run")

    wait_for_lists()
    for version in theirs:
        assert somebody.get_version(churn, version.version).metadata == {"theirs": 1}
        assert somebody.get_version(churn, version.version).stage is Stage.PRODUCTION
    again = registry.register_version(churn, artifact, stage="Staging", metadata={"ours": 1}, request_id="run")
    assert (again.version, again.metadata) == (str(len(theirs) + 1), {"ours": 1})
    assert again.artifact_uri == artifact


def test_a_model_that_is_created_again_by_a_call_that_dies(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """An incomplete new version isn't mistaken for the one that had its number."""
    churn, artifact, somebody = name(), source(), connect()

    def replace() -> None:
        somebody.delete_model(churn)
        register_incompletely(somebody, emulator, churn, artifact, request_id="theirs")

    registry = connect(now=between(emulator, replace))
    with pytest.raises(NotFoundError, match="as a new version"):
        registry.register_version(churn, source(), stage="Staging", metadata={"ours": 1}, request_id="run")
    assert somebody.register_version(churn, artifact, request_id="theirs").metadata == {}


@pytest.mark.parametrize("aliases", [[], ["candidate"]])
def test_a_version_that_is_deleted_before_the_completion(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, aliases: list[str]
) -> None:
    """If only the version was deleted, another version is never returned for it."""
    churn, artifact, somebody = name(), source(), connect()
    somebody.register_version(churn, source())
    registry = connect(now=between(emulator, lambda: somebody.delete_version(churn, 2)))
    with pytest.raises(NotFoundError, match="as a new version"):
        registry.register_version(churn, artifact, stage="Staging", aliases=aliases, request_id="run")

    made = registry.register_version(churn, artifact, stage="Staging", aliases=aliases, request_id="run")
    assert (made.version, set(made.aliases)) == ("3", {"default", *aliases})


def test_a_model_named_in_full_that_is_deleted_before_the_completion(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A second run can't create a model by its resource name, and the error doesn't promise it."""
    churn, somebody = name(), connect()
    model = somebody.register_version(churn, source()).model_resource_name
    registry = connect(now=between(emulator, lambda: somebody.delete_model(churn)))
    with pytest.raises(NotFoundError, match="if the model still exists"):
        registry.register_version(model, source(), stage="Staging")


def test_a_model_that_was_renamed_before_the_upload(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Before it uploads, a client notices that another model has the name it remembers."""
    churn, renamed, registry, somebody = name(), name(), connect(), connect()
    old = registry.register_version(churn, source())
    vertex.update_model(
        model=Model(name=old.model_resource_name, display_name=renamed), update_mask=FieldMask(paths=["display_name"])
    )
    wait_for_lists()
    new = somebody.register_version(churn, source())

    assert registry.register_version(churn, source()).resource_name == f"{new.model_resource_name}@2"
    wait_for_lists()
    assert [version.version for version in somebody.list_versions(renamed)] == ["1"]


# --- archiving --------------------------------------------------------------------------------------------------------


def test_a_re_run_archives_in_its_own_stage_only(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """A second run archives nothing in a stage that another client has chosen since."""
    churn, artifact, registry = name(), source(), connect()
    for stage in ("Production", "Production", "Staging"):
        registry.register_version(churn, source(), stage=stage)
    wait_for_lists()
    arguments: dict[str, Any] = {"stage": "Staging", "archive_existing": True, "request_id": "run"}
    register_incompletely(registry, emulator, churn, artifact, **arguments)
    registry.set_stage(churn, 4, "Production")
    wait_for_lists()

    made = registry.register_version(churn, artifact, **arguments)
    assert made.stage is Stage.PRODUCTION
    stages = [registry.get_version(churn, number).stage for number in (1, 2, 3)]
    assert stages == [Stage.PRODUCTION, Stage.PRODUCTION, Stage.STAGING]


def test_a_version_that_left_the_stage_before_it_was_complete(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """A first run archives nothing if another client moves the version before it's complete."""
    churn, somebody = name(), connect()
    for stage in ("Production", "Production", "Staging"):
        somebody.register_version(churn, source(), stage=stage)
    wait_for_lists()
    registry = connect(now=between(emulator, lambda: somebody.set_stage(churn, 4, "Production")))

    assert registry.register_version(churn, source(), stage="Staging", archive_existing=True).stage is Stage.PRODUCTION
    stages = [somebody.get_version(churn, number).stage for number in (1, 2, 3)]
    assert stages == [Stage.PRODUCTION, Stage.PRODUCTION, Stage.STAGING]


# --- one request ------------------------------------------------------------------------------------------------------


def crossing(
    connect: Connect, emulator: Emulator, name: str, act: Callable[[], object], versions: int = 1
) -> RegistryClient:
    """Return a client that calls a function after it has searched for its request, and before it uploads."""
    somebody = connect()
    for _ in range(versions):
        somebody.register_version(name, "gs://models/first/1")
    emulator.fail("ListOperations", "UNAVAILABLE")
    return connect(retry=Retry(sleep=once(act)))


@pytest.mark.each_switch("labels-at-upload")
def test_one_request_id_in_two_calls(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Of two uploads of one request the lower one stays, with the aliases, and both calls return it."""
    churn, artifact, somebody = name(), source(), connect()
    arguments: dict[str, Any] = {
        "request_id": "run", "stage": "Staging", "metadata": {"a": 1}, "aliases": ["candidate"], "version_name": "1.0",
    }  # fmt: skip
    made: list[ModelVersion] = []
    registry = crossing(
        connect, emulator, churn, lambda: made.append(somebody.register_version(churn, artifact, **arguments))
    )
    again = registry.register_version(churn, artifact, **arguments)

    assert [version.version for version in made] == ["2"] == [again.version]
    assert (again.stage, again.metadata) == (Stage.STAGING, {"a": 1})
    assert set(again.aliases) == {"default", "candidate"}
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]
    assert registry.get_version(churn, version_name="1.0") == again == registry.get_version(churn)
    assert somebody.register_version(churn, artifact, **arguments) == again
    assert somebody.register_version(churn, source()).version == "4"


def test_one_request_id_with_two_sources(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """If two calls share a request ID but not a source, the later one is a conflict and leaves nothing behind."""
    churn, artifact, somebody = name(), source(), connect()
    registry = crossing(connect, emulator, churn, lambda: somebody.register_version(churn, artifact, request_id="run"))
    with pytest.raises(ConflictError, match="another source"):
        registry.register_version(churn, source(), request_id="run")

    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]
    assert registry.get_version(churn).artifact_uri == artifact


@pytest.mark.each_switch("labels-at-upload")
def test_other_uploads_between_those_of_a_request(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """The request's second upload is found among other uploads and next to deleted numbers."""
    churn, artifact, somebody = name(), source(), connect()

    def meanwhile() -> None:
        somebody.register_version(churn, source())
        somebody.register_version(churn, source(), request_id="another run")
        somebody.register_version(churn, artifact, request_id="run")
        somebody.register_version(churn, source())
        somebody.register_version(churn, source())
        somebody.delete_version(churn, 2)
        somebody.delete_version(churn, 6)

    registry = crossing(connect, emulator, churn, meanwhile)
    assert registry.register_version(churn, artifact, request_id="run").version == "4"
    assert numbers(registry, churn, wait_for_lists) == ["5", "4", "3", "1"]


def test_many_uploads_between_those_of_a_request(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """One request creates one version, with any number of other uploads in between."""
    churn, artifact, somebody = name(), source(), connect()

    def meanwhile() -> None:
        for number in range(40):
            somebody.register_version(churn, artifact, request_id="run" if number == 20 else f"run {number}")

    registry = crossing(connect, emulator, churn, meanwhile)
    assert registry.register_version(churn, artifact, request_id="run").version == "22"
    assert numbers(registry, churn, wait_for_lists) == [str(number) for number in range(41, 0, -1)]


def test_a_request_in_a_model_of_another_tool(
    connect: Connect, vertex: ModelServiceClient, parent: str, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The same is true in a model that only other tools have uploaded to."""
    churn, artifact, somebody = name(), source(), connect()
    model = Model(
        display_name=churn,
        artifact_uri=source(),
        container_spec={"image_uri": "us-docker.pkg.dev/acme/serving/any:1"},
    )
    operation = vertex.upload_model(UploadModelRequest(parent=parent, model=model))
    resource = str(operation.result().model)  # type: ignore[no-untyped-call]  # untyped upstream
    registry = crossing(
        connect,
        emulator,
        churn,
        lambda: somebody.register_version(resource, artifact, request_id="run"),
        versions=0,
    )

    assert registry.register_version(resource, artifact, request_id="run").version == "2"


KILLED: dict[str, list[dict[str, Any]]] = {
    "before it saw the lower one": [{"rpc": "GetModel", "code": "UNAUTHENTICATED"}],
    "before it handed over": [{"rpc": "MergeVersionAliases", "code": "UNAUTHENTICATED"}],
    "after it handed over": [{"rpc": "DeleteModelVersion", "code": "UNAUTHENTICATED"}],
    "after it was removed": [
        {"rpc": "MergeVersionAliases", "delay": 0.0001},
        {"rpc": "MergeVersionAliases", "code": "UNAUTHENTICATED"},
    ],
}


@pytest.mark.parametrize("when", KILLED)
@pytest.mark.parametrize("complete", [True, False])
def test_a_second_upload_that_was_killed(
    connect: Connect,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    when: str,
    complete: bool,
) -> None:
    """Wherever the call with the second upload is killed, a second run removes what it left."""
    churn, artifact, somebody = name(), source(), connect()
    arguments: dict[str, Any] = {"request_id": "run", "stage": "Staging", "version_name": "1.0"}

    def meanwhile() -> None:
        if complete:
            somebody.register_version(churn, artifact, **arguments)
        else:
            register_incompletely(somebody, emulator, churn, artifact, **arguments)
        for fault in KILLED[when]:
            emulator.fail(**fault)

    registry = crossing(connect, emulator, churn, meanwhile)
    with pytest.raises(StateUnknownError):
        registry.register_version(churn, artifact, **arguments)

    made = connect().register_version(churn, artifact, **arguments)
    assert (made.version, made.stage) == ("2", Stage.STAGING)
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]
    assert registry.get_version(churn) == registry.get_version(churn, version_name="1.0") == made


def test_a_lower_upload_that_was_killed(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """The lower version stays, even if its own call was killed before it was complete."""
    churn, artifact, somebody = name(), source(), connect()
    arguments: dict[str, Any] = {"request_id": "run", "stage": "Staging", "aliases": ["candidate"]}

    def meanwhile() -> None:
        register_incompletely(somebody, emulator, churn, artifact, **arguments)

    made = crossing(connect, emulator, churn, meanwhile).register_version(churn, artifact, **arguments)
    assert (made.version, made.stage, set(made.aliases)) == ("2", Stage.STAGING, {"default", "candidate"})
    assert numbers(somebody, churn, wait_for_lists) == ["2", "1"]


def test_three_uploads_of_a_request(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Every upload except the lowest is removed, even one whose call was killed."""
    churn, artifact, first = name(), source(), connect()

    def die() -> None:
        first.register_version(churn, artifact, request_id="run")
        emulator.fail("GetModel", "UNAUTHENTICATED")

    second = crossing(connect, emulator, churn, die)

    def meanwhile() -> None:
        emulator.fail("ListOperations", "UNAVAILABLE")
        with pytest.raises(StateUnknownError):
            second.register_version(churn, artifact, request_id="run")

    emulator.forget_faults()
    third = crossing(connect, emulator, churn, meanwhile, versions=0)
    assert third.register_version(churn, artifact, request_id="run").version == "2"
    assert numbers(third, churn, wait_for_lists) == ["2", "1"]


def test_a_second_upload_that_may_not_be_removed(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """The error names both versions and the permission. The version that stays is complete."""
    churn, artifact, somebody = name(), source(), connect()

    def meanwhile() -> None:
        register_incompletely(somebody, emulator, churn, artifact, stage="Staging", request_id="run")
        emulator.fail("DeleteModelVersion", "PERMISSION_DENIED")

    registry = crossing(connect, emulator, churn, meanwhile)
    with pytest.raises(PermissionDeniedError, match="Version 3 .* duplicate of version 2.*aiplatform.models.delete"):
        registry.register_version(churn, artifact, stage="Staging", request_id="run")
    assert registry.get_version(churn).version == "2"
    assert registry.get_version(churn).stage is Stage.STAGING

    assert connect().register_version(churn, artifact, stage="Staging", request_id="run").version == "2"
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]


@pytest.mark.parametrize("times", [1, 1000])
def test_a_second_upload_whose_removal_is_refused(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, wait_for_lists: WaitForLists, times: int
) -> None:
    """A temporary refusal is retried. A lasting one is an error, and the next run of the request removes the upload."""
    churn, artifact, somebody = name(), source(), connect()

    def meanwhile() -> None:
        somebody.register_version(churn, artifact, request_id="run")
        emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION", times=times)

    registry = crossing(connect, emulator, churn, meanwhile)
    if times == 1:
        registry.register_version(churn, artifact, request_id="run")
    else:
        with pytest.raises(StateUnknownError, match="planned fault.*request_id='run'"):
            registry.register_version(churn, artifact, request_id="run")
        emulator.forget_faults()
        registry.register_version(churn, artifact, request_id="run")
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_removal_whose_answer_is_lost(
    connect: Connect,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    code: str,
    when: str,
) -> None:
    """A lost removal of a second upload is checked, and sent again only if it didn't happen."""
    churn, artifact, somebody = name(), source(), connect()

    def meanwhile() -> None:
        somebody.register_version(churn, artifact, request_id="run")
        emulator.fail("DeleteModelVersion", code, when=when)

    registry = crossing(connect, emulator, churn, meanwhile)
    assert registry.register_version(churn, artifact, request_id="run").version == "2"
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]


@pytest.mark.parametrize("well", [0, 1])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_move_of_the_aliases_whose_answer_is_lost(
    connect: Connect,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    when: str,
    well: int,
) -> None:
    """A lost move of the aliases is checked, and sent again only if it didn't happen."""
    churn, artifact, somebody = name(), source(), connect()

    def meanwhile() -> None:
        somebody.register_version(churn, artifact, version_name="1.0", request_id="run")
        for _ in range(well):
            emulator.fail("MergeVersionAliases", delay=0.0001)
        emulator.fail("MergeVersionAliases", "UNAVAILABLE", when=when)

    registry = crossing(connect, emulator, churn, meanwhile)
    made = registry.register_version(churn, artifact, version_name="1.0", request_id="run")
    assert made == registry.get_version(churn) == registry.get_version(churn, version_name="1.0")
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]


def test_a_change_after_a_lost_write_is_kept(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If the response of a registration's last write is lost, what somebody changes before it's read again stays."""
    churn, somebody = name(), connect()
    done: list[object] = []

    def clock() -> float:
        if emulator.requests() and not emulator.faults() and not done:
            done.append(None)
            done.append(somebody.update_version(churn, 1, metadata={"shared": "theirs"}))
        return 0.0

    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    made = connect(retry=Retry(clock=clock)).register_version(churn, source(), metadata={"shared": 0, "own": 1})

    assert len(done) == 2
    assert made.metadata == somebody.get_version(churn, 1).metadata == {"own": 1, "shared": "theirs"}
    assert [request.rpc for request in emulator.requests()].count("UpdateModel") == 2  # one of each client


@pytest.mark.parametrize("own", [True, False])
def test_an_upload_that_arrives_late(
    connect: Connect,
    vertex: ModelServiceClient,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    own: bool,
) -> None:
    """A second run removes an upload that arrives long after it was sent again."""
    churn, artifact, registry = name(), source(), connect()
    registry.register_version(churn, source())
    emulator.fail("UploadModel", "DEADLINE_EXCEEDED")
    with pytest.raises(StateUnknownError) as caught:
        registry.register_version(
            churn, artifact, stage="Staging", version_name="1.0", request_id="run" if own else None
        )
    late = [request.message for request in emulator.requests() if request.rpc == "UploadModel"][-1]
    arguments: dict[str, Any] = {"stage": "Staging", "version_name": "1.0", "request_id": caught.value.request_id}
    made = registry.register_version(churn, artifact, **arguments)
    vertex.upload_model(UploadModelRequest.deserialize(late.SerializeToString()))
    assert registry.get_version(churn).version == "3"

    again = connect().register_version(churn, artifact, **arguments)
    assert again == attrs.evolve(made, etag=again.etag, updated_at=again.updated_at)
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]
    assert registry.get_version(churn) == registry.get_version(churn, version_name="1.0") == again


def test_an_upload_that_arrives_while_it_is_sent_again(
    connect: Connect,
    vertex: ModelServiceClient,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """An upload that was given up, and arrives before the next one, is the version that the call returns."""
    churn, artifact = name(), source()

    def arrive() -> None:
        late = [request.message for request in emulator.requests() if request.rpc == "UploadModel"][-1]
        vertex.upload_model(UploadModelRequest.deserialize(late.SerializeToString()))

    connect().register_version(churn, source())
    registry = connect(new_id=once_before(arrive, emulator))
    registry.get_version(churn)
    emulator.fail("UploadModel", "UNAVAILABLE")
    made = registry.register_version(churn, artifact)

    # The first version, the upload that was lost, the same when it arrived, and the one that was sent again.
    assert sum(request.rpc == "UploadModel" for request in emulator.requests()) == 4
    assert made.version == "2"
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]


@pytest.mark.polls(4)
@pytest.mark.parametrize("known", [True, False])
def test_one_request_id_in_many_threads(
    connect: Connect, name: NewName, source: NewSource, wait_for_lists: WaitForLists, known: bool
) -> None:
    """Many calls with one request ID return one version, and no other exists."""
    churn, artifact = name(), source()
    clients = [connect() for _ in range(8)]
    if known:
        clients[0].register_version(churn, source())
    barrier = threading.Barrier(len(clients))

    def run(registry: RegistryClient) -> str:
        barrier.wait()
        return registry.register_version(churn, artifact, request_id="run", stage="Staging", metadata={"a": 1}).version

    with ThreadPoolExecutor(len(clients)) as pool:
        made = set(pool.map(run, clients))
    wait_for_lists()

    assert len(made) == 1
    assert numbers(clients[0], churn, wait_for_lists) == [*made, *(["1"] if known else [])]
    whole = clients[0].get_version(churn)
    assert (whole.version, whole.stage, whole.metadata) == (*made, Stage.STAGING, {"a": 1})


# --- the caller's aliases ---------------------------------------------------------------------------------------------


def test_an_alias_finds_a_complete_version(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """Until a version is complete, its alias still finds the previous version."""
    churn, somebody, found = name(), connect(), []
    somebody.register_version(churn, source(), aliases=["candidate"])
    registry = connect(now=between(emulator, lambda: found.append(somebody.get_version(churn, "candidate").version)))
    made = registry.register_version(churn, source(), stage="Staging", aliases=["candidate"])

    assert found == ["1"]
    assert made == somebody.get_version(churn, "candidate")
    assert (made.version, made.stage, set(made.aliases)) == ("2", Stage.STAGING, {"candidate", "default"})


def test_aliases_that_were_not_added(connect: Connect, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """A second run adds the aliases if the first run didn't, and keeps later changes to them."""
    churn, artifact, somebody = name(), source(), connect()
    arguments: dict[str, Any] = {"aliases": ["candidate", "blue"], "request_id": "run"}
    somebody.register_version(churn, source())
    emulator.fail("MergeVersionAliases", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError, match="to finish it"):
        connect().register_version(churn, artifact, **arguments)
    with pytest.raises(NotFoundError):
        somebody.get_version(churn, "candidate")

    made = connect().register_version(churn, artifact, **arguments)
    assert set(made.aliases) == {"candidate", "blue", "default"}
    somebody.add_aliases(churn, 1, ["candidate"])
    somebody.remove_aliases(churn, 2, ["blue"])
    assert connect().register_version(churn, artifact, **arguments).aliases == ("default",)
    assert somebody.get_version(churn, "candidate").version == "1"


@pytest.mark.parametrize("when", ["before", "after"])
def test_aliases_whose_answer_is_lost(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, when: str
) -> None:
    """Aliases aren't added twice, so later moves stay."""
    churn, somebody = name(), connect()
    somebody.register_version(churn, source())
    moved: list[str] = []

    def move() -> None:
        moved.append("candidate")
        somebody.add_aliases(churn, 1, moved)

    registry = connect(retry=Retry(sleep=once(move)))
    registry.get_version(churn)
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", when=when)
    made = registry.register_version(churn, source(), aliases=["candidate"])

    assert "candidate" in made.aliases
    assert bool(moved) == (when == "before")


def test_a_default_among_the_aliases(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """The alias default is given by the upload, even if you name it among the aliases."""
    churn = name()
    registry.register_version(churn, source())
    made = registry.register_version(churn, source(), aliases=["default"])

    assert made.is_default
    assert registry.get_version(churn) == made


# --- a model that goes with its last version --------------------------------------------------------------------------


def mark(vertex: ModelServiceClient, resource: str, *aliases: str) -> None:
    """Change the aliases of a version, like a client that deletes it with its model."""
    vertex.merge_version_aliases(name=resource, version_aliases=list(aliases))


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_model_that_goes_with_its_last_version(
    connect: Connect,
    vertex: ModelServiceClient,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    cut_off: bool,
) -> None:
    """If its model is deleted meanwhile, a version is uploaded once more, to the next model of the name."""
    churn, artifact = name(), source()
    arguments: dict[str, Any] = {"stage": "Staging", "metadata": {"a": 1}, "request_id": "run"}
    last = connect().register_version(churn, source())
    if cut_off:
        emulator.fail("UpdateModel", "PERMISSION_DENIED")
        with pytest.raises(PermissionDeniedError):
            connect().register_version(churn, artifact, **arguments)
    mark(vertex, last.resource_name, DELETING, "vr-live")

    def delete() -> None:
        vertex.delete_model(name=last.model_resource_name).result()  # type: ignore[no-untyped-call]  # untyped upstream

    registry = connect(retry=Retry(sleep=once(delete)))
    made = registry.register_version(churn, artifact, **arguments)

    assert (made.version, made.stage, made.metadata) == ("1", Stage.STAGING, {"a": 1})
    assert made == registry.get_version(churn, 1)
    assert numbers(registry, churn, wait_for_lists) == ["1"]


def test_a_last_version_that_stays(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """If the deletion notices the new version in time, the model stays and the registration goes on."""
    churn = name()
    last = connect().register_version(churn, source())
    mark(vertex, last.resource_name, DELETING, "vr-live")
    stay = once(lambda: mark(vertex, last.resource_name, f"-{DELETING}"))

    registry = connect(retry=Retry(sleep=stay))
    assert registry.register_version(churn, source(), stage="Staging").version == "2"
    assert numbers(registry, churn, wait_for_lists) == ["2", "1"]


def test_a_mark_that_nobody_removes(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, caplog: pytest.LogCaptureFixture
) -> None:
    """The mark of a killed deletion delays one registration, within its budget, and is removed."""
    churn = name()
    last = connect().register_version(churn, source())
    mark(vertex, last.resource_name, DELETING, "vr-live")

    assert connect().register_version(churn, source()).version == "2"
    assert "the mark is removed" in caplog.text
    caplog.clear()
    assert connect().register_version(churn, source()).version == "3"
    assert not caplog.text


def test_a_version_that_is_being_deleted_itself(
    connect: Connect, vertex: ModelServiceClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A deletion mark on the version itself doesn't block registrations."""
    churn, artifact = name(), source()
    connect().register_version(churn, source())
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError) as caught:
        connect().register_version(churn, artifact, request_id="run")
    mark(vertex, str(caught.value.resource), DELETING, "vr-live")

    def wait(_: float) -> None:
        raise AssertionError("nothing is to be waited for")

    assert connect(retry=Retry(sleep=wait)).register_version(churn, artifact, request_id="run").version == "2"
