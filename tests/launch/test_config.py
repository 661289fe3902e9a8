"""Recipes: validated, overridable, written out whole; and every mistake is named with its place."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gebm.cluster.errors import InputError
from gebm.launch.config import changed, dump_recipe, load_recipe, overridden, parse_override, parse_recipe, recipe_names
from gebm.launch.recipe_errors import toml_lines
from gebm.launch.run_directory import claimed_run, data_url, differences, load_run, with_data


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def mnist_text() -> str:
    return dump_recipe(load_recipe("mnist"))


def test_the_packaged_recipes_are_valid_and_called_what_their_files_are():
    assert {"mnist", "cifar10_convnet"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).name == name


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_being_written_and_read(name):
    recipe = load_recipe(name)
    assert parse_recipe(dump_recipe(recipe), "config.toml") == recipe


def test_overrides_are_toml_values_and_the_last_one_counts():
    recipe = load_recipe(
        "mnist",
        [
            "trainer.batch_size=32",
            "trainer.batch_size=64",
            "sampler.name=kla",
            'data.train="s3://bucket/train"',
            "trainer.betas=[0.0, 0.9]",
            "trainer.joint.base_learning_rate=2e-4",
        ],
    )
    assert recipe.trainer.batch_size == 64
    assert recipe.sampler.name == "kla"
    assert recipe.data.train == "s3://bucket/train"
    assert recipe.trainer.betas == (0.0, 0.9)
    assert recipe.trainer.joint.base_learning_rate == 2e-4


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1", 1),
        ("a.b=1.5", 1.5),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=kla", "kla"),
        ("a.b=data/train", "data/train"),
        ("a.b=s3://x/y", "s3://x/y"),
        ("a.b='q = 1'", "q = 1"),
    ],
)
def test_an_override_is_read_as_toml_or_as_a_bare_word(text, value):
    assert parse_override(text) == (("a", "b"), value)


@pytest.mark.parametrize("text", ["trainer.batch_size", "=3", "a..b=3", "a.b=[1,", "a.b=1 2"])
def test_a_malformed_override_is_refused_by_name(text):
    with pytest.raises(InputError) as refusal:
        parse_override(text)
    assert f"--set {text}: " in str(refusal.value)


def test_a_misspelt_key_names_itself_its_line_and_the_key_that_was_meant(tmp_path):
    path = write(tmp_path, mnist_text().replace("batch_size", "batch_sise"))
    line = next(n for n, text in enumerate(Path(path).read_text().splitlines(), 1) if "batch_sise" in text)
    with pytest.raises(InputError) as refusal:
        load_recipe(path)
    assert str(refusal.value) == (f"{path}:{line}: unknown key trainer.batch_sise; did you mean trainer.batch_size?")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.batch_sise=3", "unknown key trainer.batch_sise; did you mean trainer.batch_size?"),
        ("batch_size=3", "unknown key batch_size; did you mean trainer.batch_size?"),
        ("trainr.batch_size=3", "unknown key trainr; did you mean trainer?"),
        (
            "trainer.learning_rate=3",
            "unknown key trainer.learning_rate; did you mean trainer.base.learning_rate?",
        ),
        ("model.qqq=3", "unknown key model.qqq; [model] knows network, base, conditional"),
        ("trainer.batch_size=big", "trainer.batch_size: input should be a valid integer"),
        ("trainer.batch_size=0", "trainer.batch_size: input should be greater than 0, not 0"),
        ("sampler.name=ulla", "did you mean 'ula'?"),
        ("data.source=minst", "did you mean 'mnist'?"),
        ("seed.x=1", "seed is a value, not a section"),
        ("trainer=1", "trainer: "),
    ],
)
def test_a_bad_override_names_itself_and_what_was_meant(override, message):
    with pytest.raises(InputError) as refusal:
        load_recipe("mnist", [override])
    assert str(refusal.value).startswith(f"--set {override}: ")
    assert message in str(refusal.value)


def test_a_missing_section_and_broken_toml_are_named(tmp_path):
    path = write(tmp_path, 'name = "x"\n')
    with pytest.raises(InputError, match=r"mine\.toml: the key data is missing"):
        load_recipe(path)
    path = write(tmp_path, "name = \n")
    with pytest.raises(InputError, match=r"mine\.toml: not valid TOML: .*line 1"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("mnits", "did you mean 'mnist'"), ("none.toml", "no such recipe"), ("/tmp", "is a directory")],
)
def test_a_recipe_that_does_not_exist_is_named(name, message):
    with pytest.raises(InputError, match=message):
        load_recipe(name)


def test_lines_are_found_through_comments_sections_and_dotted_keys():
    text = "# a = 1\na = 1\n\n[b]  # b\nc = 2\nd.e = 3\n[b.f]\ng=4\n"
    assert toml_lines("[[x]]\ny = 1\n[[x]]\ny = 2\n")[("x", "1", "y")] == 4
    assert toml_lines(text) == {("a",): 2, ("b",): 4, ("b", "c"): 5, ("b", "d", "e"): 6, ("b", "f"): 7} | {
        ("b", "f", "g"): 8
    }


def test_a_mistake_in_one_of_several_tables_names_which(tmp_path):
    text = mnist_text()
    head = text[: text.index("[[tune.grids]]")] if "[[tune.grids]]" in text else text
    path = write(tmp_path, head.split("[tune]")[0] + "[tune]\n")
    grids = '[[tune.grids]]\nsampler = "ula"\nstep_sizes = [0.1]\n'
    rest = "\n[sampler]\n\n[evaluation]\n"
    good = Path(path).read_text() + grids
    Path(path).write_text(good + grids.replace("step_sizes", "step_size") + rest)
    line = len(good.splitlines()) + 3
    with pytest.raises(InputError) as refusal:
        load_recipe(path)
    assert str(refusal.value).startswith(
        f"{path}:{line}: unknown key tune.grids[1].step_size; did you mean tune.grids.step_sizes?"
    )


def test_options_are_validated_like_keys_of_a_recipe():
    sampler = load_recipe("mnist").sampler
    assert changed(sampler, {"steps": 7, "step_size": None}).steps == 7
    with pytest.raises(InputError, match="--step-size: step_size: input should be greater than 0, not -1"):
        changed(sampler, {"step_size": -1.0})


def test_overrides_of_one_section_reach_its_nested_keys_and_name_themselves():
    sampler = load_recipe("mnist").sampler
    given = ["sampler.schedule.shape=stepwise", "sampler.anneal.start=0.1", "sampler.anneal.steps=20"]
    found = overridden(sampler, "sampler", given)
    assert (found.schedule.shape, found.anneal.start, found.anneal.steps) == ("stepwise", 0.1, 20)
    assert overridden(sampler, "sampler", []) == sampler
    for override, message in (
        ("sampler.thin=0", "--set sampler.thin=0: thin: input should be greater than 0, not 0"),
        ("sampler.thinn=2", "--set sampler.thinn=2: unknown key thinn; did you mean thin?"),
        ("trainer.batch_size=2", r"only keys of \[sampler\] count here"),
        ("sampler.warmup=5", "warmup has nothing to choose"),
    ):
        with pytest.raises(InputError, match=message):
            overridden(sampler, "sampler", [override])


# The run directory.


def test_the_config_of_a_run_shows_the_penalty_that_its_recipe_left_to_the_objective(tmp_path):
    text = "\n".join(line for line in mnist_text().splitlines() if not line.startswith("gradient_penalty"))
    recipe = load_recipe(write(tmp_path, text), ["trainer.objective=wasserstein", "trainer.energy.chain_steps=0"])
    with claimed_run(str(tmp_path / "run"), recipe) as run:
        shown = tomllib.loads((Path(run) / "config.toml").read_text())["trainer"]
    assert shown["joint"]["gradient_penalty"] == shown["energy"]["gradient_penalty"] == 10.0


def test_a_run_is_claimed_by_its_resolved_recipe_and_found_again(tmp_path):
    recipe = load_recipe("mnist", ["seed=3"])
    with claimed_run(str(tmp_path / "run"), recipe) as run:
        assert load_run(run) == recipe
    with claimed_run(str(tmp_path / "run"), recipe) as again:
        assert again == run == str(tmp_path / "run")


def test_a_run_of_another_configuration_is_refused_by_naming_the_key(tmp_path):
    with claimed_run(str(tmp_path), load_recipe("mnist")):
        pass
    before = (tmp_path / "config.toml").read_bytes()
    with (
        pytest.raises(InputError, match=r"belongs to another run: trainer\.batch_size is \d+ there and 96"),
        claimed_run(str(tmp_path), load_recipe("mnist", ["trainer.batch_size=96"])),
    ):
        raise AssertionError("the run was claimed")
    assert (tmp_path / "config.toml").read_bytes() == before


def test_a_directory_of_something_else_is_never_made_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with (
        pytest.raises(InputError, match=r"holds thesis\.tex"),
        claimed_run(str(tmp_path), load_recipe("mnist")),
    ):
        raise AssertionError("the directory was claimed")


def test_a_new_run_that_refuses_its_input_leaves_the_directory_free(tmp_path):
    with pytest.raises(InputError), claimed_run(str(tmp_path / "run"), load_recipe("mnist")):
        raise InputError("bad shard")
    assert not (tmp_path / "run").exists()
    with claimed_run(str(tmp_path / "run"), load_recipe("mnist", ["seed=5"])):
        pass


def test_a_run_that_has_trained_stays_claimed_when_a_later_stage_is_refused(tmp_path):
    with pytest.raises(InputError), claimed_run(str(tmp_path / "run"), load_recipe("mnist")) as run:
        (Path(run) / "checkpoints/step-10").mkdir(parents=True)
        raise InputError("bad shard")
    assert load_run(run) == load_recipe("mnist")


def test_a_run_whose_training_only_began_is_given_up_when_its_input_is_refused(tmp_path):
    with pytest.raises(InputError), claimed_run(str(tmp_path / "run"), load_recipe("mnist")) as run:
        (Path(run) / "checkpoints").mkdir()
        (Path(run) / "checkpoints/manifest.json").write_text("{}")
        raise InputError("bad shard")
    assert not (tmp_path / "run").exists()


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        load_run(str(tmp_path))


def test_differences_name_nested_keys():
    there, here = load_recipe("mnist"), load_recipe("mnist", ["trainer.joint.steps=5", "seed=2"])
    assert differences(there, here) == [
        "seed is 0 there and 2 here",
        f"trainer.joint.steps is {there.trainer.joint.steps} there and 5 here",
    ]


def test_data_lies_in_the_run_unless_its_url_is_absolute(tmp_path):
    recipe = load_recipe("mnist", ["data.test=s3://bucket/test", "data.validation=/there"])
    assert data_url(str(tmp_path), recipe, "train") == f"{tmp_path}/data/train"
    assert data_url(str(tmp_path), recipe, "validation") == "/there"
    assert data_url(str(tmp_path), recipe, "test") == "s3://bucket/test"
    with pytest.raises(InputError, match=r"recipe cifar10_convnet: data\.train is not set; .*--data"):
        data_url(str(tmp_path), load_recipe("cifar10_convnet"), "train")


def test_data_on_the_command_line_may_be_the_folder_of_all_splits(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "index.json").write_text("{}")
    settings = load_recipe("mnist").data
    found = with_data(settings, str(tmp_path), None)
    assert (found.source, found.train, found.validation) == (
        "shards",
        f"{tmp_path}/train",
        f"{tmp_path}/validation",
    )
    alone = with_data(settings, str(tmp_path / "train"), "/other")
    assert (alone.train, alone.validation, alone.test) == (f"{tmp_path}/train", "/other", None)
    assert with_data(settings, None, None) == settings
