"""Requests and responses of the RPCs as Google's front end has them over HTTP: routes, parameters and JSON.

A route is a row's path with a version before it: ``/v1`` and ``/v1beta1``, and ``/ui`` for operations and locations,
where Google's Python client looks for them.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.longrunning import operations_pb2
from google.protobuf import json_format
from google.protobuf.message import Error as ProtobufError

from vertex_registry.emulator._dispatch import APIS, MODEL_SERVICE, RPCS, message_class, v1beta1
from vertex_registry.emulator._json import (
    NOT_REPEATING,
    parse_body,
    refusal,
    set_parameter,
    too_deep,
    unknown_name,
)
from vertex_registry.emulator._selection import apply_selection
from vertex_registry.emulator._status import bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vertex_registry.emulator._dispatch import Rpc
    from vertex_registry.emulator._selection import Selection
    from vertex_registry.emulator._status import Failure

# What Google's front end accepts on every request beside the message's fields, and what has no effect here: the system
# parameters of its documentation, and those that its clients are generated with.
_SYSTEM_PARAMETERS: Final = frozenset(
    {
        "$.xgafv",
        "$apiVersion",
        "$ct",
        "$key",
        "$outputDefaults",
        "$prettyPrint",
        "$quotaUser",
        "$unique",
        "$userProject",
        "access_token",
        "key",
        "oauth_token",
        "passwd",
        "password",
        "prettyPrint",
        "quotaUser",
        "uploadType",
        "upload_protocol",
    }
)
# Those that would make the response something else than JSON.
_CALLBACKS: Final = frozenset({"callback", "$callback"})


class Request(NamedTuple):
    """An HTTP request.

    Attributes:
        method: The method, such as "GET".
        path: The path, still encoded.
        query: The query, still encoded.
        headers: The names, in lower case, and values of the headers.
        body: The body.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def get_all(self, name: str) -> list[str]:
        """Return the values of a header."""
        return [value for given, value in self.headers if given == name]


class Response(NamedTuple):
    """An HTTP response.

    Attributes:
        status: The status.
        body: The body.
        retry_after: The seconds that the client is asked to wait.
        headers: Its headers. Defaults to those of JSON from Google's front end.
    """

    status: int
    body: bytes
    retry_after: float | None = None
    headers: Mapping[str, str] | None = None


# --- routes ------------------------------------------------------------------


class Route(NamedTuple):
    """A way to an RPC.

    Attributes:
        rpc: The RPC.
        path: What its paths match: the version first, and then the values of ``fields``.
        fields: The fields that the path sets.
        body: The field that the body is, "*" for the whole request, or nothing.
    """

    rpc: Rpc
    path: re.Pattern[str]
    fields: tuple[str, ...]
    body: str


def _compile(path: str) -> tuple[str, tuple[str, ...]]:
    """Return a regular expression for a path of the table, and the fields that its groups set."""
    fields: list[str] = []
    parts = []
    for part in re.split(r"(\{[^}]*\})", path):
        if part.startswith("{"):
            field, _, pattern = part[1:-1].partition("=")
            fields.append(field)
            # Only a project's id can have a colon, if the project is a domain's: example.com:acme.
            pattern = pattern.replace("projects/*", "projects/[^/]+").replace("*", "[^/:]+")
            parts.append(f"({pattern})")
        else:
            parts.append(re.escape(part))
    return "".join(parts), tuple(fields)


def _routes() -> dict[str, list[Route]]:
    routes: dict[str, list[Route]] = {}
    for rpc in RPCS:
        versions = APIS if rpc.service == MODEL_SERVICE else (*APIS, "ui")
        for http in rpc.http:
            path, fields = _compile(http.path)
            pattern = re.compile(f"/({'|'.join(versions)})/{path}")
            routes.setdefault(http.verb, []).append(Route(rpc, pattern, fields, http.body))
    return routes


ROUTES: Final = _routes()


# --- requests ----------------------------------------------------------------


class Format(NamedTuple):
    """How a caller wants its response, by Google's system parameters.

    Attributes:
        numbers: Whether enumerations are numbers.
        fields: The fields to respond with, as they were given. Empty means all.
    """

    numbers: bool = False
    fields: str = ""


