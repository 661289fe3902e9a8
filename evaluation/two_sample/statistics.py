"""From kernel sums to estimates of MMD² (Gretton et al., JMLR 2012)."""

import torch

from gebm.evaluation.two_sample.tiles import LabelledSums


def unbiased(sums: LabelledSums, n: int, m: int) -> torch.Tensor:
    """`MMD²_u = S_xx/(n(n-1)) + S_yy/(m(m-1)) - 2 S_xy/(nm)` of every labelling, `(P,)` float64.

    `S_xy = aᵀr - S_xx` and `S_yy = 1ᵀr - 2aᵀr + S_xx` with `r = K0 1`.
    """
    cross = sums.touching - sums.within
    other = sums.total - 2.0 * sums.touching + sums.within
    return sums.within / (n * (n - 1)) + other / (m * (m - 1)) - 2.0 * cross / (n * m)


def paired(forms: torch.Tensor, n: int) -> torch.Tensor:
    """`epsᵀ H0 eps / (n(n-1))`: the paired form of MMD²_u with the members of pairs swapped by the signs."""
    return forms / (n * (n - 1))
