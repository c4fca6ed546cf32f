"""ZenML's model registry of the flavor ``vertex``.

ZenML is given three classes: the flavor, which ZenML stores by its dotted path; the settings; and the registry. They
are `vertex_registry` in ZenML's words: each method is a verb of `RegistryClient` and a translation of what comes back.

**A version is what the user called it.** ZenML hands over the version as a string of the user's, and everything that
takes a version later is given that string. It is kept as the version's name. Vertex's own number reaches a version only
where it was registered without a name, so that no string ever means two things.

**Registering is safe to do again.** The request id of a registration is made from the version and the source, so that
a step that runs again gets the version that is there, and another source makes a new one. Going back to an earlier
source makes a new one, too: its request id is made from the version that was left behind as well.

**Errors are one line.** ZenML's command line shows click's exceptions as a line, all others as a traceback; ZenML's
Python callers expect KeyError, RuntimeError and NotImplementedError. The errors here are both.

Importing this module imports nothing of Google's: ZenML imports the flavor whenever it lists flavors.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import click
from pydantic import BaseModel, SecretStr
from zenml.exceptions import ZenMLBaseException
from zenml.io import fileio
from zenml.logger import get_logger
from zenml.model_registries.base_model_registry import (
    BaseModelRegistry,
    BaseModelRegistryConfig,
    BaseModelRegistryFlavor,
    ModelRegistryModelMetadata,
    ModelVersionStage,
    RegisteredModel,
    RegistryModelVersion,
)
from zenml.models import ServiceConnectorRequirements
from zenml.utils import io_utils
from zenml.utils.secret_utils import PlainSerializedSecretStr, SecretField  # noqa: TC002  # pydantic reads it

from vertex_registry import InvalidArgumentError, NotFoundError, RegistryClient, RegistryError, Retry, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex_registry import ModelVersion, ServingContainer
    from vertex_registry import RegisteredModel as VertexModel

__all__ = [
    "MissingError",
    "UnsupportedError",
    "VertexModelRegistry",
    "VertexModelRegistryConfig",
    "VertexModelRegistryFlavor",
    "VertexRegistryError",
]


_LOG: Final = get_logger(__name__)


class VertexRegistryError(click.ClickException, RuntimeError):
    """What was asked could not be done. ``__cause__`` is the error of `vertex_registry` that says it in detail."""


class UnsupportedError(VertexRegistryError, NotImplementedError):
    """Vertex has no such thing; the message says what to do instead."""


class MissingError(click.ClickException, KeyError):
    """The model or the version is not there."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn this package's errors into those that ZenML's callers and its command line expect."""
    try:
        yield
    except NotFoundError as error:
        raise MissingError(_said(error)) from error
    except RegistryError as error:
        raise VertexRegistryError(_said(error)) from error


#: What the client's messages name, and what it is called here.
_WORDS: Final = {
    r"\bRetry\(calls=\.\.\.\)": "`--timeout`",
    r"\bRetry\(operations=\.\.\.\)": "`--operation_timeout`",
    r"\b(list|register)_version": r"\1_model_version",
}


def _said(error: RegistryError) -> str:
    """What an error of the client's says, in the words of this module."""
    said = str(error)
    for theirs, ours in _WORDS.items():
        said = re.sub(theirs, ours, said)
    return said


# --- flavor and settings ----------------------------------------------------------------------------------------------


class VertexModelRegistryConfig(BaseModelRegistryConfig):
    """The settings of a model registry component, ``zenml model-registry register NAME --flavor=vertex --KEY=VALUE``.

    Each text but ``api_transport`` may also be a reference to a secret of ZenML's, ``{{secret.key}}``.

    Attributes:
        location: The Google Cloud location. Else ``GOOGLE_CLOUD_LOCATION``, else ``us-central1``.
        project_id: The Google Cloud project. Else that of the service connector or of the credentials.
        project: Another name of ``project_id``.
        credentials: A service account's key or an authorized user, as JSON; on the command line ``@file`` reads it from
            a file. Not needed with a service connector, nor with application default credentials.
        service_account_path: The path of such a file, on the machine that the step runs on.
        api_endpoint: The address of the service, in place of the location's own.
        api_transport: ``grpc`` or ``rest``.
        staging_bucket: Where artifacts that Vertex cannot read are copied to, ``gs://bucket`` or a directory in it.
        serving_image: What serves the versions: ``sklearn``, ``xgboost``, ``tensorflow`` or ``pytorch``, with or
            without a version (``xgboost:2.1``), or an image's URI. Else the scikit-learn image.
        make_default: Whether a new version becomes the model's default version.
        timeout: How long a call to Vertex is tried, in seconds.
        operation_timeout: How long to wait until Vertex has made a version, in seconds.
    """

    location: str | None = None
    project_id: str | None = None
    project: str | None = None
    credentials: PlainSerializedSecretStr | None = SecretField(default=None)
    service_account_path: str | None = None
    api_endpoint: str | None = None
    api_transport: Literal["grpc", "rest"] | None = None
    staging_bucket: str | None = None
    serving_image: str | None = None
    make_default: bool = True
    timeout: float = 60.0
    operation_timeout: float = 1800.0


