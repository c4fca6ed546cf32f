"""What each RPC of the model service does, called with Google's own client."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud.aiplatform_v1 import types
from google.protobuf import field_mask_pb2
from google.protobuf.json_format import ParseError

from vertex_registry.emulator._locations import LOCATIONS
from vertex_registry.emulator._names import project_number
from vertex_registry.emulator._switches import SWITCHES, parse_assumptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.protobuf import struct_pb2

    from vertex_registry.emulator import Emulator

    # Google's client takes dictionaries where its types name messages.
    Client = Any
    Start = Callable[..., Emulator]
    Connect = Callable[..., Client]
    Upload = Callable[..., str]
    MakeModel = Callable[..., dict[str, Any]]


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


def violations(error: BaseException) -> list[str]:
    """Return the fields that a BadRequest names."""
    assert isinstance(error, exceptions.InvalidArgument)
    assert error.message.startswith("List of found errors:\t1.Field: ")
    assert error.message.endswith(".\t")
    return [violation.field for violation in error.details[0].field_violations]


# --- UploadModel -------------------------------------------------------------

# What no container can be: the field that is named, and the field that is wrong.
CONTAINERS: list[tuple[str, dict[str, Any]]] = [
    ("deployment_timeout", {"deployment_timeout": dt.timedelta(seconds=7201)}),
    ("deployment_timeout", {"deployment_timeout": dt.timedelta(0)}),
    ("deployment_timeout", {"deployment_timeout": dt.timedelta(seconds=-5)}),
    ("ports", {"ports": [{"container_port": 8080}, {"container_port": 0}]}),
    ("ports", {"ports": [{"container_port": 65536}]}),
    ("grpc_ports", {"grpc_ports": [{"container_port": -1}]}),
    ("shared_memory_size_mb", {"shared_memory_size_mb": -1}),
    ("startup_probe.period_seconds", {"startup_probe": {"period_seconds": -4}}),
    ("health_probe.timeout_seconds", {"health_probe": {"timeout_seconds": -1}}),
    ("liveness_probe.failure_threshold", {"liveness_probe": {"failure_threshold": -1}}),
    ("startup_probe.http_get.port", {"startup_probe": {"http_get": {"path": "/", "port": 65536}}}),
    ("health_probe.tcp_socket.port", {"health_probe": {"tcp_socket": {"port": -1}}}),
    ("liveness_probe.grpc.port", {"liveness_probe": {"grpc": {"port": 70000}}}),
]


def test_a_first_version_is_the_default_one(client: Client, upload: Upload) -> None:
    """Version 1 gets the alias default, after its other aliases, which keep their order."""
    name = upload(client, version_aliases=["beta", "alpha"])

    model = client.get_model(name=name)

    assert model.version_id == "1"
    assert list(model.version_aliases) == ["beta", "alpha", "default"]


def test_a_later_version_is_the_default_one_if_it_asks(client: Client, upload: Upload) -> None:
    """The default alias stays where it is unless the upload asks for it. Then it moves."""
    bare = upload(client).partition("@")[0]

    second = upload(client, under=bare)
    assert client.get_model(name=bare).version_id == "1"
    third = upload(client, under=bare, version_aliases=["default", "x9"])

    assert second == f"{bare}@2"
    assert third == f"{bare}@3"
    assert client.get_model(name=bare).version_id == "3"
    assert [list(version.version_aliases) for version in client.list_model_versions(name=bare)] == [
        [],
        [],
        ["default", "x9"],
    ]


def test_equal_display_names_are_two_models(client: Client, upload: Upload, parent: str) -> None:
    """A display name isn't a key: two uploads create two models, each at version 1."""
    first, second = upload(client), upload(client)

    assert first != second
    assert {model.version_id for model in client.list_models(parent=parent)} == {"1"}


def test_a_model_id_is_taken_once(client: Client, upload: Upload, parent: str) -> None:
    """You can choose the model's ID. A second upload with it is ALREADY_EXISTS, and creates no version."""
    assert upload(client, model_id="my_model-1") == f"{parent}/models/my_model-1@1"

    with pytest.raises(exceptions.AlreadyExists):
        upload(client, model_id="my_model-1")

    assert len(list(client.list_model_versions(name=f"{parent}/models/my_model-1"))) == 1


def test_a_bare_id_is_a_parent_model(client: Client, upload: Upload, parent: str) -> None:
    """The parent model may be a bare id, as gcloud sends it."""
    upload(client, model_id="mine")

    assert upload(client, under="mine") == f"{parent}/models/mine@2"


def test_a_parent_model_must_exist(client: Client, upload: Upload, parent: str) -> None:
    """A version can't be added to a model that doesn't exist."""
    with pytest.raises(exceptions.NotFound):
        upload(client, under=f"{parent}/models/nobody")


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("model.display_name", {"display_name": ""}),
        ("model.display_name", {"display_name": "x" * 129}),
        ("model.labels", {"labels": {f"k{n}": "" for n in range(65)}}),
        ("model.labels", {"labels": {"": "v"}}),
        ("model.labels", {"labels": {"-k": "v"}}),
        ("model.labels", {"labels": {"k" * 64: "v"}}),
        ("model.labels", {"labels": {"k": "v" * 64}}),
        ("model.labels", {"labels": {"k": "界" * 43}}),
        ("model.labels", {"labels": {"k": "Upper"}}),
        ("model.labels", {"labels": {"k.k": "v"}}),
        ("model.version_aliases", {"version_aliases": ["v1.0"]}),
        ("model.version_aliases", {"version_aliases": ["x"]}),
        ("model.version_aliases", {"version_aliases": ["2"]}),
        ("model.version_aliases", {"version_aliases": ["Prod"]}),
        ("model.version_aliases", {"version_aliases": ["a" * 129]}),
        ("model.container_spec.image_uri", {"container_spec": None}),
        ("model.container_spec.image_uri", {"container_spec": {"command": ["serve"]}}),
        ("model.container_spec.image_uri", {"container_spec": {"image_uri": "  "}}),
        *(
            (f"model.container_spec.{field}", {"container_spec": {"image_uri": "x", **spec}})
            for field, spec in CONTAINERS
        ),
        ("model.labels", {"labels": {"k": "①"}}),
        ("model.labels", {"labels": {"k": "x²"}}),
        ("model.labels", {"labels": {"²k": "x"}}),
        ("model.labels", {"labels": {"k": "ǅ"}}),
        ("model.artifact_uri", {"artifact_uri": "gs://bucket/churn\n"}),
        ("model.artifact_uri", {"artifact_uri": "gs://bucket/chu\x00rn"}),
        ("model.artifact_uri", {"artifact_uri": "s3://bucket/churn"}),
        ("model.artifact_uri", {"artifact_uri": "gs://B/churn"}),
        ("model.artifact_uri", {"artifact_uri": "gs://bucket//churn"}),
        (
            "model.artifact_uri",
            {
                "artifact_uri": "",
                "container_spec": {"image_uri": "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest"},
            },
        ),
        ("model.encryption_spec.kms_key_name", {"encryption_spec": {"kms_key_name": "key"}}),
        (
            "model.encryption_spec.kms_key_name",
            {"encryption_spec": {"kms_key_name": "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"}},
        ),
        ("model", {"metadata": float("nan"), "metadata_schema_uri": "gs://bucket/schema.yaml"}),
    ],
)
def test_an_invalid_upload_is_refused(
    client: Client, upload: Upload, parent: str, field: str, fields: dict[str, Any]
) -> None:
    """Every invalid field of a model is named in the error, and nothing is created."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        upload(client, **fields)

    assert violations(caught.value) == [field]
    assert list(client.list_models(parent=parent)) == []


@pytest.mark.parametrize("model_id", ["1x", "-x", "X", "a.b", "a" * 64])
def test_a_model_id_must_be_right(client: Client, upload: Upload, model_id: str) -> None:
    """A model id has 63 characters of [a-z0-9_-], and doesn't begin with a number or a hyphen."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        upload(client, model_id=model_id)

    assert violations(caught.value) == ["model_id"]


def test_all_mistakes_are_reported_at_once(client: Client, parent: str) -> None:
    """The message numbers the mistakes. Each one is also a field violation."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.upload_model(request={"parent": parent, "model_id": "X", "parent_model": "y", "model": {}})

    assert violations(caught.value) == ["model_id", "model_id", "model.display_name", "model.container_spec.image_uri"]
    assert "\t4.Field: model.container_spec.image_uri; Message: Required field is not set.\t" in caught.value.message


@pytest.mark.parametrize("parent", ["", "projects/p", "projects/p/locations/US", "locations/us-central1"])
def test_a_parent_must_be_a_location(client: Client, model: MakeModel, parent: str) -> None:
    """For a malformed parent, the error is INVALID_ARGUMENT and names the parent."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.upload_model(parent=parent, model=model())

    assert violations(caught.value) == ["parent"]


