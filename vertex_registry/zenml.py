"""ZenML's model registry flavor ``vertex``: the flavor, its settings, and the registry.

It translates between ZenML's types and those of `RegistryClient`, and does nothing else. Its errors are click's, which
ZenML's command line shows as one line, and the built-in ones that ZenML's callers catch. Importing it loads none of
Google's libraries, because ZenML imports the flavor whenever it lists flavors.
"""

from __future__ import annotations

import contextlib
import datetime as dt
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
from zenml.client import Client
from zenml.exceptions import ZenMLBaseException
from zenml.io import fileio
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

from vertex_registry import InvalidArgumentError, NotFoundError, RegistryClient, RegistryError, Retry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vertex_registry import ModelVersion
    from vertex_registry import RegisteredModel as VertexModel

__all__ = [
    "MissingError",
    "UnsupportedError",
    "VertexModelRegistry",
    "VertexModelRegistryConfig",
    "VertexModelRegistryFlavor",
    "VertexRegistryError",
]


class VertexRegistryError(click.ClickException, RuntimeError):
    """The request failed. ``__cause__`` is the error of `vertex_registry`, if there was one."""


class UnsupportedError(VertexRegistryError, NotImplementedError):
    """Vertex can't do this. The message says what to do instead."""


class MissingError(click.ClickException, KeyError):
    """The model or the version doesn't exist."""


@contextlib.contextmanager
def _translate_errors(missing: type[click.ClickException] = MissingError) -> Iterator[None]:
    """Turn this package's errors into those that ZenML's callers and its command line expect.

    Args:
        missing: The error for something that doesn't exist.
    """
    try:
        yield
    except NotFoundError as error:
        raise missing(_message(error)) from error
    except RegistryError as error:
        raise VertexRegistryError(_message(error)) from error


#: What the client's messages mention, and what it's called here.
_CALLED_HERE: Final = {
    r"\bRetry\(call_timeout=\.\.\.\)": "`--timeout`",
    r"\bRetry\(operation_timeout=\.\.\.\)": "`--operation_timeout`",
    r"\b(list|register)_version": r"\1_model_version",
}


def _message(error: RegistryError) -> str:
    """Return the message of one of the client's errors, with the names that are used here."""
    message = str(error)
    for theirs, ours in _CALLED_HERE.items():
        message = re.sub(theirs, ours, message)
    return message


# --- flavor and settings ----------------------------------------------------------------------------------------------


