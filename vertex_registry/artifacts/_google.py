"""Google's client of Cloud Storage: connections, single requests, retries, and what its exceptions mean.

Google's package is used for single requests, without its own retries: each request is retried within the budget
``Retry.call_timeout``, which starts over with every request that succeeds. A large model may take as long as it needs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import threading
import time
import urllib.parse
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeVar

import tenacity

from vertex_registry import _waiting
from vertex_registry._endpoint import is_loopback
from vertex_registry._quoting import shorten
from vertex_registry.artifacts._bucket import StoredObject
from vertex_registry.artifacts._checksums import NOT_INSTALLED, to_base64
from vertex_registry.artifacts._names import split_uri
from vertex_registry.errors import (
    AuthenticationError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnavailableError,
    reason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vertex_registry._records import Retry
    from vertex_registry.artifacts._bucket import Upload

T = TypeVar("T")

EMULATOR: Final = "STORAGE_EMULATOR_HOST"

#: What each kind of request needs, and the predefined role that grants it.
PERMISSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "list": ("storage.objects.list", "Storage Object Viewer (roles/storage.objectViewer)"),
    "get": ("storage.objects.get", "Storage Object Viewer (roles/storage.objectViewer)"),
    "create": ("storage.objects.create", "Storage Object Creator (roles/storage.objectCreator)"),
    "replace": ("storage.objects.delete", "Storage Object User (roles/storage.objectUser)"),
}

BYTES: Final = "application/octet-stream"

PRECONDITION_FAILED: Final = 412

_SCOPES: Final = ("https://www.googleapis.com/auth/devstorage.read_write",)
_SERVICE_AGENT: Final = "service-PROJECT_NUMBER@gcp-sa-aiplatform.iam.gserviceaccount.com"
_LOG_IN: Final = (
    "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service "
    f"account's key. Without a cloud, set {EMULATOR} to the address of a storage emulator."
)
_WITHOUT_A_CLOUD: Final = (
    "An emulator of Vertex AI keeps no artifacts, and there are no usable credentials for Cloud Storage.{named} Use "
    f"local_registry(), which keeps them in a folder, set {EMULATOR} to the address of a storage emulator, or run "
    "`gcloud auth application-default login` to use a bucket of yours."
)

_MALFORMED: Final = "the response isn't one that Cloud Storage sends"
#: What Google's package and this one raise for JSON of another shape, or without what every answer has.
_MALFORMED_ERRORS: Final = (AttributeError, LookupError, TypeError, ValueError)

_CONTENT: Final = (200, 206)
_FIRST_ERROR: Final = 400
#: The most characters of the server's message that an error shows.
_MAX_MESSAGE: Final = 200
#: The most bytes that are read of an error.
_MAX_ERROR: Final = 2**16
#: A host name or an IP address, perhaps with a port.
_HOST: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?", re.ASCII)


class FailedRequestError(Exception):
    """A request that failed.

    Attributes:
        status: The HTTP status, or 0 if there was no answer.
        message: The server's message.
        retry_after: The seconds that the server asked to wait.
    """

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Return whether another attempt could help."""
        # https://cloud.google.com/storage/docs/retry-strategy: 408, 429 and 5xx, and connections that broke.
        return self.status in {0, 408, 429} or self.status >= 500  # noqa: PLR2004  # the list quoted above


