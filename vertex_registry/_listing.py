"""What ``list_versions`` and ``list_models`` return: a lazy iterator that shows itself as a table.

What a display has read is kept and still comes in the iteration. Nothing is lost without an error.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import itertools
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Never, Self, TypeVar

import attrs

from vertex_registry import _display, _labels
from vertex_registry._records import ModelVersion, RegisteredModel, is_number
from vertex_registry.errors import InvalidArgumentError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    import pandas as pd

RecordT = TypeVar("RecordT", bound=ModelVersion | RegisteredModel)
_T = TypeVar("_T")

_ROWS: Final = 20
_METRICS: Final = 4  # columns of numbers
_INT64: Final = 2**63


@attrs.frozen
class Conditions:
    """What a version in a list has to meet, besides what Vertex filters by. It's false if there's no condition.

    Attributes:
        metadata: The keys and values that its metadata has.
        artifact_uri: The URI of its artifact, without a slash at the end, or None for any.
        created_after: The time after which it was created, or None for any.
        created_before: The time before which it was created, or None for any.
    """

    metadata: Mapping[str, Any]
    artifact_uri: str | None
    created_after: dt.datetime | None
    created_before: dt.datetime | None

    def __bool__(self) -> bool:
        others = (self.artifact_uri, self.created_after, self.created_before)
        return bool(self.metadata) or any(value is not None for value in others)

    def meets(self, version: ModelVersion) -> bool:
        """Return whether a version meets all conditions."""
        return (
            (self.artifact_uri is None or version.artifact_uri.rstrip("/") == self.artifact_uri)
            and (self.created_after is None or version.created_at > self.created_after)
            and (self.created_before is None or version.created_at < self.created_before)
            and (not self.metadata or self._has_metadata(version))  # only now are the labels decoded
        )

    def _has_metadata(self, version: ModelVersion) -> bool:
        has = version.metadata
        return all(key in has and _labels.json_equal(has[key], value) for key, value in self.metadata.items())

    def select(
        self, pages: Generator[Iterable[ModelVersion], None, None]
    ) -> Generator[Iterable[ModelVersion], None, None]:
        """Yield each page with the versions that meet the conditions."""
        with contextlib.closing(pages):
            for versions in pages:
                yield filter(self.meets, versions) if self else versions


def take(pages: Generator[Iterable[_T], None, None], limit: int | None) -> Generator[list[_T], None, None]:
    """Yield pages with at most so many records in all; once there are enough, nothing more is requested."""
    left = limit
    with contextlib.closing(pages):
        while left != 0 and (page := next(pages, None)) is not None:
            records = list(itertools.islice(page, left))
            left = None if left is None else left - len(records)
            yield records


class Listing(Iterator[RecordT]):
    """A list of models or versions that is read while you iterate over it.

    It's an iterator, so each record comes once, and nothing is requested before the first one. After the last one, it's
    false. On its own at the end of a notebook cell, or at a Python prompt, it shows its first 20 rows as a table. That
    requests no more than they need, and the rows still come when you iterate. So do the rows that `to_pandas` and
    `to_dicts` have read.

    Examples:
        >>> from vertex_registry import local_registry
        >>> with local_registry() as registry:
        ...     version = registry.register_version("churn", "gs://models/churn/1")
        ...     registry.list_versions("churn")
        VERSION  STAGE  ALIASES  AGE
        1        None   default  now
        1 version
    """

    def __init__(self, pages: Generator[Iterable[RecordT], None, None], kind: type[RecordT]) -> None:
        self._pages = pages
        self._kind = kind
        self._read: deque[RecordT] = deque()
        self._taken = 0
        self._failure: RegistryError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RecordT:
        if not self._read and not self._advance():
            if self._failure is not None:
                raise self._failure
            raise StopIteration
        self._taken += 1
        return self._read.popleft()

    def __bool__(self) -> bool:
        """Return whether there's another record. It requests no more than the iteration would, and nothing is lost.

        Raises:
            RegistryError: The list can't be read.
        """
        if not self._read and not self._advance() and self._failure is not None:
            raise self._failure
        return bool(self._read)

    def close(self) -> None:
        """Stop reading. Whoever reads on gets an error, unless everything was taken before."""
        unread = self._read or inspect.getgeneratorstate(self._pages) != inspect.GEN_CLOSED
        if unread and self._failure is None:
            self._failure = RegistryError("This list was closed before it was read to its end. Request it again.")
        self._read.clear()
        self._pages.close()

    def __reduce__(self) -> Never:
        raise InvalidArgumentError(
            "A list of models or versions can't be pickled or copied, because it's read while you iterate over it. Use "
            "list(...) of it."
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the records as dicts that JSON can hold: the fields that ``to_dict`` of a record has.

        It reads the list to its end. The records still come when you iterate afterwards; those that came before aren't
        included.

        Raises:
            RegistryError: The list can't be read to its end.
        """
        return [record.to_dict() for record in self._rest()]

    def to_pandas(self) -> pd.DataFrame:
        """Return the records as a pandas DataFrame, one row each.

        Metadata is spread over columns such as ``metadata.accuracy``, with the type of its values. Labels aren't
        included, because they repeat it. Times are in UTC. What `to_dicts` says about reading holds here too.

        Raises:
            InvalidArgumentError: pandas isn't installed.
            RegistryError: The list can't be read to its end.
        """
        try:
            import pandas as pd  # noqa: PLC0415  # it's in an extra, and takes a while
        except ImportError as error:
            raise InvalidArgumentError(
                "to_pandas() needs pandas. Install it: pip install 'vertex-registry[pandas]'"
            ) from error
        records = self._rest()
        columns = _columns_of_versions(records) if self._kind is ModelVersion else _columns_of_models(records)
        return pd.DataFrame({name: _series(pd, name, values) for name, values in columns.items()})

    def __repr__(self) -> str:
        return self._show(_display.text_table)

    def _repr_html_(self) -> str:
        def table(header: list[str], rows: list[list[str]], note: str) -> str:
            links = [_link(record) for record in itertools.islice(self._read, _ROWS)]
            return _display.html_table(header, rows, links, note)

        return self._show(table)

    def _show(self, table: Callable[[list[str], list[list[str]], str], str]) -> str:
        if self._is_running:
            return f"<Listing of {self._what(2)}, which another thread is reading>"
        self._fetch(_ROWS + 1)
        records = list(itertools.islice(self._read, _ROWS))
        if not records:
            return table([self._what(2)], [], self._note(0))
        cells = [(name, [_display.shown(read(record)) for record in records]) for name, read in self._columns(records)]
        filled = [(name, column) for name, column in cells if any(column)]
        rows = [list(row) for row in zip(*(column for _, column in filled), strict=True)]
        return table([name for name, _ in filled], rows, self._note(len(records)))

    def _columns(self, records: list[RecordT]) -> list[tuple[str, Callable[[Any], Any]]]:
        """Return the columns; metadata keys are as they were written, because their case matters.

        They may be called as another column is, so a name doesn't say which column is meant.
        """
        now = dt.datetime.now(dt.UTC)
        if self._kind is RegisteredModel:
            return [
                ("NAME", lambda model: model.name),
                ("DEFAULT", lambda model: model.default_version),
                ("DESCRIPTION", lambda model: model.description),
                ("AGE", lambda model: _display.age(model.created_at, now)),
            ]
        several = len({record.name for record in records}) > 1
        return [
            *([("MODEL", lambda version: version.name)] if several else []),
            ("VERSION", lambda version: version.version),
            ("NAME", lambda version: version.version_name),
            ("STAGE", lambda version: str(version.stage)),
            ("ALIASES", lambda version: version.aliases),
            ("AGE", lambda version: _display.age(version.created_at, now)),
            *((_display.printable(key), _metric(key)) for key in _metrics(records)),
        ]

    def _note(self, count: int) -> str:
        if len(self._read) > count:
            return f"{count} {self._what(count)} shown; there are more"
        if self._failure is not None:
            return f"{type(self._failure).__name__}: {_display.printable(str(self._failure))}"
        earlier = f"; {self._taken} came before" if self._taken else ""
        return f"{count or 'no'} {'more ' if self._taken else ''}{self._what(count)}{earlier}"

    def _what(self, count: int) -> str:
        noun = "version" if self._kind is ModelVersion else "model"
        return noun if count == 1 else f"{noun}s"

    def _rest(self) -> list[RecordT]:
        self._fetch(None)
        if self._failure is not None:
            raise self._failure
        return list(self._read)

    def _fetch(self, count: int | None) -> None:
        """Read on until so many records are kept, or to the end."""
        while (count is None or len(self._read) < count) and self._advance():
            pass

    def _advance(self) -> bool:
        """Read the next page that has records, or return False at the end. An error of the registry is kept.

        A generator that was interrupted ends without a word, and what remains would look like the whole list.
        """
        kept = len(self._read)
        try:
            while self._failure is None and len(self._read) == kept and (page := next(self._pages, None)) is not None:
                self._read.extend(page)
        except RegistryError as error:
            self._failure = error
        except BaseException:
            if not self._is_running:
                self._failure = RegistryError(
                    "Reading this list was interrupted, so it's incomplete. Request it again."
                )
            raise
        return len(self._read) > kept

    @property
    def _is_running(self) -> bool:
        """Whether another thread is reading the next record just now."""
        return inspect.getgeneratorstate(self._pages) == inspect.GEN_RUNNING


