"""Find models and versions at Vertex, read them, and change them under an etag.

A name is proved by a read before anything is changed (`Resources.find`). A change is read, applied and written with the
etag of the read, and starts over if somebody else was faster.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from vertex_registry import _labels, _lost_writes, _names, _process, _waiting, _wire
from vertex_registry._quoting import shorten
from vertex_registry.errors import (
    AmbiguousNameError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping

    from vertex_registry._records import ModelVersion, RegisteredModel
    from vertex_registry._rpc import Connection

T = TypeVar("T")

#: How many models' versions are listed at once. More didn't help, measured at 20 ms latency.
_CONCURRENT_LISTS: Final = 32


#: How many pages in a row may contain nothing new.
_MAX_EMPTY_PAGES: Final = 1000

#: How many of the models that share a name an error lists.
_MAX_CANDIDATES: Final = 10

#: How many models in a row may turn out to be renamed or deleted before the lookup of a name fails.
_MAX_RENAMES: Final = 10

#: How many free IDs in a row end the search through a name's series. A model may have a later ID if those with earlier
#: ones were renamed and deleted.
_MAX_FREE_IDS: Final = 3


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
class Change:
    """What to write on a version. None leaves a field unchanged."""

    labels: dict[str, str] | None
    description: str | None = None


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
            page = self.rpc.call("ListModels", _wire.models(self.parent, ""), self.parent, once=True)
            close = _names.close_names(name, (model.name for model in self._read_models(page)[0]))
        except RegistryError:  # without suggestions, the error still says what the caller wants to know
            close = []
        hint = (
            f"Did you mean {' or '.join(map(repr, close))}? list_models() shows all models."
            if close
            else f"register_version({name!r}, ...) creates one; list_models() shows those that exist."
        )
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

        def request(parent: str, token: str) -> Any:
            return _wire.models_named(parent, name, token)

        found = self._pages("ListModels", self.parent, request, self._read_models, _resource_name)
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
            raise NotFoundError(
                f"The model {model.name!r} has no version {reference!r}. "
                f"list_versions({model.name!r}) shows those that exist.",
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
            self._pages(
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
            for version in self.list_versions(model):
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

    def read_model(self, model: Model) -> RegisteredModel:
        """Return the model as it is now."""
        return self._read_model(self.rpc.call("GetModel", _wire.get(model.resource), model.resource))

    def list_versions(self, model: Model) -> list[ModelVersion]:
        """Return all versions, the newest first."""
        found = self._pages("ListModelVersions", model.resource, _wire.versions, self._read_versions, _resource_name)
        return sorted(found, key=_version_number, reverse=True)

    def list_models(self) -> Iterator[RegisteredModel]:
        """Yield all models, the newest first, page by page."""
        return self._pages("ListModels", self.parent, _wire.models, self._read_models, _resource_name)

    def iter_versions(self, name: str | None) -> Generator[list[ModelVersion], None, None]:
        """Yield the versions of a model. Without a name, yield those of every model in order, and prefetch."""
        if name is not None:
            with self.rpc.verb():
                _, listed = self.find(name, self.list_versions)
            yield listed
            return

        def versions(model: RegisteredModel) -> list[ModelVersion]:
            try:
                with self.rpc.verb():
                    return self.list_versions(self._model_of(model))
            except NotFoundError:
                return []  # it was deleted after it was listed

        limit = self.rpc.operation_budget()  # a list of models may have no end
        for listed in _waiting.prefetch(versions, self.list_models(), _CONCURRENT_LISTS):
            if limit.left() <= 0:
                raise _endless_list_error("ListModelVersions", self.parent)
            start = self.rpc.now()
            yield listed
            limit.leave_out(self.rpc.now() - start)

    def running_operations(self, resource: str) -> Iterator[Any]:
        """Yield the running operations of a model, page by page."""
        return self._pages(
            "ListOperations", resource, _wire.operations, _wire.read_running, lambda operation: str(operation.name)
        )

    def to_aiplatform(self, version: ModelVersion) -> Any:
        """Return the version as a ``Model`` of Google's SDK."""
        return self.rpc.sdk_model(_wire.get(version.resource_name), version.resource_name, self.project)

    def _pages(
        self,
        rpc: str,
        resource: str,
        request: Callable[[str, str], Any],
        read: Callable[[Any], tuple[list[T], str]],
        key: Callable[[T], str],
    ) -> Iterator[T]:
        """Yield each entry of a list once, and request a page only when it's needed.

        A page with something new that isn't the last one doesn't count for the verb, up to the budget of an operation
        for the whole list. So a long list may take long, and a list without an end still ends.

        Raises:
            UnavailableError: The list doesn't end, or a page didn't arrive in time.
        """
        token = ""
        tokens, seen = {token}, set[str]()
        empty, limit, spent = 0, self.rpc.operation_budget().seconds, 0.0
        budget = self.rpc.budget()
        while True:
            start = self.rpc.now()
            page, token = read(self.rpc.call(rpc, request(resource, token), resource, budget))
            took = self.rpc.now() - start
            new = [entry for entry in page if key(entry) not in seen]
            seen.update(map(key, new))
            spent += took
            empty = 0 if new else empty + 1
            if token and new:
                budget.leave_out(took)
            yield from new
            if not token:
                return
            if token in tokens or empty >= _MAX_EMPTY_PAGES or spent >= limit:
                raise _endless_list_error(rpc, resource)
            tokens.add(token)
            if new:
                budget = self.rpc.budget()  # a fresh one, unless a verb shares its own

    # --- changing -----------------------------------------------------------------------------------------------------

    def change(
        self,
        model: Model,
        reference: str | ModelVersion,
        change: Callable[[ModelVersion], Change],
        *,
        adds: bool = False,
    ) -> ModelVersion:
        """Read a version, write a change with its etag, and return it. Start over if somebody else was faster.

        An alias is resolved once. If it moves meanwhile, the first version is still the one that changes.

        Args:
            model: The model.
            reference: The number or alias of the version, or the version as it was just read.
            change: A function that returns what to write, given the current version.
            adds: Whether the change adds metadata.
        """
        budget = self.rpc.budget()
        version = self.read(model, reference) if isinstance(reference, str) else reference
        number = version.version
        lost: list[tuple[ModelVersion, Change]] = []  # attempts that may have been carried out

        def change_rest(current: ModelVersion) -> Change:
            return _without_newer(change(current), lost, current)

        tries = 0
        while True:
            target, planned = self.fit_change(model, version, change_rest, adds=adds)
            if lost and target is version and planned.labels in (None, version.labels) and planned.description is None:
                return version  # everything is written, or newer
            try:
                return self.write(model, target, planned)
            except ConflictError as conflict:
                if conflict.code is None:
                    raise  # the labels are hidden by the model's, and would be again
                fresh = self.read(model, number)
                if not is_write_conflict(conflict, version, fresh) or not self.rpc.pause(budget, tries):
                    raise
                if conflict._after_loss:  # noqa: SLF001  # the package's own field
                    lost.append((target, planned))
                version = fresh
                tries += 1

    def write(self, model: Model, version: ModelVersion, change: Change, *, once: bool = False) -> ModelVersion:
        """Write a change with the etag of the version, and return the version.

        Args:
            model: The model.
            version: The version as it was read.
            change: The change.
            once: Whether to send it only once.

        Raises:
            ConflictError: The version has changed, or the model's own labels hide what was written.
        """
        resource = model.at(version.version)
        request = _wire.update_version(
            resource, labels=change.labels, description=change.description, etag=version.etag
        )
        written = self._read_version(self.rpc.call("UpdateModel", request, resource, once=once))
        return written if change.labels is None else _check_written(written, change.labels, version.labels, model)

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
        tries = 0
        while True:
            request = _wire.update_model(
                model.resource, labels=labels, description=description, display_name=display_name, etag=current.etag
            )
            try:
                return self._read_model(self.rpc.call("UpdateModel", request, model.resource, once=True))
            except ConflictError as conflict:
                again = self.rpc.pause(budget, tries)
                now = self.read_model(model)
                if not again or not (conflict.code == "ABORTED" or now.etag != current.etag):
                    raise
                if unchanged and now.etag != current.etag:
                    raise changed_error(model) from conflict
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                again = self.rpc.pause(budget, tries, lost.retry_after)
                now = self._read_after_loss(lost, lambda: self.read_model(model), late=not again)
                if now.etag != current.etag:
                    if (
                        description in {None, now.description}
                        and display_name in {None, now.name}
                        and (labels or {}).items() <= now.labels.items()
                    ):
                        return now
                    raise _changed_since_error(model.resource, "UpdateModel", "it") from lost
                if not again:
                    raise
            current = now
            tries += 1

    def merge_aliases(
        self,
        model: Model,
        reference: str | ModelVersion,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        once: bool = False,
    ) -> ModelVersion:
        """Add aliases to a version and remove others, and return it.

        Aliases have no etag. After a lost response, the change is only sent again if the versions that had the aliases
        are unchanged. An alias that somebody has moved since stays where it is.

        Args:
            model: The model.
            reference: The number or alias of the version, or the version as it was just read.
            add: The aliases to add. An alias of another version moves here.
            remove: The aliases to remove.
            once: Whether to send it only once, without the reads that a retry needs.

        Raises:
            NotFoundError: There's no such version.
            ConflictError: The response was lost, and somebody has changed one of the aliases since.
        """
        # "The version ID must be explicit" in the name, so an alias is resolved first.
        if isinstance(reference, str) and (not once or _names.version_id(reference) is None):
            reference = self.read(model, reference)
        number = reference if isinstance(reference, str) else reference.version
        resource = model.at(number)
        request = _wire.merge_aliases(resource, add=add, remove=remove)
        if isinstance(reference, str) or once:
            return self._read_version(self.rpc.call("MergeVersionAliases", request, resource, once=True))
        if not add and not remove:
            return reference
        return self._merge_aliases(model, reference, request, add=add, remove=remove)

    def _merge_aliases(
        self, model: Model, version: ModelVersion, request: Any, *, add: Collection[str], remove: Collection[str]
    ) -> ModelVersion:
        number, resource = version.version, model.at(version.version)
        before = self._alias_holders(model, version, [*add, *remove])
        budget = self.rpc.budget()
        tries = 0
        while True:
            try:
                return self._read_version(self.rpc.call("MergeVersionAliases", request, resource))
            except NotFoundError:
                self.read(model, number)  # raises a better error
                raise
            except UnavailableError as lost:
                if lost.code in {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}:
                    raise  # it was refused
                again = self.rpc.pause(budget, tries, lost.retry_after)

                def read() -> tuple[ModelVersion, dict[str, ModelVersion | None]]:
                    target = self.read(model, number)
                    return target, self._alias_holders(model, target, [*add, *remove])

                target, now = self._read_after_loss(lost, read, late=not again)
                where = {alias: holder and holder.version for alias, holder in now.items()}
                if all(where[alias] == number for alias in add) and all(where[alias] != number for alias in remove):
                    return target
                if target.etag != version.etag or any(
                    _revision(now[alias]) != _revision(before[alias]) for alias in now
                ):
                    names = ", ".join(repr(alias) for alias in now if _names.is_visible(alias)) or "an alias"
                    raise _changed_since_error(resource, "MergeVersionAliases", names) from lost
                if not again:
                    raise
                tries += 1

    def _alias_holders(
        self, model: Model, version: ModelVersion, aliases: Iterable[str]
    ) -> dict[str, ModelVersion | None]:
        """Return which version has each of the aliases, given one version as it was just read."""
        return {
            alias: version if alias in version.aliases else self.find_version(model.resource, alias)
            for alias in aliases
        }

    def _read_after_loss(self, lost: UnavailableError, read: Callable[[], T], *, late: bool) -> T:
        """Return what a read finds after a lost response. If the read gets no response either, raise the first error.

        Args:
            lost: The first error.
            read: The read.
            late: Whether the budget is used up. Then the read gets a small budget of its own.
        """
        try:
            with self.rpc.cleanup() if late else contextlib.nullcontext():
                return read()
        except UnavailableError:
            raise lost from lost.__cause__

    # --- the two layers of labels -------------------------------------------------------------------------------------

    def fit_change(
        self, model: Model, version: ModelVersion, change: Callable[[ModelVersion], Change], *, adds: bool = False
    ) -> tuple[ModelVersion, Change]:
        """Return the version and a change that fits into its labels.

        A read also shows the model's labels, which take up no room on the version. If the change doesn't fit next to
        all labels, it may fit next to the version's own. Only a write shows which those are. A change that adds
        metadata is more likely to be too large, so it needs a sign that the model has labels: more labels than a
        version can have, or the same ones on the default version.
        """
        try:
            return version, change(version)
        except InvalidArgumentError as full:
            if adds and version.is_default and len(version.labels) <= _labels.MAX_LABELS:
                raise
            # The model shows its own labels and its default version's.
            shown = self.read_model(model).labels
            keys = {key for key in _labels.inheritable_keys(version.labels) if shown.get(key) == version.labels[key]}
            change(without_keys(version, keys))  # if this doesn't fit, nothing does, and nothing is written
            try:
                own = self.separate_model_labels(model, version, keys)
            except InvalidArgumentError:
                raise full from None
        try:
            return own, change(own)
        except InvalidArgumentError:
            self.write(model, own, Change(labels=own.labels))
            raise

    def separate_model_labels(self, model: Model, version: ModelVersion, keys: set[str]) -> ModelVersion:
        """Return the version without those of these labels that belong to its model, and with its current etag.

        Vertex merges the labels of the model into those of the version, and only a write can separate them. This packs
        the values under the keys, which reads the same, so an interruption loses nothing. A key that the response still
        shows with the old value belongs to the model.

        Raises:
            InvalidArgumentError: The values don't fit into a pack. Nothing was sent.
        """
        packed = _labels.pack_keys(version.labels, keys)
        resource = model.at(version.version)
        request = _wire.update_version(resource, labels=packed, etag=version.etag)
        written = self._read_version(self.rpc.call("UpdateModel", request, resource))
        shown = _labels.read({key: written.labels[key] for key in keys & written.labels.keys()}).metadata
        theirs = {key for key, value in shown.items() if _labels.json_equal(value, version.metadata[key])}
        return attrs.evolve(without_keys(version, theirs), etag=written.etag)


