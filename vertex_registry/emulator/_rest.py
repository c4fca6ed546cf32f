"""The RPC table served over HTTP and JSON, as Google's front end serves it.

A route is a row's path with the version before it: ``/v1`` and ``/v1beta1``, and ``/ui`` for operations and locations,
where Google's own Python client looks for them. JSON is read strictly and written as protobuf's canonical JSON.

The emulator's own paths, under ``/emulator``, are for tests in other processes.

A web page that a browser shows must not reach the registry of the person who looks at it. A request is answered only
if the host that it names is this server's own address (a name that was made to lead here is not), and if no other site
sent it.
"""

from __future__ import annotations

import contextlib
import email.errors
import enum
import errno
import hashlib
import ipaddress
import itertools
import json
import logging
import re
import selectors
import socket
import threading
import time
import urllib.parse
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from google.longrunning import operations_pb2
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Error as ProtobufError

from vertex_registry.emulator._bounds import LONGEST_REQUEST, check_json
from vertex_registry.emulator._dispatch import (
    APIS,
    FIELD_MASK,
    MODEL_SERVICE,
    RPCS,
    Dropped,
    Fault,
    message_class,
    response_class,
    v1beta1,
)
from vertex_registry.emulator._selection import apply_selection, parse_selection
from vertex_registry.emulator._status import (
    Code,
    Failure,
    bad_request,
    internal,
    not_found,
    permission_denied,
    writable,
)
from vertex_registry.emulator._store import DataFileError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from vertex_registry.emulator._dispatch import Dispatcher, Rpc
    from vertex_registry.emulator._selection import Selection

_log = logging.getLogger(__name__)

# RFC 9110: "A field value does not include leading or trailing whitespace."
_BLANKS: Final = " \t"
_IDLE: Final = 60.0
# What a refused client still sends is read until so many seconds go by without a byte, in pieces of so many bytes.
_LINGER: Final = 1.0
_PART: Final = 65536
# The beginning of a request's target in its absolute form, up to the path; that is how a proxy is asked.
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)

# What Google's front end takes on every request beside the fields of the message, and what means nothing here: the
# system parameters of its documentation, and those that its clients are generated with.
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
# Those that would make the answer another one, which is not done here.
_NO_CALLBACKS: Final = "Answers are plain JSON here."
_NOT_SERVED: Final = {
    "callback": _NO_CALLBACKS,
    "$callback": _NO_CALLBACKS,
}

_HEADERS: Final = (
    "Content-Type: application/json; charset=UTF-8\r\n"
    "Vary: Origin, X-Origin, Referer\r\n"
    "Cache-Control: private\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "X-Frame-Options: SAMEORIGIN\r\n"
    "X-XSS-Protection: 0\r\n"
)


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes
    retry_after: float | None = None


# --- routes ------------------------------------------------------------------


class Route(NamedTuple):
    """A way to an RPC."""

    rpc: Rpc
    path: re.Pattern[str]
    fields: tuple[str, ...]
    body: str


def _compile(path: str) -> tuple[str, tuple[str, ...]]:
    """A regular expression for a path of the table, and the fields that its groups bind."""
    fields: list[str] = []
    parts = []
    for part in re.split(r"(\{[^}]*\})", path):
        if part.startswith("{"):
            field, _, pattern = part[1:-1].partition("=")
            fields.append(field)
            # Only the id of a project has colons, that of a domain's: example.com:acme.
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


# --- JSON --------------------------------------------------------------------


class View(NamedTuple):
    """How a caller wants its answer to be written: by Google's system parameters.

    Attributes:
        numbers: Whether enumerations are numbers.
        fields: The fields to answer with, as they were given; all of them if it is empty.
    """

    numbers: bool = False
    fields: str = ""


def _parse(route: Route, match: re.Match[str], query: str, body: bytes, *, posted: bool) -> tuple[Any, View]:
    """Return the request's message, as one of v1, and how its answer is to be written.

    A POST whose rule maps no body to the request is answered whatever its body holds, since clients send different
    things there: nothing, ``{}`` or ``""``.
    """
    rpc, api = route.rpc, match[1]
    message = message_class(rpc, api)()
    if route.body and route.body != "*":
        _parse_body(body, getattr(message, route.body), route.body)
    elif route.body:
        _parse_body(body, message, "")
    elif not posted and body.strip():
        raise bad_request("This method takes no body: its arguments are in the path and in the query.")
    view = _parse_parameters(query, message, route)
    for field, value in zip(route.fields, match.groups()[1:], strict=True):
        *within, last = field.split(".")
        target = message
        for name in within:
            target = getattr(target, name)
        setattr(target, last, value)
    try:
        # Also where it is of v1 as it is: what could not be read from bytes could not be kept and answered.
        return rpc.request.FromString(message.SerializeToString()), view
    except ProtobufError:
        raise _too_deep() from None


