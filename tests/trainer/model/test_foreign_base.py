"""Somebody's pretrained generator as the base: used as it is, or refused in one sentence."""

import json

import pytest
import safetensors.torch
import torch

from gebm.cluster.errors import InputError
from gebm.trainer.model import ModelSettings, build_model, load_model, pinned, save_model
from gebm.trainer.model.bases.foreign import ForeignBase
from tests.trainer.model.foreign_generators import LabelledGenerator, TinyGenerator

WHERE = "tests.trainer.model.foreign_generators"
SHAPE = (1, 8, 8)


def foreign(generator: str = "TinyGenerator", *, module: str = WHERE, latents: int = 4, **settings) -> ModelSettings:
    return ModelSettings.model_validate(
        {
            "base": "foreign",
            "foreign": {"generator": f"{module}:{generator}", **settings},
            "latent_dimension": latents,
            "energy_widths": [4],
            "conditional": "classes" in settings.get("arguments", {}),
        }
    )


@pytest.fixture
def pretrained(tmp_path):
    """A generator with running statistics of its own, and its weights in both formats."""
    generator = TinyGenerator()
    generator(torch.randn(16, 4))
    torch.save(generator.state_dict(), tmp_path / "generator.pt")
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "generator.safetensors")
    return generator.eval(), tmp_path


@pytest.mark.parametrize("name", ["generator.pt", "generator.safetensors"])
def test_a_pretrained_generator_makes_its_own_images(pretrained, name):
    generator, folder = pretrained
    model = build_model(foreign(weights=str(folder / name)), SHAPE, seed=0)
    latent = torch.randn(5, 4)
    assert torch.equal(model.generate(latent), generator(latent))
    assert not model.base.training and not model.has_density


def test_an_exported_model_carries_the_generators_weights_and_names_their_file_by_digest(pretrained):
    generator, folder = pretrained
    weights = folder / "generator.pt"
    settings = foreign(weights=str(weights))
    digest = pinned(settings).foreign.weights_sha256
    save_model(build_model(settings, SHAPE, seed=0), settings, str(folder / "model"))
    weights.unlink()
    loaded = load_model(str(folder))
    latent = torch.randn(5, 4)
    torch.testing.assert_close(loaded.generate(latent), generator(latent))
    assert digest in (folder / "model" / "model.toml").read_text() and len(digest) == 64


def test_a_conditional_generator_gets_the_labels():
    model = build_model(foreign("LabelledGenerator", arguments={"classes": 3}), SHAPE, classes=3, seed=0)
    assert isinstance(model.base, ForeignBase) and isinstance(model.base.generator, LabelledGenerator)
    latent = torch.randn(1, 4).expand(2, -1)
    first, second = model.generate(latent, torch.tensor([0, 2]))
    assert not torch.equal(first, second)


def test_a_weights_file_that_changed_is_refused(pretrained):
    _, folder = pretrained
    settings = pinned(foreign(weights=str(folder / "generator.pt")))
    torch.save(TinyGenerator().state_dict(), folder / "generator.pt")
    with pytest.raises(InputError, match=r"generator\.pt is not the file that weights_sha256 names"):
        build_model(settings, SHAPE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (foreign(module="tests.trainer.modle.foreign"), r"no module tests\.trainer\.modle \(did you mean .*model\?\)"),
        (foreign(module="tourch"), r"there is no module tourch \(did you mean torch\?\); install it, or put"),
        (foreign("TinyGenerators"), r"has no TinyGenerators \(did you mean TinyGenerator\?\)"),
        (foreign("not_a_module"), r"not_a_module\(\) gives a value of type int, not a torch\.nn\.Module"),
        (foreign(arguments={"depth": 3}), r"arguments: .*TinyGenerator\(depth=3\) failed: TypeError: .*'depth'"),
        (foreign(latents=5), r"fails on latents \(4, 5\): .*; is model\.latent_dimension right\?"),
        (foreign("Flat"), r"maps latents \(4, 4\) to \(4, 64\), the data would be \(4, 1, 8, 8\)"),
        (foreign("Loud"), r"makes values from -2 to 2, images are in \[-1, 1\]: wrap it"),
        (foreign("Undefined"), r"makes values that are not finite"),
        (foreign("Noisy"), r"does not make each image from its latent alone"),
        (foreign("Mixing"), r"does not make each image from its latent alone"),
        (foreign(weights="/nowhere/generator.pt"), r"weights: /nowhere/generator\.pt: no such file"),
    ],
)
def test_a_generator_that_cannot_be_the_base_is_refused_in_one_sentence(settings, message):
    with pytest.raises(InputError, match=r"^model\.foreign\..*" + message) as caught:
        build_model(settings, SHAPE, seed=0)
    assert "\n" not in str(caught.value)


def test_weights_of_another_generator_are_refused_with_the_first_that_does_not_fit(pretrained):
    _, folder = pretrained
    path = folder / "generator.pt"
    with pytest.raises(InputError, match=r"linear\.weight is \(96, 4\), the generator's \(128, 4\) \(and \d+ more\)"):
        build_model(foreign(weights=str(path), arguments={"width": 8}), SHAPE)
    state = torch.load(path, weights_only=True)
    del state["linear.bias"]
    torch.save(state | {"extra": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"linear\.bias is missing \(and 1 more\)"):
        build_model(foreign(weights=str(path)), SHAPE)


def test_files_that_hold_more_than_the_weights_are_refused(pretrained):
    generator, folder = pretrained
    path = folder / "generator.pt"
    torch.save(generator, path)
    with pytest.raises(InputError, match=r"generator\.pt holds no plain tensors \(UnpicklingError"):
        build_model(foreign(weights=str(path)), SHAPE)
    torch.save({"generator": generator.state_dict(), "step": 3}, path)
    with pytest.raises(InputError, match=r"holds a dict of generator, step; save generator\.state_dict\(\) alone"):
        build_model(foreign(weights=str(path)), SHAPE)
    (folder / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"torn\.safetensors holds no plain tensors"):
        build_model(foreign(weights=str(folder / "torn.safetensors")), SHAPE)


def test_a_model_whose_generator_is_not_at_hand_says_which(pretrained):
    _, folder = pretrained
    settings = foreign()
    save_model(build_model(settings, SHAPE, seed=0), settings, str(folder / "model"))
    description = folder / "model" / "model.toml"
    description.write_text(description.read_text().replace("TinyGenerator", "LostGenerator"))
    with pytest.raises(InputError, match=r"model\.toml: model\.foreign\.generator: .*has no LostGenerator"):
        load_model(str(folder))


def test_the_section_and_the_base_belong_together():
    with pytest.raises(ValueError, match=r"needs the section \[model\.foreign\]"):
        ModelSettings(base="foreign")
    with pytest.raises(ValueError, match=r"say base = \"foreign\""):
        ModelSettings.model_validate(json.loads(foreign().model_dump_json()) | {"base": "implicit"})
