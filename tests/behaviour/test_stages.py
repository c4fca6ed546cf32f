"""Stages: each version has its own label."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from vertex_registry import ConflictError, InvalidArgumentError, Stage

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, NewSource, WaitForLists
    from vertex_registry import RegistryClient

pytestmark = pytest.mark.switches_together


@pytest.fixture
def model(registry: RegistryClient, name: NewName, source: NewSource, wait_for_lists: WaitForLists) -> str:
    """Register a model with three versions, and return its name."""
    model = name()
    for _ in range(3):
        registry.register_version(model, source())
    wait_for_lists()
    return model


def stages(registry: RegistryClient, model: str) -> list[str]:
    return [str(registry.get_version(model, version).stage) for version in (1, 2, 3)]


@pytest.mark.switches_together
@pytest.mark.parametrize("stage", [*Stage, "production", "STAGING", "none"])
def test_every_stage_comes_back(registry: RegistryClient, model: str, stage: str) -> None:
    """A version has the stage that you set, as a Stage or by its name in any case."""
    registry.set_stage(model, 2, "Production" if stage != "Production" else "Staging")

    assert registry.set_stage(model, 2, stage).stage is Stage(stage)
    assert registry.get_version(model, 2).stage is Stage(stage)
    assert registry.get_version(model, 1).stage is Stage.NONE


@pytest.mark.cassette
@pytest.mark.each_switch("label-filter")
def test_promotion_archives_the_others(registry: RegistryClient, model: str, wait_for_lists: WaitForLists) -> None:
    """With archive_existing the version takes the place of whatever was in the stage."""
    registry.set_stage(model, 1, Stage.PRODUCTION)
    registry.set_stage(model, 2, Stage.PRODUCTION)
    wait_for_lists()
    promoted = registry.set_stage(model, 3, Stage.PRODUCTION, archive_existing=True)
    wait_for_lists()

    assert promoted.stage is Stage.PRODUCTION
    assert stages(registry, model) == ["Archived", "Archived", "Production"]
    assert registry.latest_version(model, stage=Stage.PRODUCTION) == promoted


def test_promotion_without_archiving(registry: RegistryClient, model: str) -> None:
    """Without archive_existing, the others stay in the stage."""
    registry.set_stage(model, 1, Stage.PRODUCTION)
    registry.set_stage(model, 2, Stage.PRODUCTION)

    assert stages(registry, model) == ["Production", "Production", "None"]


def test_an_old_version_is_promoted_again(registry: RegistryClient, model: str, wait_for_lists: WaitForLists) -> None:
    """Promoting a version that's already in the stage makes it the latest promotion."""
    registry.set_stage(model, 1, Stage.PRODUCTION)
    registry.set_stage(model, 2, Stage.PRODUCTION)
    wait_for_lists()
    promoted = registry.set_stage(model, 1, Stage.PRODUCTION, archive_existing=True)

    assert promoted.stage is Stage.PRODUCTION
    assert stages(registry, model) == ["Production", "Archived", "None"]


@pytest.mark.each_switch("labels-at-upload")
def test_registering_into_a_stage(
    registry: RegistryClient, model: str, source: NewSource, wait_for_lists: WaitForLists
) -> None:
    """A version can be registered into a stage, and archive what's in it."""
    registry.set_stage(model, 1, Stage.PRODUCTION)
    wait_for_lists()
    made = registry.register_version(model, source(), stage=Stage.PRODUCTION, archive_existing=True)

    assert (made.version, made.stage) == ("4", Stage.PRODUCTION)
    assert stages(registry, model) == ["Archived", "None", "None"]