def _parse_body(body: bytes, target: Any, within: str) -> None:
    given = _read_json(body)
    if not isinstance(given, dict):
        raise _refusal(("", _unknown("", "", "Root element must be a message.")))
    try:
        if mistakes := tuple(itertools.islice(_mistakes(given, target.DESCRIPTOR, within), _MOST_MISTAKES)):
            raise _refusal(*mistakes)
        json_format.ParseDict(given, target)
    except (json_format.ParseError, RecursionError):
        raise _too_deep() from None


def _too_deep() -> Failure:
    return bad_request("Invalid JSON payload received. It is nested too deeply.")


_FORM: Final = "application/x-www-form-urlencoded"
# The most bytes of a query in a body. A guess, and more than any of its fields may have.
_LONGEST_FORM: Final = 1024 * 1024


def _with_form(query: str, body: bytes) -> str:
    """Return a query with the parameters of a form behind its own."""
    try:
        if len(body) > _LONGEST_FORM:
            raise bad_request(f"The form in the body is longer than {_LONGEST_FORM} bytes.")
        form = body.decode("ascii").strip("\r\n")
    except UnicodeDecodeError:
        raise bad_request("The form in the body is not URL-encoded.") from None
    return "&".join(filter(None, (query, form)))


def _read_json(body: bytes) -> Any:
    """The value that a body is, and an empty object where it is empty."""
    check_json(body)
    try:
        text = body.decode()
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_pairs) if text.strip() else {}
    except UnicodeDecodeError:
        raise bad_request("Invalid JSON payload received. It is not UTF-8.") from None
    except json.JSONDecodeError as error:
        # The line of the body that the front end shows here is left out: anything may be in it.
        at_end = error.pos >= len(text.rstrip())
        why = "Unexpected end of string. Expected a value." if at_end else "Unexpected token."
    except RecursionError:
        why = "It is nested too deeply."
    except ValueError:
        why = "Unexpected token."
    raise bad_request(f"Invalid JSON payload received. {why}")


def _no_constant(name: str) -> None:
    """Refuse NaN and Infinity, which are Python's and not JSON's."""
    raise ValueError(name)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    given = dict(pairs)
    if len(given) < len(pairs):
        raise bad_request("Invalid JSON payload received. A name stands twice in one object.")
    return given


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def _is_mask(field: Any) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.FieldMask"


def _parse_parameters(query: str, message: Any, route: Route) -> View:
    view = View()
    try:
        parameters = urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=1000)
    except ValueError:
        raise bad_request("The query is not UTF-8, or has too many parameters.") from None
    seen: set[str] = set()
    for name, value in parameters:
        if name in {"alt", "$alt"}:
            kind, *options = value.split(";")
            if kind != "json":
                raise bad_request("Only alt=json is served.")
            view = view._replace(numbers="enum-encoding=int" in options)
        elif name in {"fields", "$fields"}:
            if view.fields not in {"", value}:
                raise _refusal((name, _unknown(name, "", _NOT_REPEATING)))
            view = view._replace(fields=value)
        elif name in _NOT_SERVED:
            raise bad_request(f"The parameter {name} is not served. {_NOT_SERVED[name]}")
        elif name in _SYSTEM_PARAMETERS:
            continue
        else:
            _bind(message, name, value, route, seen)
    return view


