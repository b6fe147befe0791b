"""The stages of a network in the order in which they run, found by one forward pass: shapes, parameters, skip links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import nn

from smooth_attention.core.errors import OptionError
from smooth_attention.look.tape import HALVES, Call, Shape, Tape, record_calls
from smooth_attention.models.blocks import SmoothAttention, Switchable
from smooth_attention.models.network import Network
from smooth_attention.models.rivals import Rival
from smooth_attention.models.rows import describe_rule

__all__ = ["Stage", "trace_stages"]

MAX_STAGES = 24
WRAPPERS = ("model", "module")  # names that say nothing of what they hold
Parts = list[range]  # neighbours among the calls, in the order in which they run


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a network, in plain values.

    Attributes:
        name: path of the module that holds most of it, without the segments that wrap it; ``features.4-6`` for a run
            of numbered ones.
        modules: paths of all its modules, as in ``net.named_modules()``.
        role: ``encoder``, ``decoder``, ``head`` by the paths; ``block`` and ``filter`` by the class; ``other``;
            ``unused`` for the last entry, parameters that the pass does not read.
        kind: class of the module that holds most of it; of a rival that of the module behind the block's door.
        rule: of a block, such as ``threshold 0.4``; empty where there is none.
        shape: of its first output without the batch axis: (C, H, W), or (N, C) of tokens; as it comes otherwise.
        parameters: how many it has; what several stages share counts in the first.
        follows: whether it reads the output of the stage before it.
    """

    name: str
    modules: tuple[str, ...]
    role: str
    kind: str
    rule: str
    shape: Shape
    parameters: int
    follows: bool


@dataclass(frozen=True, slots=True)
class Stages:
    """What :func:`trace_stages` finds.

    Attributes:
        stages: in the order in which they first run.
        links: pairs (i, j), sorted: stage j reads the output of stage i, which is not the one just before it.
        input_shape: of the image, (3, S, S).
    """

    stages: tuple[Stage, ...]
    links: tuple[tuple[int, int], ...]
    input_shape: tuple[int, int, int]

    @property
    def parameters(self) -> int:
        """All parameters of the network."""
        return sum(stage.parameters for stage in self.stages)


def trace_stages(net: Network, image_size: int) -> Stages:
    """Return the stages of any network of the package, from one forward pass of a black image.

    Encoder and decoder are shown by their parts, and so is what holds a block. Small layers join their neighbours,
    numbered modules of one class and resolution each other, as long as nobody else reads what is between them.
    Beyond 24 stages the smallest neighbours become one.

    Args:
        net: the network; its modes, hooks and weights are left as they are.
        image_size: side S of the image in pixels; shapes inside are those of the padded image.

    Raises:
        OptionError: on a side below one pixel.

    Example:
        >>> import smooth_attention as sa
        >>> traced = trace_stages(sa.PaperUNet(encoder_weights=None), 64)
        >>> [stage.name for stage in traced.stages][4:7]
        ['encoder.7', 'smooth_attention', 'decoder.0-1']
        >>> traced.stages[5].rule, traced.stages[5].shape, traced.parameters, traced.links
        ('threshold 0.4', (512, 2, 2), 12661410, ())
    """
    if image_size < 1:
        raise OptionError(f"an image has a side of at least one pixel, got {image_size=}; pass 224")
    tape = record_calls(net, image_size)
    flow = Flow(list(split(tape.root)), tape)
    parts = merge_parts(flow)
    counts, unused = count_parameters(net, flow, parts)
    pairs = flow.read_pairs(parts)
    stages = [
        describe_stage(
            flow.calls[part.start : part.stop], flow.find_lead(part), count, follows=(number - 1, number) in pairs
        )
        for number, (part, count) in enumerate(zip(parts, counts, strict=True))
    ]
    stages = [name_apart(stage, stages) for stage in stages]
    if unused:
        stages.append(Stage("not run", (), "unused", "", "", (), unused, follows=False))
    links = tuple(sorted((i, j) for i, j in pairs if j > i + 1))
    return Stages(tuple(stages), links, (3, image_size, image_size))


