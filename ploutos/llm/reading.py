"""Read one JSON object out of what a model said: whatever stands around it, nothing is guessed.

Models think aloud, fence their answers and explain them. What they think is cut away; of the rest exactly one object may fit the form.
Two that fit and differ are ambiguous, and count as no answer.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Form = TypeVar("Form", bound=BaseModel)
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_CLOSING = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_DECODER = json.JSONDecoder()


class Unreadable(ValueError):
    """What was said has no answer in the form that was asked for, or several."""


def read_answer(text: str, form: type[Form]) -> Form:
    """The one answer in a reply.

    Raises:
        Unreadable: there is none, or there are several that differ.
    """
    said = _CLOSING.sub("", _THOUGHT.sub("", text))  # a server may have cut off the opening tag
    fitting: list[Form] = []
    fault = "it holds no JSON object"
    for found in _objects(said):
        try:
            answer = form.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            fault = f"{where + ': ' if where else ''}{first['msg']}"
            continue
        if answer not in fitting:
            fitting.append(answer)
    if len(fitting) > 1:
        raise Unreadable(f"it holds {len(fitting)} different answers")
    if not fitting:
        raise Unreadable(fault)
    return fitting[0]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """JSON objects in a text, the outermost ones, from left to right."""
    at = text.find("{")
    while at >= 0:
        try:
            found, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError:
            end = at + 1
        else:
            yield found
        at = text.find("{", end)
