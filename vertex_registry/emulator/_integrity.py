"""Check that a data file is as it was written, and save what's intact of a file that isn't.

Only rows have a checksum. Everything else in a file follows from them: the indexes, and the tables that find a version
by its alias or its labels. So both can be checked, and created again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.cloud.aiplatform_v1 import types

from vertex_registry.emulator._data_file import (
    CHECKED,
    DataFileError,
    checksum_of,
    create_tables,
    damaged,
    open_database,
    unusable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODEL: Final[Any] = types.Model.pb()

#: The name of a row, in SQL.
_MODEL_NAMES: Final = "(SELECT m.parent || '/models/' || m.id FROM models AS m WHERE m.key = r.model)"
_NAMES: Final = {
    "models": "'the model ' || r.parent || '/models/' || r.id",
    "versions": f"'version ' || r.number || ' of ' || coalesce({_MODEL_NAMES}, 'a model')",
    "operations": "'the operation ' || r.id || ' of ' || r.parent || '/models/' || r.model",
    "evaluations": f"'the evaluation ' || r.id || ' of ' || coalesce({_MODEL_NAMES}, 'a model')",
    "slices": f"'the evaluation slice ' || r.id || ' of ' || coalesce({_MODEL_NAMES}, 'a model')",
}

#: The tables that follow from the rows with a checksum: their columns, the SELECT that creates them, and what they are.
_DERIVED: Final = {
    "aliases": (
        ("model", "alias", "number"),
        """SELECT v.model, a.value, v.number
        FROM versions AS v, json_each('["' || replace(v.aliases, ' ', '","') || '"]') AS a WHERE v.aliases <> ''""",
        "the table of aliases",
    ),
    "version_labels": (
        ("model", "label", "number", "value"),
        "SELECT v.model, l.key, v.number, l.value FROM versions AS v, json_each(labels_of(v.body)) AS l",
        "the table of the versions' labels",
    ),
    "listed_labels": (
        ("parent", "label", "model", "value"),
        "SELECT m.parent, l.key, m.key, l.value FROM models AS m, json_each(m.listed) AS l",
        "the table of the models' labels",
    ),
}

#: What describes the columns and the indexes, whichever statements created them.
_COLUMNS: Final = (
    'SELECT s.name, c.name, c.type, c."notnull", c.pk FROM sqlite_schema AS s, pragma_table_info(s.name) AS c'
    " WHERE s.type = 'table'"
)
_INDEXES: Final = (
    'SELECT s.name, i.name, i."unique", i.partial, c.seqno, c.name, c."desc", c.coll'
    " FROM sqlite_schema AS s, pragma_index_list(s.name) AS i, pragma_index_xinfo(i.name) AS c WHERE s.type = 'table'"
)


def check(database: sqlite3.Connection, path: str) -> None:
    """Check that everything in a data file is as it was written.

    It takes about 35 microseconds for each model with one version.

    Raises:
        DataFileError: Something is damaged. The error names it.
    """
    if _schema_of(database) != _current_schema():
        raise damaged(path, "its tables aren't those that were created")
    for table in CHECKED:
        if (name := next(_damaged_rows(database, table), None)) is not None:
            raise damaged(path, f"{name} isn't as it was written")
    # It compares the indexes with the rows, and the structure of the file.
    (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise damaged(path, f"SQLite's check reports {found.splitlines()[-1]!r}")
    _create_labels_of(database)
    for table, (columns, derived, what) in _DERIVED.items():
        same = " AND ".join(f"t.{column} = d.{column}" for column in columns)
        # It has each row that follows from the others, and no more.
        (intact,) = database.execute(
            f"WITH d ({', '.join(columns)}) AS ({derived})"  # noqa: S608 - our own names, no values
            f" SELECT count(*) = total(EXISTS (SELECT 1 FROM {table} AS t WHERE {same}))"
            f" AND count(*) = (SELECT count(*) FROM {table}) FROM d"
        ).fetchone()
        if not intact:
            raise damaged(path, f"{what} isn't as it was written")


class _Schema(NamedTuple):
    columns: set[tuple[Any, ...]]
    indexes: set[tuple[Any, ...]]


def _schema_of(database: sqlite3.Connection) -> _Schema:
    return _Schema(set(database.execute(_COLUMNS)), set(database.execute(_INDEXES)))


@functools.cache
def _current_schema() -> _Schema:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        create_tables(database)
        return _schema_of(database)


def _intact(table: str) -> str:
    """Return the condition that a row is intact. Its checksum doesn't cover whether a value is text or bytes."""
    kinds = {column: kind.lower() for name, column, kind, *_ in _current_schema().columns if name == table}
    types = [f"typeof(r.{column}) IN ('{kinds[column]}', 'null')" for column in CHECKED[table]]
    return " AND ".join([f"r.checksum IS {checksum_of(table, 'r')}", *types])


