"""Two clients at once: one deletes the last version of a model, and the other registers the next."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from vertex_registry import NotFoundError, Retry, Stage

if TYPE_CHECKING:
    from tests.behaviour.conftest import Connect, NewName, NewSource, WaitForLists
    from vertex_registry.emulator import Emulator


pytestmark = [
    pytest.mark.each_switch("default-delete"),
    pytest.mark.emulator_only("Vertex does nothing wrong on demand"),
]


def sent(emulator: Emulator, rpc: str) -> int:
    return sum(request.rpc == rpc for request in emulator.requests())


def test_a_deletion_that_is_under_way(
    connect: Connect,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """A version that's registered while its model is being deleted isn't lost with the model."""
    churn, artifact, somebody = name(), source(), connect()
    somebody.register_version(churn, source())
    emulator.fail("DeleteModel", delay=0.3)
    deleter = threading.Thread(target=somebody.delete_version, args=(churn, 1))
    deleter.start()
    while not sent(emulator, "DeleteModel"):
        pass

    registry = connect(retry=Retry(sleep=lambda _: deleter.join()))
    made = registry.register_version(churn, artifact, stage="Staging", metadata={"a": 1})
    deleter.join()
    wait_for_lists()

    assert registry.get_version(churn) == made
    assert (made.version, made.stage, made.metadata) == ("1", Stage.STAGING, {"a": 1})
    assert [version.artifact_uri for version in registry.list_versions(churn)] == [artifact]


def test_a_registration_before_the_second_check(
    connect: Connect,
    emulator: Emulator,
    name: NewName,
    source: NewSource,
    wait_for_lists: WaitForLists,
) -> None:
    """A version that's uploaded after the deletion began is found before the model is deleted, and stays."""
    churn, artifact, somebody = name(), source(), connect()
    somebody.register_version(churn, source())
    acted: list[str] = []

    def register(_: float) -> None:
        if not acted:
            acted.append(somebody.register_version(churn, artifact).version)

    emulator.fail("MergeVersionAliases", "UNAVAILABLE")
    connect(retry=Retry(sleep=register)).delete_version(churn, 1)
    wait_for_lists()

    assert acted == ["2"]
    assert [version.artifact_uri for version in somebody.list_versions(churn)] == [artifact]
    assert somebody.register_version(churn, source()).version == "3"
    with pytest.raises(NotFoundError):
        somebody.get_version(churn, 1)