class VertexModelRegistryFlavor(BaseModelRegistryFlavor):
    """The flavor ``vertex``, as ZenML is told of it: by ``vertex_registry.zenml.VertexModelRegistryFlavor``."""

    @property
    def name(self) -> str:
        """The flavor's name."""
        return "vertex"

    @property
    def config_class(self) -> type[VertexModelRegistryConfig]:
        """The class of the settings."""
        return VertexModelRegistryConfig

    @property
    def implementation_class(self) -> type[VertexModelRegistry]:
        """The class of the registry."""
        return VertexModelRegistry

    @property
    def service_connector_requirements(self) -> ServiceConnectorRequirements:
        """The service connectors that a component can be connected to."""
        return ServiceConnectorRequirements(connector_type="gcp", resource_type="gcp-generic")


# --- the registry -----------------------------------------------------------------------------------------------------


class VertexModelRegistry(BaseModelRegistry):
    """A Vertex AI Model Registry in a ZenML stack."""

    _client: RegistryClient | None = None

    @property
    def config(self) -> VertexModelRegistryConfig:
        """The component's settings."""
        return cast("VertexModelRegistryConfig", self._config)

    @property
    def requirements(self) -> set[str]:
        """What has to be installed where a step runs that uses the registry."""
        return {f"vertex-registry[zenml]=={installed('vertex-registry')}"}

    def cleanup(self) -> None:
        """End the connection to Vertex."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- models ---

    def register_model(
        self, name: str, description: str | None = None, metadata: dict[str, str] | None = None
    ) -> RegisteredModel:
        """Raises `UnsupportedError`: Vertex has no model without a version."""
        del description, metadata
        raise UnsupportedError(
            f"Vertex has no model without a version: {name!r} is made with its first version. Call "
            "register_model_version(name, version, model_source_uri) in a step or in Python."
        )

    def update_model(
        self,
        name: str,
        description: str | None = None,
        metadata: dict[str, str] | None = None,
        remove_metadata: list[str] | None = None,
    ) -> RegisteredModel:
        """Raises `UnsupportedError`: only versions are described."""
        del description, metadata, remove_metadata
        raise UnsupportedError(
            f"The model {name!r} was not changed: descriptions and metadata belong to its versions. Type "
            f"`zenml model-registry models update-version {name} -v VERSION`, or call update_model_version(). "
            "vertex_registry.RegistryClient.update_model() changes what Vertex keeps of the model itself."
        )

    def delete_model(self, name: str) -> None:
        """Raises `UnsupportedError`: versions are deleted one by one, and the model goes with the last."""
        raise UnsupportedError(
            f"The model {name!r} was not deleted, for all its versions would go with it. Type "
            f"`zenml model-registry models delete-version {name} -v VERSION` for each; the model goes with the last. "
            "vertex_registry.RegistryClient.delete_model() deletes it at once."
        )

    @_translated()
    def get_model(self, name: str) -> RegisteredModel:
        """The model of that name.

        Raises:
            KeyError: There is none.
            RuntimeError: Several models bear the name, or Vertex could not be asked.
        """
        return _model(self._vertex.get_model(name))

    @_translated()
    def list_models(self, name: str | None = None, metadata: dict[str, str] | None = None) -> list[RegisteredModel]:
        """The models, the newest first.

        Args:
            name: Only models of that name.
            metadata: Only models whose labels have these values.
        """
        models = self._vertex.list_models(labels=metadata)
        return [_model(model) for model in models if name in {None, model.name}]

    # --- versions ---

    @_translated()
    def register_model_version(
        self,
        name: str,
        version: str | None = None,
        model_source_uri: str | None = None,
        description: str | None = None,
        metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> RegistryModelVersion:
        """Register an artifact as a version of a model, which is made if it is not there.

        The same version with the same source gives the version that is there, unchanged: a warning says where a
        description, metadata or a stage that is given is not what it has, and `update_model_version` changes it. With
        another source it makes a new one, which is the one that the version reaches from then on.

        Args:
            name: The model's name.
            version: What to call the version; None leaves it its number.
            model_source_uri: The artifact's directory: ``gs://bucket/directory``, or, with ``staging_bucket``, one in
                any artifact store of the active stack.
            description: What this version is.
            metadata: Where the version comes from, and attributes of your own; any JSON values.
            **kwargs: Further arguments of ``RegistryClient.register_version``, such as ``stage``, ``aliases`` and
                ``container``.

        Raises:
            RuntimeError: It was not registered; the message says why.
        """
        if not isinstance(model_source_uri, (str, type(None))):
            raise VertexRegistryError(
                f"The source is a string, such as 'gs://bucket/directory', and not {model_source_uri!r}. "
                "Give str(path). Nothing was registered."
            )
        if not isinstance(version, (str, type(None))):
            raise VertexRegistryError(
                f"The version is a string, and not {version!r}. Give str(version). Nothing was registered."
            )
        staging = kwargs.get("staging_bucket")
        if staging is None:
            staging = self._setting("staging_bucket")
        arguments = {
            "description": description,
            "metadata": _attributes(metadata),
            "make_default": self.config.make_default,
            **kwargs,
            "staging_bucket": staging,
        }
        if "stage" in arguments:
            arguments["stage"] = _stage(arguments["stage"])
        source, version = model_source_uri or "", version or None
        if source.startswith("gs://"):
            source = f"gs://{source.removeprefix('gs://').rstrip('/')}"  # one directory, one request id
        if source.startswith("gs://") or not source:
            try:
                return _version(self._register(name, version, source, source, arguments))
            except InvalidArgumentError as error:
                if not source or error.resource != source:
                    raise
                self._check_staging(staging, _said(error))
            except NotFoundError as error:
                raise VertexRegistryError(_said(error)) from error
        else:
            self._check_staging(
                staging, f"{source!r} is not in Cloud Storage, the only place that Vertex reads artifacts from."
            )
        with self._copy(source, kwargs.get("container")) as folder:
            # The client checks every argument, and then uploads the folder.
            uri = f"{str(staging).rstrip('/')}/{_digest(folder)}"
            return _version(self._register(name, version, folder, uri, arguments))

    @_translated()
    def get_model_version(self, name: str, version: str) -> RegistryModelVersion:
        """The version of that name, or of that number where it has no name.

        Raises:
            KeyError: There is no such model or version.
        """
        return _version(self._find(name, version))

    @_translated()
    def list_model_versions(
        self,
        name: str | None = None,
        model_source_uri: str | None = None,
        metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None = None,
        stage: ModelVersionStage | str | None = None,
        count: int | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order_by_date: str | None = None,
        **kwargs: Any,
    ) -> list[RegistryModelVersion]:
        """The versions of a model, or of all, the newest first; none where there is no such model.

        Args:
            name: The model's name.
            model_source_uri: Only versions of that artifact.
            metadata: Only versions whose attributes read as these do: "0.93" finds the number 0.93.
            stage: Only versions in that stage.
            count: At most so many, counted after all conditions.
            created_after: Only versions that are younger. A time without a zone is in UTC.
            created_before: Only versions that are older.
            order_by_date: ``"asc"`` puts the oldest first; ``"desc"`` is what holds without it.
            **kwargs: Is ignored, as in ZenML's other registries.
        """
        del kwargs
        if not (count is None or (isinstance(count, int) and count >= 0)):
            raise VertexRegistryError(f"count={count!r} is no number of versions.")
        if order_by_date not in (None, "asc", "desc"):
            raise VertexRegistryError(f"order_by_date={order_by_date!r} is neither 'asc' nor 'desc'.")
        wanted = _texts(_attributes(metadata)).items()
        found = self._vertex.list_versions(
            name,
            stage=_stage(stage),
            artifact_uri=model_source_uri,
            created_after=_in_utc(created_after),
            created_before=_in_utc(created_before),
            oldest_first=order_by_date == "asc",
        )
        if name is None:
            found = iter(sorted(found, key=lambda version: version.created_at, reverse=order_by_date != "asc"))
        matching = (version for version in found if wanted <= _texts(version.metadata).items())
        try:
            return [_version(version) for version in itertools.islice(matching, count)]
        except NotFoundError:
            return []

    @_translated()
    def update_model_version(
        self,
        name: str,
        version: str,
        description: str | None = None,
        metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None = None,
        remove_metadata: list[str] | None = None,
        stage: ModelVersionStage | str | None = None,
    ) -> RegistryModelVersion:
        """The version, changed; what is not named stays as it is.

        Args:
            name: The model's name.
            version: The version's name, or its number where it has no name.
            description: The new description; ``""`` clears it.
            metadata: Attributes to set; the others stay.
            remove_metadata: Attributes to take out.
            stage: The stage to put it in.

        Raises:
            KeyError: There is no such model or version.
            RuntimeError: It was not changed; the message says why.
        """
        return _version(
            self._vertex.update_version(
                name,
                self._find(name, version).version,
                description=description,
                metadata=_attributes(metadata),
                remove_metadata=remove_metadata or (),
                stage=_stage(stage),
            )
        )

    @_translated()
    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version; the last version of a model goes with its model.

        Raises:
            KeyError: There is no such model or version.
            RuntimeError: Vertex refuses, because the version is deployed.
        """
        self._vertex.delete_version(name, self._find(name, version).version)

    @_translated()
    def load_model_version(self, name: str, version: str, **kwargs: Any) -> Any:
        """The model object that was registered, fetched from its artifact's directory.

        Args:
            name: The model's name.
            version: The version's name, or its number where it has no name.
            **kwargs: ``trusted=True`` for formats that run code when they are loaded: all but those of XGBoost.

        Raises:
            KeyError: There is no such model or version, or nothing in its directory that can be loaded.
            RuntimeError: It was not loaded; the message says why.
        """
        return self._vertex.load_version(name, self._find(name, version).version, **kwargs)

    def get_model_uri_artifact_store(self, model_version: RegistryModelVersion) -> str:
        """Where the artifact of a version lies: in Cloud Storage, as it was registered."""
        return model_version.model_source_uri

    # --- how ---

    @property
    def _vertex(self) -> RegistryClient:
        """The client, made anew when the service connector's credentials have expired."""
        if self._client is None or self.connector_has_expired():
            self.cleanup()
            self._client = self._connect()
        return self._client

    def _connect(self) -> RegistryClient:
        try:
            config = self.config
            credentials, project = self._access()
            return RegistryClient(
                project=project,
                location=config.location,
                credentials=credentials,
                endpoint=config.api_endpoint,
                transport=config.api_transport,
                default_image=config.serving_image,
                staging_bucket=config.staging_bucket,
                retry=Retry(call_timeout=config.timeout, operation_timeout=config.operation_timeout),
                user_agent=f"zenml/{installed('zenml')}",
            )
        except (VertexRegistryError, RegistryError):
            raise
        except (KeyError, RuntimeError, ValueError, ZenMLBaseException) as error:
            # ZenML's own. A KeyError is a secret that is missing, and must not pass for a version that is.
            raise VertexRegistryError(f"The model registry {self.name!r} cannot be used: {_line(error)}") from error

    def _access(self) -> tuple[Any, str | None]:
        """The credentials and the project: the service connector's, or those of the settings."""
        project = self.config.project_id or self.config.project
        if self.config.project not in {None, project}:
            raise VertexRegistryError(
                f"The model registry {self.name!r} has the project_id {project!r} and the project "
                f"{self.config.project!r}, which are two names of one setting. Take one out: "
                f"`zenml model-registry remove-attribute {self.name} project`."
            )
        connector = self.get_connector()
        if connector is None:
            given = _credentials(self.config.credentials)
            return self.config.service_account_path if given is None else given, project
        credentials = connector.connect()
        theirs = cast("Any", connector.config).gcp_project_id
        if project not in {None, theirs}:
            raise VertexRegistryError(
                f"The model registry {self.name!r} is for the project {project!r}, and its service connector for "
                f"{theirs!r}. Take the setting out (`zenml model-registry remove-attribute {self.name} project_id`), "
                f"or connect a service connector for {project!r}."
            )
        return credentials, theirs

    def _find(self, name: str, version: str) -> ModelVersion:
        """The version that a user's string means: first its name, then the number of a version without a name."""
        if version in {None, ""}:
            raise MissingError(f"No version of {name!r} was named. `list-versions {name}` shows those that are there.")
        if not _can_be_a_version(str(version)):
            raise MissingError(f"{name!r} has no version of the name {version!r}, which none can have.")
        try:
            return self._vertex.get_version(name, version_name=str(version))
        except NotFoundError:
            if not str(version).isdecimal():
                raise
            found = self._vertex.get_version(name, str(version))
            if found.version_name is not None:
                raise
            return found

    def _named(self, name: str, version: str) -> ModelVersion | None:
        """The newest version that was registered under that name, if there is one."""
        with contextlib.suppress(NotFoundError):
            return self._vertex.get_version(name, version_name=version)
        return None

    def _register(
        self, name: str, version: str | None, source: str | Path, uri: str, arguments: dict[str, Any]
    ) -> ModelVersion:
        """The version of that name with the artifact at that URI, made if the newest one of the name has another."""
        register = functools.partial(self._vertex.register_version, name, source, version_name=version, **arguments)
        if version is None or "request_id" in arguments:
            return register()
        newest = self._named(name, version)
        made = register(request_id=_request_id(version, uri))
        while newest is not None and int(made.version) < int(newest.version):
            # It was registered before, and left for another source since.
            made = register(request_id=_request_id(version, uri, made.version))
        if newest is not None and made.version == newest.version and (differs := _differences(made, arguments)):
            _LOG.warning(
                "The version %r of %r is there with this source already, and was returned unchanged: it has another %s "
                "than was given. update_model_version() changes it.",
                version,
                name,
                " and another ".join(differs),
            )
        return made

    def _setting(self, key: str) -> str | None:
        """What a setting says, also where it is a reference to a secret."""
        try:
            return cast("str | None", getattr(self.config, key))
        except (KeyError, RuntimeError, ValueError, ZenMLBaseException) as error:
            raise VertexRegistryError(f"The model registry {self.name!r} cannot be used: {_line(error)}") from error

    def _check_staging(self, staging: str | None, problem: str) -> None:
        """Go on only where there is a staging bucket."""
        if staging is None:
            raise VertexRegistryError(
                f"{problem} Nothing was registered. Save the model to a GCS artifact store in the form that the image "
                "loads; or let it be copied there in that form, with "
                f"`zenml model-registry update {self.name} --staging_bucket=gs://BUCKET`; or name an image of your own "
                "that loads it as it is, with --serving_image=IMAGE."
            )

    @contextlib.contextmanager
    def _copy(self, source: str, container: ServingContainer | str | None) -> Iterator[Path]:
        """A copy of the artifact on this machine, in the form that the image loads.

        The scikit-learn image loads ``model.pkl``. ZenML calls the same pickle ``artifact.pkl``.
        """
        image = container or self._setting("serving_image") or "sklearn"
        with tempfile.TemporaryDirectory(prefix="vertex-registry-") as root:
            folder = Path(root, "model")
            try:
                if source.startswith("gs://"):
                    self._vertex.download(source, folder)
                else:
                    _fetch(source, folder)
                if _SKLEARN.search(image if isinstance(image, str) else image.image):
                    _rename_pickle(source, folder)
                yield folder
            except RegistryError as error:
                # The folder is gone by then, and whoever reads the message knows the source only.
                raise VertexRegistryError(_said(error).replace(str(folder), source)) from error


