"""Google's own generated clients, unchanged: v1 and v1beta1, over gRPC and REST, plain and asyncio.

Every test runs once with each of the eight clients. They're neither patched nor subclassed: documented constructor
arguments point them at the emulator.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

import google.auth.aio.credentials
import grpc
import pytest
from google.api_core import exceptions
from google.api_core.future.polling import DEFAULT_POLLING
from google.auth.credentials import AnonymousCredentials
from google.cloud import aiplatform_v1, aiplatform_v1beta1
from google.cloud.aiplatform_v1.services.model_service.transports import rest_base as v1_rules
from google.cloud.aiplatform_v1beta1.services.model_service.transports import rest_base as v1beta1_rules
from google.longrunning import operations_pb2

from vertex_registry.emulator import Emulator
from vertex_registry.emulator._dispatch import MODEL_SERVICE, RPCS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from vertex_registry.emulator._dispatch import Rpc

PROJECT: Final = "acme"
PARENT: Final = f"projects/{PROJECT}/locations/us-central1"
IMAGE: Final = "us-docker.pkg.dev/acme/images/serve:1"

#: Polling without delays, because the tests are about the answers, not about api_core's delays.
WITHOUT_DELAY: Final = DEFAULT_POLLING.with_delay(initial=0.001, maximum=0.001)


@dataclasses.dataclass
class Stock:
    """One of Google's clients, with the same interface for each."""

    api: ModuleType
    client: Any
    transport: str
    runner: asyncio.Runner | None

    def call(self, method: str, **request: Any) -> Any:
        """Return the response of an RPC. For a list, return every item on every page."""
        answer = getattr(self.client, method)(request=request)
        if self.runner is not None:
            return self.runner.run(self._read_all(answer))
        return list(answer) if hasattr(answer, "pages") else answer

    async def _read_all(self, answer: Any) -> Any:
        answer = await answer
        return [item async for item in answer] if hasattr(answer, "pages") else answer

    def result(self, operation: Any) -> Any:
        """Return the result of an operation."""
        if self.runner is not None:
            return self.runner.run(operation.result())
        return operation.result(polling=WITHOUT_DELAY)

    def upload(self, display_name: str = "churn", *, model: dict[str, Any] | None = None, **request: Any) -> Any:
        """Return the result of an upload."""
        body = {
            "display_name": display_name,
            "container_spec": {"image_uri": IMAGE},
            "artifact_uri": "gs://models/churn/1",
            **(model or {}),
        }
        return self.result(self.call("upload_model", parent=PARENT, model=body, **request))

    def get(self, name: str) -> Any:
        return self.call("get_model", name=name)


def _client(api: ModuleType, transport: str, emulator: Emulator) -> Any:
    service = __import__(f"{api.__name__}.services.model_service", fromlist=["transports"])
    if transport == "grpc":
        channel = grpc.insecure_channel(str(emulator.grpc))
        return api.ModelServiceClient(transport=service.transports.ModelServiceGrpcTransport(channel=channel))
    if transport == "grpc_asyncio":
        aio = grpc.aio.insecure_channel(str(emulator.grpc))
        return api.ModelServiceAsyncClient(transport=service.transports.ModelServiceGrpcAsyncIOTransport(channel=aio))
    options = {"api_endpoint": emulator.rest}
    if transport == "rest":
        return api.ModelServiceClient(
            transport="rest",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options=options,
        )
    return api.ModelServiceAsyncClient(
        transport="rest_asyncio",
        credentials=google.auth.aio.credentials.AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options=options,
    )


@pytest.fixture(
    name="stock",
    params=[
        pytest.param(
            (api, transport),
            id=f"{api.__name__.rpartition('_')[2]}-{transport}",
            # To count costs much, and for the emulator the others send the same.
            marks=[] if api is aiplatform_v1 and transport in {"grpc", "rest"} else [pytest.mark.unmeasured],
        )
        for api in (aiplatform_v1, aiplatform_v1beta1)
        for transport in ("grpc", "grpc_asyncio", "rest", "rest_asyncio")
    ],
)
def _stock(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Stock]:
    api, transport = request.param
    if not transport.endswith("asyncio"):
        client = _client(api, transport, emulator)
        yield Stock(api, client, transport, None)
        client.transport.close()
        return
    with asyncio.Runner() as runner:

        async def connect() -> Any:
            return _client(api, transport, emulator)

        client = runner.run(connect())
        yield Stock(api, client, transport, runner)
        runner.run(client.transport.close())


