"""Which version was in a stage, and when."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf import field_mask_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vertex_registry import (
    ConflictError,
    HistoryUnknownError,
    InvalidArgumentError,
    NotFoundError,
    RegistryClient,
    Retry,
    Stage,
    _history,
)
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, WaitForLists
    from vertex_registry import ModelVersion

pytestmark = pytest.mark.switches_together


# Google stops serving its own images long before these clocks begin.
IMAGE = "us-docker.pkg.dev/acme/serving/churn:1"

PRODUCTION, ARCHIVED = Stage.PRODUCTION, Stage.ARCHIVED


class CountedTime:
    """A clock that moves an hour each time it's read."""

    def __init__(self) -> None:
        self.time = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)  # later than any version is created

    def __call__(self) -> dt.datetime:
        self.time += dt.timedelta(hours=1)
        return self.time


def register(registry: RegistryClient, name: str, count: int) -> None:
    for number in range(count):
        registry.register_version(name, f"gs://models/{name}/{number}")


def promote(registry: RegistryClient, name: str, version: int) -> dt.datetime:
    """Put a version in Production, archive the others, and return when it entered."""
    promoted = registry.set_stage(name, version, PRODUCTION, archive_existing=True)
    assert promoted.stage_changed_at is not None
    return promoted.stage_changed_at


def number(version: ModelVersion | None) -> str | None:
    return None if version is None else version.version


def test_rolling_back_puts_back_what_was_there_before(
    registry: RegistryClient, name: NewName, wait_for_lists: WaitForLists
) -> None:
    """Rolling back restores the predecessor in the stage, whatever was archived last."""
    churn = name()
    register(registry, churn, 3)
    for version in (2, 3, 1):
        promote(registry, churn, version)
    registry.set_stage(churn, 2, ARCHIVED)
    wait_for_lists()
    done = registry.rollback(churn)
    wait_for_lists()
    assert (done.restored.version, done.replaced.version, done.stage) == ("3", "1", PRODUCTION)
    assert registry.get_version(churn, stage="production").version == "3"
    assert registry.get_version(churn, 1).stage is ARCHIVED
    assert str(done) == f"{churn}: version 3 is back in Production, version 1 is archived"


def test_rolling_back_twice_goes_back_two_steps(
    registry: RegistryClient, name: NewName, wait_for_lists: WaitForLists
) -> None:
    """A second rollback goes back one more step. For a third, there's no earlier version."""
    churn = name()
    register(registry, churn, 3)
    for version in (1, 2, 3):
        promote(registry, churn, version)
    for restored in ("2", "1"):
        wait_for_lists()
        assert registry.rollback(churn).restored.version == restored
    wait_for_lists()
    with pytest.raises(NotFoundError, match="Nothing was in Production before version 1"):
        registry.rollback(churn)


@pytest.mark.no_switches
def test_promoting_an_old_version_is_a_step_like_any_other(registry: RegistryClient, name: NewName) -> None:
    """After 1, 2, 3 and 1 again, rolling back restores 3, then 2, then 1: what was in the stage before each entry."""
    churn = name()
    register(registry, churn, 3)
    for version in (1, 2, 3, 1):
        promote(registry, churn, version)
    assert [registry.rollback(churn).restored.version for _ in range(3)] == ["3", "2", "1"]
    with pytest.raises(NotFoundError, match="Nothing was in Production before version 1"):
        registry.rollback(churn)
    promote(registry, churn, 3)
    promote(registry, churn, 1)
    assert [registry.rollback(churn).restored.version for _ in range(2)] == ["3", "1"]


@pytest.mark.no_switches
@pytest.mark.parametrize(
    ("steps", "right"),
    [
        ("2 1 -1 1", "2"),
        ("1 -1 1", None),
        ("1 -1 2", "1"),
        ("2 1 3 < -1 1", "2"),
        ("1 3 < -1 1", None),
        ("1 2 3 < < -1 1", None),
        ("+1 +2 -2", None),
        ("+1 +2 -1 -2 3", "2"),
        ("+2 +1 3 < 3", "1"),
    ],
)
def test_what_a_rollback_goes_back_to(registry: RegistryClient, name: NewName, steps: str, right: str | None) -> None:
    """An empty stage isn't a step, and what a rollback took off doesn't come back.

    Promotions are numbers, `+` adds a version beside the others, `-` archives one, and `<` is a rollback.
    """
    churn = name()
    register(registry, churn, 3)
    for step in steps.split():
        match step[0]:
            case "<":
                registry.rollback(churn)
            case "+":
                registry.set_stage(churn, step[1:], PRODUCTION)
            case "-":
                registry.set_stage(churn, step[1:], ARCHIVED)
            case _:
                promote(registry, churn, int(step))
    if right is None:
        with pytest.raises(NotFoundError, match="Nothing was in Production before"):
            registry.rollback(churn)
    else:
        assert registry.rollback(churn).restored.version == right


