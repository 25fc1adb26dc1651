"""What became of each tensor, for people and for programs."""

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from aavs_jax.convert.engine import Fate
from aavs_jax.convert.formats import part_of
from aavs_jax.convert.importing import Source, Weights
from aavs_jax.methods.parts.sizes import BACKBONES
from aavs_jax.state import tree
from aavs_jax.weights.card import Card

# (embed_dim, depths) -> as everyone calls it: "Swin-T".
SWINS = {
    (sizes["embed_dim"], sizes["depths"]): name.replace("_", "-").title()
    for name, sizes in BACKBONES.items()
}


def describe(card: Card) -> str:
    """'a Mask2Former (150 classes, 100 queries), Swin-B (embed_dim 128, depths 2/2/18/2, ...)'."""
    words, backbone = card.describe(), card.network.get("backbone", {})
    for key, name in (("pvt", "PVT-v2"), ("resnet", "ResNet")):
        if depths := card.network.get(key, {}).get("depths"):
            words += f", {name} of depths {'/'.join(map(str, depths))}"
    if "embed_dim" in backbone:
        depths = tuple(backbone["depths"])
        words += (
            f", {SWINS.get((backbone['embed_dim'], depths), 'a Swin')} (embed_dim "
            f"{backbone['embed_dim']}, depths {'/'.join(map(str, depths))}, window "
            f"{backbone['window_size']})"
        )
    if card.kind == "vggish":
        words += f", embeddings of {card.network['audio']['fully_connected'][-1]} numbers"
    return words


def recognised(source: Source) -> str:
    """What a source is, in a line or two."""
    words = f"{source.path}: {describe(source.card)}; "
    if source.state is None:
        return words + "a folder of weights"
    words += f"{source.format.title}, {source.state.form}, {source.state.bytes / 1e6:.1f} MB"
    if wrapping := source.card.origin.get("wrapping"):
        words += f"; taken off: {wrapping}"
    if source.config:
        words += f"; with the config.json beside it, {source.config}"
    for place, reason in source.state.besides.items():
        words += f"\n  passed over: {place} ({reason})"
    return words


def summary(weights: Weights, written: Sequence[Fate]) -> list[str]:
    """How many tensors became what.

    Args:
      weights: as read, and made what was asked for.
      written: fates of what was written in another layout.
    """
    lines = []
    if mapped := [fate for fate in weights.fates if fate.what == "mapped"]:
        arrays = sum(len(fate.ours) for fate in mapped)
        lines.append(f"mapped      {len(mapped)} tensors to {arrays} arrays of ours")
    numbers = tree.count(weights.parameters)
    lines.append(f"holds       {len(weights.parameters)} arrays, {numbers:,} numbers")
    if narrow := collections.Counter(f.dtype for f in mapped if f.dtype != "float32"):
        words = ", ".join(f"{count} from {dtype}" for dtype, count in narrow.items())
        lines.append(f"widened     {words}, to float32, without loss")
    return lines + _reasons(weights.fates) + _reasons(written, ("left behind", "new"))


def _reasons(
    fates: Iterable[Fate], whats: Sequence[str] = ("left over", "left behind", "new")
) -> list[str]:
    """A line per reason: how many, and some of them by name, or by part if they are ours."""
    groups: dict[tuple[str, str], list[Fate]] = {}
    for fate in fates:
        groups.setdefault((fate.what, fate.reason), []).append(fate)
    lines = []
    for (what, reason), group in sorted(groups.items(), key=lambda item: item[0][0]):
        if what not in whats:
            continue
        if len(group) > 2 and all(fate.ours and not fate.theirs for fate in group):
            parts = collections.Counter(part_of(fate.ours[0]) for fate in group)
            words = ", ".join(f"{part} ({count})" for part, count in parts.items())
        else:
            names = [fate.theirs or fate.ours[0] for fate in group]
            words = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
        lines.append(f"{what:<12}{len(group)}: {words}: {reason}")
    return lines


def table(fates: Sequence[Fate]) -> str:
    """A line for each tensor and parameter, then how many of each fate and why."""
    rows = [("tensor", "parameters", "shape", "type", "fate", "digest", "reason")]
    for fate in fates:
        theirs, ours = _shape(fate.shape), " ".join(map(_shape, fate.our_shapes))
        shape = " -> ".join(filter(None, (theirs if fate.theirs else "", ours)))
        cells = (fate.theirs, " ".join(fate.ours), shape, fate.dtype, fate.what, fate.digest)
        rows.append((*(cell or "-" for cell in cells), fate.reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    counts = collections.Counter(fate.what for fate in fates)
    return "\n".join(
        [*lines, "", *(f"{count:>6} {what}" for what, count in counts.items()), *_reasons(fates)]
    )


def as_json(
    sources: Sequence[Source], card: Card, read: Sequence[Fate], written: Sequence[Fate]
) -> str:
    """The same for programs.

    Args:
      sources: what was given.
      card: of the result.
      read: fates of what was read; none for a folder of ours.
      written: fates of what was written in another layout.
    """
    values: dict[str, Any] = {
        "sources": [_source(source) for source in sources],
        "kind": card.kind,
        "network": card.network,
        "classes": card.classes,
    }
    for direction, fates in (("read", read), ("written", written)):
        values[direction] = [dataclasses.asdict(fate) for fate in fates]
        values[f"{direction}_counts"] = collections.Counter(fate.what for fate in fates)
    return json.dumps(values, indent=1) + "\n"


def _source(source: Source) -> dict[str, Any]:
    values = {"path": str(source.path), "kind": source.card.kind, "origin": source.card.origin}
    if source.state is not None:
        values |= {"form": source.state.form, "besides": source.state.besides}
        values |= {"format": source.format.name, "config": str(source.config or "")}
    return values


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"
