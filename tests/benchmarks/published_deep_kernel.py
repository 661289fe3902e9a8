"""The objective of deep kernels as its authors' public code computes it: our baseline of speed, and a reference.

Restated from the formulas of Liu et al. (ICML 2020) in the order of operations of github.com/fengliu90/DK-for-TST:
three blocks of distances twice over, three kernel blocks of two exponentials each, automatic differentiation through
all.
"""

import torch


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    squares = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2.0 * a @ b.T
    squares[squares < 0] = 0
    return squares


def published_power(
    features: torch.Tensor,
    points: torch.Tensor,
    feature_scale: torch.Tensor,
    point_scale: torch.Tensor,
    mixing: torch.Tensor,
) -> torch.Tensor:
    """J between the first half of the rows and the second.

    Args:
        features: `(2n, p)`.
        points: `(2n, d)`.
        feature_scale: sigma_phi.
        point_scale: sigma_q.
        mixing: eps.
    """
    n = len(features) // 2
    sides = [(features[:n], points[:n]), (features[n:], points[n:])]
    kernels = []
    for (f, x), (g, y) in ((sides[0], sides[0]), (sides[1], sides[1]), (sides[0], sides[1])):
        apart, apart_points = squared_distances(f, g), squared_distances(x, y)
        both = torch.exp(-(apart / feature_scale) - apart_points / point_scale)
        kernels.append((1 - mixing) * both + mixing * torch.exp(-apart_points / point_scale))
    xx, yy, xy = kernels
    within = ((xx.sum() - xx.diag().sum()) + (yy.sum() - yy.diag().sum())) / (n * (n - 1))
    mmd = within - 2 * (xy.sum() - xy.diag().sum()) / (n * (n - 1))
    h = xx + yy - xy - xy.T
    rows = h.sum(1) / n
    variance = 4 * (torch.dot(rows, rows) / n - (h.sum() / n**2) ** 2)
    return mmd / torch.sqrt(variance + 1e-8)
