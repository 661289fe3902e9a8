"""A plateau schedule lowers the rate when the validation metric stops improving, and remembers it over a resume."""

from typing import Any

import pytest

from gebm.cluster.errors import InputError
from gebm.trainer.metrics import read_metrics
from tests.trainer.tiny_runs import FLOW, run_alone, run_until, snapshot, tiny_job, write_points

WATCH = {"every": 2, "images": 40, "draws": 64, "fid_every": 2, "fid_images": 40, "extractor": {"name": "raw"}}
# No reading beats the best by its whole size: after the first, each is one without improvement.
NEVER_BETTER = {"shape": "plateau", "factor": 0.5, "patience": 2, "threshold": 1.0}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    url = tmp_path_factory.mktemp("points")
    return {"data": write_points(url / "train"), "validation": write_points(url / "validation", 50, seed=1)}


def plateaus() -> dict[str, Any]:
    joint = {"steps": 12, "warmup_steps": 0, "base_schedule": NEVER_BETTER, "energy_schedule": {"shape": "constant"}}
    energy = {"steps": 8, "schedule": NEVER_BETTER | {"metric": "kale", "patience": 1, "threshold": 1.0}}
    return {"joint": joint, "energy": energy, "watch": WATCH}


def test_rates_fall_by_the_factor_each_time_that_patience_runs_out(sets, tmp_path):
    job = tiny_job(tmp_path, **sets, **plateaus())
    run_alone(job)
    rows = read_metrics(job.run)
    # Readings at rounds 2, 4, 6, ...; the first is the best; the rate of a line is that of the round before it.
    joint = [row["learning_rate_base"] for row in rows if row["phase"] == "joint"]
    assert joint == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])
    assert all(row["learning_rate_energy"] == 1e-3 for row in rows if row["phase"] == "joint")
    energy = [row["learning_rate_energy"] for row in rows if row["phase"] == "energy"]
    assert energy == pytest.approx([1e-3, 1e-3, 5e-4, 2.5e-4])


@pytest.mark.parametrize("round_number", [10, 18])
def test_a_resumed_run_remembers_what_its_plateaus_have_read(round_number, sets, tmp_path):
    calm, stormy = (tiny_job(tmp_path / name, **sets, **plateaus()) for name in ("calm", "stormy"))
    run_alone(calm)
    run_until(stormy, round_number)
    run_alone(stormy)
    assert snapshot(stormy) == snapshot(calm)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"watch": WATCH | {"fid_every": 0}},
            r"joint\.base_schedule: .* reads fid, which needs trainer\.watch\.fid_every",
        ),
        (
            {"energy": {"steps": 2, "schedule": NEVER_BETTER}},
            r"energy\.schedule: .*in the energy phase the base stands still.*fid_chain_steps",
        ),
        (
            {"base": {"steps": 2, "schedule": NEVER_BETTER | {"metric": "kale"}}},
            r"base\.schedule: .*there is no energy in the base phase",
        ),
        (
            {"watch": WATCH | {"every": 0}},
            r"energy\.schedule: .*reads kale, which is not taken with trainer\.watch\.every = 0",
        ),
    ],
)
def test_a_plateau_that_would_never_get_a_reading_is_refused(changes, message, sets, tmp_path):
    with pytest.raises(InputError, match=message):
        run_alone(tiny_job(tmp_path / "run", model=FLOW, **sets, **plateaus() | changes))
    assert not (tmp_path / "run").exists()
