"""The table of RPCs, and the dispatcher that every request of both transports goes through.

The gRPC handlers and the REST routes are created from ``RPCS``. ``Dispatcher.call`` records a request, counts it
for the quota, applies the faults that are planned for its RPC, and calls the service.
"""

from __future__ import annotations

import collections
import hashlib
import logging
import re
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.cloud.aiplatform_v1 import types
from google.cloud.location import locations_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.protobuf.message import DecodeError

from vertex_registry.emulator._data_file import DataFileError
from vertex_registry.emulator._operations import Call
from vertex_registry.emulator._quota import Meter
from vertex_registry.emulator._status import (
    Code,
    Failure,
    failed_precondition,
    internal,
    retry_info,
    unavailable,
    writable,
)

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from vertex_registry.emulator._service import Service

_log = logging.getLogger(__name__)

MODEL_SERVICE: Final = "google.cloud.aiplatform.{api}.ModelService"
OPERATIONS: Final = "google.longrunning.Operations"
LOCATIONS: Final = "google.cloud.location.Locations"

#: The versions of the API. Both are the same on the wire, as far as the model service goes.
APIS: Final = ("v1", "v1beta1")


class Http(NamedTuple):
    """One binding of an RPC to HTTP, in the notation of ``google.api.http`` but for the version that leads the path."""

    verb: str
    path: str
    body: str = ""


class Rpc(NamedTuple):
    """One row of the table.

    Attributes:
        service: The gRPC service; ``{api}`` is replaced by the version of the API.
        name: The method.
        method: The service's method for it.
        request: The class of its requests.
        response: The class of its responses.
        http: Its bindings.
    """

    service: str
    name: str
    method: str
    request: Any
    response: Any
    http: tuple[Http, ...]


def _model_rpc(  # noqa: PLR0917 - a row of the table below
    name: str, method: str, response: Any, verb: str, path: str, body: str = ""
) -> Rpc:
    """Return a row of the model service. Its request is named after it, its response is named or an operation."""
    request = getattr(types, f"{name}Request").pb()
    response = getattr(types, response).pb() if isinstance(response, str) else response
    return Rpc(MODEL_SERVICE, name, method, request, response, (Http(verb, path, body),))


def _operation_rpc(name: str, method: str, response: Any, verb: str, suffix: str = "") -> Rpc:
    """Return a row of the operations, whose names are under a location, a model, or one of its evaluations."""
    many = name == "ListOperations"
    paths = ("projects/*/locations/*", _MODEL, f"{_MODEL}/evaluations/*")
    http = tuple(
        Http(
            verb,
            f"{{name={path}}}/operations" if many else f"{{name={path}/operations/*}}{suffix}",
        )
        for path in paths
    )
    return Rpc(OPERATIONS, name, method, getattr(operations_pb2, f"{name}Request"), response, http)


_MODEL: Final = "projects/*/locations/*/models/*"
_LRO: Final = operations_pb2.Operation

