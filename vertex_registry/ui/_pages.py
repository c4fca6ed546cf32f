"""The pages: functions of a registry and a query that return what's shown, as JSON has it.

A page is one dict. The template shows it, and its ``.json`` twin is the dict itself, so both say the same. No page
reads a whole registry: each has a bound, says how far it has read, and reads further on request (``depth``).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import attrs

from vertex_registry import AmbiguousNameError, InvalidArgumentError, NotFoundError, Stage, VersionDiff
from vertex_registry.ui import _messages, _reading, _snippets

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from vertex_registry import ModelVersion, RegisteredModel, RegistryError
    from vertex_registry.ui._reading import Reader, ReadList
    from vertex_registry.ui._snippets import Opening

MODELS_A_PAGE: Final = 25
VERSIONS_A_PAGE: Final = 50

# How much is read for one page. Each further step of ``depth`` reads as much again.
MODELS_SEARCHED: Final = 2000  # for a search by name
MODELS_OPENED: Final = 200  # for a search by stage, which needs a request for each model
VERSIONS_SORTED: Final = 1000  # to sort by anything but the number
READ_FOR_A_PAGE: Final = 2000  # how much further a list is read for a late page
MODELS_CHANGED: Final = 50  # for what changed last

CHARTED: Final = 100  # the versions in a chart
COLUMNS: Final = 5  # of metadata, if none are chosen
CHARTS: Final = 3  # likewise
KEYS_OFFERED: Final = 60
CHANGES_SHOWN: Final = 100

DEEPEST: Final = 100  # the largest depth
CHANGES_DEEPEST: Final = 10  # likewise; each model takes a few requests
_LAST_PAGE: Final = 10**6
_MOST_FIELDS: Final = 300
_LONGEST_VALUE: Final = 2000
_MOST_NESTED: Final = 40

ORDERS: Final = {"updated": "Last change", "created": "Newest", "name": "Name"}
STAGES: Final = tuple(stage.value for stage in Stage)
IN_USE: Final = tuple(stage.value for stage in _reading.IN_USE)

#: What versions can be sorted by, besides a metadata key.
SORTS: Final[dict[str, Callable[[ModelVersion], Any]]] = {
    "version": lambda version: int(version.version),
    "name": lambda version: version.version_name,
    "stage": lambda version: str(version.stage),
    "created": lambda version: version.created_at.timestamp(),
    "updated": lambda version: version.updated_at.timestamp(),
}
_METADATA: Final = "metadata."
_NEWEST_FIRST: Final = "-version"


@attrs.frozen
class Query:
    """The parameters of a page, as somebody typed them."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, encoded: str) -> Query:
        """Read an encoded query.

        Raises:
            InvalidArgumentError: It has too many parameters, or one of them is too long.
        """
        try:
            pairs = parse_qsl(encoded, max_num_fields=_MOST_FIELDS)
        except ValueError as error:
            raise InvalidArgumentError(f"The address has more than {_MOST_FIELDS} parameters.") from error
        if any(len(value) > _LONGEST_VALUE for pair in pairs for value in pair):
            raise InvalidArgumentError(f"A parameter in the address is longer than {_LONGEST_VALUE} characters.")
        return cls(tuple(pairs))

    def get(self, name: str) -> str:
        """Return the value of a parameter without blanks around it, or an empty text."""
        return self.exact(name).strip()

    def exact(self, name: str) -> str:
        """Return the value of a parameter as it is, or an empty text. A metadata key may begin with a blank."""
        return next((value for each, value in self.pairs if each == name), "")

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter once, in the order in which they came."""
        return list(dict.fromkeys(value for each, value in self.pairs if each == name and value))

    def number(self, name: str, most: int) -> int:
        """Return a parameter that counts from 1, which is also its default.

        Raises:
            InvalidArgumentError: It isn't a number, or too large.
        """
        text = self.get(name) or "1"
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not digits or not 1 <= int(text) <= most:
            raise self.not_shown(name, f"a number from 1 to {most}")
        return int(text)

    def one_of(self, name: str, choices: Iterable[str], default: str = "") -> str:
        """Return a parameter that's one of these, in any case, or the default if it isn't given.

        Raises:
            InvalidArgumentError: It's something else. Without an error, you'd take the page for a filtered one.
        """
        if not (text := self.get(name)):
            return default
        if (found := {choice.lower(): choice for choice in choices}.get(text.lower())) is None:
            raise self.not_shown(name, _either(choices))
        return found

    def not_shown(self, name: str, allowed: str) -> InvalidArgumentError:
        """Return the error of a parameter that has another value than those that are allowed."""
        return InvalidArgumentError(
            f"The address has {name}={self.exact(name)[:100]!r}, which this page can't show. Use {allowed}."
        )

    def check_names(self, known: Sequence[str]) -> None:
        """Check that a page has all parameters.

        Raises:
            InvalidArgumentError: It doesn't have one. Without an error, you'd take the page for a filtered one.
        """
        for name, _ in self.pairs:
            if name not in known:
                raise InvalidArgumentError(
                    f"This page has no parameter {name[:100]!r}. It has {_either(known, 'and')}."
                )

    def required(self, name: str, what: str) -> str:
        """Return a parameter that a page can't do without.

        Raises:
            InvalidArgumentError: It's missing.
        """
        if not (value := self.get(name)):
            raise InvalidArgumentError(f"The address doesn't say which {what}: add {name}=.")
        return value


def _either(choices: Iterable[str], word: str = "or") -> str:
    *others, last = choices
    return f"{', '.join(others)} {word} {last}"


@attrs.frozen
class Page:
    """What a page shows.

    Attributes:
        template: The name of its template.
        title: What the browser's tab shows.
        data: What's shown, as JSON has it.
        status: The HTTP status.
    """

    template: str
    title: str
    data: dict[str, Any]
    status: int = 200


# --- the models -------------------------------------------------------------------------------------------------------


def models(reader: Reader, query: Query, opening: Opening | None) -> Page:
    """Return the models that match a search, with what's in their stages and their last change."""
    text, stage = query.get("q"), query.one_of("stage", IN_USE)
    order = query.one_of("order", ORDERS, "updated")
    page, depth = query.number("page", _LAST_PAGE), query.number("depth", DEEPEST)
    listed = reader.models(order, fresh=page == depth == 1)
    wanted = page * MODELS_A_PAGE + 1
    if text or stage:
        found, searched = _search(reader, listed, text, stage, wanted=wanted, depth=depth)
    else:
        found = listed.up_to(wanted, at_once=READ_FOR_A_PAGE)
        searched = len(found)
    complete = listed.ends_within(searched)
    if text and not complete:
        found = [*_named(reader, text, stage, found), *found][:wanted]
    shown = found[wanted - 1 - MODELS_A_PAGE : wanted - 1]
    _summarize(reader, listed, shown)
    shared = shared_names(found)
    data = {
        "models": [
            _plain(model.to_dict())
            | {"reference": reference(model, shared), "console_url": model.console_url}
            | (listed.summaries[model.resource_name] or {})
            for model in shown
        ],
        "q": text,
        "stage": stage,
        "order": order,
        "page": page,
        "depth": depth,
        "has_next": len(found) >= wanted,
        "searched": searched,
        "complete": complete,
        "register": None if found or text or stage or page > 1 else _snippets.register(opening),
    }
    return Page("models.html", f"Search for {text}" if text else "Models", data)