@pytest.mark.no_switches
@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(2026, 3, 1),  # noqa: DTZ001  # the mistake
        dt.date(2026, 3, 1),
        1_772_323_200,
        None,
        dt.datetime(1969, 12, 31, 23, 59, tzinfo=dt.UTC),
        dt.datetime(1970, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.datetime(9999, 1, 1, tzinfo=dt.UTC),
    ],
)
def test_a_clock_that_is_none_is_refused(connect: Connect, name: NewName, moment: Any) -> None:
    """A naive time, another type or a year that a history can't store is an error, and nothing is written."""
    now: list[Any] = [dt.datetime(2100, 1, 1, tzinfo=dt.UTC)]
    registry, churn = connect(default_image=IMAGE, now=lambda: now[0]), name()
    register(registry, churn, 1)
    before = registry.get_version(churn)
    now[0] = moment
    uses: list[Callable[[], object]] = [
        lambda: registry.set_stage(churn, 1, PRODUCTION),
        lambda: registry.set_stage(churn, 1, PRODUCTION, archive_existing=True),
        lambda: registry.version_at(churn, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        lambda: registry.register_version(churn, "gs://models/churn/2"),
    ]
    for use in uses:
        with pytest.raises(InvalidArgumentError, match="The function now returned"):
            use()
    assert list(registry.list_versions(churn)) == [before]


@pytest.mark.no_switches
def test_a_clock_in_any_zone_and_at_the_epoch(connect: Connect, name: NewName) -> None:
    """A clock may have any time zone. It may even start in 1970, like a machine whose clock was never set."""
    zone = dt.timezone(dt.timedelta(hours=-7))
    ticks = iter(range(100))
    start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC).astimezone(zone) + dt.timedelta(hours=7)
    registry, churn = connect(default_image=IMAGE, now=lambda: start + dt.timedelta(hours=next(ticks))), name()
    register(registry, churn, 2)
    entered = [promote(registry, churn, version) for version in (1, 2)]
    assert number(registry.version_at(churn, entered[0])) == "1"
    assert number(registry.version_at(churn, entered[1])) == "2"
    assert registry.rollback(churn).restored.version == "1"


@pytest.mark.no_switches
def test_an_id_that_is_no_text_is_refused(connect: Connect, name: NewName) -> None:
    """A function for IDs that returns something else is an error that names it."""
    for wrong in (5, "", None):
        with pytest.raises(InvalidArgumentError, match="the ID that new_id returned"):
            connect(new_id=lambda wrong=wrong: wrong).register_version(name(), "gs://models/churn/1")


@pytest.mark.no_switches
def test_rolling_back_never_empties_another_stage(registry: RegistryClient, name: NewName) -> None:
    """A version that moved on from Staging to Production isn't taken out of Production."""
    churn = name()
    register(registry, churn, 2)
    registry.set_stage(churn, 1, Stage.STAGING)
    registry.set_stage(churn, 1, PRODUCTION)
    registry.set_stage(churn, 2, Stage.STAGING)
    with pytest.raises(ConflictError, match="it's in Production now"):
        registry.rollback(churn, stage=Stage.STAGING)
    assert registry.get_version(churn, stage=PRODUCTION).version == "1"
    assert registry.get_version(churn, stage=Stage.STAGING).version == "2"


@pytest.mark.no_switches
def test_the_time_before_the_model_is_not_known(registry: RegistryClient, name: NewName) -> None:
    """A deleted model's history is gone. For a later model with the same name, that time is unknown."""
    churn = name()
    register(registry, churn, 1)
    created = registry.get_version(churn, 1).created_at
    assert created is not None
    assert registry.version_at(churn, created) is None
    for before in (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), created - dt.timedelta(microseconds=1)):
        with pytest.raises(HistoryUnknownError, match="its history was deleted"):
            registry.version_at(churn, before)