class VertexModelRegistryConfig(BaseModelRegistryConfig):
    """The settings of a component: ``zenml model-registry register NAME --flavor=vertex --KEY=VALUE``.

    Text can also be a reference to a ZenML secret, ``{{secret.key}}``, except ``api_transport``.

    Attributes:
        location: The Google Cloud location. Defaults to ``GOOGLE_CLOUD_LOCATION``, or else to ``us-central1``.
        project_id: The Google Cloud project. Defaults to that of the service connector or of the credentials.
        project: Another name for ``project_id``.
        credentials: A service account key or an authorized user, as JSON; ``@file`` on the command line reads it from a
            file. Not needed with a service connector or with application default credentials.
        service_account_path: The path of such a file, on the machine where the step runs.
        api_endpoint: The address of the service. Defaults to the one of the location.
        api_transport: ``grpc`` or ``rest``. Defaults to ``grpc``.
        staging_bucket: Where artifacts that Vertex can't read are copied to: ``gs://bucket``, or a directory in it.
        serving_image: What serves the versions: ``sklearn``, ``xgboost``, ``tensorflow`` or ``pytorch``, with or
            without a version (``xgboost:2.1``), or the URI of an image. Defaults to ``sklearn``.
        make_default: Whether a new version becomes the model's default version.
        timeout: How many seconds a call to Vertex may take, including retries.
        operation_timeout: How many seconds to wait for Vertex to create a version.
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
    """The flavor ``vertex``. ZenML stores its path: ``vertex_registry.zenml.VertexModelRegistryFlavor``."""

    @property
    def name(self) -> str:
        """Return the name of the flavor."""
        return "vertex"

    @property
    def config_class(self) -> type[VertexModelRegistryConfig]:
        """Return the class of the settings."""
        return VertexModelRegistryConfig

    @property
    def implementation_class(self) -> type[VertexModelRegistry]:
        """Return the class of the registry."""
        return VertexModelRegistry

    @property
    def service_connector_requirements(self) -> ServiceConnectorRequirements:
        """Return which service connectors a component can be connected to."""
        return ServiceConnectorRequirements(connector_type="gcp", resource_type="gcp-generic")


# --- the registry -----------------------------------------------------------------------------------------------------


class VertexModelRegistry(BaseModelRegistry):
    """The Vertex AI Model Registry of a ZenML stack."""

    _connected: RegistryClient | None = None

    @property
    def config(self) -> VertexModelRegistryConfig:
        """Return the settings of the component."""
        return cast("VertexModelRegistryConfig", self._config)

    @property
    def requirements(self) -> set[str]:
        """Return what a step that uses the registry needs installed."""
        return {f"vertex-registry[zenml]=={installed('vertex-registry')}"}

    def cleanup(self) -> None:
        """Close the connection to Vertex."""
        client, self._connected = self._connected, None
        if client is not None:
            client.close()

    # --- models ---

    def register_model(
        self, name: str, description: str | None = None, metadata: dict[str, str] | None = None
    ) -> RegisteredModel:
        """Raise `UnsupportedError`, because Vertex has no model without a version."""
        del description, metadata
        raise UnsupportedError(
            f"Vertex has no model without a version: {name!r} is created with its first version. Call "
            "register_model_version(name, version, model_source_uri) in a step or in Python."
        )

    def update_model(
        self,
        name: str,
        description: str | None = None,
        metadata: dict[str, str] | None = None,
        remove_metadata: list[str] | None = None,
    ) -> RegisteredModel:
        """Raise `UnsupportedError`, because descriptions and metadata belong to versions."""
        del description, metadata, remove_metadata
        raise UnsupportedError(
            f"The model {name!r} wasn't changed, because descriptions and metadata belong to its versions. Run "
            f"`zenml model-registry models update-version {name} -v VERSION`, or change the model itself with "
            "client.update_model()."
        )

    def delete_model(self, name: str) -> None:
        """Raise `UnsupportedError`, because all versions of the model would be deleted with it."""
        raise UnsupportedError(
            f"The model {name!r} wasn't deleted, because all its versions would be deleted with it. Run "
            f"`zenml model-registry models delete-version {name} -v VERSION` for each, or delete everything with "
            "client.delete_model()."
        )

    @_translate_errors()
    def get_model(self, name: str) -> RegisteredModel:
        """Return a model. If no model has the name, raise a KeyError."""
        return _to_model(self.client.get_model(name))

    @_translate_errors()
    def list_models(self, name: str | None = None, metadata: dict[str, str] | None = None) -> list[RegisteredModel]:
        """Return the models, newest first, or only those with a name or with labels of these values."""
        models = self.client.list_models(labels=metadata)
        return [_to_model(model) for model in models if name in {None, model.name}]

    # --- versions ---

    @_translate_errors(missing=VertexRegistryError)
    def register_model_version(
        self,
        name: str,
        version: str | None = None,
        model_source_uri: str | None = None,
        description: str | None = None,
        metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> RegistryModelVersion:
        """Register an artifact as a version of a model, and create the model if it doesn't exist.

        If you register the same version with the same source again, you get the existing version, unchanged. With
        another source you get a new version, which is the one that the version's name finds from then on.

        Args:
            name: The name of the model.
            version: What to call the version. Defaults to the number that Vertex gives it.
            model_source_uri: The directory of the artifact: ``gs://bucket/directory``. With a staging bucket, it can
                be in any artifact store of the active stack.
            description: The description of the version.
            metadata: Where the version comes from, and attributes of your own with any JSON values.
            **kwargs: More arguments of ``RegistryClient.register_version``, such as ``stage``, ``aliases`` or
                ``container``.

        Raises:
            RuntimeError: It wasn't registered. The message says why.
        """
        for what, given in (("source", model_source_uri), ("version", version)):
            if not isinstance(given, (str, type(None))):
                raise VertexRegistryError(
                    f"The {what} is a string, not {given!r:.80}, so nothing was registered. Pass str({what})."
                )
        client, source, chosen = (
            self.client,
            model_source_uri or "",
            {"make_default": self.config.make_default} | kwargs,
        )
        if "stage" in chosen:
            chosen["stage"] = _to_stage(chosen["stage"])
        if version and "request_id" not in chosen:
            chosen["reuse_existing"] = True

        def register(artifact: str | Path) -> RegistryModelVersion:
            made = client.register_version(
                name,
                artifact,
                version_name=version or None,
                description=description,
                metadata=_to_json(metadata),
                **chosen,
            )
            return _to_version(made)

        if not source or source.startswith("gs://"):
            try:
                return register(source)
            except InvalidArgumentError as error:
                if not source or (error.resource or "").rstrip("/") != source.rstrip("/"):
                    raise
                problem = _message(error)
        else:
            problem = f"{source!r} isn't in Cloud Storage, and Vertex can't read artifacts from anywhere else."
        if not (chosen.get("staging_bucket") or self.config.staging_bucket):
            raise VertexRegistryError(
                f"{problem} Nothing was registered. Save the model to a GCS artifact store in the form that the image "
                f"loads, have it copied (`zenml model-registry update {self.name} --staging_bucket=gs://BUCKET`), or "
                "name an image of your own (--serving_image=IMAGE)."
            )
        with self._local_copy(source) as folder:
            return register(folder)

    @_translate_errors()
    def get_model_version(self, name: str, version: str) -> RegistryModelVersion:
        """Return the version with this name, or else the version without a name that has this number."""
        return _to_version(self._find(name, version))

    @_translate_errors()
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
        """Return the versions of a model, or of all models, newest first. If the model doesn't exist, return none.

        Metadata is compared as text, so "0.93" finds the number 0.93. Times without a zone are in UTC. ``count`` is the
        most versions to return after all conditions. Other arguments are ignored, as in ZenML's other registries.
        """
        del kwargs
        if not (count is None or (isinstance(count, int) and count >= 0)):
            raise VertexRegistryError(f"count={count!r} isn't a number of versions.")
        if order_by_date not in (None, "asc", "desc"):
            raise VertexRegistryError(f"order_by_date={order_by_date!r} is neither 'asc' nor 'desc'.")
        wanted = _to_text(_to_json(metadata)).items()
        found: Iterator[ModelVersion] = self.client.list_versions(
            name,
            stage=_to_stage(stage),
            artifact_uri=model_source_uri,
            created_after=_in_utc(created_after),
            created_before=_in_utc(created_before),
            oldest_first=order_by_date == "asc",
        )
        if name is None:
            found = iter(sorted(found, key=lambda version: version.created_at, reverse=order_by_date != "asc"))
        matching = (version for version in found if wanted <= _to_text(version.metadata).items())
        try:
            return [_to_version(version) for version in itertools.islice(matching, count)]
        except NotFoundError:
            return []

    @_translate_errors()
    def update_model_version(
        self,
        name: str,
        version: str,
        description: str | None = None,
        metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None = None,
        remove_metadata: list[str] | None = None,
        stage: ModelVersionStage | str | None = None,
    ) -> RegistryModelVersion:
        """Change a version and return it. What you don't pass stays as it is.

        The description ``""`` clears it. A new stage is remembered in the history, with the time and who changed it.
        """
        changed = self.client.update_version(
            name,
            self._find(name, version),
            description=description,
            metadata=_to_json(metadata),
            remove_metadata=remove_metadata or (),
            stage=_to_stage(stage),
        )
        return _to_version(changed)

    @_translate_errors()
    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version, and the model with its last version. A version that's deployed is a RuntimeError."""
        self.client.delete_version(name, self._find(name, version))

    @_translate_errors()
    def load_model_version(self, name: str, version: str, **kwargs: Any) -> Any:
        """Return the model object that was saved in a version's artifact.

        Nothing is loaded unless you pass ``trusted=True``, because you trust everybody who can write to the artifact.
        """
        return self.client.load_version(name, self._find(name, version), **kwargs)

    def get_model_uri_artifact_store(self, model_version: RegistryModelVersion) -> str:
        """Return the directory in Cloud Storage that a version was registered with."""
        return model_version.model_source_uri

    # --- the client ---

    @property
    def client(self) -> RegistryClient:
        """Return the client that the registry uses, for everything that ZenML has no method for.

        Get it again for each use: when the credentials of the service connector expire, it's a new one.
        """
        if self._connected is None or self.connector_has_expired():
            self.cleanup()
            self._connected = self._connect()
        return self._connected

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
                actor=_actor(),
                user_agent=f"zenml/{installed('zenml')}",
            )
        except (VertexRegistryError, RegistryError):
            raise
        except (KeyError, RuntimeError, ValueError, ZenMLBaseException) as error:
            # ZenML's own. A KeyError means that a secret is missing, and mustn't pass for a missing version.
            raise VertexRegistryError(f"The model registry {self.name!r} can't be used: {_line(error)}") from error

    def _access(self) -> tuple[Any, str | None]:
        """Return the credentials and the project, from the service connector or else from the settings."""
        project = self.config.project_id or self.config.project
        if self.config.project not in {None, project}:
            raise VertexRegistryError(
                f"The model registry {self.name!r} has the project_id {project!r} and the project "
                f"{self.config.project!r}, which are two names for one setting. Remove one: "
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
                f"{theirs!r}. Remove the setting (`zenml model-registry remove-attribute {self.name} project_id`), "
                f"or connect a service connector for {project!r}."
            )
        return credentials, theirs

    def _find(self, name: str, version: str) -> ModelVersion:
        if version in {None, ""}:
            raise MissingError(f"No version of {name!r} was named. `list-versions {name}` shows which exist.")
        return self.client.find_version(name, str(version))

    @contextlib.contextmanager
    def _local_copy(self, source: str) -> Iterator[Path]:
        """Yield the folder of an artifact on this machine. It's a copy, unless the artifact is on this machine."""
        with tempfile.TemporaryDirectory(prefix="vertex-registry-") as root:
            folder = Path(root, "model") if "://" in source else Path(source)
            try:
                if source.startswith("gs://"):
                    self.client.download(source, folder)
                else:
                    _fetch(source, folder)
                yield folder
            except RegistryError as error:
                # The copy is gone by the time that the message is read.
                raise VertexRegistryError(_message(error).replace(str(folder), source)) from error


