"""FID and KID of a few generated samples against as many validation samples: their course, not their level.

A small sample makes FID too high, by about the same amount every time.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gebm.evaluation.extractors import ExtractorSettings, make_extractor
from gebm.evaluation.frechet import FrechetStatistics, covariance_root, frechet_distance
from gebm.evaluation.kernel_distance import kernel_distance
from gebm.trainer.model import to_stored
from gebm.trainer.state import TrainingState
from gebm.trainer.watch.fixed_samples import Samples
from gebm.trainer.workers import Workers


class ImageDistance:
    """Compares generated samples with validation samples, whose features are taken once."""

    def __init__(self, settings: ExtractorSettings, validation: Samples, state: TrainingState, workers: Workers):
        self.workers = workers
        self.extractor = make_extractor(settings, str(workers.device), state.model.image_shape)
        self.real = self._features(validation.images)
        self.statistics = FrechetStatistics.of(self.real)
        self.root = covariance_root(self.statistics)

    def __call__(self, generated: Tensor) -> dict[str, float]:
        """`fid` and `kid` of all workers' `generated` samples, the same on every worker."""
        features = self._features(generated)
        if not np.isfinite(features).all():  # nothing to compare; the guard will find what is wrong
            return {}
        fid = frechet_distance(FrechetStatistics.of(features), self.statistics, root_of_b=self.root)
        kid = kernel_distance(features, self.real).mean
        # Workers of different kinds may round differently, and a schedule may hang on these: those of rank 0 count.
        own = torch.tensor([[fid, kid]], dtype=torch.float64, device=self.workers.device)
        fid, kid = self.workers.gather(own)[0].tolist()
        return {"fid": fid, "kid": kid}

    def _features(self, samples: Tensor) -> np.ndarray:
        features = self.extractor(to_stored(samples))
        return self.workers.gather(features.to(self.workers.device)).cpu().numpy()
