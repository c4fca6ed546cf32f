"""Load the model object from an artifact's folder.

The libraries that write models are large, and a test whose library is not installed is skipped. `make loaders` installs
them all, and sets ``EVERY_LIBRARY``, with which none is.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LinearRegression

from vertex_registry import InvalidArgumentError, NotFoundError, RegistryError
from vertex_registry._loading import FORMATS, _is_script, load

WHERE = "gs://models/line/1"


def library(name: str) -> Any:
    """Import a library that writes models, or skip the test if it isn't installed."""
    return importlib.import_module(name) if os.environ.get("EVERY_LIBRARY") else pytest.importorskip(name)


@pytest.fixture(scope="module")
def line() -> Any:
    """Return a model of a straight line: 2x + 1."""
    return LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])


class Intruder:
    """An object that runs code when it's unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "artifact.pkl"])
def test_scikit_learn(tmp_path: Path, line: Any, name: str) -> None:
    """A saved estimator loads from a file of each name."""
    (tmp_path / "notes.txt").write_text("about it", encoding="utf-8")
    (tmp_path / "assets").mkdir()
    if name == "model.joblib":
        joblib.dump(line, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(line))

    assert load(tmp_path, trusted=True, where=WHERE).predict([[3.0]])[0] == pytest.approx(7.0)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.file)
@pytest.mark.parametrize("trusted", [False, None, 0, "yes"])
def test_nothing_is_loaded_without_trust(tmp_path: Path, form: Any, trusted: Any) -> None:
    """No format is loaded without ``trusted=True``, and the message says why."""
    touched = tmp_path / "touched"
    (tmp_path / form.file).write_bytes(pickle.dumps(Intruder(touched)))
    danger = "runs whatever code" if form.runs_code else "crashes this process"

    with pytest.raises(
        InvalidArgumentError, match=f"{re.escape(form.file)} in {WHERE} was not loaded: .* {danger}.* trusted=True"
    ):
        load(tmp_path, trusted=trusted, where=WHERE)
    assert not touched.exists()


def test_only_trees_run_no_code() -> None:
    """Only XGBoost's formats can be loaded without running code from the file."""
    assert {form.library for form in FORMATS if not form.runs_code} == {"xgboost"}


CRAFTED = """
import sys
from pathlib import Path
from vertex_registry._loading import load
try:
    load(Path(sys.argv[1]), trusted=False, where="gs://models/line/1")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_crafted_booster_needs_trust(tmp_path: Path) -> None:
    """A booster nested so deep that XGBoost crashes with it isn't read without trust."""
    library("xgboost")
    (tmp_path / "model.json").write_bytes(b'{"a":' + b"[" * 5_000_000)
    run = subprocess.run([sys.executable, "-c", CRAFTED, tmp_path], capture_output=True, text=True, check=False)

    assert run.stdout.startswith("InvalidArgumentError model.json in gs://models/line/1 was not loaded"), run


def test_what_is_trusted_is_run(tmp_path: Path) -> None:
    """Trusted files do run code, which is why the others are refused."""
    touched = tmp_path / "touched"
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Intruder(touched)))
    load(tmp_path, trusted=True, where=WHERE)

    assert touched.exists()


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    """In a folder without a model, the error lists the files that would have been recognized."""
    (tmp_path / "weights.bin").write_bytes(b"?")

    with pytest.raises(NotFoundError, match=r"gs://models/line/1 has no model .*model\.joblib, model\.pkl"):
        load(tmp_path, trusted=True, where=WHERE)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"a": 1})[:-3]])
def test_a_file_that_is_broken(tmp_path: Path, content: bytes) -> None:
    """If the library can't read a file, the error names both, and the library's own error is the cause."""
    (tmp_path / "model.pkl").write_bytes(content)

    with pytest.raises(RegistryError, match=rf"pickle couldn't load model\.pkl in {WHERE}") as refused:
        load(tmp_path, trusted=True, where=WHERE)
    assert refused.value.__cause__ is not None