@pytest.mark.parametrize(
    "parent_model",
    ["projects/4711/locations/us-central1/models/m@1", "projects/4711/locations/europe-west4/models/m", "a b", "x/y"],
)
def test_a_parent_model_is_a_bare_name_in_the_same_place(client: Client, upload: Upload, parent_model: str) -> None:
    """A version in the name, another location or no name at all is refused."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        upload(client, under=parent_model)

    assert violations(caught.value) == ["parent_model"]


def test_a_container_at_its_limits_is_kept(client: Client, upload: Upload) -> None:
    """The longest timeout, the first and the last port, and unset fields are accepted."""
    name = upload(
        client,
        container_spec={
            "image_uri": "x",
            "deployment_timeout": dt.timedelta(seconds=7200),
            "ports": [{"container_port": 1}, {"container_port": 65535}],
            "health_probe": {"period_seconds": 1},
        },
    )

    spec = client.get_model(name=name).container_spec
    assert spec.deployment_timeout == dt.timedelta(hours=2)
    assert [port.container_port for port in spec.ports] == [1, 65535]


def test_labels_at_their_limits_are_kept(client: Client, upload: Upload) -> None:
    """64 labels of 63 characters, letters of other scripts and empty values are accepted."""
    labels = {f"{n:02}" + "k" * 61: "v" * 63 for n in range(62)} | {"clé": "é" * 63, "3": ""}

    name = upload(client, labels=labels)

    assert dict(client.get_model(name=name).labels) == labels


def test_what_is_output_only_is_ignored(client: Client, upload: Upload) -> None:
    """Names, times, etags and the like in an upload are ignored. The encryption key is kept."""
    key = "projects/4711/locations/us-central1/keyRings/r/cryptoKeys/k"
    name = upload(
        client,
        encryption_spec={"kms_key_name": key},
        name="x",
        version_id="7",
        etag="x",
        create_time=dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
        training_pipeline="x",
        supported_export_formats=[{"id": "tflite"}],
    )

    model = client.get_model(name=name)

    assert model.name == name
    assert model.version_id == "1"
    assert model.etag != "x"
    assert model.create_time.year > 2001
    assert model.training_pipeline == ""
    assert model.encryption_spec.kms_key_name == key
    assert [supported.id for supported in model.supported_export_formats] == ["custom-trained"]


def test_metadata_without_a_schema_is_dropped(client: Client, upload: Upload) -> None:
    """Metadata is only kept with its schema, as a recording of Vertex shows."""
    with_schema = upload(client, metadata={"a": 1}, metadata_schema_uri="gs://bucket/schema.yaml")
    without = upload(client, metadata={"a": 1})

    assert client.get_model(name=with_schema).metadata == {"a": 1}
    assert client.get_model(name=without).metadata is None


def test_a_model_that_names_its_base_model_needs_no_container(client: Client, upload: Upload, parent: str) -> None:
    """Such a model is found by its base model's name or the last part of it. It can't be deployed or exported."""
    name = upload(
        client,
        container_spec=None,
        artifact_uri="",
        base_model_source={"model_garden_source": {"public_model_name": "publishers/google/models/gemma"}},
    )

    (found,) = client.list_models(
        request={"parent": parent, "filter": 'baseModelName="publishers/google/models/gemma"'}
    )
    assert [found] == list(client.list_models(request={"parent": parent, "filter": 'baseModelName="gemma"'}))
    assert list(client.list_models(request={"parent": parent, "filter": 'baseModelName="google"'})) == []

    assert f"{found.name}@1" == name
    assert found.model_source_info.source_type == types.ModelSourceInfo.ModelSourceType.MODEL_GARDEN
    with pytest.raises(exceptions.FailedPrecondition):
        client.export_model(name=name, output_config={"artifact_destination": {"output_uri_prefix": "gs://bucket/x"}})


def test_a_filter_of_the_base_model_sees_the_default_version(
    start: Start, connect: Connect, upload: Upload, parent: str
) -> None:
    """The filter matches what the list shows, even if the default version changes or has no base model."""
    client = connect(start(assume={"default-delete": "move"}))

    def found(base: str) -> list[str]:
        models = client.list_models(request={"parent": parent, "filter": f'base_model_name="{base}"'})
        return [model.base_model_source.model_garden_source.public_model_name for model in models]

    def base(name: str) -> dict[str, Any]:
        return {"container_spec": None, "base_model_source": {"model_garden_source": {"public_model_name": name}}}

    name = upload(client, **base("A")).rpartition("@")[0]
    assert (found("A"), found("B")) == (["A"], [])
    upload(client, under=name, version_aliases=["default"], **base("B"))
    assert (found("A"), found("B")) == ([], ["B"])
    client.merge_version_aliases(name=f"{name}@1", version_aliases=["default"])
    assert (found("A"), found("B")) == (["A"], [])
    client.delete_model_version(name=f"{name}@1").result()
    assert (found("A"), found("B")) == ([], ["B"])
    upload(client, under=name, version_aliases=["default"])
    assert (found("A"), found("B")) == ([], [])


def test_a_later_version_leaves_the_model_as_it_is(client: Client, upload: Upload) -> None:
    """The model keeps the display name and description of its first upload. Other versions don't change."""
    first = upload(client, description="the first")
    bare = first.partition("@")[0]
    before = client.get_model(name=first)

    upload(client, under=bare, display_name="other", description="other", version_description="the second")

    after, second = client.get_model(name=first), client.get_model(name=f"{bare}@2")
    assert (second.display_name, second.description, second.version_description) == ("churn", "the first", "the second")
    assert after.version_update_time == before.version_update_time
    assert after.etag == before.etag
    assert after.update_time >= before.update_time


# --- reading -----------------------------------------------------------------


def test_a_version_is_read_by_number_and_alias(client: Client, upload: Upload) -> None:
    """Reading a model returns its default version under the model's name. Other reads return the version's name."""
    bare = upload(client, version_aliases=["gold"]).partition("@")[0]

    assert client.get_model(name=bare).name == bare
    assert client.get_model(name=f"{bare}@1").name == f"{bare}@1"
    assert client.get_model(name=f"{bare}@gold").name == f"{bare}@1"
    assert client.get_model(name=f"{bare}@default").name == f"{bare}@1"


@pytest.mark.parametrize("version", ["2", "01", "0", "latest", "-", "v1.0", "9" * 30])
def test_a_missing_version_is_not_found(client: Client, upload: Upload, version: str) -> None:
    """A number means only itself, and latest isn't special."""
    bare = upload(client).partition("@")[0]

    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{bare}@{version}")