RPCS: Final = (
    _model_rpc("UploadModel", "upload_model", _LRO, "POST", "{parent=projects/*/locations/*}/models:upload", "*"),
    _model_rpc("GetModel", "get_model", "Model", "GET", f"{{name={_MODEL}}}"),
    _model_rpc("ListModels", "list_models", "ListModelsResponse", "GET", "{parent=projects/*/locations/*}/models"),
    _model_rpc(
        "ListModelVersions",
        "list_model_versions",
        "ListModelVersionsResponse",
        "GET",
        f"{{name={_MODEL}}}:listVersions",
    ),
    _model_rpc(
        "ListModelVersionCheckpoints",
        "list_model_version_checkpoints",
        "ListModelVersionCheckpointsResponse",
        "GET",
        f"{{name={_MODEL}}}:listCheckpoints",
    ),
    _model_rpc("UpdateModel", "update_model", "Model", "PATCH", f"{{model.name={_MODEL}}}", "model"),
    _model_rpc(
        "UpdateExplanationDataset",
        "update_explanation_dataset",
        _LRO,
        "POST",
        f"{{model={_MODEL}}}:updateExplanationDataset",
        "*",
    ),
    _model_rpc("DeleteModel", "delete_model", _LRO, "DELETE", f"{{name={_MODEL}}}"),
    _model_rpc("DeleteModelVersion", "delete_model_version", _LRO, "DELETE", f"{{name={_MODEL}}}:deleteVersion"),
    _model_rpc(
        "MergeVersionAliases", "merge_version_aliases", "Model", "POST", f"{{name={_MODEL}}}:mergeVersionAliases", "*"
    ),
    _model_rpc("ExportModel", "export_model", _LRO, "POST", f"{{name={_MODEL}}}:export", "*"),
    _model_rpc("CopyModel", "copy_model", _LRO, "POST", "{parent=projects/*/locations/*}/models:copy", "*"),
    _model_rpc(
        "ImportModelEvaluation",
        "import_model_evaluation",
        "ModelEvaluation",
        "POST",
        f"{{parent={_MODEL}}}/evaluations:import",
        "*",
    ),
    _model_rpc(
        "BatchImportModelEvaluationSlices",
        "batch_import_model_evaluation_slices",
        "BatchImportModelEvaluationSlicesResponse",
        "POST",
        f"{{parent={_MODEL}/evaluations/*}}/slices:batchImport",
        "*",
    ),
    _model_rpc(
        "BatchImportEvaluatedAnnotations",
        "batch_import_evaluated_annotations",
        "BatchImportEvaluatedAnnotationsResponse",
        "POST",
        f"{{parent={_MODEL}/evaluations/*/slices/*}}:batchImport",
        "*",
    ),
    _model_rpc(
        "GetModelEvaluation", "get_model_evaluation", "ModelEvaluation", "GET", f"{{name={_MODEL}/evaluations/*}}"
    ),
    _model_rpc(
        "ListModelEvaluations",
        "list_model_evaluations",
        "ListModelEvaluationsResponse",
        "GET",
        f"{{parent={_MODEL}}}/evaluations",
    ),
    _model_rpc(
        "GetModelEvaluationSlice",
        "get_model_evaluation_slice",
        "ModelEvaluationSlice",
        "GET",
        f"{{name={_MODEL}/evaluations/*/slices/*}}",
    ),
    _model_rpc(
        "ListModelEvaluationSlices",
        "list_model_evaluation_slices",
        "ListModelEvaluationSlicesResponse",
        "GET",
        f"{{parent={_MODEL}/evaluations/*}}/slices",
    ),
    _operation_rpc("ListOperations", "list_operations", operations_pb2.ListOperationsResponse, "GET"),
    _operation_rpc("GetOperation", "get_operation", _LRO, "GET"),
    _operation_rpc("DeleteOperation", "delete_operation", empty_pb2.Empty, "DELETE"),
    _operation_rpc("CancelOperation", "cancel_operation", empty_pb2.Empty, "POST", ":cancel"),
    _operation_rpc("WaitOperation", "wait_operation", _LRO, "POST", ":wait"),
    Rpc(
        LOCATIONS,
        "ListLocations",
        "list_locations",
        locations_pb2.ListLocationsRequest,
        locations_pb2.ListLocationsResponse,
        (Http("GET", "{name=projects/*}/locations"),),
    ),
    Rpc(
        LOCATIONS,
        "GetLocation",
        "get_location",
        locations_pb2.GetLocationRequest,
        locations_pb2.Location,
        (Http("GET", "{name=projects/*/locations/*}"),),
    ),
)

BY_NAME: Final[Mapping[str, Rpc]] = {rpc.name: rpc for rpc in RPCS}


def message_class(rpc: Rpc, api: str) -> Any:
    """Return the class of an RPC's requests in a version of the API."""
    if api == "v1beta1" and rpc.service == MODEL_SERVICE:
        return getattr(v1beta1(), rpc.request.DESCRIPTOR.name).pb()
    return rpc.request


