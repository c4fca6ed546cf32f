"""What a ``Model`` message shows: one version, and the model it belongs to.

The model's own fields (``MODEL_FIELDS``) are stored with the model, and all other fields with the version. A view is
both of them, merged.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import struct
from typing import TYPE_CHECKING, Any, Final

from google.cloud.aiplatform_v1 import types

from vertex_registry.emulator._names import VERSION_NUMBER_RE
from vertex_registry.emulator._query import apply_read_mask
from vertex_registry.emulator._status import aborted, failed_precondition, not_found
from vertex_registry.emulator._validation import MODEL, base_model

if TYPE_CHECKING:
    from vertex_registry.emulator._names import Name
    from vertex_registry.emulator._query import Query
    from vertex_registry.emulator._sql import Page
    from vertex_registry.emulator._store import ModelRow, Store, View
    from vertex_registry.emulator._switches import Assumptions

#: The fields that are the model's own. That the encryption is one is a guess.
MODEL_FIELDS: Final = ("display_name", "description", "encryption_spec")

# ListModelsResponse and ListModelVersionsResponse have the same fields.
_LIST: Final[Any] = types.ListModelsResponse.pb()

_ETAG: Final = struct.Struct(">IIII")

# How many list entries are cached, and the most bytes of a view whose entry is: so the cache stays small.
_CACHED_ENTRIES: Final = 4096
_CACHED_BYTES: Final = 4096


class Views:
    """Finds models and versions, and shows them as messages."""

    def __init__(self, store: Store, assume: Assumptions) -> None:
        self._store = store
        self._assume = assume
        # A view never changes, and lists show the same ones again and again.
        self._cached_entry = functools.lru_cache(maxsize=_CACHED_ENTRIES)(_list_entry)

    def clear(self) -> None:
        """Forget every cached list entry."""
        self._cached_entry.cache_clear()

    def model_row(self, name: Name) -> ModelRow:
        """Return a model's row.

        Raises:
            Failure: NOT_FOUND.
        """
        row = self._store.model(name.parent, name.model)
        if row is None:
            raise not_found(f"The Model does not exist: {name.bare}.")
        return row

    def find(self, name: Name) -> View:
        """Return the version that a name means; without one, the default version.

        Raises:
            Failure: NOT_FOUND.
        """
        store, version = self._store, name.version
        if version is None:
            view = store.default_version(name.parent, name.model)
        elif VERSION_NUMBER_RE.fullmatch(version):
            view = store.version_by_number(name.parent, name.model, int(version))
        else:
            view = store.version_by_alias(name.parent, name.model, version)
        if view is None:
            self.model_row(name)
            raise not_found(f"The Model version does not exist: {name.bare}@{version}.")
        return view

    def to_model(self, view: View, *, versioned: bool) -> Any:
        """Return a view as a ``Model``, whose name has the version if ``versioned``."""
        return _to_model(view, versioned, self._assume.label_wins)

    def to_list(self, views: list[View], query: Query, page: Page, mask: tuple[str, ...], *, versioned: bool) -> bytes:
        """Return a page of a list, with the token of the next page if there are more views than the query's limit.

        It's concatenated from serialised entries, because all lists of models have the same fields.
        """
        shown, label_wins = views[: query.limit], self._assume.label_wins
        parts = [
            (_list_entry if len(view.body) + len(view.version_body) > _CACHED_BYTES else self._cached_entry)(
                view, versioned, label_wins, mask
            )
            for view in shown
        ]
        if len(views) > query.limit:
            token = query.token(_position(shown[-1], page, of_version=versioned))
            parts.append(_LIST(next_page_token=token).SerializeToString())
        return b"".join(parts)

    def update_listing(self, name: Name) -> None:
        """Let lists find a model by what they show of it now: its default version's labels and base model."""
        view = self._store.default_version(name.parent, name.model)
        assert view is not None  # noqa: S101 - a model has exactly one default version
        shown = self.to_model(view, versioned=False)
        self._store.list_labels(view.key, view.parent, shown.labels)
        self._store.list_base_model(view.key, base_model(shown))

    def check_etag(self, etag: str, view: View, *, of_version: bool, stale: bool) -> None:
        """Refuse an update on top of another update.

        Model.etag: "Used to perform consistent read-modify-write updates. If not set, a blind "overwrite" update
        happens." An etag is of the view that it came with, and holds the state of the model and of that version. An
        update of the model takes the etag of any of its versions, whatever became of that version since. Google's SDK
        uses it so: it updates the model with what it read of a version before its aliases moved.
        """
        states = (to_etag(view), etag) if of_version else (_model_in_etag(to_etag(view)), _model_in_etag(etag))
        if stale or (etag and states[0] != states[1]):
            message = f"The etag is stale: {view.parent}/models/{view.id} was changed since it was read. Read it again."
            raise aborted(message) if self._assume.stale_etag == "aborted" else failed_precondition(message)


def to_etag(view: View) -> str:
    """Return the etag of a view. It changes with everything that the view shows, and not with other versions."""
    return base64.b64encode(_ETAG.pack(view.key, view.revision, view.number, view.version_revision)).decode()


def _model_in_etag(etag: str) -> tuple[int, int] | None:
    """Return the key and the revision of the model in an etag."""
    with contextlib.suppress(ValueError, struct.error):
        key, revision, _, _ = _ETAG.unpack(base64.b64decode(etag, validate=True))
        return key, revision
    return None


def with_resolved_version(request: Any, field: str, view: View) -> Any:
    """Return the request with a version's number in its name: an alias may move until the operation is done."""
    resolved = type(request)()
    resolved.CopyFrom(request)
    setattr(resolved, field, f"{view.parent}/models/{view.id}@{view.number}")
    return resolved


def _to_model(view: View, versioned: bool, label_wins: str) -> Any:
    """Merge the two blobs of a view. The later one wins."""
    model = MODEL()
    if label_wins == "version":
        model.MergeFromString(view.body + view.version_body)
    else:
        model.MergeFromString(view.version_body + view.body)
    model.name = f"{view.parent}/models/{view.id}"
    if versioned:
        model.name += f"@{view.number}"
    model.version_id = str(view.number)
    model.version_aliases.extend(view.aliases.split())
    _set_timestamp(model.create_time, view.create_time)
    _set_timestamp(model.update_time, view.update_time)
    _set_timestamp(model.version_create_time, view.version_create_time)
    _set_timestamp(model.version_update_time, view.version_update_time)
    model.etag = to_etag(view)
    return model


def _list_entry(view: View, versioned: bool, label_wins: str, mask: tuple[str, ...]) -> bytes:
    """Return a view as a serialised list of one entry. Concatenated lists are one longer list."""
    entry = _LIST()
    entry.models.append(apply_read_mask(_to_model(view, versioned, label_wins), mask))
    serialised: bytes = entry.SerializeToString()
    return serialised


def _set_timestamp(timestamp: Any, microseconds: int) -> None:
    """Set a Timestamp. This takes a third of the time of its own method."""
    timestamp.seconds, rest = divmod(microseconds, 1_000_000)
    timestamp.nanos = rest * 1000


def _position(view: View, page: Page, *, of_version: bool) -> tuple[str | int, ...]:
    values: dict[str, str | int] = {
        "key": view.key,
        "number": view.number,
        "update_time": view.version_update_time if of_version else view.update_time,
        "display_name": "" if of_version else str(MODEL.FromString(view.body).display_name),
    }
    return tuple(values[column] for column, _ in page.order)