def _search(
    reader: Reader, listed: ReadList[RegisteredModel], text: str, stage: str, *, wanted: int, depth: int
) -> tuple[list[RegisteredModel], int]:
    """Return the models that match, at most as many as wanted, and how many of the list were searched."""
    rows = listed.up_to(depth * MODELS_SEARCHED)
    words = set(text.casefold().split())

    def matches(model: RegisteredModel) -> bool:
        about = f"{model.name}\n{model.description}".casefold()
        return all(word in about for word in words)

    matching = [(position, model) for position, model in enumerate(rows) if matches(model)]
    if not stage:
        # The models with exactly this name come first, on whichever page they'd be.
        exact_first = sorted((model for _, model in matching), key=lambda model: model.name != text)
        return exact_first[:wanted], len(rows)
    found: list[RegisteredModel] = []
    opened = matching[: depth * MODELS_OPENED]
    for start in range(0, len(opened), MODELS_A_PAGE):
        batch = opened[start : start + MODELS_A_PAGE]
        _summarize(reader, listed, [model for _, model in batch])
        found += [model for _, model in batch if stage in _stages_in(listed.summaries[model.resource_name])]
        if len(found) >= wanted:
            return found[:wanted], batch[-1][0] + 1
    return found, opened[-1][0] + 1 if len(opened) < len(matching) else len(rows)


