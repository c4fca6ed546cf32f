"""Load a model object from an artifact's folder. Nothing is loaded unless the caller trusts its writer.

The first entry of ``FORMATS`` with a file in the folder decides. Most formats run code of the writer's choice when they
are loaded. XGBoost's don't, but XGBoost 3.2 checks neither depth nor indexes: a crafted file crashes the process.
No framework is a dependency: install the one that loads the file.
"""

from __future__ import annotations

import importlib
import pickle
import zipfile
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry.errors import InvalidArgumentError, NotFoundError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@attrs.frozen
class Format:
    """A way to save a model to a folder.

    Attributes:
        file: The name of its file, or a pattern of it.
        library: The module that loads it; Python's own is "pickle".
        runs_code: Whether loading it runs code of the writer's choice. If not, a crafted file can crash the process.
        read: The function that returns the object, from the module and the path of the file.
    """

    file: str
    library: str
    runs_code: bool
    read: Callable[[Any, Path], Any]


def _read_booster(xgboost: Any, path: Path) -> Any:
    booster = xgboost.Booster()
    # Load from memory, because XGBoost guesses the format by the file's name and doesn't know .bst.
    booster.load_model(bytearray(path.read_bytes()))
    return booster


def _read_pickle(_: Any, path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301  # `load` has checked that the caller trusts the writer


def _is_script(path: Path) -> bool:
    """Return whether a torch file is a scripted module. Before version 1.6, torch didn't write zip files."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torch(torch: Any, path: Path) -> Any:
    if _is_script(path):
        return torch.jit.load(path, map_location="cpu")
    return torch.load(path, map_location="cpu", weights_only=False)


FORMATS: Final = (
    Format("model.joblib", "joblib", runs_code=True, read=lambda joblib, path: joblib.load(path)),
    Format("model.pkl", "pickle", runs_code=True, read=_read_pickle),
    Format("model.bst", "xgboost", runs_code=False, read=_read_booster),
    Format("model.json", "xgboost", runs_code=False, read=_read_booster),
    Format("model.ubj", "xgboost", runs_code=False, read=_read_booster),
    Format(
        "saved_model.pb*", "tensorflow", runs_code=True, read=lambda tf, path: tf.saved_model.load(str(path.parent))
    ),
    Format("*.keras", "keras", runs_code=True, read=lambda keras, path: keras.saving.load_model(path, safe_mode=True)),
    Format("entire_model.pt", "torch", runs_code=True, read=_read_torch),
    Format("model.pt", "torch", runs_code=True, read=_read_torch),
    Format("model.pth", "torch", runs_code=True, read=_read_torch),
    Format("artifact.pkl", "pickle", runs_code=True, read=_read_pickle),
)


def find_format(names: list[str], where: str) -> tuple[Format, str]:
    """Return the format of a directory with these files at its top level, and the model's file.

    Raises:
        NotFoundError: None of the files is a model that can be loaded.
    """
    for form in FORMATS:
        for name in sorted(names):
            if fnmatchcase(name, form.file):
                return form, name
    known = ", ".join(form.file for form in FORMATS)
    raise NotFoundError(
        f"{where} has no model that can be loaded, such as {known}. "
        "Download its folder with download_version() to load the model yourself.",
        resource=where,
    )


def load(folder: Path, *, trusted: bool, where: str) -> Any:
    """Load the model object from a folder.

    Args:
        folder: The artifact's folder on this machine.
        trusted: Whether the caller trusts its writer with everything on this machine.
        where: Where the folder came from, for messages.

    Raises:
        NotFoundError: None of the files is a model that can be loaded.
        InvalidArgumentError: ``trusted`` isn't True.
        RegistryError: The library that loads it isn't installed, or can't load it.
    """
    form, name = find_format([path.name for path in folder.iterdir() if path.is_file()], where)
    if trusted is not True:
        danger = (
            "runs whatever code the writer of the file put in it"
            if form.runs_code
            else "doesn't check the file, and a crafted one crashes this process"
        )
        raise InvalidArgumentError(
            f"{name} in {where} was not loaded: {form.library} {danger}. "
            "Pass trusted=True if you trust everybody who can write there."
        )
    try:
        library = importlib.import_module(form.library)
    except ImportError as error:
        raise RegistryError(
            f"{form.library}, which loads {name} in {where}, isn't installed. Run pip install {form.library}.",
            resource=where,
        ) from error
    try:
        return form.read(library, folder / name)
    except Exception as error:  # whatever the library, or the object's own code, raises
        message = (str(error).strip() or "no message").splitlines()[0]  # XGBoost adds a stack trace
        raise RegistryError(
            f"{form.library} couldn't load {name} in {where}: {type(error).__name__}: {message}. Install the version "
            "that wrote the file, and the libraries that the model uses.",
            resource=where,
        ) from error
