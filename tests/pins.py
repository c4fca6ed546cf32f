"""Print the public interface: names with their signatures, fields of records and of JSON, and CLI options.

``make pins`` writes it to ``tests/pins.txt``, so that a change of it shows in review.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

import vertex_registry
from vertex_registry import emulator, local_registry, migration
from vertex_registry.cli._commands import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE: Final = Path(__file__).with_name("pins.txt")


def names() -> Iterator[str]:
    """Yield each public name with its signature, and its public attributes below it."""
    public = {name: getattr(vertex_registry, name) for name in vertex_registry.__all__ if name != "__version__"}
    public |= {"emulator.Emulator": emulator.Emulator, "emulator.Quota": emulator.Quota}
    public |= {f"migration.{name}": getattr(migration, name) for name in migration.__all__}
    for name, value in sorted(public.items()):
        if not inspect.isclass(value):
            yield f"{name}{signature(value)}"
            continue
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {name}({bases})"
        fields = {field.name: field.type for field in attrs.fields(value)} if attrs.has(value) else {}
        yield from (f"    {field}: {kind}" for field, kind in fields.items() if not field.startswith("_"))
        if not fields and "__init__" in vars(value):
            yield f"    __init__{signature(value.__init__)}"
        for key, member in sorted(vars(value).items()):
            if not key.startswith("_") and key not in fields:
                yield f"    {describe(key, member)}"


def describe(name: str, member: Any) -> str:
    """Return a line for a method, a property or a value of a class."""
    function = getattr(member, "__func__", member)
    return f"{name}{signature(function)}" if inspect.isfunction(function) else name


def signature(function: Any) -> str:
    """Return a signature, without the quotes of annotations and the addresses of defaults."""
    shown = re.sub(r"<(?:function|bound method) (\S+)[^>]*>", r"\1", str(inspect.signature(function)))
    return re.sub(r"""(: |-> )(['"])(.*?)\2(?=[,)]| = |$)""", r"\1\3", shown)


def options(command: click.Command, path: str = "vertex-registry") -> Iterator[str]:
    """Yield each command with its arguments and options."""
    words = sorted("/".join([*option.opts, *option.secondary_opts]) for option in command.params)
    yield f"{path}: {' '.join(words)}"
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from options(command.commands[name], f"{path} {name}")


def fields() -> Iterator[str]:
    """Yield the fields of the JSON that records become."""
    with local_registry() as registry:
        version = registry.register_version("churn", "gs://models/churn/1")
        for record in (version, registry.get_model("churn")):
            yield f"{type(record).__name__}.to_dict(): {', '.join(record.to_dict())}"


def text() -> str:
    """Return the whole text."""
    parts = {"Python": names(), "Command line": options(cli), "JSON": fields()}
    return "\n".join(f"# {title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts.items())


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
