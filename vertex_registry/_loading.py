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


def _booster(xgboost: Any, path: Path) -> Any:
    booster = xgboost.Booster()
    # By its content: of a name that ends in .bst XGBoost would say that it does not know the format.
    booster.load_model(bytearray(path.read_bytes()))
    return booster


def _unpickled(_: Any, path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301  # for a caller who trusts the writer, as `load` has made sure


def _is_script(path: Path) -> bool:
    """Whether a file of torch's is a scripted module. Before its version 1.6 torch wrote no zip file."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _torch(torch: Any, path: Path) -> Any:
    if _is_script(path):
        return torch.jit.load(path, map_location="cpu")
    return torch.load(path, map_location="cpu", weights_only=False)


FORMATS: Final = (
    Format("model.joblib", "joblib", runs_code=True, read=lambda joblib, path: joblib.load(path)),
    Format("model.pkl", "pickle", runs_code=True, read=_unpickled),
    Format("model.bst", "xgboost", runs_code=False, read=_booster),
    Format("model.json", "xgboost", runs_code=False, read=_booster),
    Format("model.ubj", "xgboost", runs_code=False, read=_booster),
    Format(
        "saved_model.pb*", "tensorflow", runs_code=True, read=lambda tf, path: tf.saved_model.load(str(path.parent))
    ),
    Format("*.keras", "keras", runs_code=True, read=lambda keras, path: keras.saving.load_model(path, safe_mode=True)),
    Format("entire_model.pt", "torch", runs_code=True, read=_torch),
    Format("model.pt", "torch", runs_code=True, read=_torch),
    Format("model.pth", "torch", runs_code=True, read=_torch),
    Format("artifact.pkl", "pickle", runs_code=True, read=_unpickled),
)


def find_format(names: list[str], where: str) -> tuple[Format, str]:
    """The format of a directory with these files at its top, and the file.

    Raises:
        NotFoundError: None of the files is a model's that can be read here.
    """
    for form in FORMATS:
        for name in sorted(names):
            if fnmatchcase(name, form.file):
                return form, name
    known = ", ".join(form.file for form in FORMATS)
    raise NotFoundError(
        f"There is no model in {where} that can be loaded: it holds none of {known}. "
        "download_version() gives the folder, to load the model in your own way.",
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
            f"{name} in {where} is read by {form.library}, which is not installed: pip install {form.library}.",
            resource=where,
        ) from error
    try:
        return form.read(library, folder / name)
    except Exception as error:  # whatever the library, or the object's own code, raises
        # XGBoost adds the calls that led to it, line by line.
        said = (str(error).strip() or "nothing more").splitlines()[0]
        raise RegistryError(
            f"{form.library} could not load {name} of {where}: {type(error).__name__}: {said}. Is it installed in the "
            "version that wrote the file, with all that the model is made of?",
            resource=where,
        ) from error
