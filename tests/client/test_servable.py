"""What a serving image can load from a framework's folder, and which scikit-learn version wrote a model."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import joblib
import pytest
import sklearn.linear_model

from tests.artifacts.tools import write
from vertex_registry import InvalidArgumentError
from vertex_registry._servable import renames, sklearn_version
from vertex_registry.artifacts import scan

if TYPE_CHECKING:
    from pathlib import Path

SKLEARN = ("model.joblib", "model.pkl")


def test_zenmls_pickle_is_renamed_for_images_that_load_pickles() -> None:
    """ZenML's ``artifact.pkl`` is what the images call ``model.pkl``."""
    names = ["artifact.pkl", "python_version.txt"]

    assert renames(names, SKLEARN, where="output") == {"artifact.pkl": "model.pkl"}
    assert renames(names, ("model.bst", *SKLEARN), where="output") == {"artifact.pkl": "model.pkl"}


@pytest.mark.parametrize("loads", [(), ("model.mar",), ("saved_model.pb", "saved_model.pbtxt")])
def test_nothing_is_renamed_for_other_images(loads: tuple[str, ...]) -> None:
    """An image that isn't prebuilt, or doesn't load a pickle, gets the folder as it is."""
    assert renames(["artifact.pkl"], loads, where="output") == {}


@pytest.mark.parametrize(
    "names", [["model.pkl"], ["model.joblib", "model.pkl"], ["below/artifact.pkl"], ["Artifact.pkl"], []]
)
def test_a_folder_without_a_known_layout_stays_as_it_is(names: list[str]) -> None:
    """Only a file at the top of the folder, with exactly that name, is renamed."""
    assert renames(names, SKLEARN, where="output") == {}


@pytest.mark.parametrize("others", [["model.joblib"], ["model.pkl"], ["model.joblib", "model.pkl"]], ids="-".join)
def test_a_file_beside_another_model_is_not_renamed(others: list[str]) -> None:
    """If there are several models, none is guessed. The error names all of them."""
    with pytest.raises(InvalidArgumentError) as refused:
        renames(["artifact.pkl", "notes.txt", *others], SKLEARN, where="output")

    assert f"'output' holds {' and '.join(['artifact.pkl', *others])}, and the image loads one model" in str(
        refused.value
    )
    assert refused.value.resource == "output"


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


def test_zenmls_pickle_has_a_version_too(tmp_path: Path) -> None:
    """A pickle is read under the name that ZenML gives it, too."""
    pickled = pickle.dumps(ESTIMATOR).replace(sklearn.__version__.encode(), f"0{sklearn.__version__[1:]}".encode())

    assert written_by(write(tmp_path / "model", {"artifact.pkl": pickled})) == f"0{sklearn.__version__[1:]}"


def test_joblib_files_have_a_version_too(tmp_path: Path) -> None:
    """Files of joblib are read as well. For a compressed one, the installed version is the best guess."""
    for name, compress in (("plain", 0), ("compressed", 3)):
        folder = write(tmp_path / name, {})
        folder.mkdir()
        joblib.dump(ESTIMATOR, folder / "model.joblib", compress=compress)
        assert written_by(folder) == sklearn.__version__


def test_another_model_has_no_version(tmp_path: Path) -> None:
    """A folder without a scikit-learn model was written by none."""
    assert written_by(write(tmp_path / "model", {"model.bst": b"_sklearn_version"})) is None
