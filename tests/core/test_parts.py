import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smooth_attention.core.files import plain
from smooth_attention.core.parts import Part, read_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf(Part):
    value: float | None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree(Part):
    leaf: Leaf
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf]
    sizes: tuple[int, ...]
    other: Leaf | None = None
    plain: Mapping[str, int] | None = None


def objects(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """Any of the fields, and keys that no field has."""
    unknown = st.fixed_dictionaries({}, optional={"later": st.none() | st.integers() | st.lists(st.integers())})
    return st.tuples(st.fixed_dictionaries({}, optional=fields), unknown).map(lambda both: {**both[0], **both[1]})


LEAF = objects(value=st.none() | st.floats(allow_nan=False, allow_infinity=False), note=st.none() | st.text())
NAMES = st.text(max_size=3)
TREE = objects(
    leaf=LEAF,
    leaves=st.lists(LEAF),
    by_name=st.dictionaries(NAMES, LEAF),
    sizes=st.lists(st.integers()),
    other=st.none() | LEAF,
    plain=st.none() | st.dictionaries(NAMES, st.integers()),
)


@given(TREE)
def test_objects_are_written_as_they_were_read(values):
    part = read_part(Tree, values)
    assert plain(part) == values
    assert plain(read_part(Tree, plain(part))) == values
    assert plain(pickle.loads(pickle.dumps(part))) == values
    assert plain(copy.deepcopy(part)) == values


@given(TREE, LEAF)
def test_a_change_keeps_everything_else(values, leaf):
    changed = replace(read_part(Tree, values), other=read_part(Leaf, leaf), sizes=(1, 2))
    assert plain(changed) == {**values, "other": leaf, "sizes": [1, 2]}


def test_fields_without_a_default_are_written_and_those_with_one_left_out():
    leaf = Leaf(value=None)
    assert plain(leaf) == {"value": None}
    made = Tree(leaf=leaf, leaves=(leaf,), by_name={}, sizes=())
    assert plain(made) == {"leaf": {"value": None}, "leaves": [{"value": None}], "by_name": {}, "sizes": []}


def test_what_is_missing_reads_as_none_or_empty():
    tree = read_part(Tree, {})
    assert (tree.leaf.value, tree.leaves, tree.by_name, tree.sizes, tree.other) == (None, (), {}, (), None)
    assert tree.written() == {}


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([], "expected dict, got list"),
        ({"leaf": 1}, "expected dict, got int"),
        ({"leaves": {}}, "expected list, got dict"),
        ({"by_name": []}, "expected dict, got list"),
    ],
    ids=["part", "nested", "list", "mapping"],
)
def test_another_shape_is_refused(values, match):
    with pytest.raises(TypeError, match=match):
        read_part(Tree, values)
