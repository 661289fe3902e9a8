"""Several samples from a chain: which ones, in which order, with which labels, and in how many shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.cluster.reader import read_all
from gebm.sampler import SamplerSettings, draw
from gebm.sampler.chain import sample_from
from gebm.sampler.settings import TemperingSettings
from gebm.sampler.work import make_shard_worker, publish_index, shard_items
from gebm.trainer.model import GEBM, freeze, to_uint8
from tests.sampler.small_models import save_small_model, small_model
from tests.sampler.test_labels_and_vectors import ShiftedByClass

SETTINGS = SamplerSettings(name="mala", step_size=0.2, steps=8, thin=3, samples_per_chain=3, record_every=10)


@pytest.fixture(scope="module")
def model() -> GEBM:
    return small_model()


def test_samples_of_a_chain_are_its_latents_every_few_steps(model: GEBM) -> None:
    """Of all chains the first samples, then the second: each the end of a chain of 8, 11 and 14 steps."""
    prior = model.sample_prior(5, torch.Generator().manual_seed(0))

    def run(**changes) -> torch.Tensor:
        settings = SETTINGS.model_copy(update=changes)
        return sample_from(model, settings, prior, torch.Generator().manual_seed(1))

    found = run()
    assert found.latents.shape == (15, 4) and found.images.shape == (15, 1, 8, 8)
    for part, steps in zip(found.latents.chunk(3), (8, 11, 14), strict=True):
        assert torch.equal(part, run(steps=steps, samples_per_chain=1).latents)
    torch.testing.assert_close(found.images, model.generate(found.latents))
    assert found.recorded_steps == (0, 10, 14) and found.energies.shape == (3, 5)


def test_as_many_chains_run_as_the_samples_need(model: GEBM) -> None:
    """Seven samples at three a chain: three chains, of the first of the prior draws, and two samples too many."""
    images = draw(model, 7, SETTINGS, seed=2)
    assert images.shape == (7, 1, 8, 8)
    single = draw(model, 7, SETTINGS, samples_per_chain=1, steps=0, thin=1, seed=2)
    begun = draw(model, 7, SETTINGS, steps=0, seed=2)
    torch.testing.assert_close(begun[:3], single[:3])
    assert not torch.allclose(begun[3:6], single[3:6])  # the second samples of those three


ADAPTIVE = SETTINGS.model_copy(
    update={
        "warmup": 20,
        "target_acceptance": 0.6,
        "precondition": True,
        "tempering": TemperingSettings(rungs=2, hottest=0.2),
    }
)
RESAMPLED = SamplerSettings(name="sir", draws_per_sample=5)


@pytest.mark.parametrize("chosen", [SETTINGS, ADAPTIVE, RESAMPLED], ids=["thinned", "adaptive", "resampled"])
def test_a_shard_has_its_number_of_samples_in_order_and_the_bytes_of_any_other_worker(
    chosen: SamplerSettings, tmp_path: Path
) -> None:
    """25 samples in two shards of 20 and 5, chains in batches of 4; what they adapt to is their own batch alone."""
    url = save_small_model(str(tmp_path / "model"))
    settings = chosen.model_copy(update={"chains": 4, "shard_size": 20})
    items = shard_items(settings, 25, seed=3)
    threads = torch.get_num_threads()

    def make(order: list[int], name: str) -> dict[str, dict]:
        work = make_shard_worker(url, str(tmp_path / name), settings, 0, "cpu")()
        return {items[number].id: work(items[number], name) for number in order}

    made, again = make([0, 1], "one"), make([1, 0], "other")
    torch.set_num_threads(threads)
    assert {key: record["sha256"] for key, record in made.items()} == {key: again[key]["sha256"] for key in made}
    assert [record["count"] for record in made.values()] == [20, 5]
    publish_index(str(tmp_path / "one"), list(made.values()))
    stored = read_all(str(tmp_path / "one"))
    assert stored.keys == [f"{number:09d}" for number in range(25)]
    assert len(np.unique(stored.images[:20], axis=0)) >= (10 if chosen is RESAMPLED else 20)


def test_samples_of_a_chain_share_its_label() -> None:
    model = freeze(GEBM(ShiftedByClass(False), ShiftedByClass(True), 1, (1,), classes=3))
    labels = torch.arange(6) % 3
    found = sample_from(model, SETTINGS, torch.zeros(6, 1), torch.Generator(), labels=labels)
    assert found.labels is not None and torch.equal(found.labels, labels.repeat(3))
    torch.testing.assert_close(found.images, found.latents + found.labels[:, None])
    with pytest.raises(ValueError, match="samples_per_chain is 3, leave it at 1"):
        draw(model, 6, SETTINGS, labels=labels)


def test_thinned_images_are_of_the_first_chains_of_their_shard(model: GEBM) -> None:
    """What is drawn does not depend on how many samples are asked for beyond a whole number of chains."""
    eight, nine = draw(model, 8, SETTINGS, chains=3, seed=4), draw(model, 9, SETTINGS, chains=3, seed=4)
    assert torch.equal(to_uint8(eight), to_uint8(nine)[:8])