def _link(record: ModelVersion | RegisteredModel) -> str | None:
    return record.console_url


def _metric(key: str) -> Callable[[ModelVersion], Any]:
    def read(version: ModelVersion) -> Any:
        value = version.metadata.get(key)
        return f"{value:.6g}" if isinstance(value, float) else value

    return read


def _metrics(records: Iterable[Any]) -> list[str]:
    """Return the first metadata keys that have a number in one of the versions."""
    found: dict[str, None] = {}
    for record in records:
        found |= {key: None for key, value in record.metadata.items() if is_number(value)}
    return list(found)[:_METRICS]


def _columns_of_versions(versions: list[Any]) -> dict[str, list[Any]]:
    plain = ("name", "version", "version_name", "stage", "aliases", "is_default", "created_at", "updated_at")
    later = ("description", "stage_changed_at", "stage_changed_by", "managed_by", "artifact_uri", "resource_name")
    return {
        **_fields(versions, plain),
        **_spread([version.metadata for version in versions]),
        **_fields(versions, later),
        "image": [None if version.container is None else version.container.image for version in versions],
        "deployed_to": [list(version.deployed_to) for version in versions],
    }


def _columns_of_models(models: list[Any]) -> dict[str, list[Any]]:
    plain = ("name", "default_version", "description", "managed_by", "created_at", "updated_at", "resource_name")
    return _fields(models, plain)


