"""The workflow that MLflow documents for its model registry, on Vertex, from the first log to the last deletion."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from sklearn.linear_model import LogisticRegression

from vertex_registry import Stage
from vertex_registry.mlflow import VertexModelRegistryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow.entities.model_registry import ModelVersion

X, Y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Google's images stop at scikit-learn 1.6, and what is installed here is newer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Google has no serving image")
        yield


def log(name: str | None = None) -> tuple[LogisticRegression, Any]:
    """Train a model and log it, as MLflow's pages do. Return it with what MLflow returned."""
    model = LogisticRegression().fit(X, Y)
    with mlflow.start_run():
        mlflow.log_metric("accuracy", float(model.score(X, Y)))
        return model, mlflow.sklearn.log_model(model, name="model", registered_model_name=name, pip_requirements=[])


def numbers(versions: list[ModelVersion]) -> list[int]:
    return [int(version.version) for version in versions]


def test_the_documented_workflow(vertex: str) -> None:  # noqa: PLR0915  # each step needs those before it
    """Each step of the page works as described, and the registry has its own copies of the artifacts."""
    mlflow.set_registry_uri(vertex)
    client = mlflow.MlflowClient()

    # Register a model: with the log, afterwards, or in two steps.
    model, logged = log("churn")
    registered = mlflow.register_model(logged.model_uri, "churn", tags={"from": "a logged model"})
    of_run = mlflow.register_model(f"runs:/{logged.run_id}/model", "churn")
    client.create_registered_model("uplift", tags={"team": "growth"}, description="Who can be won back.")
    assert client.get_registered_model("uplift").tags == {"team": "growth"}
    stepwise = client.create_model_version("uplift", logged.model_uri, run_id=logged.run_id, description="The first.")
    assert (registered.version, of_run.version, stepwise.version) == (2, 3, 1)
    assert (registered.tags, registered.run_id, registered.source) == (
        {"from": "a logged model"},
        logged.run_id,
        logged.model_uri,
    )
    assert client.get_registered_model("uplift").description == "Who can be won back."

    # Aliases.
    client.set_registered_model_alias("churn", "champion", 1)
    client.set_registered_model_alias("churn", "Challenger_B", 2)
    assert client.get_registered_model("churn").aliases == {"default": 1, "champion": 1, "Challenger_B": 2}
    client.set_registered_model_alias("churn", "champion", 2)
    assert client.get_model_version_by_alias("churn", "champion").version == 2
    assert client.get_model_version("churn", 2).aliases == ["Challenger_B", "champion"]
    client.delete_registered_model_alias("churn", "Challenger_B")
    with pytest.raises(MlflowException, match="alias Challenger_B not found"):
        client.get_model_version_by_alias("churn", "Challenger_B")

    # Tags and descriptions.
    client.set_registered_model_tag("churn", "task", "who leaves, and when?")
    client.set_model_version_tag("churn", 2, "validation_status", "Approved ✓")
    client.set_model_version_tag("churn", 2, "other", "x")
    client.delete_model_version_tag("churn", 2, "other")
    client.update_registered_model("churn", "Predicts who leaves.\nOf the web shop.")
    client.update_model_version("churn", 2, "Trained in March.")
    churn, second = client.get_registered_model("churn"), client.get_model_version("churn", 2)
    assert (churn.tags, churn.description) == (
        {"task": "who leaves, and when?"},
        "Predicts who leaves.\nOf the web shop.",
    )
    assert second.tags == {"from": "a logged model", "validation_status": "Approved ✓"}
    assert second.description == "Trained in March."
    client.delete_registered_model_tag("churn", "task")
    assert client.get_registered_model("churn").tags == {}

    # Fetch a version, and load it.
    expected = model.predict_proba(X)
    for uri in ("models:/churn/1", "models:/churn@champion", "models:/churn/latest"):
        assert np.array_equal(mlflow.sklearn.load_model(uri).predict_proba(X), expected)
    assert np.array_equal(mlflow.pyfunc.load_model("models:/churn/2").predict(X), model.predict(X))

    # Stages.
    client.transition_model_version_stage("churn", 1, "Production")
    client.transition_model_version_stage("churn", 2, "production", archive_existing_versions=True)
    client.transition_model_version_stage("churn", 3, "Staging")
    assert numbers(client.get_latest_versions("churn")) == [3, 2, 1]
    assert numbers(client.get_latest_versions("churn", ["Production"])) == [2]
    assert client.get_model_version("churn", 1).current_stage == "Archived"
    assert np.array_equal(mlflow.sklearn.load_model("models:/churn/Production").predict_proba(X), expected)

    # Promote across environments.
    copied = client.copy_model_version("models:/churn@champion", "prod.churn")
    assert (copied.version, copied.tags, copied.source) == (1, second.tags, "models:/churn/2")
    assert np.array_equal(mlflow.sklearn.load_model("models:/prod.churn/1").predict_proba(X), expected)

    # Search.
    assert [found.name for found in client.search_registered_models()] == ["churn", "prod.churn", "uplift"]
    assert [found.name for found in client.search_registered_models("name LIKE '%churn'")] == ["churn", "prod.churn"]
    assert [found.name for found in client.search_registered_models("tags.team = 'growth'")] == ["uplift"]
    assert numbers(client.search_model_versions("name = 'churn'", order_by=["version_number ASC"])) == [1, 2, 3]
    assert numbers(client.search_model_versions("tags.validation_status LIKE 'Approved%' AND name = 'churn'")) == [2]
    assert len(client.search_model_versions(f"run_id = '{logged.run_id}'")) == 5

    # Rename, and delete.
    client.rename_registered_model("churn", "churners")
    assert client.get_model_version_by_alias("churners", "champion").version == 2
    client.delete_model_version("churners", 1)
    assert numbers(client.search_model_versions("name = 'churners'", order_by=["version_number ASC"])) == [2, 3]
    for name in ("churners", "uplift", "prod.churn"):
        client.delete_registered_model(name)
    assert client.search_registered_models() == []