def _resource_name(record: ModelVersion | RegisteredModel) -> str:
    """Return the key of a list entry."""
    return record.resource_name


def _version_number(version: ModelVersion) -> int:
    """Return a version's number for sorting, or 0 if the server sent none."""
    return int(_names.version_id(version.version) or 0)


def _shows_name(found: Any, model: Model) -> bool:
    """Return whether everything that was read shows the name that the model was found by."""
    records = found if isinstance(found, list) else [found]
    return model.by_resource_name or (bool(records) and all(record.name == model.name for record in records))


def _revision(version: ModelVersion | None) -> tuple[str, str] | None:
    """Return a value that differs after each change of a version."""
    return None if version is None else (version.version, version.etag)


def changed_error(model: Model) -> ConflictError:
    """Return the error for a model that had to be unchanged."""
    return ConflictError(
        f"The model {model.name!r} was changed since you read it. Nothing was changed now. Read it again.",
        resource=model.resource,
        code="ABORTED",
    )


def _changed_since_error(resource: str, rpc: str, what: str) -> ConflictError:
    return ConflictError(
        f"The response to {rpc} on {resource} was lost, and somebody else has changed {what} since, so it's unknown "
        "whether the change was made. Read it, and repeat the change if necessary.",
        resource=resource,
        code="ABORTED",
    )