def _bind(message: Any, name: str, value: str, route: Route, seen: set[str]) -> None:
    """Set the field that a query parameter names."""
    # No field that a query may set is repeated or lies deeper: what does is in a body.
    field = _field(message.DESCRIPTOR, name)
    if field is None or route.body in {"*", field.name} or field.name in route.fields:
        why = f"Cannot bind query parameter. Field '{name}' could not be found in request message."
        raise _refusal((name, _unknown(name, "", why)))
    if field.name in seen:
        # A guess: it is what the front end says of a list in a body where one value belongs.
        raise _refusal((name, _unknown(name, "", _NOT_REPEATING)))
    seen.add(field.name)
    if _is_mask(field):
        # As it stands: a mask comes in either case, and the service reads both.
        getattr(message, field.name).paths.extend(filter(None, value.split(",")))
        return
    given: Any = value
    if field.type == FieldDescriptor.TYPE_BOOL:
        given = {"true": True, "false": False}.get(value, value)
    if not _is_taken(field, given, (field, given)):
        raise _refusal((field.name, _invalid(field, name, value, field.name)))
    json_format.ParseDict({field.json_name: given}, message)


# --- what is wrong with JSON --------------------------------------------------
#
# protobuf's own parser tells one mistake, in its own words, and takes [] and "" for any message. The words here are
# those of Google's front end, which many have published: it tells every mistake, each at its place.

_NOT_REPEATING: Final = "Proto field is not repeating, cannot start list."
# How many mistakes are told. A guess; it has been seen to tell dozens.
_MOST_MISTAKES: Final = 100
# Where a value is the caller's own data, which no error repeats. The front end repeats it.
_PRIVATE_FIELDS: Final = ("labels", "env", "metadata")
_PRIVATE: Final = re.compile(rf"\b(?:{'|'.join(_PRIVATE_FIELDS)})(?:\[|$)")
_ILLEGAL: Final = {
    "google.protobuf.Duration": "Illegal duration format; duration must end with 's'",
    "google.protobuf.Timestamp": (
        "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
    ),
}


def _refusal(*mistakes: tuple[str, str]) -> Failure:
    told = tuple((path, writable(sentence)) for path, sentence in mistakes)
    return bad_request("\n".join(sentence for _, sentence in told), *told)


def _mistakes(given: dict[str, Any], of: Any, path: str) -> Iterator[tuple[str, str]]:
    """What is wrong with an object that is to be a message: for each mistake the path that it is told at, and how."""
    given_already, taken = set(), set()
    for name, value in given.items():
        field = _field(of, name)
        if field is None:
            yield path, _unknown(name, path, "Cannot find field.")
            continue
        # The words of this are a guess.
        if field.name in given_already:
            yield path, f"Invalid value{_at(path)}, the field '{field.name}' is set twice."
            continue
        given_already.add(field.name)
        if value is None:
            continue
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in taken:
            why = f"oneof field '{oneof.name}' is already set. Cannot set '{name}'"
            yield path, f"Invalid value{_at(path)} (oneof), {why}"
            continue
        taken.add(oneof and oneof.name)
        yield from _field_mistakes(field, name, value, path)