def _fields(records: list[Any], names: Iterable[str]) -> dict[str, list[Any]]:
    return {name: [_plain(getattr(record, name)) for record in records] for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, str) else value


def _spread(values: list[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for value in values for key in value)
    return {f"metadata.{key}": [value.get(key) for value in values] for key in keys}


#: The columns that hold times, also if there is none.
_TIMES: Final = frozenset({"created_at", "updated_at", "stage_changed_at"})
_LISTS: Final = frozenset({"aliases", "deployed_to"})


def _series(pd: Any, name: str, values: list[Any]) -> Any:
    """Return a column with the type of its values; what's missing is NA, and doesn't turn integers into floats."""
    if name in _TIMES:
        return pd.Series(values, dtype="datetime64[us, UTC]")
    given = [value for value in values if value is not None]
    if name in _LISTS or (not given and "." in name):
        dtype = "object"
    elif all(isinstance(value, str) for value in given):
        dtype = "boolean" if name == "is_default" else "string"
    elif all(isinstance(value, bool) for value in given):
        dtype = "boolean"
    elif not all(is_number(value) for value in given):
        dtype = "object"
    elif all(isinstance(value, int) and -_INT64 <= value < _INT64 for value in given):
        dtype = "Int64"
    elif any(isinstance(value, float) for value in given) and all(abs(value) < _INT64 for value in given):
        dtype = "Float64"
    else:
        dtype = "object"  # integers of any size
    return pd.Series(values, dtype=dtype)