@pytest.mark.parametrize("name", ["", "churn", "projects/p/locations/l/models/", "projects/p/locations/l/models/m@"])
def test_a_name_must_be_right(client: Client, name: str) -> None:
    """A malformed name is INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.get_model(name=name)

    assert violations(caught.value) == ["name"]


def test_id_and_number_name_the_same_project(client: Client, model: MakeModel) -> None:
    """Every project exists. Names come back with its number, and both find the same models."""
    by_id, number = "projects/acme/locations/us-central1", project_number("acme")
    name = client.upload_model(parent=by_id, model=model()).result().model

    assert name.startswith(f"projects/{number}/locations/us-central1/models/")
    assert [found.name for found in client.list_models(parent=by_id)] == [name]
    assert client.get_model(name=name.replace(number, "acme")).name == name
    assert list(client.list_models(parent="projects/other/locations/us-central1")) == []
    assert list(client.list_models(parent="projects/acme/locations/europe-west4")) == []


def test_a_list_shows_the_default_versions(client: Client, upload: Upload, parent: str) -> None:
    """Every model has one entry, the newest first, under its bare name."""
    old = upload(client, display_name="old").partition("@")[0]
    new = upload(client, display_name="new").partition("@")[0]
    upload(client, under=old, version_aliases=["default"])

    listed = [(model.name, model.version_id) for model in client.list_models(parent=parent)]

    assert listed == [(new, "1"), (old, "2")]


def test_lists_are_filtered_by_what_they_show(client: Client, upload: Upload, parent: str) -> None:
    """Filters on IDs, display names and labels select models, alone and together."""
    a = upload(client, model_id="a", display_name="one", labels={"team": "x", "only": "a"})
    b = upload(client, model_id="b", display_name="two", labels={"team": "x"})
    c = upload(client, model_id="c", display_name="one", labels={"team": "y"})

    def found(text: str, order: str = "") -> list[str]:
        request = {"parent": parent, "filter": text, "order_by": order}
        return [f"{model.name}@1" for model in client.list_models(request=request)]

    assert found("model=a") == [a]
    assert found("model!=a") == [c, b]
    assert found('display_name="one"') == [c, a]
    assert found("displayName!=one") == [b]
    assert found("labels.team=x") == [b, a]
    assert found("labels.team:*") == [c, b, a]
    assert found("labels:only") == [a]
    assert found("labels.team=x AND labels.only=a") == [a]
    assert found("labels.team=x AND display_name=two") == [b]
    assert found("labels.team=x AND model!=b", "display_name desc") == [a]
    assert found("labels.team=nobody") == []
    assert found("base_model_name=x") == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("model=m1", True),
        ("model!=m1", False),
        ("model!=m2", True),
        ("display_name=churn", False),
        ("labels.team=growth", True),
        ("labels.team=Growth", False),
        ("labels.other=growth", False),
        ('labels.other=""', False),
        ('labels.empty=""', True),
        ("labels:empty", True),
        ("labels.other:*", False),
        ("base_model_name=x", False),
        ('base_model_name=""', False),
        ("model=m1 AND labels.team=growth", True),
        ("model=m1 AND labels.team=sales", False),
    ],
)
def test_a_filter_matches_what_it_says(
    client: Client, upload: Upload, parent: str, text: str, *, matches: bool
) -> None:
    """Whole values are compared, case included. A missing label equals nothing, not even empty."""
    upload(client, model_id="m1", display_name="Churn", labels={"team": "growth", "empty": ""})

    assert bool(list(client.list_models(request={"parent": parent, "filter": text}))) is matches


def test_lists_are_ordered_as_asked(client: Client, upload: Upload, parent: str) -> None:
    """Models are ordered by display name, age or last update. Ties are ordered by age."""
    a = upload(client, model_id="a", display_name="2").partition("@")[0]
    b = upload(client, model_id="b", display_name="1").partition("@")[0]
    c = upload(client, model_id="c", display_name="2").partition("@")[0]
    client.update_model(model={"name": a, "description": "x"}, update_mask=mask("description"))

    def order(by: str) -> list[str]:
        return [model.name for model in client.list_models(request={"parent": parent, "order_by": by})]

    assert order("create_time") == [a, b, c]
    assert order("create_time desc") == [c, b, a]
    assert order("display_name") == [b, a, c]
    assert order("display_name desc") == [c, a, b]
    assert order("display_name, create_time desc") == [b, c, a]
    assert order("update_time desc") == [a, c, b]
    assert order("displayName desc, updateTime desc") == [a, c, b]


@pytest.mark.parametrize("order", ["", "create_time", "display_name desc, update_time", "update_time desc"])
@pytest.mark.parametrize("filtered", ["", "labels.even:*", "labels.even=x", 'display_name="n1"'])
def test_pages_put_together_are_the_list(
    client: Client, upload: Upload, parent: str, order: str, filtered: str
) -> None:
    """In any order, with any filter, pages of two neither repeat nor miss a row."""
    for n in range(7):
        upload(client, display_name=f"n{n % 2}", labels={"even": "x"} if n % 2 == 0 else {})
    request = {"parent": parent, "order_by": order, "filter": filtered}
    whole = [model.name for model in client.list_models(request=request)]

    pages = list(client.list_models(request={**request, "page_size": 2}).pages)

    assert [model.name for page in pages for model in page.models] == whole
    assert all(len(page.models) <= 2 for page in pages)
    assert pages[-1].next_page_token == ""


def test_a_page_token_belongs_to_its_query(client: Client, upload: Upload, parent: str) -> None:
    """With another filter it's INVALID_ARGUMENT."""
    for _ in range(3):
        upload(client)
    token = next(client.list_models(request={"parent": parent, "page_size": 1}).pages).next_page_token

    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.list_models(request={"parent": parent, "page_token": token, "filter": "model=x"})

    assert violations(caught.value) == ["page_token"]


@pytest.mark.parametrize(
    ("rpc", "field", "under"),
    [
        ("list_models", "parent", "/locations/us-central1"),
        ("list_model_versions", "name", "/locations/us-central1/models/m0"),
        ("list_model_evaluations", "parent", "/locations/us-central1/models/m0"),
        ("list_model_evaluation_slices", "parent", "/locations/us-central1/models/m0/evaluations/{}"),
    ],
)
def test_a_page_token_is_good_for_id_and_number(
    client: Client, model: MakeModel, rpc: str, field: str, under: str
) -> None:
    """A project's ID and its number name the same project, and so the same list."""
    parent = "projects/acme/locations/us-central1"
    for request in ({"model_id": "m0"}, {"parent_model": "m0"}, {"model_id": "m1"}):
        client.upload_model(request={"parent": parent, "model": model(), **request})
    evaluation, _ = (client.import_model_evaluation(parent=f"{parent}/models/m0", model_evaluation={}) for _ in "ab")
    client.batch_import_model_evaluation_slices(parent=evaluation.name, model_evaluation_slices=[{}, {}])
    under = under.format(evaluation.name.rpartition("/")[2])

    page = next(getattr(client, rpc)(request={field: f"projects/acme{under}", "page_size": 1}).pages)
    by_number = {field: f"projects/{project_number('acme')}{under}", "page_token": page.next_page_token}
    assert len(list(getattr(client, rpc)(request=by_number))) == 1


def test_a_page_token_of_operations_and_locations_is_good_for_id_and_number(client: Client, model: MakeModel) -> None:
    """A token from the project's id is valid with its number."""
    number = project_number("acme")
    for _ in "ab":
        client.upload_model(request={"parent": "projects/acme/locations/us-central1", "model": model()})

    operations = client.list_operations({"name": "projects/acme/locations/us-central1", "page_size": 1})
    locations = client.list_locations({"name": "projects/acme", "page_size": 1})

    name = f"projects/{number}/locations/us-central1"
    rest = client.list_operations({"name": name, "page_token": operations.next_page_token})
    assert len(rest.operations) == 1
    rest = client.list_locations({"name": f"projects/{number}", "page_token": locations.next_page_token})
    assert len(rest.locations) == len(LOCATIONS) - 1


def test_a_read_mask_selects_fields(client: Client, upload: Upload, parent: str) -> None:
    """Both spellings work, and nothing else is in the response."""
    upload(client, labels={"a": "b"})

    request = {"parent": parent, "read_mask": mask("displayName", "version_id")}
    (model,) = client.list_models(request=request)

    assert model == types.Model(display_name="churn", version_id="1")


def test_versions_are_listed_oldest_first(client: Client, upload: Upload) -> None:
    """Versions have their names and are ordered by number, however many there are. Pages agree."""
    bare = upload(client).partition("@")[0]
    for _ in range(10):
        upload(client, under=bare)

    def numbers(**query: Any) -> list[str]:
        listed = client.list_model_versions(request={"name": bare, **query})
        assert all(model.name == f"{bare}@{model.version_id}" for model in client.list_model_versions(name=bare))
        return [model.version_id for model in listed]

    assert numbers() == [str(n) for n in range(1, 12)]
    assert numbers(page_size=4) == [str(n) for n in range(1, 12)]
    assert numbers(order_by="create_time desc", page_size=3) == [str(n) for n in range(11, 0, -1)]
    client.update_model(model={"name": f"{bare}@3", "version_description": "x"}, update_mask=mask("versionDescription"))
    assert numbers(order_by="update_time desc", page_size=3)[0] == "3"
    assert numbers(name=f"{bare}@2", page_size=20) == numbers()


def test_versions_of_nobody_are_not_found(client: Client, parent: str) -> None:
    """The model has to exist."""
    with pytest.raises(exceptions.NotFound):
        client.list_model_versions(name=f"{parent}/models/nobody")


def test_an_uploaded_version_has_no_checkpoints(client: Client, upload: Upload, parent: str) -> None:
    """Checkpoints come from tuning jobs, but the model and the version have to exist."""
    name = upload(client)

    assert list(client.list_model_version_checkpoints(name=name)) == []
    assert list(client.list_model_version_checkpoints(name=name.partition("@")[0])) == []
    for missing in (f"{parent}/models/nobody", name.replace("@1", "@2")):
        with pytest.raises(exceptions.NotFound):
            client.list_model_version_checkpoints(name=missing)


# --- UpdateModel -------------------------------------------------------------