# --- uploads and reads -------------------------------------------------------


def test_an_upload_creates_a_model(stock: Stock) -> None:
    """A read and a list return the uploaded fields."""
    created = stock.upload(
        model={
            "description": "Who leaves?",
            "labels": {"team": "growth"},
            "version_description": "The first",
            "container_spec": {
                "image_uri": IMAGE,
                "ports": [{"container_port": 8080}],
                "env": [{"name": "A", "value": "B"}],
                "shared_memory_size_mb": 128,
                "deployment_timeout": {"seconds": 60},
            },
        }
    )
    model = stock.get(created.model)

    assert (model.display_name, model.description, model.version_description) == ("churn", "Who leaves?", "The first")
    assert dict(model.labels) == {"team": "growth"}
    assert model.artifact_uri == "gs://models/churn/1"
    assert model.container_spec.ports[0].container_port == 8080
    assert model.container_spec.shared_memory_size_mb == 128
    assert model.container_spec.deployment_timeout.total_seconds() == 60
    assert stock.call("list_models", parent=PARENT) == [model]


def test_an_uploaded_model_has_what_the_service_adds(stock: Stock) -> None:
    """A model has a resource name with two numbers, a version, the alias ``default``, times and an etag."""
    created = stock.upload()
    model = stock.get(created.model)

    assert created.model_version_id == model.version_id == "1"
    assert model.name == created.model
    assert model.name.startswith("projects/")
    assert model.name.split("/")[1].isdigit()
    assert model.name.split("/")[5].isdigit()
    assert list(model.version_aliases) == ["default"]
    assert model.create_time == model.version_create_time
    assert model.etag


def test_a_model_id_may_be_chosen_once(stock: Stock) -> None:
    """You can choose the model's ID. A second upload with the same ID is refused, and creates no version."""
    created = stock.upload(model_id="churn-1")

    assert created.model.endswith("/models/churn-1")
    with pytest.raises((exceptions.AlreadyExists, exceptions.Conflict)):
        stock.upload(model_id="churn-1")
    assert stock.get(created.model).version_id == "1"


def test_the_default_version_moves_only_when_asked(stock: Stock) -> None:
    """Only a version that's uploaded with the alias ``default`` becomes the default one."""
    model = stock.upload().model
    second = stock.upload(parent_model=model, model={"version_aliases": ["champion"]})
    assert (second.model, second.model_version_id) == (model, "2")
    assert stock.get(model).version_id == "1"

    stock.upload(parent_model=model, model={"version_aliases": ["new", "default"]})

    assert stock.get(model).version_id == "3"
    assert list(stock.get(f"{model}@3").version_aliases) == ["new", "default"]
    assert list(stock.get(f"{model}@1").version_aliases) == []
    assert list(stock.get(f"{model}@champion").version_aliases) == ["champion"]


def test_a_version_is_named_by_its_number(stock: Stock) -> None:
    """Reading a version by its ID or an alias returns a name with the version's ID. Reading the model doesn't."""
    model = stock.upload(model={"version_aliases": ["first"]}).model

    assert stock.get(f"{model}@1").name == stock.get(f"{model}@first").name == f"{model}@1"
    assert stock.get(model).name == model


def test_a_project_has_an_id_and_a_number(stock: Stock) -> None:
    """A name with the project's ID finds the model whose name has the project's number."""
    created = stock.upload(model_id="churn").model

    assert stock.get(f"{PARENT}/models/churn").name == created
    assert len(stock.call("list_models", parent=created.rpartition("/models/")[0])) == 1


