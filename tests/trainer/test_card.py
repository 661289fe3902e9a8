"""The card says how base and energy came about, and nothing that did not happen."""

import pytest

from gebm.trainer.card import history
from gebm.trainer.settings import BasePhase, EnergyPhase, JointPhase, TrainerSettings

FOREIGN, FLOW = "used as it came", "2,000 steps of maximum likelihood"
JOINT, AVERAGED = "1,500 base steps against the energy", "average over the last of 600 steps"
MOVING, NONE = "a generator that still moved", "The energy was not trained"


@pytest.mark.parametrize(
    ("base", "joint", "energy", "said"),
    [
        (0, 1500, 600, {JOINT, AVERAGED}),
        (0, 1500, 0, {JOINT, MOVING}),
        (0, 0, 600, {FOREIGN, AVERAGED}),
        (2000, 0, 0, {FLOW, NONE}),
        (2000, 1500, 600, {FLOW, JOINT, AVERAGED}),
    ],
)
def test_the_card_tells_the_phases_that_there_were(base, joint, energy, said):
    settings = TrainerSettings(
        base=BasePhase(steps=base), joint=JointPhase(steps=joint), energy=EnergyPhase(steps=energy)
    )
    text = history(settings)
    assert {words for words in (FOREIGN, FLOW, JOINT, AVERAGED, MOVING, NONE) if words in text} == said
