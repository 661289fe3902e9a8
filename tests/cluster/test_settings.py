"""Settings refuse what they do not know and cannot be changed."""

import pytest
from pydantic import ValidationError

from gebm.cluster.settings import StrictModel


class Settings(StrictModel):
    step_size: float = 0.1


def test_an_unknown_key_is_an_error_that_names_it() -> None:
    with pytest.raises(ValidationError, match="stepsize"):
        Settings.model_validate({"stepsize": 0.2})


def test_settings_cannot_be_changed() -> None:
    settings = Settings(step_size=0.2)
    with pytest.raises(ValidationError):
        settings.step_size = 0.3  # type: ignore[misc]
    assert settings.step_size == 0.2
