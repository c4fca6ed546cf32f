"""The models and versions at Vertex: found by their names, read, and changed.

**A name is proved before anything is changed.** What it was found to mean is remembered, but every read shows the
display name: if it's another one, or the model is gone, the name is looked up again (`Resources.find`). It's looked for
in the list of models first and then, because a list may lag, under the ids of the name's series (see ``_names``). What
a list shows is proved by a read as well. A full resource name means that very model, whatever it's called.

**A list ends.** A repeated page token is an error, and so are many pages in a row without anything new on them.

**A change is read, made, and written under the etag of the read**, and begun anew where somebody else was faster. How
a stale etag is refused is not documented. ABORTED asks for another try from the read on (AIP-154, google.rpc.Code), and
is given it. FAILED_PRECONDITION may mean something that no try mends, unless another etag shows that it was a change.

**A lost change of aliases is looked into.** Aliases have no etag. After a lost answer the change is sent again only if
the versions concerned are unchanged since before the first try; what somebody has moved since stays where it is.

**Labels lie in two layers,** the model's and the version's, and every read shows both in one. What is to be written on
a version is worked out from all of them; only where that does not fit is it found out which are the version's own. What
the model's labels hide of what was written is an error, for a read would never show it.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from vertex_registry import _labels, _names, _process, _waiting, _wire
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

#: How many calls are under way at once where every model is listed: the measured knee of the curve at 20 ms latency.
_WINDOW: Final = 32


#: How many pages of a list in a row may show nothing new.
_EMPTY_PAGES: Final = 1000

#: How many of the models that share a name an error names.
_SHOWN: Final = 10

#: How many models a name is found to mean in a row before it's given up.
_MOVES: Final = 10

#: How many ids of a name's series in a row are free before no later one is looked at: a model may keep a later id when
#: those before it were renamed and deleted.
_FREE: Final = 3


@attrs.frozen
class Model:
    """A model that a name was found to mean.

    Attributes:
        resource: Its resource name.
        name: Its display name.
        given: Whether the caller named it by its resource name, and not by its display name.
    """

    resource: str
    name: str
    given: bool = False

    def at(self, reference: str) -> str:
        """The resource name of its version of that number or alias."""
        return f"{self.resource}@{reference}"


@attrs.frozen
class Found:
    """A version, and all its aliases, those that `ModelVersion.aliases` does not show included."""

    version: ModelVersion
    aliases: tuple[str, ...]


@attrs.frozen
class Change:
    """What is to be written on a version; None leaves as it is."""

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
        """End the connection."""
        self.rpc.close()

    # --- finding a model ----------------------------------------------------------------------------------------------

    def find(self, name: str, read: Callable[[Model], T]) -> tuple[Model, T]:
        """Return the model that a name means, and what a read of it returns, which proves it.

        A model that was renamed or deleted since the name was looked up isn't the one that's meant: the name is looked
        up again. Nothing may be changed by the read, because it may be done on several models.

        Args:
            name: The display name of the model, or its resource name.
            read: What reads the model, its versions, or one of them.

        Raises:
            NotFoundError: There is no such model, or the read finds nothing in it.
        """
        if (found := self.find_existing(name, read)) is None:
            raise self._no_model(name)
        return found

    def find_existing(  # noqa: C901  # the ways that a name can move stand side by side
        self, name: str, read: Callable[[Model], T]
    ) -> tuple[Model, T] | None:
        """Return the same as `find`, or None if no model has the name.

        Raises:
            NotFoundError: A resource name was given and there is no such model, or the read finds nothing in it.
        """
        gone: set[str] = set()
        while True:
            remembered = self._known.get(name)
            if remembered is not None and remembered.resource in gone:
                remembered = None
            if (model := remembered or self._look_up(name, gone)) is None:
                return None
            try:
                found = read(model)
            except NotFoundError:
                if model.given:
                    self.forget(name)
                    if remembered is not None:
                        self._look_up(name, gone)  # says it, if the model is gone
                    raise
                if self._is_called(name, model):
                    raise
            else:
                if _shows(found, model) or self._is_called(name, model):
                    return model if model is remembered else self.remember(name, model), found
            self.forget(name)
            gone.add(model.resource)
            if len(gone) >= _MOVES:
                raise UnavailableError(
                    f"The name {name!r} was found to mean {_MOVES} models in a row that didn't exist or had other "
                    "names when they were read. Call it again.",
                    resource=name,
                )

    def verified(self, name: str) -> Model | None:
        """Return the model that a name means, proved by a read just now; None if there is none.

        Raises:
            NotFoundError: A resource name was given, and there is no such model.
        """
        found = self.find_existing(name, self.read_model)
        return None if found is None else found[0]

    def _is_called(self, name: str, model: Model) -> bool:
        """Whether a model exists and has that name now."""
        now = self.peek(model.resource)
        return now is not None and now.name == name

    def remember(self, name: str, model: Model) -> Model:
        """The model, which the name means from now on."""
        with self._lock:
            self._known[name] = model
        return model

    def forget(self, name: str) -> None:
        """Look the name up when it is used next."""
        with self._lock:
            self._known.pop(name, None)

    def forget_model(self, model: Model) -> None:
        """The same of every name of a model that is gone."""
        with self._lock:
            self._known = {name: known for name, known in self._known.items() if known.resource != model.resource}

    def _look_up(self, name: str, gone: Collection[str]) -> Model | None:
        """Return the model that the name means, by a list or by its id, but none of those that are known to be gone."""
        if (given := _names.parse_model_name(name)) is not None:
            return self._named_in_full(name, given)
        return self._listed(name, gone) or self._by_id(name, gone)

    def _no_model(self, name: str) -> NotFoundError:
        """Return the error of a name that no model has, with the names that may have been meant."""
        missing = f"There is no model {name!r} in {self.parent}."
        try:
            if (meant := self._of_id(name)) is not None:
                return NotFoundError(
                    f"{missing} The model with that id is called {meant.name!r}; its full resource name is "
                    f"{meant.resource!r}. Give one of the two.",
                    resource=name,
                )
            page = self.rpc.call("ListModels", _wire.models(self.parent, ""), self.parent, once=True)
            close = _names.close_names(name, (model.name for model in _wire.read_models(page)[0]))
        except RegistryError:  # that there is no such model is known, and is what the caller asked
            close = []
        hint = (
            f"Did you mean {' or '.join(map(repr, close))}? list_models() shows all models."
            if close
            else f"register_version({name!r}, ...) creates one; list_models() shows those that exist."
        )
        return NotFoundError(f"{missing} {hint}", resource=name)

    def _of_id(self, name: str) -> Model | None:
        """Return the model that has the name as its id, if there is one and the name looks like an id."""
        return self.peek(f"{self.parent}/models/{name}") if _names.looks_like_id(name) else None

    def refuse_id(self, name: str) -> None:
        """Refuse the id of a model in place of its name, before a second model is created under it.

        Raises:
            InvalidArgumentError: No model has that name, and one has that id.
        """
        if self.verified(name) is not None:
            return
        if (meant := self._of_id(name)) is not None and meant.name != name:
            raise InvalidArgumentError(
                f"{name!r} is the id of the model {meant.name!r}, and not the name of a model. To register a version "
                f"of it, give {meant.name!r} or its full resource name, {meant.resource!r}."
            )

    def _listed(self, name: str, gone: Collection[str]) -> Model | None:
        """Return the model that the name means as far as a list tells."""

        def request(parent: str, token: str) -> Any:
            return _wire.models_named(parent, name, token)

        found = self._pages("ListModels", self.parent, request, self._read_models, _resource_of)
        pairs = [(model, self._model_of(model)) for model in found if model.name == name]
        pairs = [(record, model) for record, model in pairs if model.resource not in gone]
        if len(pairs) > 1:
            # A list that lags shows models under names that they no longer have.
            pairs = [(record, model) for record, model in pairs if self._is_called(name, model)]
        if len(pairs) > 1:
            candidates = tuple(record.resource_name for record, _ in pairs)
            shown = ", ".join(candidates[:_SHOWN]) + (", ..." if len(candidates) > _SHOWN else "")
            raise AmbiguousNameError(
                f"{len(pairs)} models have the name {name!r}: {shown}. Name one by its full resource name.",
                resource=name,
                candidates=candidates,
            )
        return pairs[0][1] if pairs else None

    def _named_in_full(self, name: str, given: _names.ModelName) -> Model:
        own = f"{self.parent}/models/{given.model_id}"
        if given.project != self.project and not given.project.isdigit():
            raise self._another_project(name)
        model = self._read_model(self.rpc.call("GetModel", _wire.get(own), name))
        answered = _names.parse_model_name(model.resource_name)
        if given.project != self.project and (answered is None or answered.project != given.project):
            raise self._another_project(name)
        return attrs.evolve(self._model_of(model), given=True)

    def _another_project(self, name: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{name} is in another project, and this client is for {self.project}. Make one for that project."
        )

    def _by_id(self, name: str, gone: Collection[str]) -> Model | None:
        """Return the model of that name that has an id of the name's series, if there is one."""
        number = free = 0
        while free < _FREE:
            model = self.peek(self.resource_of(name, number))
            if model is not None and model.name == name and model.resource not in gone:
                return model
            free = free + 1 if model is None else 0  # a model that was renamed keeps its id
            number += 1
        return None

    def resource_of(self, name: str, number: int) -> str:
        """Return the resource name that a new model of that name is given: the first of its series, or a later one.

        Raises:
            UnavailableError: The series ends before that number.
        """
        if number >= _names.SERIES:
            raise UnavailableError(
                f"The first {number} ids that a model named {name!r} may have all belong to models with other names. "
                "Delete some of those, or choose another name.",
                resource=name,
            )
        return f"{self.parent}/models/{_names.model_id(name, number)}"

    def peek(self, resource: str) -> Model | None:
        """The model of that resource name, if it is there."""
        try:
            return self._model_of(self._read_model(self.rpc.call("GetModel", _wire.get(resource), resource)))
        except NotFoundError:
            return None

    def _model_of(self, model: RegisteredModel) -> Model:
        """The model under the project as this client knows it; answers carry the project's number."""
        model_id = model.resource_name.rpartition("/")[2]
        return Model(resource=f"{self.parent}/models/{model_id}", name=model.name)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, model: Model, reference: str) -> ModelVersion:
        """The version of that number or alias: a point read, which no lag touches.

        Raises:
            NotFoundError: There is none.
        """
        resource = model.at(reference)
        try:
            return self._read_version(self.rpc.call("GetModel", _wire.get(resource), resource))
        except NotFoundError as error:
            raise NotFoundError(
                f"The model {model.name!r} has no version {reference!r}. "
                f"list_versions({model.name!r}) shows those that are there.",
                resource=resource,
                code=error.code,
            ) from error.__cause__

    def look(self, resource: str, alias: str) -> ModelVersion | None:
        """The version of a model that has the alias, if it is there, and the model; a point read as well."""
        name = f"{resource}@{alias}"
        try:
            return self._read_version(self.rpc.call("GetModel", _wire.get(name), name))
        except NotFoundError:
            return None

    def find_version(self, resource: str, reference: str) -> Found | None:
        """Return the version of a model by its number or alias with all its aliases, or None; a point read as well."""
        name = f"{resource}@{reference}"
        try:
            message = self.rpc.call("GetModel", _wire.get(name), name)
        except NotFoundError:
            return None
        return Found(self._read_version(message), _wire.read_aliases(message))

    def listed_aliases(self, model: Model) -> dict[int, tuple[str, ...]]:
        """Return all aliases of each version that the list shows, by its number."""
        return dict(
            self._pages(
                "ListModelVersions", model.resource, _wire.versions, _wire.read_listed_aliases, lambda one: str(one[0])
            )
        )

    def read_named(self, model: Model, version_name: str) -> ModelVersion:
        """The newest version that was registered under that version name.

        Raises:
            NotFoundError: There is none.
        """
        try:
            version = self.read(model, _names.hidden_alias("name", version_name))
        except NotFoundError as error:
            # The alias goes with the newest version of the name when that is deleted, and is not copied with a model.
            for version in self.versions(model):
                if version.version_name == version_name:
                    return version
            raise NotFoundError(
                f"The model {model.name!r} has no version of the name {version_name!r}. "
                f"list_versions({model.name!r}) shows those that are there.",
                resource=model.resource,
                code=error.code,
            ) from error.__cause__
        # A registration that was cut off has the alias, and not yet the label.
        return attrs.evolve(version, version_name=version_name)

    def read_model(self, model: Model) -> RegisteredModel:
        """The model as it is now."""
        return self._read_model(self.rpc.call("GetModel", _wire.get(model.resource), model.resource))

    def versions(self, model: Model) -> list[ModelVersion]:
        """All versions, the newest first, whatever order they came in."""
        found = self._pages("ListModelVersions", model.resource, _wire.versions, self._read_versions, _resource_of)
        return sorted(found, key=_number_of, reverse=True)

    def models(self) -> Iterator[RegisteredModel]:
        """All models, the newest first, page by page."""
        return self._pages("ListModels", self.parent, _wire.models, self._read_models, _resource_of)

    def every_version(self, name: str | None) -> Generator[list[ModelVersion], None, None]:
        """The versions of a model; or of every model, in order, over a window of calls under way at once."""
        if name is not None:
            with self.rpc.verb():
                _, listed = self.find(name, self.versions)
            yield listed
            return

        def versions(model: RegisteredModel) -> list[ModelVersion]:
            try:
                with self.rpc.verb():
                    return self.versions(self._model_of(model))
            except NotFoundError:
                return []  # it was deleted since it was listed

        most = self.rpc.operation_budget()  # a list of models may have no end
        for listed in _waiting.ahead(versions, self.models(), _WINDOW):
            if most.left() <= 0:
                raise _endless("ListModelVersions", self.parent)
            start = self.rpc.now()
            yield listed
            most.leave_out(self.rpc.now() - start)

    def running(self, resource: str) -> Iterator[Any]:
        """The operations of a model that are still running, page by page."""
        return self._pages("ListOperations", resource, _wire.operations, _wire.read_running, lambda one: str(one.name))

    def to_aiplatform(self, version: ModelVersion) -> Any:
        """The version as a ``Model`` of Google's SDK."""
        return self.rpc.sdk_model(_wire.get(version.resource_name), version.resource_name, self.project)

    def _pages(
        self,
        rpc: str,
        resource: str,
        request: Callable[[str, str], Any],
        read: Callable[[Any], tuple[list[T], str]],
        key: Callable[[T], str],
    ) -> Iterator[T]:
        """Yield what a list holds, each entry once, page by page as it's needed.

        A page takes its time from the verb that runs, or else has a budget of a call. What a page took that showed
        something new and isn't the last one doesn't count for the verb, up to the budget of an operation in all: a long
        list takes long.

        Raises:
            UnavailableError: The list doesn't end, or a page wasn't answered in time.
        """
        token = ""
        tokens, seen = {token}, set[str]()
        empty, most, spent = 0, self.rpc.operation_budget().seconds, 0.0
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
            if token in tokens or empty >= _EMPTY_PAGES or spent >= most:
                raise _endless(rpc, resource)
            tokens.add(token)
            if new:
                budget = self.rpc.budget()  # another one, unless a verb shares its own

    # --- changing -----------------------------------------------------------------------------------------------------

    def change(
        self,
        model: Model,
        reference: str | ModelVersion,
        change: Callable[[ModelVersion], Change],
        *,
        adds: bool = False,
    ) -> ModelVersion:
        """Read, change, write with the etag; start over if somebody else was faster.

        An alias is read once: the version that has it then is the one that is changed, wherever the alias goes.

        Args:
            model: The model.
            reference: The number or alias of the version, or the version as it was just read.
            change: What to write, given the version as it is.
            adds: Whether the change adds metadata.
        """
        budget = self.rpc.budget()
        version = self.read(model, reference) if isinstance(reference, str) else reference
        number = version.version
        tries = 0
        while True:
            try:
                return self.write(model, *self.fit(model, version, change, adds=adds))
            except ConflictError as conflict:
                if conflict.code is None:
                    raise  # it is ours: another try would be hidden as well
                fresh = self.read(model, number)
                if not overtaken(conflict, version, fresh) or not self.rpc.pause(budget, tries):
                    raise
                version = fresh
                tries += 1

    def write(self, model: Model, version: ModelVersion, change: Change, *, once: bool = False) -> ModelVersion:
        """The version as it was written, if it still was as it had been read; with ``once`` it is tried once.

        Raises:
            ConflictError: It was not, or the model's own labels hide what was written.
        """
        resource = model.at(version.version)
        request = _wire.update_version(
            resource, labels=change.labels, description=change.description, etag=version.etag
        )
        written = self._read_version(self.rpc.call("UpdateModel", request, resource, once=once))
        return written if change.labels is None else _as_written(written, change.labels, version.labels, model)

    def update_model(
        self, model: Model, current: RegisteredModel, *, labels: Mapping[str, str] | None, description: str | None
    ) -> RegisteredModel:
        """Replace the labels of a model itself and its description, and return it; None leaves as it is.

        Args:
            model: The model.
            current: The model as it was just read.
            labels: Its own labels.
            description: Its description.

        Raises:
            ConflictError: Somebody else changed it, and whether this change happened before can't be known.
        """
        budget = self.rpc.budget()
        tries = 0
        while True:
            request = _wire.update_model(model.resource, labels=labels, description=description, etag=current.etag)
            try:
                return self._read_model(self.rpc.call("UpdateModel", request, model.resource, once=True))
            except ConflictError as conflict:
                again = self.rpc.pause(budget, tries)
                now = self.read_model(model)
                if not again or not (conflict.code == "ABORTED" or now.etag != current.etag):
                    raise
            except UnavailableError as lost:
                if lost.code == "UNIMPLEMENTED":
                    raise
                again = self.rpc.pause(budget, tries, lost.retry_after)
                now = self._after(lost, lambda: self.read_model(model), late=not again)
                if now.etag != current.etag:
                    if description in {None, now.description} and (labels or {}).items() <= now.labels.items():
                        return now
                    raise _changed_since(model.resource, "UpdateModel", "it") from lost
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
        """Give aliases to a version and take others from it, and return it.

        After a lost answer it's sent again only if nothing has changed since before the first try on the versions that
        had the aliases then. An alias that somebody has moved since stays where it is.

        Args:
            model: The model.
            reference: The number or alias of the version, or the version as it was just read.
            add: The aliases to add; one that another version has moves here.
            remove: The aliases to remove.
            once: Send it once, whatever the answer, and without the reads that sending it again needs.

        Raises:
            NotFoundError: There is no such version.
            ConflictError: The answer was lost, and somebody has changed one of the aliases since.
        """
        # "The version ID must be explicit" in the name, so that an alias is resolved first.
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
        before = self._holders(model, version, [*add, *remove])
        budget = self.rpc.budget()
        tries = 0
        while True:
            try:
                return self._read_version(self.rpc.call("MergeVersionAliases", request, resource))
            except NotFoundError:
                self.read(model, number)  # says it in better words
                raise
            except UnavailableError as lost:
                if lost.code in {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}:
                    raise  # it was refused
                again = self.rpc.pause(budget, tries, lost.retry_after)

                def look() -> tuple[ModelVersion, dict[str, ModelVersion | None]]:
                    target = self.read(model, number)
                    return target, self._holders(model, target, [*add, *remove])

                target, now = self._after(lost, look, late=not again)
                where = {alias: holder and holder.version for alias, holder in now.items()}
                if all(where[alias] == number for alias in add) and all(where[alias] != number for alias in remove):
                    return target
                if target.etag != version.etag or any(_mark(now[alias]) != _mark(before[alias]) for alias in now):
                    names = ", ".join(repr(alias) for alias in now if _names.is_visible(alias)) or "an alias"
                    raise _changed_since(resource, "MergeVersionAliases", names) from lost
                if not again:
                    raise
                tries += 1

    def _holders(self, model: Model, version: ModelVersion, aliases: Iterable[str]) -> dict[str, ModelVersion | None]:
        """Return which version of a model has each of the aliases, given one of the versions as it was just read."""
        return {alias: version if alias in version.aliases else self.look(model.resource, alias) for alias in aliases}

    def _after(self, lost: UnavailableError, look: Callable[[], T], *, late: bool) -> T:
        """Return what a look finds after a lost answer; if there's no answer to that either, the first is the error.

        One that comes late, when there is no time for another try, has a small budget of its own.
        """
        try:
            with self.rpc.tidying() if late else contextlib.nullcontext():
                return look()
        except UnavailableError:
            raise lost from lost.__cause__

    # --- the two layers of labels -------------------------------------------------------------------------------------

    def fit(
        self, model: Model, version: ModelVersion, change: Callable[[ModelVersion], Change], *, adds: bool = False
    ) -> tuple[ModelVersion, Change]:
        """The version, and a change of it that fits into its labels.

        A read shows the labels of the model as well, which take no room on the version: where the change does not fit
        beside all of them, it may fit beside the version's own. Which those are is found out by a write, so that a
        change that adds metadata, and is more likely to be too large, has to have a sign that there are any of the
        model's: more labels than a version can have, or the same ones on the default version.
        """
        try:
            return version, change(version)
        except InvalidArgumentError as full:
            if adds and version.is_default and len(version.labels) <= _labels.MAX_LABELS:
                raise
            # The model shows its own labels and its default version's.
            shown = self.read_model(model).labels
            keys = {key for key in _labels.layered_keys(version.labels) if shown.get(key) == version.labels[key]}
            change(without(version, keys))  # if that does not fit, nothing does, and nothing is written
            try:
                own = self.own(model, version, keys)
            except InvalidArgumentError:
                raise full from None
        try:
            return own, change(own)
        except InvalidArgumentError:
            self.write(model, own, Change(labels=own.labels))
            raise

    def own(self, model: Model, version: ModelVersion, keys: set[str]) -> ModelVersion:
        """The version without what only the model says under these keys, and with the etag that it has now.

        Vertex answers with the labels of the model and of the version in one, and no read tells them apart. A write
        does. What lies under the keys is packed, which reads the same, so that nobody loses anything where this is cut
        off; what the answer still shows under one of them, with the value that was read there, is the model's.

        Raises:
            InvalidArgumentError: What lies under the keys does not fit into a pack; nothing was sent.
        """
        freed = _labels.freed(version.labels, keys)
        resource = model.at(version.version)
        request = _wire.update_version(resource, labels=freed, etag=version.etag)
        written = self._read_version(self.rpc.call("UpdateModel", request, resource))
        shown = _labels.read({key: written.labels[key] for key in keys & written.labels.keys()}).metadata
        theirs = {key for key, value in shown.items() if _labels.same(value, version.metadata[key])}
        return attrs.evolve(without(version, theirs), etag=written.etag)


