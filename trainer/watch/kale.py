"""KALE on training and on validation images, and the tracked log-partition against a fresh estimate.

Memorisation shows in KALE: an energy that knows its training images by heart is lower on them than on validation
images of the same law, and its KALE on training images is higher.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gebm.trainer.log_partition import log_mean_exp_with_error
from gebm.trainer.watch.energies import Energies
from gebm.trainer.watch.fixed_samples import Samples
from gebm.trainer.workers import Workers


def log_partition_readings(tracked: Tensor, energies: Energies) -> dict[str, float]:
    """The `c` that training tracks, and `lme(-E(y))` over fresh draws with its standard error (delta method)."""
    fresh, error = log_mean_exp_with_error(-energies.fake)
    return {
        "log_partition_tracked": float(tracked),
        "log_partition_fresh": float(fresh),
        "log_partition_fresh_error": float(error),
    }


def kale_readings(energies: Energies) -> dict[str, float]:
    """KALE `-mean E(x) - lme(-E(y))`, at its best `c`, on as many training as validation images, the same draws.

    `kale_gap` is that on training minus that on validation images, where what comes from the draws cancels, with its
    standard error.
    """
    log_partition, _ = log_mean_exp_with_error(-energies.fake)
    on_train, on_validation = energies.train, energies.validation
    readings = {"kale_train": float(-on_train.mean() - log_partition)}
    if on_validation is None:
        return readings
    variance = on_train.var() / len(on_train) + on_validation.var() / len(on_validation)
    return readings | {
        "kale_validation": float(-on_validation.mean() - log_partition),
        "kale_gap": float(on_validation.mean() - on_train.mean()),
        "kale_gap_error": float(variance.sqrt()),
    }


@torch.no_grad()
def likelihood_readings(
    base: nn.Module, train: Samples, validation: Samples | None, workers: Workers
) -> dict[str, float]:
    """`-mean log q(x)` of a base with a density, in nats a point, on as many training as validation points."""
    sets = {"train": train} | ({} if validation is None else {"validation": validation})
    return {
        f"negative_log_likelihood_{name}": -float(workers.gather(log_density(base, points)).double().mean())
        for name, points in sets.items()
    }


def log_density(base: nn.Module, points: Samples) -> Tensor:
    """`log q(x)`, or `log q(x | y)`, `(n,)`."""
    given = (points.images,) if points.labels is None else (points.images, points.labels)
    return base.log_density(*given)  # type: ignore[operator]
