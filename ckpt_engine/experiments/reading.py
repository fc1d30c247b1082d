"""Specifications out of YAML (or JSON) text; a mistake is named with its line and column.

Needs the ``experiments`` extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from ..errors import InvalidRequest
from .spec import ExperimentSpec

__all__ = ["SpecError", "read_spec"]

_SCORERS = {"exact", "contains", "regex", "json", "python", "judge", "person"}


class SpecError(InvalidRequest):
    """A specification is wrong; the message says where and what would be right."""

    kind = "experiment-spec"


def read_spec(text: str, *, source: str = "spec") -> ExperimentSpec:
    """Return the specification that a text holds.

    Args:
        text: YAML or JSON.
        source: What to call it in messages, such as the file's name.

    Raises:
        SpecError: It is not YAML, or not a specification; the message has one line per mistake,
            each with line and column.
    """
    import yaml

    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as err:
        mark = err.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SpecError(f"{where}: not YAML: {err.problem}") from None
    except yaml.YAMLError as err:
        raise SpecError(f"{source}: not YAML: {err}") from None
    if not isinstance(value, dict):
        raise SpecError(f"{source}:1:1: a mapping with name, from, variants and scorer is expected")
    try:
        return ExperimentSpec.model_validate(value)
    except ValidationError as err:
        lines = [
            _line(source, tree, error)
            for error in err.errors(include_url=False, include_context=False)
        ]
        raise SpecError("\n".join(dict.fromkeys(lines))) from None


def _line(source: str, tree: Any, error: Any) -> str:
    path = [part for part in error["loc"] if part not in _SCORERS or part == error["loc"][-1]]
    line, column = _place(tree, path, key=error["type"] == "extra_forbidden")
    named = ".".join(map(str, path))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such key"
    if error["type"] == "missing":
        message = "is missing"
    where = f"{named}: " if named else ""
    return f"{source}:{line}:{column}: {where}{message}"


def _place(tree: Any, path: Sequence[Any], *, key: bool) -> tuple[int, int]:
    """Return line and column of the place in the text that is nearest to a path."""
    import yaml

    mark = tree.start_mark
    for part in path:
        found = None
        if isinstance(tree, yaml.MappingNode):
            found = next((pair for pair in tree.value if pair[0].value == str(part)), None)
        elif isinstance(tree, yaml.SequenceNode) and isinstance(part, int):
            found = (None, tree.value[part]) if part < len(tree.value) else None
        if found is None:
            break
        name, tree = found
        mark = name.start_mark if key and name is not None else tree.start_mark
    return mark.line + 1, mark.column + 1
