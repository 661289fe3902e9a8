"""Which of two generators is closer to the data? (Bounliphone et al., ICLR 2016)

At large n every plain two-sample test rejects; this one answers the question that users ask. With P the data,
`H0: MMD²(P, Q_model) >= MMD²(P, Q_base)`; a small p-value says that the model is closer.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from scipy.stats import norm

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.bandwidth import choose_kernel
from gebm.evaluation.two_sample.kernels import (
    AnyKernel,
    Bandwidth,
    KernelChoice,
    bandwidth_of,
    name_of,
    translation_invariant,
)
from gebm.evaluation.two_sample.mmd import check_permutations, check_settings
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.samples import Rows, Sample, as_samples, pool, prepare_rows
from gebm.evaluation.two_sample.tiles import cross_sums


@dataclass(frozen=True)
class RelativeResult:
    """Outcome of the relative-similarity test and everything needed to repeat it.

    Attributes:
        statistic: `MMD²_u(x, base) - MMD²_u(x, model)` in the paired form; positive if the model is closer.
        standard_error: of the statistic.
        z: `statistic / standard_error`; 0 when both vanish.
        p_value: one-sided, from the normal approximation.
        reject: whether `p_value <= level`: the model is closer than its base.
        sign_flip_p_value: one-sided, exact in finite samples under "model and base have the same law".
        n: points in each of the three samples.
        dimension: of the points.
        kernel: name of the kernel.
        bandwidth: its `s`; None for kernels without one; for a sum, one for each term.
        permutations: sign vectors of the exact companion.
        level: the level tested at.
        seed: of everything random.
    """

    statistic: float
    standard_error: float
    z: float
    p_value: float
    reject: bool
    sign_flip_p_value: float
    n: int
    dimension: int
    kernel: str
    bandwidth: float | tuple[float | None, ...] | None
    permutations: int
    level: float
    seed: int


def relative_mmd_test(
    x: Sample,
    model: Sample,
    base: Sample,
    *,
    kernel: KernelChoice = "gaussian",
    bandwidth: Bandwidth = "median",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> RelativeResult:
    """Test whether `model` is closer to `x` than `base` is, in MMD.

    The statistic is the mean over pairs `i ≠ j` of
    `h_ij = k(b_i,b_j) - k(x_i,b_j) - k(b_i,x_j) - [k(m_i,m_j) - k(x_i,m_j) - k(m_i,x_j)]`, asymptotically
    normal with variance `(4/n) Var_i(mean_j h_ij)`. Rows i of `model` and `base` may be dependent (same
    latent start): the variance accounts for it.

    The exact companion flips which of `(m_i, b_i)` is the model. The flipped statistic is linear in the
    signs, `Σ_i eps_i g_i / (n(n-1))` with `g_i = Σ_{j≠i} [k(b_i,b_j) - k(m_i,m_j) - k(m_i,b_j) + k(b_i,m_j)
    - 2 k(x_j,b_i) + 2 k(x_j,m_i)]`, so that it costs nothing beyond sums over rows.

    Args:
        x: data `(n, d)`; arrays or tensors, images are flattened.
        model: `(n, d)`.
        base: `(n, d)`.
        kernel: as for `mmd_test`.
        bandwidth: the kernel's `s`, or `median`, of all three samples pooled.
        permutations: sign vectors of the exact companion.
        level: probability of a false alarm.
        seed: of the shuffle and the sign vectors.
        device: where to compute; None for that of `x`.

    Raises:
        InputError: samples that cannot be compared, unequal sizes, unknown settings.
    """
    check_settings(kernel, bandwidth, level)
    check_permutations(permutations, level)
    samples = as_samples({"x": x, "model": model, "base": base}, device)
    n = check_equal_sizes(samples)
    rng = np.random.default_rng(derive_seed(seed, "two_sample", "relative"))
    order, heads = order_of_triples(n, rng)
    pooled = pool(samples, order, translation_invariant(kernel))
    chosen = choose_kernel(kernel, bandwidth, pooled)
    rows = prepare_rows(pooled, chosen)
    heads = heads.to(rows.points.device)
    data, u, v = (rows.every(3, i) for i in range(3))
    sums = _row_sums(data, u, v, heads, chosen)
    found = outcome_of_sums(sums, heads, rows.precision, permutations, rng)
    return RelativeResult(
        **found.measured(),
        reject=found.p_value <= level,
        n=n,
        dimension=samples[0].shape[1],
        kernel=name_of(kernel),
        bandwidth=bandwidth_of(chosen),
        permutations=permutations,
        level=level,
        seed=seed,
    )


def check_equal_sizes(samples: Sequence[Sized]) -> int:
    """How many points data, model and base have each; refuses them where that differs."""
    n = len(samples[0])
    if any(len(sample) != n for sample in samples):
        sizes = ", ".join(str(len(sample)) for sample in samples)
        raise InputError(f"x, model and base must have equally many points, got {sizes}: take the same number of each")
    return n


def order_of_triples(n: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random order `(3n,)` of the stacked data, model and base, in which triples `(x_i, u_i, v_i)` follow each other,
    and `(n,)` bool, whether u is the model.

    The coin makes (u_i, v_i) = (m_i, b_i) or (b_i, m_i): all that is computed, including its rounding, is then
    independent of which of the two is the model.
    """
    triples = torch.from_numpy(rng.permutation(n))
    heads = torch.from_numpy(rng.integers(0, 2, size=n)).bool()
    u_order = torch.where(heads, triples + n, triples + 2 * n)
    v_order = torch.where(heads, triples + 2 * n, triples + n)
    return torch.stack([triples, u_order, v_order], 1).flatten(), heads


