"""The models and versions at Vertex: found by their names, read, and changed.

**A name is looked up once.** What it was found to mean is remembered until it is not there any more. It is looked for
in the list of models first and then, because a list may lag, under the ids of the name's series (see ``_names``).

**A change is read, made, and written under the etag of the read**, and begun anew where somebody else was faster. How
a stale etag is refused is not documented. ABORTED asks for another try from the read on (AIP-154, google.rpc.Code), and
is given it. FAILED_PRECONDITION may mean something that no try mends, unless another etag shows that it was a change.

**Labels lie in two layers,** the model's and the version's, and every read shows both in one. What is to be written on
a version is worked out from all of them; only where that does not fit is it found out which are the version's own. What
the model's labels hide of what was written is an error, for a read would never show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from vertex_registry import _labels, _names, _process, _waiting, _wire
from vertex_registry.errors import AmbiguousNameError, ConflictError, InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping

    from vertex_registry._records import ModelVersion, RegisteredModel
    from vertex_registry._rpc import Connection

T = TypeVar("T")

#: How many calls are under way at once where every model is listed: the measured knee of the curve at 20 ms latency.
_WINDOW: Final = 32


@attrs.frozen
class Model:
    """A model that a name was found to mean."""

    resource: str
    name: str

    def at(self, reference: str) -> str:
        """The resource name of its version of that number or alias."""
        return f"{self.resource}@{reference}"


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

    def __init__(self, rpc: Connection, project: str, location: str) -> None:
        self.rpc = rpc
        self.project = project
        self.parent = f"projects/{project}/locations/{location}"
        self._lock = _process.Lock()
        self._known: dict[str, Model] = {}

    def close(self) -> None:
        """End the connection."""
        self.rpc.close()

    # --- finding a model ----------------------------------------------------------------------------------------------

    def on_model(self, name: str, act: Callable[[Model], T]) -> T:
        """What an action on the model of that name gives; a name that was remembered wrongly is looked up once more."""
        remembered = self.known(name)
        if remembered is None:
            return act(self._find(name))
        try:
            return act(remembered)
        except NotFoundError:
            self.forget(name)
            found = self._find(name)
            if found.resource == remembered.resource:
                raise
            return act(found)

    def known(self, name: str) -> Model | None:
        """The model that the name was found to mean before."""
        return self._known.get(name)

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

    def _find(self, name: str) -> Model:
        """The model that the name means, found by its name, or by its id where lists lag behind."""
        if (model := self.listed(name) or self.by_id(name)) is None:
            raise NotFoundError(
                f"There is no model {name!r} in {self.parent}. register_version({name!r}, ...) makes one; "
                "list_models() shows those that are there.",
                resource=name,
            )
        return self.remember(name, model)

    def listed(self, name: str) -> Model | None:
        """The model that the name means as far as a list tells; a resource name is looked at."""
        if (given := _names.parse_model_name(name)) is not None:
            return self.remember(name, self._named_in_full(name, given))

        def request(parent: str, token: str) -> Any:
            return _wire.models_named(parent, name, token)

        found = self._pages("ListModels", self.parent, request, _wire.read_models)
        bearers = [model for model in found if model.name == name]
        if len(bearers) > 1:
            candidates = tuple(model.resource_name for model in bearers)
            raise AmbiguousNameError(
                f"{len(bearers)} models bear the name {name!r}: {', '.join(candidates)}. "
                "Name one by its full resource name.",
                resource=name,
                candidates=candidates,
            )
        return self._model_of(bearers[0]) if bearers else None

    def _named_in_full(self, name: str, given: _names.ModelName) -> Model:
        own = f"{self.parent}/models/{given.model_id}"
        if given.project != self.project and not given.project.isdigit():
            raise self._another_project(name)
        model = _wire.read_model(self.rpc.call("GetModel", _wire.get(own), name))
        answered = _names.parse_model_name(model.resource_name)
        if given.project != self.project and (answered is None or answered.project != given.project):
            raise self._another_project(name)
        return self._model_of(model)

    def _another_project(self, name: str) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{name} is in another project, and this client is for {self.project}. Make one for that project."
        )

    def by_id(self, name: str) -> Model | None:
        """The model of that name that has an id of the name's series, if there is one."""
        if _names.parse_model_name(name) is not None:
            return None
        number = 0
        while (model := self.peek(self.resource_of(name, number))) is not None and model.name != name:
            number += 1  # a model that was given another name keeps its id
        return model

    def resource_of(self, name: str, number: int) -> str:
        """The resource name that a new model of that name is given: the first of its series, or a later one."""
        return f"{self.parent}/models/{_names.model_id(name, number)}"

    def peek(self, resource: str) -> Model | None:
        """The model of that resource name, if it is there."""
        try:
            return self._model_of(_wire.read_model(self.rpc.call("GetModel", _wire.get(resource), resource)))
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
            return _wire.read_version(self.rpc.call("GetModel", _wire.get(resource), resource))
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
            return _wire.read_version(self.rpc.call("GetModel", _wire.get(name), name))
        except NotFoundError:
            return None

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
        return _wire.read_model(self.rpc.call("GetModel", _wire.get(model.resource), model.resource))

    def versions(self, model: Model) -> list[ModelVersion]:
        """All versions, the newest first, whatever order they came in."""
        found = self._pages("ListModelVersions", model.resource, _wire.versions, _wire.read_versions)
        return sorted(found, key=lambda version: int(version.version), reverse=True)

    def models(self) -> Iterator[RegisteredModel]:
        """All models, the newest first, page by page."""
        return self._pages("ListModels", self.parent, _wire.models, _wire.read_models)

    def every_version(self, name: str | None) -> Generator[list[ModelVersion], None, None]:
        """The versions of a model; or of every model, in order, over a window of calls under way at once."""
        if name is not None:
            yield self.on_model(name, self.versions)
            return

        def versions(model: RegisteredModel) -> list[ModelVersion]:
            try:
                return self.versions(self._model_of(model))
            except NotFoundError:
                return []  # it was deleted since it was listed

        yield from _waiting.ahead(versions, self.models(), _WINDOW)

    def running(self, resource: str) -> Iterator[Any]:
        """The operations of a model that are still running, page by page."""
        return self._pages("ListOperations", resource, _wire.operations, _wire.read_running)

    def to_aiplatform(self, version: ModelVersion) -> Any:
        """The version as a ``Model`` of Google's SDK."""
        return self.rpc.sdk_model(_wire.get(version.resource_name), version.resource_name, self.project)

    def _pages(
        self,
        rpc: str,
        resource: str,
        request: Callable[[str, str], Any],
        read: Callable[[Any], tuple[list[T], str]],
    ) -> Iterator[T]:
        """What a list holds, page by page, each asked for when it is needed and with a budget of its own."""
        token = ""
        while True:
            page, token = read(self.rpc.call(rpc, request(resource, token), resource))
            yield from page
            if not token:
                return

    # --- changing -----------------------------------------------------------------------------------------------------

    def change(
        self, model: Model, reference: str, change: Callable[[ModelVersion], Change], *, adds: bool = False
    ) -> ModelVersion:
        """Read, change, write with the etag; from the beginning where somebody else was faster."""
        budget = self.rpc.budget()
        version = self.read(model, reference)
        tries = 0
        while True:
            try:
                return self.write(model, *self.fit(model, version, change, adds=adds))
            except ConflictError as conflict:
                if conflict.code is None:
                    raise  # it is ours: another try would be hidden as well
                fresh = self.read(model, reference)
                if not overtaken(conflict, version, fresh) or not self.rpc.pause(budget, tries):
                    raise
                version = fresh
                tries += 1

    def write(self, model: Model, version: ModelVersion, change: Change, *, once: bool = False) -> ModelVersion:
        """The version as it was written, if it still was as it had been read; with ``once`` it is tried once.

        Raises:
            ConflictError: It was not, or the model's own labels hide what was written.
        """
        return self._write(model, version.version, change, version.labels, version.etag, once=once)

    def write_unread(self, model: Model, number: str, change: Change) -> ModelVersion:
        """The same of a version that was just made, and is written once without having been read.

        Raises:
            ConflictError: The model's own labels hide what was written.
        """
        return self._write(model, number, change, {}, "", once=True)

    def _write(
        self, model: Model, number: str, change: Change, before: Mapping[str, str], etag: str, *, once: bool
    ) -> ModelVersion:
        resource = model.at(number)
        request = _wire.update_version(resource, labels=change.labels, description=change.description, etag=etag)
        written = _wire.read_version(self.rpc.call("UpdateModel", request, resource, once=once))
        return written if change.labels is None else _as_written(written, change.labels, before, model)

    def update_model(
        self, model: Model, *, labels: Mapping[str, str] | None, description: str | None
    ) -> RegisteredModel:
        """The model, with these labels of its own and this description; None leaves as it is."""
        request = _wire.update_model(model.resource, labels=labels, description=description)
        return _wire.read_model(self.rpc.call("UpdateModel", request, model.resource))

    def merge_aliases(
        self,
        model: Model,
        reference: str,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
        once: bool = False,
    ) -> ModelVersion:
        """The version of that number or alias, with some aliases and without others; with ``once`` it is tried once."""
        # "The version ID must be explicit" in the name, so that an alias is resolved first.
        number = _names.version_id(reference) or self.read(model, reference).version
        if not add and not remove:
            return self.read(model, number)
        resource = model.at(number)
        request = _wire.merge_aliases(resource, add=add, remove=remove)
        try:
            return _wire.read_version(self.rpc.call("MergeVersionAliases", request, resource, once=once))
        except NotFoundError:
            self.read(model, number)  # says it in better words
            raise

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
        written = _wire.read_version(self.rpc.call("UpdateModel", request, resource))
        shown = _labels.read({key: written.labels[key] for key in keys & written.labels.keys()}).metadata
        theirs = {key for key, value in shown.items() if _labels.same(value, version.metadata[key])}
        return attrs.evolve(without(version, theirs), etag=written.etag)


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
