"""Histories written by hand: each broken promise is found, and what can't be known isn't a violation."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.histories.checker import WINDOWS, Checker, excerpt
from tests.histories.history import LATE, Operation, read


def version(number: int = 1, source: str = "s1", **changed: Any) -> dict[str, Any]:
    """Return a version as a history has it."""
    seen = {"name": "churn", "model": "m", "number": str(number), "source": source, "created": source}
    return seen | {"stage": "None", "aliases": [], "metadata": {}} | changed


def call(verb: str, began: float, ended: float, result: Any = None, name: str = "churn", **args: Any) -> Operation:
    """Return a call that succeeded."""
    process = args.pop("process", "p0")
    return Operation(f"{verb}-{began}", process, verb, name, args, began, ended, ok=True, result=result, returned=ended)


def failed(verb: str, began: float, ended: float, error: str, name: str = "churn", **args: Any) -> Operation:
    """Return a call that failed. It had no effect later, unless it was late."""
    late = args.pop("late", ended)
    return Operation(f"{verb}-{began}", "p0", verb, name, args, began, late, error=error, returned=ended)


def killed(verb: str, began: float, name: str = "churn", **args: Any) -> Operation:
    """Return a call whose process was killed."""
    return Operation(f"{verb}-{began}", "p0", verb, name, args, began, math.inf, error="killed")


def register(began: float, ended: float, result: dict[str, Any], **args: Any) -> Operation:
    """Return a registration that succeeded."""
    usual = {"source": result["source"], "make_default": False, "request_id": "r"}
    return call("register_version", began, ended, result, **usual | args)


def cut_off(began: float, source: str = "s1", **args: Any) -> Operation:
    """Return a registration that was killed."""
    return killed("register_version", began, source=source, **args)


def update(began: float, ended: float, result: dict[str, Any], **args: Any) -> Operation:
    return call("update_version", began, ended, result, version=result["number"], **args)


def stage(began: float, ended: float, result: dict[str, Any], to: str, *, archive: bool = False) -> Operation:
    return call("set_stage", began, ended, result, version=result["number"], stage=to, archive_existing=archive)


def alias(began: float, ended: float, result: dict[str, Any], *aliases: str) -> Operation:
    return call("add_aliases", began, ended, result, version=result["number"], aliases=list(aliases))


def delete(began: float, ended: float, number: int = 1, **args: Any) -> Operation:
    return call("delete_version", began, ended, version=str(number), **args)


def get(began: float, ended: float, result: dict[str, Any]) -> Operation:
    return call("get_version", began, ended, result, version=result["number"])


def listed(began: float, ended: float, *versions: dict[str, Any]) -> Operation:
    return call("list_versions", began, ended, list(versions))


def snapshot(began: float, *versions: dict[str, Any], label: str = "end", models: Any = None) -> Operation:
    names = {seen["model"]: seen["name"] for seen in versions}
    models = models or [{"name": name, "resource": model} for model, name in names.items()]
    result = {"models": models, "versions": list(versions)}
    return call("snapshot", began, began + 1, result, name="", label=label)


PRODUCTION: dict[str, Any] = {"stage": "Production"}
STAGING: dict[str, Any] = {"stage": "Staging"}
ARCHIVED: dict[str, Any] = {"stage": "Archived"}
BOTH = (register(0, 1, version(1)), register(2, 3, version(2, "s2")))
RENAME = call("foreign_rename", 4, 5, model="m", to="churn-old")

# What breaks a promise, and which one.
BROKEN: dict[str, tuple[str, list[Operation]]] = {
    "an error of Google's": ("own-errors", [failed("get_version", 0, 1, "ServiceUnavailable", version="1")]),
    "two models of one name": (
        "one-model",
        [snapshot(0, models=[{"name": "churn", "resource": "m"}, {"name": "churn", "resource": "n"}])],
    ),
    "a client finds two models": ("one-model", [failed("get_version", 0, 1, "AmbiguousNameError", version="1")]),
    "a remembered name after a rename": ("named-model", [RENAME, get(6, 7, version(name="churn-old"))]),
    "a deletion in a renamed model": (
        "kept",
        [register(0, 1, version()), RENAME, delete(6, 7), snapshot(8)],
    ),
    "somebody else's version is returned": (
        "own-version",
        [call("register_version", 0, 1, version(1, "other"), source="mine")],
    ),
    "a number is given twice": (
        "numbers-once",
        [register(0, 1, version(1)), register(2, 3, version(1, "s2"))],
    ),
    "one request returns two versions": (
        "one-version",
        [register(0, 2, version(1)), register(1, 3, version(2, created="later"))],
    ),
    "one request returns two versions after a kill": (
        "one-version",
        [cut_off(0), register(1, 2, version(1)), register(3, 4, version(2, created="later"))],
    ),
    "one request leaves two versions": (
        "one-version",
        [register(0, 1, version(1)), snapshot(2, version(1), version(2, created="later"))],
    ),
    "one request that was never acknowledged leaves two versions": (
        "one-version",
        [cut_off(0, request_id="r"), snapshot(2, version(1), version(2, created="later"))],
    ),
    "an acknowledged version is gone": ("kept", [register(0, 1, version()), snapshot(2)]),
    "a list lacks an acknowledged version": ("kept", [*BOTH, listed(4, 5, version(1))]),
    "a read finds no acknowledged version": (
        "kept",
        [register(0, 1, version()), failed("get_version", 2, 3, "NotFoundError", version="1")],
    ),
    "another version has its number": (
        "kept",
        [register(0, 1, version()), get(2, 3, version(1, "s2"))],
    ),
    "a version goes with another one": ("kept", [*BOTH, delete(4, 5, 1), snapshot(6)]),
    "a version goes with another one that is deleted at the same time": (
        "kept",
        [register(0, 1, version(1)), delete(2, 4, 1), register(2.5, 3, version(2, "s2")), snapshot(5)],
    ),
    "a version that another tool uploaded goes long after": (
        "kept",
        [
            call("foreign_upload", 0, 1, version(2, "f"), source="f", model="m"),
            delete(2, 3, 1),
            snapshot(5),
        ],
    ),
    "a version goes after a deletion that was over before": (
        "kept",
        [failed("delete_version", 0, 1, "NotFoundError", version="1"), register(2, 3, version()), snapshot(4)],
    ),
    "a deleted version is still there": ("deleted", [register(0, 1, version()), delete(2, 3), get(4, 5, version())]),
    "metadata is lost": (
        "metadata-kept",
        [register(0, 1, version()), update(2, 3, version(), metadata={"a": 1}), get(4, 5, version())],
    ),
    "metadata that was registered is lost": (
        "metadata-kept",
        [register(0, 1, version(metadata={"a": 1}), metadata={"a": 1}), get(2, 3, version())],
    ),
    "the completion overwrites metadata": (
        "metadata-kept",
        [update(1, 2, version(), metadata={"a": 1}), register(0, 3, version()), get(4, 5, version())],
    ),
    "metadata that was overwritten comes back": (
        "metadata-kept",
        [
            update(0, 1, version(), metadata={"a": 1}),
            update(2, 3, version(), metadata={"a": 2}),
            get(4, 5, version(metadata={"a": 1})),
        ],
    ),
    "metadata that was removed comes back": (
        "metadata-kept",
        [
            update(0, 1, version(), metadata={"a": 1}),
            update(2, 3, version(), remove_metadata=["a"]),
            snapshot(4, version(metadata={"a": 1})),
        ],
    ),
    "a label of another tool is lost": (
        "metadata-kept",
        [call("foreign_label", 0, 1, version="1", model="m", metadata={"f": "x"}), get(2, 3, version())],
    ),
    "an update through an alias changes two versions": (
        "one-target",
        [
            call("update_version", 0, 9, version(2, "s2"), version="champion", metadata={"a": 1}),
            snapshot(10, version(1, metadata={"a": 1}), version(2, "s2", metadata={"a": 1})),
        ],
    ),
    "a stage is lost": (
        "stage-kept",
        [register(0, 1, version()), stage(2, 3, version(**PRODUCTION), "Production"), get(4, 5, version())],
    ),
    "the completion takes a stage back": (
        "stage-kept",
        [
            register(0, 5, version(), stage="None"),
            stage(1, 2, version(**PRODUCTION), "Production"),
            get(6, 7, version()),
        ],
    ),
    "a registration has no stage": (
        "stage-kept",
        [register(0, 1, version(), stage="Staging"), get(2, 3, version())],
    ),
    "a re-run takes a stage back": (
        "stage-kept",
        [
            register(0, 1, version(**STAGING), stage="Staging"),
            stage(2, 3, version(**PRODUCTION), "Production"),
            register(4, 5, version(**STAGING), stage="Staging"),
        ],
    ),
    "a promotion archives another stage": (
        "stage-kept",
        [
            register(0, 1, version(1, **PRODUCTION), stage="Production"),
            register(2, 3, version(2, "s2", **STAGING), stage="Staging", archive_existing=True),
            get(4, 5, version(1, **ARCHIVED)),
        ],
    ),
    "nobody archived it": (
        "stage-kept",
        [register(0, 1, version(**PRODUCTION), stage="Production"), get(2, 3, version(**ARCHIVED))],
    ),
    "a stage is empty between two promotions": (
        "stage-filled",
        [
            stage(0, 1, version(1, **PRODUCTION), "Production", archive=True),
            stage(2, 9, version(2, "s2", **PRODUCTION), "Production", archive=True),
            call("latest_version", 4, 5, None, stage="Production"),
        ],
    ),
    "a registration empties a stage": (
        "stage-filled",
        [
            stage(0, 1, version(1, **PRODUCTION), "Production", archive=True),
            register(0, 3, version(2, "s2"), stage="None"),
            listed(4, 5, version(1, **ARCHIVED), version(2, "s2")),
        ],
    ),
    "two promotions both win": (
        "one-winner",
        [
            stage(0, 2, version(1, **PRODUCTION), "Production", archive=True),
            stage(1, 3, version(2, "s2", **PRODUCTION), "Production", archive=True),
            snapshot(4, version(1, **PRODUCTION), version(2, "s2", **PRODUCTION), label="quiet"),
        ],
    ),
    "a re-run of a promotion leaves two": (
        "one-winner",
        [
            killed("set_stage", 0, version="2", stage="Production", archive_existing=True),
            call("set_stage", 1, 2, version(1, **PRODUCTION), version="1", stage="Production", archive_existing=True,
                 process="main"),
            snapshot(4, version(1, **PRODUCTION), version(2, "s2", **PRODUCTION)),
        ],
    ),
    "an alias is where nobody put it last": (
        "aliases-kept",
        [
            *BOTH,
            alias(4, 5, version(1), "champion"),
            alias(6, 7, version(2, "s2"), "champion"),
            snapshot(8, version(1, aliases=["champion"]), version(2, "s2")),
        ],
    ),
    "an alias is lost": (
        "aliases-kept",
        [*BOTH, alias(4, 5, version(1), "champion"), snapshot(6, version(1), version(2, "s2"))],
    ),
    "an alias stays where it was removed": (
        "aliases-kept",
        [
            alias(4, 5, version(1), "champion"),
            call("remove_aliases", 6, 7, version(1), version="1", aliases=["champion"]),
            get(8, 9, version(1, aliases=["champion"])),
        ],
    ),
    "an alias is moved twice by one call": (
        "aliases-kept",
        [
            *BOTH,
            alias(4, 12, version(1), "champion"),
            get(5, 6, version(1, aliases=["champion"])),
            alias(7, 8, version(2, "s2"), "champion"),
            get(13, 14, version(1, aliases=["champion"])),
        ],
    ),
    "a deletion overrides the default": (
        "aliases-kept",
        [
            *BOTH,
            register(3, 3.5, version(3, "s3")),
            call("set_default", 4, 5, version(1), version="1"),
            delete(6, 9, 1),
            call("set_default", 7, 8, version(2, "s2"), version="2"),
            snapshot(10, version(2, "s2"), version(3, "s3", aliases=["default"])),
        ],
    ),
}  # fmt: skip

# What looks like it, and breaks nothing.
KEPT: dict[str, list[Operation]] = {
    "nothing": [],
    "a rename while a verb is on its way": [
        call("foreign_rename", 4, 7, model="m", to="churn-old"), get(6, 8, version(name="churn-old")),
    ],
    "a deletion of the version": [*BOTH, delete(4, 5, 1), snapshot(6, version(2, "s2"))],
    "a deletion that may have arrived late": [killed("delete_version", 0, version="1"), *BOTH,
                                              snapshot(6, version(2, "s2"))],
    "a deletion of the model": [*BOTH, call("delete_model", 4, 5), snapshot(6)],
    "a deletion through an alias": [*BOTH, call("delete_version", 4, 5, version="champion"),
                                    snapshot(6, version(2, "s2"))],
    "a number of a model that was made anew": [
        register(0, 1, version(1)), delete(2, 3), register(4, 5, version(1, "s2")), snapshot(6, version(1, "s2")),
    ],
    "an alias of a registration whose version was deleted with its model": [
        failed("register_version", 0, 6, "StateUnknownError", source="s1", aliases=["champion"], late=9),
        call("delete_model", 2, 3), register(4, 5, version(1, "s2")), register(4, 5, version(2, "s3")),
        alias(5, 6, version(2, "s3"), "champion"),
        snapshot(7, version(1, "s2", aliases=["champion"]), version(2, "s3")),
    ],
    "a request whose version was deleted": [
        register(0, 1, version(1)), delete(2, 3), register(4, 5, version(2, created="later")),
        snapshot(6, version(2, created="later")),
    ],
    "a duplicate that nobody can heal": [
        cut_off(0, request_id=None), snapshot(2, version(1), version(2, created="later")),
    ],
    "a foreign upload that races the deletion of the last version": [
        delete(0, 3, 1), call("foreign_upload", 1, 2, version(2, "f"), source="f", model="m"), snapshot(5),
    ],
    "a version that isn't complete yet": [
        register(0, 5, version(metadata={"a": 1}, **STAGING), stage="Staging", metadata={"a": 1}),
        get(1, 2, version()),
    ],
    "an update whose answer was lost": [
        failed("update_version", 0, math.inf, "UnavailableError", version="1", metadata={"a": 1}),
        get(1, 2, version()),
        get(3, 4, version(metadata={"a": 1})),
    ],
    "an update of what other versions were registered with": [
        register(0, 1, version(1, metadata={"a": 0}), metadata={"a": 0}),
        register(0, 1, version(2, "s2", metadata={"a": 0}), metadata={"a": 0}),
        update(2, 3, version(1, metadata={"a": 1}), metadata={"a": 1}),
        snapshot(4, version(1, metadata={"a": 1}), version(2, "s2", metadata={"a": 0})),
    ],
    "a key that is removed before it was registered": [
        update(1, 2, version(), remove_metadata=["a"]),
        register(0, 3, version(metadata={"a": 1}), metadata={"a": 1}), get(4, 5, version(metadata={"a": 1})),
    ],
    "a version that goes with its model, deleted by a late request": [
        *BOTH, failed("delete_version", 4, 5, "UnavailableError", version="1", late=9), snapshot(6),
    ],
    "a request that is made again after a rename": [
        register(0, 1, version(1)), RENAME, register(6, 7, version(1, model="n", created="later")),
        snapshot(8, version(1, name="churn-old"), version(1, model="n", created="later")),
    ],
    "a request that is made again after a rename, and was acknowledged once": [
        cut_off(0), RENAME, register(6, 7, version(1, model="n", created="later")),
        snapshot(8, version(1, name="churn-old"), version(1, model="n", created="later")),
    ],
    "an update whose answer is lost, and which is written again": [
        update(0, 9, version(), metadata={"a": 1}), get(1, 2, version(metadata={"a": 1})),
        update(3, 4, version(), metadata={"a": 2}), get(10, 11, version(metadata={"a": 1})),
    ],
    "updates at once": [
        update(0, 3, version(), metadata={"a": 1}), update(1, 2, version(), metadata={"a": 2}),
        get(4, 5, version(metadata={"a": 1})),
    ],
    "a promotion": [
        register(0, 1, version(1, **PRODUCTION), stage="Production"), register(2, 3, version(2, "s2")),
        stage(4, 6, version(2, "s2", **PRODUCTION), "Production", archive=True),
        get(5, 5.5, version(1, **PRODUCTION)),
        snapshot(7, version(1, **ARCHIVED), version(2, "s2", **PRODUCTION)),
    ],
    "the loser of two promotions": [
        *BOTH,
        stage(4, 6, version(1, **ARCHIVED), "Production", archive=True),
        stage(5, 7, version(2, "s2", **PRODUCTION), "Production", archive=True),
        snapshot(8, version(1, **ARCHIVED), version(2, "s2", **PRODUCTION)),
    ],
    "a stage that somebody emptied": [
        stage(0, 1, version(1, **PRODUCTION), "Production", archive=True),
        stage(2, 3, version(1, **STAGING), "Staging"),
        call("latest_version", 4, 5, None, stage="Production"),
    ],
    "a stage that wasn't filled yet": [call("latest_version", 0, 1, None, stage="Production")],
    "aliases that move at once": [
        *BOTH, alias(4, 6, version(1), "champion"), alias(5, 7, version(2, "s2"), "champion"),
        snapshot(8, version(1, aliases=["champion"]), version(2, "s2")),
    ],
    "the default of a version that is deleted": [
        *BOTH, call("set_default", 4, 5, version(1), version="1"), delete(6, 9, 1),
        snapshot(10, version(2, "s2", aliases=["default"])),
    ],
    "an alias of a version that is deleted": [
        *BOTH, alias(4, 5, version(1), "champion"), delete(6, 9, 1), snapshot(10, version(2, "s2")),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("promise", "operations"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_found(promise: str, operations: list[Operation]) -> None:
    """Each history breaks its promise, and its excerpt shows the operations that break it."""
    operations = sorted(operations, key=lambda operation: operation.began)
    violations = Checker(operations).check()
    assert promise in {violation.promise for violation in violations}
    for violation in violations:
        lines = excerpt(violation, operations)
        assert all(operation.key in lines for operation in violation.evidence)


@pytest.mark.parametrize("operations", KEPT.values(), ids=KEPT)
def test_what_is_allowed_is_not_a_violation(operations: list[Operation]) -> None:
    """Behavior that Vertex doesn't rule out, and effects that are possible, aren't violations."""
    assert Checker(sorted(operations, key=lambda operation: operation.began)).check() == []


def test_every_promise_has_a_history_that_breaks_it() -> None:
    """Each promise can be broken, and a history here does it."""
    everything = {promise for promise, _ in BROKEN.values()}
    assert everything == {promise.replace("_", "-") for promise in Checker.PROMISES}


def test_the_default_is_moved_by_the_client() -> None:
    """If Vertex refuses to delete the default version, a concurrent move can be overridden."""
    _, operations = BROKEN["a deletion overrides the default"]
    checker = Checker(sorted(operations, key=lambda operation: operation.began), refusing=True)
    assert checker.check() == []
    assert checker.excused == {"default-moved": 1}


def test_every_window_is_counted() -> None:
    """A window that excuses something is counted, so that it can't hide."""
    excused = {"default-moved"}  # by the test above
    for operations in KEPT.values():
        checker = Checker(sorted(operations, key=lambda operation: operation.began))
        checker.check()
        excused |= {window for window, count in checker.excused.items() if count}
    assert excused == set(WINDOWS)