def test_a_missing_name_is_not_found(stock: Stock) -> None:
    """A missing model, version or alias is NOT_FOUND, for reads and for writes."""
    model = stock.upload().model

    for name in (f"{PARENT}/models/none", f"{model}@2", f"{model}@none"):
        with pytest.raises(exceptions.NotFound):
            stock.get(name)
    for name in (f"{PARENT}/models/none@1", f"{model}@2", f"{model}@none"):
        with pytest.raises(exceptions.NotFound):
            stock.call("merge_version_aliases", name=name, version_aliases=["x-y"])


def test_a_refused_upload_says_which_fields_are_wrong(stock: Stock) -> None:
    """The error is INVALID_ARGUMENT, with every wrong field in its message and in a BadRequest."""
    with pytest.raises((exceptions.InvalidArgument, exceptions.BadRequest)) as caught:
        stock.upload(display_name="", model={"labels": {"UPPER": "x"}})

    assert "List of found errors:\t1.Field: model.display_name; Message: " in caught.value.message
    (detail,) = caught.value.details
    # Over REST, api_core doesn't parse the details.
    found = detail["fieldViolations"] if isinstance(detail, dict) else detail.field_violations
    fields = [each["field"] if isinstance(each, dict) else each.field for each in found]
    assert fields == ["model.display_name", "model.labels"]


# --- lists -------------------------------------------------------------------


def test_a_list_has_pages(stock: Stock) -> None:
    """The pager returns each model once and in order, even with small pages."""
    names = [f"m{number}" for number in range(5)]
    for name in names:
        stock.upload(name, model={"labels": {"odd": str(int(name[1]) % 2)}})

    for size in (1, 2, 5, 100):
        found = stock.call("list_models", parent=PARENT, page_size=size)
        assert [model.display_name for model in found] == names[::-1]
    found = stock.call("list_models", parent=PARENT, page_size=1, filter="labels.odd=1")
    assert [model.display_name for model in found] == ["m3", "m1"]


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_a_list_is_ordered(emulator: Emulator, transport: str) -> None:
    """Lists can be ordered by several fields, across pages, each in its direction. v1beta1 can't order models."""
    stock = Stock(aiplatform_v1, _client(aiplatform_v1, transport, emulator), transport, None)
    created = [stock.upload(name).model for name in ("b", "a", "b", "A")]

    def listed(order_by: str) -> list[int]:
        found = stock.call("list_models", parent=PARENT, page_size=1, order_by=order_by)
        return [created.index(model.name) for model in found]

    assert listed("display_name, create_time desc") == [3, 1, 2, 0]
    assert listed("displayName desc, createTime") == [0, 2, 1, 3]
    assert listed("create_time") == [0, 1, 2, 3]
    stock.call("update_model", model={"name": created[1], "description": "x"}, update_mask={"paths": ["description"]})
    assert listed("update_time desc")[0] == 1
    assert "order_by" not in aiplatform_v1beta1.ListModelsRequest.meta.fields
    stock.client.transport.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('display_name="a b"', {"a b"}),
        ('displayName!="a b"', {"c"}),
        ("labels.team=growth", {"a b"}),
        ("labels.team:*", {"a b", "c"}),
        ("labels:team AND labels.team=sales", {"c"}),
        ("model=m-1", {"a b"}),
        ("model!=m-1", {"c"}),
        ('baseModelName="text-bison"', {"c"}),
        ("labels:other", set()),
    ],
)
def test_a_list_is_filtered(stock: Stock, text: str, expected: set[str]) -> None:
    """Every form of the documented filter grammar works."""
    stock.upload("a b", model_id="m-1", model={"labels": {"team": "growth"}})
    stock.upload(
        "c",
        model={
            "labels": {"team": "sales"},
            "base_model_source": {"model_garden_source": {"public_model_name": "text-bison"}},
        },
    )

    assert {model.display_name for model in stock.call("list_models", parent=PARENT, filter=text)} == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"filter": "display_name=a OR display_name=b"},
        {"filter": "create_time=1"},
        {"page_size": -1},
        {"page_token": "garbage"},
        {"read_mask": {"paths": ["nonsense"]}},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_an_invalid_list_is_refused(stock: Stock, arguments: dict[str, Any]) -> None:
    """An invalid filter, page or mask is INVALID_ARGUMENT."""
    with pytest.raises((exceptions.InvalidArgument, exceptions.BadRequest)):
        stock.call("list_models", parent=PARENT, **arguments)