class CloudStorage:
    """Cloud Storage, or the emulator of it that ``STORAGE_EMULATOR_HOST`` names, to which no credentials are sent.

    Creating one imports nothing from Google and does no I/O.

    Args:
        project: The project that requests are made for.
        credentials: google-auth credentials. Defaults to the application default credentials.
        retry: The budget of a request (``calls``), and how to wait between tries.
        without_folder: Whether the registry is an emulator that keeps no artifacts, so its user may have no cloud.
    """

    def __init__(self, project: str | None, credentials: Any, retry: Retry, *, without_folder: bool = False) -> None:
        self._project = project
        self._credentials = credentials
        self._without_folder = without_folder
        self.retry = retry
        self.forget()
        _OPEN.add(self)

    def forget(self) -> None:
        """Forget the connection, which belongs to another process, and a lock that a thread of it may hold."""
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def close(self) -> None:
        """Close the connections. It's fine to do so twice."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def connection(self) -> Connection:
        """Return this process's connection."""
        with self._lock:
            if self._connection is None:
                self._connection = Connection(
                    self._project, self._credentials, self.retry.clock, without_folder=self._without_folder
                )
            return self._connection

    @property
    def timeout(self) -> float:
        """Return how many seconds one request may take."""
        return min(60.0, self.retry.call_timeout)

    def with_retries(
        self,
        verb: str,
        uri: str,
        action: Callable[[], T],
        *,
        unless: tuple[int, ...] = (),
        stopped: threading.Event | None = None,
    ) -> T:
        """Return the result of one request, which is retried within the budget while that could help.

        Args:
            verb: A key of ``PERMISSIONS``.
            uri: What the request is about.
            action: What sends it.
            unless: The statuses that the caller acts on.
            stopped: What is set when nobody needs the result any more.

        Raises:
            FailedRequestError: It failed with one of the statuses in ``unless``.
            RegistryError: It failed otherwise.
        """
        budget = _waiting.Budget(self.retry, self.retry.call_timeout)
        failed: list[FailedRequestError] = []

        def attempt() -> T:
            if failed:
                raise failed.pop()
            return self._attempt(action)

        try:
            return self._attempt(action)  # most requests need no more, and tenacity takes as long as a small one
        except FailedRequestError as failure:
            failed.append(failure)

        def wait(state: tenacity.RetryCallState) -> float:
            failure = state.outcome.exception() if state.outcome else None
            upper = _waiting.max_backoff(self.retry, state.attempt_number)
            return max(getattr(failure, "retry_after", 0.0), upper * self.retry.random())

        tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FailedRequestError) and error.transient),
            wait=wait,
            stop=lambda state: (stopped is not None and stopped.is_set()) or state.upcoming_sleep >= budget.left(),
            sleep=self.sleep(stopped),
            reraise=True,
        )
        try:
            return tries(attempt)
        except FailedRequestError as failure:
            if failure.status in unless:
                raise
            raise error_of(failure, verb, uri, budget.spent()) from failure.__cause__

    def _attempt(self, action: Callable[[], T]) -> T:
        """Return the result of one request."""
        try:
            return action()
        except (RegistryError, FailedRequestError):
            raise
        except Exception as error:
            failure = self.connection().failure(error)
            if failure is None:
                raise
            raise failure from error

    def sleep(self, stopped: threading.Event | None) -> Callable[[float], Any]:
        """Return what waits, no longer than the result is needed; a caller's own clock decides when time has passed."""
        if self.retry.sleep is not time.sleep:
            return self.retry.sleep
        return _waiting.sleep if stopped is None else stopped.wait


#: Whatever may have a connection, so that none is used across a fork.
_OPEN: Final[weakref.WeakSet[CloudStorage]] = weakref.WeakSet()


def _forget_connections() -> None:
    for storage in list(_OPEN):
        storage.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_connections)


