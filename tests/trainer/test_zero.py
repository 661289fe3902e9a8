"""Networks in shards (DeepSpeed ZeRO) train as whole ones do, on two real worker processes."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from gebm.trainer.model import ModelSettings, build_model
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.strategies.zero import why_no_shards
from gebm.trainer.workers import Workers
from tests.trainer.strategies_of_a_worker import train

ROOT = Path(__file__).resolve().parents[2]

MODEL = {"network": "sngan_resnet", "latent_dimension": 8, "width_factor": 0.25}
SETTINGS: dict[str, Any] = {
    "batch_size": 8,
    "batch_norm_draws": 16,
    "clip_norm": 1e-2,  # what the gradients of an untrained energy exceed in some steps
    "joint": {
        "steps": 2,
        "energy_steps": 2,
        "warmup_steps": 0,
        "base_learning_rate": 1e-4,
        "energy_learning_rate": 1e-4,
    },
    "energy": {"steps": 2, "learning_rate": 1e-4, "chain_steps": 1},
}
# Each stage for either network, the third with parts of unequal size.
STAGES = [{"base": 1, "energy": 2}, {"base": 2, "energy": 1}, {"base": 3, "energy": 3}]
HALF = {"joint": SETTINGS["joint"] | {"steps": 1}, "energy": {"steps": 0}}


def run_processes(world: int, model: dict[str, Any], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = {"world": world, "port": port, "model": model, "runs": runs}
    command = [sys.executable, "-W", "ignore", "-m", "tests.trainer.strategies_of_a_worker"]
    workers = [
        subprocess.Popen(
            [*command, json.dumps(arguments | {"rank": rank})],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), "\n".join(outputs)[-4000:]
    return [torch.load(run["out"], weights_only=True) for run in runs]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """One worker with whole networks; two with shards, from the start, and from the middle of that one's run."""
    folder = tmp_path_factory.mktemp("zero")

    def run(name: str, start: str | None = None, **changes: Any) -> dict[str, Any]:
        return {
            "settings": SETTINGS | changes,
            "start": None if start is None else str(folder / start),
            "out": str(folder / name),
        }

    shards = [
        each
        for stages in STAGES
        for each in (
            run(f"from the start {stages}", zero=stages),
            run(f"loaded {stages}", "half", zero=stages, **HALF),
            run(f"resumed {stages}", "half", zero=stages),
        )
    ]
    found = {name: run_alone(each) for name, each in (("whole", run("whole")), ("half", run("half", **HALF)))}
    for each, result in zip(shards, run_processes(2, MODEL, shards), strict=True):
        found[Path(each["out"]).name] = result
    found["back to whole"] = run_alone(run("back to whole", f"loaded {STAGES[2]}"))
    yield found


def run_alone(run: dict[str, Any]) -> dict[str, Any]:
    """In this process, as the only worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    workers = Workers(Accelerator(cpu=True))
    result = train(workers, ModelSettings.model_validate(MODEL), run["settings"], run["start"])
    torch.set_num_threads(threads)
    torch.save(result, run["out"])
    return result


def assert_same_rounds(seen: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(seen) == len(expected) > 0
    for values, reference in zip(seen, expected, strict=True):
        assert values == pytest.approx(reference, rel=2e-3, abs=2e-6)


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_two_workers_with_shards_compute_what_one_with_whole_networks_does(results, stages):
    """Losses, penalty, log-partition and the norms of both networks' gradients, through both phases.

    A gradient that is scaled wrongly leaves Adam's weights alone: the norms and the moments show it.
    """
    whole, shards = results["whole"], results[f"from the start {stages}"]
    assert_same_rounds(shards["seen"], whole["seen"])
    assert max(values["energy_gradient_norm"] for values in whole["seen"]) > SETTINGS["clip_norm"]
    moments, reference = (each["state"]["optimizers"]["energy"]["state"] for each in (shards, whole))
    assert moments.keys() == reference.keys()
    for number, state in reference.items():
        assert moments[number]["step"] == state["step"] == 2
        for name in ("exp_avg", "exp_avg_sq"):
            scale = float(state[name].abs().max())
            torch.testing.assert_close(moments[number][name], state[name], rtol=0.05, atol=0.05 * scale)


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_a_checkpoint_of_whole_networks_is_taken_up_by_shards_and_given_back_unchanged(results, stages):
    half, loaded = results["half"]["state"], results[f"loaded {stages}"]["state"]
    for name, weights in half["networks"].items():
        for key, tensor in weights.items():
            assert torch.equal(loaded["networks"][name][key], tensor), (name, key)
    for name, memory in half["optimizers"].items():
        assert loaded["optimizers"][name]["param_groups"][0]["lr"] == memory["param_groups"][0]["lr"]
        for number, state in memory["state"].items():
            for key, tensor in state.items():
                assert torch.equal(loaded["optimizers"][name]["state"][number][key], tensor), (name, number, key)


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_shards_go_on_from_a_checkpoint_as_if_nothing_had_happened(results, stages):
    assert_same_rounds(results[f"resumed {stages}"]["seen"], results["whole"]["seen"][1:])


def test_one_worker_goes_on_from_a_checkpoint_of_shards_on_two(results):
    whole, back = results["whole"], results["back to whole"]
    assert back["seen"] == whole["seen"][1:]
    for name, weights in whole["state"]["networks"].items():
        for key, tensor in weights.items():
            assert torch.equal(back["state"]["networks"][name][key], tensor), (name, key)


def refusal(network: str, gpus_per_worker: float = 0.0, width: float = 1.0, **changes: Any) -> str | None:
    settings = TrainerSettings.model_validate(SETTINGS | changes)
    energy = build_model(ModelSettings(network=network, width_factor=width), (3, 32, 32), seed=0).energy_network
    return why_no_shards(settings, energy, gpus_per_worker)


def test_what_cannot_work_in_shards_is_refused_with_its_reason():
    three = {"zero": {"energy": 3}}
    assert "differentiated twice" in (refusal("dcgan", **three) or "")
    assert refusal("sngan_resnet", **three) is None
    assert refusal("sngan_convnet", **three) is None
    assert refusal("dcgan", zero={"base": 3, "energy": 2}) is None
    free = {name: SETTINGS[name] | {"gradient_penalty": 0.0} for name in ("joint", "energy")}
    assert refusal("dcgan", **three, **free) is None
    one = {"zero": {"base": 1}}
    assert "transform_gradients" in (refusal("dcgan", **one, transform_gradients=True) or "")
    assert "float64" in (refusal("dcgan", **one, dtype="float64") or "")
    assert "share them" in (refusal("dcgan", 0.5, **one) or "")
    assert "trainer.compile" in (refusal("dcgan", **one, compile=True) or "")
    assert refusal("dcgan", 0.5, transform_gradients=True) is None


def test_large_plain_weights_in_shards_cannot_be_differentiated_twice(tmp_path):
    """The refusal is still right: were this to work one day, it should go."""
    run = {"settings": SETTINGS | {"zero": {"energy": 3}}, "start": None, "out": str(tmp_path / "out")}
    model = {"network": "mlp", "latent_dimension": 8, "base_widths": [8], "energy_widths": [400, 300]}
    with pytest.raises(AssertionError, match="must be a matrix"):
        run_processes(2, model, [run])