def test_a_read_mask_leaves_out_the_rest(stock: Stock) -> None:
    """Every model in the list only has the fields that the mask names."""
    stock.upload()
    (model,) = stock.call(
        "list_models", parent=PARENT, read_mask={"paths": ["display_name", "container_spec.image_uri"]}
    )

    assert model == stock.api.Model(display_name="churn", container_spec={"image_uri": IMAGE})


def test_a_list_of_models_shows_the_default_versions(stock: Stock) -> None:
    """A model is listed once, as its default version."""
    model = stock.upload().model
    stock.upload(parent_model=model, model={"version_aliases": ["default"]})
    stock.upload(parent_model=model)

    (listed,) = stock.call("list_models", parent=PARENT)
    assert (listed.name, listed.version_id) == (model, "2")


def test_versions_are_listed_oldest_first(stock: Stock) -> None:
    """Versions are listed in the order of upload, or by time in either order. Their names contain their IDs."""
    model = stock.upload(model={"labels": {"odd": "1"}}).model
    for number in range(2, 12):
        stock.upload(parent_model=model, model={"labels": {"odd": str(number % 2)}})
    expected = [str(number) for number in range(1, 12)]

    found = stock.call("list_model_versions", name=model, page_size=4)
    assert [version.version_id for version in found] == expected
    assert [version.name for version in found] == [f"{model}@{number}" for number in expected]
    found = stock.call("list_model_versions", name=model, order_by="create_time desc", page_size=3)
    assert [version.version_id for version in found] == expected[::-1]
    found = stock.call("list_model_versions", name=model, filter="labels.odd=1", page_size=2)
    assert [version.version_id for version in found] == expected[::2]


# --- changes -----------------------------------------------------------------


def test_a_model_is_updated_field_by_field(stock: Stock) -> None:
    """Only the fields that the mask names change, and the etag."""
    model = stock.upload(model={"description": "old"}).model
    before = stock.get(model)
    answer = stock.call(
        "update_model",
        model={"name": model, "display_name": "renamed", "description": ""},
        update_mask={"paths": ["description"]},
    )

    assert (answer.display_name, answer.description) == ("churn", "")
    assert answer.etag != before.etag
    assert answer.update_time > before.update_time
    assert stock.get(model) == answer


def test_labels_have_two_layers(stock: Stock) -> None:
    """Updating a model's name sets the model's labels, and a version's name the version's. Reads show both merged."""
    model = stock.upload(model={"labels": {"mine": "1"}}).model
    mask = {"paths": ["labels"]}
    stock.call("update_model", model={"name": model, "labels": {"shared": "m", "model": "m"}}, update_mask=mask)
    stock.upload(parent_model=model)

    answer = stock.call("update_model", model={"name": f"{model}@2", "labels": {"shared": "v"}}, update_mask=mask)

    assert dict(answer.labels) == {"shared": "v", "model": "m"}
    assert dict(stock.get(f"{model}@1").labels) == {"mine": "1", "shared": "m", "model": "m"}


def test_model_and_version_fields_do_not_mix(stock: Stock) -> None:
    """Updating a version's description by the model's name, or the reverse, is a failed precondition."""
    model = stock.upload().model
    body = {"display_name": "x", "version_description": "y"}

    for name, path in ((model, "version_description"), (f"{model}@1", "display_name")):
        with pytest.raises((exceptions.FailedPrecondition, exceptions.BadRequest)):
            stock.call("update_model", model={"name": name, **body}, update_mask={"paths": [path]})
    with pytest.raises(exceptions.BadRequest):
        stock.call("update_model", model={"name": model, **body}, update_mask={"paths": list(body)})
    assert stock.get(model).display_name == "churn"


def test_a_stale_etag_is_refused(stock: Stock) -> None:
    """Of two updates with the same etag, the second is a conflict. An update without an etag overwrites."""
    model = stock.get(stock.upload().model)
    mask = {"paths": ["description"]}
    stock.call("update_model", model={"name": model.name, "etag": model.etag, "description": "1"}, update_mask=mask)

    with pytest.raises(exceptions.Conflict):
        stock.call("update_model", model={"name": model.name, "etag": model.etag, "description": "2"}, update_mask=mask)
    answer = stock.call("update_model", model={"name": model.name, "description": "3"}, update_mask=mask)
    assert answer.description == "3"