def test_both_layers_of_labels_are_merged_on_reading(client: Client, upload: Upload, parent: str) -> None:
    """Every version shows the model's labels, and its own. An update replaces one layer."""
    bare = upload(client, labels={"a": "1"}).partition("@")[0]
    upload(client, under=bare, labels={"a": "2"})

    model = client.update_model(model={"name": bare, "labels": {"m": "m", "a": "m"}}, update_mask=mask("labels"))
    assert model.name == bare
    version = client.update_model(model={"name": f"{bare}@2", "labels": {"v": "v"}}, update_mask=mask("labels"))
    assert version.name == f"{bare}@2"

    assert dict(client.get_model(name=f"{bare}@1").labels) == {"a": "1", "m": "m"}
    assert dict(client.get_model(name=f"{bare}@2").labels) == {"a": "m", "m": "m", "v": "v"}
    request = {"parent": parent, "filter": "labels.a=1 AND labels.m=m"}
    assert [found.name for found in client.list_models(request=request)] == [bare]


def test_what_lists_find_follows_the_default_version(client: Client, upload: Upload, parent: str) -> None:
    """When the default moves, a label filter sees the new default version's labels."""
    bare = upload(client, labels={"is": "one", "both": "x"}).partition("@")[0]
    upload(client, under=bare, labels={"is": "two", "both": "x"})

    def found(text: str) -> int:
        return len(list(client.list_models(request={"parent": parent, "filter": text})))

    assert (found("labels.is=one"), found("labels.is=two"), found("labels:both")) == (1, 0, 1)
    client.merge_version_aliases(name=f"{bare}@2", version_aliases=["default"])
    assert (found("labels.is=one"), found("labels.is=two"), found("labels:both")) == (0, 1, 1)


def test_an_update_goes_where_its_name_says(client: Client, upload: Upload) -> None:
    """A bare name or @- means the model, a number or an alias a version. Empty values clear fields."""
    name = upload(client, description="d", version_description="v")
    bare = name.partition("@")[0]

    client.update_model(model={"name": f"{bare}@-", "display_name": "new"}, update_mask=mask("displayName"))
    client.update_model(
        model={"name": f"{bare}@default", "version_description": ""}, update_mask=mask("version_description")
    )
    client.update_model(model={"name": bare}, update_mask=mask("description"))

    model = client.get_model(name=name)
    assert (model.display_name, model.description, model.version_description) == ("new", "", "")


@pytest.mark.parametrize(
    ("version", "paths", "error"),
    [
        ("@1", ["display_name"], exceptions.FailedPrecondition),
        ("@1", ["version_description", "description"], exceptions.FailedPrecondition),
        ("", ["version_description"], exceptions.FailedPrecondition),
        ("", ["labels", "version_description"], exceptions.FailedPrecondition),
        ("", [], exceptions.InvalidArgument),
        ("", ["*"], exceptions.InvalidArgument),
        ("", ["nonsense"], exceptions.InvalidArgument),
        ("", ["labels.a"], exceptions.InvalidArgument),
        ("@1", ["version_aliases"], exceptions.InvalidArgument),
        ("@1", ["artifact_uri"], exceptions.InvalidArgument),
        ("@2", ["labels"], exceptions.NotFound),
    ],
)
def test_an_invalid_update_is_refused(
    client: Client,
    upload: Upload,
    version: str,
    paths: list[str],
    error: type[exceptions.GoogleAPICallError],
) -> None:
    """Fields of the other level are a precondition error, other fields an invalid argument."""
    bare = upload(client).partition("@")[0]
    before = client.get_model(name=bare)

    with pytest.raises(error):
        client.update_model(model={"name": f"{bare}{version}", "display_name": "x"}, update_mask=mask(*paths))

    assert client.get_model(name=bare) == before


def test_an_update_obeys_the_rules_of_an_upload(client: Client, upload: Upload) -> None:
    """Labels and display names have the same limits."""
    bare = upload(client).partition("@")[0]

    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.update_model(model={"name": bare, "labels": {"K": "v"}}, update_mask=mask("labels", "display_name"))

    assert violations(caught.value) == ["model.display_name", "model.labels"]


def test_a_stale_etag_is_refused(client: Client, upload: Upload) -> None:
    """An etag is valid until what it was read with changes. Without one the update is blind."""
    name = upload(client)
    etag = client.get_model(name=name).etag

    updated = client.update_model(model={"name": name, "labels": {"a": "1"}, "etag": etag}, update_mask=mask("labels"))
    assert updated.etag != etag
    for stale in (etag, "nonsense", "AAAA"):
        with pytest.raises(exceptions.Aborted):
            client.update_model(model={"name": name, "labels": {}, "etag": stale}, update_mask=mask("labels"))
    client.update_model(model={"name": name, "labels": {"b": "2"}}, update_mask=mask("labels"))

    assert dict(client.get_model(name=name).labels) == {"b": "2"}


def test_a_model_is_updated_with_the_etag_of_any_of_its_versions(client: Client, upload: Upload) -> None:
    """Google's SDK updates the model with what it read from a version. A version needs its own etag."""
    bare = upload(client).partition("@")[0]
    second = upload(client, under=bare)
    etag = client.get_model(name=second).etag

    with pytest.raises(exceptions.Aborted):
        client.update_model(model={"name": f"{bare}@1", "labels": {}, "etag": etag}, update_mask=mask("labels"))
    client.update_model(model={"name": bare, "display_name": "x", "etag": etag}, update_mask=mask("display_name"))
    with pytest.raises(exceptions.Aborted):
        client.update_model(model={"name": second, "labels": {}, "etag": etag}, update_mask=mask("labels"))


def test_a_changed_version_does_not_change_the_models_etag(client: Client, upload: Upload) -> None:
    """After an alias moves, an etag from before still updates the model, but not the version."""
    first = upload(client)
    bare = first.partition("@")[0]
    etag = client.get_model(name=first).etag
    client.merge_version_aliases(name=first, version_aliases=["champion"])
    upload(client, under=bare, version_aliases=["default"])
    client.update_model(model={"name": first, "labels": {"a": "1"}}, update_mask=mask("labels"))

    client.update_model(model={"name": bare, "description": "x", "etag": etag}, update_mask=mask("description"))

    with pytest.raises(exceptions.Aborted):
        client.update_model(model={"name": first, "labels": {}, "etag": etag}, update_mask=mask("labels"))
    with pytest.raises(exceptions.Aborted):
        client.update_model(model={"name": bare, "description": "y", "etag": etag}, update_mask=mask("description"))


# --- MergeVersionAliases -----------------------------------------------------


def test_an_alias_moves_from_version_to_version(client: Client, upload: Upload) -> None:
    """Aliases are taken from other versions, existing ones stay, and missing ones can be removed."""
    bare = upload(client, version_aliases=["gold", "prod"]).partition("@")[0]
    upload(client, under=bare)

    merged = client.merge_version_aliases(name=f"{bare}@2", version_aliases=["gold", "-nobody", "new", "-default"])

    assert merged.name == f"{bare}@2"
    assert list(merged.version_aliases) == ["gold", "new"]
    assert list(client.get_model(name=f"{bare}@1").version_aliases) == ["prod", "default"]
    assert list(client.merge_version_aliases(name=f"{bare}@new", version_aliases=["gold", "-new"]).version_aliases) == [
        "gold"
    ]


@pytest.mark.unmeasured  # likewise
def test_many_aliases_are_merged_in_one_pass(client: Client, upload: Upload) -> None:
    """Merging is linear in the number of aliases. The deadline is far longer than that takes."""
    name = upload(client)
    aliases = ["default", *(f"alias-{n}" for n in range(50_000))]

    for _ in range(2):
        merged = client.merge_version_aliases(name=name, version_aliases=aliases, timeout=30)

    assert list(merged.version_aliases) == aliases


def test_adding_and_removing_the_same_alias_cancels_out(client: Client, upload: Upload) -> None:
    """The alias stays as it was, whether or not it existed."""
    name = upload(client, version_aliases=["gold"])

    merged = client.merge_version_aliases(
        name=name, version_aliases=["-gold", "gold", "new", "-new", "-default", "default"]
    )

    assert list(merged.version_aliases) == ["gold", "default"]


@pytest.mark.parametrize(
    ("version", "aliases", "error"),
    [
        ("@1", ["-default"], exceptions.FailedPrecondition),
        ("@1", [], exceptions.InvalidArgument),
        ("@1", ["v1.0"], exceptions.InvalidArgument),
        ("@1", ["--gold"], exceptions.InvalidArgument),
        ("@1", ["-"], exceptions.InvalidArgument),
        ("", ["gold"], exceptions.InvalidArgument),
        ("@9", ["gold"], exceptions.NotFound),
    ],
)
def test_an_invalid_merge_is_refused(
    client: Client,
    upload: Upload,
    version: str,
    aliases: list[str],
    error: type[exceptions.GoogleAPICallError],
) -> None:
    """The default can only be moved. A version must be named, and aliases must be valid."""
    bare = upload(client).partition("@")[0]

    with pytest.raises(error):
        client.merge_version_aliases(name=f"{bare}{version}", version_aliases=aliases)

    assert list(client.get_model(name=bare).version_aliases) == ["default"]


