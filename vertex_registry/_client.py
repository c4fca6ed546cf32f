"""RegistryClient: the public methods.

Each checks its arguments before anything is sent, finds the model that a name means, and calls the module that knows
the rest. Modules that need Google's libraries are imported in the methods, so `import vertex_registry` takes no second.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import re
import uuid
import warnings
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import attrs

from vertex_registry import (
    _arguments,
    _containers,
    _endpoint,
    _history,
    _labels,
    _loading,
    _names,
    _process,
    _servable,
    _serving,
    _stages,
)
from vertex_registry._listing import Conditions, Listing, take
from vertex_registry._quoting import quote
from vertex_registry._records import ModelVersion, RegisteredModel, Retry, is_integer, is_number
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    AlreadyExistsError,
    ClientClosedError,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from vertex_registry import _promotion, _registration, _resources, artifacts
    from vertex_registry._records import (
        Pruned,
        Rollback,
        ServingContainer,
        StageHistory,
        VersionDiff,
    )

_LOG: Final = logging.getLogger("vertex_registry")
_LOG.addHandler(logging.NullHandler())

#: The attributes that aren't settings. Neither a pickle nor a copy includes them.
_PROCESS_STATE: Final = frozenset({"_lock", "_connection", "_storages", "emulator", "_owner"})

_LOCAL_PROJECT: Final = "local-project"
_DEFAULT_LOCATION: Final = "us-central1"  # the default of Google's own SDK
_RETRY: Final = Retry()

# A project's ID, which may begin with a domain, or its number.
_PROJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]*", re.ASCII)

#: How many seconds a pre-flight check may take if the caller didn't request it.
_PROBE_TIMEOUT: Final = 5.0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _new_id() -> str:
    return uuid.uuid4().hex


class RegistryClient:
    """A model registry on Vertex AI.

    Creating a client does no I/O. Google's libraries are imported on the first call. Threads can share a client, and so
    can forked processes: each opens its own connection. A client can be pickled unless its credentials can't, and the
    copy opens its own connection.

    Examples:
        >>> from vertex_registry import local_registry
        >>> with local_registry() as registry:
        ...     version = registry.register_version("churn", "gs://models/churn/1", metadata={"accuracy": 0.93})
        ...     version.version, version.stage, version.metadata
        ('1', <Stage.NONE: 'None'>, {'accuracy': 0.93})

    Args:
        project: The Google Cloud project, by ID or number. Defaults to ``GOOGLE_CLOUD_PROJECT``, then to the
            credentials' project.
        location: The location. Defaults to ``GOOGLE_CLOUD_LOCATION``, then to ``us-central1``.
        credentials: A google-auth credentials object, the path of a credentials file, or its content as a dict.
            Defaults to the application default credentials.
        endpoint: The address of the service: ``host``, ``host:port`` or a URL. The connection isn't encrypted if the
            address begins with ``http://``, or is a loopback address without a scheme. Defaults to
            ``VERTEX_AI_EMULATOR_HOST``, then to Vertex AI in the location.
        transport: ``"grpc"`` or ``"rest"``. Defaults to REST if the endpoint begins with ``http://``, and to gRPC
            otherwise.
        managed_by: The value of the label ``managed_by`` on everything that you register.
        actor: The author of stage changes, as in ``stage_changed_by``, if the credentials don't have a name.
        default_image: The serving image, or the framework, for versions that you register without a container. Defaults
            to the image for what wrote the model, or to the newest one of scikit-learn if that isn't known.
        staging_bucket: Where local artifacts are uploaded to: ``gs://bucket``, or a directory in it.
        retry: The retry and timeout policy.
        user_agent: The beginning of the user agent.
        now: A function that returns the time for timestamps, as an aware datetime. Made for tests.
        new_id: A function that returns a unique ID for each upload, and for each registration without a request ID.

    Raises:
        InvalidArgumentError: A setting isn't valid.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        location: str | None = None,
        credentials: Any = None,
        endpoint: str | None = None,
        transport: Literal["grpc", "rest"] | None = None,
        managed_by: str = "zenml",
        actor: str | None = None,
        default_image: str | None = None,
        staging_bucket: str | None = None,
        retry: Retry = _RETRY,
        user_agent: str | None = None,
        now: Callable[[], dt.datetime] = _now,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        _arguments.check_not_empty(
            project=project,
            location=location,
            endpoint=endpoint,
            credentials=credentials,
            actor=actor,
            default_image=default_image,
            user_agent=user_agent,
        )
        if location is None:
            location = os.environ.get("GOOGLE_CLOUD_LOCATION") or _DEFAULT_LOCATION
        self._location = location
        self._project = (os.environ.get("GOOGLE_CLOUD_PROJECT") or None) if project is None else project
        _endpoint.check_location(self._location)
        if self._project is not None and not (isinstance(self._project, str) and _PROJECT.fullmatch(self._project)):
            raise InvalidArgumentError(f"project={quote(self._project)} isn't the ID or the number of a project.")
        if not isinstance(retry, Retry):
            raise InvalidArgumentError(
                f"retry has to be a Retry, such as Retry(call_timeout=30), not {type(retry).__name__}."
            )
        for what, function in (("now", now), ("new_id", new_id)):
            if not callable(function):
                raise InvalidArgumentError(f"{what} has to be a function, not {type(function).__name__}.")
        self._endpoint = _endpoint.resolve(endpoint, transport, self._location, credentials)
        self._managed_by = _labels.check_managed_by(managed_by)
        self._actor = None if actor is None else _names.check_text("actor", actor, 128)
        self._default_image = (
            None if default_image is None else _containers.check_default_image(default_image, self._location)
        )
        self._staging_bucket = None if staging_bucket is None else _names.check_staging_bucket(staging_bucket)
        self._retry = retry
        self._user_agent = _arguments.user_agent(user_agent)
        self._now = now
        self._new_id = new_id
        self._closed = False
        self._artifacts: Path | None = None  # where a local registry keeps artifacts
        self._init_connections()

    def _init_connections(self) -> None:
        self._lock = _process.Lock()
        self._connection: _resources.Resources | None = None
        self._storages = _process.Owned(self._open_storage)

    def __repr__(self) -> str:
        return (
            f"RegistryClient(project={self._project!r}, location={self._location!r}, endpoint={self._endpoint.host!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings. A client that's unpickled from them opens its own connection.

        Raises:
            InvalidArgumentError: A setting can't be pickled.
        """
        state = {name: value for name, value in vars(self).items() if name not in _PROCESS_STATE}
        settings = state | {"credentials": self._endpoint.credentials}
        settings["_endpoint"] = attrs.evolve(self._endpoint, credentials=None)
        _arguments.check_picklable(settings)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._init_connections()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Closing twice is fine.

        Calls in other threads end at once with a `ClientClosedError`. A registration raises `StateUnknownError`, as the
        upload may have happened.
        """
        with self._lock:
            vertex, self._connection, self._closed = self._connection, None, True
        storage = self._storages.take()
        for connection in (vertex, storage):
            if connection is not None:
                connection.close()

    # --- versions -----------------------------------------------------------------------------------------------------

    def register_version(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        version_name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        file_metadata: Mapping[str, Any] | None = None,
        stage: Stage | str = Stage.NONE,
        archive_existing: bool = False,
        aliases: Iterable[str] = (),
        make_default: bool = True,
        container: ServingContainer | str | None = None,
        gpu: bool = False,
        model_description: str | None = None,
        staging_bucket: str | None = None,
        check_source: bool | Literal["auto"] = "auto",
        request_id: str | None = None,
        reuse_existing: bool = False,
        follow_links: bool = False,
    ) -> ModelVersion:
        """Register an artifact as the next version of a model and return the version.

        The model is created with its first version. A name means one model: if several processes register a new name
        at once, one of them creates the model and the others add versions.

        If somebody else changes the version's metadata or stage while it's being registered, their change stays.

        Args:
            name: The model's display name, of 1 to 128 characters, or the full resource name of an existing model.
            source: The artifact's directory, ``gs://bucket/directory``. With a staging bucket, it can be a folder or
                file on this machine. It's uploaded first, unless the bucket has the same bytes already.
            version_name: Your own name for the version, of 1 to 128 characters. It's kept exactly.
            description: A description of the version.
            metadata: Any JSON object, nested at most 100 levels deep, that fits into the version's labels and leaves
                space for a stage. It comes back equal.
            file_metadata: More metadata, up to 16 MiB, for a file in the folder that's uploaded. Searches and lists
                don't see it; `get_metadata` reads both. Needs an artifact on this machine. Defaults to no file.
            stage: The stage that the version begins in.
            archive_existing: Whether to archive the other versions in that stage.
            aliases: Aliases for the version. They're set once it has its stage and metadata. An alias that another
                version has moves here.
            make_default: Whether to make this the default version, as Google's SDK does. It's the default from the
                upload on, so of concurrent uploads the latest wins. A model's first version is always the default.
            container: The container that serves the version: a `ServingContainer`, an image's URI, or a framework that
                Vertex has images for, with or without a version (``"sklearn"``, ``"xgboost:2.1"``). Defaults to the
                client's default image.
            gpu: Whether to use the framework's image for machines with a GPU.
            model_description: A description of the model, used if this version creates it.
            staging_bucket: Where a local artifact is uploaded to: ``gs://bucket``, or a directory in it. Defaults to
                the client's. The artifact goes to ``<staging bucket>/<ID of the model's name>/<digest>``.
            check_source: Whether to check first that the ``gs://`` directory has a file that a prebuilt image loads;
                Vertex refuses it otherwise. If true, it's an error if the bucket can't be read. Defaults to checking if
                the bucket can be read, and with an emulator only if there's a storage emulator.
            request_id: Your own ID for this registration. If you register with it again, at any time and from any
                process, you get the version that it created, and it's completed if it was cut off. Concurrent calls
                with one ID create one version: the lowest stays, and the others are removed.
            follow_links: Whether to upload what links point to even if it's outside the folder. Defaults to refusing
                such links, except those of a Hugging Face cache.
            reuse_existing: Return the newest version with this ``version_name`` if it has the same source, so you can
                run the same registration again. The version stays as it is: if you pass another description, metadata
                or stage, a warning is logged. Another source makes a new version, and so does going back to an
                earlier one. Needs ``version_name``, and excludes ``request_id``.

        Raises:
            InvalidArgumentError: An argument isn't valid, or the image can't serve the source. Nothing was sent.
            AmbiguousNameError: Several models have the name.
            NotFoundError: ``name`` is the resource name of a model that doesn't exist, or the bucket doesn't exist. Or
                the version was deleted while it was being registered; the message says what a second run does.
            PermissionDeniedError: The credentials may not register it, write to the staging bucket, or delete a second
                upload of the request. The message says which.
            ConflictError: ``request_id`` has registered another source, a file changed during the upload, or a label on
                the model itself hides what was written on the version.
            StateUnknownError: The version may or may not have been created. Register again with the error's
                ``request_id``.
            OperationFailedError: Vertex couldn't create the version.
            OperationTimeoutError: Vertex is still creating the version at the end of the time budget.
        """
        from vertex_registry import _registration, _sources

        self._check_model(name)
        _names.check_new_name(name)
        identity = self._unique_id() if request_id is None else _names.check_text("request_id", request_id, 512)
        if version_name is not None:
            _names.check_text("version_name", version_name, 128)
        _arguments.check_choice("check_source", check_source, "auto", True, False)
        from vertex_registry import _reuse

        _reuse.check_arguments(reuse_existing=reuse_existing, version_name=version_name, request_id=request_id)
        given = [_names.check_alias(alias) for alias in _arguments.check_strings("aliases", aliases)]
        if _names.DEFAULT_ALIAS in given and not make_default:
            raise InvalidArgumentError(
                "aliases has 'default', but make_default=False leaves it on another version. Remove one of the two."
            )
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=archive_existing)
        staging = self._staging(staging_bucket)
        local = _sources.local_directory(source, staging, follow_links=follow_links)
        more = _arguments.file_metadata(file_metadata, metadata, uploads=local is not None)
        checked_source = self._checked_source(source) if local is None else local.source
        described = _servable.MLmodel.of({} if local is None else local.paths)
        chosen_container, doubts = self._choose_container(container, local, described, gpu=gpu)
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
        registration = _registration.Registration(
            name=name,
            source=checked_source,
            container=chosen_container,
            aliases=tuple(alias for alias in dict.fromkeys(given) if alias != _names.DEFAULT_ALIAS),
            make_default=make_default,
            description=None if description is None else _names.check_text("description", description),
            model_description=(
                None if model_description is None else _names.check_text("model_description", model_description)
            ),
            metadata=_labels.check_metadata({} if metadata is None else metadata),
            version_name=version_name,
            stage=chosen,
            archive_existing=archive_existing,
            managed_by=self._managed_by,
            request_id=identity,
            shared=request_id is not None,
            metadata_file=more is not None,
        )
        self._check_metadata_fits(registration.metadata, version_name, in_file=more is not None)
        if _names.looks_like_id(name):
            with self._verb() as vertex:
                vertex.refuse_id(name)
        if local is not None:
            uri = self._upload(
                local, described, name=name, staging=staging, image=registration.container.image, metadata=more
            )
            registration = attrs.evolve(registration, source=uri)
            check_source = False

        def check() -> None:
            with self._vertex.rpc.uncounted():
                self._check_source(registration.source, registration.container.image, check_source)

        def register(registration: _registration.Registration) -> ModelVersion:
            try:
                if not registration.shared:
                    check()
                with self._verb() as vertex:
                    registrar = _registration.Registrar(vertex, self._promoter, self._unique_id)
                    return registrar.register(registration, check if registration.shared else None)
            except ClientClosedError as closed:
                raise _registration.state_unknown(
                    registration, name, "This RegistryClient was closed meanwhile."
                ) from closed

        return self._reuse_or_register(registration, register) if reuse_existing else register(registration)

    def _reuse_or_register(
        self,
        registration: _registration.Registration,
        register: Callable[[_registration.Registration], ModelVersion],
    ) -> ModelVersion:
        from vertex_registry import _reuse

        version_name = str(registration.version_name)
        with self._verb() as vertex:
            newest = None
            with contextlib.suppress(NotFoundError):
                newest = vertex.find(registration.name, lambda model: vertex.read_named(model, version_name))[1]
            return _reuse.register(registration, newest, register)

    def upload(
        self,
        source: str | os.PathLike[str],
        *,
        name: str,
        staging_bucket: str | None = None,
        container: ServingContainer | str | None = None,
        follow_links: bool = False,
    ) -> str:
        """Upload a folder on this machine, as `register_version` does first, and return its ``gs://`` directory.

        The same bytes aren't sent twice, and an interrupted upload continues where it was.

        Args:
            source: The folder, or a file.
            name: The name of the model that it's for.
            staging_bucket: Where to upload to: ``gs://bucket``, or a directory in it. Defaults to the client's.
            container: The container that will serve it, as in `register_version`.
            follow_links: Whether to upload what links point to even if it's outside the folder, as in
                `register_version`.

        Raises:
            InvalidArgumentError: The folder doesn't exist, there's no staging bucket, or the image can't serve it.
            NotFoundError: The bucket doesn't exist.
            PermissionDeniedError: The credentials may not write to it.
            ConflictError: A file changed during the upload.
            UnavailableError: There was no usable response within the time budget.
        """
        from vertex_registry import _sources

        self._check_model(name)
        _names.check_new_name(name)
        staging = self._staging(staging_bucket)
        if (local := _sources.local_directory(source, staging, follow_links=follow_links)) is None:
            self._checked_source(source)
            raise InvalidArgumentError(f"{quote(source)} is in Cloud Storage already. Pass a local folder.")
        described = _servable.MLmodel.of(local.paths)
        chosen, doubts = self._choose_container(container, local, described, gpu=False)
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
        return self._upload(local, described, name=name, staging=staging, image=chosen.image)

    def choose_container(
        self,
        source: str | os.PathLike[str],
        *,
        container: ServingContainer | str | None = None,
        follow_links: bool = False,
    ) -> ServingContainer:
        """Return the container that `register_version` would serve a folder with, and check that it can.

        Nothing is sent, and no model is loaded or converted. A warning says if the container may not load the model.

        Args:
            source: The folder on this machine, or a file.
            container: The container, as in `register_version`. Defaults to the client's default image, or to the
                prebuilt image for what wrote the model.
            follow_links: Whether what links point to counts even if it's outside the folder, as in `register_version`.

        Raises:
            InvalidArgumentError: The folder doesn't exist, or the image can't serve it. The message says what to do.
        """
        from vertex_registry import _sources

        if (local := _sources.local_directory(source, "", follow_links=follow_links)) is None:
            raise InvalidArgumentError(f"{quote(source)} isn't a folder on this machine. Pass one.")
        described = _servable.MLmodel.of(local.paths)
        chosen, doubts = self._choose_container(container, local, described, gpu=False)
        for doubt in doubts:
            warnings.warn(doubt, stacklevel=2)
        loads = _serving.model_files(chosen.image)
        renamed = local.with_names(_servable.renames(local.names, loads, where=local.source))
        _sources.check_servable(renamed, chosen.image, loads, described)
        return chosen

    def download(self, uri: str, destination: str | os.PathLike[str] | None = None) -> Path:
        """Download a ``gs://`` directory, verify its checksums, and return its folder on this machine.

        Args:
            uri: The directory.
            destination: The folder to create. Defaults to one in the cache, which is downloaded once and reused.

        Raises:
            InvalidArgumentError: It isn't a directory in Cloud Storage, or the destination isn't a path or is in the
                artifacts folder of this registry.
            NotFoundError: It doesn't exist or is empty.
            AlreadyExistsError: The destination exists already.
            PermissionDeniedError: The credentials may not read it.
            ConflictError: A file was replaced during the download, or a local registry's artifact was changed.
            UnavailableError: There was no usable response within the time budget.
        """
        self._check_open()
        if (
            isinstance(uri, str)
            and uri
            and ("://" not in uri or uri.lower().startswith("file://"))
            and _names.to_gs_uri(uri) is None
        ):
            raise InvalidArgumentError(f"{quote(uri)} isn't in Cloud Storage. Pass 'gs://bucket/directory'.")
        return self._storage.download(_names.check_source(uri), self._checked_destination(destination))

    def load_version(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
        trusted: bool = False,
    ) -> Any:
        """Load the model object that was saved in a version's artifact and return it.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.
            trusted: Whether you trust everybody who can write to the artifact: pickle, joblib, torch, SavedModel and
                .keras files run their writer's code when they're loaded, and a crafted XGBoost file can crash the
                process. Nothing is loaded without it.

        Raises:
            InvalidArgumentError: ``trusted`` isn't True.
            NotFoundError: The version doesn't exist, or its artifact has no model that can be loaded.
            RegistryError: The library that loads it isn't installed, or can't load it.
        """
        found = self.get_version(name, version, version_name=version_name, stage=stage)
        return _loading.load(self._download(found, None), trusted=trusted, where=found.artifact_uri)

    def download_version(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        destination: str | os.PathLike[str] | None = None,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> Path:
        """Download a version's artifact, verify its checksums, and return its folder on this machine.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            destination: The folder to create. Defaults to one in the cache, which is downloaded once and reused.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.

        Raises:
            InvalidArgumentError: The destination isn't a path, or is in the artifacts folder of this registry.
            NotFoundError: The version doesn't exist, has no artifact, or the artifact was deleted.
            AlreadyExistsError: The destination exists already.
            PermissionDeniedError: The credentials may not read the artifact.
            ConflictError: A file was replaced during the download, or a local registry's artifact was changed.
            UnavailableError: There was no usable response within the time budget.
        """
        folder = self._checked_destination(destination)
        found = self.get_version(name, version, version_name=version_name, stage=stage)
        return self._download(found, folder)

    def get_metadata(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> dict[str, Any]:
        """Return all metadata of a version: what ``ModelVersion.metadata`` has, and what's in its metadata file.

        Only a version that was registered with ``file_metadata`` has such a file, and only then a file is read. If both
        have a key, the version's own wins, because the file never changes: `update_version` writes to the version.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.

        Raises:
            NotFoundError: The version doesn't exist, or its metadata file was deleted.
            PermissionDeniedError: The credentials may not read the file.
            RegistryError: Somebody has replaced the file by one that doesn't hold metadata.
        """
        found = self.get_version(name, version, version_name=version_name, stage=stage)
        if found.metadata_file is None:
            return found.metadata
        content = self._storage.read(found.metadata_file, _labels.MAX_FILE)
        try:
            in_file = _labels.from_file(content)
        except ValueError:
            raise RegistryError(
                f"{found.metadata_file} isn't the file that was registered: it doesn't hold a JSON object.",
                resource=found.metadata_file,
            ) from None
        return dict(sorted({**in_file, **found.metadata}.items()))

    def metadata_fits(self, metadata: Mapping[str, Any], *, version_name: str | None = None) -> bool:
        """Return whether metadata fits into the labels of a version that this client registers. Nothing is sent.

        The answer counts the label of a metadata file too, so what doesn't fit can go there: pass it to
        `register_version` as ``file_metadata``.

        Args:
            metadata: The JSON object.
            version_name: The name that the version will be registered with. Defaults to no name.

        Raises:
            InvalidArgumentError: It isn't a JSON object.
        """
        checked = _labels.check_metadata(metadata)
        try:
            self._check_metadata_fits(checked, version_name, in_file=True)
        except InvalidArgumentError:
            return False
        return True

    def to_aiplatform(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> Any:
        """Return a version as a ``google.cloud.aiplatform.Model``, for example to deploy it with Google's SDK.

        It uses this client's project, location, endpoint and credentials. What you passed to ``aiplatform.init`` is
        neither used nor changed.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`. Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``.
            stage: The stage the version is in, instead of ``version``.

        Raises:
            NotFoundError: The model or version doesn't exist.
        """
        self._check_model(name)
        with self._verb() as vertex:
            return vertex.to_aiplatform(self.get_version(name, version, version_name=version_name, stage=stage))

    def get_version(
        self,
        name: str,
        version: str | int | ModelVersion = _names.DEFAULT_ALIAS,
        *,
        version_name: str | None = None,
        stage: Stage | str | None = None,
    ) -> ModelVersion:
        """Return one version of a model: the default one, or the one you name in one of three ways.

        Args:
            name: The model's name.
            version: The number of the version (``3`` or ``"3"``), an alias, or a `ModelVersion`, which is read again.
                Defaults to the default version.
            version_name: The name that the version was registered with, instead of ``version``. If several versions
                have it, the newest is returned.
            stage: The stage the version is in, instead of ``version``. If several versions are in it, the one that
                entered last is returned.

        Raises:
            InvalidArgumentError: More than one of the three is given.
            NotFoundError: No such model or version exists.
        """
        self._check_model(name)
        if (version != _names.DEFAULT_ALIAS) + (version_name is not None) + (stage is not None) > 1:
            raise InvalidArgumentError("Give one of version, version_name and stage.")
        if version_name is not None:
            wanted = _names.check_text("version_name", version_name, 128)
            with self._verb() as vertex:
                return vertex.find(name, lambda model: vertex.read_named(model, wanted))[1]
        if stage is not None:
            return self._in_stage(name, _stages.check_stage(stage))
        given = _arguments.number_or_alias(name, version)
        if (reference := _names.version_reference(given)) is None:
            raise _arguments.no_version_error(name, given)
        with self._verb() as vertex:
            return vertex.find(name, lambda model: vertex.read(model, reference))[1]

    def find_version(self, name: str, text: str) -> ModelVersion:
        """Return the version that was registered under a name, or else the version of that number.

        Use it for what a person typed. A number only finds a version that was registered without a name, so no text
        means two versions. If several versions have the name, the newest is returned.

        Args:
            name: The model's name.
            text: The name of the version, or its number.

        Raises:
            NotFoundError: No such model or version exists, or no version can be registered under such a name.
        """
        self._check_model(name)
        if not _names.is_version_name(text):
            raise NotFoundError(
                f"The model {name!r} has no such version, by name or by number: a version's name is text of 1 to 128 "
                "characters.",
                resource=name,
            )
        number = _names.version_id(text)
        with self._verb() as vertex:

            def read(model: _resources.Model) -> ModelVersion:
                with contextlib.suppress(NotFoundError):
                    return vertex.read_named(model, text)
                if number is not None:
                    with contextlib.suppress(NotFoundError):
                        found = vertex.read(model, number)
                        if found.version_name is None:
                            return found
                raise NotFoundError(
                    f"The model {name!r} has no version {text!r}, by name or by number. list_versions({name!r}) shows "
                    "which exist.",
                    resource=model.resource,
                )

            return vertex.find(name, read)[1]

    def _in_stage(self, name: str, stage: Stage) -> ModelVersion:
        """Return the version that entered a stage last, of those that are in it."""
        from vertex_registry import _promotion

        found = max(self.list_versions(name, stage=stage), key=_promotion.claim_key, default=None)
        if found is None:
            raise NotFoundError(
                f"The model {name!r} has no version in {stage}. Put one there with "
                f"set_stage({name!r}, ..., Stage.{stage.name}).",
                resource=name,
            )
        return found

    def list_versions(
        self,
        name: str | None = None,
        *,
        stage: Stage | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        artifact_uri: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
    ) -> Listing[ModelVersion]:
        """List the versions of a model lazily, newest first. At a prompt or in a notebook, the list shows as a table.

        Vertex filters by the stage, which is a label that each version has itself. The client does the rest, because
        Vertex doesn't document which other labels its filters see. The list is read page by page: the first page has up
        to 100 versions, and the next ones have up to 1,000.

        Args:
            name: The model's name. Defaults to every model, newest first; the versions of a model stay together.
            stage: Only versions in this stage. Defaults to any stage.
            metadata: Only versions whose metadata has these keys with these values. Defaults to any metadata.
            artifact_uri: Only versions of this artifact. Defaults to any artifact.
            created_after: Only versions uploaded after this time, an aware datetime. Defaults to any time.
            created_before: Only versions uploaded before this time, an aware datetime. Defaults to any time.
            oldest_first: Whether to list the versions of each model oldest first. Defaults to newest first.
            limit: The largest number of versions, after filtering. Defaults to all of them.

        Raises:
            InvalidArgumentError: An argument isn't valid. This is raised by the call itself.
            NotFoundError: The model doesn't exist. This is raised when the first version is taken.
        """
        if name is not None:
            self._check_model(name)
        self._check_open()
        chosen = None if stage is None else _stages.check_stage(stage)
        conditions = Conditions(
            metadata=_labels.check_metadata({} if metadata is None else metadata),
            artifact_uri=None if artifact_uri is None else _names.check_text("artifact_uri", artifact_uri).rstrip("/"),
            created_after=_arguments.check_aware("created_after", created_after),
            created_before=_arguments.check_aware("created_before", created_before),
        )
        _arguments.check_limit(limit)

        def pages() -> Generator[Iterable[ModelVersion], None, None]:
            most = None if conditions else limit
            yield from self._vertex.iter_versions(name, stage=chosen, oldest_first=oldest_first, most=most)

        return Listing(take(conditions.select(pages()), limit), ModelVersion)

    def latest_version(self, name: str, *, stage: Stage | str | None = None) -> ModelVersion | None:
        """Return the newest version of a model, or the newest in a stage.

        Args:
            name: The model's name.
            stage: Only consider versions in this stage. Defaults to every version.

        Returns:
            The version, or None if the model has no such version.

        Raises:
            InvalidArgumentError: The name or the stage isn't valid. Nothing was sent.
            NotFoundError: The model doesn't exist. The message suggests names that are close.
        """
        self._check_model(name)
        return next(self.list_versions(name, stage=stage, limit=1), None)

    def update_version(
        self,
        name: str,
        version: str | int | ModelVersion,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        remove_metadata: Iterable[str] = (),
        stage: Stage | str | None = None,
    ) -> ModelVersion:
        """Update a version and return it.

        What you don't name stays as it is, even if somebody else changes it at the same time.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.
            description: The new description; ``""`` clears it. Defaults to keeping it.
            metadata: Metadata keys to set. Other keys stay.
            remove_metadata: Metadata keys to remove. Keys that the version doesn't have are ignored.
            stage: The stage to put it in. Defaults to keeping it. `set_stage` can archive the other versions too.

        Raises:
            InvalidArgumentError: An argument isn't valid, or the metadata doesn't fit. Nothing was changed.
            NotFoundError: The model or version doesn't exist.
            ConflictError: A label on the model itself hides what was written on the version.
        """
        from vertex_registry import _layers

        self._check_model(name)
        reference = _arguments.check_reference(name, version)
        if description is not None:
            _names.check_text("description", description)
        added = _labels.check_metadata({} if metadata is None else metadata)
        removed = tuple(_arguments.check_strings("remove_metadata", remove_metadata))
        chosen = None if stage is None else _stages.check_stage(stage)
        if both := sorted(added.keys() & set(removed)):
            raise InvalidArgumentError(
                f"metadata and remove_metadata both have {', '.join(map(repr, both))}. Name each key in one of them."
            )
        if description is None and not added and not removed and chosen is None:
            return self.get_version(name, version)

        def change(current: ModelVersion) -> _layers.Change:
            if not added and not removed and chosen is None:
                return _layers.Change(labels=None, description=description)
            stage_labels = {} if chosen is None else self._promoter.stage_labels(chosen, current)
            reserve = self._promoter.reserved_labels() if added else {}
            labels = _labels.write(
                current.labels, metadata=added, remove=removed, own_labels=stage_labels, reserve=reserve
            )
            if added:
                _labels.check_fits(labels, reserve)
            return _layers.Change(labels=labels, description=description)

        with self._verb() as vertex:
            model, current = vertex.find(name, lambda model: vertex.read(model, reference))
            return _layers.change_version(vertex, model, current, change, adds=bool(added))

    def set_stage(
        self,
        name: str,
        version: str | int | ModelVersion,
        stage: Stage | str,
        *,
        archive_existing: bool = False,
        make_default: bool = False,
    ) -> ModelVersion:
        """Put a version in a stage and return it.

        With ``archive_existing=True`` the version enters the stage before the others leave it, so the stage is never
        empty. If two versions are promoted at once, the later one stays and the other is archived; the stage of the
        version that's returned says which. If a call is cut off, call it again to finish it.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.
            stage: A `Stage`, or its name in any case.
            archive_existing: Archive the other versions in that stage, which is Staging or Production.
            make_default: Make it the default version too, so what Vertex serves by default is what's in the stage.

        Raises:
            InvalidArgumentError: An argument isn't valid. Nothing was sent.
            NotFoundError: No such model or version exists.
            ConflictError: A label ``stage`` on the model itself hides the version's, or a version in the stage has so
                many labels from others that it can't be archived.
        """
        chosen = _stages.check_stage(stage)
        _stages.check_exclusive(chosen, archive_existing=archive_existing)
        if not archive_existing:
            changed = self.update_version(name, version, stage=chosen)
        else:
            self._check_model(name)
            reference = _arguments.check_reference(name, version)
            with self._verb() as vertex:
                model, current = vertex.find(name, lambda model: vertex.read(model, reference))
                changed = self._promoter.promote(model, current, chosen)
        if make_default and changed.stage is chosen and not changed.is_default:
            return self.set_default(name, changed)
        return changed

    def rollback(self, name: str, *, stage: Stage | str = Stage.PRODUCTION) -> Rollback:
        """Put the version that was in a stage before back into it, and archive the one that's there now.

        The stage is never empty meanwhile, and if the call is cut off, calling it again finishes it. Rolling back
        twice goes back two steps, and two calls at the same time go back one step. Promoting an old version again is
        a step like any other: after 1, 2, 3 and 1 again, the version before is 3.

        Args:
            name: The model's name.
            stage: Staging or Production.

        Returns:
            What was restored, and what it replaced.

        Raises:
            InvalidArgumentError: An argument isn't valid. Nothing was sent.
            NotFoundError: No such model exists, nothing is in the stage, or nothing was in it before.
            HistoryUnknownError: The versions don't remember what was in the stage before, or it may have been a
                version that is deleted. Choose a version and use `set_stage`.
            ConflictError: Another version entered the stage meanwhile, and stays. Or the version that was in the stage
                before is in another stage now, which must not be emptied.
        """
        chosen = _stages.check_stage(stage)
        if chosen not in {Stage.STAGING, Stage.PRODUCTION}:
            raise InvalidArgumentError(f"You can roll back Staging and Production, not {chosen}.")
        self._check_model(name)
        with self._verb() as vertex:
            model, staged = vertex.find(name, vertex.list_staged)
            return self._promoter.roll_back(model, staged, chosen, name=name)

    def stage_history(self, name: str, version: str | int | ModelVersion | None = None) -> StageHistory:
        """Return the stage changes that a model's versions remember, newest first.

        Each version remembers at least its latest 12 changes that were made through this package, and takes its
        history with it when it's deleted.

        Args:
            name: The model's name.
            version: The number of a version, an alias, or a `ModelVersion`. Defaults to all versions.

        Returns:
            The changes. ``complete`` says whether older ones were dropped or another tool changed a stage.

        Raises:
            InvalidArgumentError: The name isn't valid. Nothing was sent.
            NotFoundError: No such model or version exists.
        """
        self._check_model(name)
        if version is not None:
            return _history.stage_history([self.get_version(name, version)])
        with self._verb() as vertex:
            return _history.stage_history(vertex.find(name, vertex.list_staged)[1].versions)

    def version_at(self, name: str, when: dt.datetime, *, stage: Stage | str = Stage.PRODUCTION) -> ModelVersion | None:
        """Return the version that was in a stage at a time, or None if none was.

        If several versions were in the stage, that's the one that entered last. The record shows the version as it is
        now.

        Args:
            name: The model's name.
            when: The time, with a time zone.
            stage: The stage.

        Raises:
            InvalidArgumentError: ``when`` has no time zone or lies in the future, or there's no such stage.
            NotFoundError: No such model exists.
            HistoryUnknownError: The history doesn't prove an answer: changes were dropped, another tool changed a
                stage, or a version that's deleted may have been in the stage. The message says which.
        """
        self._check_model(name)
        chosen = _stages.check_stage(stage)
        if when is None or (moment := _arguments.check_aware("when", when)) is None:
            raise InvalidArgumentError("when is missing. Give a datetime such as datetime(2026, 1, 31, tzinfo=UTC).")
        if moment > self._time():
            raise InvalidArgumentError(
                f"when={moment.isoformat()} is in the future. For the present, use get_version({name!r}, stage=...)."
            )
        with self._verb() as vertex:
            model, staged = vertex.find(name, vertex.list_staged)
            try:
                return _history.version_at(staged.versions, moment, chosen, complete=staged.complete)
            except _history.IncompleteListError:
                return _history.version_at(vertex.list_versions(model), moment, chosen)

    def best_version(
        self,
        name: str,
        metric: str,
        *,
        direction: Literal["max", "min"] = "max",
        stage: Stage | str | None = None,
    ) -> ModelVersion:
        """Return the version whose metric is best.

        Args:
            name: The model's name.
            metric: The metadata key of the metric. Versions where it's missing or not a number are left out.
            direction: ``"max"`` if higher is better, ``"min"`` if lower is. Of equal versions the newest is returned.
            stage: Only consider versions in this stage.

        Raises:
            InvalidArgumentError: An argument isn't valid.
            NotFoundError: No such model exists, or no version has the metric.
        """
        self._check_model(name)
        _names.check_text("metric", metric)
        _arguments.check_choice("direction", direction, "max", "min")
        sign = 1 if direction == "max" else -1
        measured = [
            version for version in self.list_versions(name, stage=stage) if is_number(version.metadata.get(metric))
        ]
        if not measured:
            where = "" if stage is None else f" in {_stages.check_stage(stage)}"
            raise NotFoundError(f"No version of {name!r}{where} has a number under {quote(metric)}.", resource=name)
        return max(measured, key=lambda version: (sign * version.metadata[metric], int(version.version)))

    def diff(self, name: str, a: str | int | ModelVersion, b: str | int | ModelVersion) -> VersionDiff:
        """Return what differs between two versions of a model.

        Args:
            name: The model's name.
            a: The number of a version, an alias, or a `ModelVersion`.
            b: The same for the other version.

        Raises:
            NotFoundError: No such model or version exists.
        """
        return _history.diff(self.get_version(name, a), self.get_version(name, b))

    def add_aliases(self, name: str, version: str | int | ModelVersion, aliases: Iterable[str]) -> ModelVersion:
        """Add aliases to a version and return it. An alias that another version has moves here.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.
            aliases: The aliases to add.

        Raises:
            InvalidArgumentError: An alias isn't valid. Nothing was sent.
            NotFoundError: The model or version doesn't exist.
        """
        added = [_names.check_alias(alias) for alias in _arguments.check_strings("aliases", aliases)]
        return self._merge_aliases(name, version, add=added)

    def remove_aliases(self, name: str, version: str | int | ModelVersion, aliases: Iterable[str]) -> ModelVersion:
        """Remove aliases from a version and return it. Aliases that it doesn't have are ignored.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.
            aliases: The aliases to remove.

        Raises:
            InvalidArgumentError: An alias isn't valid, or is ``default``, which one version always has.
            NotFoundError: The model or version doesn't exist.
        """
        removed = [_names.check_alias_to_remove(alias) for alias in _arguments.check_strings("aliases", aliases)]
        if _names.DEFAULT_ALIAS in removed:
            raise InvalidArgumentError(
                "The alias 'default' can't be removed, because a model always has a default version. "
                "Move it to another version with set_default(name, version)."
            )
        return self._merge_aliases(name, version, remove=removed)

    def set_default(self, name: str, version: str | int | ModelVersion) -> ModelVersion:
        """Make a version the model's default version and return it.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.

        Raises:
            NotFoundError: The model or version doesn't exist.
        """
        return self._merge_aliases(name, version, add=[_names.DEFAULT_ALIAS])

    def _merge_aliases(
        self, name: str, version: str | int | ModelVersion, *, add: Collection[str] = (), remove: Collection[str] = ()
    ) -> ModelVersion:
        from vertex_registry import _aliases

        self._check_model(name)
        reference = _arguments.check_reference(name, version)
        with self._verb() as vertex:
            model, current = vertex.find(name, lambda model: vertex.read(model, reference))
            return _aliases.merge_aliases(vertex, model, current, add=add, remove=remove)

    def delete_version(self, name: str, version: str | int | ModelVersion) -> None:
        """Delete a version. Deleting a model's last version deletes the model too, and logs a warning.

        If Vertex refuses to delete the default version, ``default`` moves to the newest other version first. It moves
        back if Vertex still refuses and nobody has moved it since. Before a model is deleted with its last version,
        that version is marked, and `register_version` waits for the outcome. Other tools don't know the mark, and
        Vertex has no conditional delete: what they upload in the moment before the model is deleted goes with it.

        Args:
            name: The model's name.
            version: The number of the version, an alias, or a `ModelVersion`.

        Raises:
            NotFoundError: The model or version doesn't exist.
            ConflictError: Vertex refuses, because the version is deployed.
        """
        from vertex_registry import _deletion

        self._check_model(name)
        reference = _arguments.check_reference(name, version)
        with self._verb() as vertex:
            model, current = vertex.find(name, lambda model: vertex.read(model, reference))
            _deletion.delete_version(vertex, model, current)

    def prune(self, name: str, *, keep: int, dry_run: bool = False) -> Pruned:
        """Delete old versions and return what was deleted and why the rest was kept.

        A version stays if it's one of the newest ``keep``, is in Staging or Production, has an alias (``default``
        among them), or is deployed. Each version is read right before it's deleted. Vertex can't make a deletion depend
        on that read, so a version that somebody promotes or gives an alias between the two is deleted nevertheless.

        Args:
            name: The model's name.
            keep: How many of the newest versions to keep; at least 1.
            dry_run: Delete nothing, and return what would be deleted.

        Raises:
            InvalidArgumentError: ``keep`` isn't a positive number.
            NotFoundError: No such model exists.
            ConflictError: Vertex refuses to delete a version. Versions deleted before that are gone.
        """
        if not is_integer(keep) or keep < 1:
            raise InvalidArgumentError(f"keep={quote(keep)} isn't a positive number of versions.")
        self._check_model(name)
        from vertex_registry import _deletion

        with self._verb() as vertex:
            model, versions = vertex.find(name, vertex.list_versions)
            return _deletion.prune(vertex, model, versions, keep, dry_run=dry_run)

    # --- models -------------------------------------------------------------------------------------------------------

    def delete_model(self, name: str) -> None:
        """Delete a model with all its versions.

        Raises:
            NotFoundError: The model doesn't exist.
            ConflictError: Vertex refuses, because a version is deployed.
        """
        from vertex_registry import _deletion

        self._check_model(name)
        with self._verb() as vertex:
            _deletion.delete_model(vertex, *vertex.find(name, vertex.read_model))

    def get_model(self, name: str) -> RegisteredModel:
        """Return the model with a name.

        Raises:
            NotFoundError: No model has the name. The message suggests names that are close.
            AmbiguousNameError: Several models have it.
        """
        self._check_model(name)
        with self._verb() as vertex:
            return vertex.find(name, vertex.read_model)[1]

    def list_models(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        order_by: Literal["created", "updated", "name"] = "created",
        limit: int | None = None,
    ) -> Listing[RegisteredModel]:
        """List the models lazily, newest first. At a prompt or in a notebook, the list shows as a table.

        Args:
            labels: Only models with these labels. Defaults to any labels.
            order_by: ``"created"`` for the newest first, ``"updated"`` for those that Vertex says were updated last, or
                ``"name"`` for the order of their names.
            limit: The largest number of models. Defaults to all of them.

        Raises:
            InvalidArgumentError: An argument isn't valid. This is raised by the call itself.
        """
        self._check_open()
        wanted = _labels.check_labels({} if labels is None else labels)
        _arguments.check_label_filter(wanted)
        _arguments.check_limit(limit)
        order = _arguments.check_order(order_by)

        def found() -> Generator[Iterable[RegisteredModel], None, None]:
            for models in self._vertex.iter_models(order):
                yield (model for model in models if wanted.items() <= model.labels.items())

        return Listing(take(found(), limit), RegisteredModel)

    def update_model(
        self,
        name: str,
        *,
        description: str | None = None,
        labels: Mapping[str, str] | None = None,
        etag: str | None = None,
    ) -> RegisteredModel:
        """Update a model and return it.

        Args:
            name: The model's name.
            description: The new description; ``""`` clears it. Defaults to keeping it.
            labels: The new labels of the model itself, except ``managed_by``, which stays. Each version shows them,
                unless it has a label with the same key. Defaults to keeping the labels.
            etag: The ``etag`` of the model as you read it, so you don't overwrite what changed since. Defaults to
                updating the model as it is now.

        Raises:
            InvalidArgumentError: An argument isn't valid. Nothing was sent.
            NotFoundError: The model doesn't exist.
            ConflictError: It doesn't have the ``etag`` any more. Nothing was changed.
        """
        from vertex_registry import _resources

        self._check_model(name)
        if description is not None:
            _names.check_text("description", description)
        own = None
        if labels is not None:
            for key, value in _labels.check_labels(labels).items():
                if (key, value) != (_labels.MANAGED_BY, self._managed_by):
                    _labels.check_label(key, value)
            own = {**labels, _labels.MANAGED_BY: self._managed_by}
            if len(own) > _labels.MAX_LABELS:
                raise InvalidArgumentError(
                    f"With managed_by there are {len(own)} labels, and Vertex allows {_labels.MAX_LABELS}. Remove some."
                )
        if description is None and own is None:
            return self.get_model(name)

        with self._verb() as vertex:
            model, current = vertex.find(name, vertex.read_model)
            if etag not in {None, current.etag}:
                raise _resources.changed_error(model)
            return vertex.update_model(model, current, labels=own, description=description, unchanged=etag is not None)

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name and return it. Its ID, versions, aliases and history stay.

        If somebody registers or renames another model under the new name in the same moment, both models have it.
        `duplicates` lists such models.

        Args:
            name: The model's name.
            new_name: The new name, of 1 to 128 characters.

        Raises:
            InvalidArgumentError: The new name isn't valid. Nothing was sent.
            NotFoundError: The model doesn't exist.
            AlreadyExistsError: Another model has the new name.
        """
        self._check_model(name)
        if _names.parse_model_name(_names.check_name(new_name)) is not None:
            raise InvalidArgumentError(f"{quote(new_name)} is a resource name. Pass a display name.")
        _names.check_new_name(new_name)
        with self._verb() as vertex:
            if _names.looks_like_id(new_name):
                vertex.refuse_id(new_name)
            model, current = vertex.find(name, vertex.read_model)
            other = vertex.find_verified(new_name)
            if other is not None and other.resource != model.resource:
                raise AlreadyExistsError(
                    f"There's another model {quote(new_name)}, so {quote(name)} wasn't renamed. Choose another name.",
                    resource=other.resource,
                )
            renamed = vertex.update_model(model, current, display_name=new_name)
            vertex.forget(name)
            vertex.remember(new_name, attrs.evolve(model, name=new_name, by_resource_name=False))
            return renamed

    def duplicates(self) -> dict[str, tuple[str, ...]]:
        """Return the names that several models have, each with the resource names of its models, newest first."""
        by_name: dict[str, list[str]] = {}
        for model in self.list_models():
            by_name.setdefault(model.name, []).append(model.resource_name)
        return {name: tuple(resources) for name, resources in by_name.items() if len(resources) > 1}

    # --- connecting ---------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("This RegistryClient is closed. Create a new one.")

    def _check_model(self, name: str) -> None:
        self._check_open()
        given = _names.parse_model_name(name) if isinstance(name, str) else None
        if given is None:
            _names.check_name(name)
        elif given.location != self._location:
            raise InvalidArgumentError(
                f"{name} is in {given.location}, but this client is for {self._location}. "
                f"Create one with location={given.location!r}."
            )

    @contextlib.contextmanager
    def _verb(self) -> Generator[_resources.Resources, None, None]:
        """Open a method's time budget, which all its calls share."""
        vertex = self._vertex
        with vertex.rpc.verb():
            yield vertex

    @property
    def _vertex(self) -> _resources.Resources:
        with self._lock:
            self._check_open()
            if self._connection is None:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> _resources.Resources:
        from vertex_registry import _credentials, _resources, _rpc

        endpoint = self._endpoint
        credentials, project = (None, None) if endpoint.anonymous else _credentials.load(endpoint.credentials)
        self._project = self._project or project or (_LOCAL_PROJECT if endpoint.emulated else None)
        if self._project is None:
            raise InvalidArgumentError(
                "The project isn't known. Pass RegistryClient(project=...), or set GOOGLE_CLOUD_PROJECT."
            )
        rpc = _rpc.Connection(endpoint, credentials, self._user_agent, self._retry, self._check_open)
        return _resources.Resources(rpc, self._project, self._location, on_vertex=endpoint.on_vertex)

    @property
    def _promoter(self) -> _promotion.Promoter:
        from vertex_registry import _promotion

        return _promotion.Promoter(self._vertex, self._managed_by, self._actor, self._time)

    def _time(self) -> dt.datetime:
        """Return the time that ``now`` returns, in UTC."""
        return _arguments.check_clock(self._now())

    def _unique_id(self) -> str:
        """Return the ID that ``new_id`` returns."""
        return _names.check_text("the ID that new_id returned", self._new_id(), 512)

    # --- artifacts and containers -------------------------------------------------------------------------------------

    @property
    def _storage(self) -> artifacts.Storage:
        return self._storages.get()

    def _open_storage(self, retry: Retry | None = None) -> artifacts.Storage:
        from vertex_registry import _credentials, artifacts

        self._check_open()
        given = self._endpoint.credentials
        credentials = None if given is None else _credentials.load(given)[0]  # Storage finds the default ones itself
        return artifacts.Storage(
            project=self._project,
            credentials=credentials,
            retry=retry or self._retry,
            folder=self._artifacts,
            without_folder=self._endpoint.emulated and self._artifacts is None,
        )

    def _checked_source(self, source: str | os.PathLike[str]) -> str:
        return _names.check_source(_arguments.source_text(source), emulated=self._endpoint.emulated)

    def _staging(self, staging_bucket: str | None) -> str | None:
        return self._staging_bucket if staging_bucket is None else _names.check_staging_bucket(staging_bucket)

    def _upload(
        self,
        local: artifacts.LocalDirectory,
        described: _servable.MLmodel,
        *,
        name: str,
        staging: str | None,
        image: str,
        metadata: bytes | None = None,
    ) -> str:
        from vertex_registry import _sources

        if self._artifacts is not None and local.holds(self._artifacts):
            raise InvalidArgumentError(
                f"{quote(local.source)} holds this registry's own artifacts folder, {self._artifacts}. Name the "
                "model's folder alone, or keep artifacts elsewhere with artifacts=."
            )
        loads = _serving.model_files(image)
        local = local.with_names(_servable.renames(local.names, loads, where=local.source))
        with _sources.servable(local, loads, described) as complete:
            _serving.check_directory(complete.names, image, where=complete.source)
            with _sources.with_metadata(complete, metadata) as everything:
                return self._storage.upload(everything, _sources.upload_directory(name, staging))

    def _check_metadata_fits(self, metadata: Mapping[str, Any], version_name: str | None, *, in_file: bool) -> None:
        from vertex_registry import _promotion

        reserve = _promotion.reserved_labels(self._managed_by, self._actor, version_name)
        if in_file:
            reserve[_labels.METADATA_FILE] = _labels.FILE_LABEL
        _labels.check_fits(_labels.write({}, metadata=metadata, reserve=reserve), reserve)

    def _download(self, version: ModelVersion, destination: Path | None) -> Path:
        if not version.artifact_uri:
            raise NotFoundError(
                f"Version {version.version} of {version.name!r} was registered without an artifact.",
                resource=version.resource_name,
            )
        return self._storage.download(version.artifact_uri, destination)

    def _checked_destination(self, destination: str | os.PathLike[str] | None) -> Path | None:
        from vertex_registry import artifacts

        if destination is None:
            return None
        folder = artifacts.expand_path(destination)
        if self._artifacts is not None and artifacts.is_below(folder, self._artifacts):
            raise InvalidArgumentError(
                f"destination={os.fspath(destination)!r} is in this registry's own artifacts folder, which is "
                f"{self._artifacts}. Name a folder elsewhere."
            )
        return folder

    def _check_source(self, source: str, image: str, wanted: bool | Literal["auto"]) -> None:
        """Check that the image can load a ``gs://`` directory."""
        from vertex_registry import _sources, artifacts

        if not wanted:
            return
        ours = self._artifacts is not None and source.startswith(f"gs://{_names.LOCAL_BUCKET}/")
        if wanted == "auto":
            without_storage = self._endpoint.emulated and not ours and not os.environ.get(artifacts.EMULATOR)
            if without_storage or not _serving.model_files(image):
                return
        required = wanted is True or ours
        list_names = self._storage.list_names if required else self._probe
        _sources.check_cloud_directory(source, image, required=required, list_names=list_names)

    def _probe(self, source: str) -> tuple[str, ...]:
        """List a directory within a few seconds, because the caller didn't request it."""
        timeout = min(self._retry.call_timeout, _PROBE_TIMEOUT)
        with contextlib.closing(self._open_storage(attrs.evolve(self._retry, call_timeout=timeout))) as storage:
            return storage.list_names(source)

    def _choose_container(
        self,
        container: ServingContainer | str | None,
        local: artifacts.LocalDirectory | None,
        described: _servable.MLmodel,
        *,
        gpu: bool,
    ) -> tuple[ServingContainer, list[str]]:
        return _containers.choose_container(
            container,
            {} if local is None else local.paths,
            described,
            default_image=self._default_image,
            location=self._location,
            gpu=gpu,
            today=self._time().date(),
        )