def _endless_list_error(rpc: str, resource: str) -> UnavailableError:
    return UnavailableError(
        f"{rpc} on {resource} doesn't end: its pages repeat, or it took longer than Retry(operation_timeout=...) "
        "allows. Allow more time, or report it to the operator of the service.",
        resource=resource,
    )


def is_write_conflict(conflict: ConflictError, before: ModelVersion | None, now: ModelVersion | None) -> bool:
    """Return whether a conflict means that somebody else was faster, so starting over may help.

    Vertex doesn't document how it refuses a stale etag. ABORTED asks for a new attempt from the read on (AIP-154).
    FAILED_PRECONDITION may also mean something that no attempt fixes, unless the etag has changed.

    Args:
        conflict: The error of the write.
        before: The version as it was read before the write, or None if it wasn't read.
        now: The version as it was read after the write, or None if it was deleted.
    """
    return conflict.code == "ABORTED" or before is None or now is None or now.etag != before.etag


def _check_written(
    written: ModelVersion, labels: Mapping[str, str], before: Mapping[str, str], model: Model
) -> ModelVersion:
    """Return the version as it was written.

    Raises:
        ConflictError: The model's own labels hide some of what was written.
    """
    hidden = {key for key, value in labels.items() if written.labels.get(key) != value}
    meant = _labels.read(labels).metadata  # a packed value hides the label under its key
    hidden |= {
        key
        for key in (before.keys() - labels.keys()) & written.labels.keys()
        if key not in meant or key not in written.metadata or not _labels.json_equal(written.metadata[key], meant[key])
    }
    hidden -= {_labels.MANAGED_BY}
    if hidden:
        keys = ", ".join(map(repr, sorted(hidden)))
        raise ConflictError(
            f"The model {model.name!r} itself has the labels {keys}, which hide what was written to version "
            f"{written.version}. Remove them with update_model(name, labels={{...}}), which replaces all of them.",
            resource=written.resource_name,
        )
    return written


def _without_newer(change: Change, lost: Iterable[tuple[ModelVersion, Change]], now: ModelVersion) -> Change:
    """Return a change without what somebody has written since one of its lost attempts."""
    for before, planned in lost:
        labels = change.labels
        if labels is not None and planned.labels is not None:
            labels = _lost_writes.without_newer_labels(labels, before=before, written=planned.labels, now=now)
        description = _lost_writes.without_newer_description(change.description, before=before, now=now)
        change = Change(labels=labels, description=description)
    return change


def without_keys(version: ModelVersion, keys: Collection[str]) -> ModelVersion:
    """Return the version without the labels and the metadata under these keys."""
    return attrs.evolve(
        version,
        labels={key: label for key, label in version.labels.items() if key not in keys},
        metadata={key: value for key, value in version.metadata.items() if key not in keys},
    )
