"""Damaged data files: whatever happened to a file, the emulator refuses it or answers as before."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import random
import re
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2

from tests.file_limits import limited_files
from vertex_registry.emulator import DataFileError
from vertex_registry.emulator.__main__ import main
from vertex_registry.emulator._data_file import APPLICATION_ID, LABEL_WINS, open_database
from vertex_registry.emulator._operations import Call
from vertex_registry.emulator._service import Service
from vertex_registry.emulator._status import Failure
from vertex_registry.emulator._store import Store
from vertex_registry.emulator._switches import SWITCHES, parse_assumptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vertex_registry.emulator import Emulator

PARENT = "projects/4711/locations/us-central1"
MODELS = ("churn", "fraud", "churn-2024")

#: Every kind of read, with filters and orders that use each of the indexes.
READS: dict[str, tuple[str, Any]] = {
    **{
        f"ListModels {query}": ("list_models", types.ListModelsRequest.pb()(parent=PARENT, **query))
        for query in (
            {},
            {"filter": "labels.team=risk"},
            {"filter": "labels.team:*"},
            {"filter": "display_name=Churn"},
            {"filter": "model=fraud"},
            {"filter": "base_model_name=gemini"},
            {"order_by": "update_time desc"},
            {"order_by": "display_name"},
        )
    },
    **{
        f"ListModelVersions {model} {query}": (
            "list_model_versions",
            types.ListModelVersionsRequest.pb()(name=f"{PARENT}/models/{model}", **query),
        )
        for model in MODELS
        for query in ({}, {"filter": "labels.stage=production"}, {"order_by": "update_time"})
    },
    **{
        f"GetModel {model}{version}": (
            "get_model",
            types.GetModelRequest.pb()(name=f"{PARENT}/models/{model}{version}"),
        )
        for model in MODELS
        for version in ("", "@1", "@3", "@champion", "@challenger", "@nobody")
    },
    "ListModelEvaluations": (
        "list_model_evaluations",
        types.ListModelEvaluationsRequest.pb()(parent=f"{PARENT}/models/churn@2"),
    ),
    "ListOperations": ("list_operations", operations_pb2.ListOperationsRequest(name=PARENT)),
    "GetOperation": ("get_operation", operations_pb2.GetOperationRequest(name=f"{PARENT}/models/churn/operations/3")),
}


class Registry:
    """An emulator's service on a data file, without its servers."""

    def __init__(self, data: Path) -> None:
        ids, times = itertools.count(1), itertools.count(1_700_000_000)
        self.store = Store(str(data))
        try:
            self.service = Service(
                self.store,
                assume=parse_assumptions({}),
                polls_until_done=0,
                now=lambda: dt.datetime.fromtimestamp(next(times), dt.UTC),
                new_id=lambda: str(next(ids)),
            )
        except BaseException:
            self.store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def call(self, method: str, request: Any) -> Any:
        return self.service.methods([method])[method](request, Call())

    def upload(self, model: str, *aliases: str, under: bool = False, **labels: str) -> None:
        request = types.UploadModelRequest.pb()(parent=PARENT)
        if under:
            request.parent_model = f"{PARENT}/models/{model}"
        else:
            request.model_id = model
        request.model.display_name = model.partition("-")[0].capitalize()
        request.model.container_spec.image_uri = "example.com/serve:1"
        request.model.labels.update(labels)
        request.model.version_aliases.extend(aliases)
        request.model.base_model_source.model_garden_source.public_model_name = "publishers/google/models/gemini"
        self.call("upload_model", request)

    def read(self) -> dict[str, Any]:
        """Return what each read returns; a read that the file doesn't allow isn't in it."""
        found: dict[str, Any] = {}
        for what, (method, request) in READS.items():
            try:
                response = self.call(method, request)
            except DataFileError:
                continue
            except Failure as failure:
                response = failure.status
            found[what] = response if isinstance(response, bytes) else response.SerializeToString(deterministic=True)
        return found