@pytest.mark.no_switches
def test_a_stage_of_a_model_that_was_deleted(registry: RegistryClient, name: NewName) -> None:
    """When a model is deleted and registered again at once, what was in Production before isn't known."""
    churn = name()
    register(registry, churn, 1)
    registry.set_stage(churn, 1, Stage.PRODUCTION)
    (change,) = registry.stage_history(churn)
    registry.delete_model(churn)
    register(registry, churn, 1)
    with pytest.raises(HistoryUnknownError, match="its history was deleted"):
        registry.version_at(churn, change.changed_at)


def test_rolling_back_an_empty_stage(registry: RegistryClient, name: NewName) -> None:
    """If the stage is empty, there's nothing to roll back."""
    churn = name()
    register(registry, churn, 1)
    with pytest.raises(NotFoundError, match="nothing to roll back"):
        registry.rollback(churn)
    with pytest.raises(InvalidArgumentError, match="You can roll back Staging and Production, not Archived"):
        registry.rollback(churn, stage=ARCHIVED)


@pytest.mark.no_switches
def test_a_rollback_that_was_cut_off_is_finished(registry: RegistryClient, emulator: Emulator, name: NewName) -> None:
    """A rollback that's killed between its two steps leaves no empty stage. Running it again finishes it."""
    churn = name()
    register(registry, churn, 3)
    for version in (1, 2, 3):
        promote(registry, churn, version)
    emulator.fail("UpdateModel", delay=0.001)  # the predecessor enters the stage
    emulator.fail("UpdateModel", "PERMISSION_DENIED")  # and the current version can't leave it
    with pytest.raises(PermissionError):
        registry.rollback(churn)
    assert {version.version for version in registry.list_versions(churn, stage=PRODUCTION)} == {"2", "3"}
    done = registry.rollback(churn)
    assert (done.restored.version, done.replaced.version) == ("2", "3")
    assert [version.version for version in registry.list_versions(churn, stage=PRODUCTION)] == ["2"]


@pytest.mark.no_switches
def test_what_was_in_production(connect: Connect, name: NewName) -> None:
    """At any time between two promotions, the answer is the version that was promoted last."""
    registry = connect(default_image=IMAGE, now=CountedTime(), actor="ann@example.com")
    churn = name()
    register(registry, churn, 3)
    entered = [promote(registry, churn, version) for version in (1, 2, 3)]
    second = dt.timedelta(seconds=1)
    assert registry.version_at(churn, entered[0] - second) is None
    assert [number(registry.version_at(churn, moment)) for moment in entered] == ["1", "2", "3"]
    assert [number(registry.version_at(churn, moment - second)) for moment in entered[1:]] == ["1", "2"]
    registry.rollback(churn)
    assert number(registry.version_at(churn, entered[2])) == "3"
    history = registry.stage_history(churn)
    assert history.complete
    assert len(history) == 7
    assert {change.changed_by for change in history} == {"ann@example.com"}
    assert [change.stage for change in registry.stage_history(churn, 2)] == [PRODUCTION, ARCHIVED, PRODUCTION]


@pytest.mark.no_switches
def test_a_second_that_a_change_was_cut_to_is_not_guessed(connect: Connect, name: NewName) -> None:
    """If a change's time is only known to the second, it's unknown what was true within that second."""
    time = CountedTime()
    time.time += dt.timedelta(milliseconds=900)
    registry = connect(default_image=IMAGE, now=time)
    churn = name()
    register(registry, churn, 2)
    entered = [promote(registry, churn, version) for version in (1, 2)]
    registry.set_stage(churn, 1, Stage.STAGING)
    registry.set_stage(churn, 2, ARCHIVED)
    for moment in entered:
        with pytest.raises(HistoryUnknownError, match=r"may have been in Production .* in that second"):
            registry.version_at(churn, moment - dt.timedelta(milliseconds=800))
    shown = [moment.replace(microsecond=0) for moment in entered]
    assert [number(registry.version_at(churn, moment)) for moment in shown] == ["1", "2"]
    assert registry.version_at(churn, shown[0] - dt.timedelta(microseconds=1)) is None
    assert number(registry.version_at(churn, shown[1] - dt.timedelta(microseconds=1))) == "1"
    later = entered[1] - dt.timedelta(milliseconds=800)
    assert registry.version_at(churn, later, stage=Stage.STAGING) is None


