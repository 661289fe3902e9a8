"""Learnt kernels on tiles: every actor runs the network on the rows that it meets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gebm.evaluation.extractors.weights import state_digest
from gebm.evaluation.two_sample.distributed.table import FeatureTable, OpenTable
from gebm.evaluation.two_sample.distributed.tile_kernel import RowKernel
from gebm.evaluation.two_sample.learnt.learnt_kernel import LearntKernel
from gebm.evaluation.two_sample.samples import Extent, Rows, extent_of, row_form


@dataclass(frozen=True)
class LearntTiles(RowKernel):
    """A learnt kernel as tiles see it; made by `tiles_of_learnt`.

    Attributes:
        learnt: its map from points to rows, on which it is `kernel`.
        centre: `(columns,)` float64, taken off all rows.
    """

    learnt: LearntKernel
    centre: torch.Tensor

    def prepare(self, points: torch.Tensor) -> Rows:
        rows = self.learnt.rows(points)
        return self.form.rows(rows - self.centre.to(rows))

    def describe(self) -> dict[str, Any]:
        learnt = self.learnt
        return {
            "terms": [list(term) for term in learnt.kernel.terms],
            "featuriser": None if learnt.featuriser is None else state_digest(learnt.featuriser.state_dict()),
            "scales": [learnt.feature_scale, learnt.point_scale],
        }


def tiles_of_learnt(learnt: LearntKernel, tables: Sequence[FeatureTable]) -> LearntTiles:
    """The kernel for these samples, none of which it was trained on; it runs the network on all of them twice, to find
    their centre and how far they are from it.

    Raises:
        InputError: points that the kernel was not made for.
    """
    total, count = None, 0
    for rows in _rows(learnt, tables):
        sums = rows.sum(0, dtype=torch.float64)
        total = sums if total is None else total + sums
        count += len(rows)
    assert total is not None, "tables are not empty"
    centre = total / count
    largest = 0.0
    for rows in _rows(learnt, tables):
        largest = max(largest, extent_of(rows - centre.to(rows), manhattan=False).squared)
    form = row_form(count, len(centre), Extent(largest, 0.0), learnt.kernel)
    return LearntTiles(learnt.kernel, form, learnt, centre.cpu())


def _rows(learnt: LearntKernel, tables: Sequence[FeatureTable]) -> Iterator[torch.Tensor]:
    for table in tables:
        for piece in OpenTable(table).pieces():
            yield learnt.rows(piece)
