"""MMD-O: the Gaussian kernel whose bandwidth maximises the objective of power."""

import numpy as np
import torch

from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.bandwidth import median_bandwidth
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.learnt.learnt_kernel import LearntKernel
from gebm.evaluation.two_sample.learnt.objective import power_of_kernels
from gebm.evaluation.two_sample.samples import Sample, as_samples, centred, prepare_rows

LARGEST_SAMPLE = 4096  # pairs that the bandwidth is chosen on
OCTAVES = (-6, 3)  # of the median distance
STEPS_BETWEEN = 6  # bandwidths tried between neighbours of the best, in each of two rounds


def optimise_bandwidth(
    x: Sample, y: Sample, *, seed: int = 0, device: str | torch.device | None = None
) -> LearntKernel:
    """The bandwidth of the Gaussian kernel that maximises `J = MMD²/sigma` between `x` `(n, d)` and `y` `(m, d)`.

    J of one number has several maxima, so it is looked for and not climbed to: on powers of two times the median
    distance, then twice between the neighbours of the best. Distances are computed once a round for all bandwidths.
    These points must not be tested afterwards: `learnt_mmd_test` splits.

    Args:
        x: as for `mmd_test`; of more than 4,096 pairs a seeded choice is used.
        y: likewise; pairs are made of as many points as the smaller sample has.
        seed: of that choice.
        device: where to compute; None for that of `x`.

    Raises:
        InputError: samples that cannot be compared.
    """
    points_x, points_y = as_samples({"x": x, "y": y}, device)
    n = min(len(points_x), len(points_y), LARGEST_SAMPLE)
    rng = np.random.default_rng(derive_seed(seed, "two_sample_learnt", "bandwidth"))
    chosen = [side[torch.from_numpy(rng.permutation(len(side))[:n]).to(side.device)] for side in (points_x, points_y)]
    pooled = centred(torch.cat(chosen))
    mixed = torch.from_numpy(rng.permutation(2 * n)).to(pooled.device)
    logarithms = np.log2(median_bandwidth(pooled[mixed], "gaussian")) + np.arange(OCTAVES[0], OCTAVES[1] + 1.0)
    for _ in range(3):
        kernels = [Kernel("gaussian", float(2.0**each), pooled.shape[1]) for each in logarithms]
        objective = power_of_kernels(prepare_rows(pooled, *kernels), kernels).objective
        best = int(objective.argmax())
        step = logarithms[1] - logarithms[0]
        found = kernels[best], float(objective[best])
        logarithms = np.linspace(logarithms[best] - step, logarithms[best] + step, 2 * STEPS_BETWEEN + 1)
    return LearntKernel(found[0], shape=tuple(points_x.shape[1:]), objective=found[1])
