"""Translate whatever Google's libraries raise: first into a `CallError`, and in the end into an error of this package.

No other module knows how Google's clients, gRPC and requests report a fault.
"""

from __future__ import annotations

import contextlib
import math
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

import google.auth.exceptions
import grpc
from google.api_core import exceptions as google_exceptions
from google.protobuf import json_format
from google.protobuf import message as protobuf_message
from google.rpc import error_details_pb2

from vertex_registry import _credentials
from vertex_registry.errors import (
    AlreadyExistsError,
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    reason,
    untrusted,
)

if TYPE_CHECKING:
    import collections
    from collections.abc import Iterator, Mapping

    import requests

    from vertex_registry._endpoint import Endpoint
    from vertex_registry.errors import RegistryError

#: The predefined role that has all permissions that the client needs.
ROLE: Final = "Vertex AI User (roles/aiplatform.user)"

#: The error class for each of Vertex's status codes.
ERRORS: Final[Mapping[str, type[RegistryError]]] = {
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "INVALID_ARGUMENT": InvalidArgumentError,
    "OUT_OF_RANGE": InvalidArgumentError,
    "FAILED_PRECONDITION": ConflictError,
    "ABORTED": ConflictError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "UNAUTHENTICATED": AuthenticationError,
    "RESOURCE_EXHAUSTED": UnavailableError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": UnavailableError,
    "CANCELLED": UnavailableError,
    "INTERNAL": UnavailableError,
    "UNKNOWN": UnavailableError,
    "DATA_LOSS": UnavailableError,
    "UNIMPLEMENTED": UnavailableError,
}

# AIP-194 has clients retry UNAVAILABLE alone: INTERNAL and UNKNOWN may be a bug that meets every attempt. But gRPC
# reports some broken connections as one of them, Google's clients retry INTERNAL (google.api_core.retry), and Vertex
# returns both if it's overloaded: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/api-errors.
#: How many times a request is sent at most if the server fails with this code. For others, the budget is the limit.
ATTEMPTS: Final[Mapping[str, int]] = {"INTERNAL": 5, "UNKNOWN": 5, "DATA_LOSS": 5}


def count_failure(failures: collections.Counter[str], code: str) -> bool:
    """Count a failure by its code, and return whether `ATTEMPTS` allows another attempt."""
    failures[code] += 1
    return failures[code] < ATTEMPTS.get(code, math.inf)


# google.rpc.Code maps each code to an HTTP status. A response without a body needs the inverse.
_CODE_OF_HTTP: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",  # https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_CODE_OF_NUMBER: Final[Mapping[int, str]] = {code.value[0]: code.name for code in grpc.StatusCode}

#: The variable that names the trusted certificates for REST.
REST_TRUST: Final = "REQUESTS_CA_BUNDLE"
_GRPC_TRUST: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"

_RATE_LIMIT: Final = "RATE_LIMIT_EXCEEDED"

#: How many characters of a server's message an error repeats.
_MAX_MESSAGE: Final = 2000

_CHECK_TLS: Final = (
    "If it's an emulator that serves plain text, use http:// for REST, or name a loopback address without a scheme."
)
_USE_GRPC: Final = (
    "Is it the port for gRPC? The emulator has one port for each: pass endpoint='host:port' for gRPC and "
    "endpoint='http://host:port' for REST."
)
_USE_REST: Final = (
    "Is it the port for REST? The emulator has one port for each: pass endpoint='http://host:port' for REST and "
    "endpoint='host:port' for gRPC."
)
_CHECK_PROXY: Final = "Check HTTPS_PROXY, or add the host to NO_PROXY."
_CHECK_ADDRESS: Final = "Is that the address of Vertex, or of an emulator of it?"

#: What Google's client can raise for a response that isn't Vertex's, without translating it itself.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    json_format.Error,
    protobuf_message.Error,
)


class CallError(Exception):
    """A failed attempt.

    Attributes:
        code: Google's status code.
        message: What the server or the library said.
        retry_after: How many seconds the server asks to wait, or 0.
        final: Whether another attempt can't help.
        unsent: Whether Vertex can't have received the request.
        over_quota: Whether a quota of requests refused it, so that Vertex hasn't carried it out.
        remedy: What the user can do, if that's known.
        after_loss: Whether the response to an earlier attempt was lost, so that attempt may have succeeded.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: float = 0.0,
        final: bool = False,
        unsent: bool = False,
        over_quota: bool = False,
        remedy: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.final = final
        self.unsent = unsent
        self.over_quota = over_quota
        self.remedy = remedy
        self.after_loss = False


def code_name(number: int) -> str:
    """Return the name of a status code."""
    return _CODE_OF_NUMBER.get(number, "UNKNOWN")


def sentence(message: str) -> str:
    """Turn a server's message into one printable sentence."""
    text = "".join(letter if letter.isprintable() else " " for letter in message[:_MAX_MESSAGE])
    text = " ".join(text.split()) or "no reason was given"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def first_sentence(error: RegistryError) -> str:
    """Return the first sentence of an error's message, to name it as the cause of another error."""
    return sentence(re.split(r"(?<=[.!?])\s+(?=[A-Z])", str(error), maxsplit=1)[0])