#: The settings that mean a prebuilt scikit-learn image.
_SKLEARN: Final = re.compile(r"^sklearn(:|$)|-docker\.pkg\.dev/vertex-ai/prediction/sklearn-")

_FIELDS: Final = frozenset(ModelRegistryModelMetadata.model_fields)


def _credentials(setting: SecretStr | str | None) -> dict[str, Any] | str | None:
    """What the setting ``credentials`` holds: the JSON of a key, or the path of one."""
    text = setting.get_secret_value() if isinstance(setting, SecretStr) else setting
    if not text or not text.lstrip().startswith("{"):
        return text or None
    try:
        return dict(json.loads(text))
    except ValueError:
        # Without the cause, which quotes the text.
        raise VertexRegistryError(
            "The setting `credentials` is no JSON, although it begins like it. "
            "Give the whole content of the key file: --credentials=@key.json."
        ) from None


def _fetch(source: str, folder: Path) -> None:
    """Copy a directory of an artifact store that ZenML can read."""
    try:
        problem = (
            None
            if fileio.isdir(source)
            else f"{source!r} is a file, and an artifact is a directory: name the one that the file is in."
            if fileio.exists(source)
            else f"There is no artifact in {source!r}."
        )
        if problem is None:
            folder.mkdir()  # of a directory without files nothing else is copied
            io_utils.copy_dir(source, str(folder))
    except (OSError, ValueError, NotImplementedError) as error:
        said = _line(error).replace(str(folder), source)
        raise VertexRegistryError(f"{source!r} cannot be read, and nothing was registered: {said}") from error
    if problem is not None:
        raise VertexRegistryError(f"{problem} Nothing was registered.")