@pytest.fixture(name="intact", scope="module")
def _intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data file that has a row in every table."""
    data = tmp_path_factory.mktemp("damage") / "registry.db"
    with Registry(data) as registry:
        for model in MODELS:
            registry.upload(model, "champion", team="risk", stage="archived")
            registry.upload(model, "challenger", under=True, stage="production")
            registry.upload(model, "default", "newest", under=True, team="risk" if model == "churn" else "ads")
        evaluation = types.ImportModelEvaluationRequest.pb()(parent=f"{PARENT}/models/churn@2")
        evaluation.model_evaluation.metrics_schema_uri = "gs://google-cloud-aiplatform/schema/modelevaluation/x.yaml"
        registry.call("import_model_evaluation", evaluation)
        slices = types.BatchImportModelEvaluationSlicesRequest.pb()(
            parent=registry.call("list_model_evaluations", READS["ListModelEvaluations"][1]).model_evaluations[0].name
        )
        slices.model_evaluation_slices.add(metrics_schema_uri="gs://x").slice_.dimension = "annotationSpec"
        registry.call("batch_import_model_evaluation_slices", slices)
    return data


def flips(content: bytes, seed: int, number: int) -> Iterator[tuple[int, bytes]]:
    """Yield copies of a file, each with the position of the bit that was flipped, away from stretches of zeros."""
    choose = random.Random(seed)  # noqa: S311 - not for security
    used = [at for at in range(len(content)) if content[at] or any(content[max(0, at - 8) : at + 8])]
    for at in choose.sample(used, number):
        flipped = bytearray(content)
        flipped[at] ^= 1 << choose.randrange(8)
        yield at, bytes(flipped)


@pytest.fixture(name="before", scope="module")
def _before(intact: Path) -> dict[str, Any]:
    with Registry(intact) as registry:
        before = registry.read()
    assert before.keys() == READS.keys()
    return before


@pytest.fixture(name="data")
def _data(intact: Path, tmp_path: Path) -> Path:
    """Return a copy of the data file, to damage."""
    shutil.copy(intact, tmp_path / "registry.db")
    return tmp_path / "registry.db"


@pytest.mark.no_cover
def test_a_flipped_bit_changes_no_answer(data: Path, before: dict[str, Any]) -> None:
    """The file is refused, or the answers are those of the intact file."""
    refused, wrong = 0, []
    for at, content in flips(data.read_bytes(), seed=1, number=200):
        data.write_bytes(content)
        try:
            with Registry(data) as registry:
                found = registry.read()
        except DataFileError:
            refused += 1
        else:
            wrong += [(at, what) for what in READS if found.get(what) != before[what]]

    assert not wrong
    assert refused


def alter(data: Path, *statements: str) -> None:
    """Change a file behind the emulator's back."""
    with contextlib.closing(sqlite3.connect(data)) as file, file:
        file.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            assert file.execute(statement).rowcount > 0


def rewrite(data: Path, *statements: str) -> None:
    """Change a file so that the rows have the right checksums, as if they had been written like this."""
    file, claim = open_database(str(data))
    assert claim is not None
    with contextlib.closing(claim), contextlib.closing(file):
        for statement in statements:
            file.execute(statement)


CHURN: Final = f"{PARENT}/models/churn"

