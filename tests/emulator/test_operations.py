"""Operations: how they start, finish, fail, and are polled, canceled, listed and deleted."""

from __future__ import annotations

import datetime as dt
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import types

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.longrunning import operations_pb2

    from vertex_registry.emulator import Emulator

    # Google's client takes dictionaries where its types name messages.
    Client = Any
    Start = Callable[..., Emulator]
    Connect = Callable[..., Client]
    Upload = Callable[..., str]
    MakeModel = Callable[..., dict[str, Any]]

TRANSPORTS = pytest.mark.parametrize("transport", ["grpc", "rest"])


def begin(client: Client, parent: str, model: dict[str, Any], **fields: Any) -> operations_pb2.Operation:
    """Start an upload."""
    operation: operations_pb2.Operation = client.upload_model(
        request={"parent": parent, "model": model, **fields}
    ).operation
    return operation


def finish(client: Client, operation: operations_pb2.Operation) -> operations_pb2.Operation:
    """Poll an operation until it's done."""
    while not operation.done:
        operation = client.get_operation({"name": operation.name})
    return operation


@TRANSPORTS
def test_an_operation_is_done_at_once(
    emulator: Emulator, connect: Connect, parent: str, model: MakeModel, transport: str
) -> None:
    """An operation is named under its model, has the upload's times, and says what was created."""
    client = connect(emulator, transport)

    operation = begin(client, parent, model(), model_id="mine")

    assert operation.done
    assert operation.name.startswith(f"{parent}/models/mine/operations/")
    response = types.UploadModelResponse.pb()()
    assert operation.response.Unpack(response)
    assert (response.model, response.model_version_id) == (f"{parent}/models/mine", "1")
    metadata = types.UploadModelOperationMetadata.pb()()
    assert operation.metadata.Unpack(metadata)
    created = client.get_model(name=f"{parent}/models/mine").create_time
    assert metadata.generic_metadata.create_time.ToDatetime() <= created.replace(tzinfo=None)
    assert client.get_operation({"name": operation.name}) == operation


@TRANSPORTS
def test_an_operation_is_done_after_so_many_polls(
    start: Start, connect: Connect, parent: str, model: MakeModel, transport: str
) -> None:
    """Until the last poll, the model doesn't exist, but its ID is taken."""
    client = connect(start(polls_until_done=3), transport)
    operation = begin(client, parent, model(), model_id="mine")
    assert not operation.done

    polls = [client.get_operation({"name": operation.name}).done for _ in range(2)]
    assert polls == [False, False]
    assert list(client.list_models(parent=parent)) == []
    assert client.get_operation({"name": operation.name}).done

    assert client.get_model(name=f"{parent}/models/mine").version_id == "1"


def test_reading_the_model_is_a_poll(start: Start, connect: Connect, parent: str, model: MakeModel) -> None:
    """A Get, a list of versions or an upload that names the model is a poll, from any client, even if it fails."""
    client = connect(start(polls_until_done=4))
    name = f"{parent}/models/mine"
    begin(client, parent, model(), model_id="mine")

    with pytest.raises(exceptions.NotFound):
        client.get_model(name=name)
    with pytest.raises(exceptions.AlreadyExists):
        begin(client, parent, model(), model_id="mine")
    with pytest.raises(exceptions.NotFound):
        client.list_model_versions(name=name)

    second = begin(client, parent, model(), parent_model=name)
    assert client.get_model(name=name).version_id == "1"
    assert not second.done


def test_a_list_that_names_the_model_is_a_poll(start: Start, connect: Connect, parent: str, model: MakeModel) -> None:
    """A list that names one model by its ID is a poll. A list of everything isn't."""
    client = connect(start(polls_until_done=2))
    begin(client, parent, model(), model_id="mine")

    def listed(text: str) -> int:
        return len(list(client.list_models(request={"parent": parent, "filter": text})))

    assert [listed(""), listed("model=other"), listed("model=mine")] == [0, 0, 0]
    assert [listed(""), listed("model=mine")] == [0, 1]