@pytest.mark.no_switches
def test_a_time_without_a_zone_and_the_future_are_refused(registry: RegistryClient, name: NewName) -> None:
    """A naive time, a date and a string are refused, and so is the future."""
    churn = name()
    register(registry, churn, 1)
    mistakes: list[Any] = [dt.datetime(2026, 3, 1), dt.date(2026, 3, 1), "2026-03-01"]  # noqa: DTZ001  # the mistake
    for when in mistakes:
        with pytest.raises(InvalidArgumentError, match="isn't a datetime with a time zone"):
            registry.version_at(churn, when)
    missing: Any = None
    with pytest.raises(InvalidArgumentError, match="when is missing"):
        registry.version_at(churn, missing)
    with pytest.raises(InvalidArgumentError, match="is in the future"):
        registry.version_at(churn, dt.datetime.now(dt.UTC) + dt.timedelta(days=1))


@pytest.mark.no_switches
def test_a_deleted_version_leaves_a_gap_in_what_is_known(connect: Connect, name: NewName) -> None:
    """If the version in Production is deleted, its time becomes unknown. Other times stay known."""
    registry = connect(default_image=IMAGE, now=CountedTime())
    churn = name()
    register(registry, churn, 3)
    entered = [promote(registry, churn, version) for version in (1, 2, 3)]
    registry.delete_version(churn, 2)
    assert number(registry.version_at(churn, entered[0])) == "1"
    assert number(registry.version_at(churn, entered[2])) == "3"
    with pytest.raises(HistoryUnknownError, match="Version 2 was deleted"):
        registry.version_at(churn, entered[2] - dt.timedelta(seconds=1))
    with pytest.raises(HistoryUnknownError, match=r"Version 2 was deleted.*Choose a version .* with set_stage\(\)"):
        registry.rollback(churn)


@pytest.mark.no_switches
def test_the_newest_version_leaves_a_gap_too(connect: Connect, name: NewName) -> None:
    """If the newest version was alone in Production and is deleted, the stage isn't reported as empty."""
    registry = connect(default_image=IMAGE, now=CountedTime())
    churn = name()
    register(registry, churn, 3)
    entered = promote(registry, churn, 3)
    registry.delete_version(churn, 3)
    with pytest.raises(HistoryUnknownError, match="Version 3 was deleted"):
        registry.version_at(churn, entered)
    registry.delete_version(churn, 2)
    with pytest.raises(HistoryUnknownError, match="was deleted"):
        registry.version_at(churn, entered)


@pytest.mark.no_switches
def test_a_stage_that_another_tool_changed_is_not_guessed(
    connect: Connect, vertex: ModelServiceClient, name: NewName
) -> None:
    """If another tool changed the label, the time since the last known change is unknown."""
    registry = connect(default_image=IMAGE, now=CountedTime())
    churn = name()
    register(registry, churn, 2)
    entered = promote(registry, churn, 1)
    version = registry.get_version(churn, 1)
    labels = {**version.labels, "stage": "archived"}
    mask = field_mask_pb2.FieldMask(paths=["labels"])
    vertex.update_model(model=Model(name=version.resource_name, labels=labels), update_mask=mask)
    with pytest.raises(HistoryUnknownError, match="another tool"):
        registry.version_at(churn, entered + dt.timedelta(minutes=1))
    assert not registry.stage_history(churn).complete


@pytest.mark.no_switches
def test_dropped_changes_are_reported(connect: Connect, name: NewName) -> None:
    """A version keeps at least its latest 12 changes, and reports that older ones were dropped."""
    registry = connect(default_image=IMAGE, now=CountedTime())
    churn = name()
    register(registry, churn, 1)
    for turn in range(60):
        registry.set_stage(churn, 1, (Stage.STAGING, PRODUCTION)[turn % 2])
    history = registry.stage_history(churn)
    assert len(history) >= 12
    assert not history.complete
    with pytest.raises(HistoryUnknownError, match="doesn't go back that far"):
        registry.version_at(churn, history[-1].changed_at - dt.timedelta(hours=3))