# --- into an error of this package ------------------------------------------------------------------------------------


def to_registry_error(
    failure: CallError, *, rpc: str, permission: str, resource: str, endpoint: Endpoint, spent: float
) -> RegistryError:
    """Return the error that a caller gets.

    Args:
        failure: The last attempt.
        rpc: The name of the RPC.
        permission: The permission that the RPC needs.
        resource: What the request was about.
        endpoint: The address it was sent to.
        spent: The seconds that all attempts took.
    """
    kind = ERRORS.get(failure.code, UnavailableError)
    if _lacks_artifact_access(failure, rpc):
        kind = PermissionDeniedError
    text = _describe(failure, kind, rpc=rpc, permission=permission, resource=resource, endpoint=endpoint, spent=spent)
    error = kind(text, resource=resource, code=failure.code)
    if isinstance(error, UnavailableError):
        error.retry_after = failure.retry_after
    return error


def _lacks_artifact_access(failure: CallError, rpc: str) -> bool:
    """Return whether Vertex can't read the artifact.

    Vertex reads the artifact's directory as its own service agent before an upload begins. A log shows that it names
    the missing permission; that it always does is a guess.
    """
    return rpc == "UploadModel" and failure.code == "FAILED_PRECONDITION" and "storage.objects." in failure.message


def _describe(  # noqa: PLR0911  # one text for each kind of failure
    failure: CallError,
    kind: type[RegistryError],
    *,
    rpc: str,
    permission: str,
    resource: str,
    endpoint: Endpoint,
    spent: float,
) -> str:
    said = sentence(failure.message)
    if failure.unsent:
        tried = f" Tried for {spent:.1f} s." if kind is UnavailableError and not failure.final else ""
        log_in = f" {_credentials.LOG_IN}" if kind is AuthenticationError else ""
        return f"{rpc} on {resource} wasn't sent: {said}{tried}{log_in}"
    if kind is AuthenticationError:
        return f"{endpoint} didn't accept the credentials: {said} {_credentials.LOG_IN}"
    if kind is PermissionDeniedError and failure.code == "FAILED_PRECONDITION":
        return (
            f"Vertex can't read the artifact of {resource}: {said} Grant its service agent, "
            "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com, the role Storage Object Viewer "
            "(roles/storage.objectViewer) on the bucket."
        )
    if kind is PermissionDeniedError:
        return (
            f"{rpc} isn't allowed on {resource}: {said} Check that the project and the location exist, and that you "
            f"have the permission {permission}, which the role {ROLE} grants."
        )
    if failure.code == "RESOURCE_EXHAUSTED":
        return f"{rpc} on {resource}: the quota is used up: {said} {_when_to_retry(failure)}, or request more quota."
    if failure.code == "UNIMPLEMENTED":
        return f"{endpoint} doesn't implement {rpc}: {said} {_CHECK_ADDRESS}"
    if kind is UnavailableError:
        return (
            f"{rpc} on {resource} got no usable response from {endpoint} in {spent:.1f} s ({failure.code}): {said} "
            f"{_remedy(endpoint, failure)}"
        )
    if kind is NotFoundError:
        return f"{resource} doesn't exist: {said}"
    return f"{rpc} on {resource} was refused: {said}"


def _when_to_retry(failure: CallError) -> str:
    return f"Try again in {failure.retry_after:g} s, as it asks" if failure.retry_after else "Try again later"


def _remedy(endpoint: Endpoint, failure: CallError) -> str:
    if failure.remedy:
        return failure.remedy
    if failure.retry_after:
        return f"{_when_to_retry(failure)}. Retry(call_timeout=...) sets how long the client retries."
    if failure.code in ATTEMPTS:
        advice = "see https://status.cloud.google.com" if endpoint.on_vertex else "see the server's log"
        return f"The server failed, and repeating the request didn't help. Try again later, and {advice}."
    if endpoint.plain and re.search(r"without a response|reset by peer|socket closed", failure.message.lower()):
        return "Is it the right port? If the server speaks TLS there, use https://."
    if endpoint.plain and failure.code == "UNAVAILABLE":
        return "Is the emulator running? Start one: python -m vertex_registry.emulator"
    return "Retry(call_timeout=...) sets how long the client retries."


