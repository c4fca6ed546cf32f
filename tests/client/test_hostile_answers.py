"""Hostile or broken answers of a server: every verb ends, with a record or one of this package's errors.

Two real servers replace Vertex, one over gRPC and one over HTTP. They repeat whatever answers a test plans.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pickle
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import attrs
import grpc
import pandas as pd
import pytest
from google.cloud.aiplatform_v1.types import ListModelsResponse, ListModelVersionsResponse, UploadModelResponse
from google.cloud.aiplatform_v1.types import Model as ModelType
from google.longrunning import operations_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.test_hostile_labels import pack
from vertex_registry import ModelVersion, RegisteredModel, RegistryClient, RegistryError, Retry, Stage
from vertex_registry._changes import Change, Changes, write
from vertex_registry._stages import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Model: Final = ModelType.pb(ModelType()).__class__
ModelPage: Final = ListModelsResponse.pb(ListModelsResponse()).__class__
VersionPage: Final = ListModelVersionsResponse.pb(ListModelVersionsResponse()).__class__
Uploaded: Final = UploadModelResponse.pb(UploadModelResponse()).__class__

PARENT: Final = "projects/test-project/locations/us-central1"
MODEL: Final = f"{PARENT}/models/1234567890"

#: How many requests of one verb are honestly answered: what sends more doesn't end.
MOST: Final = 500

#: The budget in seconds of a verb that has to answer, on a machine that's busy.
BOUND: Final = 10.0


@attrs.frozen
class Failure:
    """An error status as the answer."""

    code: grpc.StatusCode
    message: str


Answer = Message | Failure | bytes


class Server:
    """A server that answers each RPC with planned answers, and repeats the last one."""

    def __init__(self) -> None:
        self.plan: Mapping[str, list[Answer]] = {}
        self.asked = 0
        self._turns: dict[str, int] = {}
        self._lock = threading.Lock()

    def answering(self, plan: Mapping[str, list[Answer]]) -> None:
        self.plan, self.asked, self._turns = plan, 0, {}

    def next(self, rpc: str) -> Answer:
        with self._lock:
            self.asked += 1
            turn = self._turns[rpc] = self._turns.get(rpc, -1) + 1
        answers = self.plan.get(rpc, ())
        if self.asked > MOST or not answers:
            return Failure(grpc.StatusCode.NOT_FOUND, "nothing is planned")
        answer = answers[min(turn, len(answers) - 1)]
        if isinstance(answer, Message) and getattr(answer, "next_page_token", "") == "fresh":
            answer = type(answer).FromString(answer.SerializeToString())
            answer.next_page_token = f"page-{turn}"  # type: ignore[attr-defined]  # it has one
        return answer


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: Server) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        rpc = details.method.rpartition("/")[2]

        def answer(_request: bytes, context: Any) -> bytes:
            planned = self._server.next(rpc)
            if isinstance(planned, Failure):
                context.abort(planned.code, planned.message)
                return b""  # an abort raises
            return planned.SerializeToString() if isinstance(planned, Message) else planned

        return grpc.unary_unary_rpc_method_handler(answer)


def _rpc_of(method: str, path: str) -> str:
    path = path.partition("?")[0]
    if "/operations" in path:
        return "GetOperation" if "/operations/" in path else "ListOperations"
    for end, rpc in (
        (":upload", "UploadModel"),
        (":mergeVersionAliases", "MergeVersionAliases"),
        (":deleteVersion", "DeleteModelVersion"),
        (":listVersions", "ListModelVersions"),
        ("/models", "ListModels"),
    ):
        if path.endswith(end):
            return rpc
    return {"GET": "GetModel", "PATCH": "UpdateModel", "DELETE": "DeleteModel"}.get(method, "GetModel")


def _as_json(message: Any) -> dict[str, Any]:
    """Return the message as JSON. If it has no JSON form, return a text."""
    fields: dict[str, Any] = {}
    for field, value in message.ListFields():
        try:
            if field.message_type and "models" in field.name:
                fields[field.json_name] = [_as_json(one) for one in value]
                continue
            one = type(message)()
            one.MergeFrom(message)
            for other, _ in message.ListFields():
                if other.name != field.name:
                    one.ClearField(other.name)
            fields |= json_format.MessageToDict(one)
        except Exception:  # noqa: BLE001  # whatever has no JSON
            fields[field.json_name] = "99999-01-01T00:00:00Z"
    return fields


_HTTP: Final = {"NOT_FOUND": 404, "PERMISSION_DENIED": 403, "ABORTED": 409, "FAILED_PRECONDITION": 400}


def _http_handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            planned = server.next(_rpc_of(self.command, self.path))
            status = 200
            if isinstance(planned, Failure):
                status = _HTTP.get(planned.code.name, 503)
                error = {"code": status, "status": planned.code.name, "message": planned.message}
                body = json.dumps({"error": error}).encode()
            elif isinstance(planned, Message):
                body = json.dumps(_as_json(planned)).encode("utf-8", "surrogatepass")
            else:
                body = planned
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  # http.server's names

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, tuple[Server, str]]]:
    over_grpc, over_http = Server(), Server()
    grpc_server = grpc.server(ThreadPoolExecutor(8), handlers=[_Handler(over_grpc)])
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), _http_handler(over_http))
    http_server.daemon_threads = True
    thread = threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield {
        "grpc": (over_grpc, f"127.0.0.1:{port}"),
        "rest": (over_http, f"http://127.0.0.1:{http_server.server_address[1]}"),
    }
    grpc_server.stop(0)
    http_server.shutdown()
    http_server.server_close()


VERBS: Final[dict[str, Callable[[RegistryClient], Any]]] = {
    "register": lambda r: r.register_version("churn", "gs://bucket/dir", metadata={"a": 1}),
    "register again": lambda r: r.register_version("churn", "gs://bucket/dir", request_id="r", check_source=False),
    "register promoted": lambda r: r.register_version(
        "churn", "gs://bucket/dir", stage="Production", archive_existing=True, version_name="1.0"
    ),
    "register or reuse": lambda r: r.register_version(
        "churn", "gs://bucket/dir", version_name="1.0", reuse_existing=True, check_source=False
    ),
    "register by number": lambda r: r.register_version("1234567890", "gs://bucket/dir"),
    "register by resource": lambda r: r.register_version(MODEL, "gs://bucket/dir"),
    "get": lambda r: r.get_version("churn"),
    "get by number": lambda r: r.get_version("churn", 1),
    "get by name": lambda r: r.get_version("churn", version_name="1.0"),
    "find": lambda r: r.find_version("churn", "1"),
    "latest": lambda r: r.latest_version("churn", stage="Production"),
    "list": lambda r: list(r.list_versions("churn", metadata={"a": 1})),
    "list all": lambda r: list(r.list_versions()),
    "history": lambda r: r.stage_history("churn"),
    "history of one": lambda r: r.stage_history("churn", 1),
    "version at": lambda r: r.version_at("churn", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
    "version at first": lambda r: r.version_at("churn", dt.datetime.min.replace(tzinfo=dt.UTC), stage="Staging"),
    "rollback": lambda r: r.rollback("churn"),
    "rollback staging": lambda r: r.rollback("churn", stage="Staging"),
    "get by stage": lambda r: r.get_version("churn", stage="Production"),
    "best": lambda r: r.best_version("churn", "a", stage="Production"),
    "worst": lambda r: r.best_version("churn", "a", direction="min"),
    "diff": lambda r: r.diff("churn", 1, "default"),
    "prune": lambda r: r.prune("churn", keep=1),
    "prune dry": lambda r: r.prune("churn", keep=1, dry_run=True),
    "stage and default": lambda r: r.set_stage("churn", 1, "Production", make_default=True),
    "dicts": lambda r: r.list_versions("churn").to_dicts(),
    "table": lambda r: [repr(r.list_versions()), r.list_models()._repr_html_()],
    "frame": lambda r: pd.DataFrame(r.list_versions("churn").to_pandas()),  # imported above: it takes 100 MB
    "update": lambda r: r.update_version("churn", 1, metadata={"a": [1] * 40}, remove_metadata=["b"]),
    "update both": lambda r: r.update_version("churn", "default", description="x", stage="Staging"),
    "stage": lambda r: r.set_stage("churn", 1, "Production", archive_existing=True),
    "add aliases": lambda r: r.add_aliases("churn", "default", ["best"]),
    "remove aliases": lambda r: r.remove_aliases("churn", 1, ["best"]),
    "set default": lambda r: r.set_default("churn", 1),
    "delete version": lambda r: r.delete_version("churn", 1),
    "delete model": lambda r: r.delete_model("churn"),
    "model": lambda r: r.get_model("churn"),
    "model by resource": lambda r: r.get_model(MODEL),
    "models": lambda r: list(r.list_models(labels={"a": "b"})),
    "metadata": lambda r: r.get_metadata("churn"),
    "rename": lambda r: r.rename_model("churn", "chrun"),
    "update model": lambda r: r.update_model("churn", description="x", labels={"a": "b"}),
    "duplicates": lambda r: r.duplicates(),
    "to aiplatform": lambda r: r.to_aiplatform("churn", 1),
}


#: What isn't about answers of Vertex: what connects, closes, or reads and writes artifacts.
OTHER_VERBS: Final = {
    "choose_container", "close", "download", "download_version", "load_version", "metadata_fits", "upload",
}  # fmt: skip


def test_no_verb_is_missing() -> None:
    """Every public method of the client is called with hostile answers."""
    called = {name for verb in VERBS.values() for name in verb.__code__.co_names}
    public = {name for name in vars(RegistryClient) if not name.startswith("_")}
    assert public - OTHER_VERBS <= called


def check(
    servers: dict[str, tuple[Server, str]],
    transport: str,
    verb: str,
    plan: Mapping[str, list[Answer]],
    call_timeout: float = 0.1,
) -> Any:
    """Call a verb on a server with these answers, and return its record or its error."""
    server, endpoint = servers[transport]
    server.answering(plan)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A list of everything may take some operation timeouts.
    retry = Retry(call_timeout=call_timeout, operation_timeout=call_timeout, initial_backoff=0.01, max_backoff=0.05)
    with RegistryClient(project="test-project", endpoint=endpoint, retry=retry) as registry:
        ended: Any
        try:
            ended = VERBS[verb](registry)
        except RegistryError as error:
            ended = error
            assert len(str(error)) < 100_000
    assert server.asked <= MOST, "it went on asking"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "it took more than 100 MB"
    for record in ended if isinstance(ended, list) else [ended]:
        if isinstance(record, ModelVersion):
            assert 0 < int(record.version) < 10**18
            assert record.resource_name == f"{record.model_resource_name}@{record.version}"
            json.dumps(record.metadata, allow_nan=False)
        if isinstance(record, (ModelVersion, RegisteredModel)):
            assert record.created_at.tzinfo is dt.UTC
            assert repr(record)
            assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301  # pickled here, and every field is read
            assert record.to_dict()
    return ended


def history(version: int, *changes: tuple[Stage, int]) -> dict[str, str]:
    """Return the labels of a version with these changes of stage. Times are in seconds since 1970."""
    remembered, labels = Changes(), dict[str, str | None]()
    for stage, seconds in changes:
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
        change = Change(stage, moment, "eve", successor=2**40, restored=True)
        labels = write(version, remembered, change)
        remembered = Changes((change, *remembered.latest_first))
        labels |= {"stage": stage.label, "vr-stage-changed-at": format_timestamp(moment)}
    return {key: value for key, value in labels.items() if value is not None}


PRODUCTION, ARCHIVED = Stage.PRODUCTION, Stage.ARCHIVED

BOMBS: Final = [
    *[
        history(version, *changes)
        for version in (1, 2, 3)
        for changes in (
            ((PRODUCTION, 1_700_000_000 + version),),
            ((PRODUCTION, version), (ARCHIVED, version + 1), (PRODUCTION, 2**31)),
            ((PRODUCTION, 100_000_000_000),),
            ((ARCHIVED, 0), (PRODUCTION, 0), (ARCHIVED, 0), (PRODUCTION, 0)),
        )
    ],
    pack('["' + '\\"' * 30_000),
    pack('["' + '\\"' * 1_000_000),
    pack('[{"a":[' + "[]," * 700_000 + "[]]},{}]"),
    pack('[{"a":' + "[" * 99 + "]" * 99 + '},{"stage":"production"}]'),
    pack('[{"a":NaN},{}]'),
    {"stage": "_j__7b_7d", "vr-stage-changed-at": "9999-12-31t23-59-59-999999z", "vr-version-name": "_j__22"},
    {"stage": "production", "vr-stage-changed-at": "8999-12-31t23-59-59-999999z"},
    {f"k{number}": "x" for number in range(200)},
    {"a" * 100: "b" * 100_000, "": "", "\u00e9": "\u0000", "managed_by": "\x1b[2J"},
]

TEXTS: Final = st.text(max_size=20) | st.sampled_from(
    ["", "\x1b]0;x\x07", "x" * 10_000, "_j_", "vr-request-x", "default"]
)
NUMBERS: Final = st.sampled_from(
    [
        "1",
        "2",
        "3",
        "",
        "abc",
        "0",
        "-1",
        "1.5",
        "1e5",
        "007",
        "9" * 18,
        "9" * 19,
        "9" * 5000,
        "\uff11",
        "1\n",
        "default",
    ]
)
NAMES: Final = st.sampled_from(
    [
        *[MODEL] * 12,
        f"{MODEL}@1", f"{MODEL}@2", f"{MODEL}@abc", f"{MODEL}@@", "", "x", MODEL[:-11], MODEL + "/../../x",
        MODEL + "?x=1#y", "projects/1/locations/us-central1/models/\u00e9", "projects/2/locations/mars/models/1",
        "x" * 10_000,
    ]
)  # fmt: skip
INT64: Final = st.integers(-(2**63), 2**63 - 1) | st.sampled_from(
    [0, 10**18, -(10**18), 1_700_000_000, 253_402_300_800]
)
INT32: Final = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 999_999_999])
TIMES: Final = st.fixed_dictionaries({"seconds": INT64, "nanos": INT32})
MODELS: Final = st.builds(
    Model,
    name=NAMES,
    display_name=st.sampled_from(["churn", "churn", "chrun", "1234567890", ""]) | TEXTS,
    version_id=NUMBERS,
    version_aliases=st.lists(TEXTS, max_size=3),
    labels=st.sampled_from(BOMBS) | st.dictionaries(TEXTS, TEXTS, max_size=4),
    etag=TEXTS,
    artifact_uri=st.sampled_from(["", "gs://bucket/dir", "file:///etc/passwd"]) | TEXTS,
    description=TEXTS,
    create_time=TIMES,
    version_create_time=TIMES,
    version_update_time=TIMES,
    container_spec=st.none()
    | st.fixed_dictionaries(
        {
            "image_uri": TEXTS,
            "ports": st.lists(st.fixed_dictionaries({"container_port": INT32}), max_size=2),
            "shared_memory_size_mb": INT64,
            "deployment_timeout": TIMES,
            "env": st.lists(st.fixed_dictionaries({"name": TEXTS, "value": TEXTS}), max_size=2),
        }
    ),
)
TOKENS: Final = st.sampled_from(["", "", "", "again", "fresh"])
FAILURES: Final = st.builds(Failure, st.sampled_from(list(grpc.StatusCode)[1:]), TEXTS.filter(str.isprintable))
RAW: Final = st.sampled_from(
    [b"", b"\xff\xfe", b"null", b"[]", b'"x"', b"{", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"NaN"]
) | st.binary(max_size=30)  # fmt: skip
MODEL_PAGES: Final = st.builds(ModelPage, models=st.lists(MODELS, max_size=4), next_page_token=TOKENS)
VERSION_PAGES: Final = st.builds(VersionPage, models=st.lists(MODELS, max_size=4), next_page_token=TOKENS)


@st.composite
def operations(draw: st.DrawFn) -> Any:
    operation = operations_pb2.Operation(
        name=draw(
            st.sampled_from([f"{MODEL}/operations/1", "", "x", "../operations/2", f"{PARENT}/operations/\u00e9"])
        ),
        done=draw(st.booleans()),
    )
    match draw(st.integers(0, 3)):
        case 0:
            operation.error.code = draw(INT32)
            operation.error.message = draw(TEXTS)
        case 1:
            operation.response.Pack(Uploaded(model=draw(NAMES), model_version_id=draw(NUMBERS)))
        case 2:
            operation.response.type_url = "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse"
            operation.response.value = draw(st.binary(max_size=20))
    return operation


OPERATIONS: Final = operations()
OPERATION_PAGES: Final = st.builds(
    operations_pb2.ListOperationsResponse, operations=st.lists(OPERATIONS, max_size=3), next_page_token=TOKENS
)


def some(answers: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Answer]]:
    """Draw the responses of an RPC, most of them well-formed."""
    return st.lists(st.one_of(answers, answers, answers, FAILURES, RAW), min_size=1, max_size=3)


PLANS: Final = st.fixed_dictionaries(
    {
        "GetModel": some(MODELS),
        "UpdateModel": some(MODELS),
        "MergeVersionAliases": some(MODELS),
        "ListModels": some(MODEL_PAGES),
        "ListModelVersions": some(VERSION_PAGES),
        "ListOperations": some(OPERATION_PAGES),
        "UploadModel": some(OPERATIONS),
        "DeleteModel": some(OPERATIONS),
        "DeleteModelVersion": some(OPERATIONS),
        "GetOperation": some(OPERATIONS),
    }
)


@pytest.mark.unmeasured
@pytest.mark.parametrize("transport", ["grpc", "rest"])
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(verbs=st.lists(st.sampled_from(list(VERBS)), min_size=4, max_size=4, unique=True), plan=PLANS)
def test_any_answers(
    servers: dict[str, tuple[Server, str]], transport: str, verbs: list[str], plan: Mapping[str, list[Answer]]
) -> None:
    """With any responses, each method ends within its bounds, with a record or one of this package's errors."""
    for verb in verbs:
        check(servers, transport, verb, plan)