def _resource_of(record: ModelVersion | RegisteredModel) -> str:
    """Return what tells the entries of a list apart."""
    return record.resource_name


def _number_of(version: ModelVersion) -> int:
    """Return a version's number to sort by; 0 if a server gave it none."""
    return int(_names.version_id(version.version) or 0)


def _shows(found: Any, model: Model) -> bool:
    """Whether everything that was read of a model shows the name that it was found by."""
    records = found if isinstance(found, list) else [found]
    return model.given or (bool(records) and all(record.name == model.name for record in records))


def _mark(version: ModelVersion | None) -> tuple[str, str] | None:
    """Return what changes with each change of a version."""
    return None if version is None else (version.version, version.etag)


def _changed_since(resource: str, rpc: str, what: str) -> ConflictError:
    return ConflictError(
        f"The answer of {rpc} on {resource} was lost, and somebody else has changed {what} since, so that it can't be "
        "known whether the change was made. Nothing was sent again: read it, and repeat the change if need be.",
        resource=resource,
        code="ABORTED",
    )


def _endless(rpc: str, resource: str) -> UnavailableError:
    return UnavailableError(
        f"{rpc} on {resource} doesn't end: a page came again, many pages in a row had nothing new, or the time for a "
        "whole list was used up. Ask whoever runs the service; Retry(operation_timeout=...) sets that time.",
        resource=resource,
    )


