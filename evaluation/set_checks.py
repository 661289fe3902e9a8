"""Whether shard sets can be compared, and what a reader of the comparison should know of them."""

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.evaluation.settings import EvaluationSettings


def check_sets(sets: dict[str, str], settings: EvaluationSettings) -> list[str]:
    """Refuse unequal sizes before any work, and warn of images of different shapes."""
    indexes = {name: load_index(url) for name, url in sets.items()}
    sizes = {name: index.total for name, index in indexes.items()}
    warnings = []
    if len(set(sizes.values())) > 1:
        spelled = ", ".join(f"{name} has {size} samples" for name, size in sizes.items())
        if not settings.allow_unequal_sizes and ("fid" in settings.metrics or "base" in sets):
            raise InputError(
                f"{spelled}: FID depends on the number of samples; give sets of one size, or set "
                f"evaluation.allow_unequal_sizes"
            )
        warnings.append(f"{spelled}: a FID is comparable only at equal numbers of samples.")
    shapes = {name: index.image_shape for name, index in indexes.items()}
    if len(set(shapes.values())) > 1:
        spelled = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
        warnings.append(f"The images differ in shape ({spelled}); the extractor resizes them to one.")
    return warnings


def check_dimension(features: dict[str, np.ndarray], settings: EvaluationSettings) -> list[str]:
    """Warn of a FID on fewer samples than twice the dimension of the features `(n, d)` of each set."""
    count = min(len(values) for values in features.values())
    dimension = features["reference"].shape[1]
    if "fid" in settings.metrics and count < 2 * dimension:
        return [
            f"{count} samples for features of dimension {dimension}: the covariances are nearly singular and "
            f"FID is far above its value at many samples; use at least {2 * dimension}, or a smaller layer."
        ]
    return []
