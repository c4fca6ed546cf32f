"""The store: the cost of a page of a list, failed writes, and unusable files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import ModelServiceClient, types
from google.cloud.aiplatform_v1.services.model_service.transports.grpc import ModelServiceGrpcTransport

from vertex_registry.emulator import DataFileError, Emulator
from vertex_registry.emulator._data_file import APPLICATION_ID
from vertex_registry.emulator._server import _new_id, _now
from vertex_registry.emulator._service import Service
from vertex_registry.emulator._sql import Condition, LabelCondition, Page
from vertex_registry.emulator._store import OperationRow, Store
from vertex_registry.emulator._switches import parse_assumptions

if TYPE_CHECKING:
    from collections.abc import Callable

PLACE = "projects/1/locations/us-central1"
NEWEST = Page((("key", True),), None, 101)
OLDEST = Page((("number", False),), None, 101)


def filled(models: int) -> Store:
    """Return a store with this many models, ten of which have a rare label, and this many versions of one model."""
    store = Store(None)
    with store.writing():
        for n in range(models):
            labels = {"team": "common", "shard": str(n % 10)} | ({"rare": "x"} if n % (models // 10) == 0 else {})
            key = store.add_model(PLACE, f"m{n}", display_name=f"name {n % 20}", base_model="", time=n, body=b"")
            store.add_version(key, 1, time=n, labels=labels, body=b"")
            store.set_aliases(key, 1, ["default"], time=None)
            store.list_labels(key, PLACE, labels)
            row = OperationRow(PLACE, f"m{n}", f"o{n}", None, key, "UploadModel", "v1", b"", b"", b"")
            store.add_operation(row, creates=True)
            if n:
                store.add_version(1, n + 1, time=n, labels=labels, body=b"")
    return store


def cost(store: Store, query: Callable[[Store], list[Any]]) -> int:
    """Return how many instructions SQLite executes for a query that returns rows."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    store._database.set_progress_handler(count, 1)
    assert query(store)
    store._database.set_progress_handler(None, 1)
    return steps


def _versions(store: Store, labels: list[LabelCondition], page: Page) -> list[Any]:
    model = store.listed_model(1)
    assert model is not None
    return store.list_versions(model, labels, page)


QUERIES: dict[str, Callable[[Store], list[Any]]] = {
    "all": lambda store: store.list_models(PLACE, [], [], NEWEST),
    "a page in the middle": lambda store: store.list_models(PLACE, [], [], NEWEST._replace(after=(150,))),
    "by display name": lambda store: store.list_models(PLACE, [], [], _by(("display_name", False), ("key", False))),
    "by display name, in the middle of a name": lambda store: store.list_models(
        PLACE, [], [], _by(("display_name", False), ("key", False))._replace(after=("name 3", 100), limit=5)
    ),
    "by update time, in the middle": lambda store: store.list_models(
        PLACE, [], [], _by(("update_time", False), ("key", False))._replace(after=(100, 100), limit=5)
    ),
    "by update time": lambda store: store.list_models(PLACE, [], [], _by(("update_time", True), ("key", True))),
    "a display name": lambda store: store.list_models(
        PLACE, [Condition("m.display_name = ?", ("name 3",))], [], NEWEST._replace(limit=9)
    ),
    "an id": lambda store: store.list_models(PLACE, [Condition("m.id = ?", ("m7",))], [], NEWEST),
    "an id and a common label": lambda store: store.list_models(
        PLACE, [Condition("m.id = ?", ("m7",))], [LabelCondition("team", "common")], NEWEST
    ),
    "a common label": lambda store: store.list_models(PLACE, [], [LabelCondition("team", "common")], NEWEST),
    "a rare label": lambda store: store.list_models(PLACE, [], [LabelCondition("rare", "x")], NEWEST),
    "a label with any value": lambda store: store.list_models(PLACE, [], [LabelCondition("rare", None)], NEWEST),
    "a common label and a rare one": lambda store: store.list_models(
        PLACE, [], [LabelCondition("team", "common"), LabelCondition("rare", "x")], NEWEST
    ),
    "a rare label, by display name": lambda store: store.list_models(
        PLACE, [], [LabelCondition("rare", "x")], _by(("display_name", False), ("key", False))
    ),
    "a common label, by display name": lambda store: store.list_models(
        PLACE, [], [LabelCondition("team", "common")], _by(("display_name", False), ("key", False))
    ),
    "a page under a label": lambda store: store.list_models(
        PLACE, [], [LabelCondition("team", "common")], NEWEST._replace(after=(150,))
    ),
    "versions": lambda store: _versions(store, [], OLDEST),
    "versions in the middle": lambda store: _versions(store, [], OLDEST._replace(after=(50,))),
    "versions by update time": lambda store: _versions(store, [], _by(("update_time", True), ("number", True))),
    "versions of a common label": lambda store: _versions(store, [LabelCondition("team", "common")], OLDEST),
    "versions of a rare label": lambda store: _versions(store, [LabelCondition("rare", "x")], OLDEST),
    "versions with a label": lambda store: _versions(store, [LabelCondition("rare", None)], OLDEST),
    "versions of a common label and a rare one": lambda store: _versions(
        store, [LabelCondition("team", "common"), LabelCondition("rare", None)], OLDEST
    ),
    "versions of a rare label, by update time": lambda store: _versions(
        store, [LabelCondition("rare", "x")], _by(("update_time", True), ("number", True))
    ),
    "the default version": lambda store: [store.default_version(PLACE, "m0")],
    "a version": lambda store: [store.version_by_number(PLACE, "m0", 7)],
    "an alias": lambda store: [store.version_by_alias(PLACE, "m0", "default")],
    "the newest version": lambda store: [store.newest_version(PLACE, "m0")],
    "an operation": lambda store: [store.operation(PLACE, "m0", "o0")],
    "an operation, whose ever": lambda store: [store.operation(PLACE, None, "o0")],
    "an operation that is not there": lambda store: [store.operation(PLACE, None, "none")],
}


