"""A run that diverges goes back to its last good checkpoint with lower rates, says so, and can be resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gebm.trainer.guard import TrainingDivergedError, check_values, check_weights
from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import read_metrics
from gebm.trainer.rounds import ROUNDS
from gebm.trainer.state import TrainingState
from tests.trainer.tiny_runs import read_checkpoint, run_alone, run_until, snapshot, tiny_job, write_points

# A rate at which the energy leaves all bounds at once, and a factor that makes it a sensible one.
WILD = {
    "joint": {"steps": 12, "warmup_steps": 0, "energy_learning_rate": 1e3, "gradient_penalty": 0.1},
    "rollback_factor": 1e-3,
    "energy_limit": 100.0,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


def diverging(out: Path, data: str, **changes: Any) -> TrainingJob:
    return tiny_job(out, data, **WILD | {"rollbacks": 3} | changes)


def state_of(job: TrainingJob) -> dict:
    return read_checkpoint(job.run)


def test_a_diverged_run_rolls_back_recovers_and_finishes(data, tmp_path):
    job = diverging(tmp_path, data)
    posted = run_alone(job)
    assert (tmp_path / "model" / "weights.safetensors").exists()
    rows = read_metrics(job.run)
    told = [row for row in rows if "rolled_back_from" in row]
    assert told == [row for row in posted if "rolled_back_from" in row] and told
    assert all(row["round"] < row["rolled_back_from"] for row in told)
    assert [row["learning_rate_scale"] for row in told] == pytest.approx([1e-3**k for k in range(1, len(told) + 1)])
    assert "training diverged in round" in told[0]["event"] and "energy_" in told[0]["event"]
    # Every round of the recovered run has one line, at the lower rate; those of the diverged one are gone.
    lines = [row for row in rows if "event" not in row]
    assert [row["round"] for row in lines] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert lines[-4]["learning_rate_energy"] == pytest.approx(1e3 * told[-1]["learning_rate_scale"])
    remembered = state_of(job)["rollbacks"]
    assert [(was, to) for was, to, _ in remembered] == [(row["rolled_back_from"], row["round"]) for row in told]


def test_a_run_without_a_checkpoint_rolls_back_to_its_beginning(data, tmp_path):
    job = diverging(tmp_path, data)
    run_alone(job)
    assert read_metrics(job.run)[0]["round"] == 0


@pytest.fixture
def poisoned(monkeypatch) -> None:
    """Round 11 (the third of the energy phase) destroys a weight, until the run has rolled back twice."""
    train = ROUNDS["energy"]

    def round_with_poison(state: TrainingState, *rest: Any) -> dict[str, float]:
        if state.round == 10 and len(state.rollbacks) < 2:
            with torch.no_grad():
                next(state.model.energy_network.parameters()).fill_(torch.nan)
        return train(state, *rest)

    monkeypatch.setitem(ROUNDS, "energy", round_with_poison)


def test_a_run_that_rolled_back_and_was_killed_ends_like_one_that_was_not(data, tmp_path, poisoned):
    """Killed right after the roll-back, before a checkpoint of its own, and once more beyond it."""
    calm = tiny_job(tmp_path / "calm", data)
    told = [record for record in run_alone(calm) if "rolled_back_from" in record]
    assert [(row["rolled_back_from"], row["round"], row["phase"]) for row in told] == [(11, 8, "joint")] * 2
    stormy = tiny_job(tmp_path / "stormy", data)
    run_until(stormy, 10)
    run_until(stormy, 14)
    run_alone(stormy)
    assert snapshot(stormy) == snapshot(calm)
    assert [row for row in read_metrics(stormy.run) if "event" in row] == told


def test_the_checkpoint_that_was_rolled_back_to_is_not_harmed(data, tmp_path, poisoned):
    """A crash while the new checkpoint is written must leave the one before: it has a name of its own."""
    run_alone(tiny_job(tmp_path, data, keep_checkpoints=9))
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "checkpoints").glob("round-*")}
    assert names >= {"round-00000008", "round-00000008-rollback-1", "round-00000008-rollback-2"}


def test_a_run_stops_with_the_reason_after_so_many_rollbacks(data, tmp_path):
    job = diverging(tmp_path, data, rollbacks=1, rollback_factor=0.9)
    with pytest.raises(TrainingDivergedError, match=r"training diverged in round \d+: .*last good checkpoint is kept"):
        run_alone(job)
    assert len(state_of(job)["rollbacks"]) == 1
    assert not (tmp_path / "model").exists()


def test_a_run_that_may_not_roll_back_stops_at_once(data, tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"Lower trainer\.joint\.energy_learning_rate"):
        run_alone(diverging(tmp_path, data, rollbacks=0))
    assert not read_metrics(str(tmp_path)) or all("event" not in row for row in read_metrics(str(tmp_path)))


def test_weights_that_are_not_finite_never_become_a_checkpoint():
    network = torch.nn.Linear(2, 2)
    check_weights({"base": network}, round_number=4, phase="joint")
    with torch.no_grad():
        network.weight[0, 1] = torch.nan
    with pytest.raises(TrainingDivergedError, match="round 4: weights of the network base are not finite"):
        check_weights({"base": network}, round_number=4, phase="joint")


def test_the_guard_names_the_value_that_is_no_number():
    good = {"energy_real": 1.0, "energy_fake": 2.0, "log_partition": -1.0}
    check_values(good, round_number=3, phase="joint", energy_limit=10.0)
    with pytest.raises(TrainingDivergedError, match="round 7: energy_fake = nan is not finite"):
        check_values(good | {"energy_fake": float("nan")}, round_number=7, phase="joint", energy_limit=10.0)
    with pytest.raises(TrainingDivergedError, match=r"energy_real \+ log_partition = 11 is beyond.*trainer\.energy\."):
        check_values(good | {"energy_real": 12.0}, round_number=7, phase="energy", energy_limit=10.0)
