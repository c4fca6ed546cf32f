"""Record conversations over HTTP as vcrpy cassettes, scrub them, and play them back.

A cassette has no secrets and no random values: only the headers in `KEPT`, ``PROJECT`` for every project, and numbers
for what the server generates. A second recording of the same conversation is therefore the same file.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import re
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import attrs
import vcr
import vcr.record_mode
import yaml
from requests.adapters import HTTPAdapter
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

#: The headers that are kept; all others are dropped.
KEPT: Final = frozenset({"content-type", "retry-after"})

PROJECT: Final = "PROJECT"
HOST: Final = "http://vertex"

_PROJECT: Final = re.compile(r"projects/[A-Za-z0-9:._-]+")
_NUMBER: Final = re.compile(r"projects/([0-9]+)")
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
# This must not match requests for tokens: /v1/projects/-/serviceAccounts/...:generateAccessToken.
_REGISTRY_PATH: Final = re.compile(r"/(?:v1|v1beta1|ui)/projects/[^/]+/locations/")
_VERSION_READ: Final = re.compile(r".*/models/[^/?]+?(?:%40|@)(\d+)\?")

#: What the server generates: the prefix of its numbers, and the pattern that finds it in an answer.
GENERATED: Final[Mapping[str, re.Pattern[str]]] = {
    "etag": re.compile(r'"etag": "([^"]+)"'),
    "page": re.compile(r'"nextPageToken": "([^"]+)"'),
    "operation": re.compile(r"/operations/([A-Za-z0-9-]+)"),
    "model": re.compile(r"/models/([0-9]{10,})"),
}
NUMBERED: Final = re.compile(rf"(?:{'|'.join(GENERATED)})-[0-9]{{4}}")

# This replaces vcrpy's own advice, which is to let the failing run change the cassette.
_RECORD_AGAIN: Final = """
If you meant to change the requests, run `make record` and review the difference. Otherwise your change to the client
has changed them by accident.
"""


@attrs.frozen
class Provenance:
    """How and when a cassette was recorded.

    Attributes:
        scenario: What the conversation is about.
        server: The name of the server.
        version: The server's version, if it's known.
        day: The day of the recording, in ISO format.
        note: What was done to the server, or nothing.
    """

    scenario: str
    server: str
    version: str
    day: str
    note: str = ""


@attrs.frozen
class Exchange:
    """A request and its response in a cassette.

    Attributes:
        method: The HTTP method.
        target: The path with the query.
        body: The body of the request, or None.
        status: The HTTP status of the response.
        answer: The JSON of the response.
    """

    method: str
    target: str
    body: str | None
    status: int
    answer: Any

    @property
    def path(self) -> str:
        """Return the path in a readable form."""
        return urllib.parse.unquote(self.target.partition("?")[0])


# --- reading and writing ----------------------------------------------------------------------------------------------


def load(file: Path) -> tuple[Provenance, list[Exchange]]:
    """Return a cassette's provenance and its conversation."""
    content = _parse(file.read_text(encoding="utf-8"))
    exchanges = [
        Exchange(
            method=interaction["request"]["method"],
            target=interaction["request"]["uri"].removeprefix(HOST),
            body=interaction["request"]["body"],
            status=interaction["response"]["status"]["code"],
            answer=json.loads(interaction["response"]["body"]["string"] or "null"),
        )
        for interaction in content["interactions"]
    ]
    return Provenance(**content["recorded"]), exchanges


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=yaml.CSafeLoader)


class _Dumper(yaml.CSafeDumper):
    """A dumper that writes text of several lines as a block."""


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


