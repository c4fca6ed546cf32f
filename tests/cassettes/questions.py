"""Send a recorded conversation to another server, and compare the answers.

A number in a cassette (``etag-0001``) matches whatever the other server generates in its place. Everything else must be
the same, except what `MASKS` names.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import attrs

from tests.cassettes import tape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

#: The fields that may differ between answers, by a pattern of the path, with the reason. Both answers must have them.
MASKS: Final[Mapping[str, str]] = {
    r"(.*\.)?(create|update|versionCreate|versionUpdate)Time": "each server has its own clock",
    r"error\.message": "Vertex has several wordings of its messages for people",
    r"error\.details": "the details belong to the message",
}

#: Lists without an order: "the aliases are unordered" (MergeVersionAliasesRequest.version_aliases), and the order of
#: operations isn't documented.
UNORDERED: Final = frozenset({"versionAliases", "operations"})

_RPCS: Final = (
    ("POST", r".*/models:upload", "UploadModel"),
    ("GET", r".*/models", "ListModels"),
    ("GET", r".*:listVersions", "ListModelVersions"),
    ("POST", r".*:mergeVersionAliases", "MergeVersionAliases"),
    ("DELETE", r".*:deleteVersion", "DeleteModelVersion"),
    ("GET", r".*/operations", "ListOperations"),
    ("GET", r".*/operations/[^/]+", "GetOperation"),
    ("GET", r".*/models/[^/]+", "GetModel"),
    ("PATCH", r".*/models/[^/]+", "UpdateModel"),
    ("DELETE", r".*/models/[^/]+", "DeleteModel"),
)

_CREATED_AND_UPDATED: Final = (("createTime", "updateTime"), ("versionCreateTime", "versionUpdateTime"))

_ABSENT: Final = "(nothing)"
_SAME: Final = "the same as before"
_ANOTHER: Final = "another one"
_ANY_WORD: Final = re.compile("[A-Za-z0-9+/=_%-]+")


@attrs.frozen
class Difference:
    """One difference between the answers of two servers.

    Attributes:
        rpc: The RPC.
        question: The request, as one line.
        where: What differs: ``status``, or the path of a field.
        recorded: The value in the cassette.
        given: The other server's value.
    """

    rpc: str
    question: str
    where: str
    recorded: Any
    given: Any


def rpc_of(method: str, path: str) -> str:
    """Return the name of a request's RPC."""
    for verb, pattern, name in _RPCS:
        if verb == method and re.fullmatch(pattern, path):
            return name
    return f"{method} {path}"


def ask(
    exchanges: Iterable[tape.Exchange], endpoint: str, *, project: str = "test-project", alone: bool = True
) -> list[Difference]:
    """Send the requests of a conversation to a server, and return where its answers differ.

    Args:
        exchanges: The conversation.
        endpoint: The server's URL.
        project: The project to use.
        alone: Whether the conversation was recorded in a project that had nothing else in it. If not, models that the
            conversation didn't create are ignored, because the other server doesn't have them.
    """
    known: dict[str, str] = {}
    created_models: set[str] = set()
    found: list[Difference] = []
    for exchange in exchanges:
        created_models.update(_created_models(exchange))
        if not alone and exchange.status == _OK and not _belongs_to(exchange.path, created_models):
            continue
        status, answer = _send(exchange, endpoint, project, known)
        rpc, question = rpc_of(exchange.method, exchange.path), f"{exchange.method} {_in_a_line(exchange)}"
        if status != exchange.status:
            verdicts = _status(exchange.status, exchange.answer), _status(status, answer)
            found.append(Difference(rpc, question, "status", *verdicts))
            continue
        recorded = exchange.answer if alone else _without_others(exchange.answer, created_models)
        found += [
            Difference(rpc, question, where, *values)
            for where, *values in _compare("", recorded, answer, known, paged=alone)
        ]
    return found


_OK: Final = 200


def _created_models(exchange: tape.Exchange) -> Iterator[str]:
    if exchange.path.endswith("/models:upload"):
        request = json.loads(exchange.body or "{}")
        yield request.get("modelId", "")
        yield request.get("parentModel", "").rpartition("/")[2]
        yield str(exchange.answer.get("name")).partition("/models/")[2].partition("/")[0]
    if exchange.status == _OK and isinstance(exchange.answer.get("response"), dict):
        yield str(exchange.answer["response"].get("model")).rpartition("/")[2].partition("@")[0]


def _belongs_to(name: str, created_models: set[str]) -> bool:
    match = re.search(r"/models/([^/@:?]+)", name)
    return match is None or match[1] in created_models


def _without_others(answer: Any, created_models: set[str]) -> Any:
    """Return a list without the models that weren't created in the conversation."""
    if not isinstance(answer, dict) or "models" not in answer:
        return answer
    kept = [model for model in answer["models"] if _belongs_to(model["name"], created_models)]
    return {"models": kept} if kept else {}


