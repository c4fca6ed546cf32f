"""MLflow's model registry on Vertex: the store behind ``vertex://PROJECT/LOCATION`` and ``vertex://local/FILE``.

It translates between MLflow's types and those of `RegistryClient`, and does nothing else. Filters and orders are
MLflow's own, and errors are MLflow's codes with this package's sentences. MLflow imports it in every process, so
neither importing nor creating a store loads Google's libraries or opens anything.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import attrs
import mlflow
from mlflow.entities.model_registry import (
    ModelVersion,
    ModelVersionTag,
    RegisteredModel,
    RegisteredModelAlias,
    RegisteredModelTag,
)
from mlflow.entities.model_registry.model_version_stages import (
    ALL_STAGES,
    DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS,
    get_canonical_stage,
)
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import add_prompt_filter_string, has_prompt_tag
from mlflow.protos import databricks_pb2 as codes
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import (
    SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
    SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD,
)
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.utils import validation
from mlflow.utils.search_utils import SearchModelUtils, SearchModelVersionUtils, SearchUtils

import vertex_registry
from vertex_registry import LocalRegistry, NotFoundError, RegistryError
from vertex_registry import mlflow_encoding as encoding
from vertex_registry.mlflow_artifacts import SCHEME
from vertex_registry.mlflow_connection import (
    NewModel,
    Place,
    exists_error,
    failure,
    registry_at,
    translate_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mlflow.entities.webhook import Webhook

    from vertex_registry import ModelVersion as VertexVersion
    from vertex_registry import RegisteredModel as VertexModel
    from vertex_registry import RegistryClient
    from vertex_registry.mlflow_connection import OpenRegistry

__all__ = ["VertexModelRegistryStore"]

_LOG: Final = logging.getLogger("vertex_registry")

_T = TypeVar("_T")

# --- translation ------------------------------------------------------------------------------------------------------

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_LATEST: Final = "latest"
_VERSION_ALIAS: Final = re.compile(r"[vV]\d+")
_ATTEMPTS: Final = 10
_LONGEST_REASON: Final = 300
#: How many models' versions are listed at once.
_READERS: Final = 8


def _milliseconds(moment: Any) -> int:
    return int(moment.timestamp() * 1000)


def _number(version: VertexVersion) -> int:
    """Return MLflow's number of a version: its name if that's a number, or else Vertex's number and an offset."""
    if version.version_name is not None and _NUMBER.fullmatch(version.version_name):
        return int(version.version_name)
    offset = version.metadata.get(encoding.OFFSET)
    return int(version.version) + (offset if isinstance(offset, int) and offset > 0 else 0)


def _mlflow_aliases(version: VertexVersion) -> dict[str, str]:
    """Return MLflow's names of a version's aliases, by Vertex's."""
    known = version.metadata.get(encoding.ALIASES)
    named = known if isinstance(known, dict) else {}
    return {alias: str(named.get(alias, alias)) for alias in version.aliases}


