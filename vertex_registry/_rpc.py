"""Send requests to Vertex, retry them within a time budget, and wait for operations.

No other module sends requests to Vertex. All requests of one public method share a budget (`Connection.verb`). Waiting
for an operation has a budget of its own.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import math
import time
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import attrs
import google.auth.exceptions
from google.api_core import exceptions as google_exceptions

from vertex_registry import _credentials, _faults, _process, _transport, _waiting
from vertex_registry._faults import CallError
from vertex_registry.errors import (
    ClientClosedError,
    ConflictError,
    OperationFailedError,
    OperationTimeoutError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import tenacity
    from google.longrunning import operations_pb2

    from vertex_registry._endpoint import Endpoint
    from vertex_registry._records import Retry
    from vertex_registry.errors import RegistryError

T = TypeVar("T")

_LOG: Final = logging.getLogger("vertex_registry")

#: The codes that leave open whether the call happened.
LOST_RESPONSE: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED", "DATA_LOSS"})
QUOTA_USED_UP: Final = frozenset({"RESOURCE_EXHAUSTED"})
NO_RETRY: Final[frozenset[str]] = frozenset()

#: The seconds that a distant server gets to respond, however little of the budget is left.
_MIN_TIMEOUT: Final = 1.0

#: The seconds after its timeout in which Google's transport reports what went wrong with a request.
_TIMEOUT_MARGIN: Final = 0.1

#: The seconds for cleaning up after a failed verb, so that nothing stays half done for lack of time.
_CLEANUP_TIME: Final = 10.0

#: The seconds after a warning of a quota in which there's no further one.
_QUIET: Final = 60.0

#: The connection and the budget of the verb that runs in this thread, or that this thread works for.
_CURRENT_VERB: Final[ContextVar[tuple[Connection, _waiting.Budget] | None]] = ContextVar("verb", default=None)


@attrs.frozen
class Method:
    """How to call one RPC.

    Attributes:
        call: The method of Google's client and of its transport.
        retry_on: The status codes on which it's sent again.
        deadline: How many seconds one attempt may take.
        permission: The permission that it needs.
    """

    call: str
    retry_on: frozenset[str]
    deadline: float
    permission: str


# Google's client sets neither a deadline nor a retry for these methods, so this table does. Reads are always retried,
# and so are updates, because they carry an etag. Aliases have no etag: after a lost response, the caller of this module
# finds out whether the change happened, as it does for uploads and deletions.
# Permissions: https://cloud.google.com/vertex-ai/docs/general/iam-permissions. That page doesn't list the version
# methods; theirs are guesses from the methods for models.
METHODS: Final[Mapping[str, Method]] = {
    "UploadModel": Method("upload_model", NO_RETRY, 60.0, "aiplatform.models.upload"),
    "GetModel": Method("get_model", LOST_RESPONSE | QUOTA_USED_UP, 20.0, "aiplatform.models.get"),
    "ListModels": Method("list_models", LOST_RESPONSE | QUOTA_USED_UP, 30.0, "aiplatform.models.list"),
    "ListModelVersions": Method("list_model_versions", LOST_RESPONSE | QUOTA_USED_UP, 30.0, "aiplatform.models.list"),
    "UpdateModel": Method("update_model", LOST_RESPONSE | QUOTA_USED_UP, 30.0, "aiplatform.models.update"),
    "MergeVersionAliases": Method("merge_version_aliases", QUOTA_USED_UP, 30.0, "aiplatform.models.update"),
    "DeleteModel": Method("delete_model", NO_RETRY, 60.0, "aiplatform.models.delete"),
    "DeleteModelVersion": Method("delete_model_version", NO_RETRY, 60.0, "aiplatform.models.delete"),
    "GetOperation": Method("get_operation", LOST_RESPONSE | QUOTA_USED_UP, 20.0, "aiplatform.models.get"),
    "ListOperations": Method("list_operations", LOST_RESPONSE | QUOTA_USED_UP, 20.0, "aiplatform.operations.list"),
}


class Connection:
    """An open connection to Vertex, or to an emulator of it.

    Closing it ends every running call and wait at once, with the error that ``check_open`` raises.
    """

    def __init__(
        self, endpoint: Endpoint, credentials: Any, user_agent: str, retry: Retry, check_open: Callable[[], None]
    ) -> None:
        self._endpoint = endpoint
        self._retry = retry
        self._check_open = check_open
        self._closed = False
        #: Whether a quota has refused a request.
        self.throttled = False
        self._quiet_until = -math.inf
        self._waiters: set[SimpleQueue[Callable[[], Any]]] = set()
        self._credentials = credentials
        self._user_agent = user_agent
        self._google = _process.Owned(lambda: _transport.connect(self._endpoint, self._credentials, self._user_agent))

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        for waiter in tuple(self._waiters):
            waiter.put(_raise_closed)
        if (stubs := self._google.take()) is not None:
            with contextlib.suppress(google_exceptions.GoogleAPIError, google.auth.exceptions.GoogleAuthError):
                stubs.close()

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        try:
            self._check_open()
        except ClientClosedError:
            return True
        return False

    def principal(self) -> str | None:
        """Return the account it acts as, or None. The credentials of a machine know theirs after the first call."""
        return _credentials.principal(self._credentials)

    @contextlib.contextmanager
    def verb(self) -> Iterator[None]:
        """Let all calls inside share one budget: that of the surrounding verb of this connection, if there is one."""
        if self._verb_budget() is not None:
            yield
            return
        with self._share(_waiting.Budget(self._retry, self._retry.call_timeout)):
            yield

    @contextlib.contextmanager
    def cleanup(self) -> Iterator[None]:
        """Give the calls inside a small budget of their own, even if the verb's budget is used up."""
        with self._share(_waiting.Budget(self._retry, min(self._retry.call_timeout, _CLEANUP_TIME))):
            yield

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Don't count the time that passes inside, because what happens there has a budget of its own."""
        start = self._retry.clock()
        try:
            yield
        finally:
            self.leave_out(self._retry.clock() - start)

    def leave_out(self, seconds: float) -> None:
        """Don't count these seconds, which have just passed, for the current verb."""
        if (shared := self._verb_budget()) is not None:
            shared.leave_out(seconds)

    def now(self) -> float:
        """Return the time on the clock that budgets are measured with."""
        return self._retry.clock()

    @contextlib.contextmanager
    def _share(self, budget: _waiting.Budget) -> Iterator[None]:
        token = _CURRENT_VERB.set((self, budget))
        try:
            yield
        finally:
            _CURRENT_VERB.reset(token)

    def _verb_budget(self) -> _waiting.Budget | None:
        current = _CURRENT_VERB.get()
        return None if current is None or current[0] is not self else current[1]

    def budget(self, seconds: float | None = None) -> _waiting.Budget:
        """Return a fresh budget. Without a number of seconds, return the verb's budget, or a fresh one for a call."""
        if seconds is None and (shared := self._verb_budget()) is not None:
            return shared
        return _waiting.Budget(self._retry, self._retry.call_timeout if seconds is None else seconds)

    def operation_budget(self) -> _waiting.Budget:
        """Return a fresh budget for a long-running operation."""
        return _waiting.Budget(self._retry, self._retry.operation_timeout)

    def pause(self, budget: _waiting.Budget, tries: int, at_least: float = 0.0) -> bool:
        """Wait before the next attempt, and return False at once if the budget doesn't allow it.

        The wait doubles with each attempt. A wait that another budget than the verb's pays for doesn't count for the
        verb.

        Args:
            budget: The budget that pays for the wait.
            tries: How many attempts have been repeated so far.
            at_least: The fewest seconds to wait.
        """
        seconds = max(at_least, _waiting.max_backoff(self._retry, tries + 1) * self._retry.random())
        if seconds >= budget.left() or budget.quota_used_up:
            return False
        _LOG.info("next attempt in %.2f s", seconds)
        with contextlib.nullcontext() if budget is self._verb_budget() else self.uncounted():
            self._sleep(seconds)
        return True

    def pause_after(
        self,
        failure: RegistryError,
        budget: _waiting.Budget,
        failures: collections.Counter[str],
        at_least: float = 0.0,
    ) -> bool:
        """Wait before a request that has failed is sent again, and return False at once if it shouldn't be.

        Args:
            failure: How it failed.
            budget: The budget that pays for the wait.
            failures: How many earlier attempts have failed with each code. This one is added.
            at_least: The fewest seconds to wait, besides what the server asks for.
        """
        code, tries = failure.code or "", failures.total()
        if not _faults.count_failure(failures, code) or code == "UNIMPLEMENTED":
            return False
        return self.pause(budget, tries, max(at_least, getattr(failure, "retry_after", 0.0)))

    def read_after_loss(self, lost: UnavailableError, read: Callable[[], T], *, late: bool) -> T:
        """Return what a read finds after a lost response. If the read gets no response either, raise the first error.

        Args:
            lost: The first error.
            read: The read.
            late: Whether the budget is used up. Then the read gets a small budget of its own.
        """
        try:
            with self.cleanup() if late else contextlib.nullcontext():
                return read()
        except UnavailableError:
            raise lost from lost.__cause__

    def call(
        self, rpc: str, request: Any, resource: str, budget: _waiting.Budget | None = None, *, once: bool = False
    ) -> Any:
        """Send a request and return the response. For a long-running RPC, that's its operation.

        Args:
            rpc: A key of ``METHODS``.
            request: The request.
            resource: What it is about, for the log and for errors.
            budget: The budget for its attempts and waits. Defaults to the current verb's, or else to a fresh one.
            once: Whether to send it only once, whatever the response.

        Raises:
            RegistryError: The last attempt failed. The table ``_faults.ERRORS`` gives the class.
        """
        method = METHODS[rpc]
        budget = budget or self.budget()
        if budget.left() <= 0:
            raise UnavailableError(
                f"{rpc} on {resource} wasn't sent, because the {budget.seconds:g} s for one method call are used up. "
                "Call the method again to finish what it began; Retry(call_timeout=...) sets the limit.",
                resource=resource,
            )
        attempt = functools.partial(self._send, rpc, method, request, resource, budget)
        try:
            try:
                return attempt()
            except CallError as failure:
                retry_on = NO_RETRY if once else method.retry_on
                return self._send_again(attempt, failure, budget, retry_on=retry_on, what=f"{rpc} {resource}")
        except CallError as failure:
            if self._closed:
                self._raise_if_closed(rpc, resource, failure)
            error = _faults.to_registry_error(
                failure,
                rpc=rpc,
                permission=method.permission,
                resource=resource,
                endpoint=self._endpoint,
                spent=budget.spent(),
            )
            if isinstance(error, ConflictError):
                error._after_loss = failure.after_loss  # noqa: SLF001  # the package's own field
            raise error from failure.__cause__

    def _send_again(
        self,
        attempt: Callable[[], Any],
        first: CallError,
        budget: _waiting.Budget,
        *,
        retry_on: frozenset[str],
        what: str,
    ) -> Any:
        """Repeat an attempt that has failed once, until it succeeds, and return its response.

        Most requests succeed at once, so neither this loop nor its library is needed before.

        Raises:
            CallError: The last attempt's failure.
        """
        import tenacity  # noqa: PLC0415  # likewise

        failed = [first]
        attempts = _Attempts(self, budget, retry_on=retry_on, what=what)

        def next_attempt() -> Any:
            if failed:
                raise failed.pop()
            return attempt()

        with_retries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(attempts.can_retry),
            wait=attempts.wait,
            stop=attempts.stop,
            sleep=attempts.sleep,
            before_sleep=attempts.log,
            reraise=True,
        )
        try:
            return with_retries(next_attempt)
        except CallError as failure:
            failure.after_loss = attempts.lost
            raise

    def sdk_model(self, request: Any, resource: str, project: str | None) -> Any:
        """Send GetModel and return the response as a ``Model`` of Google's SDK with this connection's credentials."""
        return _transport.create_sdk_model(
            self.call("GetModel", request, resource),
            resource,
            project=project,
            credentials=self._credentials,
            endpoint=self._endpoint,
            stubs=self._google,
        )

    def wait(self, operation: operations_pb2.Operation, request: Callable[[str], Any], budget: _waiting.Budget) -> Any:
        """Wait for an operation to finish, and return it.

        It's polled immediately, and then after every further 20% of the elapsed time. That time doesn't count for the
        current verb.

        Args:
            operation: The operation as it was last read.
            request: A function that creates a request for an operation from its name.
            budget: The budget for the whole wait.

        Raises:
            OperationFailedError: It ended with an error, or was canceled.
            OperationTimeoutError: It's still running at the end of the budget.
        """
        name = operation.name
        while not operation.done:
            poll_budget = self.budget(min(self._retry.call_timeout, max(_MIN_TIMEOUT, budget.left())))
            start = self._retry.clock()
            operation = self.call("GetOperation", request(name), name, poll_budget)
            self.leave_out(self._retry.clock() - start)  # a failed poll counts, so that a loop around it ends
            if operation.done:
                break
            seconds = min(max(0.05, budget.spent() / 5), self._retry.max_backoff, budget.left())
            if seconds <= 0:
                raise OperationTimeoutError(
                    f"The operation {name} is still running after {budget.seconds:g} s, and goes on at Vertex. "
                    "Retry(operation_timeout=...) sets how long to wait for it.",
                    resource=name,
                )
            with self.uncounted():
                self._sleep(seconds)
        if operation.HasField("error"):
            code = _faults.code_name(operation.error.code)
            outcome = "was canceled" if code == "CANCELLED" else f"failed with {code}"
            raise OperationFailedError(
                f"The operation {name} {outcome}: {_faults.sentence(operation.error.message)}",
                resource=name,
                code=code,
            )
        return operation

    def _send(self, rpc: str, method: Method, request: Any, resource: str, budget: _waiting.Budget) -> Any:
        self._check_open()
        start = self._retry.clock()
        outcome = "OK"
        try:
            # Even with little time left, give the server a chance: a request that times out too early is wasted.
            timeout = max(0.05, min(method.deadline, max(budget.left(), min(_MIN_TIMEOUT, budget.seconds))))
            send = self._google.get().send
            metadata = self._metadata(rpc, timeout)
            try:
                if not self._endpoint.rest:  # closing the channel ends its calls
                    with _process.outside_fork():
                        return send(method.call, request, timeout, metadata)
                return self._await_response(lambda: send(method.call, request, timeout, metadata), timeout)
            except Exception:
                with _faults.translated(self._endpoint):
                    raise
        except CallError as failure:
            outcome = failure.code
            raise
        except BaseException as failure:
            outcome = type(failure).__name__
            raise
        finally:
            if _LOG.isEnabledFor(logging.DEBUG):
                _LOG.debug("%s %s: %s in %.3f s", rpc, resource, outcome, self._retry.clock() - start)

    def _await_response(self, send: Callable[[], Any], timeout: float) -> Any:
        """Return the response of a call over HTTP, and stop waiting for it when the connection is closed.

        The request itself goes on. Google's timeout limits each part of the response, so the wait for all of it gets
        the same limit.
        """
        try:
            return self._run_in_thread(send, timeout + _TIMEOUT_MARGIN)
        except Empty:
            raise CallError("DEADLINE_EXCEEDED", "The response wasn't complete in time") from None

    def _run_in_thread(self, work: Callable[[], Any], seconds: float = math.inf) -> Any:
        """Do some work in a thread and return its result. The wait ends when time is up or the connection is closed."""

        def work_outside_fork() -> Any:
            # Resolving an address takes locks of the C library, which would stay locked in a forked child.
            with _process.outside_fork():
                return work()

        outcomes: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        with self._wake_on_close(outcomes):
            _waiting.start_thread(work_outside_fork, outcomes)
            outcome = _waiting.receive(outcomes, seconds)
        return outcome()

    def _sleep(self, seconds: float) -> None:
        """Sleep. Closing the connection ends the sleep, unless the caller passed a ``sleep`` of its own."""
        if self._retry.sleep is time.sleep:
            woken: SimpleQueue[Callable[[], Any]] = SimpleQueue()
            with self._wake_on_close(woken), contextlib.suppress(Empty):
                _waiting.receive(woken, seconds)
        else:
            self._retry.sleep(seconds)
        self._check_open()

    @contextlib.contextmanager
    def _wake_on_close(self, waiter: SimpleQueue[Callable[[], Any]]) -> Iterator[None]:
        """Let closing the connection end the wait for this queue."""
        self._waiters.add(waiter)
        try:
            self._check_open()
            yield
        finally:
            self._waiters.discard(waiter)

    def _warn_of_quota(self, seconds: float) -> None:
        """Say why nothing seems to happen, but not for every one of many requests."""
        if (now := self._retry.clock()) >= self._quiet_until:
            self._quiet_until = now + _QUIET
            _LOG.warning("the quota of %s is used up: requests are sent again in %.0f s", self._endpoint, seconds)

    def _raise_if_closed(self, rpc: str, resource: str, failure: CallError) -> None:
        """Raise the error of a closed client. After a change, it says that the change may have happened."""
        try:
            self._check_open()
        except ClientClosedError as closed:
            if not rpc.startswith(("Get", "List")):
                closed.args = (f"{closed} {rpc} on {resource} was running, and may have been carried out.",)
            raise closed from failure.__cause__

    def _metadata(self, rpc: str, timeout: float) -> tuple[tuple[str, str], ...]:
        """Return the headers with the token in plain text. Google's transports don't send it there.

        `_endpoint` makes sure that they only reach this machine. Over TLS, Google's transports send the token. It's
        still fetched here, so that over both transports a fault of the token endpoint isn't mistaken for a refusal.
        """
        credentials = self._credentials
        if credentials is None or self._endpoint.anonymous:
            return ()
        url = f"{'http' if self._endpoint.plain else 'https'}://{self._endpoint.host}/{rpc}"
        fetch = functools.partial(_credentials.authorize, credentials, url, timeout)
        try:
            # A valid token needs no network. Fetching one may take as long as its server likes.
            headers = fetch() if getattr(credentials, "valid", False) is True else self._run_in_thread(fetch, timeout)
        except _credentials.TokenError as error:
            code = "UNAVAILABLE" if error.transient else "UNAUTHENTICATED"
            raise CallError(code, str(error), final=error.final, unsent=True) from error.__cause__
        except Empty:
            message = f"No token could be fetched in {timeout:.1f} s."
            raise CallError("UNAVAILABLE", message, unsent=True) from None
        return tuple((name.lower(), value) for name, value in headers.items()) if self._endpoint.plain else ()