def _field_mistakes(field: Any, name: str, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """What is wrong with what stands for a field: a value, a list or a map of them."""
    place = f"{path}.{field.name}" if path else field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if not isinstance(value, dict):
            # That it says so of a scalar too is a guess.
            kind = "list" if isinstance(value, list) else "scalar"
            yield path, f"Invalid value{_at(path)} (Map), Cannot bind a {kind} to map for field '{name}'."
            return
        # To the front end a map is a list of entries.
        inner_field = field.message_type.fields_by_name["value"]
        for at, (key, inner) in enumerate(value.items()):
            entry = f"{place}[{at}]"
            if writable(key) != key:
                yield f"{entry}.key", _invalid(field.message_type.fields_by_name["key"], "key", key, f"{entry}.key")
                continue
            yield from _value_mistakes(inner_field, "value", inner, entry, f"{entry}.value", (field, {key: inner}))
    elif field.default_value != []:  # it is not repeated; the oldest protobuf that we take has no other word for it
        yield from _value_mistakes(field, name, value, path, place, (field, value))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _value_mistakes(field, name, inner, path, f"{place}[{at}]", (field, [inner]))
    else:
        # A guess: it may take it for a list of one.
        yield place, _invalid(field, name, value, place)


def _value_mistakes(  # noqa: PLR0917 - what, where, and within what protobuf can be asked about it
    field: Any, name: str, value: Any, path: str, place: str, whole: tuple[Any, Any]
) -> Iterator[tuple[str, str]]:
    is_message = field.message_type is not None and not field.message_type.full_name.startswith("google.protobuf.")
    if is_message and isinstance(value, dict):
        yield from _mistakes(value, field.message_type, place)
    elif not is_message and _is_taken(field, value, whole):
        return
    elif isinstance(value, list) and not _takes_lists(field):
        yield path, _unknown(name, path, _NOT_REPEATING)
    elif isinstance(value, dict) and value and field.message_type is None and not _PRIVATE.search(place):
        for inner in value:
            yield place, _unknown(inner, place, "Cannot find field.")
    else:
        yield place, _invalid(field, name, value, place)


def _takes_lists(field: Any) -> bool:
    names = {"google.protobuf.Value", "google.protobuf.ListValue"}
    return field.message_type is not None and field.message_type.full_name in names


def _is_taken(field: Any, value: Any, whole: tuple[Any, Any]) -> bool:
    """Whether protobuf reads the value of a field that is no message of the API's, alone or in its list or map."""
    if field.type == FieldDescriptor.TYPE_STRING and isinstance(value, str):
        # protobuf takes whatever UTF-8 can write, and need not be asked.
        return value.isascii() or writable(value) == value
    outer, held = whole
    message = message_factory.GetMessageClass(outer.containing_type)()
    try:
        # What is no number of JSON's, as 1e400 is once it is read, and what UTF-8 cannot write, protobuf takes in some
        # places and breaks at in others.
        json.dumps(held, allow_nan=False, ensure_ascii=False).encode()
        json_format.ParseDict({outer.json_name: held}, message)
    except (json_format.ParseError, ValueError, OverflowError):
        # It overflows at an integer that no double holds.
        return False
    return True


def _field(of: Any, name: str) -> Any:
    """The field that has the name in either spelling, or None."""
    # protobuf cannot be asked for what UTF-8 cannot write.
    return (of.fields_by_name.get(name) or of.fields_by_camelcase_name.get(name)) if writable(name) == name else None


def _at(path: str) -> str:
    return f" at '{path}'" if path else ""


def _unknown(name: str, path: str, why: str) -> str:
    return f'Invalid JSON payload received. Unknown name "{name}"{_at(path)}: {why}'


def _may_hold_private(kind: Any, *within: Any) -> bool:
    """Whether the caller's own data may be in what stands for such a message."""
    return any(
        inner.name in _PRIVATE_FIELDS
        or (inner.message_type not in {None, kind, *within} and _may_hold_private(inner.message_type, kind, *within))
        for inner in kind.fields
    )


def _invalid(field: Any, name: str, value: Any, place: str) -> str:
    message = field.message_type
    kind = message or field.enum_type
    told = (
        f"type.googleapis.com/{kind.full_name}" if kind else descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
    )
    is_private = _PRIVATE.search(place) or (message is not None and _may_hold_private(message))
    shown = "" if is_private else f", {json.dumps(value)}"
    if message is not None and message.full_name in _ILLEGAL:
        what = f"Invalid data type for {message.name.lower()}, value is {json.dumps(value)}"
        shown = f", Field '{name}', {_ILLEGAL[message.full_name] if isinstance(value, str) else what}"
    return f"Invalid value at '{place}' ({told}){shown}"


_PACKED: Final = (operations_pb2.Operation, operations_pb2.ListOperationsResponse)


def _render(rpc: Rpc, api: str, response: Any, view: View, selection: Selection | None) -> bytes:
    if isinstance(response, bytes):
        response = rpc.response.FromString(response)
    if api == "v1beta1" and rpc.service == MODEL_SERVICE and response.DESCRIPTOR.file.package.endswith("aiplatform.v1"):
        response = getattr(v1beta1(), response.DESCRIPTOR.name).pb().FromString(response.SerializeToString())
    elif isinstance(response, _PACKED) and b".v1beta1." in response.SerializeToString():
        # What is packed in an operation can be shown only when its messages are known.
        v1beta1()
    if selection is not None:
        apply_selection(response, selection)
    return json_format.MessageToJson(response, use_integers_for_enums=view.numbers, ensure_ascii=False).encode()


def _failed(failure: Failure, *, http: int | None = None) -> Answer:
    """Google's JSON for an error."""
    error: dict[str, Any] = {
        "code": http or failure.http,
        "message": failure.message,
        "status": failure.code.name,
    }
    if failure.details:
        error["details"] = json_format.MessageToDict(failure.status)["details"]
    return Answer(http or failure.http, json.dumps({"error": error}, indent=2).encode(), failure.retry_after)


# --- the emulator's own paths ------------------------------------------------


def _health(dispatcher: Dispatcher, body: bytes) -> object:
    del dispatcher, body
    return {"status": "ok"}


def _requests(dispatcher: Dispatcher, body: bytes) -> object:
    del body
    return {
        "requests": [
            {
                "rpc": request.rpc,
                "api": request.api,
                "transport": request.transport,
                "metadata": dict(request.metadata),
                "message": _shown(request.message),
            }
            for request in dispatcher.requests()
        ]
    }


def _shown(message: Any) -> object:
    shown = type(message)()
    shown.CopyFrom(message)
    for field, value in shown.ListFields():
        if _is_mask(field):
            # A mask comes in either case, and JSON is made of one.
            value.paths[:] = [_snake(path) for path in value.paths]
    try:
        return json_format.MessageToDict(shown)
    except (json_format.Error, ValueError, TypeError):
        # A request that came over gRPC may hold what JSON has no word for.
        return None


def _faults(dispatcher: Dispatcher, body: bytes) -> object:
    del body
    return {"faults": [asdict(fault) for fault in dispatcher.faults()]}


# The most bytes of a fault: its message is the only text in it that is anybody's choice.
_LONGEST_FAULT: Final = 1024 * 1024


def _plan(dispatcher: Dispatcher, body: bytes) -> object:
    if len(body) > _LONGEST_FAULT:
        raise bad_request(f"This is no fault. A fault has at most {_LONGEST_FAULT} bytes.")
    given = _read_json(body)
    if not isinstance(given, dict):
        raise bad_request("This is no fault. A fault is a JSON object.")
    named = _pairs([(_snake(name), value) for name, value in given.items()])
    try:
        fault = Fault(**named)
    except (ValueError, TypeError) as error:
        raise bad_request(f"This is no fault. {error}") from error
    try:
        dispatcher.plan(fault)
    except ValueError as error:
        raise bad_request(str(error)) from error
    return _faults(dispatcher, b"")


def _forget(dispatcher: Dispatcher, body: bytes) -> object:
    dispatcher.forget_faults()
    return _faults(dispatcher, body)


def _reset(dispatcher: Dispatcher, body: bytes) -> object:
    del body
    dispatcher.reset()
    return {}


def _token(dispatcher: Dispatcher, body: bytes) -> object:
    """A token for whoever asks, so that a service account's key with this ``token_uri`` works. It opens nothing."""
    del dispatcher
    digest = hashlib.sha256(body).hexdigest()
    return {"access_token": f"emulator-{digest}", "expires_in": 3600, "token_type": "Bearer"}


OWN: Final[Mapping[tuple[str, str], Callable[[Dispatcher, bytes], object]]] = {
    ("GET", "/emulator/health"): _health,
    ("GET", "/emulator/requests"): _requests,
    ("GET", "/emulator/faults"): _faults,
    ("POST", "/emulator/faults"): _plan,
    ("DELETE", "/emulator/faults"): _forget,
    ("POST", "/emulator/reset"): _reset,
    ("POST", "/token"): _token,
}


# --- HTTP --------------------------------------------------------------------


# What Python's parser says of a head; of others, such as a body in parts that it does not see, it need not.
_NO_HEADERS: Final = (
    email.errors.MissingHeaderBodySeparatorDefect,
    email.errors.FirstHeaderLineIsContinuationDefect,
    email.errors.MisplacedEnvelopeHeaderDefect,
    email.errors.InvalidHeaderDefect,
)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: RestServer
    raw_requestline: bytes
    timeout = _IDLE
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        try:
            self._write(self._serve())
        except Dropped:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = do_OPTIONS = _answer  # noqa: N815 - http.server's names

    def _serve(self) -> Answer:
        try:
            body = self._read_body()
            self.server.set_state(_State.BUSY)
            self._check_origin()
            return self._route(body)
        except Failure as failure:
            return _failed(failure)
        except Dropped:
            raise
        except DataFileError as error:
            return _failed(internal(str(error)))
        except Exception as error:  # noqa: BLE001 - a bug of ours must be seen, and the client must not hang
            _log.exception("A request failed")
            return _failed(internal(f"The emulator made a mistake: {type(error).__name__}."))

    def parse_request(self) -> bool:
        """Read the head of a request, and tell whether it is one."""
        self.server.set_state(_State.READING)
        # RFC 9112: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one empty
        # line (CRLF) received prior to the request-line."
        if not self.raw_requestline.strip(b"\r\n"):
            self.raw_requestline = self.rfile.readline(_PART)
        return super().parse_request()

    def _read_body(self) -> bytes:
        self.close_connection, kept = True, self.close_connection
        # RFC 9112: "A server MUST reject, with a response status code of 400 (Bad Request), any received request
        # message that contains whitespace between a header field name and colon." What follows is read as no header.
        if self._has_stray_line():
            raise bad_request("A line of the request's head is no header.")
        if "Transfer-Encoding" in self.headers:
            raise Failure(
                Code.INVALID_ARGUMENT, "Send the body with a Content-Length.", http=HTTPStatus.LENGTH_REQUIRED
            )
        length = self.headers.get("Content-Length", "0").strip(_BLANKS)
        if len(self.headers.get_all("Content-Length", [])) > 1 or not re.fullmatch(r"[0-9]{1,18}", length):
            raise bad_request("The Content-Length is not a number.")
        if int(length) > LONGEST_REQUEST:
            raise Failure(
                Code.INVALID_ARGUMENT,
                f"The body is longer than {LONGEST_REQUEST} bytes.",
                http=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
        try:
            body = self.rfile.read(int(length))
        except OSError:  # the client has stopped, or is gone
            raise Dropped from None
        if len(body) < int(length):
            raise Dropped
        self.close_connection = kept
        return body

    def _has_stray_line(self) -> bool:
        """Whether a line is no header. To Python's parser, which is one of mail, it may begin or end the message."""
        rest = self.headers.get_payload()
        begun = self.headers.get_unixfrom() is not None
        return (
            begun
            or (isinstance(rest, str) and rest != "")
            or any(isinstance(defect, _NO_HEADERS) for defect in self.headers.defects)
        )

    def _check_origin(self) -> None:
        # RFC 9112: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
        # lacks a Host header field and to any request message that contains more than one Host header field line".
        hosts = len(self.headers.get_all("Host", []))
        if hosts > 1 or (not hosts and self.request_version == "HTTP/1.1"):
            raise bad_request("The request must have one Host.")
        if not self.server.is_own(self._split_target()[0]):
            raise Failure(
                Code.PERMISSION_DENIED, f"This server answers to its own address only: {self.server.address}."
            )
        # A page has the origin of the address that it was loaded from. That has to be the very address that this
        # request is for: a server with many addresses would else let the page of one reach the others. Of several
        # headers every one counts, because who merged them, and how, isn't known here.
        own = _origin(f"{self.server.scheme}://{self._split_target()[0]}")
        origins = [_origin(value.strip(_BLANKS)) for value in self.headers.get_all("Origin", [])]
        sites = {value.strip(_BLANKS) for value in self.headers.get_all("Sec-Fetch-Site", [])}
        if any(origin is None or origin != own for origin in origins) or not sites <= {"none", "same-origin"}:
            raise permission_denied("This server does not answer to the pages of other sites.")

    def _split_target(self) -> tuple[str, str]:
        """The host that is meant, and the path with its query.

        RFC 9112: "When an origin server receives a request with an absolute-form of request-target, the origin server
        MUST ignore the received Host header field (if any) and instead use the host information of the request-target."
        """
        absolute = _ABSOLUTE.match(self.path)
        if absolute is None:
            return self.headers.get("Host", "").strip(_BLANKS), self.path
        return absolute[1], self.path[absolute.end() :]

    def _route(self, body: bytes) -> Answer:
        encoded, _, query = self._split_target()[1].partition("?")
        try:
            path = urllib.parse.unquote(encoded, errors="strict")
        except UnicodeDecodeError:
            raise bad_request("The path is not UTF-8.") from None
        own = OWN.get((self.command, path))
        if own is not None:
            return Answer(200, json.dumps(own(self.server.dispatcher, body), indent=2).encode())
        method = self._method()
        for route in ROUTES.get(method, ()):
            match = route.path.fullmatch(path)
            if match is not None:
                api = match[1]
                if method != self.command and not route.body and self.headers.get_content_type() == _FORM:
                    # google-api-python-client moves a query that is too long for a URL to here.
                    query, body = _with_form(query, body), b""
                message, view = _parse(route, match, query, body, posted=self.command == "POST")
                # A parameter has the last word over a header: the front end's order is not known.
                fields = view.fields or ",".join(self.headers.get_all(FIELD_MASK, []))
                selection = parse_selection(fields, response_class(route.rpc, api).DESCRIPTOR)
                metadata = {name.lower(): value for name, value in self.headers.items()}
                response = self.server.dispatcher.call(route.rpc, message, api=api, transport="rest", metadata=metadata)
                return Answer(200, _render(route.rpc, api, response, view, selection))
        raise not_found(
            f"There is no method {method[:200]} {path[:200]} here. This is a local emulator of Vertex AI's model"
            " registry: it serves ModelService, its operations and locations."
        )

    def _method(self) -> str:
        """Return the HTTP method that is meant.

        X-HTTP-Method-Override, of Google's system parameters: "The intended HTTP method for the request. Some network
        proxies do not accept all HTTP methods."
        """
        given = {value.strip(_BLANKS) for value in self.headers.get_all("X-HTTP-Method-Override", [])} - {""}
        if len(given) > 1:
            raise bad_request("The request must have one X-HTTP-Method-Override.")
        return given.pop().upper() if given else self.command

    def _write(self, answer: Answer) -> None:
        lines = f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}\r\n{_HEADERS}"
        lines += f"Date: {self.date_time_string()}\r\nContent-Length: {len(answer.body)}\r\n"
        if answer.retry_after is not None:
            # A number of whole seconds: RFC 9110.
            lines += f"Retry-After: {-int(-answer.retry_after // 1)}\r\n"
        if self.close_connection:
            lines += "Connection: close\r\n"
        body = b"" if self.command == "HEAD" else answer.body
        # At once: a header and a body that are written apart cost a client forty milliseconds.
        self.wfile.write(f"{lines}\r\n".encode("latin-1") + body)
        if self.close_connection:
            self.server.set_state(_State.ENDING)
            self._discard()
        else:
            self.server.set_state(_State.IDLE)

    def _discard(self) -> None:
        """Read on until the client has seen the end: to close on bytes that nobody read would take its answer away."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            left = LONGEST_REQUEST
            while left > 0 and (part := self.rfile.read1(_PART)):
                left -= len(part)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What ``http.server`` itself refuses, as Google's JSON."""
        del explain
        self.close_connection = True
        # To http.server a verb or a version of HTTP that it does not know is a fault of the server's; it is none.
        http = {
            HTTPStatus.NOT_IMPLEMENTED: HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: HTTPStatus.BAD_REQUEST,
        }.get(HTTPStatus(code), code)
        self.command = self.command or ""
        self._write(_failed(Failure(Code.INVALID_ARGUMENT, message or "The request cannot be read."), http=int(http)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: a request's line may carry a label or a token."""


_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}


class _State(enum.IntEnum):
    """What a connection does, in the order in which connections are given up when the process has no more."""

    ENDING = 0
    IDLE = 1
    READING = 2
    BUSY = 3


class _Connection:
    """A connection that is served in a thread of its own."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.state = _State.IDLE
        self.since = time.monotonic()

    def end(self) -> None:
        """Let whoever reads from it, or writes to it, see its end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


# The errors of a process that has no descriptors or no memory left for another connection.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The seconds to wait for a connection to end where none can be accepted, and those that a client has to send something.
_EXHAUSTED_WAIT: Final = 0.25
_EXHAUSTED_GRACE: Final = 1.0


class RestServer(ThreadingHTTPServer):
    """The HTTP server. It is up when it is made.

    Raises:
        OSError: The address cannot be had.
    """

    # A thread that outlives a forgotten emulator does not keep the program from ending; close() waits for all of them.
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size: ClassVar[int] = 128  # type: ignore[misc]

    def __init__(
        self,
        dispatcher: Dispatcher,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.dispatcher = dispatcher
        self._tls = tls
        self._closing = False
        self._connections: dict[threading.Thread, _Connection] = {}
        self._connections_lock = threading.Lock()
        self._one_ended = threading.Condition(self._connections_lock)
        super().__init__((host, port), _Handler)
        shown = f"[{host}]" if ":" in host else host
        self.scheme = "http" if tls is None else "https"
        self.address = f"{self.scheme}://{shown}:{self.server_port}"
        self._own = self._own_hosts(host)
        self._allowed = {name.lower() for name in allowed_hosts}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="vertex-emulator-rest", daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        """Bind, without the look-up of a host name that ``http.server`` makes, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def _own_hosts(self, host: str) -> frozenset[str]:
        names = {host.lower()}
        if _ip(host) is None or _ip(host).is_loopback:  # type: ignore[union-attr]
            names |= {"localhost", "127.0.0.1", "::1"}
        return frozenset(names)

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server.

        A server that listens on every address has many of its own: any that is a number. A name is the danger, for
        whoever owns it says where it leads.
        """
        name, port = _split_host(host.lower())
        if name in self._allowed:
            # Whatever the port: the one that is published need not be the one that is served.
            return True
        if port != self.server_port and not (port is None and self.server_port in {80, 443}):
            return False
        if name in self._own:
            return True
        bound = _ip(next(iter(self.server_address[:1])))
        return bound is not None and bound.is_unspecified and (_ip(name) is not None or name in self._names())

    @staticmethod
    def _names() -> frozenset[str]:
        return frozenset({"localhost", socket.gethostname().lower()})

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="vertex-emulator-rest-connection",
            daemon=True,
        )
        with self._connections_lock:
            self._connections[thread] = _Connection(request)
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left: the connection ends
            with self._connections_lock:
                del self._connections[thread]
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its own thread; that is where TLS is agreed on, which may take a slow client long."""
        if self._tls is not None:
            request.settimeout(_IDLE)
            with self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as wrapped:
                with self._connections_lock:
                    # From here on it is this one that has the connection, and that close() ends.
                    self._connections[threading.current_thread()].socket = wrapped
                    if self._closing:  # pragma: no cover - a race between a client and close()
                        return
                wrapped.do_handshake()
                super().finish_request(wrapped, client_address)
            return
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Let a connection go."""
        with self._connections_lock:
            self._connections.pop(threading.current_thread(), None)
            super().shutdown_request(request)
            self._one_ended.notify_all()

    def set_state(self, state: _State) -> None:
        """Note what the connection of this thread does."""
        connection = self._connections.get(threading.current_thread())
        if connection is not None:
            connection.state = state
            connection.since = time.monotonic()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the client's affair."""

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while not any(key.fileobj is self._stopped for key, _ in selector.select()):
                self._handle_request_noblock()  # type: ignore[attr-defined]

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. Where the process has no descriptor left for one, another connection is given up."""
        while True:
            try:
                return super().get_request()
            except OSError as error:
                if error.errno not in _EXHAUSTED or not self._give_one_up():
                    raise

    def _give_one_up(self) -> bool:
        """End the connection that has done nothing for longest, and wait until its descriptor is free.

        One whose request is being carried out isn't ended, nor one that was active just now. Whether or not there is
        another, this waits: a server that tried again at once would be busy with nothing else.

        Returns:
            Whether a connection has ended, so that it's worth another try.
        """
        with self._one_ended:
            latest = time.monotonic() - _EXHAUSTED_GRACE
            connections = self._connections.values()
            waiting = [each for each in connections if each.state is not _State.BUSY and each.since <= latest]
            if waiting:
                min(waiting, key=lambda each: (each.state, each.since)).end()
            return self._one_ended.wait(_EXHAUSTED_WAIT)

    def close(self) -> None:
        """Stop, and end every connection."""
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        with self._connections_lock:
            self._closing = True
            threads = list(self._connections)
            for connection in self._connections.values():
                connection.end()
        for thread in threads:
            thread.join()
        self.server_close()


def _ip(text: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(str(text))
    except ValueError:
        return None


def _split_host(host: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]{1,5}))?|([^:\[\]]+)(?::([0-9]{1,5}))?", host)
    if match is None:
        return "", None
    port = match[2] or match[4]
    return match[1] or match[3], int(port) if port else None


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _origin(text: str) -> tuple[str, str, int] | None:
    """Return the scheme, host and port of a web origin, or None if the text isn't one."""
    scheme, separator, host = text.lower().partition("://")
    name, port = _split_host(host)
    if not separator or not name or scheme not in _DEFAULT_PORTS:
        return None
    return scheme, name, _DEFAULT_PORTS[scheme] if port is None else port