def overtaken(conflict: ConflictError, before: ModelVersion | None, now: ModelVersion | None) -> bool:
    """Whether a conflict at Vertex says that somebody else was faster, so that there is sense in beginning anew.

    Args:
        conflict: What a write of the version was refused with.
        before: The version that the write began with; None where it was not read.
        now: The version as it was read after that; None where it is gone.
    """
    return conflict.code == "ABORTED" or before is None or now is None or now.etag != before.etag


def _as_written(
    written: ModelVersion, labels: Mapping[str, str], before: Mapping[str, str], model: Model
) -> ModelVersion:
    """The version as it was written.

    Raises:
        ConflictError: The model's own labels hide some of it.
    """
    hidden = {key for key, value in labels.items() if written.labels.get(key) != value}
    meant = _labels.read(labels).metadata  # what is packed is read before a label under its key
    hidden |= {
        key
        for key in (before.keys() - labels.keys()) & written.labels.keys()
        if key not in meant or key not in written.metadata or not _labels.same(written.metadata[key], meant[key])
    }
    hidden -= {_labels.MANAGED_BY}
    if hidden:
        keys = ", ".join(map(repr, sorted(hidden)))
        raise ConflictError(
            f"The model {model.name!r} itself has the labels {keys}, which stand before "
            f"those of version {written.version}: what was written there does not show. Take them off the model: "
            "update_model(name, labels={...}) replaces the model's own labels.",
            resource=written.resource_name,
        )
    return written


def without(version: ModelVersion, keys: Collection[str]) -> ModelVersion:
    """The version without what is read under these keys."""
    return attrs.evolve(
        version,
        labels={key: label for key, label in version.labels.items() if key not in keys},
        metadata={key: value for key, value in version.metadata.items() if key not in keys},
    )