def _by(*order: tuple[str, bool]) -> Page:
    return Page(order, None, 101)


@pytest.fixture(name="stores", scope="module")
def _stores() -> tuple[Store, Store]:
    return filled(200), filled(4000)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_costs_the_same_however_much_there_is(stores: tuple[Store, Store], query: str) -> None:
    """Measured in SQLite's instructions: an index is used, and only what is shown is scanned or sorted."""
    small, large = (cost(store, QUERIES[query]) for store in stores)

    assert large <= small * 1.2


@pytest.mark.parametrize("column", ["key", "display_name", "update_time"])
@pytest.mark.parametrize("falling", [False, True])
def test_a_page_costs_the_same_at_any_position(stores: tuple[Store, Store], column: str, falling: bool) -> None:
    """The same is true for rows that are equal in the order."""
    order = [(column, falling), ("key", falling)][column == "key" :]

    def page(key: int) -> int:
        value = {"display_name": ("name 3",), "update_time": (key - 1,), "key": ()}[column]
        return cost(stores[1], lambda store: store.list_models(PLACE, [], [], Page(tuple(order), (*value, key), 5)))

    early, late = page(204), page(3804)

    assert max(early, late) <= min(early, late) * 1.2


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """The error names the file and the reason. Nothing was written, and the next write has room."""
    data = tmp_path / "data"
    with Emulator(data, rest_port=None, polls_until_done=1) as emulator:
        store: Store = emulator._dispatcher._service._store
        with grpc.insecure_channel(emulator.grpc) as channel:
            client = ModelServiceClient(transport=ModelServiceGrpcTransport(channel=channel))
            (pages,) = store._database.execute("PRAGMA page_count").fetchone()
            store._database.execute(f"PRAGMA max_page_count = {pages}")
            request: Any = {"parent": PLACE, "model_id": "m", "model": {"display_name": "m" * 99}}
            request["model"]["container_spec"] = {"image_uri": "x/y"}
            request["model"]["description"] = "long" * 10_000
            with pytest.raises(exceptions.FailedPrecondition, match=f"{data} can't be written: .*full"):
                client.upload_model(request)
            assert store.under_way == 0
            store._database.execute("PRAGMA max_page_count = 1000000")

            operation = client.upload_model(request).operation
            assert store.under_way == 1
            assert client.get_operation({"name": operation.name}).done
            assert client.get_model(name=f"{PLACE}/models/m").display_name == "m" * 99


@pytest.mark.parametrize("lag", [0, 2])
def test_a_transaction_is_all_or_nothing(lag: int) -> None:
    """If an exception ends the transaction, nothing of it was written, for reads and for lists."""
    store = Store(None, list_lag=lag)

    def fail() -> None:
        with store.writing():
            store.add_model(PLACE, "m", display_name="", base_model="", time=1, body=b"")
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert store.model(PLACE, "m") is None
    for _ in range(lag + 1):
        store.count_list()
        assert store.list_models(PLACE, [], [], NEWEST) == []
    store.close()