def test_aliases_move_between_versions(stock: Stock) -> None:
    """An alias belongs to one version: adding it moves it, ``-alias`` removes it, and ``default`` stays."""
    model = stock.upload(model={"version_aliases": ["champion"]}).model
    stock.upload(parent_model=model)

    answer = stock.call("merge_version_aliases", name=f"{model}@2", version_aliases=["champion", "default"])
    assert set(answer.version_aliases) == {"champion", "default"}
    assert list(stock.get(f"{model}@1").version_aliases) == []
    stock.call("merge_version_aliases", name=f"{model}@champion", version_aliases=["-champion"])
    with pytest.raises(exceptions.NotFound):
        stock.get(f"{model}@champion")
    with pytest.raises(exceptions.BadRequest):
        stock.call("merge_version_aliases", name=f"{model}@2", version_aliases=["-default"])
    assert stock.get(model).version_id == "2"


def test_versions_and_models_are_deleted(stock: Stock) -> None:
    """A version can be deleted unless it's the only one. A model is deleted with everything it has."""
    model = stock.upload().model
    stock.upload(parent_model=model)
    stock.result(stock.call("delete_model_version", name=f"{model}@2"))
    assert [version.version_id for version in stock.call("list_model_versions", name=model)] == ["1"]

    with pytest.raises((exceptions.FailedPrecondition, exceptions.BadRequest)):
        stock.result(stock.call("delete_model_version", name=f"{model}@1"))
    assert stock.upload(parent_model=model).model_version_id == "3"
    stock.result(stock.call("delete_model", name=model))

    with pytest.raises(exceptions.NotFound):
        stock.get(model)
    assert stock.call("list_models", parent=PARENT) == []


def test_a_copy_names_its_source(stock: Stock) -> None:
    """A copy can be in another location. It doesn't have the original's aliases, and it names the original."""
    source = stock.upload(model={"version_aliases": ["champion"], "labels": {"team": "growth"}}).model
    parent = f"projects/{PROJECT}/locations/europe-west4"
    created = stock.result(
        stock.call("copy_model", parent=parent, source_model=f"{source}@champion", model_id="copied")
    )
    copy = stock.get(created.model)

    assert created.model.endswith("/locations/europe-west4/models/copied")
    assert list(copy.version_aliases) == ["default"]
    assert copy.display_name == "churn"
    assert copy.model_source_info.copy
    assert copy.original_model_info.model == f"{source}@1"
    created = stock.result(stock.call("copy_model", parent=parent, source_model=source, parent_model=copy.name))
    assert created.model_version_id == "2"


def test_an_export_succeeds(stock: Stock) -> None:
    """An export's operation succeeds, and its metadata says where the artifacts would be."""
    model = stock.upload().model
    operation = stock.call(
        "export_model",
        name=model,
        output_config={
            "export_format_id": "custom-trained",
            "artifact_destination": {"output_uri_prefix": "gs://exports/here"},
        },
    )

    assert stock.result(operation) == stock.api.ExportModelResponse()
    assert operation.metadata.output_info.artifact_output_uri.startswith("gs://exports/here/model-export-churn-")


def test_checkpoints_are_listed(stock: Stock) -> None:
    """The list is empty, because only tuned versions have checkpoints."""
    model = stock.upload().model

    assert stock.call("list_model_version_checkpoints", name=f"{model}@1") == []
    with pytest.raises(exceptions.NotFound):
        stock.call("list_model_version_checkpoints", name=f"{model}@2")


