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
    arguments = [*([] if opening.path is None else [opening.path])]
    given = ", ".join([*map(repr, arguments), *(f"{key}={value!r}" for key, value in settings.items())])
    target = f"{reference!r}, {version.version}"
    opened = f"from vertex_registry import {opening.name}\n\nwith {opening.name}({given}) as registry:\n"
    found = [{"title": "Read it in Python", "code": f"{opened}    version = registry.get_version({target})\n"}]
    if version.artifact_uri:
        found = [
            {
                "title": "Load it in Python",
                "code": f"{opened}    model = registry.load_version({target}, trusted=True)\n",
                "note": "A pickle runs its writer's code. Pass trusted=True if you trust everybody who can write to "
                "the artifact.",
            },
            {
                "title": "Download its files",
                "code": f"{opened}    folder = registry.download_version({target})\n",
            },
            *found,
        ]
    if reference.isprintable():
        options = [*opening.options, *([] if opening.options else [f"--{key}={settings[key]}" for key in settings])]
        words = ["vertex-registry", "versions", "show", *options, "--", reference, version.version]
        found.append({"title": "Show it in a shell", "code": f"{shlex.join(words)}\n"})
    return [{"note": None} | each for each in found]
