"""What to type to get a version elsewhere. Names come from other people, so each is quoted for where it's pasted."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from vertex_registry import ModelVersion


@attrs.frozen
class Opening:
    """How to open the registry that a site shows.

    Attributes:
        name: What to import from ``vertex_registry``.
        settings: The keyword arguments, except those that follow from a version's resource name.
        path: The first argument, or None if there's none.
        options: The same for the command line.
    """

    name: str = "RegistryClient"
    settings: dict[str, str] = attrs.field(factory=dict)
    path: str | None = None
    options: tuple[str, ...] = ()


def snippets(version: ModelVersion, reference: str, opening: Opening | None) -> list[dict[str, Any]]:
    """Return titled pieces of code that get a version: in Python and, if its name can be typed, in a shell."""
    opening = opening or Opening()
    settings = dict(opening.settings)
    if opening.path is None and (place := re.match(r"projects/([^/]+)/locations/([^/]+)/", version.resource_name)):
        settings = {"project": place[1], "location": place[2]} | settings
    path = [] if opening.path is None else [_quoted(opening.path)]
    given = ", ".join([*path, *(f"{key}={_quoted(value)}" for key, value in settings.items())])
    target = f"{_quoted(reference)}, {version.version}"
    opened = f"from vertex_registry import {opening.name}\n\nwith {opening.name}({given}) as registry:\n"
    if version.artifact_uri:
        found = [
            {
                "title": "Load it in Python",
                "code": f"{opened}    model = registry.load_version({target}, trusted=True)\n",
                "note": "Loading a pickle runs its writer's code. Do it if you trust everybody who can write to the "
                "artifact.",
            }
        ]
    else:
        found = [{"title": "Read it in Python", "code": f"{opened}    version = registry.get_version({target})\n"}]
    if reference.isprintable():
        verb = "download" if version.artifact_uri else "show"
        words = [
            "vertex-registry",
            "versions",
            verb,
            *_options(attrs.evolve(opening, settings=settings)),
            "--",
            reference,
            version.version,
        ]
        found.append({"title": f"{verb.capitalize()} it in a shell", "code": f"{shlex.join(words)}\n"})
    return [{"note": None} | each for each in found]


def register(opening: Opening | None) -> str:
    """Return a command that registers the first version in a registry."""
    words = ["vertex-registry", "versions", "register", *_options(opening or Opening())]
    return f"{shlex.join([*words, 'churn', 'gs://bucket/churn/1'])}\n"


def _options(opening: Opening) -> tuple[str, ...]:
    return opening.options or tuple(f"--{key}={value}" for key, value in opening.settings.items())


def _quoted(text: str) -> str:
    """Return a text as Python has it, in double quotes if that's as simple."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in literal and "\\'" not in literal else literal
