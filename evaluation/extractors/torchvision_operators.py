"""Lets torchvision be imported next to a build of torch that it was not compiled for.

torch-fidelity imports torchvision for its list of datasets. The published torchvision wheel holds a CUDA
build; next to a CPU build of torch its compiled library cannot be loaded, and its import then fails, because
it attaches shape rules to two operators (`nms` and `qnms`) that nobody has declared. None of its compiled
operators is used here, so declaring the two is enough. Where the builds match, nothing is declared.
"""

import importlib
import sys
from functools import cache

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def make_torchvision_importable() -> torch.library.Library | None:
    """Import torchvision, first declaring the operators that its compiled library would have declared.

    Returns the library that holds the declarations, which live as long as it does (the cache keeps it), or
    None where torchvision imports by itself.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        importlib.import_module("torchvision")
        return None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    # A failed import leaves the submodules that did load: they would be taken for a working torchvision.
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    importlib.import_module("torchvision")
    return library