# --- from what Google's libraries raise -------------------------------------------------------------------------------


@contextlib.contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn whatever Google's libraries raise inside into a `CallError`."""
    try:
        yield
    except google_exceptions.GoogleAPICallError as error:
        raise _from_google(error) from error
    except grpc.RpcError as error:
        google_error = google_exceptions.from_grpc_error(error)  # type: ignore[no-untyped-call]  # untyped upstream
        raise _from_google(google_error) from google_error
    except google.auth.exceptions.GoogleAuthError as error:
        # The token was valid when it was fetched. It expired meanwhile, and Google's transport fetched another.
        if _credentials.is_outage(error):
            raise CallError("UNAVAILABLE", f"No token could be fetched: {reason(error)}", unsent=True) from error
        raise CallError("UNAUTHENTICATED", "The credentials couldn't be refreshed", final=True) from error
    except OSError as error:
        import requests  # noqa: PLC0415  # it takes a while, and a process that uses gRPC doesn't need it before

        if isinstance(error, requests.RequestException):
            raise _from_requests(error, endpoint) from error
        # requests raises it if the CA bundle doesn't exist.
        raise CallError("UNAVAILABLE", sentence(str(error)), final=True, remedy=f"Check {REST_TRUST}.") from error
    except google_exceptions.GoogleAPIError as error:
        raise CallError("UNKNOWN", str(error)) from error
    except _UNREADABLE as error:
        # Something between the client and Vertex sent a response that Google's client can't parse.
        raise CallError("UNKNOWN", f"The response isn't one that Vertex sends: {type(error).__name__}") from error


def _from_google(error: google_exceptions.GoogleAPICallError) -> CallError:
    message = error.message or ""
    if not hasattr(error.response, "status_code"):  # it isn't an HTTP response
        if error.grpc_status_code is None:
            return CallError("UNKNOWN", message)
        code = error.grpc_status_code.name
        details = error.details
        # This is how gRPC says that no token could be fetched. One was valid a moment ago.
        if "metadata from plugin failed" in message:
            return CallError("UNAVAILABLE", "The token has expired and couldn't be fetched again", unsent=True)
        if (channel := _from_channel(message)) is not None:
            return channel
    else:
        code = _CODE_OF_HTTP.get(error.code or 500, "UNKNOWN")
        details = []
        vertex = False
        with contextlib.suppress(Exception):  # a proxy's response needn't be Google's JSON
            body = error.response.json()["error"]
            code = body["status"] if body.get("status") in ERRORS else code
            message = str(body.get("message") or message)
            vertex = True
            details = list(body.get("details") or ())
        if not vertex and code == "NOT_FOUND":
            # Only Vertex itself can say that a model doesn't exist.
            kind = str(error.response.headers.get("Content-Type", "")).partition(";")[0][:60]
            what = f"HTTP 404 with {kind or 'no content type'}, which isn't how Vertex answers"
            return CallError("UNAVAILABLE", f"The server answers {what}", final=True, remedy=_CHECK_ADDRESS)
    retry_after = max((_retry_delay(detail) for detail in details), default=0.0)
    with contextlib.suppress(Exception):  # a gRPC call has no headers, and a header may hold a date
        retry_after = max(retry_after, _seconds(error.response.headers.get("Retry-After", 0)))
    over_quota = code == "RESOURCE_EXHAUSTED" and any(map(_is_rate_limit, details))
    return CallError(code, message, retry_after=retry_after, over_quota=over_quota)


