"""What was typed, as errors and warnings need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Invocation:
    """What was typed.

    It isn't an attrs class, because `--help` needs it, and importing attrs takes longer than the rest of `--help`.

    Attributes:
        words: All words after the program's name.
        registry: The options among them that choose the registry.
        name: The model's name, or None if the command has none.
    """

    def __init__(self, words: Sequence[str], *, name: str | None = None) -> None:
        self.words = list(words)
        self.registry: list[str] = []
        self.name = name
