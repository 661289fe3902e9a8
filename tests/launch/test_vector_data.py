"""Tables, toys, numpy files and stacked digits become data sets whose content can be checked against its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.reader import ImageBatch, read_all
from gebm.launch import stages
from gebm.launch.config import DataSettings, dump_recipe, load_recipe, parse_recipe
from gebm.launch.data import mnist, toy
from gebm.launch.data.numpy_file import write_numpy_file
from gebm.launch.data.sources import SOURCES
from gebm.launch.data.splits import SPLITS
from gebm.launch.data.stacked_mnist import DIGITS, write_stacked_mnist
from gebm.launch.data.tabular import TABLES, load_table, spread, write_tabular
from gebm.launch.data.toy import CURVES, MIXTURES, TOYS, draw_toy, write_toy
from gebm.launch.run_directory import with_data


def read_sets(out: Path) -> dict[str, ImageBatch]:
    return {split: read_all(str(out / split)) for split in SPLITS if (out / split).exists()}


def file_digests(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Tables of scikit-learn.


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wine") / "data"
    assert write_tabular("wine", str(out), fractions=(0.6, 0.2, 0.2), seed=3)
    return out


def test_every_recorded_row_is_in_one_split_with_its_class(wine):
    table, sets = load_table("wine"), read_sets(wine)
    assert {split: len(batch.images) for split, batch in sets.items()} == {"train": 106, "validation": 36, "test": 36}
    kept = storage.read_json(str(wine / "standardisation.json"))
    assert kept["names"][:2] == ["alcohol", "malic_acid"]
    stored = np.concatenate([batch.images for batch in sets.values()]).astype(np.float64)
    recovered = stored * kept["scale"] + kept["mean"]
    distance = np.abs(recovered[:, None] - table.values[None]) / [np.diff(np.unique(c)).min() for c in table.values.T]
    # Spread over one step, so at most half a step away; 0.01 for the rounding to float32.
    matches = (distance < 0.51).all(axis=2)
    assert (matches.sum(axis=0) == 1).all() and (matches.sum(axis=1) == 1).all()
    labels = np.concatenate([batch.labels for batch in sets.values()])
    assert np.array_equal(table.classes[matches.argmax(axis=1)], labels)


def test_tables_are_standardised_with_statistics_of_the_training_rows_alone(wine):
    sets = read_sets(wine)
    training = sets["train"].images.astype(np.float64)
    assert np.abs(training.mean(axis=0)).max() < 1e-6
    assert np.abs(training.std(axis=0) - 1).max() < 1e-6
    # Were all rows used, these would be about as close as those of training.
    assert np.abs(sets["test"].images.mean(axis=0)).max() > 0.05


def test_a_table_depends_on_its_seed_alone(wine, tmp_path):
    write_tabular("wine", str(tmp_path / "same"), fractions=(0.6, 0.2, 0.2), seed=3)
    write_tabular("wine", str(tmp_path / "other"), fractions=(0.6, 0.2, 0.2), seed=4)
    assert file_digests(tmp_path / "same") == file_digests(wine)
    assert not np.array_equal(read_sets(tmp_path / "other")["train"].images, read_sets(wine)["train"].images)
    assert not write_tabular("wine", str(wine), fractions=(0.6, 0.2, 0.2), seed=3)
    with pytest.raises(InputError, match="belongs to another data set: its name is wine, not iris"):
        write_tabular("iris", str(wine), fractions=(0.6, 0.2, 0.2), seed=3)


def test_spread_values_stay_in_their_cell_and_fill_it():
    """Kolmogorov-Smirnov of the noise against the uniform law on its cell, p > 1e-4 (the false-alarm rate)."""
    values = np.repeat([[0.0, 10.0], [0.5, 10.2], [2.0, 10.7]], 500, axis=0)
    noise = (spread(values, np.random.default_rng(0)) - values) / [0.5, 0.2]
    assert np.abs(noise).max() <= 0.5 + 1e-12
    for column in noise.T:
        assert stats.kstest(column, stats.uniform(-0.5, 1).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "rows", "columns", "classes"),
    [
        ("breast_cancer", 569, 30, 2),
        ("wine", 178, 13, 3),
        ("diabetes", 442, 10, None),
        ("digits", 1797, 61, 10),
        ("iris", 150, 4, 3),
    ],
)
def test_every_table_loads_without_columns_that_never_vary(name, rows, columns, classes):
    table = load_table(name)
    assert table.values.shape == (rows, columns) and len(table.names) == columns
    assert (table.values.std(axis=0) > 0).all() and table.number_of_classes == classes
    assert name in TABLES


def test_diabetes_is_taken_as_it_was_recorded():
    """The packaged default is scaled with the statistics of all rows, test rows included."""
    assert load_table("diabetes").values[:, 0].max() == 79  # years


# Toys.


def test_curves_carry_their_points_exactly_and_unevenly():
    points = {name: draw_toy(name, 4000, np.random.default_rng(7)) for name in CURVES}
    x, y = points["parabola"].T
    assert np.allclose(y, x**2 - 1) and -1.5 <= x.min() and x.max() <= 1.5
    x, y = points["sine"].T
    assert np.allclose(y, np.sin(np.pi * x / 2 + np.pi), atol=1e-12)
    assert np.allclose(np.hypot(*points["ring"].T), 1)
    x, y = points["spiral"].T
    turns = (np.hypot(x, y) - 0.3) / 1.2
    assert np.allclose(np.arctan2(y, x), np.angle(np.exp(3j * np.pi * turns)))
    # The share on the first half of the curve within 5 standard errors (false alarm 6e-7).
    share = 0.75 * stats.beta(2, 6).cdf(0.5) + 0.25 * stats.beta(12, 2).cdf(0.5)
    found = np.mean(points["parabola"][:, 0] < 0)
    assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / 4000) and share > 0.7


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_have_the_distribution_that_they_name(name):
    """Kolmogorov-Smirnov with 4,000 draws, p > 1e-4 (the false-alarm rate)."""
    draws = draw_toy(name, 4000, np.random.default_rng(11))
    assert draws.shape == (4000, 1)
    assert sum(weight for weight, _, _ in MIXTURES[name]) == pytest.approx(1)

    def distribution(x: np.ndarray) -> np.ndarray:
        return sum(weight * stats.norm(mean, deviation).cdf(x) for weight, mean, deviation in MIXTURES[name])

    assert stats.kstest(draws[:, 0], distribution).pvalue > 1e-4


def test_the_splits_of_a_toy_are_draws_of_their_own(tmp_path):
    assert write_toy("ring", str(tmp_path / "a"), counts=(30, 30, 30), seed=1, shard_size=20)
    sets = read_sets(tmp_path / "a")
    rows = np.concatenate([batch.images for batch in sets.values()])
    assert len(np.unique(rows, axis=0)) == 90 and sets["train"].labels is None
    assert not write_toy("ring", str(tmp_path / "a"), counts=(30, 30, 30), seed=1, shard_size=20)
    write_toy("ring", str(tmp_path / "b"), counts=(30, 30, 30), seed=2, shard_size=20)
    assert not np.array_equal(read_sets(tmp_path / "b")["train"].images, sets["train"].images)


# Stacked digits.


@pytest.fixture(scope="module")
def stacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stacked") / "data"
    assert write_stacked_mnist(str(out), seed=2, counts=(400, 60, 60), shard_size=200)
    return out


def test_the_label_of_a_stack_is_the_number_that_its_channels_spell(stacked):
    digits = mnist.split_digits(2, DIGITS)
    for split, batch in read_sets(stacked).items():
        assert batch.images.shape[1:] == (3, 32, 32)
        class_of = {image.tobytes(): int(label) for image, label in zip(*digits[split], strict=True)}
        # A digit of another split would not be found.
        spelled = [[class_of[channel.tobytes()] for channel in image] for image in batch.images]
        assert np.array_equal(np.array(spelled) @ (100, 10, 1), batch.labels)
    assert load_index(str(stacked / "validation")).classes == 1000


def test_no_digit_is_stacked_in_two_splits_and_every_class_is_as_likely(stacked):
    """Class counts of all 1,200 training channels: chi-square p > 1e-4 (the false-alarm rate)."""
    digits = mnist.split_digits(2, DIGITS)
    pools = [{image.tobytes() for image in images} for images, _ in digits.values()]
    assert [len(pool) for pool in pools] == list(DIGITS)
    assert len(set.union(*pools)) == sum(DIGITS)
    modes = read_all(str(stacked / "train")).labels
    assert modes is not None
    channels = np.concatenate([modes // 100, modes // 10 % 10, modes % 10])
    assert stats.chisquare(np.bincount(channels, minlength=10)).pvalue > 1e-4


def test_stacks_depend_on_their_seed_alone(stacked, tmp_path):
    write_stacked_mnist(str(tmp_path), seed=2, counts=(400, 60, 60), shard_size=200)
    assert file_digests(tmp_path) == file_digests(stacked)


# Files of numpy.


def test_a_numpy_file_becomes_splits_of_its_rows_with_their_labels(tmp_path):
    values = np.arange(60, dtype=np.float64).reshape(20, 3)
    np.save(tmp_path / "values.npy", values)
    np.save(tmp_path / "labels.npy", np.arange(20) % 4)
    arguments = {"labels": str(tmp_path / "labels.npy"), "fractions": (0.5, 0.25, 0.25)}
    assert write_numpy_file(str(tmp_path / "values.npy"), str(tmp_path / "out"), **arguments)
    sets = read_sets(tmp_path / "out")
    assert [len(batch.images) for batch in sets.values()] == [10, 5, 5]
    rows = np.concatenate([batch.images for batch in sets.values()])
    labels = np.concatenate([batch.labels for batch in sets.values()])
    order = np.argsort(rows[:, 0])
    assert np.array_equal(rows[order], values) and not np.array_equal(order, np.arange(20))
    assert np.array_equal(labels[order], np.arange(20) % 4)
    assert load_index(str(tmp_path / "out/test")).classes == 4
    assert not write_numpy_file(str(tmp_path / "values.npy"), str(tmp_path / "out"), **arguments)
    np.save(tmp_path / "values.npy", values + 1)
    with pytest.raises(InputError, match="belongs to another data set: its values is"):
        write_numpy_file(str(tmp_path / "values.npy"), str(tmp_path / "out"), **arguments)


def test_a_numpy_file_is_standardised_when_asked(tmp_path):
    np.save(tmp_path / "values.npy", np.random.default_rng(0).normal(5, 3, (50, 2)).astype(np.float32))
    write_numpy_file(str(tmp_path / "values.npy"), str(tmp_path / "out"), standardised=True, fractions=(1, 0, 0))
    (training,) = read_sets(tmp_path / "out").values()
    assert np.allclose(training.images.mean(axis=0), 0, atol=1e-6) and np.allclose(training.images.std(axis=0), 1)


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros(4), None, r"values\.npy holds float64 of shape \(4,\); give real numbers of shape \(n, d\)"),
        (np.zeros((4, 2), complex), None, "holds complex128"),
        (np.zeros((0, 2)), None, r"of shape \(0, 2\)"),
        (np.array([["a"]]), None, "holds <U1"),
        (np.array([[{}]], object), None, "is not a sound .npy file of numbers"),
        (np.array([[1.0], [np.nan]]), None, r"values\.npy: row 1 holds a value that is not finite"),
        (np.array([[1e300], [1.0]]), None, "row 0 holds a value that is not finite as float32"),
        (np.ones((4, 2)), np.zeros(3, int), r"labels\.npy holds int64 of shape \(3,\)"),
        (np.ones((4, 2)), np.zeros(4), r"labels\.npy holds float64"),
        (np.ones((4, 2)), np.array([0, 1, -1, 0]), r"labels\.npy holds int64 of shape \(4,\); give class numbers"),
        (np.ones((4, 2)), None, "column 0 does not vary in the training split"),
    ],
)
def test_a_numpy_file_of_anything_else_is_refused_and_nothing_is_left(values, labels, message, tmp_path):
    np.save(tmp_path / "values.npy", values, allow_pickle=True)
    arguments: dict = {"fractions": (1.0, 0.0, 0.0), "standardised": True}
    if labels is not None:
        np.save(tmp_path / "labels.npy", labels)
        arguments["labels"] = str(tmp_path / "labels.npy")
    with pytest.raises(InputError, match=message):
        write_numpy_file(str(tmp_path / "values.npy"), str(tmp_path / "out"), **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "a folder", "no array"])
def test_a_damaged_numpy_file_is_named(damage, tmp_path):
    file = tmp_path / "values.npy"
    np.save(file, np.ones((4, 2)))
    data = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes({"cut": data[:-3], "longer": data + data, "no array": b"1,2,3"}[damage])
    with pytest.raises(InputError, match=str(file)):
        write_numpy_file(str(file), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# In a recipe.


@pytest.mark.parametrize(
    "settings",
    [
        {"source": "mnist", "counts": (12, 4, 4)},
        {"source": "stacked_mnist", "counts": (12, 4, 4)},
        {"source": "toy", "name": "spiral", "counts": (12, 4, 4)},
        {"source": "toy", "name": "two_modes", "counts": (12, 4, 4)},
        {"source": "tabular", "name": "iris", "fractions": (0.5, 0.25, 0.25)},
        {"source": "tabular", "name": "diabetes"},
    ],
    ids=lambda settings: f"{settings['source']}-{settings.get('name')}",
)
def test_a_source_writes_what_it_said_it_would(settings, tmp_path):
    data = DataSettings(**settings, shard_size=8)
    source = SOURCES[data.source]
    said = source.content(data)
    told: list[tuple[int, int]] = []
    assert source.write(str(tmp_path), data, 5, lambda *state: told.append(state))
    for split in SPLITS:
        index = load_index(str(tmp_path / split))
        assert (index.image_shape, index.classes) == said
        assert max(record.count for record in index.shards) <= 8
    total = sum(load_index(str(tmp_path / split)).total for split in SPLITS)
    assert told[-1] == (total, total)


def test_a_run_writes_the_data_that_its_recipe_names(tmp_path):
    overrides = ["data.source=toy", "data.name=ring", "data.counts=[40, 10, 10]", "data.shard_size=20"]
    recipe = load_recipe("mnist", overrides)
    assert parse_recipe(dump_recipe(recipe), "config.toml") == recipe
    stages.prepare_data(str(tmp_path), recipe, lambda *_: None)
    assert stages.has_data(str(tmp_path), recipe)
    assert load_index(str(tmp_path / "data/train")).image_shape == (2,)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source=toy"], "source 'toy' needs a name, one of two_modes, three_modes, parabola"),
        (
            ["data.source=tabular", "data.name=boston"],
            "source 'tabular' needs a name, one of breast_cancer, .*, iris, not 'boston'",
        ),
    ],
)
def test_a_table_or_toy_that_is_not_there_is_refused_with_the_recipe(overrides, message):
    with pytest.raises(InputError, match=f"data: {message}"):
        load_recipe("mnist", overrides)


def test_data_given_on_the_command_line_replaces_the_recipes_own(tmp_path):
    toy.write_toy("ring", str(tmp_path), counts=(8, 4, 4))
    recipe = load_recipe("mnist", ["data.source=toy", "data.name=sine"])
    recipe = recipe.model_copy(update={"data": with_data(recipe.data, str(tmp_path), None)})
    assert (recipe.data.source, recipe.data.name) == ("shards", None)
    assert parse_recipe(dump_recipe(recipe), "config.toml") == recipe


def test_every_toy_has_the_dimension_that_is_told_for_it():
    for name in TOYS:
        assert draw_toy(name, 3, np.random.default_rng(0)).shape == (3, toy.dimension(name))
