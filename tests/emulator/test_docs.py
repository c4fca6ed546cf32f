"""The tables on the emulator's page say what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from vertex_registry.emulator.__main__ import _parser
from vertex_registry.emulator._control import CONTROL_PATHS
from vertex_registry.emulator._dispatch import RPCS
from vertex_registry.emulator._query import DEFAULT_PAGE_SIZE, LISTINGS, MAXIMUM_PAGE_SIZE, MAXIMUM_TERMS
from vertex_registry.emulator._switches import SWITCHES

PAGE: Final = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()


def table(first: str) -> list[list[str]]:
    """Return the rows of the table whose first column has that heading."""
    lines = PAGE[PAGE.index(f"| {first} |") :].splitlines()[2:]
    rows = lines[: next(position for position, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def test_every_rpc_is_in_the_table_of_fidelity() -> None:
    """Every RPC has a row. A row for any other RPC says that it isn't served."""
    rows = {}
    for name, *cells in table("RPC"):
        service, _, listed = name.rpartition(": ")
        for each in listed.replace(" (v1beta1)", "").split(", "):
            # The page writes the operations' RPCs short, after the name of their service.
            whole = f"{each}Operation{'s' if each == 'List' else ''}" if "Operations" in service else each
            rows[whole] = cells

    assert {rpc.name for rpc in RPCS} <= set(rows)
    for other in set(rows) - {rpc.name for rpc in RPCS}:
        assert "UNIMPLEMENTED" in rows[other][1]


def test_every_switch_is_in_the_table_of_switches() -> None:
    """Every switch has a row with its values, the default first, what it decides and its evidence."""
    expected = [
        [f"`{name}`", ", ".join(f"`{value}`" for value in switch.values), switch.about, switch.evidence]
        for name, switch in SWITCHES.items()
    ]

    assert table("switch") == expected


def test_every_path_of_the_emulators_own_is_in_the_table_of_paths() -> None:
    """The page lists exactly the paths that aren't Google's."""
    assert {tuple(row[0].strip("`").split(" ")) for row in table("request")} == set(CONTROL_PATHS)


def test_every_option_on_the_page_exists() -> None:
    """The options after `python -m vertex_registry.emulator` exist, and the ports are the defaults."""
    options = {option for action in _parser()._actions for option in action.option_strings}
    commands = re.findall(r"python -m vertex_registry\.emulator(.*)", PAGE)

    assert {word for command in commands for word in command.split() if word.startswith("--")} <= options
    defaults = _parser().parse_args([])
    assert f'"grpc": "127.0.0.1:{defaults.grpc_port}", "rest": "http://127.0.0.1:{defaults.rest_port}"' in PAGE


def test_the_limits_of_queries_on_the_page_are_those_in_force() -> None:
    """The page has the page sizes and limits of the code, and names the operators of every list."""
    assert f"A page has {DEFAULT_PAGE_SIZE} entries unless asked, and at most {MAXIMUM_PAGE_SIZE}." in PAGE
    assert f"at most {MAXIMUM_TERMS} terms" in PAGE
    for operator in {
        str(each) for listing in LISTINGS.values() for each in frozenset().union(*listing.filters.values())
    }:
        assert f"`{operator}`" in PAGE or f"`labels{operator}k`" in PAGE


def test_the_page_begins_with_what_it_does_not_know() -> None:
    """The page opens with the fact that no real Vertex was reached, and it calls guesses guesses."""
    assert PAGE.splitlines()[2].startswith("No real Vertex was ever reached")
    assert sum("guess" in line for line in PAGE.splitlines() if line.startswith("|")) > 20