def test_due_writes_survive_a_failed_reset() -> None:
    """If nothing can be written, the registry stays as it is, and lists show the writes whose lag is over."""
    store = Store(None, list_lag=1)
    with store.writing():
        key = store.add_model(PLACE, "m", display_name="", base_model="", time=0, body=b"")
    store.count_list()
    assert store.listed_model(key) is None
    store._database.set_authorizer(lambda _, verb, *__: sqlite3.SQLITE_DENY if verb == "COMMIT" else sqlite3.SQLITE_OK)
    with pytest.raises(sqlite3.DatabaseError):
        store.clear()
    store._database.set_authorizer(None)

    assert store.model(PLACE, "m") is not None
    store.count_list()
    assert store.listed_model(key) is not None
    store.close()


def test_a_write_that_cannot_be_shown_is_shown_later() -> None:
    """Until the transaction ends, lists show the earlier state, and no partial write."""
    store = Store(None, list_lag=1)

    def shown() -> list[Any]:
        return [(view.number, len(view.body)) for view in store.list_models(PLACE, [], [], NEWEST)]

    with store.writing():
        key = store.add_model(PLACE, "m", display_name="", base_model="", time=0, body=b"x")
        store.add_version(key, 1, time=0, labels={}, body=b"")
        store.set_aliases(key, 1, ["default"], time=None)
    store.count_list()
    store.count_list()
    with store.writing():
        store.add_version(key, 2, time=0, labels={}, body=b"")
        store.set_aliases(key, 2, ["default"], time=None)
    with store.writing():
        store.change_model(key, display_name="", time=0, body=b"x" * 100_000)
    store.count_list()
    (pages,) = store._database.execute("PRAGMA lagging.page_count").fetchone()
    store._database.execute(f"PRAGMA lagging.max_page_count = {pages}")
    with pytest.raises(DataFileError, match="full"), store.reading():
        store.count_list()
    assert shown() == [(1, 1)]
    store._database.execute("PRAGMA lagging.max_page_count = 1000000")
    store.count_list()

    assert shown() == [(2, 100_000)]
    store.close()


def test_a_lag_costs_nothing_until_somebody_lists() -> None:
    """Writes between two lists aren't copied, however many there are. The list after the lag shows all."""
    store = Store(None, list_lag=2)
    with store.writing():
        key = store.add_model(PLACE, "m", display_name="", base_model="", time=0, body=b"")
    tracemalloc.start()
    for number in range(1, 101):
        with store.writing():
            store.add_version(key, number, time=number, labels={"a": "b"}, body=b"x" * 1000)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < 100_000
    for _ in range(2):
        store.count_list()
        assert store.listed_model(key) is None
    store.count_list()
    row = store.listed_model(key)
    assert row is not None
    assert len(store.list_versions(row, [LabelCondition("a", "b")], OLDEST)) == 100
    store.close()


def test_a_list_between_two_writes_tells_them_apart() -> None:
    """Each write becomes visible on its own, even if a model is deleted and created again."""
    store = Store(None, list_lag=2)
    seen = []

    def see() -> None:
        store.count_list()
        seen.append([(view.id, view.number) for view in store.list_models(PLACE, [], [], NEWEST)])

    for _ in range(2):
        with store.writing():
            key = store.add_model(PLACE, "m", display_name="", base_model="", time=0, body=b"")
            store.add_version(key, 1, time=0, labels={}, body=b"")
            store.set_aliases(key, 1, ["default"], time=None)
        see()
        with store.writing():
            store.add_version(key, 2, time=0, labels={}, body=b"")
            store.set_aliases(key, 2, ["default"], time=None)
        see()
        row = store.model(PLACE, "m")
        assert row is not None
        with store.writing():
            store.delete_model(row)
        see()
    see()
    see()
    see()

    assert seen == [[], [], [("m", 1)], [("m", 2)], [], [("m", 1)], [("m", 2)], [], []]
    store.close()


# --- whose files -------------------------------------------------------------


