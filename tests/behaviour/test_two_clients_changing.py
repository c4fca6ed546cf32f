"""Two clients that change one registry at once: names, aliases and deletions.

The second client acts at a chosen moment: an answer is lost there, and the first client waits before it goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import NotFound
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from vertex_registry import ConflictError, NotFoundError, PermissionDeniedError, Retry, Stage, UnavailableError
from vertex_registry.emulator._switches import SWITCHES

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Backend, Clock, Connect, NewName, NewSource, WaitForLists
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator


pytestmark = [
    pytest.mark.switches_together,
    pytest.mark.without_rest("what clients do to each other doesn't depend on it"),
    pytest.mark.emulator_only("Vertex does nothing wrong on demand"),
]

MARK, LIVE, NEWEST = "vr-deleting", "vr-live", "vr-newest"


class Once:
    """A `sleep` function for the first client, in which the second client acts once."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self._left = [None]
        self.done = False

    def __call__(self, _: float) -> None:
        with contextlib.suppress(IndexError):
            self._left.pop()
            self._act()
            self.done = True


def lose(emulator: Emulator, rpc: str, after: int, when: str = "before") -> None:
    """Lose the response of an RPC after this many of its calls have succeeded."""
    if after:
        emulator.fail(rpc, delay=0.0001, times=after)
    emulator.fail(rpc, "UNAVAILABLE", when=when)


def rename(vertex: ModelServiceClient, resource: str, name: str) -> None:
    vertex.update_model(model=Model(name=resource, display_name=name), update_mask=FieldMask(paths=["display_name"]))


def bare(resource: str) -> str:
    return resource.rpartition("/")[2]


def holder(vertex: ModelServiceClient, resource: str, alias: str) -> str | None:
    try:
        return vertex.get_model(name=f"{resource}@{alias}").version_id
    except NotFound:
        return None


# --- names ------------------------------------------------------------------------------------------------------------

