"""Find models and versions at Vertex, read them, and change them.

A name is proved by a read before anything is changed (`Resources.find`).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from vertex_registry import _arguments, _changes, _labels, _names, _paging, _process, _stages, _waiting, _wire
from vertex_registry._quoting import shorten
from vertex_registry._stages import Stage
from vertex_registry.errors import (
    AmbiguousNameError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping

    from vertex_registry._records import ModelVersion, RegisteredModel
    from vertex_registry._rpc import Connection

T = TypeVar("T")

#: How many models' versions are listed at once. More didn't help, measured at 20 ms latency.
_CONCURRENT_LISTS: Final = 32


#: How many times as long a list of everything may take if a quota slows it down.
_THROTTLED_TIMES: Final = 10

#: How many of the models that share a name an error lists.
_MAX_CANDIDATES: Final = 10

#: How many models in a row may turn out to be renamed or deleted before the lookup of a name fails.
_MAX_RENAMES: Final = 10

#: How many free IDs in a row end the search through a name's series. A model may have a later ID if those with earlier
#: ones were renamed and deleted.
_MAX_FREE_IDS: Final = 3


def _stage_label(stage: Stage) -> str:
    """Return the filter for the label that a version in a stage has."""
    return f'{_stages.STAGE_LABEL}="{stage.label}"'


#: The filters that find every version with a history of stages.
_STAMP: Final = f"{_stages.CHANGED_AT_LABEL}:*"
_HISTORY_LABELS: Final = (
    _STAMP,
    f"{_changes.LABELS[0]}:*",
    *map(_stage_label, (Stage.STAGING, Stage.PRODUCTION, Stage.ARCHIVED)),
)


@attrs.frozen
class Model:
    """A model, as a name was resolved to it.

    Attributes:
        resource: Its resource name.
        name: Its display name.
        by_resource_name: Whether the caller passed its resource name instead of its display name.
    """

    resource: str
    name: str
    by_resource_name: bool = False

    def at(self, reference: str) -> str:
        """Return the resource name of its version with that number or alias."""
        return f"{self.resource}@{reference}"


@attrs.frozen
class AliasedVersion:
    """A version and all its aliases, including those that `ModelVersion.aliases` hides."""

    version: ModelVersion
    aliases: tuple[str, ...]


@attrs.frozen
class ListedVersions:
    """Some versions of a model, the newest first, and whether those are all versions that a list shows."""

    versions: list[ModelVersion]
    complete: bool


class Resources:
    """The models of one project and location, and their versions.

    Attributes:
        rpc: The connection to Vertex.
        project: The project, by id or number.
        parent: ``projects/PROJECT/locations/LOCATION``.
    """

    def __init__(self, rpc: Connection, project: str, location: str, *, on_vertex: bool = False) -> None:
        self.rpc = rpc
        self._read_version = functools.partial(_wire.read_version, on_vertex=on_vertex)
        self._read_versions = functools.partial(_wire.read_versions, on_vertex=on_vertex)
        self._read_model = functools.partial(_wire.read_model, on_vertex=on_vertex)
        self._read_models = functools.partial(_wire.read_models, on_vertex=on_vertex)
        self.project = project
        self.parent = f"projects/{project}/locations/{location}"
        self._lock = _process.Lock()
        self._known: dict[str, Model] = {}
        #: The models that had more versions than a first page shows, with the time when the newest one was created.
        self._large: dict[str, dt.datetime] = {}

    def close(self) -> None:
        """Close the connection."""
        self.rpc.close()

    # --- finding a model ----------------------------------------------------------------------------------------------

    def find(self, name: str, read: Callable[[Model], T]) -> tuple[Model, T]:
        """Return the model with a name, and what a read of it returns. The read proves that it's the right model.

        If the remembered model was renamed or deleted, the name is looked up again. The read may run on several models,
        so it mustn't change anything.

        Args:
            name: The display name of the model, or its resource name.
            read: A function that reads the model, its versions, or one of them.

        Raises:
            NotFoundError: There's no such model, or the read finds nothing in it.
        """
        if (found := self.find_or_none(name, read)) is None:
            raise self._no_model_error(name)
        return found

    def find_or_none(  # noqa: C901  # one branch for each way a name can move
        self, name: str, read: Callable[[Model], T]
    ) -> tuple[Model, T] | None:
        """Return the same as `find`, or None if no model has the name.

        Raises:
            NotFoundError: There's no model with the given resource name, or the read finds nothing in it.
        """
        gone: set[str] = set()
        while True:
            remembered = self._known.get(name)
            if remembered is not None and remembered.resource in gone:
                remembered = None
            if (model := remembered or self._resolve(name, gone)) is None:
                return None
            try:
                found = read(model)
            except NotFoundError:
                if model.by_resource_name:
                    self.forget(name)
                    if remembered is not None:
                        self._resolve(name, gone)  # raises if the model was deleted
                    raise
                if self._has_name(name, model):
                    raise
            else:
                if _shows_name(found, model) or self._has_name(name, model):
                    return model if model is remembered else self.remember(name, model), found
            self.forget(name)
            gone.add(model.resource)
            if len(gone) >= _MAX_RENAMES:
                raise UnavailableError(
                    f"The name {name!r} led to {_MAX_RENAMES} models in a row that were renamed or deleted before they "
                    "could be read. Try again.",
                    resource=name,
                )

    def find_verified(self, name: str) -> Model | None:
        """Return the model with a name, proved by a read, or None.

        Raises:
            NotFoundError: There's no model with the given resource name.
        """
        found = self.find_or_none(name, self.read_model)
        return None if found is None else found[0]

    def _has_name(self, name: str, model: Model) -> bool:
        """Return whether a model exists and has that name now."""
        now = self.find_model(model.resource)
        return now is not None and now.name == name

    def remember(self, name: str, model: Model) -> Model:
        """Remember which model a name means, and return the model."""
        with self._lock:
            self._known[name] = model
        return model

    def forget(self, name: str) -> None:
        """Forget which model a name means, so it's looked up at its next use."""
        with self._lock:
            self._known.pop(name, None)

    def forget_model(self, model: Model) -> None:
        """Forget every name of a deleted model."""
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if known.resource != model.resource}
        self._large.pop(model.resource, None)

    def _resolve(self, name: str, gone: Collection[str]) -> Model | None:
        """Return the model with a name, found in the list or by its ID, except those known to be renamed or deleted."""
        if (given := _names.parse_model_name(name)) is not None:
            return self._find_by_full_name(name, given)
        return self._find_in_list(name, gone) or self._find_by_id(name, gone)

    def _no_model_error(self, name: str) -> NotFoundError:
        """Return the error of a name that no model has. It suggests similar names."""
        missing = f"There is no model {name!r} in {self.parent}."
        try:
            if (meant := self._find_with_id(name)) is not None:
                return NotFoundError(
                    f"{missing} That's the ID of a model. Pass its name, {meant.name!r}, or its full resource name, "
                    f"{meant.resource!r}.",
                    resource=name,
                )
            request = _wire.models(self.parent, "", _wire.FIRST_PAGE_SIZE)
            page = self.rpc.call("ListModels", request, self.parent, once=True)
            close = _names.close_names(name, (model.name for model in self._read_models(page)[0]))
        except RegistryError:  # without suggestions, the error still says what the caller wants to know
            close = []
        if close:
            hint = f"Did you mean {' or '.join(map(repr, close))}? list_models() shows all models."
        elif _names.is_new_name(name):
            hint = f"register_version({name!r}, ...) creates one; list_models() shows those that exist."
        else:
            hint = "list_models() shows those that exist."
        return NotFoundError(f"{missing} {hint}", resource=name)

    def _find_with_id(self, name: str) -> Model | None:
        """Return the model that has the name as its ID, if the name looks like an ID and there's such a model."""
        return self.find_model(f"{self.parent}/models/{name}") if _names.looks_like_id(name) else None

    def refuse_id(self, name: str) -> None:
        """Refuse a model's ID where its name belongs, before it becomes the name of a second model.

        Raises:
            InvalidArgumentError: No model has that name, and one has that ID.
        """
        if self.find_verified(name) is not None:
            return
        if (meant := self._find_with_id(name)) is not None and meant.name != name:
            raise InvalidArgumentError(
                f"{name!r} is the ID of a model. Pass its name, {meant.name!r}, or its full resource name, "
                f"{meant.resource!r}."
            )

    def _find_in_list(self, name: str, gone: Collection[str]) -> Model | None:
        """Return the model that a list shows under the name, or None.

        Raises:
            AmbiguousNameError: Several models have the name.
        """

        def request(parent: str, token: str, size: int) -> Any:
            return _wire.models_named(parent, name, token, size)

        found = self._entries(
            "ListModels", self.parent, request, self._read_models, _resource_name, size=_wire.FIRST_PAGE_SIZE
        )
        pairs = [(model, self._model_of(model)) for model in found if model.name == name]
        pairs = [(record, model) for record, model in pairs if model.resource not in gone]
        if len(pairs) > 1:
            # A lagging list shows models under their old names.
            pairs = [(record, model) for record, model in pairs if self._has_name(name, model)]
        if len(pairs) > 1:
            candidates = tuple(record.resource_name for record, _ in pairs)
            shown = ", ".join(candidates[:_MAX_CANDIDATES]) + (", ..." if len(candidates) > _MAX_CANDIDATES else "")
            raise AmbiguousNameError(
                f"{len(pairs)} models have the name {name!r}: {shown}. Pass the full resource name of one.",
                resource=name,
                candidates=candidates,
            )
        return pairs[0][1] if pairs else None

    def _find_by_full_name(self, name: str, given: _names.ModelName) -> Model:
        own = f"{self.parent}/models/{given.model_id}"
        if given.project != self.project and not given.project.isdigit():
            raise self._other_project_error(name)
        model = self._read_model(self.rpc.call("GetModel", _wire.get(own), name))
        answered = _names.parse_model_name(model.resource_name)
        if given.project != self.project and (answered is None or answered.project != given.project):
            raise self._other_project_error(name)
        return attrs.evolve(self._model_of(model), by_resource_name=True)

    def _other_project_error(self, name: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{shorten(name)} is in another project, and this client is for {self.project}. "
            "Create a client for that project."
        )

    def _find_by_id(self, name: str, gone: Collection[str]) -> Model | None:
        """Return the model that has the name and an ID of the name's series, or None."""
        number = free = 0
        while free < _MAX_FREE_IDS:
            model = self.find_model(self.resource_of(name, number))
            if model is not None and model.name == name and model.resource not in gone:
                return model
            free = free + 1 if model is None else 0  # a renamed model keeps its ID
            number += 1
        return None

    def resource_of(self, name: str, number: int) -> str:
        """Return the resource name of a new model with that name.

        Args:
            name: The name.
            number: The position in the name's series of IDs. It's 0 unless earlier IDs are taken.

        Raises:
            UnavailableError: The series ends before that number.
        """
        if number >= _names.IDS_PER_NAME:
            raise UnavailableError(
                f"The first {number} IDs for the name {name!r} belong to models with other names. Delete some of "
                "those, or choose another name.",
                resource=name,
            )
        return f"{self.parent}/models/{_names.model_id(name, number)}"

    def find_model(self, resource: str) -> Model | None:
        """Return the model with that resource name, or None."""
        try:
            return self._model_of(self._read_model(self.rpc.call("GetModel", _wire.get(resource), resource)))
        except NotFoundError:
            return None

    def _model_of(self, model: RegisteredModel) -> Model:
        """Return the model with this client's name of the project. Responses contain the project's number."""
        model_id = model.resource_name.rpartition("/")[2]
        return Model(resource=f"{self.parent}/models/{model_id}", name=model.name)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, model: Model, reference: str) -> ModelVersion:
        """Return the version with that number or alias. It's a point read, so it never lags.

        Raises:
            NotFoundError: There's no such version.
        """
        resource = model.at(reference)
        try:
            return self._read_version(self.rpc.call("GetModel", _wire.get(resource), resource))
        except NotFoundError as error:
            hint = _arguments.what_finds(model.name, reference)
            raise NotFoundError(
                f"The model {model.name!r} has no version {reference!r}. {hint}",
                resource=resource,
                code=error.code,
            ) from error.__cause__

    def find_version(self, resource: str, reference: str) -> ModelVersion | None:
        """Return the version of a model with that number or alias, or None. It's a point read too."""
        name = f"{resource}@{reference}"
        try:
            return self._read_version(self.rpc.call("GetModel", _wire.get(name), name))
        except NotFoundError:
            return None

    def find_with_aliases(self, resource: str, reference: str) -> AliasedVersion | None:
        """Return the version of a model with that number or alias, and all its aliases, or None."""
        name = f"{resource}@{reference}"
        try:
            message = self.rpc.call("GetModel", _wire.get(name), name)
        except NotFoundError:
            return None
        return AliasedVersion(self._read_version(message), _wire.read_aliases(message))

    def list_aliases(self, model: Model) -> dict[int, tuple[str, ...]]:
        """Return all aliases of each listed version, by its number."""
        return dict(
            self._entries(
                "ListModelVersions",
                model.resource,
                _wire.versions,
                _wire.read_listed_aliases,
                lambda entry: str(entry[0]),
            )
        )

    def read_named(self, model: Model, version_name: str) -> ModelVersion:
        """Return the newest version that was registered under that version name.

        Raises:
            NotFoundError: There's none.
        """
        try:
            version = self.read(model, _names.hidden_alias("name", version_name))
        except NotFoundError as error:
            # The alias is deleted with the newest version of that name, and isn't copied with a model.
            for version in self._list_named(model, version_name):
                if version.version_name == version_name:
                    with contextlib.suppress(NotFoundError):  # a list that lags shows versions that are gone
                        return self.read(model, version.version)
            raise NotFoundError(
                f"The model {model.name!r} has no version named {version_name!r}. "
                f"list_versions({model.name!r}) shows those that exist.",
                resource=model.resource,
                code=error.code,
            ) from error.__cause__
        # After an interrupted registration, a version has the alias but not the label.
        return attrs.evolve(version, version_name=version_name)

    def _list_named(self, model: Model, version_name: str) -> list[ModelVersion]:
        """Return the versions that may have that version name, the newest first.

        Vertex filters by the label that has the name. A long name is packed with other labels, so it isn't filtered.
        """
        label = _labels.to_label(version_name)
        found = self._listed_versions(model, label="" if label is None else f'{_labels.VERSION_NAME}="{label}"')
        return _newest_first(itertools.chain.from_iterable(found))

    def read_model(self, model: Model) -> RegisteredModel:
        """Return the model as it is now."""
        return self._read_model(self.rpc.call("GetModel", _wire.get(model.resource), model.resource))

    def list_versions(self, model: Model, *, stage: Stage | None = None) -> list[ModelVersion]:
        """Return all versions, or those in a stage, the newest first."""
        found = self._listed_versions(model, stage=stage)
        return _newest_first(itertools.chain.from_iterable(found))

    def list_staged(self, model: Model, stage: Stage | None = None) -> ListedVersions:
        """Return the versions that are in a stage or have a history of stages, perhaps with others.

        A model with few versions is read as a whole, with one request. In a large one, label filters find the versions:
        each change of a stage stamps the version and writes its history, and what another tool has put in a stage has
        the label of that stage. A model that was large once is searched by label from then on, unless all that it finds
        was created later: the model may have been deleted and created again.

        Args:
            model: The model.
            stage: The stage, if only the versions in that one and the stamps of the others matter.
        """
        found: dict[str, ModelVersion] = {}
        if model.resource not in self._large:
            request = _wire.versions(model.resource, "", _wire.FIRST_PAGE_SIZE)
            first, token = self._read_versions(self.rpc.call("ListModelVersions", request, model.resource))
            found = {version.resource_name: version for version in first}
            if not token:
                return ListedVersions(_newest_first(found.values()), complete=True)
            if first:
                self._large[model.resource] = max(version.created_at for version in first)
        labels = _HISTORY_LABELS if stage is None else (_STAMP, _stage_label(stage))
        for versions in _waiting.prefetch(lambda label: self._with_label(model, label), labels, len(labels)):
            found |= {version.resource_name: version for version in versions}
        known = self._large.get(model.resource)
        if found and known is not None and all(version.created_at > known for version in found.values()):
            self._large.pop(model.resource, None)  # perhaps another model has the ID by now
        return ListedVersions(_newest_first(found.values()), complete=False)

    def _with_label(self, model: Model, label: str) -> list[ModelVersion]:
        return list(itertools.chain.from_iterable(self._listed_versions(model, label=label)))

    def iter_models(
        self, order_by: str = "created", *, size: int = _wire.FIRST_PAGE_SIZE
    ) -> Iterator[list[RegisteredModel]]:
        """Yield all models page by page, in one of the orders of ``_wire.models``, with a first page of this size."""
        request = functools.partial(_wire.models, order_by=order_by)
        return _paging.read_pages(
            self.rpc, "ListModels", self.parent, request, read=self._read_models, key=_resource_name, size=size
        )

    def iter_versions(
        self, name: str | None, *, stage: Stage | None = None, oldest_first: bool = False, most: int | None = None
    ) -> Generator[list[ModelVersion], None, None]:
        """Yield the versions of a model, page by page. Without a name, yield those of every model, and prefetch.

        Args:
            name: The model's name.
            stage: Only yield versions in this stage.
            oldest_first: Whether the oldest version of a model comes first.
            most: How many versions the caller takes at most, if that's known.
        """
        first = _wire.PAGE_SIZE if name is None else _wire.FIRST_PAGE_SIZE
        size = first if most is None else max(2, min(most, _wire.PAGE_SIZE))
        if name is not None:
            pages: Iterator[list[ModelVersion]] = iter(())

            def first_page(model: Model) -> list[ModelVersion]:
                nonlocal pages
                pages = self._sorted_versions(model, stage=stage, oldest_first=oldest_first, size=size)
                return next(pages, [])

            with self.rpc.verb():
                _, found = self.find(name, first_page)
            yield found
            yield from pages
            return

        def versions(model: RegisteredModel) -> list[ModelVersion]:
            try:
                with self.rpc.verb():
                    found = self._sorted_versions(
                        self._model_of(model), stage=stage, oldest_first=oldest_first, size=size
                    )
                    return list(itertools.islice(itertools.chain.from_iterable(found), most))
            except NotFoundError:
                return []  # it was deleted after it was listed

        limit = self.rpc.operation_budget()  # a list of models may have no end
        of_models = self.iter_models(size=_wire.PAGE_SIZE if most is None else _wire.FIRST_PAGE_SIZE)
        models = itertools.chain.from_iterable(of_models)
        # Every model has a version, so the wanted ones are in as many models, unless only some versions are wanted.
        window = _CONCURRENT_LISTS if most is None or stage is not None else min(_CONCURRENT_LISTS, max(1, most))
        for listed in _waiting.prefetch(versions, models, window):
            if limit.left() <= 0 and not (self.rpc.throttled and limit.spent() < _THROTTLED_TIMES * limit.seconds):
                raise _paging.endless_list_error("ListModelVersions", self.parent)
            start = self.rpc.now()
            yield listed
            limit.leave_out(self.rpc.now() - start)

    def _sorted_versions(
        self, model: Model, *, stage: Stage | None, oldest_first: bool, size: int
    ) -> Iterator[list[ModelVersion]]:
        """Yield the versions page by page, in order. Vertex sorts them by time, which is the order of their numbers."""
        pages = self._listed_versions(model, stage=stage, oldest_first=oldest_first, size=size)
        return _paging.in_order(pages, _version_number, descending=not oldest_first)

    def _listed_versions(
        self,
        model: Model,
        *,
        stage: Stage | None = None,
        label: str = "",
        oldest_first: bool = False,
        size: int = _wire.PAGE_SIZE,
    ) -> Iterator[list[ModelVersion]]:
        """Yield the versions page by page, as Vertex lists them.

        Every version has its stage in a label of its own, so a label filter finds it whichever layers Vertex filters
        by. ``Stage.NONE`` isn't filtered, because a version that another tool uploaded has no such label.
        """
        if stage not in {None, Stage.NONE}:
            label = _stage_label(stage)

        def pages(label: str) -> Iterator[list[ModelVersion]]:
            request = functools.partial(_wire.versions, label=label, oldest_first=oldest_first)
            return _paging.read_pages(
                self.rpc,
                "ListModelVersions",
                model.resource,
                request,
                read=self._read_versions,
                key=_resource_name,
                size=size,
            )

        found = pages(label)
        try:
            first = next(found, [])
        except InvalidArgumentError:  # the filter is documented in a few words only; without it, more comes back
            if not label:
                raise
            found = pages("")
            first = next(found, [])
        for page in itertools.chain([first], found):
            yield page if stage is None else [version for version in page if version.stage is stage]

    def running_operations(self, resource: str) -> Iterator[Any]:
        """Yield the running operations of a model, page by page."""
        return self._entries(
            "ListOperations", resource, _wire.operations, _wire.read_running, lambda operation: str(operation.name)
        )

    def to_aiplatform(self, version: ModelVersion) -> Any:
        """Return the version as a ``Model`` of Google's SDK."""
        return self.rpc.sdk_model(_wire.get(version.resource_name), version.resource_name, self.project)

    def _entries(
        self,
        rpc: str,
        resource: str,
        request: Callable[[str, str, int], Any],
        read: Callable[[Any], tuple[list[T], str]],
        key: Callable[[T], str],
        *,
        size: int = _wire.PAGE_SIZE,
    ) -> Iterator[T]:
        """Yield each entry of a list once, and request a page only when it's needed."""
        return itertools.chain.from_iterable(
            _paging.read_pages(self.rpc, rpc, resource, request, read=read, key=key, size=size)
        )

    # --- changing -----------------------------------------------------------------------------------------------------

    def update_version(
        self,
        model: Model,
        version: ModelVersion,
        *,
        labels: Mapping[str, str] | None,
        description: str | None = None,
        once: bool = False,
    ) -> ModelVersion:
        """Replace what a version shows as its labels and its description, and return it as the response shows it.

        Args:
            model: The model.
            version: The version as it was read. The update only happens if its etag is still the current one.
            labels: The new labels. None leaves them unchanged.
            description: The new description. None leaves it unchanged.
            once: Whether to send it only once.

        Raises:
            ConflictError: The version has changed.
        """
        resource = model.at(version.version)
        request = _wire.update_version(resource, labels=labels, description=description, etag=version.etag)
        return self._read_version(self.rpc.call("UpdateModel", request, resource, once=once))

    def update_model(
        self,
        model: Model,
        current: RegisteredModel,
        *,
        labels: Mapping[str, str] | None = None,
        description: str | None = None,
        display_name: str | None = None,
        unchanged: bool = False,
    ) -> RegisteredModel:
        """Replace a model's own labels, its description and its name, and return it. None leaves a field unchanged.

        Args:
            model: The model.
            current: The model as it was just read.
            labels: The new labels.
            description: The new description.
            display_name: The new name.
            unchanged: Whether the model may not have changed since that read.

        Raises:
            ConflictError: Somebody else changed it, so nobody knows whether this change happened before; or it had to
                be unchanged.
        """
        budget = self.rpc.budget()
        failures = collections.Counter[str]()
        while True:
            request = _wire.update_model(
                model.resource, labels=labels, description=description, display_name=display_name, etag=current.etag
            )
            try:
                return self._read_model(self.rpc.call("UpdateModel", request, model.resource, once=True))
            except ConflictError as conflict:
                again = self.rpc.pause_after(conflict, budget, failures)
                now = self.read_model(model)
                if not again or not (conflict.code == "ABORTED" or now.etag != current.etag):
                    raise
                if unchanged and now.etag != current.etag:
                    raise changed_error(model) from conflict
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                again = self.rpc.pause_after(lost, budget, failures)
                now = self.rpc.read_after_loss(lost, lambda: self.read_model(model), late=not again)
                if now.etag != current.etag:
                    if (
                        description in {None, now.description}
                        and display_name in {None, now.name}
                        and (labels or {}).items() <= now.labels.items()
                    ):
                        return now
                    raise changed_since_error(model.resource, "UpdateModel", "it") from lost
                if not again:
                    raise
            current = now

    def merge_aliases(
        self, model: Model, number: str, *, add: Iterable[str] = (), remove: Iterable[str] = (), once: bool = True
    ) -> ModelVersion:
        """Add aliases to a version and remove others, and return it. `_aliases.merge_aliases` also survives a loss.

        Args:
            model: The model.
            number: The number of the version: "The version ID must be explicit" in the name.
            add: The aliases to add. An alias of another version moves here.
            remove: The aliases to remove.
            once: Whether to send it only once.

        Raises:
            NotFoundError: There's no such version.
        """
        resource = model.at(number)
        request = _wire.merge_aliases(resource, add=add, remove=remove)
        return self._read_version(self.rpc.call("MergeVersionAliases", request, resource, once=once))