def test_the_explanation_dataset_is_updated(stock: Stock) -> None:
    """You can update a model's examples if it has any."""
    explanation_spec = {"parameters": {"examples": {"neighbor_count": 5}}, "metadata": {}}
    model = stock.upload(model={"explanation_spec": explanation_spec}).model
    examples = {"example_gcs_source": {"gcs_source": {"uris": ["gs://examples/1.jsonl"]}}, "neighbor_count": 5}
    operation = stock.call("update_explanation_dataset", model=model, examples=examples)

    assert stock.result(operation) == stock.api.UpdateExplanationDatasetResponse()
    other = stock.upload().model
    with pytest.raises((exceptions.FailedPrecondition, exceptions.BadRequest)):
        stock.result(stock.call("update_explanation_dataset", model=other, examples=examples))


def test_evaluations_and_their_slices(stock: Stock) -> None:
    """An evaluation is imported, read and listed, and so are its slices."""
    model = stock.upload().model
    created = stock.call(
        "import_model_evaluation",
        parent=model,
        model_evaluation={"display_name": "test set", "metrics": {"auPrc": 0.9}, "metrics_schema_uri": "gs://s/m.yaml"},
    )
    assert created.name.startswith(f"{model}/evaluations/")
    assert stock.call("get_model_evaluation", name=created.name) == created
    assert stock.call("list_model_evaluations", parent=model) == [created]
    answer = stock.call(
        "batch_import_model_evaluation_slices",
        parent=created.name,
        model_evaluation_slices=[
            {"slice_": {"dimension": "annotationSpec", "value": "yes"}, "metrics": {"auPrc": 0.8}},
            {"slice_": {"dimension": "slice", "value": "no"}, "metrics": {"auPrc": 0.7}},
        ],
    )

    assert len(answer.imported_model_evaluation_slices) == 2
    slices = stock.call("list_model_evaluation_slices", parent=created.name)
    assert {item.name for item in slices} == set(answer.imported_model_evaluation_slices)
    assert stock.call("get_model_evaluation_slice", name=slices[0].name) == slices[0]
    found = stock.call("list_model_evaluation_slices", parent=created.name, filter="slice.dimension=slice")
    assert [item.slice_.value for item in found] == ["no"]
    counted = stock.call(
        "batch_import_evaluated_annotations", parent=slices[0].name, evaluated_annotations=[{"type_": 1}]
    )
    assert counted.imported_evaluated_annotations_count == 1


# --- operations --------------------------------------------------------------


def test_an_operation_is_named_under_its_model(stock: Stock) -> None:
    """You can read, list and delete an upload's operation. Its metadata has the client's API version."""
    operation = stock.call(
        "upload_model", parent=PARENT, model={"display_name": "churn", "container_spec": {"image_uri": IMAGE}}
    )
    name = operation.operation.name
    model = stock.result(operation).model

    assert name.startswith(f"{model}/operations/")
    assert isinstance(operation.metadata, stock.api.UploadModelOperationMetadata)
    assert operation.metadata.generic_metadata.create_time
    assert stock.call("get_operation", name=name).done
    listed = stock.call("list_operations", name=model)
    assert [each.name for each in listed.operations] == [name]
    stock.call("delete_operation", name=name)
    with pytest.raises(exceptions.NotFound):
        stock.call("get_operation", name=name)


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_an_operation_takes_the_configured_polls(transport: str) -> None:
    """Until the operation is done, the ID is reserved, but the model doesn't exist. Polls of all clients count."""
    with Emulator(polls_until_done=4) as emulator:
        stock = Stock(aiplatform_v1, _client(aiplatform_v1, transport, emulator), transport, None)
        body = {"display_name": "churn", "container_spec": {"image_uri": IMAGE}}
        operation = stock.call("upload_model", parent=PARENT, model_id="churn", model=body)
        assert not operation.operation.done

        with pytest.raises(exceptions.NotFound):
            stock.get(f"{PARENT}/models/churn")
        with pytest.raises(exceptions.Conflict):
            stock.call("upload_model", parent=PARENT, model_id="churn", model=body)
        assert stock.call("list_models", parent=PARENT) == []
        assert not stock.call("get_operation", name=operation.operation.name).done
        assert stock.call("get_operation", name=operation.operation.name).done

        assert operation.result(polling=WITHOUT_DELAY).model_version_id == "1"
        assert stock.get(f"{PARENT}/models/churn").version_id == "1"
        deleting = stock.call("delete_model", name=f"{PARENT}/models/churn")
        stock.client.cancel_operation({"name": deleting.operation.name})
        with pytest.raises(exceptions.GoogleAPICallError):
            deleting.result(polling=WITHOUT_DELAY)
        assert stock.get(f"{PARENT}/models/churn").version_id == "1"
        stock.client.transport.close()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_waiting_ends_an_operation(transport: str) -> None:
    """WaitOperation finishes the operation and returns it."""
    with Emulator(polls_until_done=4) as emulator:
        stock = Stock(aiplatform_v1, _client(aiplatform_v1, transport, emulator), transport, None)
        body = {"display_name": "churn", "container_spec": {"image_uri": IMAGE}}
        operation = stock.call("upload_model", parent=PARENT, model=body)

        waited = stock.call("wait_operation", name=operation.operation.name)

        # Over gRPC, Google's client doesn't parse this response.
        answer = operations_pb2.Operation.FromString(waited) if isinstance(waited, bytes) else waited
        assert answer.done
        assert operation.result(polling=WITHOUT_DELAY).model_version_id == "1"
        stock.client.transport.close()


