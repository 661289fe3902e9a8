"""The block test of a stream: the mean over blocks of the paired form, whatever pieces the stream comes in."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, norm

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.distributed import stream
from gebm.evaluation.two_sample.distributed.stream import stream_block_test


def draws(n: int, shift: float = 0.0, dimension: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dimension)) + 9.0, rng.normal(size=(n, dimension)) + 9.0 + shift


def pieces(sample: np.ndarray, size: int) -> list[np.ndarray]:
    return [sample[start : start + size] for start in range(0, len(sample), size)]


def values_by_hand(x: np.ndarray, y: np.ndarray, block: int, s: float) -> np.ndarray:
    """The paired form in each block, by its definition."""
    found = []
    for start in range(0, len(x) // block * block, block):
        a, b = x[start : start + block], y[start : start + block]
        xx, yy, xy = (
            np.exp(-np.square(left[:, None] - right).sum(-1) / (2 * s**2)) for left, right in ((a, a), (b, b), (a, b))
        )
        h = xx + yy - xy - xy.T
        found.append((h.sum() - np.trace(h)) / (block * (block - 1)))
    return np.array(found)


@pytest.mark.parametrize("block", [2, 30, 3000])
def test_a_stream_gives_the_mean_and_the_error_over_its_blocks(block: int) -> None:
    x, y = draws(6500, shift=0.1)
    expected = values_by_hand(x, y, block, 1.5)
    result = stream_block_test(pieces(x, 1000), pieces(y, 777), block=block, bandwidth=1.5)
    assert (result.n, result.points_used) == (6500, 2 * len(expected) * block)
    assert result.statistic == pytest.approx(expected.mean(), abs=1e-8)
    error = expected.std(ddof=1) / sqrt(len(expected))
    assert result.p_value == pytest.approx(norm.sf(expected.mean() / error), rel=1e-3)
    flipped = stream_block_test(
        pieces(x, 1000), pieces(y, 777), block=block, bandwidth=1.5, null="sign_flip", permutations=99
    )
    assert flipped.statistic == pytest.approx(expected.mean(), abs=1e-8) and flipped.exact


def test_the_pieces_of_a_stream_do_not_matter() -> None:
    x, y = draws(5000)
    results = {stream_block_test(pieces(x, size), pieces(y, 5000), block=20) for size in (1, 999, 5000)}
    assert len(results) == 1


def test_sign_flips_of_a_stream_keep_the_level_and_see_a_difference() -> None:
    def rejections(shift: float, count: int) -> int:
        found = 0
        for seed in range(count):
            x, y = draws(120, shift, seed=seed)
            found += stream_block_test([x], [y], block=10, null="sign_flip", permutations=19, seed=seed).reject
        return found

    low, high = binom.ppf([0.0005, 0.9995], 400, 0.05)  # a false alarm in a thousand
    assert low <= rejections(0.0, 400) <= high
    assert rejections(0.8, 40) >= 38


def test_streams_that_cannot_be_tested_are_refused() -> None:
    x, y = draws(100)
    with pytest.raises(InputError, match="y: it ends before the other sample"):
        stream_block_test([x], [y[:90]], block=10)
    with pytest.raises(InputError, match="100 pairs do not make 2 blocks of 60"):
        stream_block_test([x], [y], block=60)
    with pytest.raises(InputError, match="x has dimension 3 and y has 2"):
        stream_block_test([x], [y[:, 1:]], block=10)
    with pytest.raises(InputError, match="a stream is tested with 'normal' or 'sign_flip'"):
        stream_block_test([x], [y], block=10, null="bins")  # type: ignore[arg-type]
    y[3] = np.nan
    with pytest.raises(InputError, match="y: 1 of 100 points hold NaN"):
        stream_block_test([x], [y], block=10)


def test_a_file_is_read_in_pieces_and_one_that_is_cut_short_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "READ_BYTES", 1000)
    path = tmp_path / "x.npy"
    values = np.arange(6000, dtype=np.float32).reshape(500, 3, 4)
    np.save(path, values)
    found = list(stream.pieces_of_file(str(path)))
    assert len(found) == 25 and np.array_equal(np.concatenate(found), values.reshape(500, 12))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"x\.npy is cut short"):
        list(stream.pieces_of_file(str(path)))