def _stages_in(summary: dict[str, Any] | None) -> set[str]:
    return set() if summary is None else {each["stage"] for each in summary["in_use"]}


def _named(reader: Reader, text: str, stage: str, found: list[RegisteredModel]) -> list[RegisteredModel]:
    """Return the model with exactly that name, which a search that ended early may have missed."""
    if stage or any(model.name == text for model in found):
        return []
    try:
        return [reader.registry.get_model(text)]
    except (NotFoundError, AmbiguousNameError, InvalidArgumentError):
        return []


def _summarize(reader: Reader, listed: ReadList[RegisteredModel], rows: Sequence[RegisteredModel]) -> None:
    """Open models that weren't opened yet."""
    new = [model for model in rows if model.resource_name not in listed.summaries]
    newest = reader.newest(new)
    for model, versions, held in zip(new, newest, reader.each_in_use(new, newest), strict=True):
        listed.summaries[model.resource_name] = None if versions is None else _summary(model, versions, held)


def _summary(model: RegisteredModel, newest: list[ModelVersion], held: list[ModelVersion]) -> dict[str, Any]:
    """Return what the versions of a model say about it: the newest ones, and those in use."""
    changed = max([model.updated_at, *(version.updated_at for version in [*newest, *held])])
    return {
        "newest_version": newest[0].version if newest else None,
        "in_use": [_in_stage(version) for version in held],
        "changed_at": _plain(changed),
    }


def _in_stage(version: ModelVersion) -> dict[str, Any]:
    return {"stage": str(version.stage), "version": version.version, "version_name": version.version_name}


def shared_names(models: Iterable[RegisteredModel]) -> set[str]:
    """Return the names that several of these models have."""
    return {name for name, times in Counter(model.name for model in models).items() if times > 1}


def reference(model: RegisteredModel, shared: Container[str] = ()) -> str:
    """Return what names a model in an address: its name, or its resource name if the name can't be typed.

    Args:
        model: The model.
        shared: The names that other models have, too. They would lead to the page about an ambiguous name.
    """
    name = model.name
    if name in shared:
        return model.resource_name
    simple = name.isprintable() and name == name.strip() and 0 < len(name) <= 128 and not name.startswith("projects/")  # noqa: PLR2004  # Vertex's limit
    return name if simple else model.resource_name


# --- one model --------------------------------------------------------------------------------------------------------


def model(reader: Reader, query: Query, _opening: Opening | None) -> Page:
    """Return a model with a page of its versions, and charts of its metrics."""
    name = query.required("name", "model")
    found = reader.registry.get_model(name)
    stage, sort = query.one_of("stage", STAGES), _sort_of(query)
    page, depth = query.number("page", _LAST_PAGE), query.number("depth", DEEPEST)
    fresh = page == depth == 1
    newest = reader.versions(found, None, fresh=fresh)
    charted = newest.up_to(CHARTED + 1)
    listed = newest if stage in {"", Stage.NONE} else reader.versions(found, Stage(stage), fresh=fresh)
    until = page * VERSIONS_A_PAGE + 1
    in_order = sort == _NEWEST_FIRST and stage != Stage.NONE
    if in_order:
        read = listed.up_to(max(until, len(charted)), at_once=READ_FOR_A_PAGE)
    else:
        read = listed.up_to(depth * VERSIONS_SORTED)
    rows = read if in_order else _sorted([each for each in read if not stage or each.stage == stage], sort)
    shown = rows[until - 1 - VERSIONS_A_PAGE : until - 1]
    held = reader.in_use(found.resource_name, charted, complete=newest.ends_within(len(charted)))
    charted = charted[:CHARTED]
    columns, numeric = _metadata_keys(shown or read[:VERSIONS_A_PAGE]), _numeric_keys(charted)
    offered = list(dict.fromkeys([*columns, *numeric]))[:KEYS_OFFERED]
    chosen = _keys_of(query, "column") or ([] if query.get("columns") else columns[:COLUMNS])
    metrics = _keys_of(query, "metric") or ([] if query.get("columns") else numeric[:CHARTS])
    data = {
        "model": _plain(found.to_dict()),
        "reference": name,
        "console_url": found.console_url,
        "in_use": [_in_stage(version) for version in held],
        "versions": [_version(version) for version in shown],
        "columns": chosen[:KEYS_OFFERED],
        "offered": list(dict.fromkeys([*offered, *chosen[:KEYS_OFFERED]])),
        "metrics": metrics[:KEYS_OFFERED],
        "offered_metrics": list(dict.fromkeys([*numeric[:KEYS_OFFERED], *metrics[:KEYS_OFFERED]])),
        "charts": [_chart(metric, charted) for metric in metrics[:KEYS_OFFERED]],
        "sort": sort,
        "stage": stage,
        "page": page,
        "depth": depth,
        "has_next": len(rows) >= until,
        "read": len(read),
        "complete": listed.ends_within(len(read)),
        "chosen": bool(query.get("columns")),
    }
    return Page("model.html", found.name, data)