def test_locations_exist(stock: Stock) -> None:
    """You can read and list locations."""
    location = stock.call("get_location", name=PARENT)
    listed = stock.call("list_locations", name=f"projects/{PROJECT}")

    assert location.location_id == "us-central1"
    assert "us-central1" in {each.location_id for each in listed.locations}


def test_an_unsupported_rpc_is_unimplemented(stock: Stock) -> None:
    """The emulator has no access policies, so the error is UNIMPLEMENTED."""
    model = stock.upload().model

    with pytest.raises((exceptions.MethodNotImplemented, exceptions.NotFound)):
        stock.call("get_iam_policy", resource=model)


# --- the RPC table against Google's -----------------------------------------

RULES: Final = {
    "v1": v1_rules._BaseModelServiceRestTransport,
    "v1beta1": v1beta1_rules._BaseModelServiceRestTransport,
}
#: RPCs of Google's client that the emulator doesn't implement: access policies, and a recommendation.
UNIMPLEMENTED: Final = {"GetIamPolicy", "SetIamPolicy", "TestIamPermissions", "RecommendSpec"}
#: The path templates of shared services that are about locations, models and operations.
ABOUT_MODELS: Final = re.compile(r"\{name=projects/\*(/locations/\*(/models/\*)?(/operations/\*)?)?\}")
#: The operations of a location. Google's reference has them, but the generated client doesn't.
ONLY_IN_THE_REFERENCE: Final = {("GET", "{name=projects/*/locations/*}/operations", "")}


def google_rules(api: str, rpc: str) -> set[tuple[str, str, str]]:
    """Return the HTTP bindings of an RPC in Google's generated REST transport, without the version."""
    options = getattr(RULES[api], f"_Base{rpc}")._get_http_options()
    return {
        (
            option["method"].upper(),
            option["uri"].removeprefix(f"/{api}/").removeprefix("/ui/"),
            option.get("body") or "",
        )
        for option in options
    }


@pytest.mark.parametrize("api", ["v1", "v1beta1"])
@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
def test_each_row_of_the_table_has_googles_bindings(api: str, rpc: Rpc) -> None:
    """Every RPC has Google's verb, path and body. Shared services are served for models and operations."""
    ours = {(http.verb, http.path, http.body) for http in rpc.http}
    googles = google_rules(api, rpc.name)

    if rpc.service == MODEL_SERVICE:
        assert ours == googles
    else:
        assert ours <= googles | ONLY_IN_THE_REFERENCE
        assert {rule for rule in googles if ABOUT_MODELS.match(rule[1])} <= ours


@pytest.mark.parametrize("api", ["v1", "v1beta1"])
def test_every_rpc_of_the_client_has_a_row(api: str) -> None:
    """Every RPC of Google's client is in the table, except those in UNIMPLEMENTED."""
    googles = {name.removeprefix("_Base") for name in vars(RULES[api]) if name.startswith("_Base")}

    assert googles - {rpc.name for rpc in RPCS} == UNIMPLEMENTED & googles
