"""Check that a data file is as it was written, and save what's intact of a file that isn't.

Only rows with a body have a checksum. The indexes follow from them, and so do the tables that find a version by its
alias or its labels. So all of these can be checked, and created again. Two more tables can only be checked for what
makes sense: the last key of a model, and the assumption that lists were written under.
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
    LABEL_WINS,
    LARGEST_KEY,
    NOT_UTF_8,
    DataFileError,
    checksum_of,
    create_tables,
    damaged,
    open_copy,
    open_database,
    unusable,
    why_damaged,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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

#: The largest key of a model that the rows with a checksum have, also of one that was deleted.
_LARGEST_USED: Final = """
SELECT coalesce(max(key), 0) FROM (
    SELECT max(key) AS key FROM models UNION ALL SELECT max(model) FROM versions
    UNION ALL SELECT max(model) FROM evaluations UNION ALL SELECT max(model) FROM slices
    UNION ALL SELECT max(target) FROM operations UNION ALL SELECT max(source) FROM operations
)
"""
_IS_KEY: Final = f"name = 'models' AND typeof(seq) = 'integer' AND seq BETWEEN 0 AND {LARGEST_KEY}"

#: The tables that neither have a checksum nor follow from other rows, each with a SELECT that returns whether it's
#: plausible. SQLite keeps the last key of a model in its own table, and adds it with the first model.
_PLAUSIBLE: Final = {
    "sqlite_sequence": (
        f"SELECT count(*) <= 1 AND count(*) = total({_IS_KEY} AND seq >= ({_LARGEST_USED}))"  # noqa: S608 - our own names, no values
        f" AND (count(*) = 1 OR ({_LARGEST_USED}) = 0) FROM sqlite_sequence"
    ),
    "listing": f"SELECT count(*) <= 1 AND count(*) = total(label_wins IN {LABEL_WINS}) FROM listing",  # noqa: S608 - our own names, no values
}

#: What SQLite and Python raise for something that can't be read.
_UNREADABLE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)

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

    It takes about 30 microseconds for each model with one version.

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
    for table, plausible in _PLAUSIBLE.items():
        if database.execute(plausible).fetchone() != (1,):
            raise damaged(path, f"its table {table} isn't as it was written")


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


@functools.cache
def _intact(table: str) -> str:
    """Return the condition that a row is intact.

    Its checksum doesn't cover whether a value is text or bytes, or a hyphen or missing.
    """
    types = []
    for name, column, kind, required, in_key in _current_schema().columns:
        if name == table and column in CHECKED[table]:
            allowed = f"'{kind.lower()}'" if required or in_key else f"'{kind.lower()}', 'null'"
            types.append(f"typeof(r.{column}) IN ({allowed})")
    return " AND ".join([f"r.checksum IS {checksum_of(table, 'r')}", *types])


def _damaged_rows(database: sqlite3.Connection, table: str) -> Iterator[str]:
    """Yield the names of the rows that aren't as they were written."""
    sql = f"SELECT CAST({_NAMES[table]} AS BLOB) FROM {table} AS r NOT INDEXED WHERE NOT ({_intact(table)})"  # noqa: S608 - our own names, no values
    for (name,) in database.execute(sql):
        yield _printable(name or b"a row")


def _printable(name: bytes) -> str:
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name.decode(errors="replace"))


def _create_labels_of(database: sqlite3.Connection) -> None:
    def labels_of(body: bytes) -> str:
        return json.dumps(dict(_MODEL.FromString(body).labels), ensure_ascii=False)

    database.create_function("labels_of", 1, labels_of, deterministic=True)


# --- saving what's intact ----------------------------------------------------


def recover(source: str, target: str) -> list[str]:
    """Copy what's intact of a data file to a new one.

    Args:
        source: The damaged file. It stays as it is, with SQLite's log: a temporary copy next to the new file is read.
        target: The file to create.

    Returns:
        A line for everything that's lost or different.

    Raises:
        DataFileError: One of the files can't be used.
    """
    if not Path(source).exists():
        raise DataFileError(f"The data file {source} doesn't exist. Name the damaged file.", path=source)
    if target and Path(target).exists():
        raise DataFileError(
            f"The file {target} exists already. Name a new file for what's intact of {source}.", path=target
        )
    with contextlib.ExitStack() as failed:
        with contextlib.ExitStack() as opened:
            new, claim = open_database(target)
            failed.callback(Path(target).unlink)
            if claim is not None:
                opened.callback(claim.close)
            opened.callback(new.close)
            old = opened.enter_context(open_copy(source, Path(target).absolute().parent))
            with _translating_errors(source, target):
                report = _copy(old, new)
        failed.pop_all()
    return report


