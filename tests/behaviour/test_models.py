"""Read, update and delete models."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from vertex_registry import AlreadyExistsError, ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import NewName, NewSource, WaitForLists
    from vertex_registry import RegistryClient

pytestmark = pytest.mark.switches_together


def test_a_model(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A model shows its own fields, and which of its versions is the default one."""
    churn = name()
    version = registry.register_version(churn, source(), model_description="who leaves")
    model = registry.get_model(churn)

    assert (model.name, model.description, model.managed_by) == (churn, "who leaves", "zenml")
    assert (model.resource_name, model.default_version) == (version.model_resource_name, "1")
    assert model.created_at <= model.updated_at
    assert registry.get_model(model.resource_name) == model


def test_listing_models(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """Models are listed once each, newest first, and a label tells them apart."""
    models = [name() for _ in range(3)]
    for model in models:
        registry.register_version(model, source())
    registry.register_version(models[0], source())
    registry.update_model(models[1], labels={"team": "growth"})
    wait_for_lists()

    assert [model.name for model in registry.list_models() if model.name in models] == models[::-1]
    labelled = registry.list_models(labels={"team": "growth", "managed_by": "zenml"})
    assert [model.name for model in labelled if model.name in models] == [models[1]]
    assert len(list(registry.list_models(limit=2))) == 2
    orders = {"updated": [models[1], models[0], models[2]], "name": sorted(models), "created": models[::-1]}
    for order, expected in orders.items():
        listed = registry.list_models(order_by=order)  # type: ignore[arg-type]  # a key of the table
        assert [model.name for model in listed if model.name in models] == expected


@pytest.mark.cassette
@pytest.mark.each_switch("labels-at-upload", "label-wins")
def test_updating_a_model(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A model's description and labels are replaced. ``managed_by`` and all versions stay as they are."""
    churn = name()
    registry.register_version(churn, source(), stage="Staging", metadata={"team": "sales", "a": 1})
    registry.update_model(churn, labels={"cost-centre": "7"})
    model = registry.update_model(churn, description="who leaves", labels={"owner": "ann"})

    assert (model.description, model.managed_by, model.labels["owner"]) == ("who leaves", "zenml", "ann")
    assert "cost-centre" not in model.labels
    version = registry.get_version(churn, 1)
    assert (str(version.stage), version.metadata) == ("Staging", {"team": "sales", "a": 1, "owner": "ann"})
    assert registry.update_model(churn, description="").description == ""
    assert registry.update_model(churn) == registry.get_model(churn)


@pytest.mark.switches_together
def test_renaming_a_model(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """Everything stays but the name. The old name is free again, and then means another model."""
    old, new = name(), name("-new")
    first = registry.register_version(old, source(), stage="Production", aliases=["champion"])
    renamed = registry.rename_model(old, new)

    assert (renamed.name, renamed.resource_name) == (new, first.model_resource_name)
    version = registry.get_version(new, "champion")
    assert (version.resource_name, version.stage, version.name) == (first.resource_name, first.stage, new)
    with pytest.raises(NotFoundError, match="There is no model"):
        registry.get_model(old)
    assert registry.register_version(old, source()).model_resource_name != first.model_resource_name
    assert registry.rename_model(new, new).resource_name == renamed.resource_name
    with pytest.raises(AlreadyExistsError, match=f"another model '{old}', so '{new}' wasn't renamed"):
        registry.rename_model(new, old)


@pytest.mark.switches_together
def test_the_etag_of_a_model(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """With the etag of an earlier read, nothing is overwritten that somebody else wrote since."""
    churn = name()
    registry.register_version(churn, source())
    read = registry.get_model(churn)
    written = registry.update_model(churn, description="one", etag=read.etag)
    with pytest.raises(ConflictError, match="was changed since you read it"):
        registry.update_model(churn, description="two", etag=read.etag)

    assert registry.update_model(churn, description="three", etag=written.etag).description == "three"


@pytest.mark.no_switches
def test_labels_that_a_model_may_not_have(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """A model's own labels show on every version, so this package's keys are refused."""
    churn = name()
    registry.register_version(churn, source())

    for labels in ({"stage": "production"}, {"Team": "x"}, {"team": "x y"}, {"vr-request": "x"}, {"7a": "x"}):
        with pytest.raises(InvalidArgumentError):
            registry.update_model(churn, labels=labels)
    with pytest.raises(InvalidArgumentError, match="allows 64"):
        registry.update_model(churn, labels={f"k{number}": "" for number in range(64)})


@pytest.mark.cassette
def test_deleting_a_version(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """A deleted version is gone, and the others stay as they are."""
    churn = name()
    made = [registry.register_version(churn, source()) for _ in range(3)]
    wait_for_lists()
    registry.delete_version(churn, 2)
    wait_for_lists()

    assert [version.version for version in registry.list_versions(churn)] == ["3", "1"]
    assert registry.get_version(churn, 3) == made[2]
    with pytest.raises(NotFoundError, match="no version '2'"):
        registry.delete_version(churn, 2)


@pytest.mark.each_switch("default-delete")
def test_deleting_the_default_version(registry: RegistryClient, name: NewName, source: NewSource) -> None:
    """The alias default moves to the newest other version."""
    churn = name()
    for _ in range(3):
        registry.register_version(churn, source())
    registry.delete_version(churn, "default")

    assert registry.get_version(churn).version == "2"
    registry.set_default(churn, 1)
    registry.delete_version(churn, 1)
    assert registry.get_version(churn).version == "2"


@pytest.mark.cassette
@pytest.mark.each_switch("default-delete")
def test_deleting_the_last_version(
    registry: RegistryClient,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The model is deleted with its last version, with a warning, and its name is free again."""
    churn = name()
    registry.register_version(churn, source())
    registry.register_version(churn, source())
    wait_for_lists()
    registry.delete_version(churn, 2)
    with caplog.at_level(logging.WARNING, "vertex_registry"):
        registry.delete_version(churn, 1)
    wait_for_lists()

    assert "last version" in caplog.text
    with pytest.raises(NotFoundError):
        registry.get_model(churn)
    assert registry.register_version(churn, source()).version == "1"


def test_deleting_a_model(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """A model is deleted with all its versions."""
    churn = name()
    registry.register_version(churn, source())
    registry.register_version(churn, source())
    registry.delete_model(churn)
    wait_for_lists()

    for verb in (registry.get_model, registry.get_version, registry.delete_model):
        with pytest.raises(NotFoundError, match="no model"):
            verb(churn)


def test_duplicate_names(
    registry: RegistryClient, vertex: ModelServiceClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """``duplicates`` has each name that several models have, and no other."""
    one, other = name(), name()
    first = registry.register_version(one, source())
    second = registry.register_version(other, source())
    wait_for_lists()
    assert one not in registry.duplicates()
    vertex.update_model(
        model=Model(name=second.model_resource_name, display_name=one), update_mask=FieldMask(paths=["display_name"])
    )
    wait_for_lists()

    assert set(registry.duplicates()[one]) == {first.model_resource_name, second.model_resource_name}


def test_a_newer_version_that_no_list_shows(
    registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """If a newer version exists that no list shows, the model isn't deleted with the older one."""
    churn = name()
    registry.register_version(churn, source())
    wait_for_lists()
    for _ in range(12):
        registry.register_version(churn, source(), make_default=False)
    for number in range(2, 13):
        registry.delete_version(churn, number)
    registry.delete_version(churn, 1)

    assert registry.get_version(churn).version == "13"