# --- deletes -----------------------------------------------------------------


def test_the_number_of_a_deleted_version_is_not_reused(client: Client, upload: Upload) -> None:
    """The deleted version's aliases are free, and the next version has the next number."""
    bare = upload(client).partition("@")[0]
    second = upload(client, under=bare, version_aliases=["gold"])

    client.delete_model_version(name=f"{bare}@gold").result()

    with pytest.raises(exceptions.NotFound):
        client.get_model(name=second)
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{bare}@gold")
    assert upload(client, under=bare) == f"{bare}@3"


def test_deleting_the_default_version_may_move_default(
    start: Start, connect: Connect, upload: Upload, parent: str
) -> None:
    """default-delete=move: the newest other version gets the alias, which lists then show."""
    client = connect(start(assume={"default-delete": "move"}))
    bare = upload(client, labels={"is": "one"}).partition("@")[0]
    upload(client, under=bare, labels={"is": "two"})
    upload(client, under=bare, labels={"is": "three"}, version_aliases=["gold"])

    client.delete_model_version(name=f"{bare}@1").result()

    assert list(client.get_model(name=bare).version_aliases) == ["gold", "default"]
    assert len(list(client.list_models(request={"parent": parent, "filter": "labels.is=three"}))) == 1


def test_the_only_version_cannot_be_deleted(client: Client, upload: Upload) -> None:
    """DeleteModel is for that."""
    name = upload(client)

    with pytest.raises(exceptions.FailedPrecondition):
        client.delete_model_version(name=name)
    with pytest.raises(exceptions.InvalidArgument):
        client.delete_model_version(name=name.partition("@")[0])

    client.get_model(name=name)


def test_a_deleted_model_is_gone_with_all_its_versions(client: Client, upload: Upload, parent: str) -> None:
    """The model's ID can be used again. The new model starts at version 1, without anything of the old one."""
    name = upload(client, model_id="mine", labels={"a": "b"}, version_aliases=["gold"])
    bare = name.partition("@")[0]
    upload(client, under=bare)
    client.import_model_evaluation(parent=bare, model_evaluation={"display_name": "e"})

    with pytest.raises(exceptions.InvalidArgument):
        client.delete_model(name=name)
    client.delete_model(name=bare).result()

    with pytest.raises(exceptions.NotFound):
        client.get_model(name=bare)
    with pytest.raises(exceptions.NotFound):
        client.delete_model(name=bare)
    assert list(client.list_models(request={"parent": parent, "filter": "labels:a"})) == []
    assert upload(client, model_id="mine") == name
    assert list(client.list_model_evaluations(parent=bare)) == []
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{bare}@gold")


# --- export, copy, explanations ----------------------------------------------


def test_an_export_says_where_it_goes(client: Client, upload: Upload) -> None:
    """The directory is named after the model and the time. The image keeps its name."""
    name = upload(client)

    operation = client.export_model(
        name=name,
        output_config={
            "artifact_destination": {"output_uri_prefix": "gs://bucket/out/"},
            "image_destination": {"output_uri": "us-docker.pkg.dev/acme/images/out"},
        },
    )
    operation.result()

    output = operation.metadata.output_info
    assert output.artifact_output_uri.startswith("gs://bucket/out/model-export-churn-20")
    assert output.artifact_output_uri.endswith("Z")
    assert output.image_output_uri == "us-docker.pkg.dev/acme/images/out"


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("output_config", {}),
        ("output_config.export_format_id", {"export_format_id": "tflite"}),
        ("output_config.artifact_destination", {"artifact_destination": {"output_uri_prefix": "gs://bucket/x"}}),
    ],
)
def test_an_invalid_export_is_refused(client: Client, upload: Upload, field: str, config: dict[str, Any]) -> None:
    """An export needs a destination, a format that the model supports, and an artifact."""
    name = upload(client, artifact_uri="")

    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.export_model(name=name, output_config=config)

    assert violations(caught.value) == [field]


def test_an_export_goes_to_cloud_storage(client: Client, upload: Upload) -> None:
    """Another destination is refused."""
    name = upload(client)

    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.export_model(name=name, output_config={"artifact_destination": {"output_uri_prefix": "bucket/x"}})

    assert violations(caught.value) == ["output_config.artifact_destination.output_uri_prefix"]


def test_a_copy_is_a_model_of_its_own(client: Client, upload: Upload) -> None:
    """A copy names its source, and has its artifact and labels, but not its aliases or id."""
    source = upload(client, labels={"a": "b"}, version_aliases=["gold"], description="d", version_description="v")
    elsewhere = "projects/4711/locations/europe-west4"
    client.update_model(model={"name": source.partition("@")[0], "labels": {"m": "m"}}, update_mask=mask("labels"))

    copied = client.copy_model(request={"parent": elsewhere, "source_model": source, "model_id": "copy"}).result()

    assert copied.model == f"{elsewhere}/models/copy"
    model = client.get_model(name=f"{copied.model}@{copied.model_version_id}")
    assert (model.display_name, model.description, model.version_description) == ("churn", "d", "v")
    assert model.artifact_uri == "gs://bucket/churn"
    assert dict(model.labels) == {"a": "b", "m": "m"}
    assert list(model.version_aliases) == ["default"]
    assert model.model_source_info.copy
    assert model.original_model_info.model == source
    assert not client.get_model(name=source).model_source_info.copy


def test_a_copy_can_be_a_version_of_another_model(client: Client, upload: Upload, parent: str) -> None:
    """With a parent model it's that model's next version. Without a version, the default is copied."""
    source = upload(client, version_description="v").partition("@")[0]
    target = upload(client).partition("@")[0]
    key = "projects/4711/locations/us-central1/keyRings/r/cryptoKeys/k"

    request = {"parent": parent, "source_model": source, "parent_model": target}
    copied = client.copy_model(request=request).result()
    own = client.copy_model(
        request={"parent": parent, "source_model": source, "encryption_spec": {"kms_key_name": key}}
    ).result()

    assert (copied.model, copied.model_version_id) == (target, "2")
    assert client.get_model(name=f"{target}@2").version_description == "v"
    assert client.get_model(name=own.model).encryption_spec.kms_key_name == key


def test_an_invalid_copy_is_refused(client: Client, upload: Upload, parent: str) -> None:
    """The source must exist, the id be valid and free, and the key in the location."""
    source = upload(client, model_id="mine")

    with pytest.raises(exceptions.NotFound):
        client.copy_model(parent=parent, source_model=f"{parent}/models/nobody")
    with pytest.raises(exceptions.AlreadyExists):
        client.copy_model(request={"parent": parent, "source_model": source, "model_id": "mine"})
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.copy_model(
            request={
                "parent": parent,
                "source_model": source,
                "model_id": "X",
                "encryption_spec": {"kms_key_name": "k"},
            }
        )
    assert violations(caught.value) == ["model_id", "encryption_spec.kms_key_name"]


def test_the_examples_of_an_explanation_are_updated(client: Client, upload: Upload) -> None:
    """Fields that are sent are replaced and others stay. A version without examples can't be updated."""
    examples = {"example_gcs_source": {"gcs_source": {"uris": ["gs://bucket/old"]}}, "neighbor_count": 3}
    name = upload(client, explanation_spec={"parameters": {"examples": examples}, "metadata": {"inputs": {}}})
    bare = name.partition("@")[0]
    new = {"example_gcs_source": {"gcs_source": {"uris": ["gs://bucket/new"]}}}

    client.update_explanation_dataset(request={"model": bare, "examples": new}).result()

    kept = client.get_model(name=name).explanation_spec.parameters.examples
    assert list(kept.example_gcs_source.gcs_source.uris) == ["gs://bucket/new"]
    assert kept.neighbor_count == 3
    client.update_explanation_dataset(request={"model": bare}).result()
    assert client.get_model(name=name).explanation_spec.parameters.examples == kept
    with pytest.raises(exceptions.FailedPrecondition):
        client.update_explanation_dataset(model=upload(client))
    with pytest.raises(exceptions.InvalidArgument):
        client.update_explanation_dataset(
            request={"model": bare, "examples": {"nearest_neighbor_search_config": float("inf")}}
        )