def test_the_artifact_stays_as_it_was_registered(vertex: str, tmp_path: Path) -> None:
    """Loading a version, deleting its run or the logged model leaves the artifact as it is."""
    mlflow.set_registry_uri(vertex)
    model, logged = log("churn")
    client = mlflow.MlflowClient()
    registry = VertexModelRegistryStore(vertex).client
    before = registry.download(registry.get_version("churn", 1).artifact_uri)
    names = sorted(path.name for path in before.iterdir())
    mlflow.sklearn.load_model("models:/churn/1")
    client.delete_run(logged.run_id)
    client.delete_logged_model(logged.model_id)

    assert np.array_equal(mlflow.sklearn.load_model("models:/churn/1").predict(X), model.predict(X))
    after = registry.download_version("churn", 1, tmp_path / "again")
    assert (
        sorted(path.name for path in after.iterdir())
        == names
        == sorted({"MLmodel", "conda.yaml", "model.joblib", "model.skops", "python_env.yaml", "requirements.txt"})
    )


def test_the_same_registry_without_mlflow(vertex: str) -> None:
    """Other tools can read what MLflow wrote: labels, a stage with its history, and a folder that the image loads."""
    mlflow.set_registry_uri(vertex)
    _, logged = log("churn")
    client = mlflow.MlflowClient()
    client.set_model_version_tag("churn", 1, "team", "growth")
    client.set_registered_model_alias("churn", "Champion", 1)
    client.transition_model_version_stage("churn", 1, "Production")
    version = VertexModelRegistryStore(vertex).client.get_version("churn", stage="Production")

    assert (version.stage, version.aliases) == (Stage.PRODUCTION, ("default", "champion"))
    assert version.labels["team"] == "growth"
    assert version.labels["mlflow-run-id"] == logged.run_id
    assert version.metadata["mlflow-source"] == logged.model_uri
    assert version.container is not None
    assert version.container.image.endswith("sklearn-cpu.1-6:latest")


def test_what_others_registered(vertex: str) -> None:
    """A version that MLflow didn't register has all fields that MLflow needs. Values that aren't text are JSON."""
    registry = VertexModelRegistryStore(vertex).client
    mlflow.set_registry_uri(vertex)
    client = mlflow.MlflowClient()
    _, logged = log()
    folder = mlflow.artifacts.download_artifacts(logged.model_uri)
    registry.register_version("churn", folder, metadata={"accuracy": 0.93, "team": "growth", "data": {"rows": 3}})
    (version,) = client.search_model_versions("tags.accuracy = '0.93'")

    assert version.tags == {"accuracy": "0.93", "team": "growth", "data": '{"rows": 3}'}
    assert version.source == registry.get_version("churn", 1).artifact_uri
    assert mlflow.pyfunc.load_model("models:/churn/1").predict(X).shape == (4,)
