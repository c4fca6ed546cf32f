"""Turn a framework's folder into one that a serving image can load. Pure: no network, no framework."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from vertex_registry._quoting import quote
from vertex_registry.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

#: What a framework calls a file, and what the serving images call the same file. A new framework adds its files here.
_SERVED_AS: Final[Mapping[str, str]] = {
    "artifact.pkl": "model.pkl",  # ZenML, of a scikit-learn model
}

_VERSION: Final = re.compile(r"\d[\w.+!-]{0,40}", re.ASCII)
_MOST_NAMED: Final = 3
_LONGEST_NAME: Final = 60
_BLOCK: Final = 2**18
# Pickle's opcodes: a string, optionally a memo, and the next string after its length.
_WRITTEN_BY: Final = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c(?P<short>.)|X(?P<long>.{4}))(?P<text>\d+\.\d+[\w.+]{0,40})", re.DOTALL
)
_OVERLAP: Final = 100

#: What MLflow calls the file that describes a model's folder.
_MLMODEL: Final = "MLmodel"
#: The largest such file that is read. A signature of thousands of columns needs a tenth of it.
_LARGEST_MLMODEL: Final = 4 * 2**20
#: The deepest nesting in such a file. MLflow's own has five levels.
_DEEPEST_MLMODEL: Final = 100


@attrs.frozen
class _Flavor:
    """A way that MLflow saves models which a prebuilt image can serve.

    Attributes:
        framework: The framework of the image.
        version: The key of the framework's version in the file MLmodel.
        file: The key of the model's file there.
        served_as: What the image calls that file.
    """

    framework: str
    version: str
    file: str
    served_as: str


_FLAVORS: Final[Mapping[str, _Flavor]] = {
    "sklearn": _Flavor("sklearn", "sklearn_version", "pickled_model", "model.pkl"),
    "xgboost": _Flavor("xgboost", "xgb_version", "data", "model.bst"),
}


@attrs.frozen
class Writer:
    """What wrote a model.

    Attributes:
        framework: The framework: ``"sklearn"`` or ``"xgboost"``.
        version: Its version.
    """

    framework: str
    version: str


@attrs.frozen
class Addition:
    """A file that an image loads, and that a framework's folder lacks.

    Attributes:
        name: What the image calls it.
        made_from: The file of the folder that it's made from.
        converted: Whether it's converted from skops to joblib. If not, it's a copy.
        written_by: The scikit-learn that wrote the file.
        trusted: The types that the writer trusts to be loaded from it.
    """

    name: str
    made_from: str
    converted: bool = False
    written_by: str = ""
    trusted: tuple[str, ...] = ()


class MLmodel:
    """What MLflow says about a model, in the file MLmodel. It's read once, and only if somebody needs it.

    Args:
        path: The file, or None if the folder has none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def of(cls, files: Mapping[str, Path]) -> MLmodel:
        """Return what MLflow says about a folder.

        Args:
            files: The paths of the folder's files, by their names below it.
        """
        return cls(files.get(_MLMODEL))

    @functools.cached_property
    def flavors(self) -> dict[str, dict[str, Any]]:
        """The flavors with their settings; none if the folder isn't MLflow's.

        Raises:
            InvalidArgumentError: PyYAML isn't installed.
        """
        if self._path is None:
            return {}
        try:
            yaml = importlib.import_module("yaml")
        except ImportError as error:
            raise InvalidArgumentError(
                "The folder is an MLflow model, and reading its file MLmodel needs PyYAML. Run pip install pyyaml. "
                "Nothing was registered."
            ) from error
        try:
            with self._path.open("rb") as stream:
                text = stream.read(_LARGEST_MLMODEL)
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            deep = _is_too_deep(yaml, text, loader)
            described = None if deep else yaml.load(text, loader)  # both loaders load plain values only
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            return {}  # somebody else's file of that name
        flavors = described.get("flavors") if isinstance(described, dict) else None
        if not isinstance(flavors, dict):
            return {}
        return {str(name): settings for name, settings in flavors.items() if isinstance(settings, dict)}


def renames(names: Iterable[str], loads: Collection[str], *, where: str) -> dict[str, str]:
    """Return which files of a folder to rename so that a serving image can load it: each old name with its new one.

    >>> renames(["artifact.pkl", "python_version.txt"], ["model.joblib", "model.pkl"], where="./output")
    {'artifact.pkl': 'model.pkl'}

    Args:
        names: The paths of the folder's files, below the folder.
        loads: The file names of which the image loads one. If it's empty, the image isn't a prebuilt one, and nothing
            is renamed.
        where: The folder, for messages.

    Raises:
        InvalidArgumentError: A file that would be renamed isn't the only model in the folder.
    """
    there = set(names)
    renamed = {old: new for old, new in _SERVED_AS.items() if old in there and new in loads}
    models = [*renamed, *(name for name in loads if name in there)]
    if renamed and len(models) > 1:
        raise InvalidArgumentError(
            f"{where!r} holds {' and '.join(models)}, and the image loads one model, so nothing was registered. "
            "Remove all but the one that is the model.",
            resource=where,
        )
    return renamed


