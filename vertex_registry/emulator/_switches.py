"""The facts about Vertex that can be read in two ways. A switch's first value is its default: the likelier reading."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Switch(NamedTuple):
    """A fact that can be read in two ways, and what speaks for each.

    Attributes:
        values: The readings, the default first. "N" is any number.
        about: What the switch decides.
        evidence: What is known about it.
    """

    values: tuple[str, ...]
    about: str
    evidence: str


#: Every switch by its name.
SWITCHES: Final[Mapping[str, Switch]] = {
    "labels-at-upload": Switch(
        ("version", "model", "first-on-model"),
        "whose layer the labels of an upload go to",
        "not documented; UpdateModel keeps the two layers apart, UploadModel does not say which one it writes",
    ),
    "label-wins": Switch(
        ("version", "model"),
        "which layer is shown when both have the key",
        "UpdateModelRequest says that both are merged when a model is returned, and not which one wins",
    ),
    "label-filter": Switch(
        ("merged", "own"),
        "what a label filter of ListModelVersions sees",
        "not documented; the filter's text names the labels without saying which",
    ),
    "list-lag": Switch(
        ("0", "N"),
        "lists show a write only after N further lists",
        "not documented; a list that is served from an index may be late, a read of one name is not",
    ),
    "default-delete": Switch(
        ("refuse", "move"),
        "deleting the version that has the alias default",
        "the console refuses and asks for another default version first, Airflow's hook for Vertex says the same of"
        " the API, and one page of Vertex's documentation, in one language, moves the alias to the next most recent"
        " version",
    ),
    "stale-etag": Switch(
        ("aborted", "failed-precondition"),
        "how an update with a stale etag is refused",
        "not documented; AIP-154 says ABORTED, some services of Vertex say FAILED_PRECONDITION",
    ),
    "id-taken": Switch(
        ("call", "operation"),
        "whether a model id that is taken fails the upload's call or its operation",
        "not documented; ALREADY_EXISTS is how sibling resources answer",
    ),
}


@dataclass(frozen=True)
class Assumptions:
    """The reading that is chosen for every switch."""

    labels_at_upload: str
    label_wins: str
    label_filter: str
    list_lag: int
    default_delete: str
    stale_etag: str
    id_taken: str


def parse_assumptions(given: Mapping[str, str]) -> Assumptions:
    """Return the given switches, and the default of every other one.

    Raises:
        ValueError: A switch or a value doesn't exist. The message lists those that do.
    """
    for name, value in given.items():
        if name not in SWITCHES:
            raise ValueError(f"The switch {name!r} doesn't exist. Choose one of: {', '.join(SWITCHES)}.")
        values = SWITCHES[name].values
        if value not in values and not ("N" in values and re.fullmatch(r"[0-9]{1,9}", value)):
            raise ValueError(f"{name} can't be {value!r}. Choose one of: {', '.join(values)}.")
        if value == "N":
            raise ValueError(f"{name} can't be 'N'. Give a number instead.")
    chosen = {name.replace("-", "_"): given.get(name, switch.values[0]) for name, switch in SWITCHES.items()}
    return Assumptions(**{**chosen, "list_lag": int(chosen["list_lag"])})  # type: ignore[arg-type]
