"""The data file: how it's created, claimed, checked and opened, and the errors if that isn't possible.

One connection has a file at a time. It holds the file's exclusive lock for as long as it's open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from typing import BinaryIO, Final

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has none, and its locks aren't lost
    fcntl = None  # type: ignore[assignment]

# "VxRg": distinguishes an emulator's file from any other SQLite database.
APPLICATION_ID: Final = 0x56785267
SCHEMA_VERSION: Final = 3
# The bytes of SQLite's smallest page.
_LEAST_DATABASE: Final = 512
_CLOSE_ON_EXEC: Final = getattr(os, "O_CLOEXEC", 0)

# The rules of the columns:
# - models.key grows, and so do the create times, so the order of the keys is the order of creation. It needs no index.
#   The same is true of versions.number within a model.
# - models.last_version never falls: while a model lives, no version number is given twice.
# - models.base_model is the default version's, which is the version that lists show.
# - listed_labels are the labels that a model shows in a list: its default version's, merged with its own.
#   listing.label_wins says which of the two won when they were written. version_labels are a version's own.
LISTED_TABLES: Final = """
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

# More rules:
# - aliases finds a version by its alias. versions.aliases has them in the order in which they were given.
# - operations.target is the key of the model that an operation was begun for, if it existed, and source the key of the
#   model that it copies: a later model of the same id is another one. looks is how many polls are left.
# - slices.annotations is always 0. It's only there because files of this format have it.
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
    """A data file that the emulator can't use. Its content was left alone.

    Attributes:
        path: The file.
        in_use: Whether the only problem is that another emulator has it open.
    """

    def __init__(self, message: str, *, path: str, in_use: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.in_use = in_use


def open_database(path: str | None) -> tuple[sqlite3.Connection, BinaryIO | None]:
    """Open a data file, which is created if it doesn't exist, or a database in memory.

    Returns:
        The connection, and the claim to the file.

    Raises:
        DataFileError: The file can't be used.
    """
    if path == "":
        # SQLite would use a file that is gone once it's closed.
        raise DataFileError(
            "The data file has no name. Name one, or none at all to keep everything in memory.", path=""
        )
    if path is not None and Path(path).is_file() and 0 < Path(path).stat().st_size < _LEAST_DATABASE:
        # SQLite would take it for an empty file, and overwrite it.
        raise _not_a_database_error(path)
    with contextlib.ExitStack() as failed:
        if path is not None and _create(path):
            # SQLite leaves nothing in a new file that it can't set up; neither do we.
            failed.callback(_remove_empty, Path(path))
        claim = _lock_data_file(path)
        if claim is not None:
            failed.callback(claim.close)
        # A file that is in use stays in use, so there is nothing to wait for. Only a name that begins with a folder is
        # always the name of a file: SQLite has others, such as ":memory:" and "file:x?mode=memory".
        try:
            database = sqlite3.connect(
                ":memory:" if path is None else Path(path).absolute(),
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise unusable(str(path), "opened", str(error)) from error
        failed.callback(database.close)
        try:
            _prepare(database, path)
        except UnicodeDecodeError as error:
            raise damaged(str(path), error) from error
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
        raise unusable(path, "opened for writing", str(error.strerror or error)) from error
    return new


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def unusable(path: str, done: str, why: str, code: int = sqlite3.SQLITE_CANTOPEN) -> DataFileError:
    """Return the error for a file system that doesn't let the data file be used, with what to do about it."""
    if code & 0xFF == sqlite3.SQLITE_FULL:
        advice = "Free some space, or name a file on another disk."
    else:
        advice = (
            "Name a file in a folder that you can write to, on a disk that isn't read-only;"
            " without a data file everything is kept in memory."
        )
    return DataFileError(f"The data file {path} can't be {done}: {why}. {advice}", path=path)


def _lock_data_file(path: str | None) -> BinaryIO | None:
    """Return the file, locked until it's closed, or None if the file or such locks don't exist.

    SQLite's own lock isn't enough: a process loses it when it closes the file elsewhere, such as after copying it.
    What else is wrong with the file is for SQLite to report.
    """
    if fcntl is None or path is None or not Path(path).is_file():
        return None
    with contextlib.ExitStack() as failed:
        try:
            file = failed.enter_context(Path(path).open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use_error(path) from error
        except OSError:
            return None
        failed.pop_all()
    return file


def _not_a_database_error(path: str) -> DataFileError:
    return DataFileError(f"The data file {path} isn't an SQLite database. Name another file.", path=path)


def _in_use_error(path: str) -> DataFileError:
    return DataFileError(
        f"The data file {path} is open in another emulator. Stop that one, or name another file.",
        path=path,
        in_use=True,
    )


def _prepare(database: sqlite3.Connection, path: str | None) -> None:
    """Check that the database is an emulator's, and create its tables if it's empty."""
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
            for statement in statements(LISTED_TABLES.format(schema="main") + _OTHER_TABLES):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif not database.execute("SELECT 1 FROM pragma_table_info('operations') WHERE name = 'source'").fetchall():
            # Files of this format may lack this one column. Older readers ignore it.
            database.execute("ALTER TABLE operations ADD COLUMN source INTEGER")
        # An emulator that only reads has the file to itself as well.
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _in_use_error(shown) from error
        raise unusable(shown, "opened", str(error), error.sqlite_errorcode) from error
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise damaged(shown, error) from error
        raise _not_a_database_error(shown) from error


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return whether an error says that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # An error of Python's own has no code. This one is about a text that isn't UTF-8.
        return isinstance(error, sqlite3.OperationalError)
    # The statements are ours, so a table or a column that they don't find is lost.
    lost = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such ")
    return lost or code & 0xFF == sqlite3.SQLITE_CORRUPT


def damaged(path: str, error: sqlite3.DatabaseError | UnicodeDecodeError) -> DataFileError:
    """Return the error for a damaged file."""
    # Python can't decode SQLite's message if that quotes damaged text.
    why = "it has text that isn't UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
    return DataFileError(
        f"The data file {path} is damaged: {why}. Replace it with an intact copy, or name another file.",
        path=path,
    )


def statements(script: str) -> list[str]:
    """Return the statements of a script."""
    return [statement for statement in script.split(";") if statement.strip()]