#: Each verb, called with a name, a version and a source. It returns the verb's result, or the resource it's about.
VERBS: dict[str, Callable[[RegistryClient, str, str], Any]] = {
    "get": lambda registry, name, _: registry.get_version(name, 1),
    "default": lambda registry, name, _: registry.get_version(name),
    "model": lambda registry, name, _: registry.get_model(name),
    "update": lambda registry, name, _: registry.update_version(name, 1, metadata={"ours": 1}),
    "stage": lambda registry, name, _: registry.set_stage(name, 1, "Staging"),
    "promote": lambda registry, name, _: registry.set_stage(name, 1, "Staging", archive_existing=True),
    "alias": lambda registry, name, _: registry.add_aliases(name, 1, ["champion"]),
    "unalias": lambda registry, name, _: registry.remove_aliases(name, 1, ["champion"]),
    "set-default": lambda registry, name, _: registry.set_default(name, 1),
    "update-model": lambda registry, name, _: registry.update_model(name, description="ours"),
    "register": lambda registry, name, source: registry.register_version(name, source),
    "re-register": lambda registry, name, source: registry.register_version(name, source, request_id="run"),
    "delete": lambda registry, name, _: registry.delete_version(name, 1),
    "delete-model": lambda registry, name, _: registry.delete_model(name),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_means_another_model_now(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, verb: str
) -> None:
    """After a rename, each method uses the model that has the name now, and leaves the other alone."""
    churn, registry = name(), connect()
    old = registry.register_version(churn, source()).model_resource_name
    rename(vertex, old, name("-old"))
    new = connect().register_version(churn, source()).model_resource_name
    assert bare(old) != bare(new)
    before = vertex.get_model(name=f"{old}@1")
    result = VERBS[verb](registry, churn, source())

    assert vertex.get_model(name=f"{old}@1") == before
    assert [one.version_id for one in (vertex.get_model(name=old),)] == ["1"]
    assert holder(vertex, old, "2") is None
    if verb.startswith("delete"):
        assert holder(vertex, new, "1") is None
    else:
        assert bare(result.resource_name).partition("@")[0] == bare(new)
        assert result.name == churn


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_means_nothing_now(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, verb: str
) -> None:
    """After a rename by another tool, no model has the name until the next registration creates one."""
    churn, registry = name(), connect()
    old = registry.register_version(churn, source()).model_resource_name
    rename(vertex, old, name("-old"))
    before = vertex.get_model(name=f"{old}@1")
    if verb in {"register", "re-register"}:
        made = VERBS[verb](registry, churn, source())
        assert (made.name, made.version, bare(made.model_resource_name) == bare(old)) == (churn, "1", False)
    else:
        with pytest.raises(NotFoundError, match="no model"):
            VERBS[verb](registry, churn, source())

    assert vertex.get_model(name=f"{old}@1") == before
    assert holder(vertex, old, "2") is None


def test_lists_after_a_rename(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Lists show the model that has the name now, as soon as they show anything of it."""
    churn, registry = name(), connect()
    old = registry.register_version(churn, source()).model_resource_name
    rename(vertex, old, name("-old"))
    somebody = connect()
    for _ in range(2):
        somebody.register_version(churn, source(), stage="Staging")
    wait_for_lists()

    assert [version.version for version in registry.list_versions(churn)] == ["2", "1"]
    assert [version.version for version in connect().list_versions(churn)] == ["2", "1"]
    latest = connect().latest_version(churn, stage="Staging")
    assert latest is not None
    assert latest.version == "2"
    assert len(registry.stage_history(churn)) == 2


def test_a_resource_name_means_that_model(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """A full resource name always means the same model, even after a rename."""
    churn, renamed, registry = name(), name("-old"), connect()
    old = registry.register_version(churn, source()).model_resource_name
    registry.get_version(old)
    rename(vertex, old, renamed)
    connect().register_version(churn, source())

    assert registry.get_version(old, 1).name == renamed
    made = registry.register_version(old, source(), metadata={"a": 1})
    assert (made.name, made.version, bare(made.model_resource_name)) == (renamed, "2", bare(old))
    assert registry.set_default(old, 1).name == renamed
    registry.delete_version(old, 2)
    registry.delete_model(old)
    with pytest.raises(NotFoundError):
        registry.get_model(old)
    assert registry.get_version(churn).version == "1"


@pytest.mark.parametrize("renames", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_an_id_that_is_free_again(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, renames: int, known: bool
) -> None:
    """A model with a later ID of its name's series is found when the earlier IDs are free again."""
    churn, registry, olds = name(), connect(), []
    for number in range(renames):
        olds.append(connect().register_version(churn, source()).model_resource_name)
        rename(vertex, olds[-1], name(f"-old-{number}"))
    there = connect().register_version(churn, source()).model_resource_name
    if known:
        registry.get_version(churn)
    for old in olds:
        vertex.delete_model(name=old).result()  # type: ignore[no-untyped-call]  # untyped upstream

    assert bare(registry.get_version(churn, 1).model_resource_name) == bare(there)
    assert bare(connect().register_version(churn, source()).resource_name) == f"{bare(there)}@2"
    assert connect().register_version(churn, source(), request_id="run").version == "3"
    assert churn not in connect().duplicates()


def test_a_name_that_comes_back(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Clients that knew two models before tell them apart after they've swapped names."""
    one, other, registry = name("-one"), name("-other"), connect()
    first = registry.register_version(one, source()).model_resource_name
    second = registry.register_version(other, source()).model_resource_name
    rename(vertex, first, name("-aside"))
    rename(vertex, second, one)
    rename(vertex, first, other)
    wait_for_lists()

    registry.update_model(one, description="was the other")
    assert vertex.get_model(name=second).description == "was the other"
    assert vertex.get_model(name=first).description == ""


def test_a_model_that_was_created_again(
    connect: Connect, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """A model that another tool deleted and created again is found, under its old ID and under a new one."""
    churn, registry = name(), connect()
    first = registry.register_version(churn, source()).model_resource_name
    vertex.delete_model(name=first).result()  # type: ignore[no-untyped-call]  # untyped upstream
    connect().register_version(churn, source(), metadata={"second": 1})
    assert registry.update_version(churn, 1, description="d").metadata == {"second": 1}
    vertex.delete_model(name=first).result()  # type: ignore[no-untyped-call]  # untyped upstream
    with pytest.raises(NotFoundError, match="no model"):
        registry.set_stage(churn, 1, "Staging")


@pytest.mark.no_switches
def test_a_rename_while_a_change_is_made(
    connect: Connect, emulator: Emulator, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """A change stays on its model, even if another one takes the name in between."""
    churn = name()
    old = connect().register_version(churn, source()).model_resource_name

    def meanwhile() -> None:
        rename(vertex, old, name("-old"))
        connect().register_version(churn, source())

    registry = connect(retry=Retry(sleep=Once(meanwhile)))
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    changed = registry.update_version(churn, 1, metadata={"a": 1})

    assert bare(changed.model_resource_name) == bare(old)
    assert connect().get_version(churn, 1).metadata == {}


# --- aliases ----------------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[str, Callable[[RegistryClient, str], Any]]] = {
    "update": ("UpdateModel", lambda registry, name: registry.update_version(name, "candidate", metadata={"x": 1})),
    "stage": ("UpdateModel", lambda registry, name: registry.set_stage(name, "candidate", "Production")),
    "promote": (
        "UpdateModel",
        lambda registry, name: registry.set_stage(name, "candidate", "Production", archive_existing=True),
    ),
    "alias": ("MergeVersionAliases", lambda registry, name: registry.add_aliases(name, "candidate", ["blue"])),
    "default": ("MergeVersionAliases", lambda registry, name: registry.set_default(name, "candidate")),
    "delete": ("DeleteModelVersion", lambda registry, name: registry.delete_version(name, "candidate")),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_alias_that_moves_while_a_change_is_made(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, change: str, when: str
) -> None:
    """A change through an alias applies to the version that had it first, and to no other."""
    churn, somebody = name(), connect()
    for _ in range(3):
        somebody.register_version(churn, source())
    somebody.add_aliases(churn, 2, ["candidate"])
    untouched = [somebody.get_version(churn, number).metadata for number in (1, 3)]
    registry = connect(retry=Retry(sleep=(once := Once(lambda: somebody.add_aliases(churn, 1, ["candidate"])))))
    rpc, act = CHANGES[change]
    emulator.fail(rpc, "UNAVAILABLE", when=when)
    with contextlib.suppress(ConflictError):  # when the aliases of version 2 have changed since
        act(registry, churn)

    assert once.done
    first = somebody.get_version(churn, 1)
    assert (first.stage, first.aliases) == (Stage.NONE, ("candidate",))
    assert [first.metadata, somebody.get_version(churn, 3).metadata] == untouched
    if change == "delete":
        with pytest.raises(NotFoundError):
            somebody.get_version(churn, 2)


ALIASES: dict[str, tuple[str, Callable[[RegistryClient, str, int], Any]]] = {
    "alias": ("champion", lambda registry, name, number: registry.add_aliases(name, number, ["champion"])),
    "default": ("default", lambda registry, name, number: registry.set_default(name, number)),
}


@pytest.mark.parametrize("back", [1, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ALIASES)
def test_an_alias_that_somebody_has_moved_since(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, kind: str, when: str, back: int
) -> None:
    """A lost move doesn't overwrite a later move, not even one back to where the alias was."""
    churn, somebody = name(), connect()
    for _ in range(3):
        somebody.register_version(churn, source())
    alias, move = ALIASES[kind]
    move(somebody, churn, 1)

    def meanwhile() -> None:
        if back == 1:
            move(somebody, churn, 3)
        move(somebody, churn, back)

    registry = connect(retry=Retry(sleep=Once(meanwhile)))
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", when=when)
    with pytest.raises(ConflictError, match=f"has changed '{alias}' since"):
        move(registry, churn, 2)

    assert somebody.get_version(churn, alias).version == str(back)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.no_switches
def test_a_lost_move(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, code: str, when: str
) -> None:
    """A lost move is sent again only if it didn't happen."""
    churn = name()
    for _ in range(2):
        registry.register_version(churn, source(), aliases=["champion"])
    moves: list[Callable[[], Any]] = [
        lambda: registry.add_aliases(churn, 1, ["champion", "fresh"]),
        lambda: registry.set_default(churn, 1),
        lambda: registry.remove_aliases(churn, 1, ["champion", "fresh", "nothing"]),
    ]
    for move in moves:
        before = len(emulator.requests())
        emulator.fail("MergeVersionAliases", code, when=when)
        move()
        sent = sum(request.rpc == "MergeVersionAliases" for request in emulator.requests()[before:])
        assert sent == (1 if when == "after" and code != "RESOURCE_EXHAUSTED" else 2)
    assert registry.get_version(churn, 1).aliases == ("default",)


@pytest.mark.no_switches
def test_a_lost_move_that_cannot_be_checked(
    connect: Connect, clock: Clock, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If the reads after a lost move fail too, the lost move is the error, within the budget."""
    churn = name()
    connect().register_version(churn, source())
    registry = connect(retry=Retry(call_timeout=5, sleep=clock.sleep, clock=clock, random=lambda: 1.0))
    emulator.fail("MergeVersionAliases", "UNAVAILABLE")
    emulator.fail("GetModel", delay=0.0001, times=5)  # the name, and the two aliases before and after
    emulator.fail("GetModel", "UNAVAILABLE", times=1000)
    with pytest.raises(UnavailableError, match="MergeVersionAliases"):
        registry.add_aliases(churn, 1, ["one", "other"])
    emulator.forget_faults()
    start = clock.time
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", times=1000)
    with pytest.raises(UnavailableError, match="MergeVersionAliases"):
        registry.add_aliases(churn, 1, ["one", "other"])
    emulator.forget_faults()
    assert clock.time - start <= 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_alias_that_somebody_has_added_again(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, when: str
) -> None:
    """A lost removal doesn't remove an alias that was added since."""
    churn, somebody = name(), connect()
    somebody.register_version(churn, source(), aliases=["champion"])

    def meanwhile() -> None:
        somebody.remove_aliases(churn, 1, ["champion"])
        somebody.add_aliases(churn, 1, ["champion"])

    registry = connect(retry=Retry(sleep=Once(meanwhile)))
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", when=when)
    with pytest.raises(ConflictError):
        registry.remove_aliases(churn, 1, ["champion"])
    assert somebody.get_version(churn, "champion").version == "1"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_that_somebody_has_described_since(
    connect: Connect, backend: Backend, emulator: Emulator, name: NewName, source: NewSource, when: str
) -> None:
    """A lost update of a model overwrites nothing that was written since."""
    churn, somebody = name(), connect()
    somebody.register_version(churn, source())
    registry = connect(retry=Retry(sleep=Once(lambda: somebody.update_model(churn, description="theirs"))))
    emulator.fail("UpdateModel", "UNAVAILABLE", when=when)
    with pytest.raises(ConflictError, match="somebody else has changed it"):
        registry.update_model(churn, description="ours", labels={"team": "growth"})

    assert somebody.get_model(churn).description == "theirs"
    emulator.fail("UpdateModel", "UNAVAILABLE", when=when)
    before = len(emulator.requests())
    assert connect().update_model(churn, description="ours", labels={"team": "growth"}).description == "ours"
    sent = sum(request.rpc == "UpdateModel" for request in emulator.requests()[before:])
    assert sent == (1 if when == "after" else 2)
    if "failed-precondition" in backend.switches.values():
        return  # the cause may be something else, so another attempt may not help
    emulator.fail("UpdateModel", stale_etag=True)
    assert connect().update_model(churn, description="at last").description == "at last"


def test_a_model_that_somebody_labels_before_the_update_arrives(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """An update that Vertex refuses because of its etag is sent again, and keeps what somebody else has written."""
    churn, registry, somebody = name(), connect(), connect()
    somebody.register_version(churn, source())
    emulator.fail("UpdateModel", delay=0.3)
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(registry.update_model, churn, description="ours")
        while emulator.faults():
            pass  # until the update waits at the server
        somebody.update_model(churn, labels={"team": "growth"})
        assert ours.result().description == "ours"

    model = somebody.get_model(churn)
    assert (model.description, model.labels["team"]) == ("ours", "growth")


# --- deletions --------------------------------------------------------------------------------------------------------


def refused(emulator: Emulator, times: int = 1) -> None:
    emulator.fail("DeleteModelVersion", "FAILED_PRECONDITION", message="The version is in use", times=times)


@pytest.mark.each_switch("default-delete")
def test_default_is_moved_only_if_vertex_refuses_otherwise(
    registry: RegistryClient, backend: Backend, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If Vertex moves the default itself, the client doesn't."""
    churn = name()
    for _ in range(3):
        registry.register_version(churn, source())
    before = len(emulator.requests())
    registry.delete_version(churn, 3)

    assert registry.get_version(churn).version == "2"
    sent = Counter(request.rpc for request in emulator.requests()[before:])
    refuses = backend.switches.get("default-delete", SWITCHES["default-delete"].values[0]) == "refuse"
    # Once for the number of the version that goes, and once for default.
    assert (sent["MergeVersionAliases"], sent["ListModelVersions"]) == (1 + refuses, 1 + refuses)


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_default_that_somebody_chooses_while_a_deletion_is_refused(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, moment: int
) -> None:
    """If another client chooses the default version in between, it stays, whether the deletion succeeds or not."""
    churn, somebody = name(), connect()
    for _ in range(3):
        somebody.register_version(churn, source())
    registry = connect(retry=Retry(sleep=(once := Once(lambda: somebody.set_default(churn, 1)))))
    registry.get_version(churn)
    refused(emulator)
    if moment == 1:  # before the version is read again
        lose(emulator, "GetModel", 1)
        registry.delete_version(churn, 3)
    elif moment == 2:  # after default was moved away, and the version is deleted
        emulator.fail("DeleteModelVersion", "UNAVAILABLE")
        registry.delete_version(churn, 3)
    else:  # after default was moved away, and the version is not deleted
        emulator.fail("DeleteModelVersion", "UNAVAILABLE")
        refused(emulator)
        with pytest.raises(ConflictError, match="in use"):
            registry.delete_version(churn, 3)

    assert once.done
    assert somebody.get_version(churn).version == "1"
    assert (somebody.latest_version(churn) or somebody.get_version(churn)).version in {"2", "3"}


@pytest.mark.each_switch("default-delete")
def test_default_moves_back(registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource) -> None:
    """If no other client has moved the default and the version stays, it becomes the default version again."""
    churn = name()
    for _ in range(3):
        registry.register_version(churn, source())
    refused(emulator, times=2)
    with pytest.raises(ConflictError, match="in use"):
        registry.delete_version(churn, 3)
    assert registry.get_version(churn).version == "3"


def test_a_deletion_under_way_while_the_model_is_created_again(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A model that was deleted and registered again in between stays, though the deletion finds it."""
    churn, registry, somebody = name(), connect(), connect()
    registry.register_version(churn, source())
    emulator.fail("DeleteModelVersion", delay=1.0)
    deleting = threading.Thread(target=lambda: registry.delete_version(churn, 1))
    deleting.start()
    while not any(request.rpc == "DeleteModelVersion" for request in emulator.requests()):
        pass
    with contextlib.suppress(NotFoundError):
        somebody.delete_model(churn)
    made = somebody.register_version(churn, source(), metadata={"second": 1})
    deleting.join()

    assert somebody.get_version(churn, 1).created_at == made.created_at
    assert marked_version(somebody, churn) is None


def marked_version(registry: RegistryClient, name: str) -> str | None:
    """Return the version that has the deletion mark."""
    try:
        return registry._vertex.find(name, lambda model: registry._vertex.read(model, MARK))[1].version
    except NotFoundError:
        return None


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 11, 12])
def test_a_model_that_is_created_again_while_its_last_version_is_deleted(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, moment: int
) -> None:
    """If the model is created again before it's deleted, the new one stays, and isn't marked."""
    churn, somebody = name(), connect()
    old = somebody.register_version(churn, source())

    def meanwhile() -> None:
        somebody.delete_model(churn)
        somebody.register_version(churn, source(), metadata={"second": 1})

    registry = connect(retry=Retry(sleep=(once := Once(meanwhile))))
    registry.get_version(churn)
    lose(emulator, "GetModel", moment)
    with contextlib.suppress(ConflictError):
        registry.delete_version(churn, 1)

    assert once.done
    there = somebody.get_version(churn, 1)
    assert there.created_at > old.created_at
    assert marked_version(somebody, churn) is None


def upload(vertex: ModelServiceClient, parent: str, resource: str, name: str, source: str, *aliases: str) -> None:
    """Upload another version as another tool does, or with this package's aliases as a registration does."""
    model = Model(
        display_name=name,
        artifact_uri=source,
        version_aliases=aliases,
        container_spec={"image_uri": "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest"},
    )
    vertex.upload_model(request={"parent": parent, "parent_model": resource, "model": model}).result()  # type: ignore[no-untyped-call]  # untyped upstream


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("moment", ["refused", "marked", "deleting"])
def test_a_version_that_appears_while_the_last_one_is_deleted(
    connect: Connect,
    emulator: Emulator,
    vertex: ModelServiceClient,
    parent: str,
    name: NewName,
    source: NewSource,
    moment: str,
    ours: bool,
) -> None:
    """The new version stays, only the old one is deleted, and the mark of the deletion is removed."""
    churn, somebody = name(), connect()
    resource = somebody.register_version(churn, source()).model_resource_name
    aliases = (NEWEST, LIVE, "default") if ours else ()
    marked: list[tuple[str | None, str | None]] = []

    def meanwhile() -> None:
        marked.append((holder(vertex, resource, MARK), holder(vertex, resource, LIVE)))
        upload(vertex, parent, resource, churn, source(), *aliases)

    registry = connect(retry=Retry(sleep=Once(meanwhile)))
    registry.get_version(churn)
    if moment == "refused":
        lose(emulator, "ListModelVersions", 1)
    elif moment == "marked":
        lose(emulator, "ListModelVersions", 2)
    else:
        emulator.fail("DeleteModel", "UNAVAILABLE")
    registry.delete_version(churn, 1)

    assert [holder(vertex, resource, reference) for reference in ("1", "2", "default")] == [None, "2", "2"]
    assert marked[0][0] == (None if moment == "refused" else "1")
    if moment != "refused":
        assert marked[0][1] == "1"
    assert holder(vertex, resource, MARK) is None
    assert somebody.register_version(churn, source()).version == "3"


@pytest.mark.parametrize(
    ("rpc", "code", "error"),
    [
        ("DeleteModel", "FAILED_PRECONDITION", ConflictError),
        ("DeleteModel", "PERMISSION_DENIED", PermissionDeniedError),
        ("DeleteModel", "UNAVAILABLE", UnavailableError),
        ("ListModelVersions", "PERMISSION_DENIED", PermissionDeniedError),
    ],
)
def test_a_last_version_that_cannot_be_deleted_keeps_no_mark(
    connect: Connect,
    clock: Clock,
    emulator: Emulator,
    vertex: ModelServiceClient,
    name: NewName,
    source: NewSource,
    rpc: str,
    code: str,
    error: type[Exception],
) -> None:
    """The deletion mark is removed, however the deletion ends."""
    churn = name()
    registry = connect(retry=Retry(call_timeout=10, sleep=clock.sleep, clock=clock))
    resource = registry.register_version(churn, source()).model_resource_name
    if rpc == "ListModelVersions":
        emulator.fail(rpc, delay=0.0001, times=2)
    emulator.fail(rpc, code, times=1000)
    with pytest.raises(error):
        registry.delete_version(churn, 1)
    emulator.forget_faults()

    assert any(request.rpc == "MergeVersionAliases" for request in emulator.requests())
    assert holder(vertex, resource, MARK) is None
    assert registry.get_version(churn).version == "1"
    registry.delete_version(churn, 1)
    with pytest.raises(NotFoundError):
        registry.get_model(churn)


@pytest.mark.no_switches
def test_ctrl_c_while_the_last_version_is_deleted(
    connect: Connect, emulator: Emulator, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """KeyboardInterrupt is raised after one attempt to remove the mark."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    churn, registry = name(), connect(retry=Retry(sleep=interrupt))
    resource = registry.register_version(churn, source()).model_resource_name
    emulator.fail("DeleteModel", "UNAVAILABLE")
    with pytest.raises(KeyboardInterrupt):
        registry.delete_version(churn, 1)
    assert holder(vertex, resource, MARK) is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_mark_whose_answer_is_lost(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource, when: str, times: int
) -> None:
    """The mark is written again until it's known to exist."""
    churn = name()
    registry.register_version(churn, source())
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", when=when, times=times)
    registry.delete_version(churn, 1)
    with pytest.raises(NotFoundError):
        registry.get_model(churn)


def test_a_mark_that_cannot_be_removed(
    connect: Connect,
    clock: Clock,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error says why the deletion failed, the log explains the mark, and the next deletion removes it."""
    churn = name()
    registry = connect(retry=Retry(call_timeout=1, sleep=clock.sleep, clock=clock))
    registry.register_version(churn, source())
    emulator.fail("MergeVersionAliases", delay=0.0001)
    emulator.fail("MergeVersionAliases", "UNAVAILABLE", times=1000)
    emulator.fail("DeleteModel", "FAILED_PRECONDITION", message="The version is in use")
    with pytest.raises(ConflictError, match="in use"):
        registry.delete_version(churn, 1)
    emulator.forget_faults()
    assert f"delete_version({churn!r}, 1)" in caplog.text
    assert marked_version(registry, churn) == "1"

    registry.delete_version(churn, 1)
    with pytest.raises(NotFoundError):
        registry.get_model(churn)


def test_a_mark_that_somebody_left(
    connect: Connect, emulator: Emulator, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """A refused deletion removes the mark of a killed one."""
    churn, registry = name(), connect()
    resource = registry.register_version(churn, source()).model_resource_name
    vertex.merge_version_aliases(name=f"{resource}@1", version_aliases=[MARK])
    upload(vertex, resource.partition("/models/")[0], resource, churn, source(), "default")
    refused(emulator, times=2)
    with pytest.raises(ConflictError, match="in use"):
        registry.delete_version(churn, 1)
    assert holder(vertex, resource, MARK) is None


@pytest.mark.parametrize("default", [1, 2])
def test_two_deletions_of_the_two_last_versions(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource, default: int
) -> None:
    """Whichever deletion comes second deletes the model too, and neither reports a wrong reason."""
    churn, somebody = name(), connect()
    for _ in range(2):
        somebody.register_version(churn, source())
    somebody.set_default(churn, default)
    registry = connect(retry=Retry(sleep=(once := Once(lambda: somebody.delete_version(churn, 1)))))
    registry.get_version(churn)
    refused(emulator)
    lose(emulator, "GetModel", 1)
    registry.delete_version(churn, 2)

    assert once.done
    with pytest.raises(NotFoundError):
        somebody.get_model(churn)


def test_a_version_that_is_no_longer_the_only_one(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A deletion that was refused for the only version is retried once there's another one."""
    churn, somebody = name(), connect()
    somebody.register_version(churn, source())
    registry = connect(retry=Retry(sleep=Once(lambda: somebody.register_version(churn, source()))))
    registry.get_version(churn)
    lose(emulator, "GetModel", 1)
    registry.delete_version(churn, 1)

    assert somebody.get_version(churn).version == "2"
    with pytest.raises(NotFoundError):
        somebody.get_version(churn, 1)


@pytest.mark.polls(2)
def test_many_deletions_at_once(connect: Connect, name: NewName, source: NewSource) -> None:
    """All versions of a model can be deleted at once, each by its own client. The model goes with the last."""
    clients = [connect(retry=Retry()) for _ in range(4)]
    for _ in range(3):
        churn = name()
        for _ in clients:
            clients[0].register_version(churn, source())
        barrier = threading.Barrier(len(clients))
        errors: list[BaseException] = []

        def delete(number: int, churn: str = churn, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                clients[number].delete_version(churn, number + 1)
            except BaseException as error:  # noqa: BLE001  # the test checks which errors are raised
                errors.append(error)  # noqa: B023  # it is joined below

        threads = [threading.Thread(target=delete, args=(number,)) for number in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not [error for error in errors if not isinstance(error, NotFoundError)]
        with pytest.raises(NotFoundError):
            clients[0].get_model(churn)