def odd_version(**fields: Any) -> Any:
    """Return a version whose fields all have unusual values."""
    return Model(
        **{
            "name": f"{MODEL}@7",
            "display_name": "churn",
            "version_aliases": ["default", "", "\x00", "Ünï"],
            "labels": {"team": "growth"} | pack('["' + '\\"' * 30_000),
            "artifact_uri": "gs://bucket/dir",
            "create_time": {"seconds": 2**62, "nanos": -5},
            "version_create_time": {"seconds": -(2**62), "nanos": 2**31 - 1},
            "version_update_time": {"seconds": 1_700_000_000, "nanos": -7},
            "container_spec": {
                "image_uri": "image",
                "ports": [{"container_port": 0}, {"container_port": 8080}, {"container_port": 70_000}],
                "deployment_timeout": {"seconds": 2**62, "nanos": 2**31 - 1},
            },
        }
        | fields
    )


def odd_plan(**more: Any) -> dict[str, list[Answer]]:
    """Return responses with unusual values that every method can still use."""
    finished = operations_pb2.Operation(name=f"{MODEL}/operations/1", done=True)
    finished.response.Pack(Uploaded(model=MODEL, model_version_id="7"))
    return {
        **{rpc: [odd_version()] for rpc in ("GetModel", "UpdateModel", "MergeVersionAliases")},
        **{rpc: [finished] for rpc in ("UploadModel", "DeleteModel", "DeleteModelVersion", "GetOperation")},
        "ListModels": [ModelPage(models=[odd_version(name=MODEL), odd_version(name="x")])],
        "ListModelVersions": [VersionPage(models=[odd_version(), odd_version(name=MODEL, version_id="abc")])],
        "ListOperations": [operations_pb2.ListOperationsResponse(operations=[finished])],
    } | more


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.unmeasured  # measuring coverage costs much, and other tests reach each line
def test_every_verb_reads_odd_answers(servers: dict[str, tuple[Server, str]], transport: str) -> None:
    """Each method succeeds with unusual responses. REST can't express a time out of range."""
    plan = odd_plan()
    if transport == "rest":
        fine = {"seconds": 1_700_000_000}
        version = odd_version(create_time=fine, version_create_time=fine, version_update_time=fine)
        version.container_spec.ClearField("deployment_timeout")
        plan |= {rpc: [version] for rpc in ("GetModel", "UpdateModel", "MergeVersionAliases")}
        plan["ListModels"] = [ModelPage(models=[version])]
        plan["ListModelVersions"] = [VersionPage(models=[version])]
    answered = {"get", "get by number", "model", "latest", "add aliases", "set default", "history", "prune dry", "diff"}
    for verb in VERBS:
        # What must be answered gets time for it on a busy machine, and what can't be answered ends soon.
        ended = check(servers, transport, verb, plan, call_timeout=BOUND if verb in answered else 0.1)
        assert verb not in answered or not isinstance(ended, RegistryError), verb


