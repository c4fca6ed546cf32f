"""The fixtures: MLflow's own registry works as the tests expect of it."""

from __future__ import annotations

import mlflow
from sklearn.linear_model import LogisticRegression


def test_a_registry_of_mlflows_own(sqlite_registry: str) -> None:
    """A model that is logged with a name is a version in the registry that MLflow is set to."""
    mlflow.set_registry_uri(sqlite_registry)
    mlflow.sklearn.log_model(
        LogisticRegression().fit([[0.0], [1.0]], [0, 1]),
        name="model",
        registered_model_name="churn",
        pip_requirements=[],
    )

    (version,) = mlflow.MlflowClient().search_model_versions("name = 'churn'")

    assert int(version.version) == 1
