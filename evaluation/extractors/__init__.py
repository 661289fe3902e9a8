"""Feature extractors: frozen networks that turn images into vectors."""

from typing import TYPE_CHECKING, Any

from gebm.evaluation.extractors.settings import ExtractorSettings

if TYPE_CHECKING:
    from gebm.evaluation.extractors.extractor import Extractor, make_extractor

__all__ = ["Extractor", "ExtractorSettings", "make_extractor"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: not for a command that only reads settings.
    if name in ("Extractor", "make_extractor"):
        from gebm.evaluation.extractors import extractor

        return getattr(extractor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
