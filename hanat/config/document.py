"""From the bytes of a TOML file to a model, with every problem found on the way.

A model is all or nothing, but a user wants all mistakes of a file at once, also
those that only show when values are compared. So a wrong value is reported,
replaced by None, and the rest is validated again; where None will not do, the
table around it is taken out. What remains is sound and can be checked for meaning.
"""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hanat.config.fields import show
from hanat.errors import ConfigError, Problem

# One of 20,000 servers; it must fit an entry of the log. And never read a device by mistake.
TEXT_BYTES_MAX = 2 << 20
TOO_LONG = f"is longer than {TEXT_BYTES_MAX >> 20} MiB, that is no configuration"
PROBLEMS_MAX = 100  # of a file: nobody reads more at once, and each is compared with all before

Document = dict[str, Any]
Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class Findings:
    """Problems of one file, kept by location and reported in the file's own order."""

    def __init__(self, file: str, document: Document) -> None:
        self.file = file
        self._document = document
        self._found: list[tuple[Location, str]] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, location: Location, text: str) -> None:
        """Add a problem, unless the value or a table around it was complained about already."""
        if len(self._found) >= PROBLEMS_MAX:
            return
        if not any(location[: len(found)] == found for found, _ in self._found):
            self._found.append((location, text))

    def problems(self) -> tuple[Problem, ...]:
        """Return the problems in the order in which their places appear in the file."""
        ordered = sorted(self._found, key=lambda entry: _position(self._document, entry[0]))
        return tuple(Problem(self.file, path_of(where), text) for where, text in ordered)

    def raise_if_any(self) -> None:
        """Raise a ConfigError with all problems, if there is one."""
        if self._found:
            raise ConfigError(self.problems())


def kept(items: Sequence[T | None] | None) -> list[tuple[int, T]]:
    """Return what is sound in a list, each with its index in the file."""
    return [(index, item) for index, item in enumerate(items or []) if item is not None]


def whole(items: Sequence[T | None] | None) -> bool:
    """Say whether nothing was taken out of a list, so that absence means something."""
    return items is not None and None not in items


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        ConfigError: It cannot be read, is not UTF-8 or far too long.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(TEXT_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError((Problem(str(path), "", f"cannot be read: {reason}"),)) from None
    if len(content) > TEXT_BYTES_MAX:
        raise ConfigError((Problem(str(path), "", TOO_LONG),))
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((Problem(str(path), f"line {line}", "is not UTF-8 text"),)) from None


def parse_toml(text: str, *, file: str) -> Document:
    """Return the tables of a TOML text.

    Raises:
        ConfigError: The syntax is wrong; the path is line and column, from 1.
    """
    if len(text) > TEXT_BYTES_MAX:  # characters: bytes are counted where they are read
        raise ConfigError((Problem(file, "", TOO_LONG),))
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError((Problem(file, "", "is nested too deeply"),)) from None
    except ValueError as error:  # TOMLDecodeError, and int() of thousands of digits
        message, place = str(error), ""
        if match := re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", message):
            message, place = match[1], match[2]
        if place == "end of document":
            head = text.rstrip()
            line, column = head.count("\n") + 1, len(head) - head.rfind("\n")
            message, place = f"{message}; the file ends here", f"line {line}, column {column}"
        sentence = f"is not TOML: {message}; complete or correct it, or put a # before the line"
        raise ConfigError((Problem(file, place, sentence),)) from None


def validate(model: type[M], document: Document, findings: Findings) -> M | None:
    """Return what is sound of a document as a model, None if nothing is.

    Everything that is not goes to `findings`.
    """
    try:
        remaining = copy.deepcopy(document)
    except RecursionError:
        findings.add((), "is nested too deeply")
        return None
    reported = False
    while True:
        try:
            return model.model_validate(remaining)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        if not reported:
            for one in errors:
                findings.add(_location(one["loc"]), _sentence(model, document, one))
            reported = True
        if not all([_take_out(remaining, one["type"], one["loc"]) for one in errors]):  # noqa: C419  all of them
            return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a half-sentence with the nearest known name, or all of them if none is near."""
    names = sorted(known)
    if match := difflib.get_close_matches(name, names, n=1, cutoff=0.6):
        return f'did you mean "{match[0]}"?'
    return f"known are {', '.join(names)}" if names else "there are none"


def path_of(location: Location) -> str:
    """Return a location as text: ``service[2].listen[0]``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            path += ("." if path else "") + (part if bare else show(part))
    return path


def _location(loc: Location) -> Location:
    """Drop what pydantic adds to a location: it marks a wrong key by a last ``[key]``."""
    return loc[:-1] if loc[-1:] == ("[key]",) else loc


def _sentence(model: type[BaseModel], document: Document, error: Any) -> str:  # noqa: ANN401
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing":
            return "is missing"
        case "extra_forbidden":
            keys = _keys(model, error["loc"][:-1])
            unused = keys - set(_value(document, error["loc"][:-1]) or ())
            hint = nearest(error["loc"][-1], unused)
            if not hint.startswith("did"):
                hint = nearest(error["loc"][-1], keys)
            return f"unknown key; {hint}"
        case "list_type":
            return f"must be a list, found {show(error['input'])}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"must be a table, found {show(error['input'])}"
        case _:
            return f"{error['msg']}, found {show(error['input'])}"


def _keys(model: type[BaseModel], loc: Location) -> set[str]:
    """Return the keys a table may have."""
    for part in loc:
        if isinstance(part, str):
            found = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
            inner = _model_in(found.annotation) if found is not None else None
            if inner is None:
                return set()
            model = inner
    return {field.alias or name for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((model for model in inner if model is not None), None)


def _value(document: Any, loc: Location) -> Any:  # noqa: ANN401
    """Return the value at a location, None if there is none."""
    for part in loc:
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _take_out(document: Document, kind: str, loc: Location) -> bool:
    """Replace what is wrong by None, or the table around it; False when all is lost."""
    loc = _location(loc)
    if not loc:
        return False
    parent, key = _value(document, loc[:-1]), loc[-1]
    if parent is None:  # taken out with an earlier error of the same round
        return True
    if kind == "extra_forbidden" or loc[:-1] == ("interfaces",):
        parent.pop(key, None)
        return True
    if kind != "missing" and _value(parent, (key,)) is None:
        return _take_out(document, kind, loc[:-1])
    parent[key] = None
    return True


def _position(document: Any, location: Location) -> tuple[int, ...]:  # noqa: ANN401
    """Return where a location stands in the file, as something to sort by."""
    position: list[int] = []
    for part in location:
        keys = list(document) if isinstance(document, dict) else []
        if isinstance(part, int):
            position.append(part)
        else:
            position.append(keys.index(part) if part in keys else len(keys))
        document = _value(document, (part,))
    return tuple(position)
