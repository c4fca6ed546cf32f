"""The state of an emulator in SQLite: serialised messages, and the columns that they are searched by.

A model has two blobs, because labels have two layers: its own fields in ``models.body``, and those of each version in
``versions.body``. Both are serialised ``Model`` messages, and reading one after the other merges them.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vertex_registry.emulator import _integrity
from vertex_registry.emulator._data_file import (
    LISTED_TABLES,
    NOT_UTF_8,
    checksum_of,
    damaged,
    is_damage,
    open_database,
    statements,
    unusable,
    why_damaged,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vertex_registry.emulator._data_file import DataFileError
    from vertex_registry.emulator._sql import Condition, LabelCondition, Page

# The tables that lists read, each with the column that has the key of its model.
_LISTED: Final = {"models": "key", "versions": "model", "version_labels": "model", "listed_labels": "model"}


class View(NamedTuple):
    """One version of one model, with everything that a ``Model`` message shows of both."""

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


_MODEL_BODY: Final = View._fields.index("body")
_NUMBER: Final = View._fields.index("number")


class ModelRow(NamedTuple):
    """A model without its versions: its part of a view, and ``last_version``."""

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
    """An operation: its request and how many polls are left or, if ``polls_left`` is None, how it ended.

    The fields are columns of the table.
    """

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


class _Columns:
    """The columns of each kind of row. In a file, a row that isn't as it was written has no body."""

    def __init__(self, *, checked: bool) -> None:
        self._checked = checked

        def body(table: str, row: str) -> str:
            return f"iif({self.intact(table, row)}, {row}.body, NULL)" if checked else f"{row}.body"

        #: The model's part of a view, and the version's.
        self.model = (
            f"m.parent, m.id, m.key, m.revision, m.create_time, m.update_time, m.default_version, {body('models', 'm')}"
        )
        self.version = f"v.number, v.aliases, v.revision, v.create_time, v.update_time, {body('versions', 'v')}"
        self.view = f"{self.model}, {self.version}"
        self.operation = ", ".join(
            body("operations", "o") if field == "body" else f"o.{field}" for field in OperationRow._fields
        )
        self.version_body = body("versions", "v")
        self.evaluation = body("evaluations", "e")
        self.slice = body("slices", "s")

    def intact(self, table: str, row: str) -> str:
        """Return the condition that a row, given its name in the statement, is as it was written."""
        return f"{row}.checksum IS {checksum_of(table, row)}" if self._checked else "true"


