"""The history while another client changes it, and after other tools and lost responses.

The second client acts at a chosen moment: an answer is lost there, and the first client waits before it goes on.
"""

from __future__ import annotations

import copy
import datetime as dt
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud.aiplatform_v1.types import Model
from google.protobuf.field_mask_pb2 import FieldMask

from tests.behaviour.incompressible import incompressible
from vertex_registry import (
    ConflictError,
    HistoryUnknownError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    Retry,
    Stage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

    from tests.behaviour.conftest import Connect, NewName, WaitForLists
    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator

pytestmark = [pytest.mark.emulator_only("Vertex loses no answer on demand")]

# Google stops serving its own images long before these clocks begin.
IMAGE = "us-docker.pkg.dev/acme/serving/churn:1"

PRODUCTION, ARCHIVED = Stage.PRODUCTION, Stage.ARCHIVED


class CountedTime:
    """A clock that several clients share. It moves an hour each time it's read."""

    def __init__(self) -> None:
        self._hours = itertools.count()

    def __call__(self) -> dt.datetime:
        return dt.datetime(2100, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=next(self._hours))


def promote(registry: RegistryClient, name: str, version: int) -> dt.datetime:
    promoted = registry.set_stage(name, version, PRODUCTION, archive_existing=True)
    assert promoted.stage_changed_at is not None
    return promoted.stage_changed_at


#: What the other client does. Versions 1, 2 and 3 were in Production in this order, and 4 never was.
MEANWHILE: dict[str, Callable[[RegistryClient, str], object]] = {
    "promote-a-new-one": lambda registry, name: promote(registry, name, 4),
    "promote-an-old-one": lambda registry, name: promote(registry, name, 1),
    "add": lambda registry, name: registry.set_stage(name, 1, PRODUCTION),
    "roll-back": lambda registry, name: registry.rollback(name),
    "archive-the-current-one": lambda registry, name: registry.set_stage(name, 3, ARCHIVED),
    "stage-the-one-before": lambda registry, name: registry.set_stage(name, 2, Stage.STAGING),
    "delete-the-current-one": lambda registry, name: registry.delete_version(name, 3),
    "delete-the-one-before": lambda registry, name: registry.delete_version(name, 2),
    "register": lambda registry, name: registry.register_version(
        name, "gs://models/churn/5", stage=PRODUCTION, archive_existing=True
    ),
}


class Scene:
    """Three promotions and their times, and the stages that follow."""

    def __init__(self, connect: Connect, vertex: ModelServiceClient, name: str) -> None:
        self.name = name
        self.time = CountedTime()
        self.bob = connect(default_image=IMAGE, now=self.time, actor="bob@example.com")
        promoted = [
            self.bob.register_version(name, f"gs://models/churn/{number}", stage=PRODUCTION, archive_existing=True)
            for number in (1, 2, 3)
        ]
        self.bob.register_version(name, "gs://models/churn/4")
        entered = [version.stage_changed_at for version in promoted if version.stage_changed_at is not None]
        # When each version was in the stage alone.
        self.alone = [entered[1] - dt.timedelta(seconds=1), entered[2] - dt.timedelta(seconds=1), self.time()]
        self.versions = [vertex.get_model(name=f"{promoted[0].model_resource_name}@{number}") for number in range(1, 5)]

    def copied(self, vertex: ModelServiceClient, name: str) -> Scene:
        """Return the same scene with another name. Uploading its versions as they are takes a tenth of the requests."""
        model, parent = "", self.versions[0].name.partition("/models/")[0]
        for version in self.versions:
            twin = Model(
                display_name=name,
                artifact_uri=version.artifact_uri,
                container_spec=version.container_spec,
                labels=version.labels,
                version_aliases=version.version_aliases,
            )
            uploading = vertex.upload_model({"parent": parent, "parent_model": model, "model": twin})
            model = uploading.result().model  # type: ignore[no-untyped-call]  # untyped upstream
        scene = copy.copy(self)
        scene.name = name
        self.bob.get_version(name)  # so that he knows the model, as if he had registered it
        return scene

    def stages(self) -> dict[str, Stage]:
        return {version.version: version.stage for version in self.bob.list_versions(self.name)}


def moments(emulator: Emulator, ask: Callable[[], object]) -> list[tuple[str, int, str]]:
    """Return the requests of a question, each with its number among those of its RPC; those that write, twice."""
    before = len(emulator.requests())
    ask()
    rpcs = [request.rpc for request in emulator.requests()[before:]]
    counted = [(rpc, rpcs[:position].count(rpc)) for position, rpc in enumerate(rpcs)]
    return [
        (rpc, count, when)
        for rpc, count in counted
        for when in (("before", "after") if rpc == "UpdateModel" else ("before",))
    ]


def asked_meanwhile(
    emulator: Emulator,
    connect: Connect,
    scene: Scene,
    moment: tuple[str, int, str],
    act: Callable[[], object],
    ask: Callable[[RegistryClient], Any],
) -> Any:
    """Ask, let the other client act when the response to one of the requests is lost, and return the answer."""
    acts = [act]

    def sleep(_: float) -> None:
        if acts:
            acts.pop()()

    ann = connect(default_image=IMAGE, now=scene.time, retry=Retry(sleep=sleep))
    ann.get_version(scene.name)  # it knows the model from here on, as `moments` does
    rpc, count, when = moment
    if count:
        emulator.fail(rpc, delay=0.0001, times=count)
    emulator.fail(rpc, "UNAVAILABLE", when=when)
    try:
        return ask(ann)
    except RegistryError as error:
        return error
    finally:
        emulator.forget_faults()


@pytest.mark.only("grpc")
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_a_question_while_another_client_changes_the_stage(
    connect: Connect, emulator: Emulator, vertex: ModelServiceClient, name: NewName, meanwhile: str
) -> None:
    """The answer is what was true before the change, or it's unknown because the version was deleted."""

    def ask(registry: RegistryClient) -> Any:
        try:
            return {
                "history": [
                    (change.version, change.changed_at, change.stage) for change in registry.stage_history(churn)
                ],
                "at": [registry.version_at(churn, moment) for moment in first.alone],
            }
        except HistoryUnknownError as error:
            return error

    churn = name()
    first = Scene(connect, vertex, churn)
    truth = ask(first.bob)
    for moment in moments(emulator, functools.partial(ask, first.bob)):
        churn = name()
        scene = first.copied(vertex, churn)
        answer = asked_meanwhile(
            emulator, connect, scene, moment, functools.partial(MEANWHILE[meanwhile], scene.bob, scene.name), ask
        )
        if "delete" in meanwhile and isinstance(answer, HistoryUnknownError):
            continue
        assert [found and found.version for found in answer["at"]] == [found.version for found in truth["at"]]
        if "delete" not in meanwhile:
            assert answer["history"][-len(truth["history"]) :] == truth["history"]


#: Measuring takes seconds, and the other cases reach the same lines.
MEASURED = ("add", "delete-the-one-before")


@pytest.mark.only("grpc")
@pytest.mark.parametrize(
    "meanwhile",
    [pytest.param(each, marks=[] if each in MEASURED else [pytest.mark.unmeasured]) for each in MEANWHILE],
)
def test_a_rollback_while_another_client_changes_the_stage(
    connect: Connect, emulator: Emulator, vertex: ModelServiceClient, name: NewName, meanwhile: str
) -> None:
    """A rollback and a change at once end as if one had come after the other, or with an error and no empty stage."""
    churn = ""

    def roll_back(registry: RegistryClient) -> Any:
        done = registry.rollback(churn)
        return done.restored.version, done.replaced.version

    def ends(scene: Scene, answer: Any) -> tuple[Any, dict[str, Stage]]:
        return type(answer) if isinstance(answer, Exception) else answer, scene.stages()

    def in_a_row(*steps: Callable[[RegistryClient], Any]) -> tuple[Any, dict[str, Stage]]:
        nonlocal churn
        churn = name()
        scene = first.copied(vertex, churn)
        answers: list[Any] = []
        for step in steps:
            try:
                answers.append(step(scene.bob))
            except RegistryError as error:
                answers.append(error)
        return ends(scene, answers[steps.index(roll_back)])

    def act(registry: RegistryClient) -> object:
        return MEANWHILE[meanwhile](registry, churn)

    first = Scene(connect, vertex, name())
    right = [in_a_row(roll_back, act), in_a_row(act, roll_back)]
    if meanwhile == "roll-back":
        right.append(in_a_row(roll_back))  # two at once go back one step
    churn = first.name
    for moment in moments(emulator, functools.partial(roll_back, first.bob)):
        churn = name()
        scene = first.copied(vertex, churn)
        answer = asked_meanwhile(emulator, connect, scene, moment, functools.partial(act, scene.bob), roll_back)
        outcome = ends(scene, answer)
        if outcome not in right:
            assert isinstance(answer, (ConflictError, NotFoundError)), moment
            assert PRODUCTION in outcome[1].values() or outcome[1] in [stages for _, stages in right], moment


def remembered(registry: RegistryClient, name: str) -> list[tuple[str, Stage]]:
    """Return the remembered changes, the oldest first, and check that none is missing."""
    history = registry.stage_history(name)
    assert history.complete
    assert {change.changed_by for change in history} == {"ann@example.com"}
    return [(change.version, change.stage) for change in reversed(history)]


@pytest.mark.each_switch("labels-at-upload", "label-wins")
def test_what_the_history_survives(
    connect: Connect, vertex: ModelServiceClient, name: NewName, wait_for_lists: WaitForLists
) -> None:
    """Labels of the model, metadata that has to be packed and labels of other tools leave the history as it is."""
    registry = connect(default_image=IMAGE, now=CountedTime(), actor="ann@example.com")
    churn = name()
    made = registry.register_version(churn, "gs://models/churn/1", metadata={"config": {"layers": ["x" * 90] * 30}})
    registry.register_version(churn, "gs://models/churn/2", metadata=incompressible(20))
    registry.update_model(churn, labels={"team": "sales", "owner": "ann"} | {f"cost-{key}": "1" for key in range(9)})
    promote(registry, churn, 1)
    wait_for_lists()
    promote(registry, churn, 2)
    wait_for_lists()
    registry.update_version(churn, 2, metadata=incompressible(9, "later"), remove_metadata=["key-7"])
    registry.update_version(churn, 1, metadata={"more": incompressible(10, "deep")})
    labels = {**vertex.get_model(name=f"{made.model_resource_name}@1").labels, "reviewed": "yes"}
    version = Model(name=f"{made.model_resource_name}@1", labels=labels)
    vertex.update_model(model=version, update_mask=FieldMask(paths=["labels"]))
    wait_for_lists()
    assert registry.rollback(churn).restored.version == "1"
    wait_for_lists()

    assert remembered(registry, churn) == [
        *[("1", PRODUCTION), ("2", PRODUCTION), ("1", ARCHIVED)],
        *[("1", PRODUCTION), ("2", ARCHIVED)],
    ]
    assert registry.get_version(churn, 1).metadata["more"] == incompressible(10, "deep")


@pytest.mark.switches_together
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("count", [0, 1])
def test_the_history_of_a_registration_that_was_cut_off(
    connect: Connect, emulator: Emulator, name: NewName, wait_for_lists: WaitForLists, when: str, count: int
) -> None:
    """Whichever of its writes failed: once it's finished, each stage is remembered once."""
    registry = connect(default_image=IMAGE, now=CountedTime(), actor="ann@example.com")
    churn = name()
    registry.register_version(churn, "gs://models/churn/1", stage=PRODUCTION)
    wait_for_lists()

    def register() -> None:
        registry.register_version(
            churn, "gs://models/churn/2", stage=PRODUCTION, archive_existing=True, request_id="run-2"
        )

    if count:
        emulator.fail("UpdateModel", delay=0.0001)
    emulator.fail("UpdateModel", "PERMISSION_DENIED", when=when)
    with pytest.raises(PermissionDeniedError):
        register()
    for _ in range(2):
        wait_for_lists()
        register()
    wait_for_lists()

    assert remembered(registry, churn) == [("1", PRODUCTION), ("2", PRODUCTION), ("1", ARCHIVED)]


@pytest.mark.no_switches
def test_writers_at_once_lose_no_change(connect: Connect, name: NewName) -> None:
    """Each change of several clients at once is remembered once, beside the metadata that others write."""
    clients = [connect(default_image=IMAGE, actor="ann@example.com") for _ in range(4)]
    churn = name()
    clients[0].register_version(churn, "gs://models/churn/1")
    made: set[dt.datetime | None] = set()

    def write(number: int) -> None:
        for turn in range(3):
            stage = (Stage.STAGING, PRODUCTION, ARCHIVED)[(number + turn) % 3]
            made.add(clients[number].set_stage(churn, 1, stage).stage_changed_at)
            clients[number].update_version(churn, 1, metadata={f"writer-{number}": turn})

    with ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(write, range(len(clients))))

    history = clients[0].stage_history(churn)
    assert history.complete
    assert {change.changed_at for change in history} == made
    assert len(history) == len(made)
    assert clients[0].get_version(churn, 1).metadata == {f"writer-{number}": 2 for number in range(4)}
