"""Which statistic goes with which null distribution, and why not with the others.

A statistic names the entries of the kernel matrix that it needs, a null turns it into a p-value. A null fits where
its relabellings keep the statistic's entries (exact nulls), or where the statistic has the limit that the null
stands for (asymptotic ones).
"""

from typing import Literal, NamedTuple

from gebm.cluster.errors import InputError

StatisticName = Literal["unbiased", "biased", "paired", "block", "linear_time", "incomplete"]
NullName = Literal["permutation", "sign_flip", "bins", "normal", "spectrum"]


class Statistic(NamedTuple):
    """An estimate of MMD² by the entries that it uses.

    Attributes:
        entries: `all` pairs of the pooled points, all pairs of `pairs` `(x_i, y_i)`, or those within `blocks` of
            pairs and between neighbouring blocks.
        formula: in words, for messages.
    """

    entries: Literal["all", "pairs", "blocks"]
    formula: str


STATISTICS: dict[StatisticName, Statistic] = {
    "unbiased": Statistic("all", "MMD²_u: means over all pairs of different points"),
    "biased": Statistic("all", "the V-statistic: means over all pairs, a point with itself included"),
    "paired": Statistic("pairs", "the mean of H_ij over all i ≠ j"),
    "block": Statistic("blocks", "the mean over disjoint blocks of pairs of the paired form in each"),
    "linear_time": Statistic("blocks", "blocks of two pairs"),
    "incomplete": Statistic("blocks", "the mean of H_ij over blocks i with blocks i .. i + reach"),
}


class Null(NamedTuple):
    """Where a p-value comes from.

    Attributes:
        exact: whether the level holds in finite samples.
        statistics: those that it takes, its own first.
        needs_pairs: whether x and y must be equally large.
    """

    exact: bool
    statistics: tuple[StatisticName, ...]
    needs_pairs: bool


NULLS: dict[NullName, Null] = {
    "permutation": Null(True, ("unbiased", "biased"), False),
    "sign_flip": Null(True, ("paired", "unbiased", "biased", "block", "linear_time", "incomplete"), True),
    "bins": Null(True, ("unbiased", "biased"), False),
    "normal": Null(False, ("block", "linear_time"), True),
    "spectrum": Null(False, ("unbiased", "biased", "paired"), False),
}

ALIASES: dict[str, NullName] = {"wild_bootstrap": "sign_flip"}
"""The Rademacher wild bootstrap of a statistic of pairs is its sign flips, within blocks where it has blocks."""

_PAIRS_BREAK = "which breaks the pairs that the statistic {statistic!r} is made of: take null='sign_flip'"
_DEGENERATE = (
    "but a statistic of all pairs is degenerate under P = Q and its limit is not normal: take null='spectrum', or "
    "statistic='block'"
)
_NEIGHBOURS = "but neighbouring blocks share points and their values depend on each other: take null='sign_flip'"
_WEIGHTED = "but a mean over independent blocks has a normal limit: take null='normal', or the exact null='sign_flip'"


def compose(statistic: str | None, null: str) -> tuple[StatisticName, NullName]:
    """The statistic and the null that two settings name; None is the null's own statistic.

    Raises:
        InputError: a name that does not exist, or two that do not fit together, with the reason and what to take.
    """
    name = ALIASES.get(null, null)
    if name not in NULLS:
        raise InputError(f"null: no null distribution {null!r}; there are {', '.join([*NULLS, *ALIASES, 'auto'])}")
    chosen_null = NULLS[name]  # type: ignore[index]
    if statistic is None:
        if null == "wild_bootstrap":
            return "block", "sign_flip"
        return chosen_null.statistics[0], name  # type: ignore[return-value]
    if statistic not in STATISTICS:
        raise InputError(f"statistic: no statistic {statistic!r}; there are {', '.join(STATISTICS)}")
    if statistic not in chosen_null.statistics:
        raise InputError(f"statistic: {_why_not(statistic, name)}")
    return statistic, name  # type: ignore[return-value]


def _why_not(statistic: str, null: str) -> str:
    if null == "permutation":
        return f"null='permutation' relabels all points, {_PAIRS_BREAK.format(statistic=statistic)}"
    if null == "bins":
        return f"null='bins' relabels whole bins, {_PAIRS_BREAK.format(statistic=statistic)}"
    if null == "normal":
        reason = _NEIGHBOURS if statistic == "incomplete" else _DEGENERATE
        return f"null='normal' takes a mean of independent values, {reason}"
    return f"null='spectrum' is the limit of statistics of all pairs, {_WEIGHTED}"


def check_sizes(statistic: StatisticName, null: NullName, n: int, m: int) -> None:
    """Refuse unequal sizes where pairs are needed.

    Raises:
        InputError: says which null takes unequal sizes.
    """
    if n == m:
        return
    if null == "sign_flip":
        raise InputError(f"null: sign flips need pairs, but x has {n} points and y has {m}; use null='permutation'")
    if NULLS[null].needs_pairs or STATISTICS[statistic].entries != "all":
        raise InputError(
            f"statistic: {statistic!r} needs pairs, but x has {n} points and y has {m}; use statistic='unbiased'"
        )
