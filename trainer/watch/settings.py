"""What is looked at while training goes on."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt

from gebm.cluster.settings import StrictModel
from gebm.evaluation.extractors.settings import ExtractorSettings


class WatchSettings(StrictModel):
    """Intervals are in rounds, multiples of `log_every`; the end of a phase counts as one."""

    every: NonNegativeInt | None = None  # sample grids, KALE, log-partition; absent: checkpoint_every, 0: never
    grid_images: NonNegativeInt = 64
    images: PositiveInt = 512  # training images and as many validation images, for KALE and likelihood
    draws: PositiveInt = 1024  # fresh prior draws: for the log-partition, and as generated side of KALE
    fid_every: NonNegativeInt = 0  # FID and KID on validation images; 0: never
    fid_images: PositiveInt = 500  # generated and validation images each
    fid_chain_steps: NonNegativeInt = 0  # Langevin steps of the energy phase's samples; 0: no FID there
    extractor: ExtractorSettings = ExtractorSettings()
    tensorboard: bool = True  # written to tensorboard/ of the run