@pytest.mark.parametrize("kind", ["lists", "objects"])
@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_what_was_taken_can_be_read_again(
    start: Start, connect: Connect, upload: Upload, parent: str, transport: str, kind: str
) -> None:
    """A value that would be nested too deep for a list of models is refused."""
    client = connect(start(), transport)
    bare = upload(client, explanation_spec={"parameters": {"examples": {"neighbor_count": 3}}}).partition("@")[0]
    request = types.UpdateExplanationDatasetRequest.pb()
    refused = 0
    for depth in range(28, 50):
        asked = request(model=bare)
        nest(asked.examples.nearest_neighbor_search_config, depth, kind)
        try:
            client.update_explanation_dataset(types.UpdateExplanationDatasetRequest.wrap(asked)).result()
        except (exceptions.BadRequest, ParseError):  # over REST the client itself may refuse to read it
            refused += 1

        assert [found.name for found in client.list_models(parent=parent)] == [bare]
        client.get_model(name=f"{bare}@1")
    assert 0 < refused < 22


def test_a_version_has_the_key_of_its_model(client: Client, upload: Upload, parent: str) -> None:
    """Another key is refused for uploads and copies. The same key or none is accepted."""
    key, other = (f"projects/p/locations/us-central1/keyRings/r/cryptoKeys/{name}" for name in ("k", "l"))
    bare = upload(client, encryption_spec={"kms_key_name": key}).partition("@")[0]
    model = client.get_model(name=bare)
    kept = {"display_name": "m", "container_spec": model.container_spec, "artifact_uri": model.artifact_uri}

    for given in ({"kms_key_name": key}, None):
        request: Any = {"parent": parent, "parent_model": bare, "model": kept | {"encryption_spec": given}}
        client.upload_model(request).result()
        client.copy_model(
            request={"parent": parent, "source_model": bare, "parent_model": bare, "encryption_spec": given}
        ).result()
    request["model"]["encryption_spec"] = {"kms_key_name": other}
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.upload_model(request)
    assert violations(caught.value) == ["model.encryption_spec"]
    request = {"parent": parent, "source_model": bare, "parent_model": bare, "encryption_spec": {"kms_key_name": other}}
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.copy_model(request)
    assert violations(caught.value) == ["encryption_spec"]
    assert client.get_model(name=f"{bare}@5").encryption_spec.kms_key_name == key


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"base_model_source": {}, "container_spec": None}, "model.container_spec.image_uri"),
        (
            {"base_model_source": {"model_garden_source": {}}},
            "model.base_model_source.model_garden_source.public_model_name",
        ),
        ({"base_model_source": {"genie_source": {}}}, "model.base_model_source.genie_source.base_model_uri"),
        ({"explanation_spec": {"metadata": {"inputs": {}}}}, "model.explanation_spec.parameters"),
        (
            {"explanation_spec": {"parameters": {"sampled_shapley_attribution": {"path_count": 51}}}},
            "model.explanation_spec.parameters.sampled_shapley_attribution.path_count",
        ),
        (
            {"explanation_spec": {"parameters": {"xrai_attribution": {}}}},
            "model.explanation_spec.parameters.xrai_attribution.step_count",
        ),
    ],
)
def test_what_a_part_of_a_model_requires(client: Client, upload: Upload, given: dict[str, Any], field: str) -> None:
    """Required fields of an upload's parts must be set, within their ranges."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        upload(client, **given)
    assert field in violations(caught.value)


def test_a_model_of_genie_names_its_source(client: Client, upload: Upload) -> None:
    """A model of Genie or of the Model Garden names its source, and needs no container."""
    source = types.ModelSourceInfo.ModelSourceType
    genie = upload(client, base_model_source={"genie_source": {"base_model_uri": "genie/1"}}, container_spec=None)
    garden = upload(client, base_model_source={"model_garden_source": {"public_model_name": "text-bison"}})

    assert client.get_model(name=genie).model_source_info.source_type == source.GENIE
    assert client.get_model(name=garden).model_source_info.source_type == source.MODEL_GARDEN


@pytest.mark.parametrize("uri", ["not a uri !!", "docker.io/acme/serve:1", "us-docker.pkg.dev/acme", "gcr.io/acme"])
def test_an_image_is_exported_to_a_registry_of_google_s(client: Client, upload: Upload, uri: str) -> None:
    """Any other destination is refused."""
    name = upload(client)
    with pytest.raises(exceptions.InvalidArgument) as caught:
        client.export_model(name=name, output_config={"image_destination": {"output_uri": uri}})
    assert violations(caught.value) == ["output_config.image_destination.output_uri"]


def test_a_version_that_loses_an_alias_to_an_upload_is_updated(client: Client, upload: Upload, parent: str) -> None:
    """An upload that takes an alias updates the loser, like a merge. Other versions don't change."""
    bare = upload(client).partition("@")[0]
    model = {"display_name": "m", "container_spec": {"image_uri": "gcr.io/acme/serve"}}
    client.upload_model(request={"parent": parent, "parent_model": bare, "model": model}).result()
    before = [client.get_model(name=f"{bare}@{number}").version_update_time for number in (1, 2)]
    taking = model | {"version_aliases": ["default"]}
    client.upload_model(request={"parent": parent, "parent_model": bare, "model": taking}).result()

    after = [client.get_model(name=f"{bare}@{number}").version_update_time for number in (1, 2)]
    assert after[0] > before[0]
    assert after[1] == before[1]


def nest(value: struct_pb2.Value, depth: int, kind: str) -> None:
    """Nest a value in this many lists or objects, in parent, because a copy would be parsed."""
    for _ in range(depth):
        value = value.list_value.values.add() if kind == "lists" else value.struct_value.fields["a"]
    value.string_value = "x"


@pytest.mark.parametrize("kind", ["lists", "objects"])
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_what_was_taken_over_grpc_can_be_read_over_rest(
    start: Start, connect: Connect, upload: Upload, parent: str, kind: str
) -> None:
    """JSON parsers don't go as deep as protobuf, so what they couldn't read in a list is refused."""
    emulator = start()
    client, reader = connect(emulator, "grpc"), connect(emulator, "rest")
    bare = upload(client).partition("@")[0]
    evaluation = client.import_model_evaluation(parent=bare, model_evaluation={"display_name": "e"}).name
    upload_request, import_request = types.UploadModelRequest.pb(), types.ImportModelEvaluationRequest.pb()
    slices_request = types.BatchImportModelEvaluationSlicesRequest.pb()
    refused = 0
    for depth in range(28, 50):
        asked = upload_request(parent=parent, parent_model=bare)
        asked.model.MergeFrom(types.Model.pb()(display_name="m", metadata_schema_uri="gs://bucket/schema.yaml"))
        asked.model.container_spec.image_uri = "a/b"
        nest(asked.model.metadata, depth, kind)
        evaluated = import_request(parent=bare)
        nest(evaluated.model_evaluation.metrics, depth, kind)
        sliced = slices_request(parent=evaluation)
        nest(sliced.model_evaluation_slices.add().metrics, depth, kind)
        for call, request in (
            (client.upload_model, types.UploadModelRequest.wrap(asked)),
            (client.import_model_evaluation, types.ImportModelEvaluationRequest.wrap(evaluated)),
            (
                client.batch_import_model_evaluation_slices,
                types.BatchImportModelEvaluationSlicesRequest.wrap(sliced),
            ),
        ):
            try:
                call(request)
            except exceptions.InvalidArgument:
                refused += 1
        list(reader.list_models(parent=parent))
        list(reader.list_model_versions(name=bare))
        list(reader.list_model_evaluations(parent=bare))
        list(reader.list_model_evaluation_slices(parent=evaluation))
    assert 0 < refused < 66


# --- evaluations -------------------------------------------------------------


def test_evaluations_are_kept_under_a_version(client: Client, upload: Upload) -> None:
    """Evaluations are imported, read and listed per version, and deleted with it."""
    bare = upload(client).partition("@")[0]
    upload(client, under=bare)
    evaluation = {"display_name": "e", "metrics": {"auc": 0.9}, "metrics_schema_uri": "gs://bucket/schema.yaml"}

    first = client.import_model_evaluation(parent=bare, model_evaluation=evaluation)
    second = client.import_model_evaluation(parent=f"{bare}@2", model_evaluation={"display_name": "f"})

    assert first.name.startswith(f"{bare}/evaluations/")
    assert client.get_model_evaluation(name=first.name) == first
    assert client.get_model_evaluation(name=first.name).metrics == {"auc": 0.9}
    assert [found.name for found in client.list_model_evaluations(parent=bare)] == [first.name]
    assert [found.name for found in client.list_model_evaluations(parent=f"{bare}@2")] == [second.name]
    with pytest.raises(exceptions.NotFound):
        client.get_model_evaluation(name=first.name.replace("/evaluations", "@2/evaluations"))
    client.delete_model_version(name=f"{bare}@2").result()
    with pytest.raises(exceptions.NotFound):
        client.get_model_evaluation(name=second.name)