def response_class(rpc: Rpc, api: str) -> Any:
    """Return the class of an RPC's responses in a version of the API."""
    if api == "v1beta1" and rpc.service == MODEL_SERVICE and rpc.response is not _LRO:
        return getattr(v1beta1(), rpc.response.DESCRIPTOR.name).pb()
    return rpc.response


#: The header, and the gRPC metadata, of the system parameter ``fields``.
FIELD_MASK: Final = "x-goog-fieldmask"


def v1beta1() -> Any:
    """Return the messages of v1beta1, which the first call imports."""
    from google.cloud.aiplatform_v1beta1 import types as beta  # noqa: PLC0415 - importing it takes a second, and few need it

    return beta


# The RPCs that begin an operation.
_BEGINNING: Final = frozenset(rpc.name for rpc in RPCS if rpc.service == MODEL_SERVICE and rpc.response is _LRO)


# --- faults ------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """A fault that is planned for the next requests of an RPC.

    Attributes:
        rpc: The RPC.
        code: The canonical code of the failure, such as "UNAVAILABLE". None if the request is only delayed or dropped.
        times: How many more requests it applies to.
        when: "before" (the request isn't carried out), "after" (it is, and the response is lost), or "operation" (the
            request is answered, and the operation that it begins fails). The latter two don't apply to a request that
            is refused anyway.
        delay: The seconds by which the response is delayed.
        drop: Whether the connection ends without a response.
        retry_after: The seconds that the caller is asked to wait before it tries again.
        stale_etag: Whether the request is refused for a stale etag.
        message: The failure's sentence.
    """

    rpc: str
    code: str | None = None
    times: int = 1
    when: str = "before"
    delay: float = 0.0
    drop: bool = False
    retry_after: float | None = None
    stale_etag: bool = False
    message: str = ""

    def __post_init__(self) -> None:
        for name, kinds, what in _KINDS:
            # True is the number 1 to Python. Nobody means that.
            if type(getattr(self, name)) not in kinds:
                raise ValueError(f"The {name} of a fault is {what}.")
        for wrong, sentence in (
            (self.message != writable(self.message), "The message of a fault has to be text that UTF-8 can write."),
            (self.rpc not in BY_NAME, f"The RPC {self.rpc!r} doesn't exist. Choose one of: {', '.join(BY_NAME)}."),
            (
                self.code is not None and self.code not in Code.__members__,
                f"The code {self.code!r} doesn't exist. Choose one of: {', '.join(Code.__members__)}.",
            ),
            (self.when not in _WHEN, f"A fault can't come {self.when!r}. Choose one of: {', '.join(_WHEN)}."),
            (self.times < 1, "A fault applies at least once. Set `times` to 1 or more."),
            (not 0 <= self.delay <= threading.TIMEOUT_MAX, "A delay is a number of seconds, and isn't negative."),
            (
                self.retry_after is not None and not 0 <= self.retry_after <= _MAXIMUM_WAIT,
                "The time to wait is a number of seconds, and isn't negative.",
            ),
            (
                self.code is None and (self.retry_after is not None or self.when == "operation"),
                "A failure needs a code, such as 'UNAVAILABLE'.",
            ),
            (
                self.code is None and not (self.delay or self.drop or self.stale_etag),
                "A fault is a code, a delay, a dropped connection or a stale etag.",
            ),
            (
                self.when == "operation" and self.drop,
                "A request whose operation fails is answered, so its connection can't be dropped.",
            ),
            (self.drop and self.code is not None, "A dropped connection has no code. Set either `drop` or `code`."),
            (self.stale_etag and self.rpc != "UpdateModel", "Only UpdateModel has an etag."),
            (
                self.stale_etag and self.when != "before",
                "A request with a stale etag isn't carried out, so it fails 'before'.",
            ),
            (
                self.stale_etag and (self.code is not None or self.drop),
                "A request with a stale etag is refused for that, without another code or a dropped connection.",
            ),
            (
                self.when == "operation" and self.rpc not in _BEGINNING,
                f"{self.rpc} doesn't begin an operation.",
            ),
        ):
            if wrong:
                raise ValueError(sentence)

    def __str__(self) -> str:
        effects = (self.code, self.drop and "a dropped connection", self.stale_etag and "a stale etag")
        shown = " and ".join(effect for effect in effects if effect) or "a delay"
        return f"{self.rpc}: {shown}" + (f", {self.times} times" if self.times > 1 else "")

    @property
    def failure(self) -> Failure | None:
        """The failure of the request, or of its operation."""
        if self.code is None:
            return None
        details = () if self.retry_after is None else (retry_info(self.retry_after),)
        return Failure(Code[self.code], self.message or f"A planned fault of {self.rpc}.", *details)


@dataclass
class _PlannedFault:
    """A fault, and to how many more requests it applies."""

    fault: Fault
    left: int


_WHEN: Final = ("before", "after", "operation")
# The types of a fault's attributes. They are checked because faults come over HTTP too.
_KINDS: Final[tuple[tuple[str, tuple[type, ...], str], ...]] = (
    ("rpc", (str,), "a name"),
    ("code", (str, type(None)), "a name, such as 'UNAVAILABLE'"),
    ("times", (int,), "a whole number"),
    ("when", (str,), "a word"),
    ("delay", (int, float), "a number of seconds"),
    ("drop", (bool,), "true or false"),
    ("retry_after", (int, float, type(None)), "a number of seconds"),
    ("stale_etag", (bool,), "true or false"),
    ("message", (str,), "text"),
)
_MAXIMUM_WAIT: Final = 1e9

#: The most faults that may be planned at one time.
MOST_FAULTS: Final = 10_000


def data_file_failure(error: DataFileError) -> Failure:
    """Return the failure of a request that the data file doesn't allow.

    FAILED_PRECONDITION: "the client should not retry until the system state has been explicitly fixed"
    (``google/rpc/code.proto``). INTERNAL leaves open whether the request was carried out, and clients retry it.
    """
    return internal(str(error)) if error.may_be_written else failed_precondition(str(error))


class Dropped(Exception):  # noqa: N818 - it isn't an error
    """The connection is to end without a response."""


# --- dispatching -------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """A request that was received.

    Attributes:
        rpc: The RPC.
        api: The version of the API, or "ui" for a path that begins with it.
        transport: "grpc" or "rest".
        message: The request's message.
        metadata: The gRPC metadata or the HTTP headers, their names in lower case. Those that are known to be harmless
            have their values, without the user and the query of an address; the others have the SHA-256 of their value,
            as ``Bearer sha256:...`` or ``sha256:...``.
    """

    rpc: str
    api: str
    transport: str
    message: Any
    metadata: Mapping[str, str]


# The metadata that is shown as it came. Anything may carry a credential, under whatever name: of all else there is a
# hash, which still says whether two values are the same.
_SHOWN_METADATA: Final = frozenset(
    {
        ":authority",
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-timeout",
        "host",
        "keep-alive",
        "origin",
        "pragma",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "te",
        "user-agent",
        "x-goog-api-client",
        "x-goog-api-version",
        "x-goog-fieldmask",
        "x-goog-request-params",
        "x-goog-user-project",
        "x-http-method-override",
    }
)
# The words that may come before a credential.
_SCHEME: Final = re.compile(r"(?P<scheme>Bearer|Basic) +(?P<secret>.*)", re.IGNORECASE | re.DOTALL)
# The parts of an address that may be secret: the user and the query.
_USER_INFO: Final = re.compile(r"(?<=://)[^/?#@\s]*@")
_QUERY: Final = re.compile(r"(?<=\?)[^\s#<>\"')]+")
# How many requests are remembered, and how many bytes of them.
_REMEMBERED: Final = 4096
_REMEMBERED_BYTES: Final = 64 * 1024 * 1024


class _RecordedRequest(NamedTuple):
    """A request as it's remembered: serialised, because a message may take fifty times as much memory."""

    rpc: Rpc
    api: str
    transport: str
    data: bytes
    metadata: Mapping[str, str]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self.data) + sum(len(name) + len(value) for name, value in self.metadata.items())

    def request(self) -> Request:
        """Return the request."""
        message = self.rpc.request.FromString(self.data)
        return Request(self.rpc.name, self.api, self.transport, message, self.metadata)