def _actor() -> str:
    """Return who the history of stages names if the credentials don't say: the active user of ZenML."""
    try:
        return f"zenml:{Client().active_user.name}"[:128]
    except (KeyError, RuntimeError, ValueError, ZenMLBaseException):  # its server can't be reached
        return "zenml"


def _credentials(setting: SecretStr | str | None) -> dict[str, Any] | str | None:
    """Return what the setting ``credentials`` holds: the JSON of a key, or the path of one."""
    text = setting.get_secret_value() if isinstance(setting, SecretStr) else setting
    if not text or not text.lstrip().startswith("{"):
        return text or None
    try:
        return dict(json.loads(text))
    except ValueError:
        # Without the cause, which quotes the text.
        raise VertexRegistryError(
            "The setting `credentials` isn't valid JSON. Pass the whole content of the key file: "
            "--credentials=@key.json."
        ) from None


def _fetch(source: str, folder: Path) -> None:
    """Copy a directory of an artifact store that ZenML can read. What's there already is only checked."""
    try:
        found = fileio.isdir(source)
        if found and not folder.exists():
            folder.mkdir()
            io_utils.copy_dir(source, str(folder))
    except (OSError, ValueError, NotImplementedError) as error:
        problem = _line(error).replace(str(folder), source)
        raise VertexRegistryError(f"{source!r} can't be read, and nothing was registered: {problem}") from error
    if not found:
        raise VertexRegistryError(
            f"{source!r} isn't a directory, so nothing was registered. Name the directory that the model was saved to."
        )