def _damaged_rows(database: sqlite3.Connection, table: str) -> Iterator[str]:
    """Yield the names of the rows that aren't as they were written."""
    sql = f"SELECT CAST({_NAMES[table]} AS BLOB) FROM {table} AS r NOT INDEXED WHERE NOT ({_intact(table)})"  # noqa: S608 - our own names, no values
    for (name,) in database.execute(sql):
        text = (name or b"a row").decode(errors="replace")
        yield "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _create_labels_of(database: sqlite3.Connection) -> None:
    def labels_of(body: bytes) -> str:
        return json.dumps(dict(_MODEL.FromString(body).labels), ensure_ascii=False)

    database.create_function("labels_of", 1, labels_of, deterministic=True)


# --- saving what's intact ----------------------------------------------------


def recover(source: str, target: str) -> list[str]:
    """Copy what's intact of a data file to a new one.

    Args:
        source: The damaged file. It stays as it is.
        target: The file to create.

    Returns:
        A line for everything that's lost or different.

    Raises:
        DataFileError: One of the files can't be used.
    """
    if not Path(source).is_file():
        raise DataFileError(f"The data file {source} doesn't exist. Name the damaged file.", path=source)
    if Path(target).exists():
        raise DataFileError(
            f"The file {target} exists already. Name a new file for what's intact of {source}.", path=target
        )
    with contextlib.ExitStack() as failed:
        with contextlib.ExitStack() as opened:
            old, claim = open_database(source)
            if claim is not None:
                opened.callback(claim.close)
            opened.callback(old.close)
            new, new_claim = open_database(target)
            failed.callback(Path(target).unlink)
            if new_claim is not None:
                opened.callback(new_claim.close)
            opened.callback(new.close)
            with _translating_errors(target):
                report = _copy(old, new)
        failed.pop_all()
    return report


def _copy(old: sqlite3.Connection, new: sqlite3.Connection) -> list[str]:
    new.execute("BEGIN IMMEDIATE")
    report = [f"Lost: {name}." for table in CHECKED for name in _copy_intact(old, new, table)]
    if not _is_readable(old):
        report.append("Not every row can be found, so more may be lost than is named here.")
    last = None
    with contextlib.suppress(sqlite3.DatabaseError):  # keys that were used aren't used again
        last = old.execute("SELECT seq FROM sqlite_sequence WHERE name = 'models'").fetchone()
    new.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'models'", last or (0,))
    report += _complete(new)
    _create_labels_of(new)
    for table, (columns, derived, _) in _DERIVED.items():
        new.execute(f"INSERT INTO {table} ({', '.join(columns)}) {derived}")
    new.execute("COMMIT")
    return report


@contextlib.contextmanager
def _translating_errors(target: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise unusable(target, "written", str(error), error.sqlite_errorcode) from error


def _copy_intact(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> list[str]:
    """Copy the intact rows of a table, and return the names of the others."""
    # The key of a model is its row's ID. The operations are ordered by theirs.
    columns = CHECKED[table] if "key" in CHECKED[table] else ("rowid", *CHECKED[table])
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    intact = f"SELECT {names} FROM {table} AS r NOT INDEXED WHERE {_intact(table)} ORDER BY rowid"  # noqa: S608 - our own names, no values
    new.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", _readable_rows(old, intact))  # noqa: S608 - likewise
    lost: list[str] = []
    with contextlib.suppress(sqlite3.DatabaseError):
        lost += _damaged_rows(old, table)
    return lost


def _readable_rows(old: sqlite3.Connection, ordered: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that an ordered SELECT finds, and those from the other end after an unreadable page."""
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from old.execute(f"{ordered} {order}")
            return


def _is_readable(database: sqlite3.Connection) -> bool:
    """Return whether every row can be found."""
    try:
        whole = database.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
        return whole and _schema_of(database) == _current_schema()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return False


def _complete(new: sqlite3.Connection) -> list[str]:
    """Remove what belongs to something that's lost, give each model a default version, and return what was done."""
    report: list[str] = []
    new.execute("DELETE FROM versions WHERE model NOT IN (SELECT key FROM models)")
    lonely = "FROM models AS m WHERE NOT EXISTS (SELECT 1 FROM versions AS v WHERE v.model = m.key)"
    report += [
        f"Lost: the model {parent}/models/{model}, because all its versions are."
        for parent, model in new.execute(f"SELECT parent, id {lonely}").fetchall()
    ]
    new.execute(f"DELETE {lonely}")
    without_default = new.execute(
        "SELECT m.key, m.parent, m.id, (SELECT max(number) FROM versions WHERE model = m.key) FROM models AS m"
        " WHERE NOT EXISTS (SELECT 1 FROM versions AS v WHERE v.model = m.key AND v.number = m.default_version)"
    ).fetchall()
    for key, parent, model, number in without_default:
        new.execute("UPDATE models SET default_version = ? WHERE key = ?", (number, key))
        new.execute(
            "UPDATE versions SET aliases = trim(aliases || ' default') WHERE model = ? AND number = ?", (key, number)
        )
        report.append(f"Changed: version {number} of {parent}/models/{model} is its default version now.")
    new.execute(
        "DELETE FROM evaluations AS e WHERE NOT EXISTS"
        " (SELECT 1 FROM versions AS v WHERE v.model = e.model AND v.number = e.number)"
    )
    new.execute(
        "DELETE FROM slices AS s WHERE NOT EXISTS"
        " (SELECT 1 FROM evaluations AS e WHERE e.model = s.model AND e.id = s.evaluation)"
    )
    return report
