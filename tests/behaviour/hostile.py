"""A server that answers the calls of ModelService over gRPC and REST with whatever a test chooses."""

from __future__ import annotations

import http.server
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
from google.api_core import exceptions as google_exceptions
from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2
from google.protobuf import json_format

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Answer = Callable[[Any], Any]

#: The request of each RPC.
REQUESTS: dict[str, Any] = {
    "UploadModel": types.UploadModelRequest.pb(),
    "GetModel": types.GetModelRequest.pb(),
    "ListModels": types.ListModelsRequest.pb(),
    "ListModelVersions": types.ListModelVersionsRequest.pb(),
    "UpdateModel": types.UpdateModelRequest.pb(),
    "MergeVersionAliases": types.MergeVersionAliasesRequest.pb(),
    "DeleteModel": types.DeleteModelRequest.pb(),
    "DeleteModelVersion": types.DeleteModelVersionRequest.pb(),
    "GetOperation": operations_pb2.GetOperationRequest,
    "ListOperations": operations_pb2.ListOperationsRequest,
}

#: The HTTP method and path of each RPC, and the request field for the path's group. The first match counts.
ROUTES = [
    ("POST", r"(.+)/models:upload", "UploadModel", "parent"),
    ("POST", r"(.+):mergeVersionAliases", "MergeVersionAliases", "name"),
    ("GET", r"(.+):listVersions", "ListModelVersions", "name"),
    ("GET", r"(.+)/operations", "ListOperations", "name"),
    ("GET", r"(.+/operations/.+)", "GetOperation", "name"),
    ("GET", r"(.+/locations/[^/]+)/models", "ListModels", "parent"),
    ("GET", r"(.+)", "GetModel", "name"),
    ("PATCH", r"(.+)", "UpdateModel", "model.name"),
    ("DELETE", r"(.+):deleteVersion", "DeleteModelVersion", "name"),
    ("DELETE", r"(.+)", "DeleteModel", "name"),
]


class Hostile:
    """The server. An answer is a function of the request that returns a message or raises one of Google's errors.

    Attributes:
        answers: The answer to each RPC. Other RPCs fail with UNIMPLEMENTED.
        calls: How many calls the server has received.
        grpc: The address for gRPC.
        rest: The address for REST.
    """

    def __init__(self) -> None:
        self.answers: Mapping[str, Answer] = {}
        self.calls = 0
        self._grpc = grpc.server(ThreadPoolExecutor(8))
        self._grpc.add_generic_rpc_handlers((_Handler(self),))
        self.grpc = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()
        hostile = self

        class Request(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # send a response at once: in parts, it would wait for the client's acknowledgement

            def do(self) -> None:
                _answer_http(hostile, self)

            do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815  # http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._http.daemon_threads = True
        self.rest = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._grpc.stop(None).wait()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, rpc: str, request: Any) -> Any:
        self.calls += 1
        if (answer := self.answers.get(rpc)) is None:
            raise google_exceptions.MethodNotImplemented(rpc)  # type: ignore[no-untyped-call]  # untyped upstream
        message = answer(request)
        return message if not hasattr(type(message), "pb") else type(message).pb(message)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, hostile: Hostile) -> None:
        self._hostile = hostile

    def service(self, handler_call_details: Any) -> Any:
        rpc = handler_call_details.method.rpartition("/")[2]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            try:
                message = self._hostile.answer(rpc, REQUESTS[rpc].FromString(request))
            except google_exceptions.GoogleAPICallError as error:
                context.abort(error.grpc_status_code or grpc.StatusCode.UNKNOWN, error.message)
            serialised: bytes = message.SerializeToString()
            return serialised

        return grpc.unary_unary_rpc_method_handler(answer)


def _answer_http(hostile: Hostile, handler: Any) -> None:
    url = urlsplit(handler.path)
    path, query = unquote(url.path).removeprefix("/v1/"), parse_qs(url.query)
    body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    routes = (
        (re.fullmatch(pattern, path), rpc, field) for verb, pattern, rpc, field in ROUTES if verb == handler.command
    )
    match, rpc, field = next((match, rpc, field) for match, rpc, field in routes if match)
    request = REQUESTS[rpc]()
    if body:
        message = request.model if rpc == "UpdateModel" else request
        json_format.ParseDict(json.loads(body), message, ignore_unknown_fields=True)
    target = request.model if field == "model.name" else request
    setattr(target, field.rpartition(".")[2], match[1])
    if "pageToken" in query:
        request.page_token = query["pageToken"][0]
    try:
        status, content = 200, json_format.MessageToJson(hostile.answer(rpc, request))
    except google_exceptions.GoogleAPICallError as error:
        name = (error.grpc_status_code or grpc.StatusCode.UNKNOWN).name
        status, content = error.code or 500, json.dumps({"error": {"status": name, "message": error.message}})
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content.encode())))
    handler.end_headers()
    handler.wfile.write(content.encode())
