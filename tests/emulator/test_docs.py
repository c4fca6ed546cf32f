"""The pages about the emulator agree with the tables in the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from vertex_registry.emulator.__main__ import _parser
from vertex_registry.emulator._control import CONTROL_PATHS
from vertex_registry.emulator._dispatch import RPCS
from vertex_registry.emulator._query import DEFAULT_PAGE_SIZE, LISTINGS, MAXIMUM_PAGE_SIZE, MAXIMUM_TERMS
from vertex_registry.emulator._switches import SWITCHES

DOCS: Final = Path(__file__).parents[2] / "docs"
GUIDE: Final = (DOCS / "emulator.md").read_text(encoding="utf-8")
FAULTS: Final = (DOCS / "faults.md").read_text(encoding="utf-8")
FIDELITY: Final = (DOCS / "fidelity.md").read_text(encoding="utf-8")


def table(page: str, first: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this heading."""
    lines = page[page.index(f"| {first} |") :].splitlines()[2:]
    rows = lines[: next(position for position, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_every_rpc_is_in_the_table_of_fidelity() -> None:
    """Each RPC has a row, and a row that names another one says that it isn't served."""
    rows = {}
    for name, *cells in table(FIDELITY, "RPC"):
        service, _, listed = name.rpartition(": ")
        for each in listed.replace(" (v1beta1)", "").split(", "):
            # The page writes the operations' RPCs short, after the name of their service.
            whole = f"{each}Operation{'s' if each == 'List' else ''}" if "Operations" in service else each
            rows[whole] = cells

    assert {rpc.name for rpc in RPCS} <= set(rows)
    for other in set(rows) - {rpc.name for rpc in RPCS}:
        assert "UNIMPLEMENTED" in rows[other][1]


def test_every_switch_is_in_the_table_of_switches() -> None:
    """Each switch has a row with its values, the default first, what it's about and its evidence."""
    expected = [
        [f"`{name}`", ", ".join(f"`{value}`" for value in switch.values), switch.about, switch.evidence]
        for name, switch in SWITCHES.items()
    ]

    assert table(FIDELITY, "switch") == expected


def test_every_path_of_the_emulators_own_is_in_the_table_of_paths() -> None:
    """The page lists every path that isn't Google's."""
    assert {tuple(row[0].strip("`").split(" ")) for row in table(FAULTS, "request")} == set(CONTROL_PATHS)


def test_every_option_on_the_pages_exists() -> None:
    """The commands on the pages and the table of options use options that exist, and the default ports."""
    options = {option for action in _parser()._actions for option in action.option_strings}
    commands = re.findall(r"python -m vertex_registry\.emulator(.*)", GUIDE + FAULTS + FIDELITY)
    listed = {option for row in table(GUIDE, "option") for option in re.findall(r"--[a-z-]+", row[0])}

    assert {word for command in commands for word in command.split() if word.startswith("--")} <= options
    assert listed == options - {"--help"} - {option for option in options if not option.startswith("--")}
    defaults = _parser().parse_args([])
    assert f'"grpc": "127.0.0.1:{defaults.grpc_port}", "rest": "http://127.0.0.1:{defaults.rest_port}"' in GUIDE


def test_the_limits_of_queries_on_the_page_are_those_in_force() -> None:
    """Page sizes and the number of terms are the numbers of the code, and each list's operators are named."""
    assert f"A page has {DEFAULT_PAGE_SIZE} entries by default, and at most {MAXIMUM_PAGE_SIZE}." in FIDELITY
    assert f"at most {MAXIMUM_TERMS} terms" in FIDELITY
    for operator in {
        str(each) for listing in LISTINGS.values() for each in frozenset().union(*listing.filters.values())
    }:
        assert f"`{operator}`" in FIDELITY or f"`labels{operator}k`" in FIDELITY


def test_the_pages_begin_with_what_nobody_knows() -> None:
    """The page starts with the fact that no real Vertex was reached. Guesses are called guesses."""
    status = "Nobody has compared the emulator with the real Vertex AI yet"
    assert FIDELITY.splitlines()[2].startswith(f"{status}: no real Vertex was ever reached")
    assert status in GUIDE[: GUIDE.index("\n## ")]
    assert sum("guess" in line for line in FIDELITY.splitlines() if line.startswith("|")) > 20