@pytest.mark.each_switch("label-filter", "label-wins")
@pytest.mark.only("grpc", "label-filter=own", "label-wins=model")
def test_the_history_of_many_versions_is_the_same(connect: Connect, vertex: ModelServiceClient, name: NewName) -> None:
    """With many versions the client reads only those with a history, and answers as if it had read all of them."""
    registry = connect(default_image=IMAGE, now=CountedTime())
    churn = name()
    first = registry.register_version(churn, "gs://models/churn/1")
    another = Model(
        display_name=churn, artifact_uri="gs://models/churn/2", container_spec={"image_uri": IMAGE},
        labels={"stage": "none"},
    )  # fmt: skip
    parent = first.resource_name.partition("/models/")[0]
    for _ in range(110):
        vertex.upload_model({"parent": parent, "parent_model": first.model_resource_name, "model": another})
    moments = [promote(registry, churn, number) for number in (2, 1, 5)]
    registry.delete_version(churn, 3)

    def answers() -> list[str | None]:
        """Return the registry's answer, and check that all versions together give the same."""
        found: list[str | None] = []
        every = list(registry.list_versions(churn))
        assert len(every) == 110
        for moment in (moments[0] - dt.timedelta(hours=1), *(at + dt.timedelta(minutes=1) for at in moments)):
            said = []
            for ask in (registry.version_at, lambda _, when: _history.version_at(every, when, PRODUCTION)):
                try:
                    said.append(number(ask(churn, moment)))
                except HistoryUnknownError as unknown:
                    said.append(str(unknown))
            assert said[0] == said[1]
            found.append(said[0])
        assert registry.stage_history(churn) == _history.stage_history(every)
        return found

    before, *after = answers()
    assert before is not None
    assert "Version 3 was deleted" in before
    assert after == ["2", "1", "5"]

    def label(version: int, labels: dict[str, str]) -> None:
        name = f"{first.model_resource_name}@{version}"
        vertex.update_model(
            model=Model(name=name, labels=labels), update_mask=field_mask_pb2.FieldMask(paths=["labels"])
        )

    label(9, {"stage": "archived"})  # another tool, at an unknown time
    assert "Version 9 may have been in Production" in str(answers())
    label(9, {"stage": "none"})
    kept = registry.get_version(churn, 2).labels
    label(2, {key: kept[key] for key in kept if key not in {"stage", "vr-stage-changed-at"}})
    assert "Version 2 may have been in Production" in str(answers())


@pytest.mark.each_switch("label-filter", "list-lag")
def test_a_version_by_its_stage(registry: RegistryClient, name: NewName, wait_for_lists: WaitForLists) -> None:
    """You can read a version by its stage, and pass a ModelVersion in place of its number."""
    churn = name()
    register(registry, churn, 2)
    registry.set_stage(churn, 1, Stage.STAGING)
    wait_for_lists()
    staged = registry.get_version(churn, stage=Stage.STAGING)
    assert staged.version == "1"
    promoted = registry.set_stage(churn, staged, PRODUCTION, make_default=True)
    assert promoted.is_default
    assert registry.get_version(churn).version == "1"
    assert registry.get_version(churn, promoted) == promoted
    wait_for_lists()
    with pytest.raises(NotFoundError, match="no version in Staging"):
        registry.get_version(churn, stage=Stage.STAGING)
    with pytest.raises(InvalidArgumentError, match="one of"):
        registry.get_version(churn, 1, stage=Stage.STAGING)
    other = name()
    register(registry, other, 1)
    with pytest.raises(InvalidArgumentError, match="not of"):
        registry.set_stage(other, promoted, Stage.STAGING)


