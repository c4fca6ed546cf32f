"""The plan of a run, decided by a seed: names, verbs, faults and kills. Only the timing is random."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: What is done with a name, and how often. Each theme keeps out what would excuse the violation that it looks for.
THEMES: Final[dict[str, dict[str, int]]] = {
    # Promotions and registrations alone: the stage is never empty.
    "promote": {"register": 2, "promote_newest": 4, "register_promoted": 2, "promote": 3, "filled": 5, "update": 2},
    # Changes of versions that stay: metadata, stages and aliases are kept.
    "keep": {
        "register": 2, "register_request": 1, "update": 5, "overwrite": 2, "update_by_alias": 3, "remove": 1,
        "stage": 3, "promote": 1, "alias": 4, "unalias": 1, "default": 2, "get": 3, "get_alias": 2, "list": 1,
        "rerun": 1,
    },
    # Two aliases that everybody moves and reads.
    "aliases": {"register_aside": 1, "alias": 6, "unalias": 1, "default": 3, "get_alias": 6},
    # The same requests from several processes at once, and again after kills.
    "requests": {"register_request": 6, "rerun": 3, "update": 1, "stage": 1, "get": 1, "list": 1},
    # One or two versions that come and go: the model goes with its last version only.
    "last": {"register": 4, "register_request": 1, "delete": 5, "default": 1, "get": 2, "list": 1, "rerun": 1},
    # Versions are deleted beside changes of the default.
    "defaults": {"register_aside": 4, "delete_default": 3, "delete": 1, "default": 5, "get_alias": 2, "list": 1},
    # Another tool renames the model.
    "renamed": {"register": 4, "update": 3, "get": 3, "delete": 1, "stage": 2, "foreign_rename": 2},
    # Another tool does everything.
    "foreign": {
        "register": 3, "update": 3, "promote": 2, "alias": 2, "delete": 1, "get": 2, "list": 1,
        "foreign_label": 4, "foreign_alias": 2, "foreign_upload": 2, "foreign_delete_version": 1,
    },
    # Everything, and models that are deleted whole.
    "storm": {
        "register": 4, "register_promoted": 2, "register_request": 2, "promote_newest": 2, "promote": 2, "stage": 2,
        "update": 3, "alias": 2, "unalias": 1, "default": 1, "delete": 2, "delete_model": 1, "get": 2, "list": 1,
        "filled": 1, "rerun": 1, "foreign_label": 1, "foreign_delete_model": 1, "foreign_upload": 1,
    },
}  # fmt: skip

#: The RPCs that a verb sends, which its faults are planned for. The first one is taken most often.
_SENDS: Final = {
    "register": ("UpdateModel", "UploadModel", "UploadModel", "GetModel"),
    "promote": ("UpdateModel", "UpdateModel", "ListModelVersions", "GetModel"),
    "update": ("UpdateModel", "GetModel"),
    "alias": ("MergeVersionAliases",),
    "delete": ("DeleteModelVersion", "DeleteModel", "MergeVersionAliases", "GetModel"),
}
_LIKE: Final = {
    "stage": "promote", "overwrite": "update", "remove": "update", "default": "alias", "unalias": "alias",
}  # fmt: skip

#: The readings of Vertex's documents that a run takes, one of them a round.
SWITCHES: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("label-wins=model", "labels-at-upload=model"),
    ("default-delete=move",),
    ("stale-etag=failed-precondition", "id-taken=operation"),
    (),
    ("labels-at-upload=first-on-model", "label-filter=own"),
    ("list-lag=2",),
)

ALIASES: Final = ("champion", "candidate")
STAGES: Final = ("None", "Staging", "Production", "Archived")

#: The seconds that a client waits for an answer.
CALL: Final = 2.0

#: The longest that a planned fault holds a request up, in seconds; it is longer than a client waits.
LONGEST_DELAY: Final = 3.0


@dataclass(frozen=True)
class Step:
    """One step of a client.

    Attributes:
        verb: A verb of `THEMES`.
        name: The name of the model.
        back: The version, as a number of steps back from the newest that the process knows. -1 reads the newest first.
        alias: An alias.
        stage: A stage.
        archive: Whether the others in the stage are archived.
        fault: A fault that is planned just before.
        chance: A random number from 0 to 1, for other decisions.
    """

    verb: str
    name: str
    back: int
    alias: str
    stage: str
    archive: bool
    fault: dict[str, Any] | None
    chance: float


@dataclass(frozen=True)
class Mishap:
    """A process that's killed and immediately started again.

    Attributes:
        at: When, in seconds from the start.
        process: The number of the client, or None for the emulator.
    """

    at: float
    process: int | None


@dataclass(frozen=True)
class Round:
    """A part of a run, with its own names.

    Attributes:
        seed: The seed of the run.
        number: The number of the round.
        processes: The number of clients. There's one more process, with Google's client.
        seconds: The length of the round.
        themes: The theme of each name.
    """

    seed: int
    number: int
    processes: int
    seconds: float
    themes: dict[str, str] = field(default_factory=dict)

    @property
    def switches(self) -> tuple[str, ...]:
        """The emulator's switches."""
        return SWITCHES[self.number % len(SWITCHES)]

    @property
    def polls(self) -> int:
        """Return the number of polls until an operation is done."""
        return (0, 0, 2)[self.number % 3]

    def random(self, *parts: object) -> random.Random:
        """Return the random generator of a part of the plan."""
        return random.Random("/".join(map(str, (self.seed, self.number, *parts))))  # noqa: S311  # dice

    def steps(self, process: str, *, foreign: bool) -> Iterator[Step]:
        """Yield the steps of one life of a process, endlessly."""
        dice = self.random("steps", process)
        choices = [
            (name, verb, weight)
            for name, theme in self.themes.items()
            for verb, weight in THEMES[theme].items()
            if verb.startswith("foreign_") == foreign
        ]
        weights = [weight for *_, weight in choices]
        while choices:
            ((name, verb, _),) = dice.choices(choices, weights)
            yield Step(
                verb=verb,
                name=name,
                back=dice.choice((-1, -1, 0, 0, 1, 2)),
                alias=dice.choice(ALIASES),
                stage=dice.choice(STAGES),
                archive=dice.random() < 0.5,
                fault=_fault(verb, dice) if dice.random() < 0.15 else None,
                chance=dice.random(),
            )

    def mishaps(self) -> list[Mishap]:
        """Return the kills, in their order."""
        dice = self.random("mishaps")
        times = max(1, int(self.seconds / 2.5))
        kills = [Mishap(dice.uniform(0.5, self.seconds), dice.randrange(self.processes)) for _ in range(times)]
        if self.number % 2 == 0:
            kills.append(Mishap(dice.uniform(0.3, 0.7) * self.seconds, None))
        return sorted(kills, key=lambda kill: kill.at)


