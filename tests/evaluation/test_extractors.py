"""EfficientNet-Lite0 as a feature extractor: the same features as its package's network, and honest errors."""

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import ExtractorSettings, make_extractor
from gebm.evaluation.extractors.efficientnet_lite import packaged_weights
from gebm.evaluation.extractors.resize import bicubic_matrix, resize


def random_images(count: int, channels: int = 3, size: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [64, 65, 128])
def test_folded_network_gives_the_features_of_the_published_one(size: int) -> None:
    published = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    published.load_state_dict(torch.load(packaged_weights(), weights_only=True))
    published.eval()
    images = random_images(3, size=size)
    with torch.inference_mode():
        x = (images.float() - 127.0) / 128.0
        head = published.extract_features(x).mean((2, 3))
        x = published._swish(published._bn0(published._conv_stem(x)))
        for block in published._blocks:
            x = block(x)
    for layer, expected in (("320", x.mean((2, 3))), ("1280", head)):
        found = make_extractor(ExtractorSettings(layer=layer, input_size=size))(images)
        assert found.shape == (3, int(layer))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("size_in", "size_out"), [(32, 128), (32, 33), (128, 48)])
def test_resizing_agrees_with_pillow(size_in: int, size_out: int) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (size_in, size_in)).astype(np.float32)
    matrix = bicubic_matrix(size_in, size_out)
    found = resize(torch.from_numpy(image).double()[None, None], matrix, matrix)[0, 0]
    expected = Image.fromarray(image).resize((size_out, size_out), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), atol=1e-3)
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-6)


def test_features_do_not_depend_on_the_other_images_of_the_batch() -> None:
    extractor = make_extractor(ExtractorSettings(input_size=64))
    images = random_images(70)  # more than one chunk
    together = extractor(images)
    alone = torch.cat([extractor(images[i : i + 1]) for i in (0, 33, 69)])
    torch.testing.assert_close(together[[0, 33, 69]], alone, rtol=1e-5, atol=1e-5)


def test_a_grey_image_has_the_features_of_its_rgb_copy() -> None:
    extractor = make_extractor(ExtractorSettings(input_size=32))
    grey = random_images(4, channels=1)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


def test_description_pins_the_packaged_weights() -> None:
    assert make_extractor(ExtractorSettings()).description == {
        "name": "efficientnet-lite0",
        "layer": "320",
        "input_size": 128,
        "weights": "005bdebd355e2b7f8f306bd4d3e0452d87921d44b3e5eb83430a6b076fca9a3e",
        "dimension": 320,
    }


def test_torch_fidelity_knows_the_extractor_and_computes_the_same_features() -> None:
    from gebm.evaluation.extractors import torch_fidelity_registry  # noqa: F401  registers it

    from torch_fidelity.utils import create_feature_extractor  # isort: skip

    registered = create_feature_extractor(
        "efficientnet-lite0", ["1280", "320"], cuda=False, verbose=False, feature_extractor_input_size=64
    )
    images = random_images(5)
    with torch.inference_mode():
        features = registered.convert_features_tuple_to_dict(registered(images))
    for layer, found in features.items():
        assert torch.equal(found, make_extractor(ExtractorSettings(layer=layer, input_size=64))(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet"}, "no feature extractor 'resnet'.*efficientnet-lite0.*inception-v3-compat"),
        ({"layer": "2048"}, "has no '2048'; it has 320, 1280"),
        ({"name": "inception-v3-compat", "layer": "320"}, "has no '320'; it has .*2048"),
        ({"name": "vgg16", "layer": "fc2_relu", "input_size": 64}, "fixed input size"),
        ({"weights": "/no/such/file.pth"}, "no file /no/such/file.pth"),
        ({"weights": __file__}, "test_extractors.py cannot be loaded into efficientnet-lite0"),
    ],
)
def test_an_extractor_that_cannot_be_had_is_one_clear_error(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_extractor(ExtractorSettings(**settings))


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 4, 8, 8, dtype=torch.uint8)])
def test_what_is_not_a_uint8_image_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="uint8"):
        make_extractor(ExtractorSettings(input_size=32))(images)


def test_an_extractor_by_default_and_by_name_is_spelt_out_the_same():
    named = ExtractorSettings(name="efficientnet-lite0", layer="320", input_size=128)
    assert ExtractorSettings().spelt_out() == named.spelt_out() == named
    assert ExtractorSettings(layer="1280", input_size=64).spelt_out() == ExtractorSettings(layer="1280", input_size=64)
    assert ExtractorSettings(name="raw").spelt_out() == ExtractorSettings(name="raw")