class Connection:
    """One of Google's clients, connected, and what its exceptions mean.

    Attributes:
        client: Google's client.
        endpoint: The address that every request is sent to.
    """

    def __init__(
        self, project: str | None, credentials: Any, clock: Callable[[], float], *, without_folder: bool = False
    ) -> None:
        try:
            import google.auth  # noqa: PLC0415  # the first transfer imports it, and not this module
            import google.auth.credentials  # noqa: PLC0415
            import google.auth.exceptions  # noqa: PLC0415
            import requests  # noqa: PLC0415
            import urllib3  # noqa: PLC0415
            from google.api_core import exceptions  # noqa: PLC0415
            from google.auth.transport.requests import Request  # noqa: PLC0415
            from google.cloud.storage import Client  # noqa: PLC0415

            from vertex_registry.artifacts import _http  # noqa: PLC0415
        except ImportError as error:
            raise RegistryError(NOT_INSTALLED) from error
        self._api_error = exceptions.GoogleAPICallError
        self._auth_error = google.auth.exceptions.GoogleAuthError
        self._connection_errors = (
            google.auth.exceptions.TransportError,
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            ConnectionError,
            TimeoutError,
        )
        self._http_error = requests.HTTPError
        self._json_error = requests.JSONDecodeError
        options: dict[str, Any] = {}
        emulator = emulator_address()
        # Requests reads proxies from the environment; an emulator on this machine can't be reached through one.
        local = emulator is not None and is_loopback(urllib.parse.urlsplit(emulator).hostname or "")
        plain = _http.PlainSession(proxies=not local)
        plain.clock = clock
        self._plain = plain
        self._read = functools.partial(_http.read, clock=clock)
        self._http = _http
        refusal: RegistryError | None = None
        try:
            if emulator:
                credentials = google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]  # upstream
                options["client_options"] = {"api_endpoint": emulator}
                self._signed: _http.PlainSession | _http.SignedSession = plain
            else:
                if credentials is None:
                    credentials = google.auth.default(scopes=_SCOPES)[0]
                credentials = google.auth.credentials.with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]  # upstream
                refresh = Request(_http.PlainSession())
                self._signed = _http.SignedSession(credentials, auth_request=refresh)
                self._signed.clock = clock
                self._signed.configure_mtls_channel()  # type: ignore[no-untyped-call]  # upstream
            self.client: Any = Client(project=project, credentials=credentials, _http=self._signed, **options)
        except google.auth.exceptions.DefaultCredentialsError as error:
            named = f" {_first_line(error)}" if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") else ""
            refusal = AuthenticationError(
                _WITHOUT_A_CLOUD.format(named=named)
                if without_folder
                else f"There are no usable credentials for Cloud Storage.{named} {_LOG_IN}"
            )
        except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
            refusal = RegistryError(
                f"Google's client of Cloud Storage can't be created: {_first_line(error)} Check the variables that "
                "begin with GOOGLE_, and the credentials."
            )
        if refusal is not None:
            raise refusal  # out here, because Google's own errors hold the text of a malformed key
        # As of 3.17 it also asks for the bucket itself, from a thread that outlives every budget and the client.
        self.client._bucket_metadata_cache = None  # noqa: SLF001  # there is no public way for one client
        self.endpoint = str(self.client.api_endpoint)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self._plain.close()
        self._signed.close()

    def post(self, bucket: str, upload: Upload, data: bytes, timeout: float) -> Any:
        """Create an object in one request, and return what Cloud Storage says about it.

        Google's package does so up to 8 MiB only, copies the bytes, and asks twice for more.
        https://cloud.google.com/storage/docs/uploading-objects#uploading-an-object
        """
        query = {"uploadType": "media", "name": upload.name, "ifGenerationMatch": str(upload.generation)}
        path = f"/upload/storage/v1/b/{bucket}/o?{urllib.parse.urlencode(query)}"
        headers = {
            "Content-Type": BYTES,
            "X-Goog-Hash": f"crc32c={to_base64(upload.crc)}",
            "Accept-Encoding": "identity",
        }
        with self._signed.open_stream(self.endpoint, path, headers, timeout, method="POST", body=data) as (status, raw):
            if status >= _FIRST_ERROR:
                raise self._failed(status, raw, timeout)
            most, seconds = self._http.MAX_ANSWER, self._http.MAX_SECONDS
            received = b"".join(self._read(raw, most + 1, seconds, decode=True))
        if len(received) > most:
            raise ConnectionResetError(errno.ECONNRESET, "the answer doesn't end")
        return json.loads(received)

    def get(
        self, bucket: str, stored: StoredObject, part: range, timeout: float, write: Callable[[bytes], object]
    ) -> None:
        """Write a range of an object's stored bytes, and read no more of the answer than was requested.

        Google's package reads the answer to its end, whatever its length.
        https://cloud.google.com/storage/docs/downloading-objects#download-object-portion
        """
        # The address that a listed object names for its content is the server's own; this one is the endpoint's.
        path = f"/download/storage/v1/b/{bucket}/o/{urllib.parse.quote(stored.name, safe='~')}"
        query = f"alt=media&ifGenerationMatch={stored.generation}"
        headers = {
            "Range": f"bytes={part.start}-{part.stop - 1}",
            # As it's stored: a range is one of the stored bytes.
            "Accept-Encoding": "gzip" if stored.encoding else "identity",
        }
        with self._signed.open_stream(self.endpoint, f"{path}?{query}", headers, timeout) as (status, raw):
            if status not in _CONTENT:
                raise self._failed(status, raw, timeout)
            seconds = timeout + len(part) / self._http.MIN_RATE
            received = 0
            for data in self._read(raw, len(part) + 1, seconds, decode=False):
                received += len(data)
                if received <= len(part):
                    write(data)
            if received != len(part):
                problem = "ended early" if received < len(part) else "is longer than requested"
                raise ConnectionResetError(errno.ECONNRESET, f"the response {problem}")

    def _failed(self, status: int, raw: Any, timeout: float) -> FailedRequestError:
        """Return what an answer says that isn't the one that was requested."""
        body = b"".join(self._read(raw, _MAX_ERROR, timeout, decode=True))
        return FailedRequestError(status, _message_in(body, status), _retry_after(raw))

    def session_address(self, url: str) -> str:
        """Return the address of a session at the endpoint in use, whatever host the server names."""
        return urllib.parse.urlunsplit(urllib.parse.urlsplit(self.endpoint)[:2] + urllib.parse.urlsplit(url)[2:])

    def put(self, url: str, data: bytes, headers: Mapping[str, str], timeout: float) -> Any:
        """Send a chunk to a session, and return the answer; 308, which asks for the next one, isn't a redirection here.

        The address of a session is a permission in itself. It's sent without a token, and isn't in what is raised:
        requests' errors have it in their text.
        """
        try:
            answer = self._plain.put(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)
        except self._connection_errors as error:
            raise FailedRequestError(0, reason(error)) from None
        return self._checked(answer)

    def delete(self, url: str, timeout: float) -> None:
        """Cancel a session."""
        self._plain.delete(url, timeout=timeout)

    def _checked(self, answer: Any) -> Any:
        if answer.status_code >= _FIRST_ERROR:
            raise self._http_error(response=answer)
        return answer

    def failure(self, error: Exception) -> FailedRequestError | None:
        """Return what an exception says about a request, or None if it isn't about one."""
        answer = getattr(error, "response", None)
        if isinstance(error, self._api_error):
            return FailedRequestError(
                int(error.code or 0), _message(answer) or str(error.message), _retry_after(answer)
            )
        if isinstance(error, self._http_error) and answer is not None:
            return FailedRequestError(answer.status_code, _message(answer), _retry_after(answer))
        if isinstance(error, self._connection_errors):
            return FailedRequestError(0, _MALFORMED if isinstance(error, self._json_error) else reason(error))
        if isinstance(error, self._auth_error):
            # What google-auth marks as retryable is a fault of the token server, not of the credentials.
            status = 0 if getattr(error, "retryable", False) else 401
            return FailedRequestError(status, "the credentials couldn't be refreshed")
        if isinstance(error, _MALFORMED_ERRORS):
            return FailedRequestError(0, _MALFORMED)
        return None