@pytest.mark.parametrize("text", ["My notes.\n" * 500, "\n"])
def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, text: str) -> None:
    """The error names the file, which isn't touched."""
    data = tmp_path / "notes.txt"
    data.write_text(text)

    with pytest.raises(DataFileError, match=r"notes.txt isn't an SQLite database\. Name another file\.") as caught:
        Emulator(data)

    assert caught.value.path == str(data)
    assert not caught.value.in_use
    assert data.read_text() == text
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_another_program_is_refused(tmp_path: Path, journal: str) -> None:
    """It isn't touched either."""
    data = tmp_path / "other.db"
    with sqlite3.connect(data) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        other.execute("CREATE TABLE things (name TEXT)")
    other.close()
    before = data.read_bytes()

    with pytest.raises(DataFileError, match="an SQLite database of another program"):
        Emulator(data)

    assert data.read_bytes() == before
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize(("version", "advice"), [(99, "Upgrade vertex-registry"), (2, "Name another file")])
def test_a_file_of_another_format_is_refused(tmp_path: Path, version: int, advice: str) -> None:
    """A later version of the emulator may write such a file, and an earlier one may have written it."""
    data = tmp_path / "data"
    Emulator(data).close()
    with sqlite3.connect(data) as ours:
        ours.execute(f"PRAGMA user_version = {version}")
    ours.close()

    with pytest.raises(DataFileError, match=f"has format {version}, and this version reads format 4: .*{advice}"):
        Emulator(data)


def damage(data: Path, table: str) -> None:
    """Overwrite the first page of a table or an index, or truncate the file to its first page."""
    with sqlite3.connect(data) as ours:
        (page,) = ours.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone() or (0,)
        (size,) = ours.execute("PRAGMA page_size").fetchone()
    ours.close()
    content = data.read_bytes()
    begin = (page - 1) * size
    data.write_bytes(content[:begin] + b"\xff" * size + content[begin + size :] if page else content[:size])


@pytest.mark.parametrize("table", ["models", "versions", "models_by_id", "operations_under_way", "listing", "all"])
def test_a_file_that_is_damaged_is_refused(tmp_path: Path, table: str) -> None:
    """The error is a sentence, and the file is free again."""
    data = tmp_path / "data"
    Emulator(data).close()
    whole = data.read_bytes()
    damage(data, table)

    with pytest.raises(DataFileError, match=r"data is damaged: .* (malformed|error code 11.)\. Replace") as caught:
        Emulator(data)

    assert caught.value.path == str(data)
    assert not caught.value.in_use
    data.write_bytes(whole)
    Emulator(data).close()


@pytest.mark.parametrize(
    ("intact", "broken"),
    [
        (b"CREATE TABLE versions", b"CREATE \xff\xfeBLE versions"),  # SQLite quotes it, and Python can't decode that
        (b"(label_wins TEXT", b"(\xff\xfe\xfdel_wins TEXT"),
        (b"(label_wins TEXT", b"(lapel_wins TEXT"),
    ],
)
def test_a_damaged_schema_is_refused(tmp_path: Path, intact: bytes, broken: bytes) -> None:
    """A schema that isn't text, or lacks a column, is damage like any other."""
    data = tmp_path / "data"
    Emulator(data).close()
    whole = data.read_bytes()
    assert intact in whole
    data.write_bytes(whole.replace(intact, broken))

    with pytest.raises(DataFileError, match=r"data is damaged: .*\. Replace it"):
        Emulator(data)


@pytest.mark.parametrize("older", [False, True], ids=["", "without-source"])
def test_a_file_of_the_last_format_is_updated(
    start: Callable[..., Emulator], connect: Callable[..., Any], tmp_path: Path, *, older: bool
) -> None:
    """Everything in it is kept, also an operation under way. From then on, damage is noticed there too."""
    data, parent = tmp_path / "data", "projects/4711/locations/us-central1"
    with contextlib.closing(sqlite3.connect(data)) as file, file:
        file.executescript((Path(__file__).parent / "format_3.sql").read_text())
        if older:
            file.execute("ALTER TABLE operations DROP COLUMN source")
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 3")

    for _ in range(2):  # the second time, the file has the current format
        emulator = start(data)
        client = connect(emulator)
        assert [version.version_id for version in client.list_model_versions(name=f"{parent}/models/churn")] == [
            "1",
            "2",
        ]
        assert client.get_model(name=f"{parent}/models/churn@champion").version_id == "2"
        assert len(list(client.list_model_evaluations(parent=f"{parent}/models/churn"))) == 1
        assert client.get_operation({"name": f"{parent}/models/churn/operations/2"}).done
        assert client.get_operation({"name": f"{parent}/models/fraud/operations/4"}).done
        assert client.get_model(name=f"{parent}/models/fraud").display_name == "churn"
        emulator.close()
    with contextlib.closing(sqlite3.connect(data)) as file, file:
        file.execute("UPDATE versions SET update_time = update_time + 1 WHERE number = 2")
    with pytest.raises(DataFileError, match="version 2 of .*churn isn't as it was written"):
        start(data)


