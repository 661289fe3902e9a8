"""Seeds: a function of (seed, stage, item), the same on every machine and for ever."""

from itertools import product

from gebm.cluster.randomness import derive_seed


def test_a_seed_never_changes_between_versions() -> None:
    assert derive_seed(0, "sample", "item-0") == 6729865177438076921
    assert derive_seed(0, "sample", 0) == 6751746947874894980


def test_every_part_of_the_triple_counts() -> None:
    items: tuple[str | int, ...] = (0, 1, "0", "1", "é")
    triples = list(product((0, 1, 2**40), ("sample", "train", "sample/1"), items))
    assert len({derive_seed(seed, stage, item) for seed, stage, item in triples}) == len(triples)


def test_seeds_have_63_bits_that_are_all_used() -> None:
    """Each of 63 bits is 1 in half of 4,000 seeds, within 5 standard deviations (false alarm 4e-5)."""
    seeds = [derive_seed(7, "bits", item) for item in range(4000)]
    assert 0 <= min(seeds) and max(seeds) < 2**63
    for bit in range(63):
        assert abs(sum(seed >> bit & 1 for seed in seeds) - 2000) < 5 * 4000**0.5 / 2
