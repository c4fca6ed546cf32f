"""The two layers of labels: what is written on a version, and what the model itself shows on all of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from vertex_registry import ConflictError, PermissionDeniedError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vertex_registry import RegistryClient
    from vertex_registry.emulator import Emulator

    Text = Callable[..., str]

pytestmark = pytest.mark.local("Vertex does nothing wrong on demand")


@pytest.fixture
def churn(registry: RegistryClient, name: Text, source: Text) -> str:
    """A model with one version and two labels of its own."""
    model = name()
    registry.register_version(model, source())
    registry.update_model(model, labels={"team": "sales", "owner": "ann"})
    return model


@contextlib.contextmanager
def or_told(key: str) -> Iterator[None]:
    """What is within is true, or is refused because a label of the model's hides the key."""
    try:
        yield
    except ConflictError as conflict:
        assert f"labels '{key}', which stand before" in str(conflict)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_completion_beside_the_models_labels(
    registry: RegistryClient, emulator: Emulator, churn: str, source: Text, when: str
) -> None:
    """A label of the model's does not take the place of what is registered when an answer is lost."""
    emulator.fail("UpdateModel", "UNAVAILABLE", when=when)

    with or_told("team"):
        made = registry.register_version(churn, source(), metadata={"team": "growth", "a": 1}, stage="Staging")
        assert (made.stage, made.metadata) == (Stage.STAGING, {"team": "growth", "a": 1, "owner": "ann"})
        assert made == registry.get_version(churn, 2)


def test_a_re_run_beside_the_models_labels(
    registry: RegistryClient, emulator: Emulator, churn: str, source: Text
) -> None:
    """Nor when a registration that was cut off is finished: what it registers is on the version, in whichever form."""
    artifact = source()
    arguments: dict[str, Any] = {"metadata": {"team": {"name": "growth", "people": ["Ann"] * 9}}, "request_id": "run"}
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(churn, artifact, **arguments)

    made = registry.register_version(churn, artifact, **arguments)
    assert made.metadata == arguments["metadata"] | {"owner": "ann"}
    assert registry.register_version(churn, artifact, **arguments) == made == registry.get_version(churn, 2)


def test_what_others_wrote_on_the_version_stands_beside_the_models_labels(
    registry: RegistryClient, emulator: Emulator, churn: str, source: Text
) -> None:
    """What somebody has written on the version since stands, and what only the model says does not count for it."""
    artifact = source()
    arguments: dict[str, Any] = {"metadata": {"team": "growth", "a": 1, "b": 2}, "request_id": "run"}
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(churn, artifact, **arguments)
    registry.update_version(churn, 2, metadata={"b": "three", "c": {"d": "x" * 99}})
    registry.update_model(churn, labels={"team": "platform", "owner": "ann"})

    with or_told("team"):
        made = registry.register_version(churn, artifact, **arguments)
        written = made.metadata.pop("team")
        assert made.metadata == {"a": 1, "b": "three", "c": {"d": "x" * 99}, "owner": "ann"}
        # The label that the model had went to the version with somebody's update, as a label of the version.
        assert written in {"growth", "sales"}


def test_a_finish_that_is_cut_off_itself(
    registry: RegistryClient, emulator: Emulator, churn: str, source: Text
) -> None:
    """Finding out which labels are the model's loses nothing where it is cut off, and does not mislead the next run."""
    artifact = source()
    arguments: dict[str, Any] = {"metadata": {"team": "growth", "b": 2}, "request_id": "run"}
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(churn, artifact, **arguments)
    registry.update_model(churn, labels={})
    registry.update_version(churn, 2, metadata={"b": "three"})
    registry.update_model(churn, labels={"team": "sales"})
    half = registry.get_version(churn, 2)
    assert half.metadata == {"team": "sales", "b": "three"}
    emulator.fail("UpdateModel", "UNAVAILABLE", when="after")
    emulator.fail("UpdateModel", "PERMISSION_DENIED")
    with pytest.raises(PermissionDeniedError):
        registry.register_version(churn, artifact, **arguments)
    assert registry.get_version(churn, 2).metadata == half.metadata

    with or_told("team"):
        made = registry.register_version(churn, artifact, **arguments)
        assert made.metadata == {"team": "growth", "b": "three"}
        assert made.labels["team"] == "growth"
