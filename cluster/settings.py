"""The parent of every settings class and of every record that is written to a file."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A pydantic model that cannot be changed and refuses keys that it does not know.

    A mistyped key must be an error: a setting that is silently ignored is a wrong result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