def error_of(failure: FailedRequestError, verb: str, uri: str, spent: float) -> RegistryError:
    """Return the error of a failed request, which says what to do.

    Args:
        failure: The request's failure.
        verb: A key of ``PERMISSIONS``.
        uri: What the request was about.
        spent: The seconds that were spent on it.
    """
    bucket = f"gs://{split_uri(uri)[0]}"
    message = f"{failure.message.strip().rstrip('.') or 'no reason was given'}."
    permission, role = PERMISSIONS[verb]
    emulator = emulator_address()
    text = f"Cloud Storage refused {uri}: {message}"
    kind: type[RegistryError] = InvalidArgumentError
    if failure.status == 401:  # noqa: PLR2004  # HTTP's Unauthorized
        kind = AuthenticationError
        text = f"Cloud Storage didn't accept the credentials: {message} {_LOG_IN}"
    elif failure.status == 403:  # noqa: PLR2004  # HTTP's Forbidden
        kind = PermissionDeniedError
        text = (
            f"The credentials don't allow access to {uri}: {message} Grant them {permission} on {bucket}, for example "
            f"with the role {role}; Vertex reads the model as {_SERVICE_AGENT}, which needs Storage Object Viewer."
        )
    elif failure.status == 404:  # noqa: PLR2004  # HTTP's Not Found
        kind = NotFoundError
        text = (
            f"{uri} doesn't exist any more: {message}"
            if verb == "get"
            else (
                f"There's no bucket {bucket}: {message} Create it with `gcloud storage buckets create {bucket} "
                "--location=LOCATION`, in the location of the registry, or use another one."
            )
        )
    elif failure.transient:
        kind = UnavailableError
        remedy = f"Is a storage emulator running at {emulator}?" if emulator else "Try again: what was sent is kept."
        text = f"{uri}: Cloud Storage gave no usable response in {spent:.1f} s: {message} {remedy}"
    return kind(text, resource=uri)


