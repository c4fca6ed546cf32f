"""Stages set through ZenML are remembered, and the client beside ZenML answers from them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from zenml.client import Client
from zenml.model_registries.base_model_registry import ModelVersionStage

from vertex_registry import NotFoundError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.adapter.command_line import ZenML
    from vertex_registry.zenml import VertexModelRegistry


def test_every_way_to_set_a_stage_is_remembered(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """A stage set at registration, in Python or on the command line is in the history, with ZenML's user."""
    registry.register_model_version("churn", "1", "gs://models/1", stage=ModelVersionStage.STAGING)
    registry.update_model_version("churn", "1", stage=ModelVersionStage.PRODUCTION)
    zenml("model-registry models update-version churn -v 1 -s Archived")

    history = registry.client.stage_history("churn")
    assert [change.stage for change in history] == [Stage.ARCHIVED, Stage.PRODUCTION, Stage.STAGING]
    assert {change.version_name for change in history} == {"1"}
    assert {change.changed_by for change in history} == {f"zenml:{Client().active_user.name}"}
    assert history.complete


def test_an_account_comes_before_zenmls_user(
    zenml: ZenML, key: Path, active: Callable[[], VertexModelRegistry]
) -> None:
    """If the credentials name an account, the history names that."""
    zenml.use(credentials=f"@{key}")
    registry = active()
    registry.register_model_version("churn", "1", "gs://models/1")
    registry.update_model_version("churn", "1", stage="Production")

    (change,) = registry.client.stage_history("churn")
    assert change.changed_by == "registry@acme.iam.gserviceaccount.com"


def test_what_was_in_production(registry: VertexModelRegistry, zenml: ZenML) -> None:
    """You can ask what was in Production, and roll back; ZenML shows the stages that result."""
    moments = []
    for version in ("1.0", "1.1", "1.2"):
        registry.register_model_version("churn", version, f"gs://models/{version}")
        zenml(f"model-registry models update-version churn -v {version} -s Production")
        moments.append(dt.datetime.now(dt.UTC))

    was = [registry.client.version_at("churn", moment) for moment in moments]
    assert [version.version_name for version in was if version is not None] == ["1.0", "1.1", "1.2"]
    undone = registry.client.rollback("churn")
    assert (undone.restored.version_name, undone.replaced.version_name) == ("1.1", "1.2")
    stages = {version.version: version.stage.value for version in registry.list_model_versions("churn")}
    assert stages == {"1.0": "Archived", "1.1": "Production", "1.2": "Archived"}


def test_the_metadata_of_a_version_holds_no_history(registry: VertexModelRegistry) -> None:
    """ZenML shows the metadata that was registered, however often the stage changes."""
    registry.register_model_version("churn", "1", "gs://models/1", metadata={"team": "growth"})
    for stage in ("Staging", "Production", "Archived", "None"):
        changed = registry.update_model_version("churn", "1", stage=stage)

        assert changed.metadata is not None
        assert changed.metadata.model_dump() == {"team": "growth"}
    assert registry.get_model("churn").metadata == {"managed_by": "zenml", "team": "growth"}


def test_the_client_is_that_of_the_registry(registry: VertexModelRegistry) -> None:
    """The client finds what ZenML registered, and raises this package's own errors."""
    registry.register_model_version("churn", "1.0", "gs://models/1")

    assert registry.client is registry.client
    assert registry.client.find_version("churn", "1.0").version == "1"
    with pytest.raises(NotFoundError):
        registry.client.find_version("churn", "2.0")