def test_no_other_request_is_a_poll(start: Start, connect: Connect, parent: str, model: MakeModel) -> None:
    """Changing, exporting, copying or deleting the model isn't a poll, nor is copying to where a model is created."""
    client = connect(start(polls_until_done=2, assume={"id-taken": "operation"}))
    name = f"{parent}/models/mine"
    explained = model(explanation_spec={"parameters": {"examples": {"neighbor_count": 3}}})
    finish(client, begin(client, parent, explained, model_id="mine"))
    finish(client, begin(client, parent, model(), parent_model=name))
    begun = [begin(client, parent, model(), parent_model=name), begin(client, parent, model(), model_id="made")]
    destination = {"artifact_destination": {"output_uri_prefix": "gs://bucket/exports"}}

    client.export_model(name=name, output_config=destination)
    client.copy_model({"parent": parent, "source_model": name})
    client.copy_model({"parent": parent, "source_model": name, "parent_model": name})
    client.copy_model({"parent": parent, "source_model": name, "model_id": "made"})
    client.update_explanation_dataset({"model": name, "examples": {"neighbor_count": 4}})
    client.update_model(model={"name": name, "description": "x"}, update_mask={"paths": ["description"]})
    client.merge_version_aliases(name=f"{name}@1", version_aliases=["gold"])
    client.import_model_evaluation(parent=name, model_evaluation={"display_name": "e"})
    client.delete_model_version(name=f"{name}@2")
    client.delete_model(name=name)

    for done in (False, True):
        assert [client.get_operation({"name": operation.name}).done for operation in begun] == [done] * 2


def test_a_poll_costs_the_same_however_much_is_under_way(
    start: Start, connect: Connect, parent: str, model: MakeModel
) -> None:
    """Polls that don't finish an operation are counted in one statement."""
    emulator = start(polls_until_done=100)
    client = connect(emulator)
    finish(client, begin(client, parent, model(), model_id="mine"))
    name = f"{parent}/models/mine"
    database = emulator._dispatcher._service._store._database

    def statements(under_way: int) -> int:
        for _ in range(under_way):
            begin(client, parent, model(), parent_model=name)
        traced: list[str] = []
        database.set_trace_callback(traced.append)
        client.get_model(name=name)
        database.set_trace_callback(None)
        return len(traced)

    assert statements(1) == statements(30)


def test_an_operation_that_fails_frees_the_id(start: Start, connect: Connect, parent: str, model: MakeModel) -> None:
    """Nothing is created, and the next upload can use the ID."""
    emulator = start(polls_until_done=2)
    client = connect(emulator)
    emulator.fail("UploadModel", "INTERNAL", when="operation", message="Out of luck.")
    operation = begin(client, parent, model(), model_id="mine")

    with pytest.raises(exceptions.AlreadyExists):
        begin(client, parent, model(), model_id="mine")
    failed = client.get_operation({"name": operation.name})

    assert (failed.done, failed.error.code, failed.error.message) == (True, 13, "Out of luck.")
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{parent}/models/mine")
    begin(client, parent, model(), model_id="mine")


def test_an_operation_fails_where_its_model_went(start: Start, connect: Connect, parent: str, model: MakeModel) -> None:
    """If the model is deleted, adding a version ends with NOT_FOUND, and so does a second deletion."""
    emulator = start(polls_until_done=1)
    client = connect(emulator)
    client.get_operation({"name": begin(client, parent, model(), model_id="mine").name})
    name = f"{parent}/models/mine"
    version = begin(client, parent, model(), parent_model=name)
    first, second = (client.delete_model(name=name).operation for _ in range(2))

    assert client.get_operation({"name": first.name}).done
    assert client.get_operation({"name": version.name}).error.code == 5
    assert client.get_operation({"name": second.name}).error.code == 5


def test_an_operation_is_for_the_model_that_it_began_with(
    start: Start, connect: Connect, parent: str, model: MakeModel
) -> None:
    """A later model with the same ID is another model. The first one's operation ends with NOT_FOUND."""
    client = connect(start(polls_until_done=4, assume={"default-delete": "move"}))
    name = f"{parent}/models/mine"

    finish(client, begin(client, parent, model(), model_id="mine"))
    finish(client, begin(client, parent, model(), parent_model=name))
    first = client.delete_model(name=name).operation
    later = [
        client.delete_model(name=name).operation,
        client.delete_model_version(name=f"{name}@1").operation,
        begin(client, parent, model(), parent_model=name),
    ]
    assert finish(client, first).HasField("response")
    assert finish(client, begin(client, parent, model(), model_id="mine")).HasField("response")

    assert [finish(client, operation).error.code for operation in later] == [5, 5, 5]
    assert [version.version_id for version in client.list_model_versions(name=name)] == ["1"]


def test_a_copy_is_of_the_model_that_it_began_with(
    start: Start, connect: Connect, parent: str, model: MakeModel
) -> None:
    """A later model with the source's name is another model, even if the clock doesn't move: NOT_FOUND."""
    client = connect(start(polls_until_done=3, now=lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))

    finish(client, begin(client, parent, model(), model_id="source"))
    copied = client.copy_model(
        {"parent": parent, "source_model": f"{parent}/models/source", "model_id": "copy"}
    ).operation
    finish(client, client.delete_model(name=f"{parent}/models/source").operation)
    finish(client, begin(client, parent, model(), model_id="source"))

    assert finish(client, copied).error.code == 5