@attrs.frozen
class _Serializer:
    """Writes and reads cassettes for vcrpy."""

    provenance: Provenance | None
    replacements: Mapping[str, str]

    def serialize(self, cassette: Mapping[str, Any]) -> str:
        """Return the cassette's text."""
        assert self.provenance is not None
        interactions = _reads_by_version(cassette["interactions"])
        texts = []
        for interaction in interactions:
            request, response = interaction["request"], interaction["response"]
            texts += [
                request["uri"],
                _decoded(request["body"]),
                _with_sorted_keys(_decoded(response["body"]["string"])),
            ]
        texts = _number(_scrub(texts, self.replacements))
        written = [
            {
                "request": {**interaction["request"], "uri": uri, "body": body or None},
                "response": {
                    "status": interaction["response"]["status"],
                    "headers": _kept_headers(interaction["response"]["headers"]),
                    "body": {"string": answer},
                },
            }
            for interaction, uri, body, answer in zip(interactions, texts[::3], texts[1::3], texts[2::3], strict=True)
        ]
        content = {"recorded": attrs.asdict(self.provenance), "interactions": written, "version": 1}
        text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
        return text

    @staticmethod
    def deserialize(text: str) -> Any:
        return _parse(text)


def _decoded(text: str | bytes | None) -> str:
    return text.decode() if isinstance(text, bytes) else text or ""


def _kept_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: headers[name] for name in sorted(headers) if name.lower() in KEPT}


def _with_sorted_keys(text: str) -> str:
    """Return JSON with its keys sorted, and anything else unchanged."""
    with contextlib.suppress(ValueError):
        return json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
    return text


def _reads_by_version(interactions: list[Any]) -> list[Any]:
    """Sort successive reads of versions by number, because the client sends reads of neighbors concurrently."""
    ordered: list[Any] = []
    for is_read, run in itertools.groupby(
        interactions, lambda interaction: _version_that_is_read(interaction) is not None
    ):
        several = list(run)
        ordered += sorted(several, key=lambda one: _version_that_is_read(one) or 0) if is_read else several
    return ordered


def _version_that_is_read(interaction: Any) -> int | None:
    request = interaction["request"]
    match = _VERSION_READ.match(request["uri"]) if request["method"] == "GET" else None
    return int(match[1]) if match else None


def _scrub(texts: list[str], replacements: Mapping[str, str]) -> list[str]:
    """Return the texts with each project and each secret word replaced."""
    numbers = {number for text in texts for number in _NUMBER.findall(text)}
    hidden = {**dict.fromkeys(numbers, PROJECT), **replacements}
    if hidden:
        pattern = re.compile("|".join(map(re.escape, sorted(hidden, key=len, reverse=True))))
        texts = [pattern.sub(lambda match: hidden[match[0]], text) for text in texts]
    return [_PROJECT.sub(f"projects/{PROJECT}", text) for text in texts]


def _number(texts: list[str]) -> list[str]:
    """Return the texts with a number in place of each value that the server generated."""
    numbers: dict[str, str] = {}
    for text in texts:
        for word, pattern in GENERATED.items():
            for found in pattern.findall(text):
                if found not in numbers:
                    known = sum(number.startswith(word) for number in numbers.values())
                    numbers[found] = f"{word}-{known + 1:04}"
    times = sorted({time for text in texts for time in _TIMESTAMP.findall(text)}, key=sortable)
    numbers |= {time: f"2026-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z" for n, time in enumerate(times)}
    if not numbers:
        return texts
    quoted = {urllib.parse.quote(found, safe=""): number for found, number in numbers.items()}
    numbers = quoted | numbers
    pattern = re.compile("|".join(map(re.escape, sorted(numbers, key=len, reverse=True))))
    return [pattern.sub(lambda match: numbers[match[0]], text) for text in texts]


def sortable(timestamp: str) -> str:
    """Return a timestamp as text that sorts by time."""
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}"


# --- recording and replaying ------------------------------------------------------------------------------------------


def _normalized(request: Request) -> Request | None:
    """Return a request in the form that's compared and stored, or None if it isn't for the model registry."""
    parts = urllib.parse.urlsplit(request.uri)
    if not _REGISTRY_PATH.match(parts.path):
        return None
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    target, body = (
        _PROJECT.sub(f"projects/{PROJECT}", text) for text in (target, _with_sorted_keys(_decoded(request.body)))
    )
    return Request(request.method, HOST + target, body or None, _kept_headers(request.headers))


