"""What a serving image can load from a framework's folder, and which scikit-learn version wrote a model."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import joblib
import pytest
import sklearn.linear_model
import yaml

from tests.artifacts.tools import write
from vertex_registry import InvalidArgumentError
from vertex_registry._servable import Addition, Writer, addition, renames, written_by
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


def version_of(folder: Path) -> str | None:
    """Return the version of scikit-learn that wrote the model in a folder."""
    writer = written_by(scan(folder).paths)
    assert writer is None or writer.framework == "sklearn"
    return writer.version if writer else None


ESTIMATOR = sklearn.linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("before", [b"", b"x" * (2**18 - 130), b"x" * (2**18 - 110)])
def test_a_model_says_which_scikit_learn_wrote_it(tmp_path: Path, protocol: int, before: bytes) -> None:
    """The version of scikit-learn is found anywhere in the pickle, without unpickling."""
    other = f"0{sklearn.__version__[1:]}"
    pickled = pickle.dumps(ESTIMATOR, protocol).replace(sklearn.__version__.encode(), other.encode())
    folder = write(tmp_path / "model", {"model.pkl": before + pickled})

    assert version_of(folder) == other


def test_zenmls_pickle_has_a_version_too(tmp_path: Path) -> None:
    """A pickle is read under the name that ZenML gives it, too."""
    pickled = pickle.dumps(ESTIMATOR).replace(sklearn.__version__.encode(), f"0{sklearn.__version__[1:]}".encode())

    assert version_of(write(tmp_path / "model", {"artifact.pkl": pickled})) == f"0{sklearn.__version__[1:]}"


def test_joblib_files_have_a_version_too(tmp_path: Path) -> None:
    """Files of joblib are read as well. For a compressed one, the installed version is the best guess."""
    for name, compress in (("plain", 0), ("compressed", 3)):
        folder = write(tmp_path / name, {})
        folder.mkdir()
        joblib.dump(ESTIMATOR, folder / "model.joblib", compress=compress)
        assert version_of(folder) == sklearn.__version__


def test_another_model_has_no_version(tmp_path: Path) -> None:
    """A folder without a scikit-learn model has no scikit-learn version."""
    assert version_of(write(tmp_path / "model", {"model.bst": b"_sklearn_version"})) is None


# --- MLflow -----------------------------------------------------------------------------------------------------------

XGBOOST = ("model.bst", *SKLEARN)


def mlmodel(**flavors: object) -> bytes:
    """Return the content of a file MLmodel."""
    return yaml.safe_dump({"flavors": flavors, "mlflow_version": "3.17.2"}).encode()


def sklearn_flavor(file: str, **settings: object) -> bytes:
    return mlmodel(
        python_function={"loader_module": "mlflow.sklearn", "model_path": file},
        sklearn={"pickled_model": file, "sklearn_version": "1.5.2", **settings},
    )


def xgboost_flavor(file: str, version: object = "2.1.4") -> bytes:
    return mlmodel(python_function={"loader_module": "mlflow.xgboost"}, xgboost={"data": file, "xgb_version": version})


def added(folder: Path, loads: tuple[str, ...]) -> Addition | None:
    return addition(scan(folder).paths, loads)


def test_mlflow_says_what_wrote_a_model(tmp_path: Path) -> None:
    """The file MLmodel names the library and its version, which is used before any pickle."""
    pickled = pickle.dumps(ESTIMATOR)
    sklearns = write(tmp_path / "sklearn", {"MLmodel": sklearn_flavor("model.pkl"), "model.pkl": pickled})
    xgboosts = write(tmp_path / "xgboost", {"MLmodel": xgboost_flavor("model.ubj", 2.0), "model.ubj": b"x"})

    assert written_by(scan(sklearns).paths) == Writer("sklearn", "1.5.2")
    assert written_by(scan(xgboosts).paths) == Writer("xgboost", "2.0")


@pytest.mark.parametrize("file", ["model.ubj", "model.json", "model.xgb"])
def test_an_xgboost_model_of_mlflows_gets_the_name_that_the_image_loads(tmp_path: Path, file: str) -> None:
    """MLflow's own file stays, so MLflow can load the folder too."""
    folder = write(tmp_path / "model", {"MLmodel": xgboost_flavor(file), file: b"x"})

    assert added(folder, XGBOOST) == Addition("model.bst", file)
    assert added(folder, ()) is None
    assert added(folder, ("model.mar",)) is None


def test_a_pickle_of_mlflows_stays_as_it_is(tmp_path: Path) -> None:
    """MLflow calls a pickle what the images call it. One of another name gets that name, too."""
    usual = write(tmp_path / "usual", {"MLmodel": sklearn_flavor("model.pkl"), "model.pkl": b"x"})
    other = write(tmp_path / "other", {"MLmodel": sklearn_flavor("iris.pkl"), "iris.pkl": b"x"})

    assert added(usual, SKLEARN) is None
    assert added(other, SKLEARN) == Addition("model.pkl", "iris.pkl")


def test_a_skops_file_of_mlflows_is_to_be_converted(tmp_path: Path) -> None:
    """The images can't load skops. The file MLmodel names the types that its writer trusts."""
    flavor = sklearn_flavor("model.skops", serialization_format="skops", skops_trusted_types=["mine.Scaler"])
    folder = write(tmp_path / "model", {"MLmodel": flavor, "model.skops": b"x"})

    assert added(folder, SKLEARN) == Addition(
        "model.joblib", "model.skops", converted=True, written_by="1.5.2", trusted=("mine.Scaler",)
    )
    assert added(folder, ()) is None


@pytest.mark.parametrize(
    ("flavors", "named"),
    [
        ({"python_function": {"loader_module": "mlflow.pyfunc.model"}}, "the flavor python_function"),
        ({"python_function": {}, "pytorch": {}}, "the flavor pytorch"),
        ({"python_function": {}, "keras": {}, "tensorflow": {}}, "the flavor keras or tensorflow"),
    ],
)
def test_other_flavors_have_no_prebuilt_image(tmp_path: Path, flavors: dict[str, object], named: str) -> None:
    """The message names the flavor, and what to do."""
    folder = write(tmp_path / "model", {"MLmodel": mlmodel(**flavors), "python_model.pkl": b"x"})

    with pytest.raises(InvalidArgumentError, match=rf"{named}\. Set container= to an image that serves it\."):
        written_by(scan(folder).paths)
    assert added(folder, XGBOOST) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"flavors: [unclosed",
        b"flavors: sklearn",
        b"- flavors",
        b"flavors: {sklearn: 1}",
        b"[" * 100_000,
        b"flavors: {sklearn: {pickled_model: ../../etc/passwd}}",
        b"flavors: {sklearn: {pickled_model: [model.pkl], sklearn_version: true}}",
        b"flavors: !!python/object/apply:os.getpid []",
    ],
    ids=lambda content: content[:20].decode(errors="replace"),
)
def test_somebody_elses_mlmodel_decides_nothing(tmp_path: Path, content: bytes) -> None:
    """A file with this name that isn't MLflow's has no effect."""
    folder = write(tmp_path / "model", {"MLmodel": content, "model.pkl": pickle.dumps(ESTIMATOR)})

    assert version_of(folder) == sklearn.__version__
    assert added(folder, ("model.bst",)) is None
