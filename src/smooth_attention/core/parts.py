"""Parts of a JSON file as frozen dataclasses: read without loss, written as they came."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["Part", "blank_of", "read_part"]

P = TypeVar("P", bound="Part")

NOT_THERE = ...  # in Part.rest: an older file lacks this field, so it is not written either


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An object of a JSON file. Subclasses have a field a key, of the same name.

    A field without a default is always written, None as null. One with a default, which is None or empty, is left out
    while it has it. A file may lack any field: it then reads as None, or as empty.

    Attributes:
        rest: what the fields can't say: keys of a later version, fields that are written though they would be left
            out, and :data:`NOT_THERE` for the reverse.
    """

    rest: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    def written(self) -> dict[str, Any]:
        """Return what is written by key, in order; parts within it are left as they are."""
        blanks, always, *_ = schema_of(type(self))
        rest = self.rest or {}

        def is_written(name: str) -> bool:
            if not is_blank(getattr(self, name), blanks[name]):
                return True
            return rest.get(name) is not NOT_THERE if name in always else name in rest

        later = {name: value for name, value in rest.items() if name not in blanks}
        return {name: getattr(self, name) for name in blanks if is_written(name)} | later


class Schema(NamedTuple):
    """How the fields of a part are read and written.

    Attributes:
        blanks: of all fields in the order in which they are written, what a missing one reads as.
        always: fields that are written although they have their blank.
        optional: the others.
        readers: of the fields that JSON does not have as they are, what makes them from it.
    """

    blanks: dict[str, Any]
    always: frozenset[str]
    optional: frozenset[str]
    readers: dict[str, Callable[[Any], Any]]


def read_part(kind: type[P], values: Any) -> P:
    """Return a part from its JSON object.

    Raises:
        TypeError: where an object or a list is expected and something else stands.
    """
    blanks, always, optional, readers = schema_of(kind)
    given = dict(checked(values, dict))
    for name, read in readers.items():
        if given.get(name) is not None:
            given[name] = read(given[name])
    rest = {name: given.pop(name) for name in given.keys() - blanks.keys()}
    for name in blanks.keys() - given.keys():
        given[name] = blanks[name]
        if name in always:
            rest[name] = NOT_THERE
    rest |= {name: None for name in optional if name in values and is_blank(given[name], blanks[name])}
    return kind(**given, rest=rest or None)


def read_schema(kind: type[Part]) -> Schema:
    """Return how a part is read and written."""
    hints = get_type_hints(kind)
    own = [each for each in fields(kind) if each.name != "rest"]
    blanks = {each.name: blank_of(hints[each.name]) if each.default is MISSING else each.default for each in own}
    readers = {each.name: read for each in own if (read := reader_of(hints[each.name]))}
    always = frozenset(each.name for each in own if each.default is MISSING)
    return Schema(blanks, always, frozenset(blanks) - always, readers)


SCHEMAS: dict[type, Schema] = {}


def schema_of(kind: type[Part]) -> Schema:
    """Return the same, read once."""
    if kind not in SCHEMAS:
        SCHEMAS[kind] = read_schema(kind)
    return SCHEMAS[kind]


def is_blank(value: Any, blank: Any) -> bool:
    """Return whether a value is None, or empty where the blank is."""
    filled = value.written() if isinstance(value, Part) else value
    return filled is None or (blank is not None and not filled)


def reader_of(hint: Any) -> Callable[[Any], Any] | None:
    """Return what makes a value of this type from JSON; None where JSON has it already."""
    origin, args = get_origin(hint), [each for each in get_args(hint) if each not in (types.NoneType, ...)]
    if isinstance(hint, type) and issubclass(hint, Part):
        return lambda value: read_part(hint, value)
    if origin in (Union, types.UnionType):
        return reader_of(args[0]) if len(args) == 1 else None
    if origin is tuple:
        read_item = reader_of(args[0])
        return lambda value: tuple(checked(value, list) if read_item is None else map(read_item, checked(value, list)))
    if origin is Mapping and (read_value := reader_of(args[1])):
        return lambda value: {
            key: None if each is None else read_value(each) for key, each in checked(value, dict).items()
        }
    return None


def checked(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


@cache
def blank_of(hint: Any) -> Any:
    """Return what a missing field of this type reads as: an empty part, sequence or mapping, else None."""
    if isinstance(hint, type) and issubclass(hint, Part):
        return read_part(hint, {})
    return {tuple: (), Mapping: {}}.get(get_origin(hint))