def _rename_pickle(source: str, folder: Path) -> None:
    """Give ZenML's pickle the name that the scikit-learn image loads, where nothing else is the model."""
    models = [name for name in ("artifact.pkl", "model.joblib", "model.pkl") if (folder / name).exists()]
    if "artifact.pkl" not in models:
        return
    if len(models) > 1:
        raise VertexRegistryError(
            f"{source!r} holds {' and '.join(models)}, and the scikit-learn image loads one model. Nothing was "
            "registered. Take away all of them but the one that is the model, which may have any of these names."
        )
    (folder / "artifact.pkl").rename(folder / "model.pkl")


def _digest(folder: Path) -> str:
    """What the names and the bytes of a folder's files come to."""
    sums = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            sums.append((path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()))
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def _line(error: Exception) -> str:
    """What an error of ZenML's says, on one line; a KeyError would put it in quotes."""
    said = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(said).split())


def _request_id(*parts: str) -> str:
    return f"zenml-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}"


def _differences(made: ModelVersion, arguments: Mapping[str, Any]) -> list[str]:
    """What was given for a version and is not what it has; values are compared, and not shown."""
    description, metadata, stage = (arguments.get(key) for key in ("description", "metadata", "stage"))
    compared = {
        "description": description is None or made.description == description,
        "metadata": not metadata or {**made.metadata, **metadata} == made.metadata,
        "stage": stage is None or made.stage is Stage(stage),
    }
    return [key for key, same in compared.items() if not same]


