"""A learnt kernel: a map from points to rows of numbers, and an ordinary kernel of the library on rows.

The deep kernel `k(x, y) = [(1 - eps) exp(-‖phi(x) - phi(y)‖²/sigma_phi) + eps] exp(-‖x - y‖²/sigma_q)` (Liu et al.,
ICML 2020) is, on rows `[phi(x)/sqrt(sigma_phi), x/sqrt(sigma_q)]`, the sum of two Gaussians of weights 1 - eps and
eps, the second of which sees the last columns only. Points go through the network once; statistics, nulls and tiles see
rows.
"""

from dataclasses import dataclass
from math import sqrt

import torch

from gebm.evaluation.two_sample.kernels import AnyKernel, Kernel, KernelSum
from gebm.evaluation.two_sample.samples import Sample, as_sample

POINTS_AT_A_TIME = 1024
UNIT = sqrt(0.5)  # the bandwidth of exp(-D²)


@dataclass(frozen=True)
class LearntKernel:
    """A kernel that was learnt; it can be pickled and sent to workers.

    Attributes:
        kernel: on rows.
        featuriser: phi, in evaluation mode; None where rows are the points themselves.
        feature_scale: sigma_phi.
        point_scale: sigma_q.
        mixing: eps.
        shape: of a point, as the featuriser takes it.
        objective: J on what it was trained with, the last value of training; or on the points kept for stopping, the
            best value.
        steps: of training, up to the kernel that was kept.
    """

    kernel: AnyKernel
    featuriser: torch.nn.Module | None = None
    feature_scale: float | None = None
    point_scale: float | None = None
    mixing: float | None = None
    shape: tuple[int, ...] = ()
    objective: float | None = None
    steps: int = 0

    def rows(self, points: Sample, device: str | torch.device | None = None) -> torch.Tensor:
        """Rows `(n, columns)` of points, on which `kernel` is this kernel.

        Raises:
            InputError: points that are no sample, see `mmd_test`.
        """
        flat = as_sample(points, "points", device, fewest=1)
        if self.featuriser is None:
            return flat
        assert self.feature_scale is not None and self.point_scale is not None
        flat = as_numbers(points, flat)
        of = next(self.featuriser.parameters()).device
        parts = []
        with torch.no_grad():
            for part in flat.split(POINTS_AT_A_TIME):
                features = self.featuriser(part.to(of).view(-1, *self.shape)).to(part.device)
                parts.append(torch.cat([features / sqrt(self.feature_scale), part / sqrt(self.point_scale)], 1))
        return torch.cat(parts)


def as_numbers(points: Sample, flat: torch.Tensor) -> torch.Tensor:
    """Points `(n, d)` as float32; bytes of images between -1 and 1."""
    of_bytes = points.dtype in (torch.uint8,) or str(points.dtype) == "uint8"
    return flat.to(torch.float32) / 127.5 - 1.0 if of_bytes else flat.to(torch.float32)


def kernel_on_rows(features: int, dimension: int, mixing: float) -> KernelSum:
    """The deep kernel on rows of so many features and numbers of a point."""
    columns = features + dimension
    return KernelSum(
        (
            Kernel("gaussian", UNIT, columns, weight=1.0 - mixing),
            Kernel("gaussian", UNIT, columns, weight=mixing, tail=dimension),
        )
    )