def rounds(
    seed: int,
    seconds: float,
    processes: int,
    *,
    length: float,
    together: int = 3,
    themes: Iterable[str] = tuple(THEMES),
) -> Iterator[Round]:
    """Return the rounds of a run of this many seconds, each with the next few themes.

    A round has few names, so there are many conflicts.
    """
    number = 0
    every = itertools.cycle(themes)
    while seconds > 0:
        part = min(length, seconds)
        names = {f"{theme}-{seed}-{number}": theme for theme in itertools.islice(every, together)}
        yield Round(seed, number, processes, part, names)
        seconds -= part
        number += 1


def _fault(verb: str, dice: random.Random) -> dict[str, Any] | None:
    kind = verb.partition("_")[0]
    rpcs = _SENDS.get(_LIKE.get(kind, kind))
    if rpcs is None:
        return None
    rpc = dice.choice(rpcs)
    delay = round(dice.choice((0.05, 0.1, 0.2, 0.4)), 2)
    faults: list[dict[str, Any]] = [
        {"delay": delay},
        {"delay": delay},
        {"delay": delay, "when": "after"},
        {"delay": delay, "when": "after"},
        {"delay": LONGEST_DELAY},
        {"code": "UNAVAILABLE"},
        {"code": "UNAVAILABLE", "when": "after"},
        {"code": "UNAVAILABLE", "when": "after", "delay": delay},
        {"code": "DEADLINE_EXCEEDED", "when": "after"},
        {"code": "RESOURCE_EXHAUSTED", "retry_after": 0.05},
        {"drop": True},
        {"drop": True, "when": "after"},
    ]
    if rpc == "UpdateModel":
        faults += [{"stale_etag": True}, {"code": "UNAVAILABLE", "times": 5}]
    return {"rpc": rpc, **dice.choice(faults)}
