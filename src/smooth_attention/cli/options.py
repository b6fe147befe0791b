"""Options of a verb: a dataclass that tyro reads, made from the fields of a pydantic model where there is one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import BaseModel

from smooth_attention.core.files import expand

__all__ = ["annotate", "config_file", "options_of", "read_options"]

Options = TypeVar("Options")


def options_of(
    name: str, doc: str, model: type[BaseModel], positional: str, extra: list[tuple[str, Any, str, Any]]
) -> Any:
    """Return a dataclass with the fields of ``model`` and ``extra`` ones (name, type, help, default).

    The model's own checks run later, on the values together, so that a mistake is one sentence wherever it came from.
    """
    required = [item for item in extra if item[3] is dataclasses.MISSING]
    optional = [item for item in extra if item[3] is not dataclasses.MISSING]
    fields: list[Any] = [(field, annotate(kind, text, field)) for field, kind, text, _ in required]
    for field, info in model.model_fields.items():
        kind = annotate(info.annotation, info.description or "", field, is_positional=field == positional)
        fields.append((field, kind, dataclasses.field(default=info.default)))
    fields += [(field, annotate(kind, text, field), dataclasses.field(default=d)) for field, kind, text, d in optional]
    made = dataclasses.make_dataclass(name, fields, frozen=True)
    made.__doc__ = doc
    return made


def annotate(kind: Any, text: str, field: str, *, is_positional: bool = False) -> Any:
    if is_positional:
        return Annotated[kind, tyro.conf.Positional, tyro.conf.arg(help=text, metavar=field.upper())]
    return Annotated[kind, tyro.conf.arg(help=text)]


def read_options(
    model: type[Options], arguments: list[str], prog: str, *, defaults: dict[str, Any] | None = None
) -> Options:
    """Return the options of a command line, ``defaults`` standing in for what it does not name.

    A shell reads ``~`` as the home directory at the start of a word only; here it is read in ``--output=~/run`` too.

    Raises:
        SystemExit: 2 on unknown or malformed options, 0 on ``--help``; tyro says what is known.
    """
    if not defaults:
        return with_homes(tyro.cli(model, prog=prog, args=arguments))
    values = {
        field.name: defaults.get(field.name, tyro.MISSING if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(model)  # type: ignore[arg-type]
    }
    return with_homes(tyro.cli(model, prog=prog, args=arguments, default=model(**values)))


def with_homes(options: Options) -> Options:
    """Return options with ``~`` expanded in every path, and in every text that begins with it."""
    found = {field.name: with_home(getattr(options, field.name)) for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    return dataclasses.replace(options, **found)  # type: ignore[type-var]


def with_home(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(with_home, value))
    if isinstance(value, Path):
        return expand(value)
    return str(expand(Path(value))) if isinstance(value, str) and value.startswith("~") else value


def config_file(arguments: list[str]) -> Path | None:
    """Return the value of ``--config`` before the other options are read: their defaults come from it."""
    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            return expand(Path(arguments[position + 1]))
        if argument.startswith("--config="):
            return expand(Path(argument.removeprefix("--config=")))
    return None
