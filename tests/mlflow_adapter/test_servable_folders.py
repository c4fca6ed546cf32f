"""Folders from MLflow are changed so that a serving image can load them, and MLflow still can."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import joblib
import mlflow
import numpy as np
import pytest
import sklearn
import xgboost
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from vertex_registry import InvalidArgumentError, local_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vertex_registry import LocalRegistry

X, Y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]


class Doubler(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A class that skops doesn't know."""

    def fit(self, *_: object) -> Doubler:
        return self

    def transform(self, values: Any) -> Any:
        return values * 2


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with local_registry() as registry:
        yield registry


def register(registry: LocalRegistry, folder: Path) -> Path:
    """Register a folder, and return the folder that the image gets."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Google has no serving image")  # of what is installed here
        registry.register_version("churn", folder)
    return registry.download_version("churn", 1)


SAVED: dict[str, Callable[[str], Any]] = {
    "skops": lambda path: mlflow.sklearn.save_model(LogisticRegression().fit(X, Y), path, pip_requirements=[]),
    "trusted": lambda path: mlflow.sklearn.save_model(
        make_pipeline(Doubler(), LogisticRegression()).fit(X, Y),
        path,
        pip_requirements=[],
        skops_trusted_types=[f"{Doubler.__module__}.Doubler"],
    ),
    "pickle": lambda path: mlflow.sklearn.save_model(
        LogisticRegression().fit(X, Y), path, pip_requirements=[], serialization_format="pickle"
    ),
    "cloudpickle": lambda path: mlflow.sklearn.save_model(
        LogisticRegression().fit(X, Y), path, pip_requirements=[], serialization_format="cloudpickle"
    ),
}


@pytest.mark.parametrize("form", SAVED)
def test_scikit_learn(registry: LocalRegistry, tmp_path: Path, form: str) -> None:
    """The image loads a pickle, a cloudpickle or what was converted from skops, and MLflow loads its own file."""
    SAVED[form](str(tmp_path / "model"))
    served = register(registry, tmp_path / "model")

    (file,) = (path for path in served.iterdir() if path.name in {"model.joblib", "model.pkl"})
    expected = mlflow.sklearn.load_model(str(tmp_path / "model")).predict_proba(X)
    assert file.suffix == (".pkl" if "pickle" in form else ".joblib")
    assert np.array_equal(joblib.load(file).predict_proba(X), expected)
    assert np.array_equal(mlflow.sklearn.load_model(str(served)).predict_proba(X), expected)
    assert {path.name for path in (tmp_path / "model").iterdir()} <= {path.name for path in served.iterdir()}


@pytest.mark.parametrize("form", ["ubj", "json"])
def test_xgboost(registry: LocalRegistry, tmp_path: Path, form: str) -> None:
    """The image loads MLflow's file under its own name for it."""
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(X, Y), 3)
    mlflow.xgboost.save_model(booster, str(tmp_path / "model"), pip_requirements=[], model_format=form)
    served = register(registry, tmp_path / "model")

    expected = booster.predict(xgboost.DMatrix(X))
    assert np.array_equal(xgboost.Booster(model_file=served / "model.bst").predict(xgboost.DMatrix(X)), expected)
    assert np.array_equal(mlflow.xgboost.load_model(str(served)).predict(xgboost.DMatrix(X)), expected)


def test_the_same_folder_is_uploaded_once(registry: LocalRegistry, tmp_path: Path) -> None:
    """A conversion writes the same bytes each time, so a registration can be retried."""
    SAVED["skops"](str(tmp_path / "model"))
    with pytest.warns(UserWarning, match=f"no serving image for scikit-learn {sklearn.__version__}"):
        first = registry.register_version("churn", tmp_path / "model", request_id="run")
    with pytest.warns(UserWarning, match="no serving image"):
        assert registry.register_version("churn", tmp_path / "model", request_id="run") == first


def test_a_type_that_the_writer_does_not_trust(registry: LocalRegistry, tmp_path: Path) -> None:
    """A type that MLmodel doesn't name as trusted isn't loaded. MLflow wouldn't load the folder either."""
    SAVED["trusted"](str(tmp_path / "model"))
    described = (tmp_path / "model" / "MLmodel").read_text()
    start = described.index("    skops_trusted_types:")
    (tmp_path / "model" / "MLmodel").write_text(described[:start] + described[described.index("mlflow_version") :])

    with pytest.raises(
        InvalidArgumentError, match="couldn't be converted to model.joblib: UntrustedTypesFoundException"
    ):
        register(registry, tmp_path / "model")