def test_an_operation_is_for_the_version_that_it_began_with(
    start: Start, connect: Connect, parent: str, model: MakeModel
) -> None:
    """If its version is deleted, an operation ends with NOT_FOUND, even if an alias named it."""
    client = connect(start(polls_until_done=9, assume={"default-delete": "move"}))
    name = f"{parent}/models/mine"
    examples = {"parameters": {"examples": {"neighbor_count": 3}}}
    finish(client, begin(client, parent, model(explanation_spec=examples), model_id="mine"))
    finish(client, begin(client, parent, model(), parent_model=name))
    destination = {"artifact_destination": {"output_uri_prefix": "gs://bucket/exports"}}
    later = [
        client.export_model(name=name, output_config=destination).operation,
        client.copy_model({"parent": parent, "source_model": name, "model_id": "copy"}).operation,
        client.update_explanation_dataset({"model": name, "examples": {"neighbor_count": 4}}).operation,
        client.delete_model_version(name=f"{name}@default").operation,
    ]
    deleted = client.delete_model_version(name=f"{name}@1").operation
    assert finish(client, deleted).HasField("response")

    assert [finish(client, operation).error.code for operation in later] == [5, 5, 5, 5]


@TRANSPORTS
def test_an_operation_is_found_under_its_location(
    emulator: Emulator, connect: Connect, parent: str, model: MakeModel, transport: str
) -> None:
    """The operation's ID alone is enough, which is all that gcloud accepts. Its name stays the same."""
    client = connect(emulator, transport)
    operation = begin(client, parent, model(), model_id="mine")

    found = client.get_operation({"name": f"{parent}/operations/{operation.name.rpartition('/')[2]}"})

    assert found == operation


def test_an_operation_means_the_version_that_its_alias_had(
    start: Start, connect: Connect, parent: str, model: MakeModel
) -> None:
    """An alias that moves before the operation is done doesn't change its version."""
    client = connect(start(polls_until_done=1))
    name = f"{parent}/models/mine"
    for request in ({"model_id": "mine"}, {"parent_model": name}, {"parent_model": name}):
        made = begin(client, parent, model(version_aliases=["gold"]), **request)
        client.get_operation({"name": made.name})
    deleted = client.delete_model_version(name=f"{name}@gold").operation
    copied = client.copy_model(parent=parent, source_model=name).operation
    client.merge_version_aliases(name=f"{name}@2", version_aliases=["gold", "default"])

    client.get_operation({"name": copied.name})
    client.get_operation({"name": deleted.name})

    assert [version.version_id for version in client.list_model_versions(name=name)] == ["1", "2"]
    copy = client.get_model(name=copied.name.partition("/operations/")[0])
    assert copy.original_model_info.model == f"{name}@1"


def test_a_second_upload_of_an_id_loses_whatever_is_done_first(
    start: Start, connect: Connect, parent: str, model: MakeModel
) -> None:
    """id-taken=operation: the later operation fails, even if it's polled before the first one is done."""
    client = connect(start(polls_until_done=3, assume={"id-taken": "operation"}))
    first = begin(client, parent, model(display_name="first"), model_id="mine")
    second = begin(client, parent, model(display_name="second"), model_id="mine")

    for _ in range(3):
        last = client.get_operation({"name": second.name})
    assert last.error.code == 6
    for _ in range(2):
        done = client.get_operation({"name": first.name})
    assert done.done
    assert client.get_model(name=f"{parent}/models/mine").display_name == "first"


def test_waiting_polls_until_it_is_done(start: Start, connect: Connect, parent: str, model: MakeModel) -> None:
    """Waiting polls until the end. With a timeout of zero it polls once."""
    client = connect(start(polls_until_done=5), "rest")
    operation = begin(client, parent, model())

    impatient = client.wait_operation({"name": operation.name, "timeout": {"seconds": 0}})
    patient = client.wait_operation({"name": operation.name})

    assert not impatient.done
    assert patient.done


@TRANSPORTS
def test_an_operation_can_be_cancelled(
    start: Start, connect: Connect, parent: str, model: MakeModel, transport: str
) -> None:
    """A canceled operation ends with CANCELLED and does nothing. A finished one stays finished."""
    client = connect(start(polls_until_done=2), transport)
    operation = begin(client, parent, model(), model_id="mine")

    client.cancel_operation({"name": operation.name})
    client.cancel_operation({"name": operation.name})

    ended = client.get_operation({"name": operation.name})
    assert (ended.done, ended.error.code) == (True, 1)
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{parent}/models/mine")