#: What is changed in a file, and what the error says is damaged.
ALTERED: Final = {
    "UPDATE versions SET aliases = 'champiom' WHERE rowid = 1": f"version 1 of {CHURN} ",
    "UPDATE versions SET aliases = CAST(x'fffe' AS TEXT) WHERE rowid = 1": f"version 1 of {CHURN} ",
    "UPDATE versions SET aliases = CAST(aliases AS BLOB) WHERE rowid = 1": f"version 1 of {CHURN} ",
    "UPDATE versions SET body = CAST(body AS TEXT) WHERE rowid = 2": f"version 2 of {CHURN} ",
    "UPDATE versions SET create_time = 'soon' WHERE rowid = 1": f"version 1 of {CHURN} ",
    "UPDATE versions SET number = 8 WHERE rowid = 3": f"version 8 of {CHURN} ",
    "UPDATE versions SET model = 99 WHERE rowid = 3": "version 3 of a model ",
    "UPDATE versions SET checksum = NULL WHERE rowid = 1": f"version 1 of {CHURN} ",
    "UPDATE models SET display_name = 'x' WHERE key = 1": f"the model {CHURN} ",
    "UPDATE models SET default_version = 3 WHERE key = 1": None,  # it is 3
    "UPDATE models SET default_version = 2 WHERE key = 1": f"the model {CHURN} ",
    "UPDATE models SET listed = '{' WHERE key = 1": f"the model {CHURN} ",
    "UPDATE models SET id = CAST(x'0aff' AS TEXT) WHERE key = 1": f"the model {PARENT}/models/\ufffd\ufffd ",
    "UPDATE operations SET body = x'ff' WHERE rowid = 1": f"the operation 1 of {CHURN} ",
    "UPDATE evaluations SET body = x'0a'": f"the evaluation 10 of {CHURN} ",
    "UPDATE slices SET body = x'0a'": f"the evaluation slice 11 of {CHURN} ",
    "UPDATE aliases SET alias = 'other' WHERE alias = 'champion' AND model = 1": "the table of aliases ",
    "UPDATE aliases SET number = 2 WHERE alias = 'champion' AND model = 1": "the table of aliases ",
    "DELETE FROM aliases WHERE model = 1": "the table of aliases ",
    "INSERT INTO aliases VALUES (1, 'other', 1)": "the table of aliases ",
    "UPDATE version_labels SET value = 'x' WHERE model = 1 AND number = 2": "the table of the versions' labels ",
    "DELETE FROM version_labels WHERE model = 1 AND number = 2": "the table of the versions' labels ",
    "UPDATE listed_labels SET value = 'x' WHERE model = 1 AND label = 'team'": "the table of the models' labels ",
    "UPDATE sqlite_sequence SET seq = 9223372036854775807": "its table sqlite_sequence ",
    "UPDATE sqlite_sequence SET seq = 2": "its table sqlite_sequence ",
    "UPDATE sqlite_sequence SET seq = 4": None,  # a model may have been deleted
    "UPDATE sqlite_sequence SET seq = 'x'": "its table sqlite_sequence ",
    "UPDATE sqlite_sequence SET seq = NULL": "its table sqlite_sequence ",
    "UPDATE sqlite_sequence SET name = 'x'": "its table sqlite_sequence ",
    "DELETE FROM sqlite_sequence": "its table sqlite_sequence ",
    "INSERT INTO sqlite_sequence VALUES ('models', 3)": "its table sqlite_sequence ",
    "UPDATE listing SET label_wins = 'versiom'": "its table listing ",
    "UPDATE listing SET label_wins = CAST(label_wins AS BLOB)": "its table listing ",
    "INSERT INTO listing VALUES ('version')": "its table listing ",
    "UPDATE sqlite_schema SET sql = replace(sql, 'id TEXT', 'id TEYT') WHERE name = 'models'": "its tables ",
    "UPDATE sqlite_schema SET sql = replace(sql, 'display_name, key', 'base_model, key')"
    " WHERE name = 'models_by_display_name'": "its tables ",
}


@pytest.mark.parametrize(("alteration", "damage"), ALTERED.items(), ids=str)
def test_an_altered_file_is_refused(data: Path, alteration: str, damage: str | None) -> None:
    """The error names what is damaged, in a row, an index, a table that follows from the rows, or the schema."""
    alter(data, alteration)
    if damage is None:
        Registry(data).store.close()
        return

    with pytest.raises(DataFileError, match=re.escape(f"is damaged: {damage}")) as caught:
        Registry(data)

    assert not caught.value.in_use
    assert str(caught.value).endswith(f"python -m vertex_registry.emulator --data {data} --recover NEW_FILE")


def test_the_check_knows_every_assumption_that_lists_are_written_under() -> None:
    """The table ``listing`` has one of the switch's values."""
    assert SWITCHES["label-wins"].values == LABEL_WINS