def _copy(old: sqlite3.Connection, new: sqlite3.Connection) -> list[str]:
    new.execute("BEGIN IMMEDIATE")
    report = [line for table in CHECKED for line in _copy_intact(old, new, table)]
    if not _is_readable(old):
        report.append("Not every row can be found, so more may be lost than is named here.")
    _keep_last_key(old, new)
    report += _complete(new, _model_names(old, new))
    report += _settle_aliases(new)
    _create_labels_of(new)
    for table, (columns, derived, _) in _DERIVED.items():
        new.execute(f"INSERT INTO {table} ({', '.join(columns)}) {derived}")
    new.execute("COMMIT")
    return report


@contextlib.contextmanager
def _translating_errors(source: str, target: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            raise unusable(target, "written", str(error), code) from error
        raise damaged(source, why_damaged(error), readable=False) from error
    except UnicodeDecodeError as error:
        raise damaged(source, NOT_UTF_8, readable=False) from error


def _copy_intact(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> list[str]:
    """Copy the intact rows of a table, and report the others."""
    # The key of a model is its row's ID. The operations are ordered by theirs.
    columns = CHECKED[table] if "key" in CHECKED[table] else ("rowid", *CHECKED[table])
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own names, no values
    same = f"SELECT 1 FROM {table} WHERE {' AND '.join(f'{column} IS ?' for column in CHECKED[table])}"  # noqa: S608 - likewise
    name = f"SELECT CAST({_NAMES[table]} AS BLOB) FROM (SELECT {', '.join(f'? AS {c}' for c in columns)}) AS r"  # noqa: S608 - likewise
    intact = f"SELECT {names} FROM {table} AS r NOT INDEXED WHERE {_intact(table)} ORDER BY rowid"  # noqa: S608 - likewise
    lost: list[str] = []
    for row in _readable_rows(old, intact):
        # Of two rows with the same name, the one that was added later is read first, and stays.
        added = new.execute(insert, row).rowcount
        if not added and new.execute(same, row[-len(CHECKED[table]) :]).fetchone() is None:
            lost += [f"Lost: another row of {_printable(found)}." for (found,) in new.execute(name, row)]
    with contextlib.suppress(*_UNREADABLE):
        lost += [f"Lost: {damaged_row}." for damaged_row in _damaged_rows(old, table)]
    return lost


def _readable_rows(old: sqlite3.Connection, ordered: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that an ordered SELECT finds, and those from the other end after an unreadable page."""
    for order in ("DESC", "ASC"):
        with contextlib.suppress(*_UNREADABLE):
            yield from old.execute(f"{ordered} {order}")
            return


def _keep_last_key(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Let no model get a key that another one had."""
    (used,) = new.execute(_LARGEST_USED).fetchone()
    last = None
    with contextlib.suppress(*_UNREADABLE):
        (last,) = old.execute(f"SELECT max(seq) FROM sqlite_sequence WHERE {_IS_KEY}").fetchone()  # noqa: S608 - our own names, no values
    new.execute("DELETE FROM sqlite_sequence")
    new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('models', ?)", (max(used, last or 0),))


def _model_names(old: sqlite3.Connection, new: sqlite3.Connection) -> Callable[[int], str]:
    """Return a function that returns the name of a model, which may be lost, by its key."""

    @functools.cache
    def name_of(key: int) -> str:
        for database in (new, old):
            with contextlib.suppress(*_UNREADABLE):
                sql = "SELECT CAST(parent || '/models/' || id AS BLOB) FROM models WHERE key = ?"
                for (name,) in database.execute(sql, (key,)):
                    return _printable(name or b"a model")
        return "a model"

    return name_of


def _is_readable(database: sqlite3.Connection) -> bool:
    """Return whether every row can be found."""
    try:
        whole = database.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
        return whole and _schema_of(database) == _current_schema()
    except _UNREADABLE:
        return False


#: What is lost with something else: each table, the condition that the other row exists, and what is reported.
_LOST_WITH: Final = {
    "versions": ("SELECT 1 FROM models WHERE key = r.model", "version {} of {}, because the model is"),
    "evaluations": (
        "SELECT 1 FROM versions WHERE model = r.model AND number = r.number",
        "the evaluation {} of {}, because its version is",
    ),
    "slices": (
        "SELECT 1 FROM evaluations WHERE model = r.model AND id = r.evaluation",
        "the evaluation slice {} of {}, because its evaluation is",
    ),
}


def _complete(new: sqlite3.Connection, name_of: Callable[[int], str]) -> list[str]:
    """Remove what belongs to something that's lost, give each model a default version, and report it."""
    report = _remove_lost(new, "versions", name_of)
    lonely = "FROM models AS m WHERE NOT EXISTS (SELECT 1 FROM versions AS v WHERE v.model = m.key)"
    for (key,) in new.execute(f"SELECT key {lonely}").fetchall():
        report.append(f"Lost: the model {name_of(key)}, because all its versions are.")
    new.execute(f"DELETE {lonely}")
    without_default = new.execute(
        "SELECT m.key, (SELECT max(number) FROM versions WHERE model = m.key) FROM models AS m"
        " WHERE NOT EXISTS (SELECT 1 FROM versions AS v WHERE v.model = m.key AND v.number = m.default_version)"
    ).fetchall()
    for key, number in without_default:
        new.execute("UPDATE models SET default_version = ? WHERE key = ?", (number, key))
        new.execute(
            "UPDATE versions SET aliases = trim(aliases || ' default') WHERE model = ? AND number = ?"
            " AND ' ' || aliases || ' ' NOT LIKE '% default %'",
            (key, number),
        )
        report.append(f"Changed: version {number} of {name_of(key)} is its default version now.")
    # The row of a model may be older than its versions. No number is given twice.
    newest = "(SELECT max(number) FROM versions WHERE model = key)"
    new.execute(f"UPDATE models SET last_version = {newest} WHERE last_version < {newest}")  # noqa: S608 - our own names, no values
    return report + _remove_lost(new, "evaluations", name_of) + _remove_lost(new, "slices", name_of)


def _remove_lost(new: sqlite3.Connection, table: str, name_of: Callable[[int], str]) -> list[str]:
    other, reported = _LOST_WITH[table]
    rows = f"FROM {table} AS r WHERE NOT EXISTS ({other})"
    number = "number" if table == "versions" else "id"
    lost = new.execute(f"SELECT r.{number}, r.model {rows} ORDER BY r.model, r.{number}").fetchall()
    new.execute(f"DELETE {rows}")
    return [f"Lost: {reported.format(number, name_of(model))}." for number, model in lost]


def _settle_aliases(new: sqlite3.Connection) -> list[str]:
    """Give each alias to one version, and report it: "default" to the default version, others to the newest."""
    report: list[str] = []
    models = new.execute("SELECT key, parent || '/models/' || id, default_version FROM models").fetchall()
    for key, name, default in models:
        sql = "SELECT number, aliases FROM versions WHERE model = ? ORDER BY number DESC"
        versions = {number: aliases.split() for number, aliases in new.execute(sql, (key,))}
        owners = {"default": default}
        for number, aliases in versions.items():
            kept = [alias for alias in aliases if owners.setdefault(alias, number) == number]
            report += [
                f"Changed: version {number} of {name} lost the alias {alias!r}, because version {owners[alias]} has it."
                for alias in aliases
                if alias not in kept
            ]
            if number == default and "default" not in kept:
                kept.append("default")
                report.append(
                    f"Changed: version {number} of {name} has the alias 'default' again, because it's the default"
                    " version."
                )
            if kept != aliases:
                sql = "UPDATE versions SET aliases = ? WHERE model = ? AND number = ?"
                new.execute(sql, (" ".join(kept), key, number))
    return report