def _in_a_line(exchange: tape.Exchange) -> str:
    path, _, query = exchange.target.partition("?")
    pairs = [f"{name}={value}" for name, value in urllib.parse.parse_qsl(query) if not name.startswith("$")]
    return urllib.parse.unquote(path).partition("/locations/")[2].partition("/")[2] + (
        f" ({', '.join(pairs)})" if pairs else ""
    )


def _status(status: int, answer: Any) -> str:
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        return f"{status} {answer['error'].get('status', '')}".strip()
    return str(status)


def _send(exchange: tape.Exchange, endpoint: str, project: str, known: Mapping[str, str]) -> tuple[int, Any]:
    def filled(text: str, write: Callable[[str], str]) -> str:
        text = text.replace(f"projects/{tape.PROJECT}", f"projects/{project}")
        return tape.NUMBERED.sub(lambda match: write(known.get(match[0], match[0])), text)

    target = filled(exchange.target, lambda text: urllib.parse.quote(text, safe=""))
    body = None if exchange.body is None else filled(exchange.body, lambda text: json.dumps(text)[1:-1]).encode()
    request = urllib.request.Request(  # noqa: S310 - the caller chose the address
        endpoint + target, body, {"Content-Type": "application/json"}, method=exchange.method
    )
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310 - likewise
            status, content = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, content = error.code, error.read()
    text = re.sub(r"projects/[A-Za-z0-9:._-]+", f"projects/{tape.PROJECT}", content.decode())
    return status, json.loads(text or "null")


def _compare(
    where: str, recorded: Any, given: Any, known: dict[str, str], *, paged: bool
) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two answers differ. Add to `known` what the cassette's numbers match in the other answer."""
    if isinstance(recorded, dict) and isinstance(given, dict):
        for name in sorted(recorded.keys() | given.keys()):
            if not paged and name == "nextPageToken":
                continue
            inner = f"{where}.{name}" if where else name
            yield from _compare(inner, recorded.get(name, _ABSENT), given.get(name, _ABSENT), known, paged=paged)
        yield from _compare_times(where, recorded, given)
    elif isinstance(recorded, list) or isinstance(given, list):
        # Protobuf's JSON omits empty lists.
        recorded, given = ([] if one == _ABSENT else one for one in (recorded, given))
        if where.rpartition(".")[2] in UNORDERED:
            recorded, given = (sorted(one, key=lambda item: _sort_key(item, known)) for one in (recorded, given))
        if _summaries(recorded) != _summaries(given):
            yield where, _summaries(recorded), _summaries(given)
            return
        for left, right in zip(recorded, given, strict=True):
            yield from _compare(f"{where}[]", left, right, known, paged=paged)
    else:
        etags = _compare_etags(recorded, given, known)
        if not _is_same(where, recorded, given, known):
            yield where, recorded, given
        elif etags:
            yield where, *etags


def _compare_times(where: str, recorded: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the creation times that are later than the last change, in either answer."""
    for created, updated in _CREATED_AND_UPDATED:
        if all(created in one and updated in one for one in (recorded, given)):
            after = [tape.sortable(one[created]) > tape.sortable(one[updated]) for one in (recorded, given)]
            if any(after):
                recorded_order, given_order = (f"after {updated}" if late else f"not after {updated}" for late in after)
                yield f"{where}.{created}" if where else created, recorded_order, given_order


def _compare_etags(recorded: Any, given: Any, known: Mapping[str, str]) -> tuple[str, str] | None:
    """Return how two etags differ, if one stays the same when the other changes."""
    if not isinstance(recorded, str) or not re.fullmatch(r"etag-[0-9]{4}", recorded):
        return None
    if known.get(recorded, given) != given:
        return _SAME, _ANOTHER
    if any(value == given and number != recorded for number, value in known.items()):
        return _ANOTHER, _SAME
    return None


def _sort_key(item: Any, known: Mapping[str, str]) -> str:
    name = str(item["name"] if isinstance(item, dict) else item)
    return tape.NUMBERED.sub(lambda match: known.get(match[0], match[0]), name)


def _summaries(listed: list[Any]) -> list[Any]:
    """Return a short form of each entry of a list: for models, the name and the version."""
    return [_summary(item) if isinstance(item, dict) else item for item in listed]


def _summary(item: dict[str, Any]) -> str:
    return f"{item['displayName']}@{item.get('versionId')}" if "displayName" in item else "{...}"


def _is_same(where: str, recorded: Any, given: Any, known: dict[str, str]) -> bool:
    if recorded == given:
        return True
    if not isinstance(recorded, str) or not isinstance(given, str) or _ABSENT in (recorded, given):
        masked = any(re.fullmatch(mask, where) for mask in MASKS)
        return masked and _ABSENT not in (recorded, given)
    if any(re.fullmatch(mask, where) for mask in MASKS):
        return True
    parts = tape.NUMBERED.split(recorded)
    numbers = tape.NUMBERED.findall(recorded)
    if not numbers:
        return False
    pattern = f"({_ANY_WORD.pattern})".join(map(re.escape, parts))
    match = re.fullmatch(pattern, given)
    if match is None:
        return False
    known.update(zip(numbers, match.groups(), strict=True))
    return True
