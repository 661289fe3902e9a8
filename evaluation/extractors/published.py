"""The published weights of torch-fidelity's extractors: where they are fetched, where they lie, how they are known."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors.imported import is_import_path

DINOV2_REPOSITORY = "facebookresearch/dinov2"


class Published(NamedTuple):
    """One weights file."""

    url: str
    file: str
    """Its name in torch's folder of checkpoints."""
    sha256: str | None
    """The first hexadecimal digits of its SHA-256, or all; None where nobody publishes them."""

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file


def published_weights(name: str) -> Published | None:
    """The file that the extractor `name` of torch-fidelity takes by itself, None for one that is not its own."""
    from gebm.evaluation.extractors import torch_fidelity_registry  # noqa: F401  makes torchvision importable

    from torch_fidelity import feature_extractor_clip as clip  # isort: skip
    from torch_fidelity import feature_extractor_dinov2 as dinov2  # isort: skip
    from torch_fidelity import feature_extractor_inceptionv3 as inception  # isort: skip

    if name == "inception-v3-compat":
        return _named_by_digest(inception.URL_INCEPTION_V3)
    if name == "vgg16":
        import torchvision

        return _named_by_digest(torchvision.models.VGG16_Weights.IMAGENET1K_V1.url)
    if name in clip.MODEL_URLS:
        digest = clip.MODEL_METADATA[name]["hash"]
        return Published(clip.MODEL_URLS[name], f"{name}-{digest}.pt", digest)
    if name in dinov2.MODEL_METADATA:
        model = dinov2.MODEL_METADATA[name]
        file = f"{model}_pretrain.pth"
        return Published(f"https://dl.fbaipublicfiles.com/dinov2/{model}/{file}", file, None)
    return None


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hexadecimal) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(name: str, weights: str | None, sha256: str | None) -> list[str]:
    """Check the weights file that will be loaded by its digest; return what a reader of the values should know.

    weights: a path of the user's; None for the published file, if it is there already. sha256: what the user says it
    is.

    Raises:
        InputError: no such file, another file than `sha256` says, or, in torch's folder, a damaged one.
    """
    published = None if is_import_path(name) else published_weights(name)
    if weights is None:
        if published is not None and published.sha256 is not None and published.path.is_file():
            found = file_digest(published.path)
            if not found.startswith(published.sha256):
                raise InputError(
                    f"extractor {name}: {published.path} is damaged or another file (its SHA-256 is {found}, that of "
                    f"{published.url} begins with {published.sha256[:8]}); remove it"
                )
        return []
    found = file_digest(weights)
    if sha256 is not None and not found.startswith(sha256):
        raise InputError(
            f"extractor.weights: {weights} is not the file that weights_sha256 names (its SHA-256 is {found}); give "
            f"the right file, or leave weights_sha256 out"
        )
    if published is not None and published.sha256 is not None and not found.startswith(published.sha256):
        return [
            f"{weights} is not the published file of {name} (its SHA-256 begins with {found[:8]}, the published one's "
            f"with {published.sha256[:8]}): values do not compare with anybody else's."
        ]
    return []


def how_to_get(name: str) -> str:
    """What to fetch and where to put it, where there is no network."""
    published = published_weights(name)
    if published is None:
        return "give a path as extractor.weights (--weights)"
    steps = f"fetch {published.url} where there is a network and put it at {published.path}"
    if published.url.startswith("https://dl.fbaipublicfiles.com/dinov2"):
        folder = Path(torch.hub.get_dir()) / (DINOV2_REPOSITORY.replace("/", "_") + "_main")
        return (
            f"{steps}, or give its path as extractor.weights (--weights); and unpack the code, "
            f"https://github.com/{DINOV2_REPOSITORY}/archive/main.zip, as {folder}"
        )
    return f"{steps}, or give its path as extractor.weights (--weights)"


def _named_by_digest(url: str) -> Published:
    """A file whose name ends in the first eight digits of its SHA-256, as torch's own do."""
    file = url.rsplit("/", 1)[-1]
    return Published(url, file, file.rsplit(".", 1)[0].rsplit("-", 1)[-1])
