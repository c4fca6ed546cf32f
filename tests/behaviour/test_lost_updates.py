"""An update whose response is lost while another client writes something newer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import Retry, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.behaviour.conftest import Connect, NewName, WaitForLists
    from vertex_registry import ModelVersion, RegistryClient
    from vertex_registry.emulator import Emulator

pytestmark = [
    pytest.mark.switches_together,
    pytest.mark.emulator_only("Vertex loses no answer on demand"),
    pytest.mark.parametrize("when", ["before", "after"]),
]

START: dict[str, Any] = {"a": 1, "b": 1, "big": ["x" * 40] * 9}


@pytest.fixture
def update(connect: Connect, emulator: Emulator, name: NewName, when: str) -> Callable[..., ModelVersion]:
    """Return a function that makes one change whose response is lost, while another client makes another change."""
    somebody = connect(actor="bob@example.com")
    churn = name()
    somebody.register_version(churn, "gs://models/churn/1", metadata=START, description="start")

    def update(
        ours: Callable[[RegistryClient, str], ModelVersion], theirs: Callable[[RegistryClient, str], object]
    ) -> ModelVersion:
        acts = [theirs]

        def sleep(_: float) -> None:
            if acts:
                acts.pop()(somebody, churn)

        registry = connect(actor="ann@example.com", retry=Retry(sleep=sleep))
        emulator.fail("UpdateModel", "UNAVAILABLE", when=when)
        ended = ours(registry, churn)
        assert not acts
        assert ended == somebody.get_version(churn, 1)
        return ended

    return update


def test_a_newer_value_of_the_same_key_stays(update: Callable[..., ModelVersion]) -> None:
    """The other client's values are newer and stay. The remaining keys of the lost update are written."""
    ended = update(
        lambda registry, name: registry.update_version(
            name, 1, metadata={"a": 2, "b": 2, "new": 2, "big": [2] * 50}, description="ours"
        ),
        lambda registry, name: registry.update_version(
            name, 1, metadata={"a": 3, "big": [3] * 50, "theirs": 3}, description="theirs"
        ),
    )
    assert ended.metadata == {"a": 3, "b": 2, "new": 2, "big": [3] * 50, "theirs": 3}
    assert ended.description == "theirs"


def test_what_somebody_set_again_is_not_removed(update: Callable[..., ModelVersion]) -> None:
    """A key that the lost update removes, and that the other client sets to something else, stays set."""
    ended = update(
        lambda registry, name: registry.update_version(name, 1, remove_metadata=["a", "b", "big"]),
        lambda registry, name: registry.update_version(name, 1, metadata={"a": 3, "big": "small"}),
    )
    assert ended.metadata == {"a": 3, "big": "small"}


def test_what_somebody_removed_stays_removed(update: Callable[..., ModelVersion]) -> None:
    """A key that the lost update sets, and that the other client removes, stays removed."""
    ended = update(
        lambda registry, name: registry.update_version(name, 1, metadata={"a": 2, "b": 2}),
        lambda registry, name: registry.update_version(name, 1, remove_metadata=["a"]),
    )
    assert ended.metadata == {"b": 2, "big": START["big"]}


def test_another_key_is_left_alone(update: Callable[..., ModelVersion]) -> None:
    """If the other client wrote other keys, both changes are kept."""
    ended = update(
        lambda registry, name: registry.update_version(name, 1, metadata={"a": 2}, stage="Staging"),
        lambda registry, name: registry.update_version(name, 1, metadata={"b": 3}),
    )
    assert ended.metadata == START | {"a": 2, "b": 3}
    assert ended.stage is Stage.STAGING


@pytest.mark.parametrize("archive_existing", [False, True])
def test_a_newer_stage_stays(
    update: Callable[..., ModelVersion],
    registry: RegistryClient,
    wait_for_lists: WaitForLists,
    when: str,
    *,
    archive_existing: bool,
) -> None:
    """If the lost change of stage took effect, a later one stays, and the history has both, each once."""
    ended = update(
        lambda registry, name: registry.set_stage(name, 1, "Staging", archive_existing=archive_existing),
        lambda registry, name: registry.set_stage(name, 1, "Archived"),
    )
    wait_for_lists()
    stages = [change.stage for change in reversed(registry.stage_history(ended.name))]
    if when == "after":
        assert ended.stage is Stage.ARCHIVED
        assert stages == [Stage.STAGING, Stage.ARCHIVED]
    else:  # the history shows that the lost one wasn't made, so it's made now
        assert ended.stage is Stage.STAGING
        assert stages == [Stage.ARCHIVED, Stage.STAGING]


def test_without_another_client_it_is_written_once(
    connect: Connect, emulator: Emulator, name: NewName, when: str
) -> None:
    """A lost update is written exactly once if no other client interferes."""
    registry, churn = connect(retry=Retry(sleep=lambda _: None)), name()
    registry.register_version(churn, "gs://models/churn/1", metadata=START)
    emulator.fail("UpdateModel", "UNAVAILABLE", when=when)
    before = len(emulator.requests())
    ended = registry.update_version(churn, 1, metadata={"a": 2}, remove_metadata=["b"], description="ours")
    assert ended.metadata == {"a": 2, "big": START["big"]}
    assert [request.rpc for request in emulator.requests()[before:]].count("UpdateModel") == 2
    assert ended == registry.get_version(churn, 1)