class Outcome(NamedTuple):
    """The statistic with its standard error and normal p-value, and its exact null."""

    statistic: float
    standard_error: float
    z: float
    p_value: float
    exact: NullSample

    def measured(self) -> "Measured":
        """The fields of a result that are measured."""
        return {
            "statistic": self.statistic,
            "standard_error": self.standard_error,
            "z": self.z,
            "p_value": self.p_value,
            "sign_flip_p_value": self.exact.p_value(),
        }


class Measured(TypedDict):
    """Those fields of `RelativeResult`."""

    statistic: float
    standard_error: float
    z: float
    p_value: float
    sign_flip_p_value: float


def outcome_of_sums(
    sums: "RowSums", heads: torch.Tensor, precision: torch.dtype, permutations: int, rng: np.random.Generator
) -> Outcome:
    """The outcome from sums over rows of kernel values of `precision`; `rng` draws the sign vectors."""
    n = len(heads)
    scale = 1.0 / (n * (n - 1))
    signs = torch.where(heads, 1.0, -1.0).to(sums.uu.all)  # +1 where u is the model
    g = sums.vv.all - sums.uu.all - sums.uv.all + sums.vu.all - 2.0 * sums.vx.all + 2.0 * sums.ux.all
    statistic = float((signs * g).sum()) * scale
    projection = _projection(sums, heads) / (n - 1)
    standard_error = float((4.0 / n * projection.var(correction=1)).sqrt())
    magnitude = float(sum(part.all.abs().sum() for part in sums)) * scale
    rounding = rounding_of_mean(magnitude, n, precision)
    p_value, z = _normal_p_value(statistic, standard_error, rounding)
    flips = torch.from_numpy(2.0 * rng.integers(0, 2, size=(permutations, n)) - 1.0).to(g)
    return Outcome(statistic, standard_error, z, p_value, NullSample(statistic, (flips @ g).cpu() * scale, rounding))


class _Sums(NamedTuple):
    """`Σ_{j≠i} k(a_i, b_j)` for each i: over all j, over those where u is the model, and over the others."""

    all: torch.Tensor
    heads: torch.Tensor
    tails: torch.Tensor


class RowSums(NamedTuple):
    """Sums over rows of the kernel between data x and the two members u, v of each pair: `uv` sums `k(u_i,
    v_j)`."""

    uu: _Sums
    vv: _Sums
    uv: _Sums
    vu: _Sums
    xu: _Sums
    xv: _Sums
    ux: _Sums
    vx: _Sums


def row_sums_of_weighted(
    uu: torch.Tensor,
    vv: torch.Tensor,
    uv: torch.Tensor,
    vu: torch.Tensor,
    xu: torch.Tensor,
    xv: torch.Tensor,
    ux: torch.Tensor,
    vx: torch.Tensor,
) -> RowSums:
    """From sums `(n, 2)` with the weights 1 and "u is the model"."""

    def split(part: torch.Tensor) -> _Sums:
        return _Sums(part[:, 0], part[:, 1], part[:, 0] - part[:, 1])

    return RowSums(split(uu), split(vv), split(uv), split(vu), split(xu), split(xv), split(ux), split(vx))


def _row_sums(x: Rows, u: Rows, v: Rows, heads: torch.Tensor, kernel: AnyKernel) -> RowSums:
    weights = torch.stack([torch.ones(len(heads)), heads.cpu().to(torch.float32)], 1)

    def both(a: Rows, b: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        return cross_sums(a, b, kernel, weights, weights)

    uv, vu = both(u, v)
    xu, ux = both(x, u)
    xv, vx = both(x, v)
    return row_sums_of_weighted(both(u, u)[0], both(v, v)[0], uv, vu, xu, xv, ux, vx)


def _projection(sums: RowSums, heads: torch.Tensor) -> torch.Tensor:
    """`Σ_{j≠i} h_ij` for each i, `(n,)`. On heads u is the model and v the base, on tails the reverse."""
    x_b = sums.xv.heads + sums.xu.tails
    x_m = sums.xu.heads + sums.xv.tails
    b_b = torch.where(heads, sums.vv.heads + sums.vu.tails, sums.uv.heads + sums.uu.tails)
    m_m = torch.where(heads, sums.uu.heads + sums.uv.tails, sums.vu.heads + sums.vv.tails)
    b_x = torch.where(heads, sums.vx.all, sums.ux.all)
    m_x = torch.where(heads, sums.ux.all, sums.vx.all)
    return b_b - x_b - b_x - (m_m - x_m - m_x)


def _normal_p_value(statistic: float, standard_error: float, rounding: float) -> tuple[float, float]:
    """One-sided p-value and z. A statistic within rounding of zero is no evidence, whatever its error."""
    if abs(statistic) <= rounding:
        return (0.5 if standard_error > rounding else 1.0), 0.0
    z = statistic / standard_error if standard_error > 0 else float(np.sign(statistic)) * np.inf
    return float(norm.sf(z)), float(z)