def join_repeated(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return headers by name. A client and its credentials may both send one, such as ``x-goog-api-client``.

    RFC 9110, 5.3: a recipient may combine several fields of one name into one, each value after a comma.
    """
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def redacted(name: str, value: str) -> str:
    """Return a piece of metadata as it may be shown: a hash of it, unless its name says that it's harmless."""
    if name in _SHOWN_METADATA:
        if "@" in value:
            value = _USER_INFO.sub(lambda user: f"{_hashed(user[0][:-1])}@", value)
        return _QUERY.sub(lambda query: _hashed(query[0]), value) if "?" in value else value
    secret = value.strip()
    match = _SCHEME.fullmatch(secret)
    return f"{match['scheme']} {_hashed(match['secret'])}" if match else _hashed(secret)


def _hashed(secret: str) -> str:
    return f"sha256:{hashlib.sha256(secret.encode(errors='replace')).hexdigest()}"


class Dispatcher:
    """What every request of both transports goes through."""

    def __init__(self, service: Service, now: Callable[[], dt.datetime]) -> None:
        self._service = service
        #: The quotas of requests.
        self.meter = Meter(now)
        methods = service.methods([rpc.method for rpc in RPCS])
        self._methods = {rpc.name: methods[rpc.method] for rpc in RPCS}
        self._lock = threading.Lock()
        self._faults: list[_PlannedFault] = []
        self._requests: collections.deque[_RecordedRequest] = collections.deque()
        self._bytes = 0
        self._closed = False
        # Ends the delays of the requests since the last reset.
        self._over = threading.Event()

    def call(
        self,
        rpc: Rpc,
        message: Any,
        *,
        api: str,
        transport: str,
        metadata: Mapping[str, str],
        step_aside: Callable[[], None] = lambda: None,
    ) -> Any:
        """Carry out a request and return the response, a message or the bytes of one.

        ``step_aside`` is called before a delay.

        Raises:
            Failure: The request fails.
            Dropped: The connection is to end without a response.
        """
        # The path of an operation may have no version. A new operation always begins under one.
        call = Call(api="v1beta1" if api == "v1beta1" else "v1")
        try:
            shown = {name: redacted(name, value) for name, value in metadata.items()}
            recorded = _RecordedRequest(rpc, api, transport, message.SerializeToString(), shown)
            with self._lock:
                self._remember(recorded)
            self.meter.count(message, submission=rpc.name in _BEGINNING)
            with self._lock:
                fault, over = self._use_fault(rpc.name), self._over
            if fault is None:
                return self._methods[rpc.name](message, call)
            if fault.delay:
                step_aside()
            return self._call_faultily(fault, over, rpc, message, call)
        except (Failure, Dropped):
            raise
        except DataFileError as error:
            raise data_file_failure(error) from error
        except DecodeError as error:
            raise failed_precondition(
                f"The data file is damaged, so {rpc.name} failed. Replace the file with an intact copy."
            ) from error
        except Exception as error:
            # A bug here has to be seen, and the client must not hang.
            _log.exception("%s failed", rpc.name)
            raise internal(f"The emulator made a mistake in {rpc.name}: {type(error).__name__}.") from error

    def _remember(self, recorded: _RecordedRequest) -> None:
        self._requests.append(recorded)
        self._bytes += recorded.size
        while len(self._requests) > _REMEMBERED or (self._bytes > _REMEMBERED_BYTES and len(self._requests) > 1):
            self._bytes -= self._requests.popleft().size

    def _call_faultily(self, fault: Fault, over: threading.Event, rpc: Rpc, message: Any, call: Call) -> Any:
        call = call._replace(failing=fault.failure if fault.when == "operation" else None, stale=fault.stale_etag)
        if fault.when == "before":
            over.wait(fault.delay)
            if over.is_set() and not self._closed:
                raise Dropped  # the request is older than a reset, so it must not change anything
            self._fail(fault)
        try:
            response = self._methods[rpc.name](message, call)
        except Failure:
            if fault.when != "before":
                self._restore_fault(fault)  # the request was refused anyway
            raise
        if fault.when != "before":
            over.wait(fault.delay)
        if fault.when == "after":
            self._fail(fault)
        return response

    @staticmethod
    def _fail(fault: Fault) -> None:
        if fault.drop:
            raise Dropped
        if fault.failure is not None:
            raise fault.failure

    def _use_fault(self, rpc: str) -> Fault | None:
        for at, planned in enumerate(self._faults):
            if planned.fault.rpc == rpc:
                planned.left -= 1
                if not planned.left:
                    del self._faults[at]
                return planned.fault
        return None

    def _restore_fault(self, fault: Fault) -> None:
        with self._lock:
            for planned in self._faults:
                if planned.fault is fault:
                    planned.left += 1
                    return
            self._faults.insert(0, _PlannedFault(fault, 1))

    def plan(self, fault: Fault) -> None:
        """Plan a fault for the next requests of an RPC, after those that are planned already.

        Raises:
            ValueError: Too many are planned already.
        """
        with self._lock:
            if len(self._faults) >= MOST_FAULTS:
                raise ValueError(f"There are {MOST_FAULTS} planned faults. Plan one with a larger `times` instead.")
            self._faults.append(_PlannedFault(fault, fault.times))

    def faults(self) -> tuple[Fault, ...]:
        """Return the planned faults that haven't applied to a request yet."""
        with self._lock:
            return tuple(replace(planned.fault, times=planned.left) for planned in self._faults)

    def forget_faults(self) -> None:
        """Cancel every planned fault."""
        with self._lock:
            self._faults.clear()

    def deploy(self, model: str, endpoint: str) -> tuple[str, ...]:
        """Mark a version as deployed to an endpoint, a new one if none is named, and return all its endpoints.

        Raises:
            Failure: The version doesn't exist, or a name is malformed.
        """
        self._check_open()
        return self._service.deploy(model, endpoint)

    def undeploy(self, model: str, endpoint: str) -> tuple[str, ...]:
        """Remove a version from an endpoint, or from all if none is named, and return those that it's still on.

        Raises:
            Failure: The version doesn't exist or isn't deployed there, or a name is malformed.
        """
        self._check_open()
        return self._service.undeploy(model, endpoint)

    def _check_open(self) -> None:
        if self._closed:
            raise unavailable("The emulator is closed.")

    def requests(self) -> tuple[Request, ...]:
        """Return the received requests, the oldest first. Of very many, only the latest are remembered."""
        with self._lock:
            remembered = tuple(self._requests)
        return tuple(recorded.request() for recorded in remembered)

    def parents(self) -> list[str]:
        """Return the locations that have models. No request is recorded."""
        return self._service.parents()

    def iter_requests(self, most_bytes: int) -> Iterator[Request]:
        """Yield the received requests, the oldest first, with messages of at most so many bytes in total.

        The latest have their messages; what doesn't fit has None. One message at a time is in memory.
        """
        with self._lock:
            remembered = tuple(self._requests)
        shown = set()
        for position in reversed(range(len(remembered))):
            size = len(remembered[position].data)
            if size <= most_bytes:
                most_bytes -= size
                shown.add(position)
        for position, kept in enumerate(remembered):
            if position in shown:
                yield kept.request()
            else:
                yield Request(kept.rpc.name, kept.api, kept.transport, None, kept.metadata)

    def reset(self) -> None:
        """Forget every model, operation, fault and request. Delayed requests are no longer carried out."""
        with self._lock:
            self._faults.clear()
            self._requests.clear()
            self._bytes = 0
            over, self._over = self._over, threading.Event()
        over.set()
        self.meter.reset()
        self._service.reset()

    def close(self) -> None:
        """End every delay."""
        with self._lock:
            self._closed = True
        self._over.set()