@pytest.mark.no_switches
def test_old_versions_are_pruned(registry: RegistryClient, name: NewName) -> None:
    """Pruning deletes old versions that nothing uses, and says why it keeps the others."""
    churn = name()
    register(registry, churn, 6)
    registry.set_stage(churn, 2, PRODUCTION)
    registry.add_aliases(churn, 3, ["champion"])
    plan = registry.prune(churn, keep=2, dry_run=True)
    assert [version.version for version in plan.deleted] == ["1", "4"]
    assert plan.kept == {
        "6": "among the newest 2",
        "5": "among the newest 2",
        "3": "has the alias 'champion'",
        "2": "in Production",
    }
    assert len(list(registry.list_versions(churn))) == 6
    done = registry.prune(churn, keep=2)
    assert (done.deleted, done.kept) == (plan.deleted, plan.kept)
    assert [version.version for version in registry.list_versions(churn)] == ["6", "5", "3", "2"]
    assert str(done) == "deleted: 1, 4; kept: 4"
    for wrong in (0, -1, True, 2.0):
        with pytest.raises(InvalidArgumentError, match="keep="):
            registry.prune(churn, keep=wrong)  # type: ignore[arg-type]  # that's the mistake


@pytest.mark.emulator_only("nothing is deployed to Vertex AI in a test")
@pytest.mark.no_switches
def test_a_deployed_version_is_not_pruned(registry: RegistryClient, emulator: Emulator, name: NewName) -> None:
    """A version that's deployed stays, with the number of its endpoints as the reason, until it's undeployed."""
    churn = name()
    register(registry, churn, 4)
    version = registry.get_version(churn, 1)
    endpoints = [emulator.deploy(version.resource_name)[-1] for _ in range(2)]
    emulator.deploy(registry.get_version(churn, 2).resource_name)
    assert registry.get_version(churn, 1).deployed_to == tuple(endpoints)

    plan = registry.prune(churn, keep=1, dry_run=True)
    done = registry.prune(churn, keep=1)
    assert [version.version for version in done.deleted] == [version.version for version in plan.deleted] == ["3"]
    assert (
        done.kept
        == plan.kept
        == {"4": "among the newest 1", "2": "deployed to 1 endpoint", "1": "deployed to 2 endpoints"}
    )

    emulator.undeploy(version.resource_name)
    assert [version.version for version in registry.prune(churn, keep=1).deleted] == ["1"]


@pytest.mark.emulator_only("nothing is deployed to Vertex AI in a test")
@pytest.mark.no_switches
def test_a_version_that_is_deployed_while_it_is_pruned(connect: Connect, emulator: Emulator, name: NewName) -> None:
    """A version that comes into use between the read and the deletion is kept. The others are pruned."""
    churn = name()

    def deploy(_: float) -> None:
        if not somebody.get_version(churn, 2).deployed_to:
            emulator.deploy(somebody.get_version(churn, 2).resource_name)

    registry, somebody = connect(retry=Retry(sleep=deploy)), connect()
    register(registry, churn, 4)
    emulator.fail("DeleteModelVersion", delay=0.0001)
    emulator.fail("DeleteModelVersion", "UNAVAILABLE")
    done = registry.prune(churn, keep=1)
    assert [version.version for version in done.deleted] == ["1", "3"]
    assert done.kept == {"4": "among the newest 1", "2": "deployed to 1 endpoint"}


@pytest.mark.emulator_only("nothing is deployed to Vertex AI in a test")
@pytest.mark.each_switch("default-delete")
def test_a_deployed_version_is_not_deleted(
    registry: RegistryClient, emulator: Emulator, name: NewName, wait_for_lists: WaitForLists
) -> None:
    """Neither the version nor its model is deleted. The error names the endpoint, and no alias has moved."""
    churn = name()
    register(registry, churn, 1)
    endpoint = f"{registry.get_version(churn).model_resource_name.rpartition('/models/')[0]}/endpoints/7"
    emulator.deploy(registry.get_version(churn).resource_name, endpoint)
    expected = f"because version 1 is deployed to {endpoint}. Undeploy it there first"
    for count in (1, 2):  # first the only version, then the default one
        wait_for_lists()
        before = registry.get_version(churn)
        deletions: list[Callable[[], object]] = [
            lambda: registry.delete_version(churn, 1),
            lambda: registry.delete_model(churn),
        ]
        for delete in deletions:
            with pytest.raises(ConflictError) as error:
                delete()
            assert expected in str(error.value)
            assert error.value.code == "FAILED_PRECONDITION"
        assert registry.get_version(churn) == before
        if count == 1:
            registry.register_version(churn, f"gs://models/{churn}/2", make_default=False)
    emulator.undeploy(registry.get_version(churn, 1).resource_name, endpoint)
    registry.delete_version(churn, 1)
    assert registry.get_version(churn).version == "2"


