"""The base of everything a person writes or a form shows.

Each room of the library defines its own spec beside the code that reads it; `ploutos.config` only puts them together.
That keeps a stage's cache key down to exactly the fields it reads.
"""

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Spec(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def only_known(spec: type[BaseModel]) -> BeforeValidator:
    """For a spec in a file that is kept for longer than a version lasts: settings that this version does not have are passed over."""
    return BeforeValidator(lambda value: _known(spec, value))


def _known(spec: Any, value: Any) -> Any:
    if not (isinstance(value, dict) and isinstance(spec, type) and issubclass(spec, BaseModel)):
        return value
    fields = spec.model_fields
    return {name: _known(fields[name].annotation, each) for name, each in value.items() if name in fields}
