"""The data file: how it's created, claimed, checked and opened, and the errors if that isn't possible.

One connection has a file at a time. It holds the file's exclusive lock for as long as it's open. SQLite notices damage
to the structure of a file, but not to the values in it, so each row with a body has a checksum. A damaged file is read
from a copy, because SQLite writes to the files that it opens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import sqlite3
import stat
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has none, and its locks aren't lost
    fcntl = None  # type: ignore[assignment]

# "VxRg": distinguishes an emulator's file from any other SQLite database.
APPLICATION_ID: Final = 0x56785267
SCHEMA_VERSION: Final = 4
# The oldest format that is read. Opening such a file turns it into the current one.
_OLDEST_READ: Final = 3
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
# - checksum is that of the columns in CHECKED. It's the last column, as in files that got it later. In memory, it's
#   always NULL.
LISTED_TABLES: Final = """
CREATE TABLE {schema}.models (
    key INTEGER PRIMARY KEY AUTOINCREMENT, parent TEXT NOT NULL, id TEXT NOT NULL,
    display_name TEXT NOT NULL, base_model TEXT NOT NULL, listed TEXT NOT NULL,
    create_time INTEGER NOT NULL, update_time INTEGER NOT NULL, revision INTEGER NOT NULL,
    default_version INTEGER NOT NULL, last_version INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER
);
CREATE UNIQUE INDEX {schema}.models_by_id ON models (parent, id);
CREATE INDEX {schema}.models_by_age ON models (parent, key);
CREATE INDEX {schema}.models_by_display_name ON models (parent, display_name, key);
CREATE INDEX {schema}.models_by_update_time ON models (parent, update_time, key);
CREATE INDEX {schema}.models_by_base_model ON models (parent, base_model, key) WHERE base_model <> '';
CREATE TABLE {schema}.versions (
    model INTEGER NOT NULL, number INTEGER NOT NULL, aliases TEXT NOT NULL,
    create_time INTEGER NOT NULL, update_time INTEGER NOT NULL, revision INTEGER NOT NULL, body BLOB NOT NULL,
    checksum INTEGER
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
#   model that it copies: a later model of the same id is another one. polls_left is NULL once it's done.
# - listing has one of LABEL_WINS, or no row until the first emulator has opened the file.
# - slices.annotations is always 0. It's only there because files of this format have it.
_OTHER_TABLES: Final = """
CREATE TABLE aliases (
    model INTEGER NOT NULL, alias TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (model, alias)
) WITHOUT ROWID;
CREATE TABLE operations (
    parent TEXT NOT NULL, model TEXT NOT NULL, id TEXT NOT NULL, polls_left INTEGER, target INTEGER, source INTEGER,
    creates INTEGER NOT NULL, rpc TEXT NOT NULL, api TEXT NOT NULL, request BLOB NOT NULL, failure BLOB NOT NULL,
    body BLOB NOT NULL, checksum INTEGER,
    PRIMARY KEY (parent, model, id)
);
CREATE INDEX operations_under_way ON operations (parent, model) WHERE polls_left IS NOT NULL;
CREATE INDEX operations_by_id ON operations (parent, id);
CREATE TABLE evaluations (
    model INTEGER NOT NULL, id TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER,
    PRIMARY KEY (model, id)
);
CREATE INDEX evaluations_by_version ON evaluations (model, number, id);
CREATE TABLE listing (label_wins TEXT NOT NULL);
CREATE TABLE slices (
    model INTEGER NOT NULL, evaluation TEXT NOT NULL, id TEXT NOT NULL, dimension TEXT NOT NULL,
    annotations INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER, PRIMARY KEY (model, evaluation, id)
);
"""

#: The values of the switch label-wins. They're part of the format.
LABEL_WINS: Final = ("version", "model")
#: The largest key that a model can have. No file has so many models, so a larger one in SQLite's own table is damage.
LARGEST_KEY: Final = 2**40

#: The tables whose rows have a checksum, with the columns that it covers.
CHECKED: Final = {
    "models": (
        "key", "parent", "id", "display_name", "base_model", "listed", "create_time", "update_time", "revision",
        "default_version", "last_version", "body",
    ),
    "versions": ("model", "number", "aliases", "create_time", "update_time", "revision", "body"),
    "operations": (
        "parent", "model", "id", "polls_left", "target", "source", "creates", "rpc", "api", "request", "failure",
        "body",
    ),
    "evaluations": ("model", "id", "number", "body"),
    "slices": ("model", "evaluation", "id", "dimension", "annotations", "body"),
}  # fmt: skip

# What turns format 3 into format 4, in files that have operations.source.
_FROM_FORMAT_3: Final = "ALTER TABLE operations RENAME COLUMN looks TO polls_left;" + ";".join(
    f"ALTER TABLE {table} ADD COLUMN checksum INTEGER" for table in CHECKED
)


def checksum_of(table: str, row: str) -> str:
    """Return the SQL of the checksum that a row should have, given the row's name in the statement.

    A missing value has the same checksum as a hyphen, so check the types of the values as well. Text is passed as
    bytes, because damaged text needn't be UTF-8.
    """
    return f"row_checksum({', '.join(f'CAST({row}.{column} AS BLOB)' for column in CHECKED[table])})"


def _row_checksum(*values: bytes | None) -> int:
    return zlib.crc32(b"\0".join(b"-" if value is None else value for value in values))


def _checksum_triggers() -> Iterator[str]:
    """Yield the statements that create the triggers which keep the checksums.

    A row that is damaged when it's changed gets no checksum, so the damage stays visible. The triggers belong to the
    connection, because other programs don't have the function.
    """
    for table, columns in CHECKED.items():
        new, intact = checksum_of(table, "NEW"), f"OLD.checksum IS {checksum_of(table, 'OLD')}"
        for event, checksum in (("INSERT", new), (f"UPDATE OF {', '.join(columns)}", f"iif({intact}, {new}, NULL)")):
            statement = f"UPDATE {table} SET checksum = {checksum} WHERE rowid = NEW.rowid"  # noqa: S608 - our own names, no values
            name = f"{table}_{event.partition(' ')[0]}"
            yield f"CREATE TEMP TRIGGER {name} AFTER {event} ON main.{table} BEGIN {statement}; END"


class DataFileError(Exception):
    """A data file that the emulator can't use. Its content was left alone.

    Attributes:
        path: The file.
        in_use: Whether the only problem is that another emulator has it open.
        may_be_written: Whether the change may be in the file after all. Otherwise, a change that failed isn't.
    """

    def __init__(self, message: str, *, path: str, in_use: bool = False, may_be_written: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.in_use = in_use
        self.may_be_written = may_be_written


class Claim:
    """A data file that this process has open, locked until it's closed.

    SQLite's own lock isn't enough: a process loses it when it closes the file elsewhere, such as after copying it.
    """

    def __init__(self, path: str) -> None:
        # The process may change its folder later.
        self._path = Path(path).absolute()
        self._shown = path
        # SQLite's log exists from the first transaction until the file is closed.
        self._log = _log_of(self._path)
        self._log_file: tuple[int, int] | None = None
        self._locks = contextlib.ExitStack()
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            self._locked = self._lock(self._path, _in_use_error)
            # Of a crashed emulator's log, SQLite takes what fits. If the file is new, it deletes the log.
            if (log := self._lock(self._log, _log_in_use_error)) is not None:
                log.close()
            failed.pop_all()

    def _lock(self, path: Path, in_use: Callable[[str], DataFileError]) -> BinaryIO | None:
        try:
            file = _lock_file(path)
        except BlockingIOError as error:
            raise in_use(self._shown) from error
        return None if file is None else self._locks.enter_context(file)

    def watch(self) -> None:
        """Lock SQLite's log too, and remember which file it is. Call it after the first transaction."""
        self._log_file = _identity(self._log)
        self._lock(self._log, _log_in_use_error)

    def check(self) -> None:
        """Check that the file, and SQLite's log, can still be found under their names.

        SQLite would go on writing to a file that was deleted, until it's closed and everything is lost.

        Raises:
            DataFileError: One of them was deleted, moved or replaced.
        """
        if self._locked is None:
            return
        opened = os.fstat(self._locked.fileno())
        for path, known in ((self._path, (opened.st_dev, opened.st_ino)), (self._log, self._log_file)):
            if known is not None and _identity(path) != known:
                named = f"The data file {self._shown}" if path is self._path else f"{path}, a part of the data file,"
                raise DataFileError(
                    f"{named} was deleted, moved or replaced while it was open, so a change would be lost."
                    " Put it back, or open the data file again.",
                    path=self._shown,
                )

    def close(self) -> None:
        """Unlock the file and its log. Closing it twice is fine."""
        self._locked = None
        self._locks.close()


def _log_of(path: Path) -> Path:
    """Return where SQLite keeps the log of a data file: next to the file that a link leads to."""
    return Path(f"{os.path.realpath(path)}-wal")  # unlike pathlib, it allows links in a circle


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from all others, or None if it doesn't exist."""
    try:
        found = os.stat(path)  # noqa: PTH116  # before each write, and pathlib takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_database(path: str | None) -> tuple[sqlite3.Connection, Claim | None]:
    """Open a data file, which is created if it doesn't exist, or a database in memory.

    Returns:
        The connection, and the claim to the file.

    Raises:
        DataFileError: The file can't be used.
    """
    if path is not None and not any(letter.isprintable() and not letter.isspace() for letter in path):
        # With an empty name, SQLite would use a file that is gone once it's closed. No other blank name is meant.
        raise DataFileError(
            "The data file has no name. Name one, or none at all to keep everything in memory.", path=path
        )
    if path is not None:
        _check_kind(Path(path))
    with contextlib.ExitStack() as failed:
        claim = None
        if path is not None:
            if _create(path):
                # SQLite leaves nothing in a new file that it can't set up; neither do we.
                failed.callback(_remove_empty, Path(path))
            claim = Claim(path)
            failed.callback(claim.close)
        # Only a name that begins with a folder is always the name of a file: SQLite has others, such as ":memory:" and
        # "file:x?mode=memory".
        database = _connect(":memory:" if path is None else Path(path).absolute(), path)
        failed.callback(database.close)
        if claim is not None:
            claim.watch()
        failed.pop_all()
    return database, claim


@contextlib.contextmanager
def open_copy(path: str, folder: Path) -> Iterator[sqlite3.Connection]:
    """Open a temporary copy of a data file and of SQLite's log, so that neither is changed.

    Args:
        path: An existing data file.
        folder: Where the copy is put. It's deleted at the end.

    Raises:
        DataFileError: The file is in use, or can't be read or copied.
    """
    _check_kind(Path(path))
    with contextlib.ExitStack() as opened:
        with contextlib.closing(Claim(path)):
            log = _log_of(Path(path))
            try:
                # Only its owner can read what's in such a folder.
                copy = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix=".recover-", dir=folder)), "copy")
                shutil.copyfile(path, copy)
                if log.exists():
                    shutil.copyfile(log, _log_of(copy))
            except OSError as error:
                raise DataFileError(
                    f"The data file {path} can't be copied to {folder}: {error.strerror}. Check that you can read the"
                    " file, that both disks work, and that there's space for two copies.",
                    path=path,
                ) from error
        database = _connect(copy, path)
        opened.callback(database.close)
        yield database