def addition(files: Mapping[str, Path], loads: Collection[str], described: MLmodel) -> Addition | None:
    """Return the file to add to an MLflow folder so that a serving image can load it, or None if it needs none.

    MLflow's own files stay, so MLflow can load the folder too.

    Args:
        files: The paths of the folder's files, by their names below it.
        loads: The file names of which the image loads one. If it's empty, the image isn't a prebuilt one.
        described: What MLflow says about the folder.

    Raises:
        InvalidArgumentError: It's an MLflow folder, and PyYAML isn't installed.
    """
    if not loads or _MLMODEL not in files or any(name in files for name in loads):
        return None
    for name, settings in described.flavors.items():
        flavor = _FLAVORS.get(name)
        file = _text(settings, flavor.file) if flavor else ""
        if flavor is None or file not in files:
            continue
        if name == "sklearn" and (settings.get("serialization_format") == "skops" or file.endswith(".skops")):
            trusted = settings.get("skops_trusted_types")
            return Addition(
                "model.joblib",
                file,
                converted=True,
                written_by=_version(settings, flavor.version),
                trusted=tuple(map(str, trusted)) if isinstance(trusted, list) else (),
            )
        if flavor.served_as in loads:
            return Addition(flavor.served_as, file)
    return None


def written_by(files: Mapping[str, Path], described: MLmodel) -> Writer | None:
    """Return which framework wrote a model, and its version, or None if that can't be known.

    MLflow's file MLmodel says it. Otherwise a pickled estimator holds the version of scikit-learn, as the item after
    ``_sklearn_version``. It's read there, and nothing is unpickled. If the file is compressed or doesn't hold it, it's
    the version that is installed here.

    Args:
        files: The paths of the model's files, by their names below its folder.
        described: What MLflow says about the folder.

    Raises:
        InvalidArgumentError: MLflow wrote the folder, and no prebuilt image serves what it holds; or PyYAML isn't
            installed.
    """
    flavors = described.flavors
    for name, flavor in _FLAVORS.items():
        if version := _version(flavors.get(name, {}), flavor.version):
            return Writer(flavor.framework, version)
    if flavors and not flavors.keys() & _FLAVORS.keys():
        others = sorted(flavors.keys() - {"python_function"}) or ["python_function"]
        named = [name if name.isidentifier() and len(name) < _LONGEST_NAME else quote(name) for name in others]
        if len(named) > _MOST_NAMED:
            named[_MOST_NAMED:] = [f"{len(named) - _MOST_NAMED} more"]
        raise InvalidArgumentError(
            f"Google has no prebuilt image for an MLflow model of the flavor {' or '.join(named)}. Set container= to "
            "an image that serves it. Nothing was registered."
        )
    return _pickled_by(files)


def _pickled_by(files: Mapping[str, Path]) -> Writer | None:
    for name, path in files.items():
        if _SERVED_AS.get(name, name) in {"model.joblib", "model.pkl"}:
            with contextlib.suppress(OSError), path.open("rb") as stream:
                before = b""
                while data := stream.read(_BLOCK):
                    if (found := _WRITTEN_BY.search(before + data)) is not None:
                        length = int.from_bytes(found["short"] or found["long"], "little")
                        return Writer("sklearn", found["text"][:length].decode())
                    before = data[-_OVERLAP:]
            import importlib.metadata  # noqa: PLC0415  # it's slow, and few callers come here

            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return Writer("sklearn", importlib.metadata.version("scikit-learn"))
    return None


def _is_too_deep(yaml: Any, text: bytes, loader: Any) -> bool:
    """Return whether YAML nests deeper than any that MLflow writes.

    Thousands of open brackets crash older releases of libyaml, and keep PyYAML's own loader busy for a minute. Events
    come one by one, so nothing is read beyond the bound.
    """
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_MLMODEL:
            return True
    return False


def _version(settings: Mapping[str, Any], key: str) -> str:
    """Return a setting that is a version, and nothing for any other text: it's shown to people."""
    text = _text(settings, key)
    return text if _VERSION.fullmatch(text) else ""


def _text(settings: Mapping[str, Any], key: str) -> str:
    """Return a setting that is text. A version such as 2.0 is a number in YAML if it isn't quoted."""
    value = settings.get(key)
    return "" if value is None or isinstance(value, (dict, list, bool)) else str(value)
