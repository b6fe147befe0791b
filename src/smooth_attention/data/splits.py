"""Splits: which pairs train, which choose, which are reported; groups stay together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smooth_attention.core.errors import DataError
from smooth_attention.core.seeds import derive_seed
from smooth_attention.data.sources import Source

__all__ = ["Split", "find_copies", "find_leaks", "keep_share", "make_split"]

DEFAULT_FOLDS = 5
VALIDATION_FRAC = 0.15


@dataclass(frozen=True, slots=True)
class Split:
    """Stems by part, each in sorted order, and what the parts share that they should not.

    Attributes:
        train: stems that train.
        val: stems that choose the checkpoint.
        test: stems that are reported.
        warnings: one sentence for each group or image shared between parts.
        folds: of how many folds the test part is one; None where it is none.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    folds: int | None = None

    def parts(self) -> dict[str, tuple[str, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}


def make_split(source: Source, *, split_seed: int = 0, fold: int = 0, folds: int | None = None) -> Split:
    """Return the split of a source: its given lists, or one of K folds by group.

    The test part is fold ``fold`` of ``folds``; of what is left, whole groups are drawn for validation until they
    hold at least 15 % of the pairs. Lists given with the data are used as given unless ``folds`` is named; a missing
    ``val`` list is drawn from ``train`` the same way.

    Args:
        source: the data.
        split_seed: moves folds and validation; nothing else does.
        fold: 0 to folds - 1.
        folds: number of folds K, at least 2; None: the given lists, or where there are none 5 folds, fewer
            where there are fewer groups.

    Raises:
        DataError: where a part would be empty.
    """
    if source.given_splits and folds is None:
        if fold:
            raise DataError(f"{source.name} has given lists, so fold {fold} means nothing; name --folds to use folds")
        return given_split(source, split_seed)
    members = members_by_group(source, source.stems)
    if len(members) < 3:
        raise DataError(
            f"{source.name} has {len(source.stems)} pairs in {len(members)} groups; a split needs at least 3 groups, "
            "one each for train, val and test: add images, or mend groups.csv"
        )
    folds = min(DEFAULT_FOLDS, len(members)) if folds is None else folds
    if folds < 2 or not 0 <= fold < folds:
        raise DataError(f"folds are at least 2 and a fold is 0 to folds - 1, got {fold=} of {folds=}")
    if len(members) < folds:
        raise DataError(f"{source.name} has {len(members)} groups, too few for {folds} folds; lower --folds")
    test_groups = assign_folds(members, folds, split_seed)[fold]
    rest = {group: stems for group, stems in members.items() if group not in test_groups}
    val_groups = draw_validation(rest, derive_seed(split_seed, "val", fold, folds), source.name)
    parts = {"train": rest.keys() - val_groups, "val": val_groups, "test": test_groups}
    return checked_split(
        source, {part: [s for g in groups for s in members[g]] for part, groups in parts.items()}, folds
    )


def keep_share(source: Source, split: Split, share: float, split_seed: int) -> Split:
    """Return the split with about ``share`` of its training pairs, drawn in whole groups, the same for every seed.

    Raises:
        DataError: where less than one group would be left.
    """
    if share == 1:
        return split
    members = members_by_group(source, split.train)
    groups = sorted(members)
    np.random.default_rng(derive_seed(split_seed, "share", *split.test)).shuffle(groups)
    kept: list[str] = []
    for group in groups:
        if len(kept) + len(members[group]) / 2 <= share * len(split.train):
            kept += members[group]
    if not kept:
        raise DataError(
            f"{share:g} of the {len(split.train)} training pairs of {source.name} is less than the smallest of its "
            f"{len(groups)} groups; use a larger train_frac"
        )
    return replace(split, train=tuple(sorted(kept)))


def given_split(source: Source, split_seed: int) -> Split:
    parts: dict[str, Sequence[str]] = dict(source.given_splits)
    if "val" not in parts:
        rest = members_by_group(source, parts["train"])
        groups = draw_validation(rest, derive_seed(split_seed, "val"), source.name)
        parts["val"] = [stem for stem in parts["train"] if source.groups[stem] in groups]
        parts["train"] = [stem for stem in parts["train"] if source.groups[stem] not in groups]
    if empty := [part for part, stems in parts.items() if not stems]:
        raise DataError(f"the {empty[0]} part of {source.name} is empty; mend {empty[0]}.txt")
    return checked_split(source, parts)


def checked_split(source: Source, parts: Mapping[str, Sequence[str]], folds: int | None = None) -> Split:
    train, val, test = (tuple(sorted(parts[part])) for part in ("train", "val", "test"))
    return Split(train, val, test, tuple(find_leaks(source, {"train": train, "val": val, "test": test})), folds)


def find_leaks(source: Source, parts: Mapping[str, Iterable[str]]) -> list[str]:
    """Return one sentence for each stem, group or identical image that two parts share."""
    listed = [(part, stem) for part, stems in parts.items() for stem in stems]
    keys: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("stem", str),
        ("group", source.groups.__getitem__),
        ("identical image", source.image_digest),
    )
    sentences = []
    for what, key in keys:
        owners: dict[str, dict[str, str]] = {}
        for part, stem in listed:
            owners.setdefault(key(stem), {}).setdefault(part, stem)
        for name, by_part in owners.items():
            is_news = what == "stem" or len(set(by_part.values())) > 1  # else the stem was named already
            if len(by_part) > 1 and is_news:
                where = ", ".join(f"{stem} in {part}" for part, stem in by_part.items())
                label = what if what == "identical image" else f"{what} {name!r}"
                sentences.append(f"{label} shared between parts: {where}")
    return sentences


def find_copies(source: Source) -> list[str]:
    """Return one sentence for each set of stems whose images are the same file byte by byte."""
    owners: dict[str, list[str]] = {}
    for stem in source.stems:
        owners.setdefault(source.image_digest(stem), []).append(stem)
    return [f"identical images: {', '.join(stems)}" for stems in owners.values() if len(stems) > 1]


def members_by_group(source: Source, stems: Iterable[str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for stem in sorted(stems):
        members.setdefault(source.groups[stem], []).append(stem)
    return members


def assign_folds(members: Mapping[str, list[str]], folds: int, split_seed: int) -> list[set[str]]:
    """Return the groups of each fold; larger groups first, each to the fold with the fewest pairs so far."""
    groups = sorted(members)
    generator = np.random.default_rng(derive_seed(split_seed, "folds", folds))
    generator.shuffle(groups)
    groups.sort(key=lambda group: -len(members[group]))
    assigned: list[set[str]] = [set() for _ in range(folds)]
    sizes = [0] * folds
    for group in groups:
        smallest = sizes.index(min(sizes))
        assigned[smallest].add(group)
        sizes[smallest] += len(members[group])
    return [assigned[fold] for fold in generator.permutation(folds)]  # else the largest group is always in fold 0


def draw_validation(members: Mapping[str, list[str]], seed: int, name: str) -> set[str]:
    """Return groups that hold about 15 % of the pairs, at least one and never all; a huge group is passed over."""
    if len(members) < 2:
        raise DataError(f"{name} has only one group left for train and val; add images or groups, or a val.txt")
    groups = sorted(members)
    np.random.default_rng(seed).shuffle(groups)
    wanted = VALIDATION_FRAC * sum(len(stems) for stems in members.values())
    drawn: set[str] = set()
    count = 0
    for group in groups:
        if count < wanted and count + len(members[group]) <= 2 * wanted:
            drawn.add(group)
            count += len(members[group])
    return drawn or {min(groups, key=lambda group: len(members[group]))}
