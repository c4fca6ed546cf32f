"""SQLite: a proto blob, and the columns it is searched by.

A model is two blobs, as Vertex's labels are in two layers: the model's own fields in ``models.body``, those of each
version in ``versions.body``. Both are serialised ``Model`` messages, and since protobuf merges what is concatenated, a
read is the one after the other. No field of Google's is named here: a new one needs no change.

The rest of a row is what lists are filtered and ordered by, and what changes when nobody writes the blob (times,
revisions, aliases, which version is the default one). The rules of the columns:

- ``models.key`` grows, and so do the create times (the service sees to it), so that the order of the keys is the order
  of creation and needs no index of its own. The same is true of ``versions.number`` within a model.
- ``models.last_version`` never falls: no version number of a model that is there is given twice, whichever is deleted.
- ``models.base_model`` is the default version's, which is the one that lists show.
- ``operations.target`` is the key of the model that an operation was begun for, if that was there, and ``source`` that
  of the model that it copies: a later model of the same id is another one.
- ``aliases`` finds a version by its alias, ``versions.aliases`` lists them in the order they were given in.
- ``listed_labels`` are the labels a model shows in a list: its default version's, merged with its own, and
  ``listing.label_wins`` is which of the two had the last word when they were written.
- ``version_labels`` are a version's own.
- ``slices.annotations`` is always 0, and only there because files of this format have it.

There is one connection, and one thread at a time in it: everything that a request does happens under one lock, and what
it writes in one transaction, which is on the disk before the request is answered (``synchronous=FULL`` with a
write-ahead log). The connection holds the file's exclusive lock for as long as it is open.

A list may be made to lag behind (``list_lag``). Lists then read a second database in memory with the same tables, into
which the image of a model that was written is copied when so many further lists have been answered. All writes between
two lists are due at once, so that the image is taken when the next list is asked for, of the last of them.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import json
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has none, and its locks are not lost
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# "VxRg": tells a file of ours from any other SQLite database.
APPLICATION_ID: Final = 0x56785267
SCHEMA_VERSION: Final = 3
# The bytes of SQLite's smallest page.
_LEAST_DATABASE: Final = 512
_CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0)

# The tables that lists read; each has the key of its model in the column named.
_LISTED: Final = {"models": "key", "versions": "model", "version_labels": "model", "listed_labels": "model"}

_LISTED_TABLES: Final = """
CREATE TABLE {schema}.models (
    key INTEGER PRIMARY KEY AUTOINCREMENT, parent TEXT NOT NULL, id TEXT NOT NULL,
    display_name TEXT NOT NULL, base_model TEXT NOT NULL, listed TEXT NOT NULL,
    create_time INTEGER NOT NULL, update_time INTEGER NOT NULL, revision INTEGER NOT NULL,
    default_version INTEGER NOT NULL, last_version INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX {schema}.models_by_id ON models (parent, id);
CREATE INDEX {schema}.models_by_age ON models (parent, key);
CREATE INDEX {schema}.models_by_display_name ON models (parent, display_name, key);
CREATE INDEX {schema}.models_by_update_time ON models (parent, update_time, key);
CREATE INDEX {schema}.models_by_base_model ON models (parent, base_model, key) WHERE base_model <> '';
CREATE TABLE {schema}.versions (
    model INTEGER NOT NULL, number INTEGER NOT NULL, aliases TEXT NOT NULL,
    create_time INTEGER NOT NULL, update_time INTEGER NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX {schema}.versions_by_number ON versions (model, number);
CREATE INDEX {schema}.versions_by_update_time ON versions (model, update_time, number);
CREATE TABLE {schema}.version_labels (
    model INTEGER NOT NULL, label TEXT NOT NULL, number INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (model, label, number)
) WITHOUT ROWID;
CREATE INDEX {schema}.version_labels_by_value ON version_labels (model, label, value, number);
CREATE TABLE {schema}.listed_labels (
    parent TEXT NOT NULL, label TEXT NOT NULL, model INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (parent, label, model)
) WITHOUT ROWID;
CREATE INDEX {schema}.listed_labels_by_value ON listed_labels (parent, label, value, model);
"""

_OTHER_TABLES: Final = """
CREATE TABLE aliases (
    model INTEGER NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (model, alias)
) WITHOUT ROWID;
CREATE TABLE operations (
    parent TEXT NOT NULL, model TEXT NOT NULL, id TEXT NOT NULL, looks INTEGER, target INTEGER, source INTEGER,
    creates INTEGER NOT NULL, rpc TEXT NOT NULL, api TEXT NOT NULL, request BLOB NOT NULL, failure BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (parent, model, id)
);
CREATE INDEX operations_under_way ON operations (parent, model) WHERE looks IS NOT NULL;
CREATE INDEX operations_by_id ON operations (parent, id);
CREATE TABLE evaluations (
    model INTEGER NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (model, id)
);
CREATE INDEX evaluations_by_version ON evaluations (model, number, id);
CREATE TABLE listing (label_wins TEXT NOT NULL);
CREATE TABLE slices (
    model INTEGER NOT NULL, evaluation TEXT NOT NULL, id TEXT NOT NULL, dimension TEXT NOT NULL,
    annotations INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (model, evaluation, id)
);
"""


class DataFileError(Exception):
    """A data file that the emulator cannot use. What is in it was not touched.

    Attributes:
        path: The file.
        in_use: Whether the file is good, and another emulator has it open.
    """

    def __init__(self, message: str, *, path: str, in_use: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.in_use = in_use


class View(NamedTuple):
    """One version of one model, with what a ``Model`` message shows of both."""

    parent: str
    id: str
    key: int
    revision: int
    create_time: int
    update_time: int
    default_version: int
    body: bytes
    number: int
    aliases: str
    version_revision: int
    version_create_time: int
    version_update_time: int
    version_body: bytes


# The columns of a view, the model's before the version's.
_MODEL: Final = "m.parent, m.id, m.key, m.revision, m.create_time, m.update_time, m.default_version, m.body"
_VERSION: Final = "v.number, v.aliases, v.revision, v.create_time, v.update_time, v.body"
_VIEW: Final = f"{_MODEL}, {_VERSION}"


class ModelRow(NamedTuple):
    """A model without its versions: what a view shows of it, and ``last_version``."""

    parent: str
    id: str
    key: int
    revision: int
    create_time: int
    update_time: int
    default_version: int
    body: bytes
    last_version: int


class OperationRow(NamedTuple):
    """An operation: what it has to do and how many looks are left, or, when ``looks`` is None, how it ended."""

    parent: str
    model: str
    id: str
    polls_left: int | None
    target: int | None
    rpc: str
    api: str
    request: bytes
    failure: bytes
    body: bytes
    source: int | None = None


class Condition(NamedTuple):
    """A part of a WHERE clause with its values."""

    sql: str
    values: tuple[Any, ...]


class LabelCondition(NamedTuple):
    """A label that rows must have: with that value or, for None, with any.

    With ``or_none``, a row that does not have the label at all is as good.
    """

    label: str
    value: str | None
    or_none: bool = False

    @property
    def selected(self) -> Condition:
        """The further condition that selects the label's own rows ``l``."""
        if self.value is None:
            return Condition(" AND l.label = ?", (self.label,))
        return Condition(" AND l.label = ? AND l.value = ?", (self.label, self.value))

    def compile(self, labels: str) -> Condition:
        """The condition, given the SELECT of a row's labels ``o``."""
        if self.or_none:
            return Condition(f"NOT EXISTS ({labels} AND o.label = ? AND o.value <> ?)", (self.label, self.value))
        if self.value is None:
            return Condition(f"EXISTS ({labels} AND o.label = ?)", (self.label,))
        return Condition(f"EXISTS ({labels} AND o.label = ? AND o.value = ?)", (self.label, self.value))


class Page(NamedTuple):
    """Which rows of a list are wanted: those after a position, in an order, so many.

    ``order`` is columns with whether they descend; its last column tells all rows apart.
    """

    order: tuple[tuple[str, bool], ...]
    after: tuple[Any, ...] | None
    limit: int

    @property
    def order_by(self) -> str:
        """The ORDER BY clause."""
        return ", ".join(f"{column} DESC" if descends else column for column, descends in self.order)

    def qualified(self, table: str, key: str) -> Page:
        """The page with the table's name before its columns, but for the last one, which is that key."""
        *others, (_, descends) = self.order
        return self._replace(order=(*((f"{table}.{column}", falls) for column, falls in others), (key, descends)))

    def stretches(self) -> Iterator[Condition]:
        """The conditions of the rows after the position, which follow upon one another in the order.

        What comes after (x, y) is: the rows with a = x and b after y, and then those with a after x. An index leads to
        the beginning of each; of the two as alternatives of one condition SQLite would look at every row.
        """
        if self.after is None:
            yield Condition("", ())
            return
        for depth in reversed(range(len(self.order))):
            column, descends = self.order[depth]
            same = "".join(f" AND {earlier} = ?" for earlier, _ in self.order[:depth])
            yield Condition(f"{same} AND {column} {'<' if descends else '>'} ?", self.after[: depth + 1])


class Store:
    """The state of an emulator. Call its methods within ``reading()`` or ``writing()``.

    Where lists lag, they show nothing of a file that is opened until ``show_in_lists()``.
    """

    def __init__(self, path: str | None, *, list_lag: int = 0) -> None:
        self._lock = threading.RLock()
        self._path = path
        self._database, self._claim = _open(path)
        self._lag = list_lag
        self._lists_answered = 0
        # The models that were written: in the transaction that goes on, and since the last list.
        self._touched: set[int] = set()
        self._written: set[int] = set()
        self._due: collections.deque[tuple[int, int, dict[str, list[tuple[Any, ...]]]]] = collections.deque()
        self._lists = "main"
        if list_lag:
            self._lists = "lagging"
            self._database.execute("ATTACH ':memory:' AS lagging")
            for statement in _statements(_LISTED_TABLES.format(schema="lagging")):
                self._database.execute(statement)
        self.under_way = 0
        try:
            with self.reading():
                (self.under_way,) = self._one("SELECT count(*) FROM operations WHERE looks IS NOT NULL")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back. Closing twice is fine."""
        with self._lock:
            self._database.close()
            if self._claim is not None:
                self._claim.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Nobody else changes anything while it lasts."""
        with self._lock, self._telling("read"):
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction: all of it is on the disk when it ends, or nothing if it ends with an exception."""
        with self._lock, self._telling("written"):
            under_way = self.under_way
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield
                self._database.execute("COMMIT")
            except BaseException:
                self.under_way = under_way
                self._touched.clear()
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            if self._lag:
                self._written |= self._touched
            self._touched.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            with self.writing():
                for table in (*_LISTED, "aliases", "operations", "evaluations", "slices"):
                    self._database.execute(f"DELETE FROM main.{table}")  # noqa: S608 - names of ours
                self.under_way = 0
            self.show_in_lists()  # what is due is forgotten when the rest is, and not where that failed

    def latest_create_time(self) -> int:
        """When the youngest model or version was created, in microseconds since 1970."""
        (latest,) = self._one(
            "SELECT max(coalesce((SELECT create_time FROM models ORDER BY key DESC LIMIT 1), 0),"
            " coalesce((SELECT create_time FROM versions ORDER BY rowid DESC LIMIT 1), 0))"
        )
        return int(latest)

    def listed_otherwise(self, label_wins: str) -> list[tuple[str, str]]:
        """The place and id of every model, if what lists find it by was written under another assumption than this."""
        written = self._one("SELECT label_wins FROM listing")
        if written == (label_wins,):
            return []
        self._database.execute("DELETE FROM listing")
        self._database.execute("INSERT INTO listing (label_wins) VALUES (?)", (label_wins,))
        return self._all("SELECT parent, id FROM models")

    # --- models and versions -------------------------------------------------

    def model(self, parent: str, model_id: str) -> ModelRow | None:
        """The model of that id."""
        row = self._one(
            f"SELECT {_MODEL}, m.last_version FROM main.models AS m WHERE m.parent = ? AND m.id = ?",  # noqa: S608 - names of ours
            parent,
            model_id,
        )
        return row and ModelRow(*row)

    def default(self, parent: str, model_id: str) -> View | None:
        """The model's default version."""
        return self._view("ON v.model = m.key AND v.number = m.default_version", parent, model_id)

    def numbered(self, parent: str, model_id: str, number: int) -> View | None:
        """The model's version of that number."""
        return self._view("ON v.model = m.key AND v.number = ?", number, parent, model_id)

    def aliased(self, parent: str, model_id: str, alias: str) -> View | None:
        """The model's version that has the alias."""
        return self._view(
            "ON v.model = m.key AND v.number = (SELECT number FROM aliases WHERE model = m.key AND alias = ?)",
            alias,
            parent,
            model_id,
        )

    def newest(self, parent: str, model_id: str) -> View | None:
        """The model's version with the highest number."""
        return self._view(
            "ON v.model = m.key AND v.number = (SELECT max(number) FROM versions WHERE model = m.key)",
            parent,
            model_id,
        )

    def add_model(
        self, parent: str, model_id: str, *, display_name: str, base_model: str, time: int, body: bytes
    ) -> int:
        """Make a model that has no version yet, and give its key."""
        cursor = self._database.execute(
            "INSERT INTO main.models (parent, id, display_name, base_model, listed, create_time, update_time, revision,"
            " default_version, last_version, body) VALUES (?, ?, ?, ?, '{}', ?, ?, 1, 0, 0, ?)",
            (parent, model_id, display_name, base_model, time, time, body),
        )
        key = cursor.lastrowid
        assert key is not None  # noqa: S101 - an INSERT has one
        self._touched.add(key)
        return key

    def add_version(self, model: int, number: int, *, time: int, labels: Mapping[str, str], body: bytes) -> None:
        """Make a version; it has no alias yet."""
        self._database.execute(
            "INSERT INTO main.versions (model, number, aliases, create_time, update_time, revision, body)"
            " VALUES (?, ?, '', ?, ?, 1, ?)",
            (model, number, time, time, body),
        )
        self._database.execute(
            "UPDATE main.models SET last_version = ?, update_time = ? WHERE key = ?", (number, time, model)
        )
        self._add_labels(model, number, labels)
        self._touched.add(model)

    def change_model(self, model: int, *, display_name: str, time: int, body: bytes) -> None:
        """Replace a model's own fields."""
        self._database.execute(
            "UPDATE main.models SET display_name = ?, update_time = ?, revision = revision + 1, body = ? WHERE key = ?",
            (display_name, time, body, model),
        )
        self._touched.add(model)

    def change_version(
        self, model: int, number: int, *, time: int, before: Iterable[str], labels: Mapping[str, str], body: bytes
    ) -> None:
        """Replace a version's own fields; ``before`` are the keys of the labels it had."""
        self._database.execute(
            "UPDATE main.versions SET update_time = ?, revision = revision + 1, body = ?"
            " WHERE model = ? AND number = ?",
            (time, body, model, number),
        )
        self._remove_labels(model, number, before)
        self._add_labels(model, number, labels)
        self._touched.add(model)

    def set_aliases(self, model: int, number: int, aliases: Sequence[str], *, time: int | None) -> None:
        """Give a version exactly these aliases, in this order, taking each from the version that has it.

        ``time`` is when the versions were updated by it, or None if that is not an update.
        """
        database = self._database
        losers: dict[int, set[str]] = {}
        for alias in aliases:
            row = self._one("SELECT number FROM main.aliases WHERE model = ? AND alias = ?", model, alias)
            if row is not None and row[0] != number:
                losers.setdefault(row[0], set()).add(alias)
        for loser, lost in losers.items():
            (had,) = self._one("SELECT aliases FROM main.versions WHERE model = ? AND number = ?", model, loser)
            kept = " ".join(alias for alias in had.split() if alias not in lost)
            self._write_aliases(model, loser, kept, time)
        (had,) = self._one("SELECT aliases FROM main.versions WHERE model = ? AND number = ?", model, number)
        database.executemany(
            "DELETE FROM main.aliases WHERE model = ? AND alias = ?",
            [(model, alias) for alias in set(had.split()).difference(aliases)],
        )
        database.executemany(
            "INSERT OR REPLACE INTO main.aliases (model, alias, number) VALUES (?, ?, ?)",
            [(model, alias, number) for alias in aliases],
        )
        self._write_aliases(model, number, " ".join(aliases), time)
        if "default" in aliases:
            database.execute("UPDATE main.models SET default_version = ? WHERE key = ?", (number, model))
        self._touched.add(model)

    def list_labels(self, model: int, parent: str, labels: Mapping[str, str]) -> None:
        """Let lists find the model by these labels."""
        (was,) = self._one("SELECT listed FROM main.models WHERE key = ?", model)
        old: dict[str, str] = json.loads(was)
        new = dict(labels)
        if old == new:
            return
        self._database.executemany(
            "DELETE FROM main.listed_labels WHERE parent = ? AND label = ? AND model = ?",
            [(parent, label, model) for label in old if label not in new],
        )
        self._database.executemany(
            "INSERT OR REPLACE INTO main.listed_labels (parent, label, model, value) VALUES (?, ?, ?, ?)",
            [(parent, label, model, value) for label, value in new.items() if old.get(label) != value],
        )
        self._database.execute("UPDATE main.models SET listed = ? WHERE key = ?", (json.dumps(new), model))
        self._touched.add(model)

    def list_base_model(self, model: int, base_model: str) -> None:
        """Let lists find the model by this base model."""
        self._database.execute(
            "UPDATE main.models SET base_model = ?1 WHERE key = ?2 AND base_model <> ?1", (base_model, model)
        )
        self._touched.add(model)

    def count_versions(self, model: int) -> int:
        """How many versions the model has, up to two."""
        return len(self._all("SELECT 1 FROM main.versions WHERE model = ? LIMIT 2", model))

    def delete_version(self, model: int, number: int, *, time: int, labels: Iterable[str]) -> None:
        """Delete a version with its aliases and evaluations; ``labels`` are the keys of the labels it has."""
        (had,) = self._one("SELECT aliases FROM main.versions WHERE model = ? AND number = ?", model, number)
        self._remove_labels(model, number, labels)
        self._database.executemany(
            "DELETE FROM main.aliases WHERE model = ? AND alias = ?", [(model, alias) for alias in had.split()]
        )
        self._database.execute(
            "DELETE FROM slices WHERE model = ?"
            " AND evaluation IN (SELECT id FROM evaluations WHERE model = ? AND number = ?)",
            (model, model, number),
        )
        self._database.execute("DELETE FROM evaluations WHERE model = ? AND number = ?", (model, number))
        self._database.execute("DELETE FROM main.versions WHERE model = ? AND number = ?", (model, number))
        self._database.execute("UPDATE main.models SET update_time = ? WHERE key = ?", (time, model))
        self._touched.add(model)

    def delete_model(self, model: ModelRow) -> None:
        """Delete a model with everything under it."""
        (was,) = self._one("SELECT listed FROM main.models WHERE key = ?", model.key)
        self._database.executemany(
            "DELETE FROM main.listed_labels WHERE parent = ? AND label = ? AND model = ?",
            [(model.parent, label, model.key) for label in json.loads(was)],
        )
        for table in ("version_labels", "versions", "aliases", "evaluations", "slices"):
            self._database.execute(f"DELETE FROM main.{table} WHERE model = ?", (model.key,))  # noqa: S608 - names of ours
        self._database.execute("DELETE FROM main.models WHERE key = ?", (model.key,))
        self._touched.add(model.key)

    def list_models(
        self, parent: str, conditions: Sequence[Condition], labels: Sequence[LabelCondition], page: Page
    ) -> list[View]:
        """The default versions of a place's models. Pages are ordered by columns of the table, ending in the key."""
        lists = self._lists
        of: tuple[Any, ...]
        # An id or a display name selects fewer models than any label, and has an index too.
        named_models = any(condition.sql.startswith(("m.id =", "m.display_name =")) for condition in conditions)
        others = list(labels)
        first = None if named_models else self._leading("listed_labels AS l WHERE l.parent = ?", parent, labels, page)
        if first is not None:
            others.remove(first)
            source = (
                f"{lists}.listed_labels AS l CROSS JOIN {lists}.models AS m ON m.key = l.model"
                f" CROSS JOIN {lists}.versions AS v ON v.model = m.key AND v.number = m.default_version"
                f" WHERE l.parent = ?{first.selected.sql}"
            )
            of = (parent, *first.selected.values)
            key = "l.model"
        else:
            source = (
                f"{lists}.models AS m CROSS JOIN {lists}.versions AS v"
                " ON v.model = m.key AND v.number = m.default_version WHERE m.parent = ?"
            )
            of = (parent,)
            key = "m.key"
        page = page.qualified("m", key)
        exists = f"SELECT 1 FROM {lists}.listed_labels AS o WHERE o.parent = m.parent AND o.model = m.key"  # noqa: S608 - names of ours
        rows = self._list(_VIEW, source, of, [*conditions, *(label.compile(exists) for label in others)], page)
        return [View._make(row) for row in rows]

    def list_versions(self, model: ModelRow, labels: Sequence[LabelCondition], page: Page) -> list[View]:
        """The versions of a model. Pages are ordered by columns of the table, ending in the number."""
        lists = self._lists
        of: tuple[Any, ...]
        others = list(labels)
        first = self._leading("version_labels AS l WHERE l.model = ?", model.key, labels, page)
        if first is not None:
            others.remove(first)
            source = (
                f"{lists}.version_labels AS l CROSS JOIN {lists}.versions AS v"
                f" ON v.model = l.model AND v.number = l.number WHERE l.model = ?{first.selected.sql}"
            )
            of = (model.key, *first.selected.values)
            key = "l.number"
        else:
            source = f"{lists}.versions AS v WHERE v.model = ?"
            of = (model.key,)
            key = "v.number"
        page = page.qualified("v", key)
        exists = f"SELECT 1 FROM {lists}.version_labels AS o WHERE o.model = v.model AND o.number = v.number"  # noqa: S608 - names of ours
        rows = self._list(_VERSION, source, of, [label.compile(exists) for label in others], page)
        *shown, _ = model
        return [View._make((*shown, *row)) for row in rows]

    def listed_model(self, model: int) -> ModelRow | None:
        """The model as lists see it, or None if they don't see it yet."""
        row = self._one(f"SELECT {_MODEL}, m.last_version FROM {self._lists}.models AS m WHERE m.key = ?", model)  # noqa: S608 - names of ours
        return row and ModelRow(*row)

    # --- operations ----------------------------------------------------------

    def add_operation(self, row: OperationRow, *, creates: bool) -> None:
        """Keep an operation. ``creates`` tells that it has taken its model's id."""
        self._database.execute(
            f"INSERT INTO operations ({_OPERATION}, creates) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - names of ours
            (*row, creates),
        )
        if row.polls_left is not None:
            self.under_way += 1

    def operation(self, parent: str, model: str | None, operation_id: str) -> OperationRow | None:
        """The operation of that id, a model's or, for None, whichever has it."""
        row = self._one(
            f"SELECT {_OPERATION} FROM operations INDEXED BY operations_by_id"  # noqa: S608 - names of ours
            " WHERE parent = ?1 AND id = ?2 AND model = coalesce(?3, model)",
            parent,
            operation_id,
            model,
        )
        return row and OperationRow(*row)

    def count_poll(self, parent: str, model: str) -> list[OperationRow]:
        """Count a look at the model's operations under way, and give those that it is to end, the oldest first."""
        rows = self._all(
            f"SELECT {_OPERATION} FROM operations INDEXED BY operations_under_way"  # noqa: S608 - names of ours
            " WHERE parent = ? AND model = ? AND looks = 1 ORDER BY rowid",
            parent,
            model,
        )
        self._database.execute(
            "UPDATE operations INDEXED BY operations_under_way SET looks = looks - 1"
            " WHERE parent = ? AND model = ? AND looks > 1",
            (parent, model),
        )
        return [OperationRow(*row) for row in rows]

    def is_taken(self, parent: str, model_id: str) -> bool:
        """Whether a model has the id, or an operation that is under way makes one that will."""
        return bool(
            self._one(
                "SELECT 1 FROM models WHERE parent = ?1 AND id = ?2 UNION ALL"
                " SELECT 1 FROM operations WHERE parent = ?1 AND model = ?2 AND looks IS NOT NULL AND creates LIMIT 1",
                parent,
                model_id,
            )
        )

    def change_operation(self, row: OperationRow) -> None:
        """Keep what became of an operation that was under way."""
        self._database.execute(
            "UPDATE operations SET looks = ?, body = ? WHERE parent = ? AND model = ? AND id = ?",
            (row.polls_left, row.body, row.parent, row.model, row.id),
        )
        if row.polls_left is None:
            self.under_way -= 1

    def delete_operation(self, row: OperationRow) -> None:
        """Forget an operation that is done."""
        self._database.execute(
            "DELETE FROM operations WHERE parent = ? AND model = ? AND id = ?", (row.parent, row.model, row.id)
        )

    def list_operations(self, parent: str, model: str | None, page: Page) -> list[OperationRow]:
        """The operations of a place, or of one of its models."""
        sql = f"SELECT {_OPERATION} FROM operations WHERE parent = ?"  # noqa: S608 - names of ours
        if model is None:
            rows = self._page(sql, page, parent)
        else:
            rows = self._page(f"{sql} AND model = ?", page, parent, model)
        return [OperationRow(*row) for row in rows]

    # --- evaluations ---------------------------------------------------------

    def add_evaluation(self, model: int, number: int, evaluation_id: str, body: bytes) -> None:
        """Keep an evaluation of a version."""
        self._database.execute(
            "INSERT INTO evaluations (model, number, id, body) VALUES (?, ?, ?, ?)",
            (model, number, evaluation_id, body),
        )

    def evaluation(self, model: int, evaluation_id: str) -> tuple[int, bytes] | None:
        """The number of the version that was evaluated, and the evaluation."""
        found: tuple[int, bytes] | None
        found = self._one("SELECT number, body FROM evaluations WHERE model = ? AND id = ?", model, evaluation_id)
        return found

    def list_evaluations(self, model: int, number: int, page: Page) -> list[tuple[str, bytes]]:
        """The evaluations of a version, each with its id."""
        return self._page("SELECT id, body FROM evaluations WHERE model = ? AND number = ?", page, model, number)

    def add_slice(self, model: int, evaluation_id: str, slice_id: str, dimension: str, body: bytes) -> None:
        """Keep a slice of an evaluation."""
        self._database.execute(
            "INSERT INTO slices (model, evaluation, id, dimension, annotations, body) VALUES (?, ?, ?, ?, 0, ?)",
            (model, evaluation_id, slice_id, dimension, body),
        )

    def slice(self, model: int, evaluation_id: str, slice_id: str) -> bytes | None:
        """A slice of an evaluation."""
        row: tuple[bytes] | None = self._one(
            "SELECT body FROM slices WHERE model = ? AND evaluation = ? AND id = ?", model, evaluation_id, slice_id
        )
        return row and row[0]

    def list_slices(self, model: int, evaluation_id: str, dimension: str | None, page: Page) -> list[tuple[str, bytes]]:
        """The slices of an evaluation, each with its id; with a dimension, those along it."""
        sql = "SELECT id, body FROM slices WHERE model = ? AND evaluation = ?"
        if dimension is None:
            return self._page(sql, page, model, evaluation_id)
        return self._page(f"{sql} AND dimension = ?", page, model, evaluation_id, dimension)

    # --- within --------------------------------------------------------------

    @contextlib.contextmanager
    def _telling(self, done: str) -> Iterator[None]:
        """Tell what is wrong with the file; what is wrong with a statement is a bug of ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if _is_damage(error):
                raise _damaged(str(self._path), error) from error
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise _unusable(str(self._path), done, str(error), error.sqlite_errorcode) from error
            raise

    def _one(self, sql: str, *values: Any) -> Any:
        return self._database.execute(sql, values).fetchone()

    def _all(self, sql: str, *values: Any) -> list[Any]:
        return self._database.execute(sql, values).fetchall()

    def _page(self, sql: str, page: Page, *values: Any) -> list[Any]:
        """The rows of a page of what is selected, the values being those of its conditions."""
        rows: list[Any] = []
        for stretch in page.stretches():
            if len(rows) < page.limit:
                ordered = f"{sql}{stretch.sql} ORDER BY {page.order_by} LIMIT ?"
                rows += self._all(ordered, *values, *stretch.values, page.limit - len(rows))
        return rows

    def _view(self, join: str, *values: Any) -> View | None:
        row = self._one(
            f"SELECT {_VIEW} FROM main.models AS m JOIN main.versions AS v {join} WHERE m.parent = ? AND m.id = ?",  # noqa: S608 - names of ours
            *values,
        )
        return row and View(*row)

    def _leading(self, rows: str, of: object, labels: Sequence[LabelCondition], page: Page) -> LabelCondition | None:
        """The label whose index leads to the page, if there is one: that which the fewest rows have.

        A label's index has its rows in the order of their keys. In another order they have to be sorted, which is the
        shorter way where they are fewer than the page takes. It is no use to count further than that.
        """
        leading = [label for label in labels if not label.or_none]
        by_key = len(page.order) == 1
        if not leading or (by_key and len(leading) == 1):
            return leading[0] if leading else None
        counts = [
            len(self._all(f"SELECT 1 FROM {self._lists}.{rows}{sql} LIMIT ?", of, *values, page.limit))  # noqa: S608 - names of ours
            for sql, values in (label.selected for label in leading)
        ]
        fewest = min(counts)
        return leading[counts.index(fewest)] if by_key or fewest < page.limit else None

    def _list(
        self, columns: str, source: str, of: tuple[Any, ...], conditions: Iterable[Condition], page: Page
    ) -> list[Any]:
        wheres = list(conditions)
        sql = f"SELECT {columns} FROM {source}" + "".join(f" AND {condition.sql}" for condition in wheres)  # noqa: S608 - names of ours
        given = [value for condition in wheres for value in condition.values]
        return self._page(sql, page, *of, *given)

    def _write_aliases(self, model: int, number: int, aliases: str, time: int | None) -> None:
        self._database.execute(
            "UPDATE main.versions SET aliases = ?1, revision = revision + 1, update_time = coalesce(?2, update_time)"
            " WHERE model = ?3 AND number = ?4 AND aliases <> ?1",
            (aliases, time, model, number),
        )

    def _add_labels(self, model: int, number: int, labels: Mapping[str, str]) -> None:
        self._database.executemany(
            "INSERT INTO main.version_labels (model, label, number, value) VALUES (?, ?, ?, ?)",
            [(model, label, number, value) for label, value in labels.items()],
        )

    def _remove_labels(self, model: int, number: int, labels: Iterable[str]) -> None:
        self._database.executemany(
            "DELETE FROM main.version_labels WHERE model = ? AND label = ? AND number = ?",
            [(model, label, number) for label in labels],
        )

    # --- lists that lag ------------------------------------------------------

    def count_list(self) -> None:
        """A list is about to be answered: show it the writes that are due, all of them or, where that fails, none."""
        if not self._lag:
            return
        self._due += [(self._lists_answered + self._lag, model, self._image(model)) for model in sorted(self._written)]
        self._written.clear()
        self._lists_answered += 1
        due = list(itertools.takewhile(lambda image: image[0] < self._lists_answered, self._due))
        if not due:
            return
        with self.writing():
            for _, model, image in due:
                self._show(model, image)
        for _ in due:
            self._due.popleft()

    def _image(self, model: int) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: self._all(f"SELECT * FROM main.{table} WHERE {column} = ?", model)  # noqa: S608 - names of ours
            for table, column in _LISTED.items()
        }

    def _show(self, model: int, image: dict[str, list[tuple[Any, ...]]]) -> None:
        for table, column in _LISTED.items():
            self._database.execute(f"DELETE FROM lagging.{table} WHERE {column} = ?", (model,))  # noqa: S608 - names of ours
            for row in image[table]:
                marks = ", ".join("?" * len(row))
                self._database.execute(f"INSERT INTO lagging.{table} VALUES ({marks})", row)  # noqa: S608 - names of ours

    def show_in_lists(self) -> None:
        """Let lists show everything as it is now: nothing of it is due later."""
        if self._lag:
            for table in _LISTED:
                self._database.execute(f"DELETE FROM lagging.{table}")  # noqa: S608 - names of ours
                self._database.execute(f"INSERT INTO lagging.{table} SELECT * FROM main.{table}")  # noqa: S608 - names of ours
        self._touched.clear()
        self._written.clear()
        self._due.clear()


_OPERATION: Final = "parent, model, id, looks, target, rpc, api, request, failure, body, source"


def _open(path: str | None) -> tuple[sqlite3.Connection, BinaryIO | None]:
    """A connection to the file, which is made if it is not there, and to nobody else's file; and the claim to it."""
    if path == "":
        # SQLite would take a file that is gone when it is closed.
        raise DataFileError(
            "The data file has no name. Name one, or none at all to keep everything in memory.", path=""
        )
    if path is not None and Path(path).is_file() and 0 < Path(path).stat().st_size < _LEAST_DATABASE:
        # SQLite would take it for an empty one, and write over it.
        raise _no_database(path)
    with contextlib.ExitStack() as failed:
        if path is not None and _create(path):
            # SQLite leaves nothing in a new file that it can't set up; neither do we.
            failed.callback(_remove_empty, Path(path))
        claim = _claim(path)
        if claim is not None:
            failed.callback(claim.close)
        # Whoever holds the file holds it for long: there is nothing to wait for. Only a name that begins with a folder
        # is always the name of a file: SQLite knows others, such as ":memory:" and "file:x?mode=memory".
        try:
            database = sqlite3.connect(
                ":memory:" if path is None else Path(path).absolute(),
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise _unusable(str(path), "opened", str(error)) from error
        failed.callback(database.close)
        _prepare(database, path)
        failed.pop_all()
    return database, claim


def _create(path: str) -> bool:
    """Create the data file if it doesn't exist, readable by its owner only, and check that it can be written.

    SQLite gives the files that it puts beside this one (``-wal`` and ``-shm``) the same permissions.

    Returns:
        Whether the file is new.

    Raises:
        DataFileError: The file, or the folder that those two files go to, can't be written.
    """
    file = Path(path)
    # An existing file isn't opened here: a process that closes a file loses the locks that SQLite has on it.
    new = not file.exists()
    try:
        if new:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | _CLOSE_ON_EXEC, 0o600))
        for needed, mode in ((file, os.R_OK | os.W_OK), (file.absolute().parent, os.W_OK | os.X_OK)):
            if file.is_file() and not os.access(needed, mode):
                raise PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)}: {needed}")
    except OSError as error:
        raise _unusable(path, "opened for writing", str(error.strerror or error)) from error
    return new


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _unusable(path: str, done: str, why: str, code: int = sqlite3.SQLITE_CANTOPEN) -> DataFileError:
    """Return the error for a file system that doesn't let the data file be used, with what to do about it."""
    if code & 0xFF == sqlite3.SQLITE_FULL:
        advice = "Free some space, or name a file on another disk."
    else:
        advice = (
            "Name a file in a folder that you can write to, on a disk that isn't read-only;"
            " without a data file everything is kept in memory."
        )
    return DataFileError(f"The data file {path} cannot be {done}: {why}. {advice}", path=path)