def from_blob(blob: Any) -> StoredObject:
    """Return an object that Google's client read."""
    encoding = str(blob.content_encoding or "").strip().lower()
    return StoredObject(
        blob.name, int(blob.size), blob.crc32c, int(blob.generation), "" if encoding == "identity" else encoding
    )


def from_response(answer: Mapping[str, Any], name: str) -> StoredObject:
    """Return an object from the response to an upload."""
    return StoredObject(name, int(answer["size"]), str(answer.get("crc32c", "")), int(answer["generation"]))


def verb_of(upload: Upload) -> str:
    """Return the key of ``PERMISSIONS`` for an upload."""
    return "replace" if upload.generation else "create"


def emulator_address() -> str | None:
    """Return the address of the Cloud Storage emulator: a URL without a slash at its end.

    Raises:
        InvalidArgumentError: The variable holds something else, or what must not be sent or shown.
    """
    variable = os.environ.get(EMULATOR)
    if variable is None:
        return None
    given = variable.strip().rstrip("/")  # an empty one doesn't mean Google: a script may have set it to nothing
    try:
        url = urllib.parse.urlsplit(given if "://" in given else f"http://{given}")
        valid = url.scheme in {"http", "https"} and _HOST.fullmatch(url.netloc) and (url.port or 0) >= 0
    except ValueError:
        valid = None
    if not valid or url.query or url.fragment:
        raise InvalidArgumentError(
            f"{EMULATOR} isn't the address of a storage emulator. Set it to http://host:port, without a user, a "
            "password or a query, or unset it."
        )
    return url.geturl().rstrip("/")


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, host and port of an address.

    Raises:
        ValueError: It isn't an address.
    """
    parts = urllib.parse.urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    if "@" in parts.netloc:
        raise ValueError("user")
    return parts.scheme, parts.hostname, parts.port or default


def _message(answer: Any) -> str:
    return _message_in(getattr(answer, "content", b""), getattr(answer, "status_code", 0))


def _message_in(body: bytes, status: int) -> str:
    """Return the message of an error."""
    with contextlib.suppress(Exception):  # the answer of a proxy on the way need not be Google's JSON
        return shorten(str(json.loads(body)["error"]["message"]), _MAX_MESSAGE)
    return f"HTTP {status}" if status else ""


def _first_line(error: Exception) -> str:
    """Return the first line of what an error says; Google's may have its cause as a second argument."""
    text = str(error.args[0] if error.args else "").strip() or type(error).__name__
    return f"{shorten(text.splitlines()[0].rstrip('.'), _MAX_MESSAGE)}."


def _retry_after(answer: Any) -> float:
    with contextlib.suppress(Exception):  # no answer, no header, or one with a date
        return float(answer.headers["Retry-After"])
    return 0.0
