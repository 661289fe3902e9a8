"""Everything that a training run is at one moment: what a checkpoint holds and a resumed run starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gebm.cluster.randomness import derive_seed
from gebm.trainer.averaging import averaged_copy
from gebm.trainer.guard import Rollback
from gebm.trainer.model import GEBM, ImageShape, ModelSettings, build_model
from gebm.trainer.schedules import Plateau
from gebm.trainer.settings import Phase, TrainerSettings


@dataclass
class TrainingState:
    """Networks, averages, optimisers and counters. No random state: every draw is a function of a counter."""

    model: GEBM  # the networks that are trained
    base_average: nn.Module
    energy_average: nn.Module
    base_optimizer: torch.optim.Optimizer
    energy_optimizer: torch.optim.Optimizer
    log_partition: Tensor  # float64, 0-dim
    phase: Phase
    round: int = 0  # rounds done, over all phases: the next one's number
    energy_steps: int = 0  # energy steps done, over all phases
    batches: int = 0  # global batches of real data used: the position in the data
    plateaus: dict[str, Plateau] = field(default_factory=dict)  # by "phase.network"
    rollbacks: tuple[Rollback, ...] = ()
    chains: Tensor | None = None  # latents (batch, p) of the energy phase's chains, of all workers
    chain_labels: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of networks and images."""
        return next(self.model.parameters()).dtype

    def networks(self) -> dict[str, nn.Module]:
        return {
            "base": self.model.base,
            "energy": self.model.energy_network,
            "base_average": self.base_average,
            "energy_average": self.energy_average,
        }

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"base": self.base_optimizer, "energy": self.energy_optimizer}

    def as_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be read back without running any code."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers().items()},
            "log_partition": self.log_partition,
            "phase": self.phase,
            "round": self.round,
            "energy_steps": self.energy_steps,
            "batches": self.batches,
            "plateaus": {name: list(plateau) for name, plateau in self.plateaus.items()},
            "rollbacks": [list(rollback) for rollback in self.rollbacks],
            "chains": self.chains,
            "chain_labels": self.chain_labels,
        }

    def load_dict(self, content: dict[str, Any]) -> None:
        """Inverse of `as_dict`, in place. Raises `KeyError` or `RuntimeError` when it is of another kind."""
        for name, network in self.networks().items():
            network.load_state_dict(content["networks"][name])
        for name, optimizer in self.optimizers().items():
            optimizer.load_state_dict(content["optimizers"][name])
        self.log_partition = content["log_partition"].to(self.log_partition.device)
        self.phase = content["phase"]
        self.round, self.energy_steps, self.batches = (content[key] for key in ("round", "energy_steps", "batches"))
        self.plateaus = {name: Plateau(*plateau) for name, plateau in content["plateaus"].items()}
        self.rollbacks = tuple(Rollback(*rollback) for rollback in content["rollbacks"])
        self.chains, self.chain_labels = (
            None if content[key] is None else content[key].to(self.log_partition.device)
            for key in ("chains", "chain_labels")
        )
        # In the energy phase the base is frozen.
        self.model.base.requires_grad_(self.phase != "energy")


def adam(network: nn.Module, learning_rate: float, settings: TrainerSettings) -> torch.optim.Adam:
    # As a group: a foreign base may have no weights, and Adam refuses a bare empty list.
    weights = {"params": list(network.parameters())}
    return torch.optim.Adam([weights], lr=learning_rate, betas=settings.betas, fused=True)


def initial_state(
    model_settings: ModelSettings,
    settings: TrainerSettings,
    image_shape: ImageShape,
    seed: int,
    device: torch.device,
    classes: int | None = None,
) -> TrainingState:
    """Round 0: fresh networks, the same on every worker, since their weights are a function of the seed."""
    model = build_model(model_settings, image_shape, classes, seed=derive_seed(seed, "weights", 0))
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    model.to(device=device, dtype=dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    phase: Phase = "base" if settings.base.steps else "joint"
    base_rate = settings.base.learning_rate if phase == "base" else settings.joint.base_learning_rate
    return TrainingState(
        model=model,
        base_average=averaged_copy(model.base),
        energy_average=averaged_copy(model.energy_network),
        base_optimizer=adam(model.base, base_rate, settings),
        energy_optimizer=adam(model.energy_network, settings.joint.energy_learning_rate, settings),
        log_partition=torch.zeros((), dtype=torch.float64, device=device),
        phase=phase,
    )
