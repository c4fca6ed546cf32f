"""What was in a stage, and when."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf import field_mask_pb2
from hypothesis import given
from hypothesis import strategies as st

from vertex_registry import (
    ConflictError,
    HistoryUnknownError,
    InvalidArgumentError,
    NotFoundError,
    RegistryClient,
    Stage,
)
from vertex_registry.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, WaitForLists
    from vertex_registry import ModelVersion


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
    """A second rollback goes back one more step. The third finds no earlier version."""
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
    """A deleted model's history is gone, and a later model of the same name doesn't pretend to know it."""
    churn = name()
    register(registry, churn, 1)
    with pytest.raises(HistoryUnknownError, match="its history was deleted"):
        registry.version_at(churn, dt.datetime(2020, 1, 1, tzinfo=dt.UTC))


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
def test_a_stage_that_another_tool_changed_is_not_guessed(
    connect: Connect, vertex: ModelServiceClient, name: NewName
) -> None:
    """When another tool changed the label, the time since the last known change is in doubt."""
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
    with pytest.raises(InvalidArgumentError, match="direction"):
        registry.best_version(churn, "auc", direction="up")  # type: ignore[arg-type]  # that's the mistake


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


class Played:
    """A registry whose stages change one by one, and a record of the truth."""

    def __init__(self, registry: RegistryClient, time: CountedTime) -> None:
        self.registry = registry
        self.time = time
        self.versions = [1, 2]
        self.claims: dict[int, dt.datetime] = {}
        self.past: list[tuple[dt.datetime, dict[int, dt.datetime], set[int]]] = []
        register(registry, "churn", 2)

    def play(self, verb: str, choice: int) -> None:
        getattr(self, verb)(self.versions[choice % len(self.versions)])

    def note(self, moment: dt.datetime | None, leaving: Iterable[int] = ()) -> None:
        """Record who is in Production after a change, which may have changed nothing, and who leaves it."""
        assert moment is not None
        for when, still in ((moment, set(leaving)), (self.time(), set())):
            if not self.past or when > self.past[-1][0]:
                self.past.append((when, dict(self.claims), still))

    def register(self, _version: int) -> None:
        self.versions.append(int(self.registry.register_version("churn", "gs://models/churn").version))

    def register_in_production(self, _version: int) -> None:
        made = self.registry.register_version("churn", "gs://models/churn", stage=PRODUCTION, archive_existing=True)
        self.versions.append(int(made.version))
        assert made.stage_changed_at is not None
        leaving, self.claims = set(self.claims), {int(made.version): made.stage_changed_at}
        self.note(made.stage_changed_at, leaving)

    def delete(self, version: int) -> None:
        if len(self.versions) > 1:
            self.registry.delete_version("churn", version)
            self.versions.remove(version)
            self.note(self.time())
            self.claims.pop(version, None)
            self.note(self.time())

    def promote(self, version: int) -> None:
        leaving = set(self.claims)
        self.claims = {version: promote(self.registry, "churn", version)}
        self.note(self.claims[version], leaving)

    def add(self, version: int) -> None:
        changed = self.registry.set_stage("churn", version, PRODUCTION)
        assert changed.stage_changed_at is not None
        self.claims[version] = changed.stage_changed_at
        self.note(changed.stage_changed_at)

    def archive(self, version: int) -> None:
        self.claims.pop(version, None)
        self.note(self.registry.set_stage("churn", version, ARCHIVED).stage_changed_at)

    def stage(self, version: int) -> None:
        self.claims.pop(version, None)
        self.note(self.registry.set_stage("churn", version, Stage.STAGING).stage_changed_at)

    def roll_back(self, _version: int) -> None:
        try:
            done = self.registry.rollback("churn")
        except (NotFoundError, HistoryUnknownError):
            return
        assert done.restored.stage_changed_at is not None
        assert int(done.replaced.version) == max(self.claims, key=lambda one: self.claims[one])
        leaving, self.claims = set(self.claims), {int(done.restored.version): done.restored.stage_changed_at}
        self.note(done.restored.stage_changed_at, leaving)

    def check(self, when: dt.datetime) -> None:
        """Check the answer for a time; of the versions that still exist, the one that entered last is right."""
        _, claims, leaving = next((then for then in reversed(self.past) if then[0] <= when), (when, {}, set()))
        existing = {version for version in claims if version in self.versions}
        try:
            answer = self.registry.version_at("churn", when)
        except HistoryUnknownError:
            return
        if answer is None:
            assert not claims, "some version was in the stage, and may be deleted"
        elif existing:
            assert int(answer.version) == max(existing, key=lambda version: claims[version])
        else:
            assert int(answer.version) in leaving


VERBS = ["promote", "promote", "add", "archive", "stage", "roll_back", "delete", "register", "register_in_production"]


@given(steps=st.lists(st.tuples(st.sampled_from(VERBS), st.integers(0, 5)), max_size=30), data=st.data())
def test_no_answer_is_ever_wrong(steps: list[tuple[str, int]], data: st.DataObject) -> None:
    """After any promotions, rollbacks and deletions, an answer is true, or it's an error."""
    time = CountedTime()
    with (
        Emulator(rest_port=None, now=lambda: time.time) as emulator,
        RegistryClient(project="p", endpoint=emulator.grpc, default_image=IMAGE, now=time) as registry,
    ):
        played = Played(registry, time)
        for verb, choice in steps:
            played.play(verb, choice)
        for moment, *_ in played.past:
            played.check(moment + dt.timedelta(seconds=data.draw(st.sampled_from([0, 1, 60, 1800]))))
