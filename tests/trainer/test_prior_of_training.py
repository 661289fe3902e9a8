"""A prior that is not normal is the prior of all of training: steps, chains, watching, and the exported model."""

import math

import pytest
import torch
from torch import Tensor

from gebm.trainer.card import prior_words
from gebm.trainer.model import ModelSettings, PriorSettings, load_model
from gebm.trainer.model.networks.mlp import MLPBase
from tests.trainer.tiny_runs import MLP, run_alone, tiny_job, write_points

WATCH = {
    "every": 2,
    "images": 40,
    "draws": 64,
    "fid_every": 2,
    "fid_images": 40,
    "fid_chain_steps": 2,
    "extractor": {"name": "raw"},
    "tensorboard": False,
}
CHAINS = {"steps": 6, "chain_steps": 2, "chain_step_size": 0.5}


@pytest.fixture
def latents_seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Gets every latent that a base is given."""
    seen: list[Tensor] = []
    right = MLPBase.forward

    def forward(self: MLPBase, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        seen.append(latent.detach().clone())
        return right(self, latent, labels)

    monkeypatch.setattr(MLPBase, "forward", forward)
    return seen


def with_prior(**prior) -> ModelSettings:
    return MLP.model_copy(update={"prior": PriorSettings(**prior)})


@pytest.mark.parametrize(
    ("prior", "deviation"),
    [({"kind": "uniform", "low": -0.5, "high": 1.5}, 2 / math.sqrt(12)), ({"kind": "truncated_normal"}, 0.8796)],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_the_base_is_never_given_a_latent_from_outside(tmp_path, latents_seen, prior: dict, deviation: float) -> None:
    """With steps so large that chains which could leave would; and there are as many latents as of a normal prior."""
    data, validation = write_points(tmp_path / "data"), write_points(tmp_path / "more", seed=1)
    settings = with_prior(**prior)
    job = tiny_job(
        tmp_path / "run",
        data,
        model=settings,
        validation=validation,
        watch=WATCH,
        energy=CHAINS,
        objective="donsker_varadhan",
        joint={"steps": 8, "warmup_energy_steps": 3, "warmup_steps": 1, "base_average": 0.5},
    )
    run_alone(job)
    low, high = settings.prior.bounds
    seen = torch.cat(latents_seen)
    assert len(seen) > 1500
    assert low <= float(seen.min()) < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < float(seen.max()) <= high
    assert float(seen.std()) == pytest.approx(deviation, rel=0.1)
    model = load_model(str(tmp_path / "run"))
    assert model.prior == settings.prior
    # c was estimated on this prior: a fresh estimate agrees, within five standard errors of both.
    with torch.no_grad():
        energies = model.latent_energy(model.sample_prior(20_000, torch.Generator().manual_seed(3))).double()
    again = torch.logsumexp(-energies, 0) - math.log(len(energies))
    assert float(again) == pytest.approx(float(model.log_partition), abs=5 * float(model.log_partition_error))


def test_a_normal_prior_is_given_normal_latents(tmp_path, latents_seen) -> None:
    """The check above would see it: far outside of any of its bounds."""
    run_alone(tiny_job(tmp_path / "run", write_points(tmp_path / "data"), energy=CHAINS, objective="donsker_varadhan"))
    assert float(torch.cat(latents_seen).abs().max()) > 2.5


def test_the_card_names_the_prior(tmp_path) -> None:
    data = write_points(tmp_path / "data")
    run_alone(
        tiny_job(tmp_path / "run", data, model=with_prior(kind="uniform"), joint={"steps": 1}, energy={"steps": 1})
    )
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "- Latent: uniform on [-1, 1] in 2 dimensions." in card
    assert prior_words(load_model(str(tmp_path / "run"))) == "uniform on [-1, 1]"
