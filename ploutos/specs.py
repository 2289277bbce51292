"""The base of everything a person writes or a form shows.

Each room of the library defines its own spec beside the code that reads it; `ploutos.config` only puts them together.
That keeps a stage's cache key down to exactly the fields it reads.
"""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