class Store:
    """The state of an emulator. Call its methods within ``reading()`` or ``writing()``.

    There is one connection, and one thread at a time uses it. What a request writes is one transaction, which is on the
    disk before the request is answered.

    With ``list_lag``, lists read a second database with the same tables. A model that was written is copied there when
    so many further lists have been answered. All writes between two lists are copied together, so the copy is taken
    when the next list is requested. Nothing of a file is shown until ``show_in_lists()``.
    """

    def __init__(self, path: str | None, *, list_lag: int = 0) -> None:
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._path = path
        self._database, self._claim = open_database(path)
        self._columns = _Columns(checked=path is not None)
        self._lag = list_lag
        self._lists_answered = 0
        # The models that were written: in the current transaction, and since the last list.
        self._touched: set[int] = set()
        self._written: set[int] = set()
        self._due: collections.deque[tuple[int, int, dict[str, list[tuple[Any, ...]]]]] = collections.deque()
        self._lists = "main"
        self.under_way = 0
        try:
            with self.reading():
                if path is not None:
                    _integrity.check(self._database, path)
                if list_lag:
                    self._lists = "lagging"
                    self._database.execute("ATTACH ':memory:' AS lagging")
                    for statement in statements(LISTED_TABLES.format(schema="lagging")):
                        self._database.execute(statement)
                (self.under_way,) = self._fetch_one("SELECT count(*) FROM operations WHERE polls_left IS NOT NULL")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Closing it twice is fine. In a forked process, do nothing: the file is the parent's.

        SQLite would delete the log that the parent writes to.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._claim is not None:
                # SQLite leaves the log of a file that was moved where it was, with what isn't in the file yet.
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.close()
            if self._claim is not None:
                self._claim.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Keep everybody else from changing anything."""
        with self._lock, self._translating_errors("read"):
            yield

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Run one transaction: all of it is on the disk at the end, or nothing if it ends with an exception."""
        with self._lock, self._translating_errors("written"):
            under_way, changes = self.under_way, self._database.total_changes
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield
                if self._claim is not None and self._database.total_changes != changes:
                    self._claim.check()
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
                    self._database.execute(f"DELETE FROM main.{table}")  # noqa: S608 - our own names, no values
                self.under_way = 0
            self.show_in_lists()  # only now: what is due stays due if the transaction fails

    def latest_create_time(self) -> int:
        """Return when the newest model or version was created, in microseconds since 1970."""
        (latest,) = self._fetch_one(
            "SELECT max(coalesce((SELECT create_time FROM models AS m"  # noqa: S608 - our own names, no values
            f" WHERE {self._columns.intact('models', 'm')} ORDER BY key DESC LIMIT 1), 0),"
            " coalesce((SELECT create_time FROM versions AS v"
            f" WHERE {self._columns.intact('versions', 'v')} ORDER BY rowid DESC LIMIT 1), 0))"
        )
        return int(latest)

    def listed_under_other_assumption(self, label_wins: str) -> list[tuple[str, str]]:
        """Return the parent and ID of every model, if the columns of lists were written under another assumption."""
        written = self._fetch_one("SELECT label_wins FROM listing")
        if written == (label_wins,):
            return []
        self._database.execute("DELETE FROM listing")
        self._database.execute("INSERT INTO listing (label_wins) VALUES (?)", (label_wins,))
        return self._fetch_all("SELECT parent, id FROM models")

    # --- models and versions -------------------------------------------------

    def model(self, parent: str, model_id: str) -> ModelRow | None:
        """Return the model of that id."""
        row = self._fetch_one(
            f"SELECT {self._columns.model}, m.last_version FROM main.models AS m WHERE m.parent = ? AND m.id = ?",  # noqa: S608 - our own names, no values
            parent,
            model_id,
        )
        return self._intact_model(row)

    def default_version(self, parent: str, model_id: str) -> View | None:
        """Return the model's default version."""
        view = self._view("ON v.model = m.key AND v.number = m.default_version", parent, model_id)
        if view is None and self.model(parent, model_id) is not None:
            raise self._damaged(f"the default version of {parent}/models/{model_id}")
        return view

    def version_by_number(self, parent: str, model_id: str, number: int) -> View | None:
        """Return the model's version of that number."""
        return self._view("ON v.model = m.key AND v.number = ?", number, parent, model_id)

    def version_by_alias(self, parent: str, model_id: str, alias: str) -> View | None:
        """Return the model's version that has the alias."""
        view = self._view(
            "ON v.model = m.key AND v.number = (SELECT number FROM aliases WHERE model = m.key AND alias = ?)",
            alias,
            parent,
            model_id,
        )
        if view is not None and alias not in view.aliases.split():
            raise self._damaged(f"the alias {alias!r} of {parent}/models/{model_id}")
        return view

    def newest_version(self, parent: str, model_id: str) -> View | None:
        """Return the model's version with the highest number."""
        return self._view(
            "ON v.model = m.key AND v.number = (SELECT max(number) FROM versions WHERE model = m.key)",
            parent,
            model_id,
        )

    def add_model(
        self, parent: str, model_id: str, *, display_name: str, base_model: str, time: int, body: bytes
    ) -> int:
        """Create a model that has no version yet, and return its key."""
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
        """Create a version. It has no alias yet."""
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
        """Replace a version's own fields. ``before`` are the keys of the labels that it had."""
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

        ``time`` is when that updates the versions, or None if it doesn't count as an update.
        """
        database = self._database
        losers: dict[int, set[str]] = {}
        for alias in aliases:
            row = self._fetch_one("SELECT number FROM main.aliases WHERE model = ? AND alias = ?", model, alias)
            if row is not None and row[0] != number:
                losers.setdefault(row[0], set()).add(alias)
        for loser, lost in losers.items():
            kept = " ".join(alias for alias in self._aliases_of(model, loser) if alias not in lost)
            self._write_aliases(model, loser, kept, time)
        had = self._aliases_of(model, number)
        database.executemany(
            "DELETE FROM main.aliases WHERE model = ? AND alias = ?",
            [(model, alias) for alias in set(had).difference(aliases)],
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
        (was,) = self._fetch_one("SELECT listed FROM main.models WHERE key = ?", model)
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
            "UPDATE main.models SET base_model = ? WHERE key = ? AND base_model <> ?", (base_model, model, base_model)
        )
        self._touched.add(model)

    def parents(self) -> list[str]:
        """Return the locations that have models."""
        return [parent for (parent,) in self._fetch_all("SELECT DISTINCT parent FROM main.models ORDER BY parent")]

    def count_versions(self, model: int) -> int:
        """Return how many versions the model has, up to two."""
        return len(self._fetch_all("SELECT 1 FROM main.versions WHERE model = ? LIMIT 2", model))

    def deployed_versions(self, model: int) -> list[tuple[int, bytes]]:
        """Return the numbers and own fields of the versions that may be deployed: those with an endpoint's name."""
        body = self._columns.version_body
        rows = self._fetch_all(
            f"SELECT number, {body} AS intact FROM main.versions AS v"  # noqa: S608 - our own names, no values
            " WHERE model = ? AND (instr(body, ?) OR intact IS NULL) ORDER BY number",
            model,
            b"/endpoints/",
        )
        return self._check_bodies(rows, "version", model)

    def delete_version(self, model: int, number: int, *, time: int, labels: Iterable[str]) -> None:
        """Delete a version with its aliases and evaluations. ``labels`` are the keys of its labels."""
        had = self._aliases_of(model, number)
        self._remove_labels(model, number, labels)
        self._database.executemany(
            "DELETE FROM main.aliases WHERE model = ? AND alias = ?", [(model, alias) for alias in had]
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
        (was,) = self._fetch_one("SELECT listed FROM main.models WHERE key = ?", model.key)
        self._database.executemany(
            "DELETE FROM main.listed_labels WHERE parent = ? AND label = ? AND model = ?",
            [(model.parent, label, model.key) for label in json.loads(was)],
        )
        for table in ("version_labels", "versions", "aliases", "evaluations", "slices"):
            self._database.execute(f"DELETE FROM main.{table} WHERE model = ?", (model.key,))  # noqa: S608 - our own names, no values
        self._database.execute("DELETE FROM main.models WHERE key = ?", (model.key,))
        self._touched.add(model.key)

    def list_models(
        self, parent: str, conditions: Sequence[Condition], labels: Sequence[LabelCondition], page: Page
    ) -> list[View]:
        """Return the default versions of a location's models. A page is ordered by columns that end in the key."""
        lists = self._lists
        of: tuple[Any, ...]
        # An id or a display name selects fewer models than any label, and it has an index.
        named_models = any(condition.sql.startswith(("m.id =", "m.display_name =")) for condition in conditions)
        others = list(labels)
        first = (
            None
            if named_models
            else self._selective_label("listed_labels AS l WHERE l.parent = ?", parent, labels, page)
        )
        if first is not None:
            others.remove(first)
            source = (
                f"{lists}.listed_labels AS l CROSS JOIN {lists}.models AS m ON m.key = l.model"
                f" LEFT JOIN {lists}.versions AS v ON v.model = m.key AND v.number = m.default_version"
                f" WHERE l.parent = ?{first.selected.sql}"
            )
            of = (parent, *first.selected.values)
            key = "l.model"
        else:
            source = (
                f"{lists}.models AS m LEFT JOIN {lists}.versions AS v"
                " ON v.model = m.key AND v.number = m.default_version WHERE m.parent = ?"
            )
            of = (parent,)
            key = "m.key"
        page = page.qualified("m", key)
        exists = f"SELECT 1 FROM {lists}.listed_labels AS o WHERE o.parent = m.parent AND o.model = m.key"  # noqa: S608 - our own names, no values
        rows = self._list(
            self._columns.view, source, of, [*conditions, *(label.compile(exists) for label in others)], page
        )
        return [self._intact_view(row) for row in rows]

    def list_versions(self, model: ModelRow, labels: Sequence[LabelCondition], page: Page) -> list[View]:
        """Return the versions of a model. A page is ordered by columns that end in the number."""
        lists = self._lists
        of: tuple[Any, ...]
        others = list(labels)
        first = self._selective_label("version_labels AS l WHERE l.model = ?", model.key, labels, page)
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
        exists = f"SELECT 1 FROM {lists}.version_labels AS o WHERE o.model = v.model AND o.number = v.number"  # noqa: S608 - our own names, no values
        rows = self._list(self._columns.version, source, of, [label.compile(exists) for label in others], page)
        *shown, _ = model
        return [self._intact_view((*shown, *row)) for row in rows]

    def listed_model(self, model: int) -> ModelRow | None:
        """Return the model as lists show it, or None if they don't show it yet."""
        row = self._fetch_one(
            f"SELECT {self._columns.model}, m.last_version FROM {self._lists}.models AS m WHERE m.key = ?",  # noqa: S608 - our own names, no values
            model,
        )
        return self._intact_model(row)

    # --- operations ----------------------------------------------------------

    def add_operation(self, row: OperationRow, *, creates: bool) -> None:
        """Store an operation. ``creates`` says that it has taken its model's id."""
        self._database.execute(
            f"INSERT INTO operations ({', '.join(row._fields)}, creates) VALUES ({'?, ' * len(row)}?)",  # noqa: S608 - our own names, no values
            (*row, creates),
        )
        if row.polls_left is not None:
            self.under_way += 1

    def operation(self, parent: str, model: str | None, operation_id: str) -> OperationRow | None:
        """Return the operation of that id: the model's or, for None, any model's."""
        row = self._fetch_one(
            f"SELECT {self._columns.operation} FROM operations AS o INDEXED BY operations_by_id"  # noqa: S608 - our own names, no values
            " WHERE parent = ? AND id = ? AND model = coalesce(?, model)",
            parent,
            operation_id,
            model,
        )
        return row and self._intact_operation(row)

    def count_poll(self, parent: str, model: str) -> list[OperationRow]:
        """Count a poll of the model's operations under way, and return those that it ends, the oldest first."""
        rows = self._fetch_all(
            f"SELECT {self._columns.operation} FROM operations AS o INDEXED BY operations_under_way"  # noqa: S608 - our own names, no values
            " WHERE parent = ? AND model = ? AND polls_left = 1 ORDER BY rowid",
            parent,
            model,
        )
        self._database.execute(
            "UPDATE operations INDEXED BY operations_under_way SET polls_left = polls_left - 1"
            " WHERE parent = ? AND model = ? AND polls_left > 1",
            (parent, model),
        )
        return [self._intact_operation(row) for row in rows]

    def is_taken(self, parent: str, model_id: str) -> bool:
        """Return whether a model has the id, or an operation under way creates one that will."""
        return bool(
            self._fetch_one(
                "SELECT 1 FROM models WHERE parent = ? AND id = ? UNION ALL"
                " SELECT 1 FROM operations WHERE parent = ? AND model = ? AND polls_left IS NOT NULL AND creates"
                " LIMIT 1",
                *(parent, model_id),
                *(parent, model_id),
            )
        )

    def change_operation(self, row: OperationRow) -> None:
        """Store what became of an operation that was under way."""
        self._database.execute(
            "UPDATE operations SET polls_left = ?, body = ? WHERE parent = ? AND model = ? AND id = ?",
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
        """Return the operations of a location, or of one of its models."""
        sql = f"SELECT {self._columns.operation} FROM operations AS o WHERE parent = ?"  # noqa: S608 - our own names, no values
        if model is None:
            rows = self._page(sql, page, parent)
        else:
            rows = self._page(f"{sql} AND model = ?", page, parent, model)
        return [self._intact_operation(row) for row in rows]

    # --- evaluations ---------------------------------------------------------

    def add_evaluation(self, model: int, number: int, evaluation_id: str, body: bytes) -> None:
        """Store an evaluation of a version."""
        self._database.execute(
            "INSERT INTO evaluations (model, number, id, body) VALUES (?, ?, ?, ?)",
            (model, number, evaluation_id, body),
        )

    def evaluation(self, model: int, evaluation_id: str) -> tuple[int, bytes] | None:
        """Return the number of the version that was evaluated, and the evaluation."""
        found: tuple[int, bytes] | None = self._fetch_one(
            f"SELECT number, {self._columns.evaluation} FROM evaluations AS e WHERE model = ? AND id = ?",  # noqa: S608 - our own names, no values
            model,
            evaluation_id,
        )
        self._check_bodies([] if found is None else [(evaluation_id, found[1])], "evaluation", model)
        return found

    def list_evaluations(self, model: int, number: int, page: Page) -> list[tuple[str, bytes]]:
        """Return the evaluations of a version, each with its id."""
        sql = f"SELECT id, {self._columns.evaluation} FROM evaluations AS e WHERE model = ? AND number = ?"  # noqa: S608 - our own names, no values
        return self._check_bodies(self._page(sql, page, model, number), "evaluation", model)

    def add_slice(self, model: int, evaluation_id: str, slice_id: str, dimension: str, body: bytes) -> None:
        """Store a slice of an evaluation."""
        self._database.execute(
            "INSERT INTO slices (model, evaluation, id, dimension, annotations, body) VALUES (?, ?, ?, ?, 0, ?)",
            (model, evaluation_id, slice_id, dimension, body),
        )

    def slice(self, model: int, evaluation_id: str, slice_id: str) -> bytes | None:
        """Return a slice of an evaluation."""
        row: tuple[bytes] | None = self._fetch_one(
            f"SELECT {self._columns.slice} FROM slices AS s WHERE model = ? AND evaluation = ? AND id = ?",  # noqa: S608 - our own names, no values
            model,
            evaluation_id,
            slice_id,
        )
        return row and self._check_bodies([(slice_id, row[0])], "evaluation slice", model)[0][1]

    def list_slices(self, model: int, evaluation_id: str, dimension: str | None, page: Page) -> list[tuple[str, bytes]]:
        """Return the slices of an evaluation, each with its id. With a dimension, return only those along it."""
        sql = f"SELECT id, {self._columns.slice} FROM slices AS s WHERE model = ? AND evaluation = ?"  # noqa: S608 - our own names, no values
        if dimension is None:
            rows = self._page(sql, page, model, evaluation_id)
        else:
            rows = self._page(f"{sql} AND dimension = ?", page, model, evaluation_id, dimension)
        return self._check_bodies(rows, "evaluation slice", model)

    # --- SQL -----------------------------------------------------------------

    @contextlib.contextmanager
    def _translating_errors(self, done: str) -> Iterator[None]:
        """Raise a DataFileError for what is wrong with the file. What is wrong with a statement is a bug."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise damaged(str(self._path), why_damaged(error)) from error
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise unusable(str(self._path), done, str(error), error.sqlite_errorcode) from error
            raise
        except UnicodeDecodeError as error:
            raise damaged(str(self._path), NOT_UTF_8) from error

    def _damaged(self, what: str) -> DataFileError:
        return damaged(str(self._path), f"{what} isn't as it was written")

    def _intact_view(self, row: tuple[Any, ...]) -> View:
        """Return the view, or raise a DataFileError if one of its two rows is damaged."""
        view = View._make(row)
        if None not in row:
            return view
        name = f"{view.parent}/models/{view.id}"
        if row[_MODEL_BODY] is None:
            raise self._damaged(f"the model {name}")
        # Without a number, a list has found the model, and no version for it.
        number = "the default version" if row[_NUMBER] is None else f"version {view.number}"
        raise self._damaged(f"{number} of {name}")

    def _intact_model(self, row: Any) -> ModelRow | None:
        """Return the model, or raise a DataFileError if its row is damaged."""
        if row is None:
            return None
        model = ModelRow(*row)
        if None in row:
            raise self._damaged(f"the model {model.parent}/models/{model.id}")
        return model

    def _intact_operation(self, row: Any) -> OperationRow:
        """Return the operation, or raise a DataFileError if its row is damaged."""
        operation = OperationRow(*row)
        if operation.body is None:
            raise self._damaged(f"the operation {operation.id} of {operation.parent}/models/{operation.model}")
        return operation

    def _check_bodies(self, rows: list[Any], kind: str, model: int) -> list[Any]:
        """Return rows of IDs and bodies, or raise a DataFileError if one is damaged."""
        for row_id, body in rows:
            if body is None:
                raise self._damaged(f"the {kind} {row_id} of {self._model_name(model)}")
        return rows

    def _model_name(self, model: int) -> str:
        parent, model_id = self._fetch_one("SELECT parent, id FROM main.models WHERE key = ?", model) or ("?", model)
        return f"{parent}/models/{model_id}"

    def _fetch_one(self, sql: str, *values: Any) -> Any:
        return self._database.execute(sql, values).fetchone()

    def _fetch_all(self, sql: str, *values: Any) -> list[Any]:
        return self._database.execute(sql, values).fetchall()

    def _page(self, sql: str, page: Page, *values: Any) -> list[Any]:
        """Return the rows of a page of what the SQL selects with these values."""
        rows: list[Any] = []
        for part in page.ranges():
            if len(rows) < page.limit:
                ordered = f"{sql}{part.sql} ORDER BY {page.order_by} LIMIT ?"
                rows += self._fetch_all(ordered, *values, *part.values, page.limit - len(rows))
        return rows

    def _view(self, join: str, *values: Any) -> View | None:
        row = self._fetch_one(
            f"SELECT {self._columns.view} FROM main.models AS m JOIN main.versions AS v {join}"  # noqa: S608 - likewise
            " WHERE m.parent = ? AND m.id = ?",
            *values,
        )
        return row and self._intact_view(row)

    def _selective_label(
        self, rows: str, of: object, labels: Sequence[LabelCondition], page: Page
    ) -> LabelCondition | None:
        """Return the label whose index is the fastest way to the page, if there is one: the one that fewest rows have.

        A label's index has its rows in the order of their keys. In another order they have to be sorted, which is
        faster only if they are fewer than the page takes. So nothing is counted further than that.
        """
        leading = [label for label in labels if not label.or_none]
        by_key = len(page.order) == 1
        if not leading or (by_key and len(leading) == 1):
            return leading[0] if leading else None
        counts = [
            len(self._fetch_all(f"SELECT 1 FROM {self._lists}.{rows}{sql} LIMIT ?", of, *values, page.limit))  # noqa: S608 - our own names, no values
            for sql, values in (label.selected for label in leading)
        ]
        fewest = min(counts)
        return leading[counts.index(fewest)] if by_key or fewest < page.limit else None

    def _list(
        self, columns: str, source: str, of: tuple[Any, ...], conditions: Iterable[Condition], page: Page
    ) -> list[Any]:
        wheres = list(conditions)
        sql = f"SELECT {columns} FROM {source}" + "".join(f" AND {condition.sql}" for condition in wheres)  # noqa: S608 - our own names, no values
        given = [value for condition in wheres for value in condition.values]
        return self._page(sql, page, *of, *given)

    def _aliases_of(self, model: int, number: int) -> list[str]:
        """Return the aliases of a version that exists."""
        row = self._fetch_one("SELECT aliases FROM main.versions WHERE model = ? AND number = ?", model, number)
        if row is None:
            raise self._damaged(f"version {number} of {self._model_name(model)}")
        return str(row[0]).split()

    def _write_aliases(self, model: int, number: int, aliases: str, time: int | None) -> None:
        self._database.execute(
            "UPDATE main.versions SET aliases = ?, revision = revision + 1, update_time = coalesce(?, update_time)"
            " WHERE model = ? AND number = ? AND aliases <> ?",
            (aliases, time, model, number, aliases),
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
        """Show the writes that are due to a list that is about to be answered: all of them or, if that fails, none."""
        if not self._lag:
            return
        self._due += [
            (self._lists_answered + self._lag, model, self._copy_of(model)) for model in sorted(self._written)
        ]
        self._written.clear()
        self._lists_answered += 1
        due = list(itertools.takewhile(lambda image: image[0] < self._lists_answered, self._due))
        if not due:
            return
        with self.writing():
            for _, model, image in due:
                self._replace_copy(model, image)
        for _ in due:
            self._due.popleft()

    def _copy_of(self, model: int) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: self._fetch_all(f"SELECT * FROM main.{table} WHERE {column} = ?", model)  # noqa: S608 - our own names, no values
            for table, column in _LISTED.items()
        }

    def _replace_copy(self, model: int, image: dict[str, list[tuple[Any, ...]]]) -> None:
        for table, column in _LISTED.items():
            self._database.execute(f"DELETE FROM lagging.{table} WHERE {column} = ?", (model,))  # noqa: S608 - our own names, no values
            for row in image[table]:
                marks = ", ".join("?" * len(row))
                self._database.execute(f"INSERT INTO lagging.{table} VALUES ({marks})", row)  # noqa: S608 - our own names, no values

    def show_in_lists(self) -> None:
        """Let lists show everything as it is now, with nothing left that is due later."""
        if self._lag:
            for table in _LISTED:
                self._database.execute(f"DELETE FROM lagging.{table}")  # noqa: S608 - our own names, no values
                self._database.execute(f"INSERT INTO lagging.{table} SELECT * FROM main.{table}")  # noqa: S608 - our own names, no values
        self._touched.clear()
        self._written.clear()
        self._due.clear()