def parse_request(route: Route, match: re.Match[str], query: str, body: bytes, *, posted: bool) -> tuple[Any, Format]:
    """Return the request's message, as one of v1, and the format of its response.

    A POST whose rule maps no body is answered whatever its body holds. Clients send nothing, ``{}`` or ``""`` there.

    Raises:
        Failure: INVALID_ARGUMENT.
    """
    rpc, api = route.rpc, match[1]
    message = message_class(rpc, api)()
    if route.body and route.body != "*":
        parse_body(body, getattr(message, route.body), route.body)
    elif route.body:
        parse_body(body, message, "")
    elif not posted and body.strip():
        raise bad_request("This method takes no body: its arguments are in the path and in the query.")
    form = _parse_parameters(query, message, route)
    for field, value in zip(route.fields, match.groups()[1:], strict=True):
        *within, last = field.split(".")
        target = message
        for name in within:
            target = getattr(target, name)
        setattr(target, last, value)
    try:
        # Even if it's of v1 already: what can't be read from bytes can't be stored and returned either.
        return rpc.request.FromString(message.SerializeToString()), form
    except ProtobufError:
        raise too_deep() from None


FORM: Final = "application/x-www-form-urlencoded"
# The most bytes of a query in a body. A guess, and more than any of its fields may have.
_MAXIMUM_FORM: Final = 1024 * 1024


def with_form(query: str, body: bytes) -> str:
    """Return a query with the parameters of a form after its own."""
    try:
        if len(body) > _MAXIMUM_FORM:
            raise bad_request(f"The form in the body is longer than {_MAXIMUM_FORM} bytes.")
        form = body.decode("ascii").strip("\r\n")
    except UnicodeDecodeError:
        raise bad_request("The form in the body is not URL-encoded.") from None
    return "&".join(filter(None, (query, form)))


def _parse_parameters(query: str, message: Any, route: Route) -> Format:
    """Set the fields that a query has, and return the format that it asks for."""
    form = Format()
    elsewhere = {route.body, *route.fields}
    if route.body == "*":
        elsewhere.update(field.name for field in message.DESCRIPTOR.fields)
    try:
        parameters = urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise bad_request("The query is not UTF-8, or has too many parameters.") from None
    seen: set[str] = set()
    for name, value in parameters:
        if name in {"alt", "$alt"}:
            kind, *options = value.split(";")
            if kind != "json":
                raise bad_request("Only alt=json is supported.")
            form = form._replace(numbers="enum-encoding=int" in options)
        elif name in {"fields", "$fields"}:
            if form.fields not in {"", value}:
                raise refusal((name, unknown_name(name, "", NOT_REPEATING)))
            form = form._replace(fields=value)
        elif name in _CALLBACKS:
            raise bad_request(f"The parameter {name} isn't supported. Responses are plain JSON here.")
        elif name in _SYSTEM_PARAMETERS:
            continue
        else:
            set_parameter(message, name, value, elsewhere=elsewhere, seen=seen)
    return form


# --- responses ---------------------------------------------------------------

_PACKED: Final = (operations_pb2.Operation, operations_pb2.ListOperationsResponse)


def render(rpc: Rpc, api: str, response: Any, form: Format, selection: Selection | None) -> bytes:
    """Return a response as protobuf's canonical JSON, with the fields that are selected."""
    if isinstance(response, bytes):
        response = rpc.response.FromString(response)
    if api == "v1beta1" and rpc.service == MODEL_SERVICE and response.DESCRIPTOR.file.package.endswith("aiplatform.v1"):
        response = getattr(v1beta1(), response.DESCRIPTOR.name).pb().FromString(response.SerializeToString())
    elif isinstance(response, _PACKED) and b".v1beta1." in response.SerializeToString():
        # What is packed in an operation can be written only if its types are imported.
        v1beta1()
    if selection is not None:
        apply_selection(response, selection)
    return json_format.MessageToJson(response, use_integers_for_enums=form.numbers, ensure_ascii=False).encode()


def error_response(failure: Failure, *, http: int | None = None) -> Response:
    """Return Google's JSON for an error."""
    error: dict[str, Any] = {
        "code": http or failure.http,
        "message": failure.message,
        "status": failure.code.name,
    }
    if failure.details:
        error["details"] = json_format.MessageToDict(failure.status)["details"]
    return Response(http or failure.http, json.dumps({"error": error}, indent=2).encode(), failure.retry_after)