def _can_be_a_version(version: str) -> bool:
    """Whether a version can have been registered under that name: a text of at most 128 characters."""
    try:
        version.encode()
    except UnicodeEncodeError:
        return False
    return len(version) <= 128  # noqa: PLR2004  # the most that `register_version` takes


def _in_utc(moment: dt.datetime | None) -> dt.datetime | None:
    """A time without a zone as one in UTC; what is no time is for the client to refuse."""
    return moment.replace(tzinfo=dt.UTC) if isinstance(moment, dt.datetime) and moment.tzinfo is None else moment


def _stage(stage: ModelVersionStage | str | None) -> str | None:
    """The name of a stage, of ZenML's or in the user's own words."""
    return stage.value if isinstance(stage, ModelVersionStage) else stage


def _attributes(metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None) -> dict[str, Any]:
    """The metadata as a JSON object. A field of ZenML's that is None is not there; an attribute that is, is null."""
    if isinstance(metadata, BaseModel):
        metadata = metadata.model_dump(exclude_none=False)
    if not isinstance(metadata, (Mapping, type(None))):
        raise VertexRegistryError(
            f"The metadata is a dict or a ModelRegistryModelMetadata, and not a {type(metadata).__name__}."
        )
    return {key: value for key, value in (metadata or {}).items() if value is not None or key not in _FIELDS}


def _texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The metadata as ZenML shows it, and as its command line gives it."""
    return {key: str(value) for key, value in metadata.items()}


def _model(model: VertexModel) -> RegisteredModel:
    # What Vertex shows of a model are also the labels of its default version, and a stage is a version's.
    shown = {key: value for key, value in model.labels.items() if key != "stage" and not key.startswith("vr-")}
    return RegisteredModel(name=model.name, description=model.description, metadata=shown)


def _version(version: ModelVersion) -> RegistryModelVersion:
    # ZenML's fields hold strings; a label of that key that somebody else wrote may read as something else.
    metadata = {**version.metadata, **_texts({key: version.metadata[key] for key in _FIELDS & version.metadata.keys()})}
    return RegistryModelVersion(
        version=version.version_name or version.version,
        model_source_uri=version.artifact_uri,
        model_format="Vertex AI",
        registered_model=RegisteredModel(name=version.name),
        description=version.description,
        created_at=version.created_at,
        last_updated_at=version.updated_at,
        stage=ModelVersionStage(version.stage.value),
        metadata=ModelRegistryModelMetadata.model_validate(metadata),
    )