def test_an_unusable_path_is_refused(tmp_path: Path) -> None:
    """The error says what the path leads to instead of a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "data-wal").mkdir()  # SQLite can't put its log there
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for data, why in (
            (tmp_path, f"is a folder. Name a file in it, such as {tmp_path}/registry.db."),
            (tmp_path / "nowhere" / "data", f"can't be created, because the folder {tmp_path}/nowhere doesn't exist."),
            (tmp_path / "pipe", "is a pipe. Name another file."),
            (tmp_path / "link", "is a pipe. Name another file."),
            (tmp_path / "circle", "can't be opened for writing: Too many levels of symbolic links."),
            (tmp_path / "socket", "is a socket. Name another file."),
            (Path("/dev/null"), "is a device. Name another file."),
            (tmp_path / "data", f"can't be opened, because {tmp_path}/data-wal is a folder. Name another file."),
        ):
            with pytest.raises(DataFileError, match=re.escape(f"The data file {data} {why}")) as caught:
                Emulator(data)
            assert not caught.value.in_use
            assert caught.value.path == str(data)
    assert not (tmp_path / "data").exists()


def test_a_file_must_have_a_name() -> None:
    """None means memory. An empty name is refused."""
    with pytest.raises(DataFileError, match="has no name"):
        Emulator("")


@pytest.mark.parametrize("name", [":memory:", "file:data?mode=memory", "file:data", "file::memory:?cache=shared"])
def test_every_name_is_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Names with a meaning for SQLite, such as memory, are files here. Their content stays."""
    monkeypatch.chdir(tmp_path)
    for time in (0, 7):
        store = Store(name)
        assert store.latest_create_time() == time
        with store.writing():
            store.add_model(PLACE, f"m{time}", display_name="m", base_model="", time=7, body=b"")
        store.close()

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_one_emulator_at_a_time_has_a_file(tmp_path: Path) -> None:
    """A second emulator is refused until the first one is closed, even before anything is written."""
    data = tmp_path / "data"
    first = Emulator(data)

    with pytest.raises(DataFileError, match="is open in another emulator") as caught:
        Emulator(data)
    assert caught.value.in_use

    first.close()
    first.close()
    with Emulator(data), pytest.raises(DataFileError, match="is open in another emulator"):
        Emulator(data)


def test_a_file_that_was_copied_is_still_held(tmp_path: Path) -> None:
    """A process loses SQLite's own lock as soon as it closes the file elsewhere."""
    data = tmp_path / "data"
    code = "import sys; from vertex_registry.emulator._store import Store; Store(sys.argv[1]).close()"
    with Emulator(data):
        shutil.copy(data, tmp_path / "copy")
        run = subprocess.run([sys.executable, "-c", code, data], check=False, capture_output=True, text=True)

    assert "is open in another emulator" in run.stderr
    subprocess.run([sys.executable, "-c", code, data], check=True)


def test_a_file_is_one_file_when_it_is_closed(tmp_path: Path) -> None:
    """No other file is left next to it, so you can copy it."""
    data = tmp_path / "data"
    Emulator(data).close()

    assert list(tmp_path.iterdir()) == [data]


def test_time_goes_on_where_it_was(tmp_path: Path) -> None:
    """If the clock was set back while the file was closed, nothing new looks older than what exists."""
    store = Store(str(tmp_path / "data"))
    with store.writing():
        key = store.add_model(PLACE, "m", display_name="m", base_model="", time=5 * 10**15, body=b"")
        store.add_version(key, 1, time=5 * 10**15, labels={}, body=b"")
        store.set_aliases(key, 1, ["default"], time=None)
    store.close()
    store = Store(str(tmp_path / "data"))
    service = Service(store, assume=parse_assumptions({}), polls_until_done=0, now=_now, new_id=_new_id)

    assert service._stamps.time() == 5 * 10**15
    view = store.default_version(PLACE, "m")
    assert view is not None
    assert service._views.to_model(view, versioned=False) == types.Model.pb()(
        name=f"{PLACE}/models/m",
        version_id="1",
        version_aliases=["default"],
        create_time={"seconds": 5 * 10**9},
        update_time={"seconds": 5 * 10**9},
        version_create_time={"seconds": 5 * 10**9},
        version_update_time={"seconds": 5 * 10**9},
        etag=service._views.to_model(view, versioned=False).etag,
    )
    store.close()