def typed(key: str) -> str:
    """Return a metadata key as it's in an address: as it is, or in JSON's quotes if a browser may change it.

    Browsers leave empty fields out, turn line breaks into others, and replace what isn't a character.
    """
    simple = key.isprintable() and key.strip() and not key.startswith('"')
    return key if simple else json.dumps(key)


def _key_of(text: str) -> str:
    """Return the metadata key that's typed in an address."""
    if text.startswith('"'):
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(key := json.loads(text), str):
                return key
    return text


def _keys_of(query: Query, name: str) -> list[str]:
    return list(dict.fromkeys(map(_key_of, query.all(name))))


def _sort_of(query: Query) -> str:
    text = query.exact("sort") or _NEWEST_FIRST
    key = text.removeprefix("-")
    if key not in SORTS and (not key.startswith(_METADATA) or key == _METADATA):
        raise query.not_shown("sort", f"{_either([*SORTS, 'metadata.KEY'])}, with - in front for the largest first")
    return text


def _sorted(versions: list[ModelVersion], sort: str) -> list[ModelVersion]:
    """Return versions in an order. Numbers come before text, and what's missing is always last."""
    key = sort.removeprefix("-")
    descending = sort.startswith("-")
    metadata_key = _key_of(key.removeprefix(_METADATA))

    def value(version: ModelVersion) -> Any:
        found = SORTS[key](version) if key in SORTS else version.metadata.get(metadata_key)
        if isinstance(found, str) or found is None:
            return found
        return found if is_number(found) else json.dumps(_plain(found), sort_keys=True)

    values = {version.version: value(version) for version in versions}
    versions = sorted(versions, key=lambda version: int(version.version), reverse=True)
    given = [version for version in versions if values[version.version] is not None]

    def rank(version: ModelVersion) -> tuple[bool, Any]:
        found = values[version.version]
        return (isinstance(found, str), _natural(found) if isinstance(found, str) else found)

    given.sort(key=rank, reverse=descending)
    return given + [version for version in versions if values[version.version] is None]


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Return what a text is sorted by: its digits as numbers, so 1.10 comes after 1.9."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) <= _MOST_DIGITS else (1, 0, part.casefold())
        for part in re.split(r"([0-9]+)", text)
        if part
    ]


_MOST_DIGITS: Final = 18