class _Attempts:
    """Decides about the attempts of one call: whether there's another one, and when."""

    def __init__(self, connection: Connection, budget: _waiting.Budget, *, retry_on: frozenset[str], what: str) -> None:
        self._connection = connection
        self._budget = budget
        self._retry_on = retry_on
        self._what = what
        #: Whether the response to an earlier attempt was lost.
        self.lost = False
        # The latest failure, and how many were those of a quota.
        self._failure: CallError | None = None
        self._refusals = 0
        # How many failures had each code.
        self._failures: collections.Counter[str] = collections.Counter()

    @property
    def _over_quota(self) -> bool:
        return self._failure is not None and self._failure.over_quota

    def can_retry(self, failure: BaseException) -> bool:
        if not isinstance(failure, CallError):
            return False
        self._failure = failure
        self._refusals += failure.over_quota
        self._connection.throttled |= failure.over_quota
        if self._connection._closed or failure.final:  # noqa: SLF001  # it's a part of the connection
            return False
        if failure.unsent or failure.over_quota:
            return True
        return _faults.count_failure(self._failures, failure.code) and failure.code in self._retry_on

    def wait(self, state: tenacity.RetryCallState) -> float:
        retry = self._connection._retry  # noqa: SLF001  # likewise
        requested = 0.0 if self._failure is None else self._failure.retry_after
        if self._over_quota:
            return _waiting.quota_backoff(retry, self._refusals, requested)
        upper = _waiting.max_backoff(retry, state.attempt_number - self._refusals)
        return max(requested, upper * retry.random())

    def stop(self, state: tenacity.RetryCallState) -> bool:
        if not self._over_quota:
            return state.upcoming_sleep >= self._budget.left()
        self._budget.quota_used_up = state.upcoming_sleep >= self._budget.quota_left()
        return self._budget.quota_used_up

    def sleep(self, seconds: float) -> None:
        with self._budget.waiting_for_quota() if self._over_quota else contextlib.nullcontext():
            self._connection._sleep(seconds)  # noqa: SLF001  # likewise

    def log(self, state: tenacity.RetryCallState) -> None:
        code = "?" if self._failure is None else self._failure.code
        self.lost |= self._failure is not None and not self._failure.unsent and code in LOST_RESPONSE
        _LOG.info("%s: %s, sent again in %.2f s", self._what, code, state.upcoming_sleep)
        if self._over_quota:
            self._connection._warn_of_quota(state.upcoming_sleep)  # noqa: SLF001  # likewise


def _raise_closed() -> NoReturn:
    raise CallError("CANCELLED", "The connection was closed")
