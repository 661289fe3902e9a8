"""From kernel sums to estimates of MMD² (Gretton et al., JMLR 2012), of every labelling at once."""

import torch

from gebm.evaluation.two_sample.tiles import LabelledSums, SignedSums


def unbiased(sums: LabelledSums, n: int, m: int) -> torch.Tensor:
    """`MMD²_u = S_xx/(n(n-1)) + S_yy/(m(m-1)) - 2 S_xy/(nm)` of every labelling, `(P,)` float64.

    `S_xy = aᵀr - S_xx` and `S_yy = 1ᵀr - 2aᵀr + S_xx` with `r = K0 1`.
    """
    cross = sums.touching - sums.within
    other = sums.total - 2.0 * sums.touching + sums.within
    return sums.within / (n * (n - 1)) + other / (m * (m - 1)) - 2.0 * cross / (n * m)


def biased(sums: LabelledSums, own: torch.Tensor, own_total: float, n: int, m: int) -> torch.Tensor:
    """The V-statistic `S_xx/n² + S_yy/m² - 2 S_xy/(nm)`, points with themselves included, `(P,)` float64.

    Args:
        sums: over pairs of different points.
        own: `(P,)`, `Σ k(x_i, x_i)` of every labelling.
        own_total: the same over all N points.
        n: points labelled X.
        m: the others.
    """
    cross = sums.touching - sums.within
    other = sums.total - 2.0 * sums.touching + sums.within
    return (sums.within + own) / n**2 + (other + own_total - own) / m**2 - 2.0 * cross / (n * m)


def paired(forms: torch.Tensor, n: int) -> torch.Tensor:
    """`epsᵀ H0 eps / (n(n-1))`: the paired form of MMD²_u with the members of pairs swapped by the signs."""
    return forms / (n * (n - 1))


def unbiased_of_pairs(sums: SignedSums, n: int) -> torch.Tensor:
    """MMD²_u of the samples that the signs make, `(P,)` float64.

    With `S = S_xx + S_yy`, `T = S + 2 S_xy` and `C = Σ k(x_i, y_i)`, of which no sign changes T or C:
    `epsᵀ H0 eps = S - 2 S_xy + 2C`, so that `S = (epsᵀ H0 eps + T) / 2 - C`.
    """
    within = 0.5 * (sums.forms + sums.total) - sums.cross
    return within / (n * (n - 1)) - (sums.total - within) / n**2


def biased_of_pairs(sums: SignedSums, own_total: float, n: int) -> torch.Tensor:
    """The V-statistic of the samples that the signs make, `epsᵀ H eps / n²`, `(P,)` float64.

    Args:
        sums: over pairs.
        own_total: `Σ k(z, z)` over all 2n points: the diagonal of H sums to it less `2 Σ k(x_i, y_i)`.
        n: pairs.
    """
    return (sums.forms + own_total - 2.0 * sums.cross) / n**2