def split(call: Call) -> Iterator[Call]:
    """Yield the calls inside ``call`` that are not opened any further."""
    if call.is_idle:
        return
    if isinstance(call.module, Switchable) or not call.busy_children or not is_open(call):
        yield call
        return
    for child in call.children:
        yield from split(child)


def is_open(call: Call) -> bool:
    """Whether a call is shown by its parts: the network, its halves, what holds a block."""
    is_half = readable(call.name) in ("", *HALVES)
    return is_half or any(isinstance(module, Switchable) for module in call.module.modules())


def count_own(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def has_weights(call: Call) -> bool:
    """Whether a call mixes channels or positions by what it has learned; norms scale alone."""
    return any(parameter.ndim > 1 for parameter in call.module.parameters())


def count_positions(shape: Shape) -> int:
    grid = to_axes(shape)
    if len(grid) == 3:
        return grid[1] * grid[2]
    return grid[0] if len(grid) == 2 else 1


def to_axes(shape: Shape) -> Shape:
    """Return a shape without its batch axis, channels first of a map; the image is square, which tells them."""
    rest = shape[1:]
    is_channels_last = len(rest) == 3 and rest[0] == rest[1] != rest[2]
    return (rest[2], *rest[:2]) if is_channels_last else rest


class Flow:
    """Calls in the order in which they run, and which of them reads which."""

    def __init__(self, calls: list[Call], tape: Tape) -> None:
        self.calls, self.tape = calls, tape
        inside = {index: number for number, call in enumerate(calls) for index in range(call.start, call.end)}
        self.reads: set[tuple[int, int]] = set()
        origins: list[set[int]] = []  # of what each operation gives: the calls behind it
        for index, sources in enumerate(tape.sources):
            read = set().union(*(origins[source] for source in sources))
            owner = inside.get(index)
            if owner is not None:
                self.reads |= {(origin, owner) for origin in read - {owner}}
            origins.append(read if owner is None else {owner})

    def read_pairs(self, parts: Parts) -> set[tuple[int, int]]:
        """Return pairs of parts, of one with itself too: the second reads what the first gives."""
        place = {index: number for number, part in enumerate(parts) for index in part}
        return {(place[i], place[j]) for i, j in self.reads}

    def is_chain(self, a: range, b: range) -> bool:
        """Whether ``b`` alone reads ``a``, and nothing else, and both can be one stage."""
        roles = {self.calls[index].role for index in (*a, *b)}
        readers = {j for i, j in self.reads if i in a and j not in a}
        sources = {i for i, j in self.reads if j in b and i not in b}
        is_single = bool(readers) and all(j in b for j in readers) and all(i in a for i in sources)
        return is_single and len(roles) == 1 and not roles & {"block", "filter"}

    def is_same_size(self, a: range, b: range) -> bool:
        return len({count_positions(self.calls[part[-1]].shape) for part in (a, b)}) == 1

    def is_numbered_run(self, a: range, b: range) -> bool:
        """Whether two parts are modules of one class whose names differ in their number; a Sequential is a whole."""
        (stem, kind), other = ((cut_number(lead.name)[0], type(lead.module)) for lead in map(self.find_lead, (a, b)))
        return (stem, kind) == other and kind is not nn.Sequential

    def find_lead(self, part: range) -> Call:
        """Return the call that holds most of a part, the first of equals."""
        return max(self.calls[part.start : part.stop], key=lambda call: count_own(call.module))

    def is_weightless(self, part: range) -> bool:
        return not any(count_own(self.calls[index].module) for index in part)

    def is_small(self, part: range) -> bool:
        return not any(has_weights(self.calls[index]) for index in part)


def merge_parts(flow: Flow) -> Parts:
    """Return the stages as runs of calls."""
    parts = [range(index, index + 1) for index in range(len(flow.calls))]
    rules: tuple[Callable[[range, range], bool], ...] = (
        lambda a, b: flow.is_small(b) and flow.is_same_size(a, b),  # norms, activations
        lambda a, b: flow.is_weightless(a),  # pooling belongs to what follows,
        lambda a, b: flow.is_weightless(b),  # resizing at the end to what precedes
        lambda a, b: flow.is_numbered_run(a, b) and flow.is_same_size(a, b),
    )
    for rule in rules:
        merged = parts[:1]
        for part in parts[1:]:
            if rule(merged[-1], part) and flow.is_chain(merged[-1], part):
                merged[-1] = range(merged[-1].start, part.stop)
            else:
                merged.append(part)
        parts = merged
    return thin_out(parts, flow)


def thin_out(parts: Parts, flow: Flow) -> Parts:
    """Join the smallest neighbours of one role until a figure has room for all; those that nobody else reads first."""

    def cost(number: int) -> tuple[bool, int]:
        a, b = parts[number : number + 2]
        return not flow.is_chain(a, b), sum(count_own(flow.calls[index].module) for index in (*a, *b))

    parts = list(parts)
    while len(parts) > MAX_STAGES:
        roles = [flow.calls[part.start].role for part in parts]
        pairs = enumerate(pairwise(roles))
        joinable = [number for number, (a, b) in pairs if a == b and a not in ("block", "filter")]
        if not joinable:
            break
        number = min(joinable, key=cost)
        parts[number : number + 2] = [range(parts[number].start, parts[number + 1].stop)]
    return parts


def count_parameters(net: nn.Module, flow: Flow, parts: Parts) -> tuple[list[int], int]:
    """Return the parameters of each part, and how many belong to none.

    A parameter is its module's; one that a function reads between two calls (a position embedding) is the call's
    before it.
    """
    counts, unused = [0] * len(parts), 0
    place = {index: number for number, part in enumerate(parts) for index in part}
    for name, parameter in net.named_parameters():
        owner = next((n for n, call in enumerate(flow.calls) if name.startswith(f"{call.name}.")), None)
        if owner is None and (first := flow.tape.first_read.get(id(parameter))) is not None:
            owner = max((n for n, call in enumerate(flow.calls) if call.start <= first), default=0)
        if owner is None:
            unused += parameter.numel()
        else:
            counts[place[owner]] += parameter.numel()
    return counts, unused


def describe_stage(calls: Sequence[Call], lead: Call, parameters: int, *, follows: bool) -> Stage:
    names = tuple(dict.fromkeys(call.name for call in calls))
    module = lead.module.module if isinstance(lead.module, Rival) else lead.module
    return Stage(
        name=readable(name_run(names, lead.name)) or type(module).__name__,
        modules=names,
        role=lead.role,
        kind=type(module).__name__,
        rule=rule_of(lead.module),
        shape=to_axes(calls[-1].shape),
        parameters=parameters,
        follows=follows,
    )


def name_run(names: Sequence[str], lead: str) -> str:
    """Return the lead's name, with the range of their numbers where others differ from it by that alone."""
    stem, _ = cut_number(lead)
    numbers = [int(number) for start, number in map(cut_number, names) if start == stem and number]
    return f"{stem}{min(numbers)}-{max(numbers)}" if len(numbers) > 1 else lead


def cut_number(name: str) -> tuple[str, str]:
    stem = name.rstrip("0123456789")
    return stem, name[len(stem) :]


def readable(name: str) -> str:
    """Return a path without what wraps: ``model.encoder.encoder.layer1`` is ``encoder.layer1``."""
    words: list[str] = []
    for word in name.split("."):
        if word not in ("", *WRAPPERS, *words[-1:]):
            words.append(word)
    return ".".join(words)


def name_apart(stage: Stage, stages: Sequence[Stage]) -> Stage:
    """Return the stage, by its whole path where another has the same short name; before others a block gives way."""
    others = [other for other in stages if other is not stage and other.name == stage.name]
    is_shared = any(stage.role == "block" or other.role != "block" for other in others)
    return replace(stage, name=stage.modules[0]) if is_shared else stage


def rule_of(module: nn.Module) -> str:
    if isinstance(module, SmoothAttention):
        return describe_rule(module, None)
    return module.extra_repr().replace("=", " ") if isinstance(module, Switchable) else ""