@TRANSPORTS
def test_operations_are_listed_and_deleted(
    start: Start, connect: Connect, parent: str, model: MakeModel, transport: str
) -> None:
    """Operations are listed by location or by model, page by page. Deleting an operation finishes it."""
    client = connect(start(polls_until_done=3), transport)
    names = {begin(client, parent, model(), model_id=f"m{n}").name for n in range(5)}
    (of_first,) = (name for name in names if "/m0/" in name)

    (of_last,) = (name for name in names if "/m4/" in name)
    page = client.list_operations({"name": parent, "page_size": 3})
    rest = client.list_operations({"name": parent, "page_size": 3, "page_token": page.next_page_token})
    assert {operation.name for operation in [*page.operations, *rest.operations]} == names
    assert [operation.done for operation in client.list_operations({"name": parent}).operations] == [False] * 5
    own = client.list_operations({"name": f"{parent}/models/m0"}).operations
    assert [operation.name for operation in own] == [of_first]
    assert own[0].done

    client.delete_operation({"name": of_first})
    client.delete_operation({"name": of_last})
    assert client.get_model(name=f"{parent}/models/m4").name.endswith("/m4")

    with pytest.raises(exceptions.NotFound):
        client.get_operation({"name": of_first})
    assert client.list_operations({"name": f"{parent}/models/m0"}).operations == []


@TRANSPORTS
def test_an_evaluation_has_no_operations(
    start: Start, connect: Connect, parent: str, model: MakeModel, transport: str
) -> None:
    """Google's clients can list an evaluation's operations. The list is empty."""
    client = connect(start(), transport)
    operation = begin(client, parent, model(), model_id="m")
    evaluation = client.import_model_evaluation(
        parent=f"{parent}/models/m", model_evaluation={"display_name": "e"}
    ).name

    assert client.list_operations({"name": evaluation}).operations == []
    with pytest.raises(exceptions.NotFound):
        client.list_operations({"name": f"{parent}/models/m/evaluations/nobody"})
    with pytest.raises(exceptions.NotFound):
        client.get_operation({"name": f"{evaluation}/operations/{operation.name.rpartition('/')[2]}"})


@pytest.mark.parametrize("name", ["", "x", "projects/p/locations/l/operations/", "projects/p/operations/1"])
def test_the_name_of_an_operation_must_be_right(client: Client, name: str) -> None:
    """A malformed name is INVALID_ARGUMENT, any other that doesn't exist NOT_FOUND."""
    with pytest.raises(exceptions.InvalidArgument):
        client.get_operation({"name": name})
    with pytest.raises(exceptions.NotFound):
        client.get_operation({"name": "projects/p/locations/l/operations/1"})


def test_operations_under_way_survive_a_restart(
    start: Start, connect: Connect, parent: str, model: MakeModel, tmp_path: Any
) -> None:
    """A data file keeps the requests of operations, and how many polls are left."""
    data = tmp_path / "data"
    first = start(data, polls_until_done=2)
    operation = begin(connect(first), parent, model(), model_id="mine")
    assert not connect(first).get_operation({"name": operation.name}).done
    first.close()

    client = connect(start(data))

    assert client.get_model(name=f"{parent}/models/mine").version_id == "1"
    assert client.get_operation({"name": operation.name}).done


def test_a_copy_under_way_survives_in_an_older_file(
    start: Start, connect: Connect, parent: str, model: MakeModel, tmp_path: Any
) -> None:
    """Older files don't identify a copy's source. Then the copy is of the model that has the name now."""
    data = tmp_path / "data"
    first = start(data, polls_until_done=2)
    finish(connect(first), begin(connect(first), parent, model(), model_id="source"))
    request = {"parent": parent, "source_model": f"{parent}/models/source", "model_id": "copy"}
    copied = connect(first).copy_model(request).operation
    first.close()
    with sqlite3.connect(data) as ours:
        ours.execute("ALTER TABLE operations DROP COLUMN source")
        ours.execute("ALTER TABLE operations RENAME COLUMN polls_left TO looks")
        for table in ("models", "versions", "operations", "evaluations", "slices"):
            ours.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        ours.execute("PRAGMA user_version = 3")
    ours.close()

    client = connect(start(data))

    assert finish(client, copied).HasField("response")
    assert client.copy_model({**request, "model_id": "another"}).operation.HasField("response")