def test_evaluations_and_slices_come_in_pages(client: Client, upload: Upload) -> None:
    """All pages together are the whole list. A read mask selects fields, and a filter selects slices by dimension."""
    bare = upload(client).partition("@")[0]
    made = {
        client.import_model_evaluation(parent=bare, model_evaluation={"display_name": str(n)}).name for n in range(5)
    }
    evaluation = min(made)
    slices = [{"slice_": {"dimension": "annotationSpec" if n else "slice", "value": str(n)}} for n in range(5)]
    imported = client.batch_import_model_evaluation_slices(parent=evaluation, model_evaluation_slices=slices)

    request = {"parent": bare, "page_size": 2, "read_mask": mask("name")}
    evaluations = list(client.list_model_evaluations(request=request))
    listed = list(client.list_model_evaluation_slices(request={"parent": evaluation, "page_size": 2}))

    def along(text: str) -> list[str]:
        query = {"parent": evaluation, "filter": text, "read_mask": mask("slice.value")}
        return sorted(found.slice_.value for found in client.list_model_evaluation_slices(request=query))

    assert {found.name for found in evaluations} == made
    assert all(not found.display_name for found in evaluations)
    assert sorted(found.name for found in listed) == sorted(imported.imported_model_evaluation_slices)
    assert along("slice.dimension=slice") == ["0"]
    assert along('slice.dimension="annotationSpec"') == ["1", "2", "3", "4"]
    assert along("slice.dimension=slice AND slice.dimension=annotationSpec") == []


def test_slices_are_kept_under_an_evaluation(client: Client, upload: Upload) -> None:
    """Slices are read by name. Annotations are imported into one, and counted."""
    bare = upload(client).partition("@")[0]
    evaluation = client.import_model_evaluation(parent=bare, model_evaluation={"display_name": "e"}).name
    given = {"slice_": {"dimension": "annotationSpec", "value": "cat"}, "metrics": {"auc": 0.5}}
    imported = client.batch_import_model_evaluation_slices(parent=evaluation, model_evaluation_slices=[given])
    (name,) = imported.imported_model_evaluation_slices

    kept = client.get_model_evaluation_slice(name=name)
    counted = client.batch_import_evaluated_annotations(
        parent=name, evaluated_annotations=[{"type_": "TRUE_POSITIVE"}, {"type_": "FALSE_POSITIVE"}]
    )

    assert kept.slice_.value == "cat"
    assert kept.metrics == {"auc": 0.5}
    assert counted.imported_evaluated_annotations_count == 2
    with pytest.raises(exceptions.NotFound):
        client.get_model_evaluation_slice(name=f"{evaluation}/slices/7")
    with pytest.raises(exceptions.NotFound):
        client.batch_import_evaluated_annotations(
            parent=f"{evaluation}/slices/7", evaluated_annotations=[{"type_": "TRUE_POSITIVE"}]
        )


def test_invalid_evaluations_are_refused(client: Client, upload: Upload) -> None:
    """An import needs an evaluation, and the evaluation needs valid JSON."""
    bare = upload(client).partition("@")[0]
    evaluation = client.import_model_evaluation(parent=bare, model_evaluation={"display_name": "e"}).name
    bad = {"metrics": float("nan")}
    calls: list[tuple[str, Callable[[], object]]] = [
        ("model_evaluation", lambda: client.import_model_evaluation(parent=bare)),
        ("model_evaluation", lambda: client.import_model_evaluation(parent=bare, model_evaluation=bad)),
        ("model_evaluation_slices", lambda: client.batch_import_model_evaluation_slices(parent=evaluation)),
        (
            "model_evaluation_slices[0]",
            lambda: client.batch_import_model_evaluation_slices(parent=evaluation, model_evaluation_slices=[bad]),
        ),
        ("evaluated_annotations", lambda: client.batch_import_evaluated_annotations(parent=f"{evaluation}/slices/1")),
        ("parent", lambda: client.batch_import_evaluated_annotations(parent=evaluation)),
        ("name", lambda: client.get_model_evaluation(name=bare)),
    ]

    for field, call in calls:
        with pytest.raises(exceptions.InvalidArgument) as caught:
            call()
        assert violations(caught.value) == [field]


# --- locations ---------------------------------------------------------------


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_locations_are_listed_and_found(emulator: Emulator, connect: Connect, transport: str) -> None:
    """Every location where Vertex serves models is listed, page by page, with the project's number."""
    client = connect(emulator, transport)

    first = client.list_locations(request={"name": "projects/acme", "page_size": 40})
    second = client.list_locations(
        request={"name": "projects/acme", "page_size": 40, "page_token": first.next_page_token}
    )
    one = client.get_location(request={"name": "projects/acme/locations/us-central1"})

    found = [location.location_id for location in itertools.chain(first.locations, second.locations)]
    assert tuple(found) == LOCATIONS
    assert second.next_page_token == ""
    assert one.name == f"projects/{project_number('acme')}/locations/us-central1"


# --- what is not known -------------------------------------------------------


