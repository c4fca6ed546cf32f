"""The two layers of labels: what's written on a version, and what the model shows on all of its versions."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from tests.behaviour.incompressible import incompressible
from vertex_registry import ConflictError, InvalidArgumentError, PermissionDeniedError, Retry, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, NewSource, WaitForLists
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator


pytestmark = [
    pytest.mark.each_switch("labels-at-upload", "label-wins"),
    pytest.mark.emulator_only("Vertex does nothing wrong on demand"),
]


@pytest.fixture
def model(registry: RegistryClient, name: NewName, source: NewSource) -> str:
    """Register a model with one version and two labels of its own, and return its name."""
    model = name()
    registry.register_version(model, source())
    registry.update_model(model, labels={"team": "sales", "owner": "ann"})
    return model


@contextlib.contextmanager
def unless_hidden(key: str) -> Iterator[None]:
    """Allow only the error that says that a label of the model hides the key."""
    try:
        yield
    except ConflictError as conflict:
        assert f"labels '{key}', " in str(conflict)
        assert "which hide what was written" in str(conflict)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_completion_beside_the_models_labels(
    registry: RegistryClient, emulator: Emulator, model: str, source: NewSource, when: str
) -> None:
    """If a response is lost, a label of the model isn't mistaken for what was registered."""
    emulator.fail("UpdateModel", "UNAVAILABLE", when=when)

    with unless_hidden("team"):
        made = registry.register_version(model, source(), metadata={"team": "growth", "a": 1}, stage="Staging")
        assert (made.stage, made.metadata) == (Stage.STAGING, {"team": "growth", "a": 1, "owner": "ann"})
        assert made == registry.get_version(model, 2)