def test_a_clock_that_runs_ahead(connect: Connect, model: str, wait_for_lists: WaitForLists) -> None:
    """A later promotion wins even if its client's clock is slow."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    fast, slow = connect(now=lambda: now + dt.timedelta(hours=1)), connect(now=lambda: now)
    fast.set_stage(model, 1, Stage.PRODUCTION, archive_existing=True)
    wait_for_lists()
    slow.set_stage(model, 2, Stage.PRODUCTION, archive_existing=True)

    assert stages(slow, model) == ["Archived", "Production", "None"]


MOMENTS = [dt.datetime(2026, 1, day, 12, 30, 15, 123456, tzinfo=dt.UTC) for day in range(1, 9)]
ANN = "Ann <ann@example.com>"


def test_a_change_has_its_time_and_its_author(connect: Connect, model: str) -> None:
    """A version shows when its stage changed and who changed it. Setting the same stage again changes neither."""
    clock = iter(MOMENTS)
    ann, bob = connect(actor=ANN, now=lambda: next(clock)), connect(now=lambda: next(clock))
    assert ann.get_version(model, 1).stage_changed_at is None

    first = ann.set_stage(model, 1, Stage.STAGING)
    again = ann.set_stage(model, 1, Stage.STAGING)
    second = bob.set_stage(model, 1, Stage.PRODUCTION)
    assert (first.stage_changed_at, first.stage_changed_by) == (MOMENTS[0], ANN)
    assert (again.stage_changed_at, again.stage_changed_by) == (MOMENTS[0], ANN)
    assert (second.stage_changed_at, second.stage_changed_by) == (MOMENTS[1], None)


def test_the_history_has_times_and_authors(connect: Connect, model: str, wait_for_lists: WaitForLists) -> None:
    """The history shows each change with its time and author. Writing the same stage again adds nothing."""
    clock = iter(MOMENTS)
    ann, bob = connect(actor=ANN, now=lambda: next(clock)), connect(now=lambda: next(clock))
    ann.set_stage(model, 1, Stage.STAGING)
    ann.set_stage(model, 1, Stage.STAGING)
    bob.set_stage(model, 1, Stage.PRODUCTION)
    ann.update_version(model, 2, stage="archived")
    wait_for_lists()

    history = ann.stage_history(model)
    assert [(change.version, change.stage, change.changed_at, change.changed_by) for change in history] == [
        ("2", Stage.ARCHIVED, MOMENTS[2], ANN),
        ("1", Stage.PRODUCTION, MOMENTS[1], None),
        ("1", Stage.STAGING, MOMENTS[0].replace(microsecond=0), ANN),
    ]


@pytest.mark.each_switch("labels-at-upload", "label-wins", "label-filter")
def test_a_label_of_the_models_never_shows_as_a_stage(
    registry: RegistryClient, vertex: ModelServiceClient, name: NewName, source: NewSource
) -> None:
    """A stage label on the model never shows as a version's stage, or an error says that it hides it."""
    model = name()
    made = [registry.register_version(model, source()) for _ in range(2)]
    label_model(vertex, made[0].model_resource_name, {"stage": "archived"})

    try:
        registry.set_stage(model, 2, Stage.PRODUCTION)
    except ConflictError as conflict:
        assert "'stage'" in str(conflict)
        registry.update_model(model, labels={})
        assert stages_of(registry, model, 2) == ["None", "Production"]
    else:
        assert stages_of(registry, model, 2) == ["None", "Production"]


@pytest.mark.each_switch("labels-at-upload", "label-filter")
def test_a_stage_on_one_version_never_shows_on_another(registry: RegistryClient, model: str) -> None:
    """A stage that's written on version 2 only shows on version 2."""
    registry.set_stage(model, 2, Stage.PRODUCTION)

    assert stages(registry, model) == ["None", "Production", "None"]


@pytest.mark.each_switch("label-filter")
def test_foreign_values(registry: RegistryClient, vertex: ModelServiceClient, model: str) -> None:
    """An unknown stage label reads as no stage, and can be changed."""
    version = registry.get_version(model, 1)
    vertex.update_model(
        model=Model(name=version.resource_name, labels={"stage": "canary"}), update_mask=FieldMask(paths=["labels"])
    )

    assert registry.get_version(model, 1).stage is Stage.NONE
    assert registry.set_stage(model, 1, Stage.STAGING).stage is Stage.STAGING


@pytest.mark.no_switches
def test_stages_without_archiving(registry: RegistryClient, model: str) -> None:
    """``archive_existing`` only works with Staging and Production."""
    for stage in (Stage.NONE, Stage.ARCHIVED):
        with pytest.raises(InvalidArgumentError, match="archive_existing"):
            registry.set_stage(model, 1, stage, archive_existing=True)


def stages_of(registry: RegistryClient, model: str, count: int) -> list[str]:
    return [str(registry.get_version(model, version).stage) for version in range(1, count + 1)]


def label_model(vertex: ModelServiceClient, resource: str, labels: dict[str, str]) -> None:
    """Write labels to the model itself, like another tool."""
    vertex.update_model(model=Model(name=resource, labels=labels), update_mask=FieldMask(paths=["labels"]))