def is_number(value: Any) -> bool:
    """Return whether a value can be charted and sorted as a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _metadata_keys(versions: Iterable[ModelVersion]) -> list[str]:
    """Return the metadata keys that fit a column, the most frequent first, and then those with objects and lists."""
    count = Counter(
        (key, isinstance(value, (dict, list))) for version in versions for key, value in version.metadata.items()
    )
    found = sorted(count, key=lambda each: (each[1], -count[each]))
    return list(dict.fromkeys(key for key, _ in found))


def _numeric_keys(versions: Iterable[ModelVersion]) -> list[str]:
    """Return the metadata keys with a number in at least two versions, the most frequent first."""
    count = Counter(key for version in versions for key, value in version.metadata.items() if is_number(value))
    return [key for key, times in count.most_common() if times > 1]


def _chart(metric: str, versions: Iterable[ModelVersion]) -> dict[str, Any]:
    """Return the values of a metric over versions, oldest first."""
    points = [
        {"version": version.version, "value": version.metadata[metric], "stage": str(version.stage)}
        for version in versions
        if is_number(version.metadata.get(metric))
    ]
    return {"metric": metric, "points": sorted(points, key=lambda point: int(point["version"]))}


# --- versions ---------------------------------------------------------------------------------------------------------


def version(reader: Reader, query: Query, opening: Opening | None) -> Page:
    """Return everything about one version, its history, and how to load it."""
    name = query.required("model", "model")
    found = _find_version(reader, name, query.get("version") or "default")
    history = reader.registry.stage_history(name, found)
    data = {
        "version": _version(found),
        "reference": name,
        "history": [_plain(change.to_dict()) for change in history],
        "history_complete": history.complete,
        "snippets": _snippets.snippets(found, name, opening),
    }
    return Page("version.html", f"{found.name}, version {found.version}", data)


def _find_version(reader: Reader, name: str, text: str) -> ModelVersion:
    """Return the version with a number, an alias or a name."""
    try:
        return reader.registry.get_version(name, text)
    except NotFoundError as missing:
        try:
            return reader.registry.find_version(name, text)
        except NotFoundError:
            raise missing from None


def _version(found: ModelVersion) -> dict[str, Any]:
    """Return a version as JSON has it. The values of environment variables are left out, because some are secrets."""
    record: dict[str, Any] = _plain(found.to_dict())
    if record["container"] is not None:
        record["container"]["env"] = dict.fromkeys(record["container"]["env"])
    return record | {"console_url": found.console_url}


def compare(reader: Reader, query: Query, _opening: Opening | None) -> Page:
    """Return two versions next to each other."""
    name = query.required("model", "model")
    chosen = query.all("version")
    if len(chosen) not in {0, 2}:
        raise InvalidArgumentError(f"Choose two versions to compare, not {len(chosen)}.")
    a, b = [query.get("a"), query.get("b")] if not chosen else sorted(chosen, key=_number)
    if not a or not b:
        raise InvalidArgumentError("Choose two versions to compare: add a= and b= to the address.")
    before, after = _find_version(reader, name, a), _find_version(reader, name, b)
    changed = reader.registry.diff(name, before, after)
    rows = [
        *(_row(key, changed.a.metadata, changed.b.metadata, changed.changes) for key in _keys(changed.a, changed.b)),
        *(_field(field, _version(changed.a), _version(changed.b), changed.changes) for field in VersionDiff.FIELDS),
    ]
    data = {
        "reference": name,
        "model": changed.a.name,
        "a": _version(changed.a),
        "b": _version(changed.b),
        "fields": rows,
    }
    return Page("compare.html", f"{changed.a.name}: {changed.a.version} and {changed.b.version}", data)


def _number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else (0, text)


def _keys(a: ModelVersion, b: ModelVersion) -> list[str]:
    return list(dict.fromkeys([*a.metadata, *b.metadata]))


def _row(key: str, a: Mapping[str, Any], b: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    values = a.get(key), b.get(key)
    change = None
    if all(map(is_number, values)) and values[0] != values[1]:
        change = float(values[1]) - float(values[0])  # type: ignore[arg-type]  # they're numbers
    return {
        "field": f"{_METADATA}{key}",
        "a": _plain(values[0]),
        "b": _plain(values[1]),
        "in_a": key in a,
        "in_b": key in b,
        "differs": f"{_METADATA}{key}" in changes,
        "change": change if change is None or math.isfinite(change) else None,
    }


def _field(field: str, a: dict[str, Any], b: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "field": field,
        "a": a[field],
        "b": b[field],
        "in_a": a[field] not in (None, "", []),
        "in_b": b[field] not in (None, "", []),
        "differs": field in changes,
        "change": None,
    }


# --- what changed last ------------------------------------------------------------------------------------------------


def changes(reader: Reader, query: Query, _opening: Opening | None) -> Page:
    """Return the latest changes of the versions that changed last."""
    name, depth = query.get("name"), query.number("depth", CHANGES_DEEPEST)
    if name:
        opened = [reader.registry.get_model(name)]
        complete = True
    else:
        listed = reader.models("updated", fresh=depth == 1)
        opened = listed.up_to(depth * MODELS_CHANGED + 1)
        complete = len(opened) <= depth * MODELS_CHANGED
        opened = opened[: depth * MODELS_CHANGED]
    newest = reader.newest(opened)
    events: list[dict[str, Any]] = []
    shared = shared_names(opened)
    for each, versions, held in zip(opened, newest, reader.each_in_use(opened, newest), strict=True):
        known = {version.version: version for version in [*(versions or [])[: _reading.NEWEST], *held]}
        for found in known.values():
            events += _events(each, found, reference(each, shared))
    events.sort(key=lambda event: (event["at"], int(event["version"])), reverse=True)
    data = {
        "name": name,
        "changes": [_plain(event) for event in events[:CHANGES_SHOWN]],
        "models_read": len(opened),
        "newest_versions": _reading.NEWEST,
        "complete": complete,
        "depth": depth,
    }
    return Page("changes.html", f"Changes of {opened[0].name}" if name else "Changes", data)


def _events(each: RegisteredModel, found: ModelVersion, link: str) -> list[dict[str, Any]]:
    """Return when a version was registered, when it entered its stage, and whether it was changed since."""
    about: dict[str, Any] = {
        "model": each.name,
        "reference": link,
        "version": found.version,
        "version_name": found.version_name,
        "stage": str(found.stage),
        "by": None,
    }
    events = [about | {"what": "registered", "at": found.created_at, "stage": None}]
    entered = found.stage_changed_at
    # A version that was registered and never promoted has changed its stage just after it was uploaded, to None.
    if entered is not None and (
        found.stage is not Stage.NONE or (entered - found.created_at).total_seconds() > _TOGETHER
    ):
        events.append(about | {"what": "stage", "at": entered, "by": found.stage_changed_by})
    else:
        events[0]["by"] = found.stage_changed_by
    if all((found.updated_at - event["at"]).total_seconds() > _TOGETHER for event in events):
        events.append(about | {"what": "updated", "at": found.updated_at})
    return events


#: Within so many seconds, an upload and the write that completes it are one change.
_TOGETHER: Final = 60.0


# --- errors -----------------------------------------------------------------------------------------------------------

#: The HTTP status of each error and the title of its page, by the name of its class.
_ERRORS: Final = {
    "NotFoundError": (404, "Not found"),
    "AmbiguousNameError": (409, "Several models have this name"),
    "InvalidArgumentError": (400, "This address can't be right"),
    "PermissionDeniedError": (403, "Not allowed"),
    "UnavailableError": (503, "The registry isn't available"),
    "ClientClosedError": (503, "The registry isn't available"),
    "AuthenticationError": (502, "The registry didn't accept the credentials"),
    "RegistryError": (502, "The registry refused the request"),
}


def error(problem: RegistryError, key: str, query: Query, ending: str) -> Page:
    """Return the page about an error of the registry.

    Args:
        problem: The error.
        key: The page that was requested.
        query: Its parameters. If they name a model that the error isn't about, the page leads to it.
        ending: What the addresses in the message end in, as in `_messages.translate`.
    """
    kinds = [kind.__name__ for kind in type(problem).__mro__]
    status, title = next(_ERRORS[kind] for kind in kinds if kind in _ERRORS)
    name = query.get("model") if key in {"version", "compare"} else ""
    data = {
        "error": {
            "type": kinds[0],
            "message": _messages.translate(str(problem), ending),
            "candidates": list(getattr(problem, "candidates", ())),
            "model": name if name and problem.resource != name else None,
        }
    }
    return Page("error.html", title, data, status)


def not_found(message: str) -> Page:
    """Return the page about an address that leads nowhere."""
    return Page(
        "error.html",
        "Not found",
        {"error": {"type": "NotFound", "message": message, "candidates": [], "model": None}},
        404,
    )


PAGES: Final[dict[str, Callable[[Reader, Query, Opening | None], Page]]] = {
    "": models,
    "models": models,
    "model": model,
    "version": version,
    "compare": compare,
    "changes": changes,
}

#: The parameters of each page.
PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "": (in_models := ("q", "stage", "order", "page", "depth")),
    "models": in_models,
    "model": ("name", "stage", "sort", "page", "depth", "columns", "column", "metric"),
    "version": ("model", "version"),
    "compare": ("model", "a", "b", "version"),
    "changes": ("name", "depth"),
}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON has it. Numbers that JSON doesn't have, and very deep nesting, become text."""
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list, tuple)) and depth >= _MOST_NESTED:
        return f"nested more than {_MOST_NESTED} levels deep"
    if isinstance(value, dict):
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, depth + 1) for item in value]
    return value
