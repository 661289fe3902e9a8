"""Objectives by the name that a recipe gives. A new objective is one file of pure functions and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from gebm.trainer.objectives import kale


class Objective(NamedTuple):
    """Losses of the energy and of the base, each a function of the energies of the global batch."""

    critic_loss: Callable[[Tensor, Tensor, Tensor], Tensor]  # (energy_real, energy_fake, log_partition)
    base_loss: Callable[[Tensor], Tensor]  # (energy_fake)


OBJECTIVES: dict[str, Objective] = {"kale": Objective(kale.critic_loss, kale.base_loss)}
