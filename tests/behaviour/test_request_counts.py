"""How many requests a method sends, and that their number doesn't depend on the number of versions.

The table in `docs/testing.md` has the requests of every method, and a test of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.aiplatform_v1.types import Model

from vertex_registry import Stage
from vertex_registry._rpc import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, NewSource
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator

pytestmark = pytest.mark.no_switches

#: More versions than the first page of a list has.
MANY: Final = 120

#: The requests of a client that has promoted versions of the model before: with few versions, and with many.
REQUESTS: Final[dict[str, tuple[Callable[[RegistryClient, str], Any], int, int]]] = {
    "get_version": (lambda registry, name: registry.get_version(name, 2), 1, 1),
    "get_version by stage": (lambda registry, name: registry.get_version(name, stage=Stage.PRODUCTION), 1, 1),
    "latest_version": (lambda registry, name: registry.latest_version(name), 1, 1),
    "latest_version by stage": (lambda registry, name: registry.latest_version(name, stage=Stage.PRODUCTION), 1, 1),
    "the first of a list": (lambda registry, name: next(registry.list_versions(name)), 1, 1),
    "a list with a limit": (lambda registry, name: list(registry.list_versions(name, limit=7)), 1, 1),
    "a stage": (lambda registry, name: list(registry.list_versions(name, stage=Stage.PRODUCTION)), 1, 1),
    "a whole list": (lambda registry, name: list(registry.list_versions(name)), 1, 2),
    "the oldest": (lambda registry, name: next(registry.list_versions(name, oldest_first=True)), 1, 1),
    "a table": (lambda registry, name: repr(registry.list_versions(name)), 1, 1),
    "prune": (lambda registry, name: registry.prune(name, keep=MANY, dry_run=True), 1, 1),
    "set_stage": (lambda registry, name: registry.set_stage(name, 1, Stage.STAGING), 2, 2),
    "archive_existing": (
        lambda registry, name: registry.set_stage(name, 3, Stage.PRODUCTION, archive_existing=True), 6, 7,
    ),
    "rollback": (lambda registry, name: registry.rollback(name), 9, 14),
    "stage_history": (lambda registry, name: registry.stage_history(name), 1, 5),
    "version_at": (lambda registry, name: registry.version_at(name, dt.datetime.now(dt.UTC)), 1, 5),
}  # fmt: skip


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
def test_requests_do_not_grow_with_the_versions(
    registry: RegistryClient, vertex: ModelServiceClient, emulator: Emulator, name: NewName, *, many: bool
) -> None:
    """Each method sends so many requests, however many versions there are; a whole list has 1,000 on a page."""
    churn = name()
    first = registry.register_version(churn, "gs://models/churn/1")
    place = first.resource_name.partition("/models/")[0]
    another = Model(
        display_name=churn,
        artifact_uri="gs://models/churn/2",
        container_spec={"image_uri": first.container.image if first.container else ""},
        labels={"stage": "none"},
    )
    for _ in range(MANY - 1 if many else 2):
        vertex.upload_model({"parent": place, "parent_model": first.model_resource_name, "model": another})
    for number in (1, 2):
        registry.set_stage(churn, number, Stage.PRODUCTION, archive_existing=True)

    sent = {}
    for what, (call, _, _) in REQUESTS.items():
        before = len(emulator.requests())
        call(registry, churn)
        sent[what] = len(emulator.requests()) - before
    assert sent == {what: requests[many] for what, (_, *requests) in REQUESTS.items()}


@pytest.mark.only("grpc")
def test_a_model_that_was_large(
    registry: RegistryClient, connect: Connect, vertex: ModelServiceClient, emulator: Emulator, name: NewName
) -> None:
    """A client that knows a model as a large one reads its history by labels. It's the same as the whole list has."""
    churn = name()
    first = registry.register_version(churn, "gs://models/churn/1")
    place = first.resource_name.partition("/models/")[0]
    image = {"image_uri": first.container.image if first.container else ""}
    another = Model(display_name=churn, artifact_uri="gs://models/churn/2", container_spec=image)
    for _ in range(MANY):
        vertex.upload_model({"parent": place, "parent_model": first.model_resource_name, "model": another})
    for number in (1, 2):
        registry.set_stage(churn, number, Stage.PRODUCTION, archive_existing=True)
    for number in range(4, MANY + 2):
        vertex.delete_model_version(name=f"{first.model_resource_name}@{number}")

    now, whole = dt.datetime.now(dt.UTC), connect()
    assert registry.stage_history(churn) == whole.stage_history(churn)
    assert registry.version_at(churn, now) == whole.version_at(churn, now)
    lists = [request.message.filter for request in emulator.requests() if request.rpc == "ListModelVersions"]
    assert [bool(label) for label in lists[-12:]] == [True] * 5 + [False] + [True] * 5 + [False]
    assert registry.rollback(churn).restored.version == "1"

    # Once it was deleted and registered again, it's a small model, and read as one.
    whole.delete_model(churn)
    for stage in (Stage.STAGING, Stage.PRODUCTION):
        whole.register_version(churn, "gs://models/churn/3", stage=stage)
    before = len(emulator.requests())
    for _ in range(2):
        assert registry.stage_history(churn) == whole.stage_history(churn)
    filters = [request.message.filter for request in emulator.requests()[before:] if "Versions" in request.rpc]
    assert filters[-2:] == ["", ""]