def _claim(path: str | None) -> BinaryIO | None:
    """The file, locked until it is closed; None where there is none yet, or its system has no such lock.

    SQLite's own lock is of a kind that a process loses as soon as it closes the file anywhere else, as who copies it
    does. What is wrong with the file otherwise SQLite will tell.
    """
    if fcntl is None or path is None or not Path(path).is_file():
        return None
    with contextlib.ExitStack() as failed:
        try:
            file = failed.enter_context(Path(path).open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(path) from error
        except OSError:
            return None
        failed.pop_all()
    return file


def _no_database(path: str) -> DataFileError:
    return DataFileError(f"The data file {path} is not an SQLite database. Name another file.", path=path)


def _in_use(path: str) -> DataFileError:
    return DataFileError(
        f"The data file {path} is open in another emulator. Stop that one, or name another file.",
        path=path,
        in_use=True,
    )


def _prepare(database: sqlite3.Connection, path: str | None) -> None:
    shown = str(path)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        empty = database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None
        if not empty and application != APPLICATION_ID:
            raise DataFileError(
                f"The data file {shown} is an SQLite database of another program. Name another file.", path=shown
            )
        if not empty and version != SCHEMA_VERSION:
            raise DataFileError(
                f"The data file {shown} has format {version}, and this version reads format {SCHEMA_VERSION}."
                " Name another file.",
                path=shown,
            )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        if empty:
            for statement in _statements(_LISTED_TABLES.format(schema="main") + _OTHER_TABLES):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif not database.execute("SELECT 1 FROM pragma_table_info('operations') WHERE name = 'source'").fetchall():
            # The one column that files of this format may be without; who reads such files minds no column more.
            database.execute("ALTER TABLE operations ADD COLUMN source INTEGER")
        # Also an emulator that only reads has the file to itself.
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _in_use(shown) from error
        raise _unusable(shown, "opened", str(error), error.sqlite_errorcode) from error
    except sqlite3.DatabaseError as error:
        if _is_damage(error):
            raise _damaged(shown, error) from error
        raise _no_database(shown) from error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # What Python itself refuses has no code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT


def _damaged(path: str, error: sqlite3.DatabaseError) -> DataFileError:
    return DataFileError(
        f"The data file {path} is damaged: {error}. Put a copy of it that is whole in its place, or name another file.",
        path=path,
    )


def _statements(script: str) -> list[str]:
    return [statement for statement in script.split(";") if statement.strip()]
