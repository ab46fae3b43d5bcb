"""Settings in nested dataclasses: checked, read from dicts, and changed by path, such as `net.renderer.num_samples`."""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, TypeVar

from genvs.errors import InputError

T = TypeVar("T")

POSITIVE, NOT_NEGATIVE, PROBABILITY = "a number above 0", "a number from 0 up", "a probability from 0 to 1"
_ALLOWED = {
    POSITIVE: lambda number: 0 < number < math.inf,
    NOT_NEGATIVE: lambda number: 0 <= number < math.inf,
    PROBABILITY: lambda number: 0 <= number <= 1,
}


def check_numbers(config: Any, kind: str, *names: str) -> None:
    """Raise InputError for a number, or one of a tuple, that is not of this kind (POSITIVE and so on). None passes."""
    for name in names:
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(number is None or _ALLOWED[kind](number) for number in numbers):
            raise InputError(f"`{name}`={as_text(value)}: give {kind}")


def check_choice(config: Any, name: str, choices: Iterable[str]) -> None:
    """Raise InputError where a setting is none of the choices."""
    if getattr(config, name) not in choices:
        raise InputError(f"`{name}`={getattr(config, name)}: choose one of {', '.join(choices)}")


def check_color(config: Any, name: str) -> None:
    """Raise InputError for a setting that is not a colour: red, green and blue from 0 to 255."""
    color = getattr(config, name)
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise InputError(f"`{name}`={as_text(color)}: give white, black or R,G,B from 0 to 255, such as 127,127,127")


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """The inverse of `dataclasses.asdict`, for nested dataclasses; lists become tuples again.

    Raises InputError for a name that the class does not have.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise InputError(f"{cls.__name__} has no setting {unknown[0]!r}: the file was written by another version")
    values = {}
    for name, value in data.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(typing.cast(type, hints[name]), value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by path."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves


def set_by_path(config: T, settings: Mapping[str, Any]) -> T:
    """A copy of a nested dataclass with settings changed: `set_by_path(config, {"renderer.num_samples": 96})`.

    A value may be text, which is read as the setting's type. Settings that the config's method `dependent_settings`
    returns change too, unless they are given. Raises InputError for an unknown path (naming similar ones), for text of
    another type and for values not allowed.
    """
    tree = dataclasses.asdict(typing.cast(Any, config))
    paths = list(flat(tree))
    values = {}
    for path, value in settings.items():
        if path not in paths:
            same_name = [other for other in paths if other.rpartition(".")[2] == path.rpartition(".")[2]]
            similar = " or ".join(same_name or difflib.get_close_matches(path, paths))
            raise InputError(f"there is no setting {path}" + (f": did you mean {similar}?" if similar else ""))
        values[path] = _parsed(config, path, value) if isinstance(value, str) else value
    for path, value in {**typing.cast(Any, config).dependent_settings(values), **values}.items():
        *parents, name = path.split(".")
        functools.reduce(dict.__getitem__, parents, tree)[name] = value
    return from_dict(type(config), tree)


def as_text(value: Any) -> str:
    """A setting's value as `set_by_path` reads it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _parsed(config: Any, path: str, text: str) -> Any:
    """The value that `text` stands for. Raises InputError where it is not of the setting's type."""
    *parents, name = path.split(".")
    hint = typing.get_type_hints(type(functools.reduce(getattr, parents, config)))[name]
    kinds = typing.get_args(hint) if NoneType in typing.get_args(hint) else (hint,)
    if NoneType in kinds and text == "none":
        return None
    kind = kinds[0]
    try:
        if typing.get_origin(kind) is tuple:
            return tuple(typing.get_args(kind)[0](part) for part in text.split(","))
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        numbers = "whole numbers with commas between, such as 1,2,2"
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, numbers)
        raise InputError(f"`{path}`={text}: give {wanted}{', or none' if len(kinds) > 1 else ''}") from None