def _from_channel(message: str) -> CallError | None:  # noqa: PLR0911  # one text for each kind of fault
    """Return the fault that gRPC itself reports, if no connection to Vertex was established."""
    low = message.lower()
    if "certificate_verify_failed" in low:
        return _untrusted_certificate(_GRPC_TRUST)
    if "http proxy returned response code" in low:
        code = re.search(r"response code ([0-9]{3})", low)
        status = code[1] if code else "an error"
        final = status.startswith("4")
        return CallError("UNAVAILABLE", f"The proxy answered {status}", final=final, remedy=_CHECK_PROXY)
    if "http1.x server" in low or "http/1" in low:
        return CallError("UNAVAILABLE", "What answers there speaks HTTP/1, not gRPC", final=True, remedy=_USE_REST)
    if "failed parsing http/2" in low:
        return CallError("UNAVAILABLE", "What answers there isn't gRPC", final=True, remedy=_USE_REST)
    if re.search(r"received http2 header with status|content-type", low):
        status_found = re.search(r"status:? ([0-9]{3})", low)
        shown = f" (HTTP {status_found[1]})" if status_found else ""
        return CallError("UNAVAILABLE", f"What answers there isn't gRPC{shown}", remedy=_USE_REST)
    if "wrong_version_number" in low:
        return CallError("UNAVAILABLE", "The server doesn't speak TLS on that port", final=True, remedy=_CHECK_TLS)
    return None


def _from_requests(  # noqa: PLR0911  # one text for each kind of fault
    error: requests.RequestException, endpoint: Endpoint
) -> CallError:
    """Return the fault of a request that got no HTTP response."""
    import requests  # noqa: PLC0415  # likewise

    if isinstance(error, requests.exceptions.ProxyError):
        return _from_proxy(error, endpoint)
    if untrusted(error):
        return _untrusted_certificate(REST_TRUST, error)
    if isinstance(error, requests.exceptions.SSLError):
        return CallError("UNAVAILABLE", f"TLS failed: {reason(error)}", final=True, remedy=_CHECK_TLS)
    if isinstance(error, requests.Timeout):
        return CallError("DEADLINE_EXCEEDED", "The response didn't arrive in time")
    chain = repr(error)
    if "RemoteDisconnected" in chain:
        return CallError("UNAVAILABLE", "The server closed the connection without a response")
    if "BadStatusLine" in chain:
        return CallError("UNAVAILABLE", "What answers there doesn't speak HTTP", final=True, remedy=_USE_GRPC)
    return CallError("UNAVAILABLE", reason(error))


def _from_proxy(error: requests.exceptions.ProxyError, endpoint: Endpoint) -> CallError:
    """Return the fault of a proxy, without the user and password that its URL may hold."""
    import requests  # noqa: PLC0415  # likewise

    url = f"{'http' if endpoint.plain else 'https'}://{endpoint.host}"
    shown = "The proxy"
    with contextlib.suppress(ValueError):
        proxies = requests.utils.get_environ_proxies(url)
        parts = urllib.parse.urlsplit(requests.utils.select_proxy(url, proxies) or "")
        if parts.hostname:
            shown = f"The proxy {parts.hostname}" + (f":{parts.port}" if parts.port else "")
    said = reason(error)
    return CallError(
        "UNAVAILABLE",
        f"{shown} failed: {said}",
        final=re.search(r"failed: 4[0-9][0-9]", said) is not None,
        remedy=_CHECK_PROXY,
    )


def _untrusted_certificate(variable: str, error: BaseException | None = None) -> CallError:
    why = ""
    for inner in (error, *(error.args if error else ())):
        if found := re.search(r"certificate verify failed: ([\w' .,-]{1,120})", str(inner)):
            why = f" ({found[1].strip()})"
    return CallError(
        "UNAVAILABLE",
        f"The server's certificate isn't trusted{why}",
        final=True,
        remedy=f"Set {variable} to the file of the certificate authority that signed it.",
    )


def _is_rate_limit(detail: Any) -> bool:
    """Return whether a detail of an error says that a quota of requests is used up.

    Google's front end checks quotas before a service gets the request. https://google.aip.dev/193 and
    https://github.com/googleapis/googleapis/blob/master/google/api/error_reason.proto: "RATE_LIMIT_EXCEEDED: The
    request is denied because there is not enough rate quota for the consumer."
    """
    if isinstance(detail, error_details_pb2.ErrorInfo):
        return str(detail.reason) == _RATE_LIMIT
    return (
        isinstance(detail, dict)
        and str(detail.get("@type", "")).endswith("google.rpc.ErrorInfo")
        and detail.get("reason") == _RATE_LIMIT
    )


def _retry_delay(detail: Any) -> float:
    """Return the seconds to wait that a detail of an error asks for, or 0."""
    if isinstance(detail, error_details_pb2.RetryInfo):
        return _seconds(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
    if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
        return _seconds(str(detail.get("retryDelay", "0s")).removesuffix("s"))
    return 0.0


def _seconds(value: Any) -> float:
    """Return a server's number of seconds, or 0 if it isn't a number: a header may hold a date."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        seconds = float(value)
        return 0.0 if math.isnan(seconds) else max(0.0, seconds)
    return 0.0