def _match_bodies(one: Request, other: Request) -> None:
    """Compare two bodies for vcrpy. If they differ, raise an AssertionError that shows the difference."""
    sent, recorded = _decoded(one.body), _decoded(other.body)
    if sent != recorded:
        lines = difflib.unified_diff(recorded.splitlines(), sent.splitlines(), "recorded", "sent", lineterm="", n=2)
        raise AssertionError("\n".join(lines))


def _cassette(file: Path, mode: str, serializer: _Serializer) -> Any:
    recorder = vcr.VCR()
    recorder.register_serializer("tape", serializer)
    recorder.register_matcher("same body", _match_bodies)
    return recorder.use_cassette(
        str(file),
        serializer="tape",
        record_mode=vcr.record_mode.RecordMode(mode),
        match_on=["method", "path", "query", "same body"],
        before_record_request=_normalized,
    )


@contextlib.contextmanager
def _one_at_a_time(before: Callable[[str, str], None] | None = None) -> Iterator[None]:
    """Send one request at a time, and call `before` first.

    While vcrpy sends a request, it intercepts no connection. Requests that other threads send in that time would be
    missing from the cassette.
    """
    lock, send = threading.Lock(), HTTPAdapter.send

    def send_alone(adapter: HTTPAdapter, request: Any, *given: Any, **named: Any) -> Any:
        with lock:
            if before is not None:
                before(request.method, request.url)
            return send(adapter, request, *given, **named)

    with mock.patch.object(HTTPAdapter, "send", send_alone):
        yield


@contextlib.contextmanager
def recording(
    file: Path,
    provenance: Provenance,
    replacements: Mapping[str, str] | None = None,
    *,
    before: Callable[[str, str], None] | None = None,
) -> Iterator[None]:
    """Record all HTTP requests and responses within the context into a cassette.

    Args:
        file: The cassette.
        provenance: The provenance to write into it.
        replacements: The secret words, with the text to write instead.
        before: Called with the method and URL before a request is sent.
    """
    file.unlink(missing_ok=True)
    with _one_at_a_time(before), _cassette(file, "all", _Serializer(provenance, replacements or {})):
        yield


@contextlib.contextmanager
def replaying(file: Path) -> Iterator[None]:
    """Answer all HTTP requests within the context from a cassette.

    Raises:
        CannotOverwriteExistingCassetteException: A request wasn't recorded. The message shows the most similar one.
        AssertionError: The requests, or their order, differ from the recording. The message shows the difference.
    """
    sent: list[Request] = []
    with _one_at_a_time(), _cassette(file, "none", _Serializer(None, {})) as cassette:
        play = cassette.play_response

        def note(request: Request) -> Any:
            sent.append(request)  # not normalized yet: it still contains the project
            return play(request)

        is_recorded = cassette.can_play_response_for

        def refuse(request: Request) -> Any:
            if (answer := is_recorded(request)) or not cassette.filter_request(request):
                return answer
            mismatch = CannotOverwriteExistingCassetteException(cassette=cassette, failed_request=request)
            mismatch.args = (str(mismatch).partition("\nHow to fix:")[0] + _RECORD_AGAIN,)
            raise mismatch

        cassette.play_response = note
        cassette.can_play_response_for = refuse
        yield
    lines = difflib.unified_diff(
        _request_lines(cassette.requests),
        _request_lines(filter(None, map(_normalized, sent))),
        "recorded",
        "sent",
        lineterm="",
        n=1,
    )
    if shown := "\n".join(lines):
        raise AssertionError(
            f"{file.name}: the requests, or their order, differ from the recording.\n{shown}\n{_RECORD_AGAIN}"
        )


def _request_lines(requests: Iterable[Request]) -> list[str]:
    ordered = _reads_by_version([{"request": {"method": request.method, "uri": request.uri}} for request in requests])
    return [f"{one['request']['method']} {urllib.parse.unquote(one['request']['uri'])}" for one in ordered]
