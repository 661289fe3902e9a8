"""The penalty of a recipe that names none is its objective's own, and is shown."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster import storage
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.settings import EnergyPhase, TrainerSettings
from tests.trainer.tiny_runs import run_alone, snapshot, tiny_job, write_points


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_wasserstein_has_ten_as_in_its_paper_and_the_others_have_less(objective):
    """Gulrajani et al. (2017) hold the slope at 1 with a weight of 10, as long as there is a critic."""
    settings = TrainerSettings(objective=objective)
    weights = (settings.joint.gradient_penalty, settings.energy.gradient_penalty)
    assert weights == ((10.0, 10.0) if objective == "wasserstein" else (1.0, 0.3))


def test_a_penalty_that_is_named_is_kept_and_the_other_phase_has_the_objectives_own():
    settings = TrainerSettings(objective="wasserstein", energy=EnergyPhase(gradient_penalty=0.0))
    assert (settings.joint.gradient_penalty, settings.energy.gradient_penalty) == (10.0, 0.0)
    assert TrainerSettings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize(("objective", "joint", "energy"), [("kale", 1.0, 0.3), ("wasserstein", 10.0, 10.0)])
def test_training_takes_the_penalty_of_its_phase(objective, joint, energy, data, tmp_path):
    def trained(name: str, in_joint: float | None, in_energy: float | None) -> tuple[list[dict[str, Any]], str]:
        phases = {
            "joint": {"steps": 2, "warmup_steps": 0, "gradient_penalty": in_joint},
            "energy": {"steps": 2, "gradient_penalty": in_energy},
        }
        job = tiny_job(tmp_path / name, data, objective=objective, **phases)
        run_alone(job)
        return snapshot(job)

    own = trained("own", None, None)
    assert own == trained("named", joint, energy)
    (of_joint, of_energy), _ = own
    (other, _), _ = trained("another-joint", 2.0, energy)
    assert other["energy_gradient_norm"] != of_joint["energy_gradient_norm"]
    (same, other), _ = trained("another-energy", joint, 2.0)
    assert same == of_joint and other["energy_gradient_norm"] != of_energy["energy_gradient_norm"]


def test_the_card_of_a_model_shows_the_penalty_that_it_was_trained_with(data, tmp_path):
    job = tiny_job(tmp_path, data, objective="wasserstein", joint={"steps": 1, "warmup_steps": 0}, energy={"steps": 0})
    run_alone(job)
    card = Path(storage.join(job.run, "model", "README.md")).read_text()
    shown = json.loads(re.search(r"```json\n(.*?)\n```", card, re.DOTALL)[1])
    assert shown["joint"]["gradient_penalty"] == shown["energy"]["gradient_penalty"] == 10.0