@pytest.mark.parametrize(
    ("assumed", "first", "second", "of_first_after"),
    [
        ("version", {"a": "1"}, {"b": "2"}, {"a": "1"}),
        ("model", {"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "1", "b": "2"}),
        ("first-on-model", {"a": "1"}, {"a": "1", "b": "2"}, {"a": "1"}),
    ],
)
def test_the_labels_of_an_upload_go_to_a_layer(
    start: Start,
    connect: Connect,
    upload: Upload,
    assumed: str,
    first: dict[str, str],
    second: dict[str, str],
    of_first_after: dict[str, str],
) -> None:
    """labels-at-upload: the version's, the model's, or the model's for the first version only."""
    client = connect(start(assume={"labels-at-upload": assumed}))

    one = upload(client, labels={"a": "1"})
    two = upload(client, under=one.partition("@")[0], labels={"b": "2"})

    assert dict(client.get_model(name=two).labels) == second
    assert dict(client.get_model(name=one).labels) == of_first_after
    assert first == of_first_after


@pytest.mark.parametrize(("assumed", "shown"), [("version", "v"), ("model", "m")])
def test_one_layer_of_labels_wins(
    start: Start, connect: Connect, upload: Upload, parent: str, assumed: str, shown: str
) -> None:
    """label-wins: what reads show, and lists find, if both layers have the key."""
    client = connect(start(assume={"label-wins": assumed}))
    name = upload(client, labels={"k": "v"})
    bare = name.partition("@")[0]

    client.update_model(model={"name": bare, "labels": {"k": "m"}}, update_mask=mask("labels"))

    assert client.get_model(name=name).labels["k"] == shown
    for value in ("v", "m"):
        of_models = list(client.list_models(request={"parent": parent, "filter": f"labels.k={value}"}))
        of_versions = list(client.list_model_versions(request={"name": bare, "filter": f"labels.k={value}"}))
        assert len(of_models) == len(of_versions) == (value == shown)


@pytest.mark.parametrize("wins", ["version", "model"])
@pytest.mark.parametrize("assumed", ["merged", "own"])
def test_a_label_filter_of_versions_sees_labels(
    start: Start, connect: Connect, upload: Upload, assumed: str, wins: str
) -> None:
    """label-filter: merged sees the shown labels, own only the version's."""
    client = connect(start(assume={"label-filter": assumed, "label-wins": wins}))
    bare = upload(client, labels={"k": "v"}).partition("@")[0]
    upload(client, under=bare, labels={"k": "m"})
    upload(client, under=bare)
    client.update_model(model={"name": bare, "labels": {"k": "m", "only": "m"}}, update_mask=mask("labels"))

    def found(text: str) -> list[str]:
        versions = client.list_model_versions(request={"name": bare, "filter": text, "page_size": 1})
        return [version.version_id for version in versions]

    shown = (
        {"1": {"k": "v"}, "2": {"k": "m"}, "3": {}}
        if assumed == "own"
        else {version.version_id: dict(version.labels) for version in client.list_model_versions(name=bare)}
    )
    for key, value in itertools.product(("k", "only", "none"), ("v", "m")):
        expected = [version for version, labels in shown.items() if labels.get(key) == value]
        assert found(f"labels.{key}={value}") == expected
    for key in ("k", "only", "none"):
        assert found(f"labels:{key}") == [version for version, labels in shown.items() if key in labels]


@pytest.mark.parametrize("lag", [1, 3])
def test_lists_lag_behind(start: Start, connect: Connect, upload: Upload, parent: str, lag: int) -> None:
    """list-lag: lists show a write after this many more lists. Reads of one name show it immediately."""
    client = connect(start(assume={"list-lag": str(lag)}))

    def listed() -> list[str]:
        return [model.display_name for model in client.list_models(parent=parent)]

    name = upload(client, model_id="mine", labels={"a": "b"})
    bare = name.partition("@")[0]
    assert client.get_model(name=name).display_name == "churn"
    for _ in range(lag):
        assert listed() == []
    assert listed() == ["churn"]

    client.update_model(model={"name": bare, "display_name": "new"}, update_mask=mask("display_name"))
    assert client.get_model(name=name).display_name == "new"
    for _ in range(lag):
        assert listed() == ["churn"]
    assert listed() == ["new"]

    upload(client, under=bare)
    for _ in range(lag):
        assert [version.version_id for version in client.list_model_versions(name=bare)] == ["1"]
    assert [version.version_id for version in client.list_model_versions(name=bare)] == ["1", "2"]

    client.delete_model(name=bare).result()
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=name)
    for _ in range(lag):
        assert listed() == ["new"]
    assert listed() == []


def test_versions_of_a_model_that_lists_do_not_show_yet(start: Start, connect: Connect, upload: Upload) -> None:
    """list-lag: the model exists, but its versions aren't listed yet."""
    client = connect(start(assume={"list-lag": "1"}))
    bare = upload(client).partition("@")[0]

    assert list(client.list_model_versions(name=bare)) == []
    assert len(list(client.list_model_versions(name=bare))) == 1


def test_deleting_the_default_version_is_refused(client: Client, upload: Upload) -> None:
    """The default version can't be deleted, by any name, until another version is the default."""
    bare = upload(client).partition("@")[0]
    upload(client, under=bare)

    for name in (f"{bare}@1", f"{bare}@default"):
        with pytest.raises(exceptions.FailedPrecondition, match="is the default version and cannot be deleted"):
            client.delete_model_version(name=name)
    assert [version.version_id for version in client.list_model_versions(name=bare)] == ["1", "2"]
    client.merge_version_aliases(name=f"{bare}@2", version_aliases=["default"])
    client.delete_model_version(name=f"{bare}@1").result()


def test_a_stale_etag_may_be_a_failed_precondition(start: Start, connect: Connect, upload: Upload) -> None:
    """stale-etag=failed-precondition."""
    client = connect(start(assume={"stale-etag": "failed-precondition"}))
    name = upload(client)

    with pytest.raises(exceptions.FailedPrecondition):
        client.update_model(model={"name": name, "etag": "old"}, update_mask=mask("labels"))


def test_a_taken_id_may_fail_the_operation(
    start: Start, connect: Connect, upload: Upload, parent: str, model: MakeModel
) -> None:
    """id-taken=operation: the call is answered, and its operation ends with ALREADY_EXISTS."""
    client = connect(start(assume={"id-taken": "operation"}))
    name = upload(client, model_id="mine")

    operation = client.upload_model(request={"parent": parent, "model_id": "mine", "model": model(display_name="x")})

    assert operation.operation.name.startswith(f"{parent}/models/mine/operations/")
    with pytest.raises(exceptions.AlreadyExists):
        operation.result()
    assert client.get_model(name=name).display_name == "churn"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"nonsense": "x"}, "labels-at-upload, label-wins"),
        ({"label-wins": "nobody"}, "version, model"),
        ({"list-lag": "-1"}, "0, N"),
        ({"list-lag": "N"}, "Give a number instead"),
    ],
)
def test_an_unknown_assumption_is_refused(start: Start, given: dict[str, str], told: str) -> None:
    """The message lists the valid values, and nothing is started."""
    with pytest.raises(ValueError, match=told):
        start(assume=given)


def test_the_first_value_is_the_default() -> None:
    """Each switch defaults to the likelier behavior."""
    assert parse_assumptions({}) == parse_assumptions({name: switch.values[0] for name, switch in SWITCHES.items()})


# --- the clock and the ids ---------------------------------------------------


def test_a_clock_must_be_aware(start: Start) -> None:
    """A naive clock is refused when the emulator starts, not by the first request."""
    with pytest.raises(ValueError, match="aware datetimes"):
        start(now=lambda: dt.datetime(2030, 1, 2))  # noqa: DTZ001 - that is what is wrong with it


def test_a_new_id_that_repeats_itself_fails_the_request(start: Start, connect: Connect, upload: Upload) -> None:
    """If new_id repeats itself, the request fails and says why. Others go on."""
    client = connect(start(new_id=lambda: "1"))
    name = upload(client, model_id="mine")

    with pytest.raises(exceptions.FailedPrecondition, match="new_id returned 1000 ids in a row that are taken"):
        upload(client, under=name.rpartition("@")[0])

    assert client.get_model(name=name).version_id == "1"


def test_time_and_ids_are_parameters(start: Start, connect: Connect, upload: Upload, parent: str) -> None:
    """You can pass the clock and a function for IDs. Time never goes back, and no ID is used twice."""
    # The first of them is checked when the emulator is created.
    moments = iter([*[dt.datetime(2030, 1, 2, tzinfo=dt.UTC)] * 2, *[dt.datetime(2029, 1, 1, tzinfo=dt.UTC)] * 20])
    ids = iter(["11", "91", "11", "12", "92", "91", "93", "91", "94", "5", "5", "6", "7", "7", "8"])
    client = connect(start(now=lambda: next(moments), new_id=lambda: next(ids)))

    first = client.get_model(name=upload(client))
    second = client.get_model(name=upload(client))

    assert first.name == f"{parent}/models/11@1"
    assert second.name == f"{parent}/models/12@1"
    assert first.create_time == first.version_create_time == dt.datetime(2030, 1, 2, tzinfo=dt.UTC)
    assert second.create_time == first.create_time
    assert client.delete_model(name=f"{parent}/models/12").operation.name == f"{parent}/models/12/operations/93"
    assert (
        client.export_model(
            name=f"{parent}/models/11", output_config={"image_destination": {"output_uri": "gcr.io/acme/serve"}}
        ).operation.name
        == f"{parent}/models/11/operations/94"
    )
    evaluations = [client.import_model_evaluation(parent=first.name, model_evaluation={}).name[-1] for _ in "ab"]
    evaluation = f"{parent}/models/11/evaluations/5"
    slices = client.batch_import_model_evaluation_slices(parent=evaluation, model_evaluation_slices=[{}, {}])
    assert evaluations == ["5", "6"]
    assert [name[-1] for name in slices.imported_model_evaluation_slices] == ["7", "8"]


def test_an_invalid_new_id_is_reported(start: Start, connect: Connect, upload: Upload) -> None:
    """If new_id returns IDs that no name can have, nothing is created with them."""
    for made in ("", "a/b", "x@1", "é", "A", "a" * 64):
        client = connect(start(new_id=lambda made=made: made))
        with pytest.raises(exceptions.FailedPrecondition, match="which isn't an id"):
            upload(client)


def test_lists_find_what_they_show_under_another_assumption(
    start: Start, connect: Connect, upload: Upload, parent: str, tmp_path: Path
) -> None:
    """A file that was written under another label-wins is listed by what it shows now."""
    data = tmp_path / "registry.db"
    emulator = start(data=data)
    client = connect(emulator)
    bare = upload(client, labels={"k": "version"}).partition("@")[0]
    client.update_model(model={"name": bare, "labels": {"k": "model"}}, update_mask=mask("labels"))
    for wins in ("model", "version"):
        emulator.close()
        emulator = start(data=data, assume={"label-wins": wins})
        client = connect(emulator)
        for label in ("model", "version"):
            found = [model.name for model in client.list_models({"parent": parent, "filter": f"labels.k={label}"})]
            assert found == ([bare] if label == wins else [])


def test_a_models_own_labels_are_64_at_most(start: Start, connect: Connect, upload: Upload) -> None:
    """labels-at-upload=model: labels of later versions count too, and too many are refused whole."""
    client = connect(start(assume={"labels-at-upload": "model"}))
    bare = upload(client, labels={f"a{n}": "" for n in range(64)}).partition("@")[0]

    with pytest.raises(exceptions.InvalidArgument, match="No more than 64 labels"):
        upload(client, under=bare, labels={"b": ""})
    upload(client, under=bare, labels={"a0": "x"})

    assert [model.version_id for model in client.list_model_versions(name=bare)] == ["1", "2"]
    assert client.get_model(name=bare).labels["a0"] == "x"
