"""Everything that a training run is at one moment: what a checkpoint holds and a resumed run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gebm.cluster.randomness import derive_seed
from gebm.trainer.averaging import averaged_copy, trainable_copy
from gebm.trainer.guard import Rollback
from gebm.trainer.model import GEBM, ImageShape, ModelSettings, build_model
from gebm.trainer.schedules import Plateau
from gebm.trainer.settings import Phase, TrainerSettings
from gebm.trainer.strategies.optimizer import NetworkOptimizer
from gebm.trainer.strategies.strategy import Role, Strategy
from gebm.trainer.workers import Workers

TRAINED: dict[Phase, tuple[Role, ...]] = {"base": ("base",), "joint": ("base", "energy"), "energy": ("energy",)}
"""The networks that each phase trains."""


@dataclass
class TrainingState:
    """Networks, averages, optimisers and counters. No random state: every draw is a function of a counter."""

    model: GEBM  # the networks that are trained
    base_average: nn.Module
    energy_average: nn.Module
    strategy: Strategy
    optimizers: dict[Role, NetworkOptimizer]  # of the networks that the phase trains
    log_partition: Tensor  # float64, 0-dim
    phase: Phase
    round: int = 0  # rounds done, over all phases: the next one's number
    energy_steps: int = 0  # energy steps done, over all phases
    batches: int = 0  # global batches of real data used: the position in the data
    plateaus: dict[str, Plateau] = field(default_factory=dict)  # by "phase.network"
    rollbacks: tuple[Rollback, ...] = ()
    chains: Tensor | None = None  # normal latents (batch, p) of the energy phase's chains, of all workers
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

    @contextmanager
    def whole(self) -> Iterator[None]:
        """While it is open, this worker has all weights of all networks, to read. All workers open it together."""
        with ExitStack() as stack:
            for optimizer in self.optimizers.values():
                stack.enter_context(optimizer.whole())
            yield

    def begin_training(self, phase: Phase, base: nn.Module, energy: nn.Module) -> None:
        """Go on in `phase` with these networks, whose weights are whole, and fresh optimisers of those it trains."""
        for optimizer in self.optimizers.values():
            optimizer.close()
        self.phase = phase
        self.model.base, self.model.energy_network = base, energy
        # In the energy phase the base is frozen.
        base.requires_grad_(phase != "energy")
        energy.requires_grad_(True)
        self.optimizers = {role: self.strategy.optimizer(role, self.networks()[role]) for role in TRAINED[phase]}

    def as_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that it can be read back without running any code.

        Whole on every worker, in one form for all strategies and numbers of workers. All workers call it together.
        """
        with self.whole():
            networks = {
                name: {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
                for name, network in self.networks().items()
            }
        return {
            "networks": networks,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
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
        weights = content["networks"]
        self.base_average.load_state_dict(weights["base_average"])
        self.energy_average.load_state_dict(weights["energy_average"])
        base, energy = trainable_copy(self.base_average), trainable_copy(self.energy_average)
        base.load_state_dict(weights["base"])
        energy.load_state_dict(weights["energy"])
        self.begin_training(content["phase"], base, energy)
        for role, optimizer in self.optimizers.items():
            optimizer.load(weights[role], content["optimizers"][role])
        self.log_partition = content["log_partition"].to(self.log_partition.device)
        self.round, self.energy_steps, self.batches = (content[key] for key in ("round", "energy_steps", "batches"))
        self.plateaus = {name: Plateau(*plateau) for name, plateau in content["plateaus"].items()}
        self.rollbacks = tuple(Rollback(*rollback) for rollback in content["rollbacks"])
        self.chains, self.chain_labels = (
            None if content[key] is None else content[key].to(self.log_partition.device)
            for key in ("chains", "chain_labels")
        )


def initial_state(
    model_settings: ModelSettings,
    settings: TrainerSettings,
    image_shape: ImageShape,
    seed: int,
    workers: Workers,
    classes: int | None = None,
) -> TrainingState:
    """Round 0: fresh networks, the same on every worker, since their weights are a function of the seed."""
    model = build_model(model_settings, image_shape, classes, seed=derive_seed(seed, "weights", 0))
    dtype = torch.float64 if settings.dtype == "float64" else torch.float32
    model.to(device=workers.device, dtype=dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    phase: Phase = "base" if settings.base.steps else "joint"
    state = TrainingState(
        model=model,
        base_average=averaged_copy(model.base),
        energy_average=averaged_copy(model.energy_network),
        strategy=Strategy(workers, settings),
        optimizers={},
        log_partition=torch.zeros((), dtype=torch.float64, device=workers.device),
        phase=phase,
    )
    state.begin_training(phase, model.base, model.energy_network)
    return state