def _connect(location: Path | str, path: str | None) -> sqlite3.Connection:
    """Connect to a database, and prepare it. Errors name the path."""
    try:
        # A file that is in use stays in use, so there is nothing to wait for.
        database = sqlite3.connect(location, timeout=0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise unusable(str(path), "opened", str(error)) from error
    with contextlib.ExitStack() as failed:
        failed.callback(database.close)
        try:
            _prepare(database, path)
        except UnicodeDecodeError as error:
            raise damaged(str(path), NOT_UTF_8, readable=False) from error
        failed.pop_all()
    return database


# What a path may lead to besides a file, with its name.
_OTHER_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _other_kind(found: os.stat_result) -> str | None:
    return next((name for is_kind, name in _OTHER_KINDS if is_kind(found.st_mode)), None)


def _check_kind(path: Path) -> None:
    """Refuse a path that can't be a data file. SQLite would only say that it can't open it.

    Raises:
        DataFileError: It isn't a file, its folder doesn't exist, or it can't be a database.
    """
    try:
        found, log = (file.stat() if file.exists() else None for file in (path, _log_of(path)))
        has_folder = path.parent.is_dir()
    except OSError as error:  # such as a name that's too long
        raise DataFileError(
            f"The data file {path} can't be used: {error.strerror}. Name another file.", path=str(path)
        ) from error
    if log is not None and (kind := _other_kind(log)) is not None:
        raise DataFileError(
            f"The data file {path} can't be opened, because {_log_of(path)} is {kind}. Name another file.",
            path=str(path),
        )
    if found is None:
        if not has_folder:
            raise DataFileError(
                f"The data file {path} can't be created, because the folder {path.parent} doesn't exist."
                " Create the folder, or name another file.",
                path=str(path),
            )
        return
    if (kind := _other_kind(found)) is not None:
        advice = f"Name a file in it, such as {path / 'registry.db'}." if path.is_dir() else "Name another file."
        raise DataFileError(f"The data file {path} is {kind}. {advice}", path=str(path))
    if 0 < found.st_size < _LEAST_DATABASE:
        # SQLite would take it for an empty file, and overwrite it.
        raise _not_a_database_error(str(path))


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
            if not os.access(needed, mode):
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
    may_be_written = code in {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
    if code & 0xFF == sqlite3.SQLITE_FULL:
        advice = "Free some space, or name a file on another disk."
    elif code & 0xFF == sqlite3.SQLITE_IOERR:
        advice = "Check that the disk works and that no limit on the size of files is reached, or name another file."
    else:
        advice = (
            "Name a file in a folder that you can write to, on a disk that isn't read-only;"
            " without a data file everything is kept in memory."
        )
    return DataFileError(
        f"The data file {path} can't be {done}: {why}. {advice}", path=path, may_be_written=may_be_written
    )


def _lock_file(path: Path) -> BinaryIO | None:
    """Return the file, locked until it's closed, or None if the file or such locks don't exist.

    What else is wrong with the file is for SQLite to report.

    Raises:
        BlockingIOError: Somebody else has locked it.
    """
    if fcntl is None or not path.is_file():
        return None
    with contextlib.ExitStack() as failed:
        try:
            file = failed.enter_context(path.open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
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


def _log_in_use_error(path: str) -> DataFileError:
    return DataFileError(
        f"The data file {path} can't be opened, because another emulator still has {_log_of(Path(path))} open, the log"
        " of a file that was deleted or moved. Stop that one, or name another file.",
        path=path,
        in_use=True,
    )


def _prepare(database: sqlite3.Connection, path: str | None) -> None:
    """Check that the database is an emulator's, create its tables if it's empty, and update an older format."""
    shown = str(path)
    database.create_function("row_checksum", -1, _row_checksum, deterministic=True)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        version = _read_format(database, shown)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        if version is None:
            create_tables(database)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version < SCHEMA_VERSION:
            _update_format(database)
        if path is not None:
            for statement in _checksum_triggers():
                database.execute(statement)
        # An emulator that only reads has the file to itself as well.
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _in_use_error(shown) from error
        raise unusable(shown, "opened", str(error), error.sqlite_errorcode) from error
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise damaged(shown, why_damaged(error), readable=False) from error
        raise _not_a_database_error(shown) from error


def create_tables(database: sqlite3.Connection) -> None:
    """Create the tables and indexes in an empty database."""
    for statement in statements(LISTED_TABLES.format(schema="main") + _OTHER_TABLES):
        database.execute(statement)


def _read_format(database: sqlite3.Connection, path: str) -> int | None:
    """Return the format of an emulator's database, or None if it's empty.

    Raises:
        DataFileError: It's another program's, or it has a format that can't be read.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if database.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None:
        return None
    if application != APPLICATION_ID:
        raise DataFileError(
            f"The data file {path} is an SQLite database of another program. Name another file.", path=path
        )
    if not _OLDEST_READ <= version <= SCHEMA_VERSION:
        raise _other_format_error(path, version)
    return int(version)


def _other_format_error(path: str, version: int) -> DataFileError:
    if version > SCHEMA_VERSION:
        why, advice = "a newer version of vertex-registry wrote it", "Upgrade vertex-registry, or name another file."
    else:
        why, advice = "this version of vertex-registry can't read that anymore", "Name another file."
    return DataFileError(
        f"The data file {path} has format {version}, and this version reads format {SCHEMA_VERSION}: {why}. {advice}",
        path=path,
    )


def _update_format(database: sqlite3.Connection) -> None:
    """Turn a file of the oldest format that is read into one of the current format."""
    if not database.execute("SELECT 1 FROM pragma_table_info('operations') WHERE name = 'source'").fetchall():
        database.execute("ALTER TABLE operations ADD COLUMN source INTEGER")
    for statement in statements(_FROM_FORMAT_3):
        database.execute(statement)
    for table in CHECKED:
        database.execute(f"UPDATE {table} SET checksum = {checksum_of(table, table)}")  # noqa: S608 - our own names, no values
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return whether an error says that the file is damaged."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # An error of Python's own has no code. This one is about a text that isn't UTF-8.
        return isinstance(error, sqlite3.OperationalError)
    # The statements are ours, so a table or a column that they don't find is lost.
    lost = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such ")
    return lost or code & 0xFF == sqlite3.SQLITE_CORRUPT


#: What is wrong with a file if Python can't decode what SQLite returns.
NOT_UTF_8: Final = "it has text that isn't UTF-8"


def why_damaged(error: sqlite3.DatabaseError) -> str:
    """Return what an error says about the damage. Python's own repeats the text that it can't decode."""
    return NOT_UTF_8 if getattr(error, "sqlite_errorcode", None) is None else str(error)


def damaged(path: str, why: str, *, readable: bool = True) -> DataFileError:
    """Return the error for a damaged file. If it's readable at all, what's intact of it can be saved."""
    command = f"python -m vertex_registry.emulator --data {shlex.quote(path)} --recover NEW_FILE"
    advice = f"save what's intact: {command}" if readable else "name another file."
    return DataFileError(
        f"The data file {path} is damaged: {why}. Replace it with an intact copy, or {advice}", path=path
    )


def statements(script: str) -> list[str]:
    """Return the statements of a script."""
    return [statement for statement in script.split(";") if statement.strip()]
