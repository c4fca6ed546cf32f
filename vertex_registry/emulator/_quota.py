"""Quotas of requests, counted for each project and region. They're off unless somebody sets one."""

from __future__ import annotations

import datetime as dt
import re
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from google.rpc import error_details_pb2

from vertex_registry.emulator._names import project_number
from vertex_registry.emulator._status import Code, Failure, retry_info

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE: Final = dt.timedelta(minutes=1)
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

#: The fields of requests that name what they are about.
_NAMES: Final = ("parent", "name", "model")
_SCOPE_RE: Final = re.compile(r"projects/(?P<project>[^/@]+)(?:/locations/(?P<location>[^/@]+))?")


@dataclass(frozen=True)
class Quota:
    """How many requests a project may send in a minute to one region. The defaults are those that Google publishes.

    https://cloud.google.com/vertex-ai/docs/quotas: "Resource management requests include any request that isn't a job,
    an LRO, ...", and "Jobs or LROs include the following requests: ... Upload, delete, or export a model."

    Attributes:
        requests: The resource-management requests. Defaults to 600.
        submissions: The requests that begin a long-running operation, such as uploads and deletions. Defaults to 60.
        retry_info: Whether a refusal says when to try again. Defaults to yes.
    """

    requests: int = 600
    submissions: int = 60
    retry_info: bool = True

    def __post_init__(self) -> None:
        for name in ("requests", "submissions"):
            value = getattr(self, name)
            # True is the number 1 to Python. Nobody means that.
            if type(value) is not int or value < 0:
                raise ValueError(f"A quota has a number of {name} in a minute, and not {value!r}.")
        if type(self.retry_info) is not bool:
            raise ValueError(f"retry_info is true or false, and not {self.retry_info!r}.")


def parse_quota(text: str) -> Quota:
    """Return the quota that a text such as ``requests=600,submissions=60`` describes. Defaults fill the rest.

    Raises:
        ValueError: The text isn't a quota.
    """
    given: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, _, value = part.strip().partition("=")
        if name not in {field.name for field in fields(Quota) if field.name != "retry_info"} or not re.fullmatch(
            r"[0-9]{1,9}", value
        ):
            raise ValueError(f"The quota {text!r} isn't one. Write it as requests=600,submissions=60.")
        given[name] = int(value)
    return Quota(**given)


@dataclass(frozen=True)
class _Kind:
    """One of the two quotas, and how an error names it.

    Google's documentation names the limits. The names of the metrics are guesses.
    """

    limit_of: Callable[[Quota], int]
    metric: str
    metric_id: str
    limit_id: str


_REQUESTS: Final = _Kind(
    lambda quota: quota.requests,
    "Resource management (CRUD) requests",
    "aiplatform.googleapis.com/resource_management_requests",
    "ResourceManagementRequestsPerMinutePerProjectPerRegion",
)
_SUBMISSIONS: Final = _Kind(
    lambda quota: quota.submissions,
    "Job or LRO submission requests",
    "aiplatform.googleapis.com/job_submission_requests",
    "JobSubmissionRequestsPerMinutePerProjectPerRegion",
)


class Meter:
    """Counts the requests of each minute, and refuses those above the quota. What's refused isn't counted.

    Args:
        now: The clock.
    """

    def __init__(self, now: Callable[[], dt.datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str, _Kind], int] = {}
        self._minute = 0
        self._quota: Quota | None = None

    @property
    def quota(self) -> Quota | None:
        """The quota, or None. Setting it begins a new count."""
        return self._quota

    @quota.setter
    def quota(self, quota: Quota | None) -> None:
        with self._lock:
            self._quota = quota
            self._counts.clear()

    def reset(self) -> None:
        """Begin a new count."""
        with self._lock:
            self._counts.clear()

    def count(self, message: Any, *, submission: bool) -> None:
        """Count a request.

        Raises:
            Failure: RESOURCE_EXHAUSTED: the quota of this minute is used up.
        """
        quota = self._quota
        if quota is None or (scope := _scope_of(message)) is None:
            return
        kind = _SUBMISSIONS if submission else _REQUESTS
        with self._lock:
            minute, since = divmod(self._now() - _EPOCH, _MINUTE)
            if minute > self._minute:
                self._minute = minute
                self._counts.clear()
            counted = self._counts.get((*scope, kind), 0)
            if counted < kind.limit_of(quota):
                self._counts[*scope, kind] = counted + 1
                return
        raise _exhausted(kind, quota, *scope, (_MINUTE - since).total_seconds())


def _scope_of(message: Any) -> tuple[str, str] | None:
    """Return the project's number and the region that a request is about, or None if its name isn't one."""
    for field in _NAMES:
        value = getattr(message, field, "")
        name = value if isinstance(value, str) else getattr(value, "name", "")
        # Only the beginning is read, because a name may be as long as a request.
        if match := _SCOPE_RE.match(name[:1024]):
            return project_number(match["project"]), match["location"] or "global"
    return None


def _exhausted(kind: _Kind, quota: Quota, project: str, location: str, seconds: float) -> Failure:
    """Return the error of a quota that is used up.

    Public traces of other services show the text and the details, but no RetryInfo.
    """
    limit = f"{kind.metric} per minute per region"
    message = (
        f"Quota exceeded for quota metric '{kind.metric}' and limit '{limit}' of service 'aiplatform.googleapis.com' "
        f"for consumer 'project_number:{project}'."
    )
    info = error_details_pb2.ErrorInfo(
        reason="RATE_LIMIT_EXCEEDED",
        domain="googleapis.com",
        metadata={
            "consumer": f"projects/{project}",
            "quota_limit": kind.limit_id,
            "quota_limit_value": str(kind.limit_of(quota)),
            "quota_location": location,
            "quota_metric": kind.metric_id,
            "quota_unit": "1/min/{project}/{region}",
            "service": "aiplatform.googleapis.com",
        },
    )
    link = error_details_pb2.Help.Link(
        description="Request a higher quota limit.",
        url="https://cloud.google.com/docs/quotas/help/request_increase",
    )
    details = [info, error_details_pb2.Help(links=[link])]
    if quota.retry_info:
        details.append(retry_info(seconds))
    return Failure(Code.RESOURCE_EXHAUSTED, message, *details)
