"""Read an MLflow registry: everything about its models and versions, and the files of a version.

MLflow is imported when a registry is opened. Whatever it raises becomes an error of this package here.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import os
import shutil
import sqlite3
import tempfile
import urllib.parse
import urllib.request
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import requests

from vertex_registry import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: The most models, and the most versions, that MLflow gives at once.
_MODELS_PAGE: Final = 1000
_VERSIONS_PAGE: Final = 10_000
_PROMPT_TAG: Final = "mlflow.prompt.is_prompt"
_IS_PROMPT: Final = f"tags.`{_PROMPT_TAG}` = 'true'"
#: A filter that every model matches, because no name has a slash. MLflow's client adds one of its own if there's none
#: that mentions prompts, and no model matches that on a server before 2.21.
_ANY_MODEL: Final = f"name != '{_PROMPT_TAG}/'"
#: The schemes of databases.
_DATABASES: Final = frozenset({"postgresql", "mysql", "sqlite", "mssql"})
#: The schemes of Databricks, whose filters are others.
_DATABRICKS: Final = frozenset({"databricks", "databricks-uc", "uc"})
_PROBE_SECONDS: Final = 10.0
_READERS: Final = 8
_LONGEST: Final = 300
#: The file in which MLflow describes a model.
_DESCRIPTION: Final = "MLmodel"
_MOST_OUTLINED: Final = 1000
#: How MLflow's message begins if only its server can read an artifact.
_NEEDS_SERVER: Final = "When an mlflow-artifacts URI was supplied"
#: How MLflow's message begins, and what else it says, if a server has failed for minutes.
_GAVE_UP: Final = "API request to"
_RETRIED: Final = "Max retries exceeded"
#: How MLflow's message begins if a registry is a folder, which it only reads if a variable allows it.
_FILE_STORE: Final = "The filesystem tracking backend"
_NOT_FOUND: Final = 404

#: MLflow's codes for each of this package's errors.
_ERRORS: Final[Mapping[type[RegistryError], frozenset[str]]] = {
    PermissionDeniedError: frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}),
    NotFoundError: frozenset({"RESOURCE_DOES_NOT_EXIST", "ENDPOINT_NOT_FOUND", "NOT_FOUND"}),
    UnavailableError: frozenset({"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"}),
}


@attrs.frozen(kw_only=True)
class SourceVersion:
    """A version in MLflow. Times are in milliseconds since 1970."""

    number: int
    source: str
    run_id: str
    run_link: str
    user_id: str
    stage: str
    status: str
    status_message: str
    description: str
    tags: dict[str, str]
    created: int
    updated: int

    @property
    def model_id(self) -> str:
        """The logged model that it was registered from. MLflow's stores leave it in the source."""
        found = self.source.removeprefix("models:/").split("/", 1)[0]
        return found if self.source.startswith("models:/m-") else ""


@attrs.frozen(kw_only=True)
class SourceModel:
    """A model in MLflow.

    Attributes:
        aliases: The number of the version that each alias names.
    """

    name: str
    description: str
    tags: dict[str, str]
    created: int
    aliases: dict[str, int]
    versions: tuple[SourceVersion, ...]


@attrs.frozen
class Artifact:
    """The files of a version.

    Attributes:
        uri: Where they are, without a password.
        size: Their bytes.
        folder: They themselves if they're on this machine. Otherwise an outline: the same names, and the content of the
            file MLmodel.
        exact: Whether the folder shows what wrote the model.
    """

    uri: str
    size: int
    folder: Path
    exact: bool


