"""Which scikit-learn wrote a model."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import joblib
import pytest
import sklearn.linear_model

from tests.artifacts.tools import write
from vertex_registry._servable import sklearn_version
from vertex_registry.artifacts import scan

if TYPE_CHECKING:
    from pathlib import Path


def written_by(folder: Path) -> str | None:
    return sklearn_version({file.name: file.path for file in scan(folder).files})


ESTIMATOR = sklearn.linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("before", [b"", b"x" * (2**18 - 130), b"x" * (2**18 - 110)])
def test_a_model_says_which_scikit_learn_wrote_it(tmp_path: Path, protocol: int, before: bytes) -> None:
    """The version of scikit-learn is found anywhere in the pickle, without unpickling."""
    other = f"0{sklearn.__version__[1:]}"
    pickled = pickle.dumps(ESTIMATOR, protocol).replace(sklearn.__version__.encode(), other.encode())
    folder = write(tmp_path / "model", {"model.pkl": before + pickled})

    assert written_by(folder) == other


def test_joblib_says_it_as_well(tmp_path: Path) -> None:
    """Files of joblib are read as well; of a compressed one the installed version is the best guess."""
    for name, compress in (("plain", 0), ("compressed", 3)):
        folder = write(tmp_path / name, {})
        folder.mkdir()
        joblib.dump(ESTIMATOR, folder / "model.joblib", compress=compress)
        assert written_by(folder) == sklearn.__version__


def test_another_model_says_nothing(tmp_path: Path) -> None:
    """A folder without a scikit-learn model was written by none."""
    assert written_by(write(tmp_path / "model", {"model.bst": b"_sklearn_version"})) is None