def test_a_missing_value_is_not_a_hyphen(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both have the same checksum, but a column that must have a value can't lose it."""
    new = data.with_name("new.db")
    rewrite(data, "UPDATE versions SET aliases = '-' WHERE model = 1 AND number = 2", "DELETE FROM aliases")
    schema = "UPDATE sqlite_schema SET sql = replace(sql, 'aliases TEXT{}', 'aliases TEXT{}') WHERE name = 'versions'"
    alter(data, schema.format(" NOT NULL", ""))
    alter(data, "UPDATE versions SET aliases = NULL WHERE model = 1 AND number = 2", schema.format("", " NOT NULL"))

    with pytest.raises(DataFileError, match=f"version 2 of {CHURN} isn't as it was written"):
        Registry(data)
    assert main(["--data", str(data), "--recover", str(new)]) == 0
    assert f"Lost: version 2 of {CHURN}.\n" in capsys.readouterr().out


def test_an_index_without_an_entry_is_refused(data: Path) -> None:
    """Without the check, the model would be missing under its ID."""
    with contextlib.closing(sqlite3.connect(data)) as file, file:
        (page,) = file.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'models_by_id'").fetchone()
        (size,) = file.execute("PRAGMA page_size").fetchone()
    content = data.read_bytes()
    begin = (page - 1) * size
    data.write_bytes(
        content[:begin] + content[begin : begin + size].replace(b"churn-2024", b"churn-2025") + content[begin + size :]
    )

    with pytest.raises(DataFileError, match="SQLite's check reports 'row 3 missing from index models_by_id'"):
        Registry(data)


def test_a_row_that_is_damaged_while_the_file_is_open_is_not_returned(
    start: Callable[..., Emulator], connect: Callable[..., Any], upload: Callable[..., str], tmp_path: Path
) -> None:
    """Each call that would return it names it; the others answer."""
    data, large = tmp_path / "registry.db", "x" * 100_000
    with start(data, rest_port=None) as emulator:
        client = connect(emulator)
        upload(client, model_id="churn", version_description="The first one.")
        for number in range(30):  # more than SQLite keeps in memory
            upload(client, model_id=f"large-{number}", version_description=large)
    client = connect(start(data, rest_port=None))
    content = data.read_bytes()
    assert content.count(b"The first one.") == 2  # in the version and in its operation
    with data.open("r+b") as file:
        for match in re.finditer(b"The first one.", content):
            file.seek(match.start())
            file.write(b"The First")
    for number in range(30):
        assert client.get_model(name=f"{PARENT}/models/large-{number}").version_description == large

    reads: tuple[Callable[[], object], ...] = (
        lambda: client.get_model(name=CHURN),
        lambda: client.list_models(parent=PARENT),
        lambda: client.list_model_versions(name=CHURN),
        lambda: client.merge_version_aliases(name=f"{CHURN}@1", version_aliases=["next"]),
    )
    for read in reads:
        with pytest.raises(exceptions.FailedPrecondition, match=f"is damaged: .*version.* of {CHURN} isn't as it was"):
            read()
    assert client.get_model(name=f"{PARENT}/models/large-1").version_id == "1"


# --- saving what's intact ----------------------------------------------------


def test_everything_is_saved_if_only_an_index_is_damaged(
    data: Path, before: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What follows from the rows is created again. The damaged file stays as it is."""
    new = data.with_name("new.db")
    alter(
        data,
        "DELETE FROM aliases",
        "DELETE FROM version_labels WHERE number = 2",
        "UPDATE listed_labels SET value = 'x'",
    )
    damaged = data.read_bytes()

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    assert capsys.readouterr().out == f"{new} has everything that {data} has.\n"
    with Registry(new) as registry:
        assert registry.read() == before
    assert data.read_bytes() == damaged


def test_what_is_lost_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged row is left out with what belongs to it, and each model keeps a default version."""
    new = data.with_name("new.db")
    alter(
        data,
        "UPDATE versions SET revision = 7 WHERE model = 1 AND number IN (2, 3)",
        "UPDATE models SET display_name = 'x' WHERE id = 'fraud'",
        "UPDATE versions SET revision = 7 WHERE model = 3",
        "UPDATE operations SET body = x'ff' WHERE rowid = 2",
    )

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    later = f"{PARENT}/models/churn-2024"
    assert capsys.readouterr().out.splitlines() == [
        f"Lost: the model {PARENT}/models/fraud.",
        *(f"Lost: version {number} of {CHURN}." for number in (2, 3)),
        *(f"Lost: version {number} of {later}." for number in (1, 2, 3)),
        f"Lost: the operation 2 of {CHURN}.",
        *(f"Lost: version {number} of {PARENT}/models/fraud, because the model is." for number in (1, 2, 3)),
        f"Lost: the model {later}, because all its versions are.",
        f"Changed: version 1 of {CHURN} is its default version now.",
        f"Lost: the evaluation 10 of {CHURN}, because its version is.",
        f"Lost: the evaluation slice 11 of {CHURN}, because its evaluation is.",
        f"What's intact of {data} is in {new}.",
    ]
    with Registry(new) as registry:
        (model,) = types.ListModelsResponse.pb().FromString(registry.read()["ListModels {}"]).models
        assert (model.name, model.version_id) == (CHURN, "1")
        assert list(model.version_aliases) == ["champion", "default"]
        labelled = types.ListModelsRequest.pb()(parent=PARENT, filter="labels.stage=archived")
        assert registry.call("list_models", labelled)
        with pytest.raises(Failure, match="does not exist"):
            registry.call(*READS["ListModelEvaluations"])
        registry.upload("churn", under=True)
        assert registry.call("get_model", types.GetModelRequest.pb()(name=f"{CHURN}@4")).version_id == "4"
        registry.upload("fraud")
        fraud = registry.store.model(PARENT, "fraud")
        assert fraud is not None
        assert fraud.key == 4  # keys aren't used again


def crash(data: Path) -> None:
    """Leave a file as it is after a crash: the last upload is only in SQLite's log."""
    crashed = data.with_name("crashed")
    crashed.mkdir()
    with Registry(data) as registry:
        registry.upload("logged")
        for path in (data, data.with_name("registry.db-wal")):
            shutil.copy(path, crashed)
    for path in crashed.iterdir():
        path.replace(data.with_name(path.name))
    crashed.rmdir()


def truncate(data: Path) -> None:
    data.write_bytes(b"")


def downgrade(data: Path) -> None:
    data.unlink()
    with contextlib.closing(sqlite3.connect(data)) as file:
        file.executescript((Path(__file__).parent / "format_3.sql").read_text())
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 3")


@pytest.mark.parametrize(
    ("damage", "saved"),
    [(crash, [*MODELS, "logged"]), (truncate, []), (downgrade, ["churn"])],
)
def test_the_damaged_file_stays_as_it_is(data: Path, damage: Callable[[Path], None], saved: list[str]) -> None:
    """Neither the file nor SQLite's log is written, and nothing else is left next to the new file."""
    damage(data)
    new = data.with_name("new.db")
    before = {path: path.read_bytes() for path in data.parent.iterdir()}

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    assert {path: path.read_bytes() for path in data.parent.iterdir() if path != new} == before
    with contextlib.closing(sqlite3.connect(new)) as file:
        assert [model for (model,) in file.execute("SELECT id FROM models ORDER BY key")] == saved


def test_a_file_that_is_in_use_is_not_saved(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy of it could have half of a change."""
    before = set(data.parent.iterdir())
    with Registry(data) as registry:
        assert main(["--data", str(data), "--recover", str(data.with_name("new.db"))]) == 2
        assert f"The data file {data} is open in another emulator." in capsys.readouterr().err
        registry.upload("later")
    assert set(data.parent.iterdir()) == before


@pytest.mark.parametrize(
    "sequence",
    [
        *map("UPDATE sqlite_sequence SET seq = {}".format, ("'x'", "NULL", "x'ff'", "-1", "1", 2**63 - 1)),
        "DELETE FROM sqlite_sequence",
        "INSERT INTO sqlite_sequence VALUES (CAST(x'ff' AS TEXT), 'x')",
    ],
)
def test_keys_are_not_used_again_after_every_model_is_lost(data: Path, sequence: str) -> None:
    """The last key is that of SQLite's own table if it makes sense, or the largest in an intact row."""
    new = data.with_name("new.db")
    alter(data, "UPDATE models SET display_name = 'x'", sequence)

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    with Registry(new) as registry:
        registry.upload("next")
        model = registry.store.model(PARENT, "next")
        assert model is not None
        assert model.key == 4


def test_a_key_that_only_the_sequence_has_is_not_used_again(data: Path) -> None:
    """It was a deleted model's."""
    new = data.with_name("new.db")
    alter(data, "UPDATE models SET display_name = 'x'", "UPDATE sqlite_sequence SET seq = 7")

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    with contextlib.closing(sqlite3.connect(new)) as file:
        assert file.execute("SELECT * FROM sqlite_sequence").fetchall() == [("models", 7)]


def test_the_newest_version_keeps_an_alias_that_two_have(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that loses a write leaves an older row, which is intact by itself. The default version keeps its alias."""
    new = data.with_name("new.db")
    rewrite(
        data,
        "UPDATE versions SET aliases = 'newest champion' WHERE model = 1 AND number = 2",
        "UPDATE versions SET aliases = 'other default' WHERE model = 2 AND number = 2",
        "UPDATE models SET default_version = 2 WHERE key = 2",
        "UPDATE versions SET aliases = 'default' WHERE model = 3 AND number = 1",
    )
    alter(data, "UPDATE versions SET revision = 7 WHERE model = 3 AND number = 3")

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    fraud, later = (f"{PARENT}/models/{model}" for model in MODELS[1:])
    assert capsys.readouterr().out.splitlines() == [
        f"Lost: version 3 of {later}.",
        f"Changed: version 2 of {later} is its default version now.",
        f"Changed: version 2 of {CHURN} lost the alias 'newest', because version 3 has it.",
        f"Changed: version 1 of {CHURN} lost the alias 'champion', because version 2 has it.",
        f"Changed: version 3 of {fraud} lost the alias 'default', because version 2 has it.",
        f"Changed: version 1 of {later} lost the alias 'default', because version 2 has it.",
        f"What's intact of {data} is in {new}.",
    ]
    with Registry(new) as registry:
        for alias, number in (("newest", "3"), ("champion", "2"), ("default", "3")):
            request = types.GetModelRequest.pb()(name=f"{CHURN}@{alias}")
            assert registry.call("get_model", request).version_id == number


def test_a_default_version_without_its_alias_gets_it_back(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report says so."""
    new = data.with_name("new.db")
    rewrite(data, "UPDATE versions SET aliases = 'newest' WHERE model = 1 AND number = 3")

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    assert capsys.readouterr().out.splitlines() == [
        f"Changed: version 3 of {CHURN} has the alias 'default' again, because it's the default version.",
        f"What's intact of {data} is in {new}.",
    ]
    Registry(new).store.close()


def test_a_version_number_is_not_used_again_if_the_models_row_is_older(data: Path) -> None:
    """The next version comes after the newest."""
    new = data.with_name("new.db")
    rewrite(data, "UPDATE models SET last_version = 1", "DELETE FROM aliases")

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    with Registry(new) as registry:
        registry.upload("churn", under=True)
        assert registry.call("get_model", types.GetModelRequest.pb()(name=f"{CHURN}@4"))


def test_one_of_two_rows_with_the_same_name_is_lost(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row that was added later is saved. The same row twice is only one."""
    new = data.with_name("new.db")
    indexes = ("models_by_id", "versions_by_number")
    twice = (
        "INSERT INTO versions (model, number, aliases, create_time, update_time, revision, body)"
        " SELECT model, number, aliases, create_time, update_time, {}, body FROM versions"
        " WHERE model = 1 AND number = {}"
    )
    rewrite(data, *(f"DROP INDEX {index}" for index in indexes), twice.format(9, 1), twice.format("revision", 2))

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    assert capsys.readouterr().out.splitlines() == [
        f"Lost: another row of version 1 of {CHURN}.",
        "Not every row can be found, so more may be lost than is named here.",
        f"What's intact of {data} is in {new}.",
    ]
    with contextlib.closing(sqlite3.connect(new)) as file:
        assert file.execute("SELECT number, revision FROM versions WHERE model = 1 ORDER BY number").fetchall() == [
            (1, 9),
            (2, 2),
            (3, 2),
        ]


def test_a_page_that_cannot_be_read_loses_only_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows on both sides of it are saved, and the report says that others may be lost."""
    data, new = tmp_path / "registry.db", tmp_path / "new.db"
    with Registry(data) as registry:
        for number in range(100):
            registry.upload(f"m{number}", team="risk")
    with contextlib.closing(sqlite3.connect(data)) as file:
        pages = [
            page for (page,) in file.execute("SELECT pageno FROM dbstat WHERE name = 'models' AND pagetype = 'leaf'")
        ]
    middle = (pages[len(pages) // 2] - 1) * 4096
    content = data.read_bytes()
    data.write_bytes(content[:middle] + b"\xff" * 4096 + content[middle + 4096 :])

    assert main(["--data", str(data), "--recover", str(new)]) == 0

    assert "Not every row can be found, so more may be lost than is named here.\n" in capsys.readouterr().out
    with Registry(new) as registry:
        request = types.ListModelsRequest.pb()(parent=PARENT, page_size=1000)
        found = types.ListModelsResponse.pb().FromString(registry.call("list_models", request)).models
    names = {model.name.rpartition("/")[2] for model in found}
    assert {"m0", "m99"} < names
    assert 50 <= len(names) < 100  # a page has 40


def test_a_full_disk_leaves_no_half_of_a_file(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2, with a sentence, and the new file is removed."""
    new = data.with_name("new.db")
    with limited_files(150_000):
        assert main(["--data", str(data), "--recover", str(new)]) == 2

    assert re.match(rf"The data file {new} can't be written: .* Check that the disk", capsys.readouterr().err)
    assert list(data.parent.iterdir()) == [data]


def test_a_copy_that_does_not_fit_leaves_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2, with a sentence, and both the copy and the new file are removed."""
    data.write_bytes(data.read_bytes() + bytes(200_000))
    with limited_files(150_000):
        assert main(["--data", str(data), "--recover", str(data.with_name("new.db"))]) == 2

    why = f"The data file {data} can't be copied to {data.parent}: File too large. Check that you can read the file"
    assert capsys.readouterr().err.startswith(why)
    assert list(data.parent.iterdir()) == [data]


def test_what_cannot_be_saved_is_an_error_in_words(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A body that can't be read has the checksum of one that can."""
    rewrite(data, "UPDATE versions SET body = x'ff' WHERE model = 1 AND number = 1")

    assert main(["--data", str(data), "--recover", str(data.with_name("new.db"))]) == 2

    assert capsys.readouterr().err.startswith(f"The data file {data} is damaged: user-defined function raised")
    assert list(data.parent.iterdir()) == [data]


def test_a_file_is_only_saved_to_a_new_one(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 2, with a sentence, and neither file is touched."""
    (tmp_path / "taken").write_text("My notes.")
    for source, target, why in (
        (data, tmp_path / "taken", f"The file {tmp_path}/taken exists already. Name a new file"),
        (tmp_path / "lost", tmp_path / "new", f"The data file {tmp_path}/lost doesn't exist. Name the damaged file."),
        (tmp_path / "taken", tmp_path / "new", f"The data file {tmp_path}/taken isn't an SQLite database."),
        (tmp_path, tmp_path / "new", f"The data file {tmp_path} is a folder. Name a file in it"),
        (data, "", "The data file has no name."),
        (data, tmp_path / "nowhere" / "new", f"The data file {tmp_path}/nowhere/new can't be created"),
    ):
        assert main(["--data", str(source), "--recover", str(target)]) == 2
        assert capsys.readouterr().err.startswith(why)
    assert (tmp_path / "taken").read_text() == "My notes."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["registry.db", "taken"]
    with pytest.raises(SystemExit):
        main(["--recover", str(tmp_path / "new")])