def test_a_promotion_sends_six_requests(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """A promotion reads the version, lists, writes, lists again, archives the other one, and reads what came of it."""
    churn = name()
    for _ in range(2):
        registry.register_version(churn, source(), stage=Stage.PRODUCTION)
    before = len(emulator.requests())
    registry.set_stage(churn, 2, Stage.PRODUCTION, archive_existing=True)

    assert [request.rpc for request in emulator.requests()[before:]] == [
        "GetModel", "ListModelVersions", "UpdateModel", "ListModelVersions", "UpdateModel", "GetModel",
    ]  # fmt: skip


def test_deleting_the_default_version_sends_twelve_requests(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """Another version that a list shows is enough: no number is tried out to find one that no list shows yet."""
    churn = name()
    for _ in range(2):
        registry.register_version(churn, source())
    before = len(emulator.requests())
    registry.delete_version(churn, 2)

    assert [request.rpc for request in emulator.requests()[before:]] == [
        "GetModel", "ListModelVersions", "MergeVersionAliases", "DeleteModelVersion", "GetModel", "ListModelVersions",
        "GetModel", "GetModel", "GetModel", "GetModel", "MergeVersionAliases", "DeleteModelVersion",
    ]  # fmt: skip
    assert registry.get_version(churn).version == "1"


@pytest.mark.only("grpc")
def test_deleting_the_last_version_checks_once_for_others(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If the list shows no other version, the numbers around it are read only once the version is marked."""
    churn = name()
    registry.register_version(churn, source())
    before = len(emulator.requests())
    registry.delete_version(churn, 1)

    sent = [request.rpc for request in emulator.requests()[before:]]
    assert sent == [
        "GetModel", "ListModelVersions", "DeleteModelVersion", "GetModel", "ListModelVersions", "MergeVersionAliases",
        "ListModelVersions", *["GetModel"] * 11, "DeleteModel", "GetModel",
    ]  # fmt: skip
    assert len(sent) == 20


def test_versions_of_every_model(registry: RegistryClient, emulator: Emulator, name: NewName) -> None:
    """The versions of all models take one list of the models, and one list for each."""
    for _ in range(3):
        registry.register_version(name(), "gs://models/churn/1")
    before = len(emulator.requests())
    assert len(list(registry.list_versions())) == 3

    assert Counter(request.rpc for request in emulator.requests()[before:]) == {"ListModels": 1, "ListModelVersions": 3}


@pytest.mark.polls(1)
def test_the_headers_are_those_of_googles_client(
    registry: RegistryClient, vertex: ModelServiceClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """Each request has the header that Vertex routes by, as Google's own client sends it with the same message."""
    churn = name("with a space & more")
    for _ in range(2):
        registry.register_version(churn, source(), aliases=["champion"], stage=Stage.STAGING)
    list(registry.list_versions())
    registry.delete_version(churn, 2)
    registry.delete_model(churn)
    ours = emulator.requests()
    for request in ours:
        with contextlib.suppress(GoogleAPICallError):  # most of it doesn't exist anymore
            getattr(vertex, METHODS[request.rpc].call)(request.message)
    theirs = emulator.requests()[len(ours) :]

    assert {request.rpc for request in ours} == METHODS.keys() - {"ListOperations"}
    for header in ("x-goog-request-params", "content-type"):
        sent = [[(request.rpc, request.metadata.get(header)) for request in requests] for requests in (ours, theirs)]
        assert sent[0] == sent[1]
    assert all("gl-python/" in request.metadata["x-goog-api-client"] for request in ours)
