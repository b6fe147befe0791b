"""Notes of one forward pass: which module was called, and which operation reads which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from smooth_attention.models.blocks import Block, Switchable, evaluation_mode

__all__ = ["HALVES", "Call", "Shape", "Tape", "record_calls"]

HALVES = ("encoder", "decoder")
Shape = tuple[int, ...]


@dataclass(eq=False)
class Call:
    """One call of a module: operations ``start`` to ``end`` of the tape, shapes of the tensors that it gave."""

    name: str
    module: nn.Module
    start: int
    end: int = 0
    outputs: list[Shape] = field(default_factory=list)
    children: list[Call] = field(default_factory=list)

    @property
    def is_idle(self) -> bool:
        """Whether it hands on what it got."""
        return self.end == self.start

    @property
    def shape(self) -> Shape:
        """Of its first output, batch axis and all."""
        return self.outputs[0] if self.outputs else ()

    @property
    def busy_children(self) -> list[Call]:
        return [child for child in self.children if not child.is_idle]

    @property
    def role(self) -> str:
        if isinstance(self.module, Switchable):
            return "block" if isinstance(self.module, Block) else "filter"
        for word in self.name.split("."):
            if word in HALVES:
                return word
            if "head" in word:
                return "head"
        return "other"


class Tape(TorchFunctionMode):
    """Notes of every operation which earlier ones it reads, and which module called it.

    Modules alone would not tell: between them maps are resized and joined by functions.
    """

    root: Call

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[set[int]] = []
        self.maker = WeakTensorKeyDictionary()  # the operation that made a tensor, or changed it last
        self.first_read: dict[int, int] = {}  # from the id of a parameter
        self.open: list[Call] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = list(walk_tensors([args, kwargs or {}]))
        versions = [tensor._version for tensor in given]
        out = func(*args, **(kwargs or {}))
        # what comes back as it was, as from x.contiguous(), is still the work of its maker
        made = [tensor for tensor in walk_tensors(out) if all(tensor is not other for other in given)]
        made += [tensor for tensor, version in zip(given, versions, strict=True) if tensor._version != version]
        self.note(given, made)
        return out

    def note(self, given: Iterable[Tensor], made: Sequence[Tensor]) -> None:
        if not made:
            return
        index, sources = len(self.sources), set()
        for tensor in given:
            if isinstance(tensor, nn.Parameter):
                self.first_read.setdefault(id(tensor), index)
            elif (source := self.maker.get(tensor)) is not None:
                sources.add(source)
        self.sources.append(sources)
        for tensor in made:
            self.maker[tensor] = index

    def enter(self, name: str, module: nn.Module) -> None:
        call = Call(name, module, len(self.sources))
        if self.open:
            self.open[-1].children.append(call)
        else:
            self.root = call
        self.open.append(call)

    def leave(self, given: Any, out: Any) -> None:
        inputs, outputs = list(walk_tensors(given)), list(walk_tensors(out))
        # scripted code hides its operations; the image, which nothing made, may pass as it is
        hidden = [t for t in outputs if t not in self.maker and all(t is not other for other in inputs)]
        self.note(inputs, hidden)
        call = self.open.pop()
        call.end, call.outputs = len(self.sources), [tuple(tensor.shape) for tensor in outputs]


@contextmanager
def taped(net: nn.Module) -> Iterator[Tape]:
    """Note what runs inside the context; after it ``net`` has the hooks that it had."""
    tape = Tape()
    with ExitStack() as stack:
        for name, module in net.named_modules():
            for handle in (
                module.register_forward_pre_hook(lambda module, args, name=name: tape.enter(name, module)),
                module.register_forward_hook(
                    lambda module, args, kwargs, out: tape.leave([args, kwargs], out), with_kwargs=True
                ),
            ):
                stack.callback(handle.remove)
        with tape:
            yield tape


def walk_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from walk_tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from walk_tensors(each)


def record_calls(net: nn.Module, image_size: int) -> Tape:
    """Return the tape of one forward pass in evaluation mode."""
    # tensors of inference mode have no version to tell what is changed in place
    with evaluation_mode(net), torch.inference_mode(False), torch.no_grad():
        image = next(net.parameters()).new_zeros(1, 3, image_size, image_size)
        with taped(net) as tape:
            net(image)
    return tape
