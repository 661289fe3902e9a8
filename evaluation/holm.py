"""Several tests at once: Holm's step-down correction of their p-values.

Rejecting where the corrected p-value is at most `alpha` keeps the probability of one false rejection or more at
`alpha`, whatever the tests have in common. Holm, 1979, https://www.jstor.org/stable/4615733
"""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p-values, in the order given.

    Of m, the k-th smallest becomes `max_{j <= k} min(1, (m - j + 1) p_(j))`.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