@pytest.mark.no_switches
def test_the_best_version(registry: RegistryClient, name: NewName) -> None:
    """The best version has the best number; text, booleans and missing values don't count."""
    churn = name()
    for metadata in ({"auc": 0.9}, {"auc": 0.95}, {"auc": "high"}, {"auc": True}, {}, {"auc": 0.95, "loss": 3}):
        registry.register_version(churn, "gs://models/churn/1", metadata=metadata)
    assert registry.best_version(churn, "auc").version == "6"
    assert registry.best_version(churn, "auc", direction="min").version == "1"
    registry.set_stage(churn, 2, Stage.STAGING)
    assert registry.best_version(churn, "auc", stage=Stage.STAGING).version == "2"
    with pytest.raises(NotFoundError, match="'f1'"):
        registry.best_version(churn, "f1")
    mistake: Any
    for mistake in ("up", ["max"], None):
        with pytest.raises(InvalidArgumentError, match="direction=.* isn't 'max' or 'min'"):
            registry.best_version(churn, "auc", direction=mistake)


@pytest.mark.no_switches
def test_the_difference_between_two_versions(registry: RegistryClient, name: NewName) -> None:
    """The difference names the fields and the metadata keys that differ, with both values."""
    churn = name()
    registry.register_version(churn, "gs://models/churn/1", metadata={"auc": 0.9, "team": "growth"})
    registry.register_version(churn, "gs://models/churn/2", metadata={"auc": 0.95, "team": "growth", "n": None})
    diff = registry.diff(churn, 1, 2)
    assert diff.changes["metadata.auc"] == (0.9, 0.95)
    assert diff.changes["metadata.n"] == (None, None)
    assert diff.changes["artifact_uri"] == ("gs://models/churn/1", "gs://models/churn/2")
    assert "metadata.team" not in diff.changes
    assert "metadata.auc: 0.9 -> 0.95" in str(diff)
    assert not registry.diff(churn, 1, 1)
    assert str(registry.diff(churn, 1, 1)).endswith("no difference")


class Entry(NamedTuple):
    """A version's entry into the stage, and the entries of the versions that were in it before, the latest last."""

    version: int
    before: tuple[Entry, ...]