def test_a_librarys_message_is_one_line(tmp_path: Path) -> None:
    """The error for a broken booster has one line of XGBoost's message."""
    library("xgboost")
    (tmp_path / "model.bst").write_bytes(b"no booster")

    with pytest.raises(RegistryError, match=r"xgboost couldn't load model\.bst") as refused:
        load(tmp_path, trusted=True, where=WHERE)
    assert "\n" not in str(refused.value)


def test_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the library isn't installed, the message says which one to install."""
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    (tmp_path / "model.bst").write_bytes(b"")

    with pytest.raises(RegistryError, match=r"which loads model\.bst in .*, isn't installed\. Run pip install xgboost"):
        load(tmp_path, trusted=True, where=WHERE)


@pytest.mark.parametrize("name", ["model.bst", "model.json", "model.ubj"])
def test_xgboost(tmp_path: Path, name: str) -> None:
    """A booster comes back from each of XGBoost's own files."""
    xgboost = library("xgboost")
    numpy = library("numpy")
    features = numpy.array([[0.0], [1.0], [2.0], [3.0]])
    data = xgboost.DMatrix(features, label=features[:, 0])
    booster = xgboost.train({"base_score": 0.0}, data, num_boost_round=5)
    suffix = "json" if name.endswith(".json") else "ubj"  # which `model.bst` is, under its older name
    booster.save_model(tmp_path / f"saved.{suffix}")
    (tmp_path / f"saved.{suffix}").rename(tmp_path / name)

    loaded = load(tmp_path, trusted=True, where=WHERE)
    assert numpy.array_equal(loaded.predict(data), booster.predict(data))


@pytest.mark.parametrize("name", ["entire_model.pt", "model.pt", "model.pth"])
@pytest.mark.parametrize("script", [False, True], ids=["module", "script"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torch(tmp_path: Path, name: str, *, script: bool) -> None:
    """A module is loaded from a file of each name, and so is a scripted one."""
    torch = library("torch")
    module = torch.nn.Linear(2, 1)
    if script:
        torch.jit.script(module).save(tmp_path / name)
    else:
        torch.save(module, tmp_path / name)

    given = torch.tensor([[1.0, 2.0]])
    assert torch.equal(load(tmp_path, trusted=True, where=WHERE)(given), module(given))


def test_torch_before_its_zip_files(tmp_path: Path) -> None:
    """A module in torch's format before 1.6 is loaded as well."""
    torch = library("torch")
    module = torch.nn.Linear(2, 1)
    torch.save(module, tmp_path / "model.pt", _use_new_zipfile_serialization=False)

    given = torch.tensor([[1.0, 2.0]])
    assert torch.equal(load(tmp_path, trusted=True, where=WHERE)(given), module(given))


def test_a_scripted_module_is_recognized_by_its_files(tmp_path: Path) -> None:
    """A scripted module is recognized by its files."""
    (tmp_path / "older.pt").write_bytes(pickle.dumps("torch"))
    for name, member in (("module.pt", "module/data.pkl"), ("script.pt", "script/constants.pkl")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, b"")

    assert [_is_script(tmp_path / name) for name in ("older.pt", "module.pt", "script.pt")] == [False, False, True]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras on TensorFlow
def test_keras(tmp_path: Path) -> None:
    """A Keras model is loaded from its own file."""
    keras = library("keras")
    numpy = library("numpy")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")

    given = numpy.array([[1.0, 2.0]])
    assert numpy.allclose(load(tmp_path, trusted=True, where=WHERE).predict(given), model.predict(given))


def test_tensorflow(tmp_path: Path) -> None:
    """A TensorFlow SavedModel is loaded from its folder."""
    tf = library("tensorflow")

    class Twice(tf.Module):  # type: ignore[misc,name-defined]  # what it is, is known at run time only
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])  # type: ignore[untyped-decorator]  # likewise
        def __call__(self, given: Any) -> Any:
            return given * 2

    tf.saved_model.save(Twice(), str(tmp_path))

    assert list(load(tmp_path, trusted=True, where=WHERE)(tf.constant([1.0, 2.0])).numpy()) == [2.0, 4.0]