def test_lagging_lists_prove_nothing() -> None:
    """If lists lag, a missing entry isn't a violation. A version that can't be read still is one."""
    operations = [*BOTH, listed(4, 5, version(1))]
    assert Checker(operations, lagging=True).check() == []
    operations.append(failed("get_version", 6, 7, "NotFoundError", version="2"))
    assert [violation.promise for violation in Checker(operations, lagging=True).check()] == ["kept"]


def test_a_history_is_read_back() -> None:
    """A killed process leaves half a line and a call without an end, which may take effect until all is quiet."""
    lines = [
        '{"event": "invoke", "process": "p0", "key": "a", "at": 1, "verb": "set_default", "name": "n", "args": {}}',
        '{"event": "ok", "key": "a", "at": 2, "result": null}',
        '{"event": "invoke", "process": "p0", "key": "b", "at": 3, "verb": "set_default", "name": "n", "args": {}}',
        '{"event": "error", "key": "b", "at": 4, "error": "NotFoundError", "message": "", "request_id": ""}',
        '{"event": "invoke", "process": "p0", "key": "c", "at": 5, "verb": "set_default", "name": "n", "args": {}}',
        '{"event": "error", "key": "c", "at": 6, "error": "UnavailableError", "message": "", "request_id": "r"}',
        '{"event": "invoke", "process": "p0", "key": "d", "at": 7, "verb": "set_default", "name": "n", "args": {}}',
        '{"event": "ok", "key": "d", "a',
        '{"event": "invoke", "process": "p1", "key": "e", "at": 7, "verb": "set_default", "name": "n", "args": {}}',
        '{"event": "error", "key": "e", "at": 9.5, "error": "ConflictError", "message": "", "request_id": ""}',
        '{"event": "invoke", "process": "p2", "key": "f", "at": 1, "verb": "set_default", "name": "n", "args": {}}',
        '{"event": "kill", "process": "main", "name": "p2", "at": 2}',
        '{"event": "quiet", "process": "main", "at": 12}',
    ]
    operations, events = read(lines)
    assert {one.key: (one.ended, one.error) for one in operations} == {
        "a": (2, ""),
        "b": (4, "NotFoundError"),
        "c": (12, "UnavailableError"),
        "d": (12, "killed"),
        "e": (12, "ConflictError"),
        "f": (2 + LATE, "killed"),
    }
    assert [one.result for one in operations if one.key == "c"] == ["r"]
    assert [event["event"] for event in events] == ["kill", "quiet"]
