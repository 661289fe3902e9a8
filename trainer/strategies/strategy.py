"""Which networks are trained whole and which in shards, as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from gebm.trainer.batch_norm import use_global_batch
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.speed import compile_network, recompute_activations
from gebm.trainer.strategies.optimizer import NetworkOptimizer, WholeOptimizer, adam
from gebm.trainer.workers import Workers

Role = Literal["base", "energy"]


@dataclass(frozen=True)
class Strategy:
    """Makes the optimisers of a run on the workers that it has."""

    workers: Workers
    settings: TrainerSettings

    def optimizer(self, role: Role, network: nn.Module) -> NetworkOptimizer:
        """Fresh Adam on `network`, which holds whole weights, the same on every worker.

        What the network needs to be trained by several workers, or faster, is done to it here, in place.
        """
        settings = self.settings
        use_global_batch(network)
        if settings.recompute_activations:
            recompute_activations(network)
        if settings.compile:
            compile_network(network)
        stage = getattr(settings.zero, role)
        if stage:
            # DeepSpeed takes seconds to load: only who asks for it waits.
            from gebm.trainer.strategies.zero import ZeroOptimizer

            return ZeroOptimizer(network, stage, self.workers, settings)
        return WholeOptimizer(
            network,
            adam(network, settings.betas),
            self.workers,
            clip_norm=settings.clip_norm,
            transform=settings.transform_gradients,
        )