def test_what_others_changed_before_the_loss_was_noticed(
    connect: Connect, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """Changes that another client makes between a completion and the read after its lost response are kept."""
    churn, somebody = name(), connect()
    somebody.register_version(churn, source())

    def meanwhile(_: float) -> None:
        if somebody.get_version(churn, 2).metadata == metadata:
            somebody.update_version(churn, 2, metadata={"team": "ops"}, remove_metadata=["a"])

    metadata = {"team": "growth", "a": 1, "b": 2}
    registry = connect(retry=Retry(sleep=meanwhile))
    registry.get_version(churn)
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    emulator.fail("GetModel", delay=0.0001, times=3)  # the reads before the completion
    emulator.fail("GetModel", "UNAVAILABLE")
    made = registry.register_version(churn, source(), metadata=metadata)

    assert made.metadata == {"team": "ops", "b": 2}
    assert made.labels["team"] == "ops"
    assert made == somebody.get_version(churn, 2)


def test_a_re_run_beside_the_models_labels(
    registry: RegistryClient, emulator: Emulator, model: str, source: NewSource
) -> None:
    """Finishing an interrupted registration writes everything on the version, in whichever form."""
    artifact = source()
    arguments: dict[str, Any] = {"metadata": {"team": {"name": "growth", "people": ["Ann"] * 9}}, "request_id": "run"}
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(model, artifact, **arguments)

    made = registry.register_version(model, artifact, **arguments)
    assert made.metadata == arguments["metadata"] | {"owner": "ann"}
    assert registry.register_version(model, artifact, **arguments) == made == registry.get_version(model, 2)


def test_what_others_wrote_on_the_version_is_kept_beside_the_models_labels(
    registry: RegistryClient, emulator: Emulator, model: str, source: NewSource
) -> None:
    """Later changes to the version are kept. A label of the model doesn't count as a change."""
    artifact = source()
    arguments: dict[str, Any] = {"metadata": {"team": "growth", "a": 1, "b": 2}, "request_id": "run"}
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(model, artifact, **arguments)
    registry.update_version(model, 2, metadata={"b": "three", "c": {"d": "x" * 99}})
    registry.update_model(model, labels={"team": "platform", "owner": "ann"})

    with unless_hidden("team"):
        made = registry.register_version(model, artifact, **arguments)
        written = made.metadata.pop("team")
        assert made.metadata == {"a": 1, "b": "three", "c": {"d": "x" * 99}, "owner": "ann"}
        # The label that the model had went to the version with somebody's update, as a label of the version.
        assert written in {"growth", "sales"}


def test_a_finish_that_is_cut_off_itself(
    registry: RegistryClient, emulator: Emulator, model: str, source: NewSource
) -> None:
    """If a run is interrupted while it finds out which labels are the model's, the next run still gets it right."""
    artifact = source()
    arguments: dict[str, Any] = {"metadata": {"team": "growth", "b": 2}, "request_id": "run"}
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(model, artifact, **arguments)
    registry.update_model(model, labels={})
    registry.update_version(model, 2, metadata={"b": "three"})
    registry.update_model(model, labels={"team": "sales"})
    half = registry.get_version(model, 2)
    assert half.metadata == {"team": "sales", "b": "three"}
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(model, artifact, **arguments)
    assert registry.get_version(model, 2).metadata == half.metadata

    with unless_hidden("team"):
        made = registry.register_version(model, artifact, **arguments)
        assert made.metadata == {"team": "growth", "b": "three"}
        assert made.labels["team"] == "growth"


def test_what_is_packed_is_read_before_the_models_label(registry: RegistryClient, model: str) -> None:
    """A packed value comes back, even if the model has a label with the same key."""
    team = {"name": "growth", "people": ["Ann"] * 9}

    assert registry.update_version(model, 1, metadata={"team": team}).metadata["team"] == team
    assert registry.get_version(model, 1).metadata == {"team": team, "owner": "ann"}


@pytest.mark.each_switch("labels-at-upload", "label-wins", "label-filter")
def test_a_model_full_of_labels(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """The model's labels take no space on its versions: each layer has its own 64."""
    churn = name()
    labels = {f"label-{number}": "x" for number in range(63)}
    registry.register_version(churn, source(), metadata={"a": 1, "b": "two"}, stage="Production")
    registry.update_model(churn, labels=labels)
    wait_for_lists()

    assert registry.update_version(churn, 1, metadata={"a": 2}, remove_metadata=["b"]).metadata == {"a": 2} | labels
    made = registry.register_version(churn, source(), metadata={"c": 3}, stage="Production", archive_existing=True)
    assert (made.version, made.metadata) == ("2", {"c": 3} | labels)
    assert registry.get_version(churn, 1).stage is Stage.ARCHIVED
    wait_for_lists()
    assert registry.set_stage(churn, 1, "Production", archive_existing=True).metadata == {"a": 2} | labels
    assert registry.get_version(churn, 2).stage is Stage.ARCHIVED

    registry.update_model(churn, labels={})
    assert [registry.get_version(churn, number).metadata for number in (1, 2)] == [{"a": 2}, {"c": 3}]


def test_a_finish_beside_a_model_full_of_labels(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """The model's labels don't prevent a registration from being finished, either."""
    churn = name()
    labels = {f"label-{number}": "x" for number in range(63)}
    registry.register_version(churn, source())
    registry.update_model(churn, labels=labels)
    emulator.fail("UpdateModel", "UNAVAILABLE")

    with unless_hidden("label-7"):
        made = registry.register_version(churn, source(), metadata={"a": 1, "label-7": "y"})
        assert made.metadata == labels | {"a": 1, "label-7": "y"}


def test_a_finish_beside_labels_that_do_not_fit_into_a_pack(
    registry: RegistryClient, emulator: Emulator, name: NewName, source: NewSource
) -> None:
    """If it's unclear whether labels are the model's, the registration's values are kept."""
    churn = name()
    labels = {f"label-{n}": hashlib.sha512(str(n).encode()).hexdigest()[:63] for n in range(50)}
    metadata = dict.fromkeys(labels, "mine")
    registry.register_version(churn, source())
    registry.update_model(churn, labels=labels)
    emulator.fail("UpdateModel", "UNAVAILABLE")

    with unless_hidden("label-0"):
        assert registry.register_version(churn, source(), metadata=metadata).metadata == metadata


@pytest.mark.switches_together
def test_a_version_that_is_full_itself(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A change that doesn't fit on the version is refused, and nothing is written."""
    churn = name()
    metadata = incompressible(30)
    registry.register_version(churn, source(), metadata=metadata, stage="Staging")
    before = registry.get_version(churn, 1)
    more = incompressible(30, "more")
    with pytest.raises(InvalidArgumentError, match="Vertex allows 64"):
        registry.update_version(churn, 1, metadata=more)

    assert registry.get_version(churn, 1) == before
    registry.register_version(churn, source())
    before = registry.get_version(churn, 1)
    with pytest.raises(InvalidArgumentError, match="Vertex allows 64"):
        registry.update_version(churn, 1, metadata=more)
    assert registry.get_version(churn, 1) == before
    assert registry.update_version(churn, 1, metadata=more, remove_metadata=list(metadata)).metadata == more


@pytest.mark.switches_together
def test_there_is_room_for_a_stage(connect: Connect, name: NewName, source: NewSource) -> None:
    """Any client can promote and archive whatever can be registered or updated."""
    churn, many = name(), [incompressible(count) for count in range(40, 64)]
    registry = connect(actor="ann@example.com")
    other = connect(actor="".join(chr(33 + number * 37 % 94) for number in range(128)))
    for metadata in reversed(many):
        try:
            registry.register_version(churn, source(), metadata=metadata, version_name="1.0")
        except InvalidArgumentError as full:
            assert "change of stage" in str(full)
        else:
            break

    assert len(metadata) == 52
    for stage in ("Production", "Archived", "Staging"):
        assert other.set_stage(churn, 1, stage).metadata == metadata
    with pytest.raises(InvalidArgumentError, match="Vertex allows 64"):
        registry.update_version(churn, 1, metadata=incompressible(2, "more"))
    assert registry.update_version(churn, 1, metadata={"key-1": "y"}).metadata == metadata | {"key-1": "y"}


@pytest.mark.each_switch("labels-at-upload", "label-wins", "label-filter")
def test_a_version_that_cannot_be_archived(
    registry: RegistryClient,
    vertex: ModelServiceClient,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """If a full version in the stage can't be archived, the promotion changes nothing and names it."""
    churn = name()
    first = registry.register_version(churn, source())
    second = registry.register_version(churn, source())
    theirs = {f"key-{number}": "x" for number in range(62)}
    vertex.update_model(
        model=Model(name=first.resource_name, labels=theirs | {"stage": "production", "managed_by": "zenml"}),
        update_mask=FieldMask(paths=["labels"]),
    )
    wait_for_lists()

    with pytest.raises(ConflictError, match=r"Version 1 of .* can't be archived.* Vertex allows 64"):
        registry.set_stage(churn, 2, "Production", archive_existing=True)
    with pytest.raises(ConflictError, match=r"Version 1 of .* can't be archived.* Vertex allows 64"):
        registry.register_version(churn, source(), stage="Production", archive_existing=True)
    assert [version.version for version in registry.list_versions(churn, stage="Production")] == ["1"]
    assert registry.get_version(churn, 2) == second
    assert registry.get_version(churn, 1).metadata == theirs
    registry.update_version(churn, 1, remove_metadata=[f"key-{number}" for number in range(1, 6)])
    assert registry.set_stage(churn, 2, "Production", archive_existing=True).stage is Stage.PRODUCTION
    assert registry.get_version(churn, 1).stage is Stage.ARCHIVED
