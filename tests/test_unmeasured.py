"""The tests that run without measuring coverage, and how they're chosen."""

from __future__ import annotations

from pathlib import Path

from tests.unmeasured import FILE, choose, name_of

ROOT = Path(__file__).parents[1]


def test_every_listed_test_exists() -> None:
    """A test that was renamed or removed isn't listed."""
    missing = []
    for line in FILE.read_text(encoding="utf-8").splitlines():
        file, _, name = line.partition("::")
        path = ROOT / file
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        if f"def {name}(" not in known and f"{name.partition('::')[0]} = " not in known:
            missing.append(line)

    assert missing == []


def test_what_adds_most_for_its_time_is_chosen() -> None:
    """A test is measured as long as it adds enough for its time to those that were chosen before."""
    first, second, third = ("a", 1, 2), ("a", 2, 3), ("b", 1, 2)
    reached = {
        "slow": frozenset({first, second}),
        "fast": frozenset({first, second}),
        "other": frozenset({second, third}),
        "long": frozenset({first, ("b", 2, 3)}),
    }
    seconds = {"slow": 0.2, "fast": 0.1, "other": 0.1, "long": 10.0}

    assert list(choose(reached, seconds)) == ["fast", "other"]


def test_the_cases_of_a_test_have_one_name() -> None:
    """Parameters aren't part of the name, even if they contain brackets and colons."""
    assert name_of("tests/test_a.py::test_b[c::d [e]]") == "tests/test_a.py::test_b"