class MlflowSource:
    """An MLflow registry, to read.

    Args:
        uri: The URI that MLflow has it under.

    Raises:
        RegistryError: MLflow isn't installed, or there's no such registry.
    """

    def __init__(self, uri: str) -> None:
        self.uri = _check_uri(uri)
        self.shown = without_password(self.uri)
        _check_database(self.uri)
        _check_server(self.uri, self.shown)
        try:
            import mlflow.artifacts  # noqa: PLC0415  # it's in an extra, and takes a second
        except ImportError as error:
            raise RegistryError(
                "Reading MLflow's registry needs MLflow. Install it: pip install 'vertex-registry[mlflow]'"
            ) from error
        self._artifacts: Any = mlflow.artifacts
        with self._explain():
            self._opened = self._database_to_open() if _scheme(self.uri) in _DATABASES else self.uri
            self._tracking = self._opened.replace("databricks-uc", "databricks", 1)
            self._client: Any = mlflow.MlflowClient(tracking_uri=self._tracking, registry_uri=self._opened)
            self._client.search_registered_models(max_results=1)

    def _database_to_open(self) -> str:
        """Return the URI of the database, or of an upgraded copy if it's of another release.

        MLflow upgrades a database that it opens, and servers of the older release don't start with it any more.

        Raises:
            InvalidArgumentError: It's of another release, and it isn't a file.
        """
        import mlflow  # noqa: PLC0415  # likewise
        import sqlalchemy  # noqa: PLC0415  # likewise
        from alembic.migration import MigrationContext  # noqa: PLC0415  # likewise
        from mlflow.db import upgrade  # noqa: PLC0415  # likewise
        from mlflow.store.db.utils import _get_latest_schema_revision  # noqa: PLC0415  # likewise

        engine = sqlalchemy.create_engine(self.uri)
        with contextlib.closing(engine.connect()) as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
        engine.dispose()
        latest: Any = _get_latest_schema_revision
        if revision == latest():
            return self.uri
        if (file := _database_file(self.uri)) is None:
            raise InvalidArgumentError(
                f"{self.shown} isn't a database of MLflow {mlflow.__version__}, which is installed here. Opening it "
                "would upgrade it, so nothing was read. Pass the address of its server, such as http://localhost:5000."
            )
        folder = tempfile.mkdtemp(prefix="vertex-registry-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder, "mlflow.db")
        with contextlib.closing(_open_to_read(file)) as old, contextlib.closing(sqlite3.connect(copy)) as new:
            old.backup(new)
        try:
            upgrade.main([f"sqlite:///{copy}"], standalone_mode=False)
        except Exception as error:
            raise RegistryError(
                f"{file} is a database of another MLflow, and {mlflow.__version__}, which is installed here, can't "
                f"read it: {_first_line(error).rstrip('.')}. Pass the address of its server, such as "
                "http://localhost:5000.",
                resource=str(file),
            ) from error
        return f"sqlite:///{copy}"

    def count_prompts(self) -> int:
        """Return how many prompts there are. They're stored as models; servers before prompts have none."""
        try:
            with self._explain():
                return sum(1 for _ in self._pages(self._client.search_registered_models, _MODELS_PAGE, _IS_PROMPT))
        except RegistryError:
            return 0

    def read_models(self, names: Iterable[str] | None = None) -> list[SourceModel]:
        """Return the models with these names, or all of them, with their versions by number.

        Raises:
            NotFoundError: A model doesn't exist.
        """
        with self._explain():
            wanted = sorted({model.name for model in self._all_models()} if names is None else set(names))
            versions: dict[str, dict[int, SourceVersion]] = {name: {} for name in wanted}
            for version in self._versions(wanted if names is not None else None):
                if version.name in versions:  # the number is text over REST
                    read = _read_version(version)
                    versions[version.name][read.number] = read
        models = []
        for name in wanted:
            with self._explain(f"The model {name!r} of {self.shown}"):
                try:
                    model = self._client.get_registered_model(name)  # searches return no aliases
                except Exception as error:
                    if getattr(error, "error_code", "") in _ERRORS[NotFoundError]:
                        raise self._unknown_model(name) from error
                    raise
            models.append(_read_model(model, versions[name]))
        return models

    def _unknown_model(self, name: str) -> NotFoundError:
        found = [model.name for model in self._all_models()]
        close = difflib.get_close_matches(name, found, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"It has {len(found)} models."
        return NotFoundError(f"{self.shown} has no model {name!r}. {hint}", resource=name)

    def _all_models(self) -> Iterator[Any]:
        """Yield all models that aren't prompts."""
        filter_string = None if _scheme(self.uri) in _DATABRICKS else _ANY_MODEL  # those have no prompts
        for model in self._pages(self._client.search_registered_models, _MODELS_PAGE, filter_string):
            if dict(model.tags).get(_PROMPT_TAG) != "true":  # servers before prompts don't leave them out
                yield model

    def _versions(self, names: list[str] | None) -> Iterator[Any]:
        search = self._client.search_model_versions
        if names is None or any("'" in name for name in names):
            yield from self._pages(search, _VERSIONS_PAGE, None)
            return
        for name in names:
            yield from self._pages(search, _VERSIONS_PAGE, f"name = '{name}'")

    @staticmethod
    def _pages(search: Callable[..., Any], size: int, filter_string: str | None) -> Iterator[Any]:
        token = None
        while True:
            page = search(filter_string=filter_string, max_results=size, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def inspect(
        self, versions: Iterable[tuple[str, int]], folder: Path
    ) -> dict[tuple[str, int], Artifact | RegistryError]:
        """Return what the artifact of each version is, or why it can't be read.

        Args:
            versions: The versions: the name of the model, and the number.
            folder: An empty folder for the outlines of artifacts that aren't on this machine.
        """
        listed = list(versions)
        unavailable: list[RegistryError] = []

        def read(place: int) -> Artifact | RegistryError:
            if unavailable:
                return unavailable[0]  # MLflow's client takes minutes to give up
            try:
                return self._inspect(*listed[place], folder / str(place))
            except UnavailableError as error:
                unavailable.append(error)
                return error
            except RegistryError as error:
                return error

        with ThreadPoolExecutor(_READERS) as pool:
            return dict(zip(listed, pool.map(read, range(len(listed))), strict=True))

    def _inspect(self, name: str, number: int, outline: Path) -> Artifact:
        uri = self._artifact_uri(name, number)
        shown = without_password(uri)
        local = _local_path(uri)
        with self._explain(f"The artifact at {shown}"):
            sizes = dict(self._sizes(uri, ""))
            if not sizes:
                raise NotFoundError(f"There are no files at {shown}.", resource=uri)
            if local is None:
                _write_outline(outline, sizes)
                if _DESCRIPTION in sizes:
                    (outline / _DESCRIPTION).unlink(missing_ok=True)
                    self._download(f"{uri.rstrip('/')}/{_DESCRIPTION}", outline)
        return Artifact(shown, sum(sizes.values()), local or outline, exact=local is not None or _DESCRIPTION in sizes)

    def _sizes(self, uri: str, below: str) -> Iterator[tuple[str, int]]:
        """Yield the files of an artifact: each one's name below it, and its bytes."""
        if (folder := _local_path(uri)) is not None:
            for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
                if path.is_file():
                    yield path.relative_to(folder).as_posix(), path.stat().st_size
            return
        for info in self._artifacts.list_artifacts(f"{uri.rstrip('/')}/{below}", tracking_uri=self._tracking):
            name = f"{below}{info.path.rstrip('/').rpartition('/')[2]}"
            if info.is_dir:
                yield from self._sizes(uri, f"{name}/")
            else:
                yield name, int(info.file_size or 0)

    def _download(self, uri: str, folder: str | Path) -> Path:
        return Path(
            self._artifacts.download_artifacts(
                artifact_uri=uri, dst_path=str(folder), tracking_uri=self._tracking, registry_uri=self._opened
            )
        )

    @contextlib.contextmanager
    def artifact(self, name: str, number: int) -> Iterator[Path]:
        """Yield the folder of a version's artifact on this machine. It's a copy, unless it's here already."""
        uri = self._artifact_uri(name, number)
        if (folder := _local_path(uri)) is not None and folder.exists():
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="vertex-registry-") as copy:
            with self._explain(f"The artifact at {without_password(uri)}"):
                path = self._download(uri, copy)
            yield path

    def _artifact_uri(self, name: str, number: int) -> str:
        with self._explain(f"The artifact of version {number} of {name!r}"):
            uri = str(self._client.get_model_version_download_uri(name, str(number)) or "")
            stored = uri
            if uri.startswith("runs:/"):
                run_id, _, path = uri.removeprefix("runs:/").partition("/")
                stored = f"{str(self._client.get_run(run_id).info.artifact_uri).rstrip('/')}/{path}"
            self._check_local(stored)
            return uri if stored == uri or self._has_logged_models else stored

    def _check_local(self, uri: str) -> None:
        """Refuse to copy a folder of this machine that another machine names, unless it's an MLflow model.

        Whoever can write to a shared registry can name any folder, such as one with keys.

        Raises:
            InvalidArgumentError: It may not be copied.
        """
        if not uri.strip():
            raise InvalidArgumentError("MLflow doesn't say where its artifact is.")
        own = _database_file(self.uri) is not None or _is_folder(self.uri)
        folder = _local_path(uri)
        if own or folder is None or not folder.exists() or (folder / _DESCRIPTION).is_file():
            return
        raise InvalidArgumentError(
            f"{self.shown} says that its artifact is {folder} on this machine, which isn't an MLflow model, so it "
            "isn't copied. Register it yourself if it's a model."
        )

    @functools.cached_property
    def _has_logged_models(self) -> bool:
        """Whether it's MLflow 3, where the artifacts of a run are in two places. MLflow's client looks at both."""
        try:
            self._client.search_logged_models(["0"], max_results=1)
        except Exception as error:  # noqa: BLE001  # only a server without them says that it has no such endpoint
            return getattr(error, "get_http_status_code", lambda: 0)() != _NOT_FOUND
        return True

    @contextlib.contextmanager
    def _explain(self, what: str = "") -> Iterator[None]:
        """Turn whatever MLflow and the libraries of artifact stores raise into an error of this package."""
        subject = what or self.shown
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:  # any library may be behind the URI
            code = str(getattr(error, "error_code", ""))
            status = getattr(error, "get_http_status_code", lambda: 0)()
            kind = next((kind for kind, codes in _ERRORS.items() if code in codes), RegistryError)
            text = _first_line(error)
            if status in {401, 403} or "error code 401" in text or "error code 403" in text:
                kind = PermissionDeniedError
                text += ". Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            if text.startswith(_GAVE_UP) and _RETRIED in text:
                kind, text = UnavailableError, "the server doesn't answer, or answers with errors. Run this again later"
            if isinstance(error, ModuleNotFoundError):
                text = f"the package {error.name} isn't installed. Install it, and run this again"
            if text.startswith(_FILE_STORE):
                text = "it's a folder, and MLflow 3 only reads it with MLFLOW_ALLOW_FILE_STORE=true. Set that variable"
            if text.startswith(_NEEDS_SERVER):
                text = "MLflow's server keeps it. Pass the address of the server, such as http://localhost:5000"
            text = text.replace(self.uri, self.shown).replace(getattr(self, "_opened", self.uri), self.shown)
            raise kind(f"{subject} can't be read: {text.rstrip('.')}.", resource=subject) from error


def _read_version(version: Any) -> SourceVersion:
    return SourceVersion(
        number=int(version.version),
        source=version.source or "",
        run_id=version.run_id or "",
        run_link=version.run_link or "",
        user_id=version.user_id or "",
        stage=version.current_stage or "None",
        status=str(version.status or "READY"),
        status_message=version.status_message or "",
        description=version.description or "",
        tags={str(key): str(value) for key, value in dict(version.tags).items()},
        created=int(version.creation_timestamp or 0),
        updated=int(version.last_updated_timestamp or 0),
    )


def _read_model(model: Any, versions: Mapping[int, SourceVersion]) -> SourceModel:
    return SourceModel(
        name=model.name,
        description=model.description or "",
        tags={str(key): str(value) for key, value in dict(model.tags).items()},
        created=int(model.creation_timestamp or 0),
        aliases={str(alias): int(number) for alias, number in dict(model.aliases).items()},
        versions=tuple(versions[number] for number in sorted(versions)),
    )


def _write_outline(folder: Path, names: Iterable[str]) -> None:
    """Create a folder with empty files of these names. One that isn't the name of a file below it is left out."""
    folder.mkdir()
    for name in itertools.islice(names, _MOST_OUTLINED):
        path = folder / name
        if folder in path.parents and ".." not in path.parts:
            with contextlib.suppress(OSError, ValueError):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def without_password(uri: str) -> str:
    """Return a URI without its password and its query, which may have one too."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    if not separator:
        return uri
    user, at, address = host.rpartition("@")
    return f"{scheme}://{user.partition(':')[0] + at if at else ''}{address}{slash}{path.partition('?')[0]}"


def _check_uri(uri: Any) -> str:
    if not isinstance(uri, str) or not uri.strip():
        raise InvalidArgumentError(
            "The URI of MLflow's registry is empty. Pass one such as sqlite:///mlflow.db or http://localhost:5000."
        )
    if not uri.isprintable():
        raise InvalidArgumentError(f"The URI {uri!r} has characters that can't be seen. Check how it was copied.")
    scheme = uri.partition(":")[0]
    if _scheme(uri) == "sqlite" and uri.partition("://")[2].partition("?")[0].strip("/") in {"", ":memory:"}:
        raise InvalidArgumentError(f"{uri} names no file. Pass one, such as sqlite:///mlflow.db.")
    if scheme == "vertex":
        raise InvalidArgumentError(f"{uri} is a registry on Vertex AI already. Pass the URI of MLflow's own registry.")
    if "://" not in uri and scheme not in _DATABRICKS and Path(uri).is_file():
        raise InvalidArgumentError(f"{uri!r} is a file. Pass sqlite:///{uri} if it's MLflow's database.")
    if _is_folder(uri) and not (_local_path(uri) or Path()).is_dir():
        raise NotFoundError(f"There's no folder {uri}. Pass a database such as sqlite:///mlflow.db, or a server.")
    return uri.strip()


def _is_folder(uri: str) -> bool:
    """Return whether a registry is a folder on this machine."""
    return _scheme(uri) not in _DATABRICKS and _local_path(uri) is not None


def _check_database(uri: str) -> None:
    """Refuse a SQLite file that isn't MLflow's, because MLflow would create it, or create its tables in it."""
    if (file := _database_file(uri)) is None:
        return
    if not file.is_file():
        raise NotFoundError(f"There's no database {file}. Four slashes begin an absolute path: sqlite:////path.")
    try:
        with contextlib.closing(_open_to_read(file)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise InvalidArgumentError(f"{file} can't be read as a SQLite database: {error}.") from error
    if "model_versions" not in tables:
        raise InvalidArgumentError(f"{file} isn't an MLflow database: it has no table model_versions.")


def _database_file(uri: str) -> Path | None:
    """Return the file of a SQLite database, or None for any other registry."""
    path = uri.partition(":///")[2].partition("?")[0]
    return Path(path) if _scheme(uri) == "sqlite" and path not in {"", ":memory:"} else None


def _open_to_read(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)


def _scheme(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


def _check_server(uri: str, shown: str) -> None:
    """Refuse a server that doesn't answer. MLflow would go on for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/version", timeout=_PROBE_SECONDS)
    except requests.exceptions.SSLError:
        return  # MLflow has settings of its own for that
    except requests.RequestException as error:
        raise UnavailableError(
            f"{shown} doesn't answer ({type(error).__name__}). Check the address, and that the server is running."
        ) from error


def _local_path(uri: str) -> Path | None:
    """Return the path of an artifact on this machine, or None if it's elsewhere."""
    parsed = urllib.parse.urlparse(uri)
    if parsed.scheme == "file":
        return Path(urllib.request.url2pathname(parsed.path)) if parsed.netloc in {"", "localhost"} else None
    return Path(uri) if not parsed.scheme or (os.name == "nt" and len(parsed.scheme) == 1) else None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].partition(" Response body:")[0] if lines else ""
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rpartition(". ")[0] or f"{text[:_LONGEST]}…"
    return text if type(error).__module__.startswith("mlflow") and text else f"{type(error).__name__}: {text}"