class Played:
    """A registry whose stages change one by one, and a record of the truth."""

    def __init__(self, registry: RegistryClient, time: CountedTime) -> None:
        self.registry = registry
        self.time = time
        self.name = f"churn-{uuid.uuid4()}"
        self.versions = [1, 2]
        self.deleted = False
        self.claims: dict[int, dt.datetime] = {}
        self.entries: dict[int, Entry] = {}
        self.last: tuple[Entry, ...] = ()
        self.past: list[tuple[dt.datetime, dict[int, dt.datetime], set[int]]] = []
        register(registry, self.name, 2)

    def play(self, verb: str, choice: int) -> None:
        getattr(self, verb)(self.versions[choice % len(self.versions)])

    def note(self, moment: dt.datetime | None, leaving: Iterable[int] = ()) -> None:
        """Record who is in Production after a change, which may have changed nothing, and who leaves it."""
        assert moment is not None
        for when, still in ((moment, set(leaving)), (self.time(), set())):
            if not self.past or when > self.past[-1][0]:
                self.past.append((when, dict(self.claims), still))

    def present(self) -> tuple[Entry, ...]:
        """Return the entries of those in the stage, or of those that were in it last; the latest last."""
        return tuple(self.entries[one] for one in sorted(self.claims, key=lambda one: self.claims[one])) or self.last

    def enter(self, version: int, claimed: dt.datetime | None, *, alone: bool, entry: Entry | None = None) -> None:
        """Let a version enter the stage at a time, unless it claimed it then already."""
        assert claimed is not None
        if self.claims.get(version) != claimed:
            self.entries[version] = entry or Entry(version, others(self.present(), version))
            self.claims[version] = claimed
        leaving = self.claims.keys() - {version} if alone else set()
        for one in leaving:
            del self.claims[one]
        self.note(claimed, leaving)

    def leave(self, version: int) -> None:
        self.last = self.present()
        self.claims.pop(version, None)

    def register(self, _version: int) -> None:
        self.versions.append(int(self.registry.register_version(self.name, "gs://models/churn").version))

    def register_in_production(self, _version: int) -> None:
        made = self.registry.register_version(self.name, "gs://models/churn", stage=PRODUCTION, archive_existing=True)
        self.versions.append(int(made.version))
        self.enter(int(made.version), made.stage_changed_at, alone=True)

    def delete(self, version: int) -> None:
        if len(self.versions) > 1:
            self.deleted = True
            self.registry.delete_version(self.name, version)
            self.versions.remove(version)
            self.note(self.time())
            self.leave(version)
            self.note(self.time())

    def promote(self, version: int) -> None:
        self.enter(version, promote(self.registry, self.name, version), alone=True)

    def add(self, version: int) -> None:
        self.enter(version, self.registry.set_stage(self.name, version, PRODUCTION).stage_changed_at, alone=False)

    def archive(self, version: int) -> None:
        self.leave(version)
        self.note(self.registry.set_stage(self.name, version, ARCHIVED).stage_changed_at)

    def stage(self, version: int) -> None:
        self.leave(version)
        self.note(self.registry.set_stage(self.name, version, Stage.STAGING).stage_changed_at)

    def roll_back(self, _version: int) -> None:
        """Roll back. What is right is what was in the stage just before the current version entered."""
        current = max(self.claims, key=lambda one: self.claims[one], default=None)
        before = () if current is None else self.entries[current].before
        right = [entry for entry in before if entry.version in self.versions]
        try:
            done = self.registry.rollback(self.name)
        except NotFoundError:
            assert not before
        except HistoryUnknownError:
            assert self.deleted, "everything is remembered"
        except ConflictError:
            assert self.registry.get_version(self.name, right[-1].version).stage is Stage.STAGING
        else:
            assert (int(done.restored.version), int(done.replaced.version)) == (right[-1].version, current)
            self.enter(right[-1].version, done.restored.stage_changed_at, alone=True, entry=right[-1])

    def check(self, when: dt.datetime) -> None:
        """Check the answer for a time; of the versions that still exist, the one that entered last is right."""
        _, claims, leaving = next((then for then in reversed(self.past) if then[0] <= when), (when, {}, set()))
        existing = {version for version in claims if version in self.versions}
        try:
            answer = self.registry.version_at(self.name, when)
        except HistoryUnknownError:
            assert self.deleted, "everything is remembered"
            return
        if answer is None:
            assert not claims, "some version was in the stage, and may be deleted"
        elif existing:
            assert int(answer.version) == max(existing, key=lambda version: claims[version])
        else:
            assert int(answer.version) in leaving


def others(entries: tuple[Entry, ...], version: int) -> tuple[Entry, ...]:
    """Return the entries of other versions. If there are none, return those that were in the stage before."""
    found = tuple(entry for entry in entries if entry.version != version)
    return found or (others(entries[-1].before, version) if entries else ())


VERBS = [
    *["promote", "promote", "promote", "roll_back", "roll_back", "roll_back"],
    *["add", "archive", "stage", "delete", "register", "register_in_production"],
]
STEPS = st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 5)), min_size=8, max_size=30)


@pytest.fixture(scope="module")
def counted() -> Iterator[tuple[RegistryClient, CountedTime]]:
    """A registry with a counted clock, for all examples."""
    time = CountedTime()
    with (
        Emulator(rest_port=None, now=lambda: time.time) as emulator,
        RegistryClient(project="p", endpoint=emulator.grpc, default_image=IMAGE, now=time) as registry,
    ):
        yield registry, time


@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=int(os.environ.get("EXAMPLES", "40")) // 2)
@given(steps=STEPS, seconds=st.lists(st.sampled_from([0, 1, 60, 1800]), min_size=8, max_size=8), data=st.data())
def test_no_answer_is_ever_wrong(
    counted: tuple[RegistryClient, CountedTime],
    steps: list[tuple[str, int]],
    seconds: list[int],
    data: st.DataObject,
) -> None:
    """After any promotions, rollbacks, archivings and deletions, an answer is true, or reported as unknown."""
    played = Played(*counted)
    for verb, choice in steps:
        played.play(verb, choice)
    moments = [moment for moment, *_ in played.past]
    for later in seconds if moments else ():
        played.check(data.draw(st.sampled_from(moments)) + dt.timedelta(seconds=later))
