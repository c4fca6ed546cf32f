"""A short run, with fixed seeds: several processes, faults and kills break no promise."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import pytest

from tests.histories.checker import excerpt
from tests.histories.plan import SWITCHES, rounds
from tests.histories.run import checker_for, run_round
from vertex_registry.emulator._switches import SWITCHES as EMULATOR_SWITCHES
from vertex_registry.emulator._switches import parse_assumptions

if TYPE_CHECKING:
    from pathlib import Path

    from tests.histories.plan import Round

SHORT = list(rounds(seed=7, seconds=4, processes=4, length=2, together=5))

#: The seconds of a round, if the machine is so busy that no registration succeeds in the seconds before.
LENGTHS = (2, 10, 50)


@pytest.mark.parametrize("plan", SHORT, ids=[" ".join(plan.themes.values()) for plan in SHORT])
def test_a_short_run(plan: Round, tmp_path: Path) -> None:
    """Every promise is kept, with concurrent calls, faults and kills."""
    for length in LENGTHS:
        folder = tmp_path / str(length)
        folder.mkdir()
        report = run_round(dataclasses.replace(plan, seconds=length), folder)
        found = "\n\n".join(excerpt(violation, report.operations) for violation in report.violations)
        assert not report.violations, f"\n\n{found}"
        assert report.events["client killed"]
        if any(operation.ok and operation.verb == "register_version" for operation in report.operations):
            return
    pytest.fail("No registration succeeded.")


def test_a_round_differs_from_the_defaults_by_its_switches() -> None:
    """A switch in the plan isn't the emulator's own choice: then two rounds would be the same."""
    for switch in itertools.chain.from_iterable(SWITCHES):
        assert parse_assumptions(dict([switch.split("=")])) != parse_assumptions({}), switch


def test_the_checker_assumes_what_the_emulator_does() -> None:
    """A switch that the plan doesn't name has the emulator's default for the checker too."""
    default = EMULATOR_SWITCHES["default-delete"].values[0]
    assert checker_for([], ()).refusing == checker_for([], [f"default-delete={default}"]).refusing
    assert checker_for([], ["default-delete=refuse"]).refusing
    assert not checker_for([], ["default-delete=move"]).refusing
    assert checker_for([], ["list-lag=2"]).lagging
    assert not checker_for([], ()).lagging


def test_the_seed_decides() -> None:
    """The same seed plans the same steps and kills, and another one plans others."""
    same, again = (next(rounds(3, 5, 4, length=5)) for _ in range(2))
    other = next(rounds(4, 5, 4, length=5))

    def steps(plan: Round) -> list[str]:
        return [str(step) for step, _ in zip(plan.steps("0.0", foreign=False), range(50), strict=False)]

    assert steps(same) == steps(again) != steps(other)
    assert any(step.fault for step, _ in zip(same.steps("0.0", foreign=False), range(50), strict=False))
    assert same.mishaps() == again.mishaps() != other.mishaps()