def _resource_name(record: ModelVersion | RegisteredModel) -> str:
    """Return the key of a list entry."""
    return record.resource_name


def _newest_first(versions: Iterable[ModelVersion]) -> list[ModelVersion]:
    return sorted(versions, key=_version_number, reverse=True)


def _version_number(version: ModelVersion) -> int:
    """Return a version's number for sorting."""
    return int(version.version)


def _shows_name(found: Any, model: Model) -> bool:
    """Return whether everything that was read shows the name that the model was found by."""
    if isinstance(found, ListedVersions):
        found = found.versions
    records = found if isinstance(found, list) else [found]
    return model.by_resource_name or (bool(records) and all(record.name == model.name for record in records))


def changed_error(model: Model) -> ConflictError:
    """Return the error for a model that had to be unchanged."""
    return ConflictError(
        f"The model {model.name!r} was changed since you read it. Nothing was changed now. Read it again.",
        resource=model.resource,
        code="ABORTED",
    )


def changed_since_error(resource: str, rpc: str, what: str) -> ConflictError:
    """Return the error of a change that may have happened before somebody else's."""
    return ConflictError(
        f"The response to {rpc} on {resource} was lost, and somebody else has changed {what} since, so it's unknown "
        "whether the change was made. Read it, and repeat the change if necessary.",
        resource=resource,
        code="ABORTED",
    )
