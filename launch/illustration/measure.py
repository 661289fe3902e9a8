"""How far the mass of a base, and of the model that re-weights it, is from the target's: counted in bins.

The target is known, so it is drawn afresh, and many times, instead of being taken from the training data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import norm

from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import read_all
from gebm.launch.config import Recipe
from gebm.launch.data.toy import CURVES, MIXTURES, draw_toy
from gebm.launch.run_directory import data_url
from gebm.trainer.model import GEBM, load_model

DRAWS = 100_000  # of the target and of the base each: a bin's share is known to about 0.001
BINS = 24
RIGHT_SUPPORT = 0.005  # mean distance from a curve that is only the rounding of following it
TRACE = 2001  # points that a curve is followed at


@dataclass(frozen=True)
class Measurement:
    """A case, measured. Points are `(n, d)`; shares are `(bins,)` and add up to 1.

    `weights` `(n,)`, mean 1, are `exp(-E - c)` of the points of the base, divided by their own mean: with them the
    base's points are the model's. `edges` `(bins + 1,)` are places on the line, or positions in [0, 1] along the curve.
    """

    toy: str
    model: GEBM
    target: np.ndarray
    base: np.ndarray
    weights: np.ndarray
    edges: np.ndarray
    target_shares: np.ndarray
    base_shares: np.ndarray
    model_shares: np.ndarray
    training_shares: np.ndarray
    base_distance: float
    """Mean distance of the base's points from the curve; 0 on the line."""
    model_distance: float
    exact_log_ratio: Callable[[np.ndarray], np.ndarray] | None
    """`log dP/dQ` at places `(n,)` of the line, which `-E - c` should be; None in the plane."""

    @property
    def error_before(self) -> float:
        """Total variation between the base's shares and the target's."""
        return total_variation(self.base_shares, self.target_shares)

    @property
    def error_after(self) -> float:
        """Total variation between the model's shares and the target's."""
        return total_variation(self.model_shares, self.target_shares)

    @property
    def error_of_training_data(self) -> float:
        """That of the training data itself: what any model of it is entitled to."""
        return total_variation(self.training_shares, self.target_shares)

    @property
    def effective_share(self) -> float:
        """Effective sample size of the weights over the number of draws: `(sum w)^2 / (n sum w^2)`."""
        return float(self.weights.sum() ** 2 / (len(self.weights) * np.square(self.weights).sum()))

    def numbers(self) -> dict[str, float | list[float]]:
        """What the page says, for programs."""
        return {
            "mass_error_base": self.error_before,
            "mass_error_model": self.error_after,
            "mass_error_training_data": self.error_of_training_data,
            "distance_base": self.base_distance,
            "distance_model": self.model_distance,
            "effective_share": self.effective_share,
            "log_partition": float(self.model.log_partition),
            "log_partition_error": float(self.model.log_partition_error),
            "target_shares": self.target_shares.tolist(),
            "base_shares": self.base_shares.tolist(),
            "model_shares": self.model_shares.tolist(),
        }


def measure(run: str, recipe: Recipe) -> Measurement:
    """Measure the finished run of a case whose data is a toy."""
    toy = recipe.data.name or ""
    model = load_model(run)
    target = draw_toy(toy, DRAWS, np.random.default_rng(derive_seed(recipe.seed, "illustration/target", toy)))
    training = read_all(data_url(run, recipe, "train")).images.astype(np.float64)
    prior = torch.Generator().manual_seed(derive_seed(recipe.seed, "illustration/prior", toy))
    with torch.no_grad():
        base = model.generate(model.sample_prior(DRAWS, prior)).double().numpy()
    weights = np.exp(log_weight(model, base))
    weights /= weights.mean()
    places, distances = places_of(toy, base)
    edges = bin_edges(toy)
    return Measurement(
        toy,
        model,
        target,
        base,
        weights,
        edges,
        shares(places_of(toy, target)[0], edges),
        shares(places, edges),
        shares(places, edges, weights),
        shares(places_of(toy, training)[0], edges),
        float(distances.mean()),
        float((weights * distances).mean()),
        _exact_log_ratio(recipe),
    )


def log_weight(model: GEBM, points: np.ndarray) -> np.ndarray:
    """`-E(x) - c` at points `(n, d)`: above 0 the model has more mass than its base, below 0 less."""
    with torch.no_grad():
        energies = model.energy(torch.from_numpy(points).float()).double().numpy()
    return -energies - float(model.log_partition)


def _exact_log_ratio(recipe: Recipe) -> Callable[[np.ndarray], np.ndarray] | None:
    toy = recipe.data.name or ""
    if toy not in MIXTURES or recipe.model.foreign is None:
        return None
    shares_of_data, means, deviations = np.array(MIXTURES[toy]).T
    shares_of_base = np.array(recipe.model.foreign.arguments["weights"])

    def log_ratio(places: np.ndarray) -> np.ndarray:
        densities = norm.logpdf(places[:, None], means, deviations)
        on_data, on_base = (logsumexp(densities, axis=1, b=each) for each in (shares_of_data, shares_of_base))
        return np.asarray(on_data - on_base)

    return log_ratio


def places_of(toy: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points `(n, d)` are, and how far off: on the line themselves and 0; else the position in [0, 1] of the
    nearest point of the curve, and the distance to it."""
    if toy in MIXTURES:
        return points[:, 0], np.zeros(len(points))
    positions = np.linspace(0, 1, TRACE)
    distances, nearest = cKDTree(np.stack(CURVES[toy](positions), axis=1)).query(points)
    return positions[nearest], distances


def bin_edges(toy: str) -> np.ndarray:
    """Edges of `BINS` equal bins: of the line, up to 3 deviations from the outer modes, or of the curve."""
    if toy not in MIXTURES:
        return np.linspace(0, 1, BINS + 1)
    _, means, deviations = np.array(MIXTURES[toy]).T
    return np.linspace((means - 3 * deviations).min(), (means + 3 * deviations).max(), BINS + 1)


def shares(places: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The share of the mass in each bin; what lies beyond the outer edges counts to the outer bins."""
    counts, _ = np.histogram(np.clip(places, edges[0], edges[-1]), edges, weights=weights)
    return counts / counts.sum()


def total_variation(first: np.ndarray, second: np.ndarray) -> float:
    """`1/2 sum |p - q|`: the share of the mass that would have to be moved, between 0 and 1."""
    return float(0.5 * np.abs(first - second).sum())