def test_a_list_is_not_lost_to_one_odd_entry(
    servers: dict[str, tuple[Server, str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Unreadable entries of a list are skipped with one warning. Odd times, ports and durations are corrected."""
    fine = odd_version(version_id="8", version_create_time={"seconds": 1_700_000_000})
    nameless = [odd_version(name=name) for name in ("", "x", "projects/1/models/2", MODEL + "/x@1")]
    numberless = [odd_version(name=MODEL, version_id=number) for number in ("", "abc", "0", "9" * 5000, "\uff11")]
    page = VersionPage(models=[*nameless, fine, *numberless, odd_version()])

    versions = check(servers, "grpc", "list all", odd_plan(ListModelVersions=[page]), BOUND)
    assert isinstance(versions, list), versions
    assert [version.version for version in versions] == ["8", "7"]
    assert [version.created_at for version in versions] == [
        dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC),
        dt.datetime.min.replace(tzinfo=dt.UTC),
    ]
    assert all(version.updated_at.year == 2023 for version in versions)
    assert all(version.container.ports == (8080,) for version in versions)
    assert all(version.container.deployment_timeout > 2**61 for version in versions)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.partition(" ")[0] for warning in warnings] == ["1", "9"]
    models = check(servers, "grpc", "duplicates", odd_plan(), BOUND)
    assert models == {}


@pytest.mark.parametrize("transport", ["grpc", "rest"])
@pytest.mark.parametrize("verb", ["get", "list", "register", "latest", "delete version", "models"])
def test_answers_without_end(servers: dict[str, tuple[Server, str]], transport: str, verb: str) -> None:
    """Endless pages and IDs of other names end in an error."""
    for token in ("again", "fresh"):
        other = odd_version(name=MODEL, display_name="other", version_create_time={"seconds": 1}, create_time={})
        other.container_spec.ClearField("deployment_timeout")
        other.version_update_time.Clear()
        plan: dict[str, list[Answer]] = {
            "GetModel": [other],
            "ListModels": [ModelPage(models=[other], next_page_token=token)],
            "ListModelVersions": [VersionPage(models=[other], next_page_token=token)],
        }
        check(servers, transport, verb, plan)
