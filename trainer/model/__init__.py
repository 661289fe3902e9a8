"""The generalized energy-based model, in plain PyTorch: no Ray, no accelerate."""

from gebm.trainer.model.build import build_model, pinned
from gebm.trainer.model.export import load_model, model_digest, save_model
from gebm.trainer.model.gebm import GEBM, freeze, in_normal_coordinates
from gebm.trainer.model.pixels import from_stored, from_uint8, to_stored, to_uint8
from gebm.trainer.model.settings import ImageShape, ModelSettings, PriorSettings
from gebm.trainer.model.witness import WitnessEnergy

__all__ = [
    "GEBM",
    "ImageShape",
    "ModelSettings",
    "PriorSettings",
    "WitnessEnergy",
    "build_model",
    "freeze",
    "from_stored",
    "from_uint8",
    "in_normal_coordinates",
    "load_model",
    "model_digest",
    "pinned",
    "save_model",
    "to_stored",
    "to_uint8",
]