def _line(error: Exception) -> str:
    """Return the message of one of ZenML's errors on one line. A KeyError would put it in quotes."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split())


# --- translation ------------------------------------------------------------------------------------------------------

_FIELDS: Final = frozenset(ModelRegistryModelMetadata.model_fields)


def _in_utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Return a time without a zone as one in UTC. The client refuses what isn't a time."""
    return moment.replace(tzinfo=dt.UTC) if isinstance(moment, dt.datetime) and moment.tzinfo is None else moment


def _to_stage(stage: ModelVersionStage | str | None) -> str | None:
    return stage.value if isinstance(stage, ModelVersionStage) else stage


def _to_json(metadata: ModelRegistryModelMetadata | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the metadata as a JSON object. A None in one of ZenML's fields is left out; in an attribute it's null."""
    if isinstance(metadata, BaseModel):
        metadata = metadata.model_dump(exclude_none=False)
    if not isinstance(metadata, (Mapping, type(None))):
        raise VertexRegistryError(
            f"The metadata is a dict or a ModelRegistryModelMetadata, not a {type(metadata).__name__}."
        )
    return {key: value for key, value in (metadata or {}).items() if value is not None or key not in _FIELDS}


def _to_text(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata as ZenML shows it, and as its command line passes it."""
    return {key: str(value) for key, value in metadata.items()}


def _to_model(model: VertexModel) -> RegisteredModel:
    # Vertex also shows the labels of the default version on a model, and a stage belongs to a version.
    shown = {key: value for key, value in model.labels.items() if key != "stage" and not key.startswith("vr-")}
    return RegisteredModel(name=model.name, description=model.description, metadata=shown)


def _to_version(version: ModelVersion) -> RegistryModelVersion:
    # ZenML's fields hold strings, but another tool may have written a label of such a key with another type.
    fields = {key: version.metadata[key] for key in _FIELDS & version.metadata.keys()}
    return RegistryModelVersion(
        version=version.version_name or version.version,
        model_source_uri=version.artifact_uri,
        model_format="Vertex AI",
        registered_model=RegisteredModel(name=version.name),
        description=version.description,
        created_at=version.created_at,
        last_updated_at=version.updated_at,
        stage=ModelVersionStage(version.stage.value),
        metadata=ModelRegistryModelMetadata.model_validate({**version.metadata, **_to_text(fields)}),
    )
