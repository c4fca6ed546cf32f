"""The page that compares this package with Google's SDK: its numbers are those of its own examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.cloud import aiplatform

if TYPE_CHECKING:
    from vertex_registry.emulator import Emulator

PAGE: Final = (Path(__file__).parents[2] / "docs" / "from-aiplatform.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
#: What isn't a task, or has no counterpart.
NOT_COMPARED: Final = {"connect", "hand it over"}


def lines_of(code: str) -> int:
    """Count the lines of code, without comments and assertions."""
    return sum(bool(line.strip()) and not line.startswith(("#", "assert")) for line in code.splitlines())


def count() -> dict[str, dict[str, tuple[int, int]]]:
    """Run the page's examples, one after the other. Return lines and RPCs, by task and package."""
    names: dict[str, Any] = {}
    counted: dict[str, dict[str, tuple[int, int]]] = {}
    for code in BLOCKS:
        emulator: Emulator | None = names.get("emulator")
        before = len(emulator.requests()) if emulator else 0
        exec(code, names)  # noqa: S102 - the page's own example
        titled = re.match(r"# (\S+): (.*)", code)
        if titled and titled[2] not in NOT_COMPARED and emulator:
            rpcs = len(emulator.requests()) - before
            counted.setdefault(titled[2], {})[titled[1]] = (lines_of(code), rpcs)
    aiplatform.init(project="", location="")
    return counted


def test_the_table_counts_the_examples() -> None:
    """Each task has a row with the lines and the RPCs of both packages."""
    rows = [
        "| task | lines, aiplatform | lines, here | RPCs, aiplatform | RPCs, here |",
        "|---|---|---|---|---|",
    ]
    for task, packages in count().items():
        (theirs, their_rpcs), (ours, our_rpcs) = packages["google.cloud.aiplatform"], packages["vertex-registry"]
        rows.append(f"| {task} | {theirs} | {ours} | {their_rpcs} | {our_rpcs} |")
    table = re.findall(r"<!-- what it takes: begin -->\n(.*?)\n?<!-- what it takes: end -->", PAGE, re.DOTALL)

    assert table == ["\n".join(rows)]
