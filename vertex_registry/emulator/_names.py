"""Resource names: how each kind is written, and how one is read. A name that is read carries the project's number."""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Final, NamedTuple

from vertex_registry.emulator._status import invalid_argument

REQUIRED: Final = "Required field is not set"

#: The alias that exactly one version of a model has.
DEFAULT_ALIAS: Final = "default"

_PROJECT: Final = r"projects/(?P<project>[^/@]+)"
# A location begins with a letter; other services write "-" for all of them.
_LOCATION: Final = _PROJECT + r"/locations/(?P<location>[a-z][a-z0-9-]*)"
_MODEL: Final = _LOCATION + r"/models/(?P<model>[A-Za-z0-9_-]+)(?:@(?P<version>[^/@]+))?"
PROJECT_RE: Final = re.compile(_PROJECT)
LOCATION_RE: Final = re.compile(_LOCATION)
MODEL_RE: Final = re.compile(_MODEL)
ENDPOINT_RE: Final = re.compile(_LOCATION + r"/endpoints/[^/@\s]+")
EVALUATION_RE: Final = re.compile(_MODEL + r"/evaluations/(?P<evaluation>[^/]+)")
SLICE_RE: Final = re.compile(EVALUATION_RE.pattern + r"/slices/(?P<slice>[^/]+)")
#: What operations can be listed of: a location, a model or an evaluation.
OPERATIONS_PARENT_RE: Final = re.compile(
    _LOCATION + r"(?:/models/(?P<model>[A-Za-z0-9_-]+)(?:/evaluations/(?P<evaluation>[^/]+))?)?"
)
OPERATION_RE: Final = re.compile(OPERATIONS_PARENT_RE.pattern + r"/operations/(?P<operation>[^/]+)")

# Versions are numbered from 1. Whatever isn't a number is an alias.
VERSION_NUMBER_RE: Final = re.compile(r"[1-9][0-9]{0,17}")

# How many characters a name may have: a guess, and more than any has.
_MAXIMUM_NAME: Final = 64 * 1024
# Project IDs have up to 30 characters, or a domain before them. The numbers of longer ones aren't cached.
_MAXIMUM_CACHED_PROJECT: Final = 256


def project_number(project: str) -> str:
    """Return the number of a project: the project itself if it's a number, otherwise one that follows from its ID.

    Every project exists here. Vertex's own names carry the number even when the request had the ID.
    """
    cached = len(project) <= _MAXIMUM_CACHED_PROJECT
    return _project_number(project) if cached else _project_number.__wrapped__(project)


@functools.lru_cache(maxsize=1024)
def _project_number(project: str) -> str:
    if re.fullmatch(r"[0-9]+", project):
        return project
    digest = int.from_bytes(hashlib.sha256(project.encode()).digest()[:8], "big")
    number = str(10**11 + digest % (9 * 10**11))
    if len(_IDS) < _MAXIMUM_IDS and _PROJECT_ID.fullmatch(project):
        _IDS[number] = project
    return number


# The IDs that requests have named, by their projects' numbers.
_IDS: Final[dict[str, str]] = {}
_MAXIMUM_IDS: Final = 1024
# A project's ID, which may begin with a domain. Others are accepted, and shown by their number.
_PROJECT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,99}")


def with_project_id(parent: str) -> str:
    """Return a location's name with the project's ID if a request has named it, for people to read."""
    _, number, rest = parent.split("/", 2)
    return f"projects/{_IDS.get(number, number)}/{rest}"


class Name(NamedTuple):
    """The name of a model, or of one of its versions.

    Attributes:
        parent: The location, such as "projects/4711/locations/us-central1".
        model: The model's ID.
        version: A version's number or alias, or None for the model itself.
    """

    parent: str
    model: str
    version: str | None

    @property
    def bare(self) -> str:
        """The name without the version."""
        return f"{self.parent}/models/{self.model}"

    def __str__(self) -> str:
        return self.bare if self.version is None else f"{self.bare}@{self.version}"


def parse(pattern: re.Pattern[str], field: str, name: str, kind: str) -> re.Match[str]:
    """Match a name from a field of a request.

    Raises:
        Failure: INVALID_ARGUMENT: the name isn't one of that kind.
    """
    match = pattern.fullmatch(name) if len(name) <= _MAXIMUM_NAME else None
    if match is None:
        # A guess: Vertex says so about malformed names of sibling resources.
        raise invalid_argument((field, f"Invalid {kind} resource name" if name else REQUIRED))
    return match


def location_of(match: re.Match[str]) -> str:
    """Return the name of the location that a matched name is in."""
    return f"projects/{project_number(match['project'])}/locations/{match['location']}"


def model_name_of(match: re.Match[str]) -> Name:
    """Return the name of the model, or the version, that a matched name has in it."""
    return Name(location_of(match), match["model"], match["version"])


def parse_location(field: str, name: str) -> str:
    """Read the name of a location."""
    return location_of(parse(LOCATION_RE, field, name, "Location"))


def parse_model_name(field: str, name: str) -> Name:
    """Read the name of a model or a version."""
    return model_name_of(parse(MODEL_RE, field, name, "Model"))