def _to_version(version: VertexVersion, metadata: Mapping[str, Any] | None = None) -> ModelVersion:
    """Return a version as MLflow's.

    Args:
        version: The version.
        metadata: All of its metadata. Defaults to what's in its labels, which costs no request.
    """
    everything = version.metadata if metadata is None else metadata

    def field(key: str) -> str | None:
        value = everything.get(key)
        return value if isinstance(value, str) and value else None

    created = everything.get(encoding.CREATED)
    return ModelVersion(
        name=version.name,
        version=cast("str", _number(version)),  # MLflow's own stores have a number there, which its filters need
        creation_timestamp=created if isinstance(created, int) else _milliseconds(version.created_at),
        last_updated_timestamp=_milliseconds(version.updated_at),
        description=version.description or None,
        user_id=field(encoding.USER_ID),
        current_stage=str(version.stage),
        source=field(encoding.SOURCE) or version.artifact_uri or None,
        run_id=field(encoding.RUN_ID),
        run_link=field(encoding.RUN_LINK),
        tags=[
            ModelVersionTag(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for key, value in everything.items()
            if key not in encoding.FIELDS
        ],
        aliases=sorted(_mlflow_aliases(version).values()),
        model_id=field(encoding.MODEL_ID),
    )


def _to_model(model: VertexModel, versions: Iterable[VertexVersion] = ()) -> RegisteredModel:
    description, tags = encoding.read_description(model.description)
    listed = list(versions)
    return RegisteredModel(
        name=model.name,
        creation_timestamp=_milliseconds(model.created_at),
        last_updated_timestamp=_milliseconds(model.updated_at),
        description=description or None,
        latest_versions=_latest(listed),
        tags=[RegisteredModelTag(key, value) for key, value in tags.items()],
        aliases=[
            RegisteredModelAlias(alias, _number(version))
            for version in listed
            for alias in _mlflow_aliases(version).values()
        ],
    )


def _to_new_model(name: str, new: NewModel) -> RegisteredModel:
    return RegisteredModel(
        name=name,
        creation_timestamp=new.created_at,
        last_updated_timestamp=new.created_at,
        description=new.description or None,
        latest_versions=[],
        tags=[RegisteredModelTag(key, value) for key, value in new.tags.items()],
        aliases=[],
    )


def _latest(versions: Iterable[VertexVersion], stages: Iterable[str] = ALL_STAGES) -> list[ModelVersion]:
    """Return the latest version in each stage."""
    latest: dict[str, VertexVersion] = {}
    for version in sorted(versions, key=_number):
        latest[str(version.stage)] = version
    return [_to_version(latest[stage]) for stage in stages if stage in latest]


def _page(found: Sequence[_T], max_results: int, token: str | None) -> tuple[Sequence[_T], str | None]:
    start = SearchUtils.parse_start_offset_from_page_token(token)
    end = start + max_results
    return found[start:end], SearchUtils.create_page_token(end) if end < len(found) else None


def _check_max_results(max_results: Any, most: int) -> None:
    if not isinstance(max_results, int) or isinstance(max_results, bool) or not 0 < max_results <= most:
        raise failure(f"max_results={max_results!r} isn't a number from 1 to {most:,}.", codes.INVALID_PARAMETER_VALUE)


# --- the store --------------------------------------------------------------------------------------------------------


class VertexModelRegistryStore(AbstractStore):
    """MLflow's model registry on Vertex AI. MLflow creates it for a registry URI that begins with ``vertex://``.

    Args:
        store_uri: The URI of the registry: ``vertex://PROJECT/LOCATION`` or ``vertex://local/FILE``, with settings such
            as ``?staging_bucket=gs://BUCKET``.
        tracking_uri: The URI of the tracking store, whose models are registered.
    """

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(store_uri, tracking_uri)
        self._tracking_uri = tracking_uri
        self._place = Place.parse(store_uri)

    @property
    def client(self) -> RegistryClient:
        """Return the client that the store uses, for everything that MLflow has no method for."""
        return self._registry.client

    @property
    def _registry(self) -> OpenRegistry:
        return registry_at(self._place)

    def close(self) -> None:
        """Close the registry, so another process can open its file. It's opened again when it's used."""
        self._registry.close()

    # --- models ---

    @translate_errors
    def create_registered_model(
        self,
        name: str,
        tags: Iterable[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Remember a new model until its first version, because Vertex has no model without one."""
        del deployment_job_id  # of Databricks
        validation._validate_model_name(name)
        given = {tag.key: tag.value for tag in tags or ()}
        for key, value in given.items():
            validation._validate_registered_model_tag(key, value)
        if has_prompt_tag(given):
            raise failure(
                "Vertex keeps models, not prompts. Register prompts in a registry of MLflow's own, such as a database.",
                codes.NOT_IMPLEMENTED,
            )
        new = NewModel(description or "", given, _now())
        if self._find_model(name) is not None or not self._registry.remember(name, new):
            raise exists_error(name)
        return _to_new_model(name, new)

    @translate_errors
    def update_registered_model(
        self, name: str, description: str | None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Change a model's description and return the model."""
        del deployment_job_id  # of Databricks
        validation._validate_model_name(name)
        self._change_model(name, lambda _, tags: (description or "", tags))
        return self.get_registered_model(name)

    @translate_errors
    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name and return the model. Its versions, aliases and ID on Vertex stay."""
        validation._validate_model_renaming(new_name)
        registry = self._registry
        if new_name != name:
            if new_name in registry.new or self._find_model(new_name) is not None:
                raise exists_error(new_name)
            new = self._new_model(name)
            if new is None:
                self.client.rename_model(name, new_name)
            else:
                registry.remember(new_name, new)
                registry.new.pop(name, None)
        return self.get_registered_model(new_name)

    @translate_errors
    def delete_registered_model(self, name: str) -> None:
        """Delete a model with all its versions."""
        validation._validate_model_name(name)
        if self._new_model(name) is None:
            self.client.delete_model(name)
        self._registry.new.pop(name, None)

    @translate_errors
    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Return a page of the models that match a filter."""
        most = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT if max_results is None else max_results
        _check_max_results(most, SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD)
        listed = {model.name: model for model in self.client.list_models()}
        with self._registry.lock:
            new = [_to_new_model(name, new) for name, new in self._registry.new.items() if name not in listed]
        models = [*map(_to_model, listed.values()), *new]
        found = SearchModelUtils.filter(models, add_prompt_filter_string(filter_string))
        page, token = _page(SearchModelUtils.sort(found, order_by), most, page_token)

        def complete(model: RegisteredModel) -> RegisteredModel:
            if model.name in listed:
                with contextlib.suppress(NotFoundError, vertex_registry.AmbiguousNameError):
                    return _to_model(listed[model.name], self.client.list_versions(model.name))
            return model

        with ThreadPoolExecutor(_READERS) as readers:
            return PagedList(list(readers.map(complete, page)), token)

    @translate_errors
    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model, with its latest versions and its aliases."""
        validation._validate_model_name(name)
        if (new := self._new_model(name)) is not None:
            return _to_new_model(name, new)
        return _to_model(self.client.get_model(name), self.client.list_versions(name))

    @translate_errors
    def get_latest_versions(self, name: str, stages: Iterable[str] | None = None) -> list[ModelVersion]:
        """Return the latest version in each stage, or in the given stages."""
        validation._validate_model_name(name)
        wanted = [get_canonical_stage(stage) for stage in stages or ALL_STAGES]
        return _latest(self._versions(name), wanted)

    @translate_errors
    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a model."""
        validation._validate_model_name(name)
        validation._validate_registered_model_tag(tag.key, tag.value)
        self._change_model(name, lambda description, tags: (description, {**tags, tag.key: tag.value}))

    @translate_errors
    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag of a model, if it has one with the key."""
        validation._validate_model_name(name)
        validation._validate_tag_name(key)
        self._change_model(
            name, lambda description, tags: (description, {name: tags[name] for name in tags if name != key})
        )

    def _new_model(self, name: str) -> NewModel | None:
        """Return a model without a version, unless somebody else has registered its first version since."""
        new = self._registry.new.get(name)
        if new is not None and self._find_model(name) is not None:
            self._registry.new.pop(name, None)
            return None
        return new

    def _find_model(self, name: str) -> VertexModel | None:
        try:
            return self.client.get_model(name)
        except NotFoundError:
            return None

    def _change_model(self, name: str, change: Callable[[str, dict[str, str]], tuple[str, dict[str, str]]]) -> None:
        """Change the description and the tags of a model, which are one text on Vertex, without losing a change."""
        if (new := self._new_model(name)) is not None:
            with self._registry.lock:
                new.description, new.tags = change(new.description, new.tags)
            return
        for attempt in range(_ATTEMPTS):
            model = self.client.get_model(name)
            text = encoding.write_description(*change(*encoding.read_description(model.description)))
            try:
                if text != model.description:
                    self.client.update_model(name, description=text, etag=model.etag)
            except vertex_registry.ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    # --- versions ---

    @translate_errors
    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Iterable[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Copy a model's folder to the staging bucket, and register it as the next version.

        The version becomes the default one on Vertex only if it's the first. Set the alias ``default`` to change that.
        """
        validation._validate_model_name(name)
        given = {tag.key: tag.value for tag in tags or ()}
        for key, value in given.items():
            _check_version_tag(key, value)
        with contextlib.ExitStack() as stack:
            origin = self._origin(stack, source, run_id, local_model_path, model_id)
            new = self._registry.new.get(name)
            fields: dict[str, Any] = {
                encoding.SOURCE: source,
                encoding.RUN_ID: origin.run_id,
                encoding.RUN_LINK: run_link,
                encoding.MODEL_ID: model_id,
                encoding.OFFSET: self._offset(name, new),
            }
            written = {key: value for key, value in fields.items() if value}
            in_labels: dict[str, Any] = {**written, **given}
            in_file: dict[str, Any] = {}
            if not origin.folder.startswith("gs://"):
                in_labels, in_file = encoding.split(written, given, self.client.metadata_fits)
            made = self.client.register_version(
                name,
                origin.folder,
                description=description or None,
                metadata=in_labels,
                file_metadata=in_file or None,
                container=origin.container,
                make_default=False,
                model_description=encoding.write_description(new.description, new.tags) if new else None,
            )
        self._registry.new.pop(name, None)
        return self._complete(made)

    @translate_errors
    def update_model_version(self, name: str, version: str | int, description: str | None = None) -> ModelVersion:
        """Change a version's description and return the version."""
        found = self._find(name, version)
        return self._complete(self.client.update_version(name, found, description=description or ""))

    @translate_errors
    def transition_model_version_stage(
        self, name: str, version: str | int, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """Put a version in a stage and return it. The others in the stage can be archived, and it's never empty."""
        chosen = get_canonical_stage(stage)
        if archive_existing_versions and chosen not in DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS:
            raise MlflowException(
                "Model version transition cannot archive existing model versions because "
                f"'{stage}' is not an Active stage. Valid stages are {DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS}"
            )
        found = self._find(name, version)
        archive = bool(archive_existing_versions)
        return self._complete(self.client.set_stage(name, found, chosen, archive_existing=archive))

    @translate_errors
    def delete_model_version(self, name: str, version: str | int) -> None:
        """Delete a version. A model that loses its last version is remembered, as a new one is."""
        found = self._find(name, version)
        before = self.client.get_model(name)
        self.client.delete_version(name, found)
        if self._find_model(name) is None:
            # MLflow never gives a number again, and Vertex begins at 1.
            offset = _number(found)
            new = NewModel(*encoding.read_description(before.description), _milliseconds(before.created_at), offset)
            self._registry.remember(name, new)

    @translate_errors
    def get_model_version(self, name: str, version: str | int) -> ModelVersion:
        """Return a version, with the tags that are in a file next to its artifact."""
        return self._complete(self._find(name, version))

    @translate_errors
    def get_model_version_download_uri(self, name: str, version: str | int) -> str:
        """Return where MLflow reads a version's artifact: a ``gs://`` URI, or ``vertex-local:`` of a local registry."""
        found = self._find(name, version)
        if isinstance(self.client, LocalRegistry) and found.artifact_uri.startswith(_LOCAL_BUCKET):
            folder = self.client.artifacts / found.artifact_uri.removeprefix(_LOCAL_BUCKET)
            return SCHEME + folder.as_uri().removeprefix("file:")
        return found.artifact_uri or str(found.metadata.get(encoding.SOURCE, ""))

    @translate_errors
    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """Return a page of the versions that match a filter. Unlike in MLflow's own stores, they have their aliases.

        They don't have the tags that are in files next to their artifacts: those would be a request for each version.
        """
        most = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT if max_results is None else max_results
        _check_max_results(most, SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD)
        versions = [_to_version(version) for version in self._candidates(filter_string)]
        found = SearchModelVersionUtils.filter(versions, add_prompt_filter_string(filter_string))
        order = order_by or ["last_updated_timestamp DESC", "name ASC", "version_number DESC"]
        page, token = _page(SearchModelVersionUtils.sort(found, order), most, page_token)
        return PagedList(list(page), token)

    @translate_errors
    def set_model_version_tag(self, name: str, version: str | int, tag: ModelVersionTag) -> None:
        """Set a tag of a version. It has to fit into labels beside the others."""
        _check_version_tag(tag.key, tag.value)
        self.client.update_version(name, self._find(name, version), metadata={tag.key: tag.value})

    @translate_errors
    def delete_model_version_tag(self, name: str, version: str | int, key: str) -> None:
        """Remove a tag of a version, if it has one with the key.

        A tag that's in a file next to the artifact can't be removed, because the artifact of a version never changes.
        """
        validation._validate_tag_name(key)
        found = self._find(name, version)
        if key in encoding.FIELDS:
            return
        if key in found.metadata:
            found = self.client.update_version(name, found, remove_metadata=[key])
        if found.metadata_file is not None and key in self.client.get_metadata(name, found):
            raise failure(
                f"The tag {key!r} of version {version} of {name!r} is in a file next to its artifact, so it can't be "
                "deleted and has the value from there. Set it to another one.",
                codes.NOT_IMPLEMENTED,
            )

    def _complete(self, version: VertexVersion) -> ModelVersion:
        """Return a version with all its tags, which takes two requests if some of them are in a file."""
        if version.metadata_file is None:
            return _to_version(version)
        try:
            return _to_version(version, self.client.get_metadata(version.name, version))
        except RegistryError as error:
            number = _number(version)
            _LOG.warning(
                "The tags of version %s of %r that are in a file can't be read: %s", number, version.name, error
            )
            return _to_version(version)

    def _find(self, name: str, version: str | int) -> VertexVersion:
        """Return the version that has a number in MLflow. It's Vertex's, unless versions came from elsewhere."""
        validation._validate_model_name(name)
        validation._validate_model_version(version)
        number = int(version)
        if number > 0:
            with contextlib.suppress(NotFoundError):
                found = self.client.get_version(name, number)
                if _number(found) == number:
                    return found
            with contextlib.suppress(NotFoundError):
                return self.client.get_version(name, version_name=str(number))
            for found in self._versions(name):
                if _number(found) == number:
                    return found
        raise failure(f"Model Version (name={name}, version={version}) not found", codes.RESOURCE_DOES_NOT_EXIST)

    def _versions(self, name: str) -> list[VertexVersion]:
        """Return all versions of a model."""
        try:
            return list(self.client.list_versions(name))
        except NotFoundError:
            if name in self._registry.new:
                return []
            raise

    def _candidates(self, filter_string: str | None) -> Iterable[VertexVersion]:
        """Return the versions that may match a filter: those of one model if it names the model."""
        for clause in SearchModelVersionUtils.parse_search_filter(filter_string):
            if (clause["type"], clause["key"], clause["comparator"]) == ("attribute", "name", "="):
                try:
                    return self._versions(clause["value"])
                except (NotFoundError, vertex_registry.InvalidArgumentError):
                    return []
        return self.client.list_versions()

    def _offset(self, name: str, new: NewModel | None) -> int:
        """Return by how much MLflow's number of a model's next version exceeds Vertex's."""
        try:
            newest = self.client.latest_version(name)
        except NotFoundError:
            return 0 if new is None else new.offset
        return 0 if newest is None else max(0, _number(newest) - int(newest.version))

    # --- aliases ---

    @translate_errors
    def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> None:
        """Give an alias to a version. A version that had it loses it in the same moment."""
        validation._validate_model_name(name)
        validation._validate_model_alias_name(alias)
        if alias.lower() == _LATEST or _VERSION_ALIAS.fullmatch(alias):
            raise failure(f"The alias {alias!r} is reserved by MLflow. Use another one.", codes.INVALID_PARAMETER_VALUE)
        found = self._find(name, version)
        on_vertex = encoding.to_vertex_alias(alias)
        holder = self._holder(name, on_vertex)
        if holder is not None and (other := _mlflow_aliases(holder)[on_vertex]) != alias:
            raise failure(
                f"The alias {alias!r} would be {on_vertex!r} on Vertex, and so is {other!r}, which version "
                f"{_number(holder)} of {name!r} has. Use another alias, or delete {other!r} first.",
                codes.INVALID_PARAMETER_VALUE,
            )
        names = {**_mlflow_aliases(found), on_vertex: alias}
        renamed = {key: value for key, value in names.items() if key != value}
        if renamed != found.metadata.get(encoding.ALIASES, {}):
            # Before the alias moves, so it never shows under another name.
            changed = {"metadata": {encoding.ALIASES: renamed}} if renamed else {"remove_metadata": [encoding.ALIASES]}
            self.client.update_version(name, found, **changed)
        self.client.add_aliases(name, found, [on_vertex])

    @translate_errors
    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias from the version that has it, if there's one."""
        validation._validate_model_name(name)
        validation._validate_model_alias_name(alias)
        if (found := self._find_alias(name, alias)) is None:
            self.get_registered_model(name)  # raises if there's no such model
            return
        holder, on_vertex = found
        self.client.remove_aliases(name, holder, [on_vertex])

    @translate_errors
    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that has an alias, or the latest one for ``latest``."""
        validation._validate_model_name(name)
        validation._validate_model_alias_name(alias)
        if alias.lower() == _LATEST:
            if versions := self._versions(name):
                return self._complete(max(versions, key=_number))
            raise failure(f"Latest version not found for model {name}.", codes.RESOURCE_DOES_NOT_EXIST)
        if (found := self._find_alias(name, alias)) is None:
            self.get_registered_model(name)  # raises if there's no such model
            raise failure(f"Registered model alias {alias} not found.", codes.INVALID_PARAMETER_VALUE)
        return self._complete(found[0])

    def _holder(self, name: str, on_vertex: str) -> VertexVersion | None:
        """Return the version that has an alias on Vertex."""
        try:
            return self.client.get_version(name, on_vertex)
        except NotFoundError:
            return None

    def _find_alias(self, name: str, alias: str) -> tuple[VertexVersion, str] | None:
        """Return the version that has an alias, and the alias's name on Vertex."""
        for on_vertex in dict.fromkeys([encoding.to_vertex_alias(alias), encoding.to_distinct_alias(alias)]):
            holder = self._holder(name, on_vertex)
            if holder is not None and _mlflow_aliases(holder).get(on_vertex) == alias:
                return holder, on_vertex
        return None

    # --- webhooks ---

    def create_webhook(self, *args: Any, **kwargs: Any) -> Webhook:
        """Refuse to create a webhook, because Vertex has none."""
        del args, kwargs
        raise failure(
            "Vertex has no webhooks. Google Cloud's audit logs report changes of models instead.", codes.NOT_IMPLEMENTED
        )

    def list_webhooks(self, max_results: int | None = None, page_token: str | None = None) -> PagedList[Webhook]:
        """Return no webhook, because Vertex has none. Creating one isn't supported."""
        del max_results, page_token
        return PagedList([], None)

    def list_webhooks_by_event(
        self, event: Any, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[Webhook]:
        """Return no webhook. MLflow's server calls this after each change."""
        del event
        return self.list_webhooks(max_results, page_token)

    # --- where a version comes from ---

    def _origin(
        self,
        stack: contextlib.ExitStack,
        source: str,
        run_id: str | None,
        local_model_path: str | None,
        model_id: str | None,
    ) -> _Origin:
        """Return what to register: a folder on this machine, or a directory that's registered already.

        Args:
            stack: What removes a folder that is downloaded.
            source: The URI that MLflow was given.
            run_id: The run that MLflow was given.
            local_model_path: The folder, if MLflow has it on this machine.
            model_id: The logged model that MLflow was given.
        """
        uri = source
        if source.startswith("models:/"):
            parsed = _parse_model_uri(source)
            if parsed.model_id is None:
                copied = self._find(str(parsed.name), str(parsed.version))
                folder = copied.artifact_uri
                if copied.metadata_file is not None and self._place.copies:  # the copy needs a file of its own
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vertex-registry-"))
                    self.client.download(copied.artifact_uri, folder)
                return _Origin(folder, run_id, copied.container)
            model_id = parsed.model_id
        if model_id and (uri.startswith("models:/") or not run_id):
            logged = mlflow.MlflowClient(tracking_uri=self._tracking).get_logged_model(model_id)
            run_id = run_id or logged.source_run_id
            uri = logged.artifact_location if uri.startswith("models:/") else uri
        if local_model_path and self._place.copies:
            return _Origin(local_model_path, run_id)
        if not self._place.copies:
            if not uri.startswith("gs://"):
                raise failure(
                    f"Vertex reads models from Cloud Storage, and {uri} is elsewhere. Nothing was registered. Add "
                    "?staging_bucket=gs://BUCKET to the registry's URI, and it's copied there. Without a cloud, use "
                    "vertex://local/FILE.",
                    codes.INVALID_PARAMETER_VALUE,
                )
            return _Origin(uri, run_id)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vertex-registry-"))
        return _Origin(self._download(uri, folder), run_id)

    def _download(self, uri: str, folder: str) -> str:
        """Return the folder of an artifact on this machine. It's a copy, unless the artifact is on this machine."""
        uri = _server_artifact(uri)
        path = urllib.request.url2pathname(urllib.parse.urlparse(uri).path) if uri.startswith("file:") else uri
        if "://" not in path and Path(path).is_dir():
            return path
        try:
            return str(
                mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self._tracking)
            )
        except MlflowException:
            raise
        except Exception as error:  # whatever the library of the artifact store raises
            problem = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])[:_LONGEST_REASON].rstrip(
                ".:"
            )
            raise failure(
                f"The model's files can't be read: {problem}. Nothing was registered.", codes.INVALID_PARAMETER_VALUE
            ) from error

    @property
    def _tracking(self) -> str | None:
        return _server_setting("BACKEND_STORE_URI_ENV_VAR") or self._tracking_uri


@attrs.frozen
class _Origin:
    """What to register.

    Attributes:
        folder: A folder on this machine, or the ``gs://`` directory of another version.
        run_id: The run that the model was logged in.
        container: The container of that other version.
    """

    folder: str
    run_id: str | None
    container: vertex_registry.ServingContainer | None = None


_LOCAL_BUCKET: Final = "gs://artifacts.localhost/"


def _now() -> int:
    return int(time.time() * 1000)


def _check_version_tag(key: str, value: str) -> None:
    validation._validate_model_version_tag(key, value)
    if key in encoding.FIELDS:
        raise failure(
            f"The tag {key!r} is reserved: it holds a field of the version. Use another key.",
            codes.INVALID_PARAMETER_VALUE,
        )


def _server_setting(name: str) -> str | None:
    """Return a setting of MLflow's server, if this process is one: it passes them to its workers in variables."""
    constants = sys.modules.get("mlflow.server.constants")
    variable = getattr(constants, name, None)
    return os.environ.get(variable) or None if isinstance(variable, str) else None


def _server_artifact(uri: str) -> str:
    """Return where an artifact is that MLflow's server stores for its clients. In the server it has no other URI."""
    destination = _server_setting("ARTIFACTS_DESTINATION_ENV_VAR")
    if destination is None or not uri.startswith("mlflow-artifacts:"):
        return uri
    return f"{destination.rstrip('/')}/{urllib.parse.urlparse(uri).path.lstrip('/')}"
