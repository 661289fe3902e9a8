"""Objectives by the name that a recipe gives. A new objective is one file of pure functions and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from gebm.trainer.objectives import donsker_varadhan, f_divergence, kale, mmd, non_saturating, wasserstein
from gebm.trainer.objectives.chains import critic_loss_with_chains
from gebm.trainer.objectives.f_divergence import FDivergence

CriticLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
BaseLoss = Callable[[Tensor, Tensor | None], Tensor]
ChainLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
EnergyOfFeatures = Callable[[Tensor, Tensor, Tensor], Tensor]
EnergiesOfBatch = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class PenaltyWeights(NamedTuple):
    """What the penalty is multiplied with in each phase, unless a recipe says otherwise."""

    joint: float = 1.0
    energy: float = 0.3


class Objective(NamedTuple):
    """Losses of the energy and of the base, each a function of what the critic says of the global batch.

    Attributes:
        critic_loss: `(on_real, on_fake, log_partition) -> scalar`, lowered by the energy.
        base_loss: `(on_fake, on_real) -> scalar`, lowered by the base; `on_real` is None unless it is needed.
        penalty: of the critic's gradient `g` at mixtures of real and generated images: `mean ||g||^2`
            (`zero_centred`) or `mean (||g|| - 1)^2` (`one_centred`, Gulrajani et al. 2017).
        penalty_weights: `gradient_penalty` of a recipe that names none.
        reads: whether `on_real` and `on_fake` are energies `(n,)` or the energy network's features `(n, d)`.
        needs_real_for_base: whether the base's loss compares with real images.
        constant_is_free: whether a constant added to the energy changes no loss (`log_partition` takes it up), so
            that the level of the energy may be held near 0.
        energy_of_features: `(features, on_real, on_fake) -> (n,)`, the energy of points by their features, where
            the objective reads features; None where it reads energies.
        energies_of_batch: `(on_real, on_fake) -> (n,), (m,)`, the energies of the very points that
            `energy_of_features` compares with, as if they were new; None where the objective reads energies.
        critic_loss_with_chains: `(on_real, on_fake, on_chain, log_partition) -> scalar`, instead of `critic_loss` when
            a third of the points are chains of the model; None where the objective is no likelihood.
    """

    critic_loss: CriticLoss
    base_loss: BaseLoss
    penalty: Literal["zero_centred", "one_centred"] = "zero_centred"
    penalty_weights: PenaltyWeights = PenaltyWeights()
    reads: Literal["energies", "features"] = "energies"
    needs_real_for_base: bool = False
    constant_is_free: bool = False
    energy_of_features: EnergyOfFeatures | None = None
    energies_of_batch: EnergiesOfBatch | None = None
    critic_loss_with_chains: ChainLoss | None = None


def _of(divergence: FDivergence) -> Objective:
    return Objective(divergence.critic_loss, divergence.base_loss)


OBJECTIVES: dict[str, Objective] = {
    "kale": Objective(
        kale.critic_loss, kale.base_loss, constant_is_free=True, critic_loss_with_chains=critic_loss_with_chains
    ),
    "donsker_varadhan": Objective(
        donsker_varadhan.critic_loss,
        kale.base_loss,
        constant_is_free=True,
        critic_loss_with_chains=critic_loss_with_chains,
    ),
    "wasserstein": Objective(
        wasserstein.critic_loss,
        wasserstein.base_loss,
        penalty="one_centred",
        penalty_weights=PenaltyWeights(joint=10.0, energy=10.0),  # the Lipschitz condition holds in both phases
        constant_is_free=True,
    ),
    "non_saturating": Objective(non_saturating.critic_loss, non_saturating.base_loss),
    "kl": _of(f_divergence.KL),
    "reverse_kl": _of(f_divergence.REVERSE_KL),
    "pearson": _of(f_divergence.PEARSON),
    "hellinger": _of(f_divergence.HELLINGER),
    "jensen_shannon": _of(f_divergence.JENSEN_SHANNON),
    "mmd": Objective(
        mmd.critic_loss,
        mmd.base_loss,
        reads="features",
        needs_real_for_base=True,
        energy_of_features=mmd.energy,
        energies_of_batch=mmd.energies_of_batch,
    ),
}
