"""What became of each tensor, for people and for programs."""

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from aavs_jax.convert.engine import Fate
from aavs_jax.convert.fitting import TASKS, missing_for
from aavs_jax.convert.importing import Source, Weights
from aavs_jax.errors import UserError
from aavs_jax.methods.parts.sizes import BACKBONES
from aavs_jax.state import tree
from aavs_jax.weights.card import Card

# (embed_dim, depths) -> as everyone calls it: "Swin-T".
SWINS = {
    (sizes["embed_dim"], sizes["depths"]): name.replace("_", "-").title()
    for name, sizes in BACKBONES.items()
}
# The first that a path has decides.
PARTS = (
    ("audio_encoder/", "audio encoder"),
    ("audio_proj/", "audio MLP"),
    ("attention_adapter/", "backbone adapters"),
    ("mlp_adapter/", "backbone adapters"),
    ("adapter/", "decoder adapters"),
    ("output_norm/", "norms of the backbone's outputs"),
    ("backbone/", "backbone"),
    ("pixel_decoder/", "pixel decoder"),
    ("decoder/silent_embed", "key vectors"),
    ("decoder/sounding_embed", "key vectors"),
    ("decoder/uncertain_embed", "key vectors"),
    ("decoder/query_", "queries"),
    ("decoder/class_predictor", "class predictor"),
    ("decoder/", "decoder"),
)
SETS = {"binary": "S4 and MS3", "semantic": "AVSS"}


def describe(card: Card) -> str:
    """'a Mask2Former with Swin-B (embed_dim 128, depths 2/2/18/2, window 12), 100 queries, ...'."""
    network = card.network
    words = {
        "aavs": f"AAVS's {network.get('task')} network",
        "mask2former": "a Mask2Former",
        "swin": "",
        "vggish": "an audio encoder",
    }[card.kind]
    if backbone := network.get("backbone"):
        depths = tuple(backbone["depths"])
        swin = SWINS.get((backbone["embed_dim"], depths), "a Swin")
        sizes = (
            f"(embed_dim {backbone['embed_dim']}, depths {'/'.join(map(str, depths))}, "
            f"window {backbone['window_size']})"
        )
        words = f"{words} with {swin} {sizes}" if words else f"{swin} {sizes}"
    for key, word in (("num_queries", "queries"), ("num_classes", "classes")):
        words += f", {network[key]} {word}" if key in network else ""
    if card.kind == "vggish":
        words += f" of embeddings of {network['audio']['fully_connected'][-1]} numbers"
    return words


def recognised(source: Source) -> str:
    """What a source is, in a line or two."""
    if source.state is None:
        return f"{source.path}: {describe(source.card)}, a folder of weights"
    state = source.state
    words = (
        f"{source.path}: {describe(source.card)}; {source.format.title}, {state.form}, "
        f"{_size(state.bytes)}"
    )
    if wrapping := source.card.origin.get("wrapping"):
        words += f"; taken off: {wrapping}"
    if source.config:
        words += f"; with the config.json beside it, {source.config}"
    for place, reason in state.besides.items():
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
    narrow = collections.Counter(fate.dtype for fate in mapped if fate.dtype != "float32")
    if narrow:
        words = ", ".join(f"{count} from {dtype}" for dtype, count in narrow.items())
        lines.append(f"widened     {words}, to float32, without loss")
    for what in ("left over", "left behind", "new"):
        lines += _reasons(what, [fate for fate in weights.fates if fate.what == what])
    for what in ("left behind", "new"):
        lines += _reasons(what, [fate for fate in written if fate.what == what])
    return lines


def _reasons(what: str, fates: Sequence[Fate]) -> list[str]:
    """A line per reason: how many, and some of them by name, or by part if they are ours."""
    groups: dict[str, list[Fate]] = {}
    for fate in fates:
        groups.setdefault(fate.reason, []).append(fate)
    lines = []
    for reason, group in groups.items():
        if len(group) > 2 and all(fate.ours and not fate.theirs for fate in group):
            parts = collections.Counter(part_of(fate.ours[0]) for fate in group)
            words = ", ".join(f"{part} ({count})" for part, count in parts.items())
        else:
            names = [fate.theirs or fate.ours[0] for fate in group]
            words = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
        lines.append(f"{what:<12}{len(group)}: {words}: {reason}")
    return lines


def training_draws(weights: Weights) -> list[str]:
    """What of these weights fits each task of the paper, and what training them would draw.

    Of an audio encoder, and of sizes that AAVS cannot have, there is nothing to say.
    """
    card, lines = weights.card, []
    if card.kind == "aavs":
        if any(part_of(path) == "audio encoder" for path in weights.parameters):
            return []
        return [
            "without an audio encoder: give VGGish's file as a second SOURCE, or pass its folder "
            "with --config.init.vggish"
        ]
    for task in TASKS if card.kind != "vggish" else ():
        try:
            absent, misfit, numbers = missing_for(weights, task)
        except UserError:
            return []
        sizes, count = TASKS[task], len(weights.parameters)
        lines.append(
            f"for {SETS[task]} ({sizes['num_queries']} queries, {sizes['num_classes']} classes) "
            f"{count - len(misfit)} of the {count} arrays fit ({numbers:,} numbers); training "
            "draws from config.seed:"
        )
        lines += ["  of another shape here: " + ", ".join(misfit)] if misfit else []
        parts = collections.Counter(map(part_of, absent))
        lines.append(
            "  not in the file: "
            + ", ".join(f"{part} ({number})" for part, number in parts.items())
        )
    return lines


def part_of(path: str) -> str:
    """The part of the network that a parameter is of, as people call it."""
    return next(name for mark, name in PARTS if mark in path)


def table(fates: Iterable[Fate]) -> str:
    """A line for each tensor and parameter, then how many of each fate and why."""
    fates = list(fates)
    rows = [("tensor", "parameters", "shape", "type", "fate", "digest", "reason")]
    for fate in fates:
        theirs, ours = _shape(fate.shape), " ".join(map(_shape, fate.our_shapes))
        shape = " -> ".join(filter(None, (theirs if fate.theirs else "", ours)))
        rows.append(
            (
                fate.theirs or "-",
                " ".join(fate.ours) or "-",
                shape,
                fate.dtype or "-",
                fate.what,
                fate.digest or "-",
                fate.reason,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    counts = collections.Counter(fate.what for fate in fates)
    lines += ["", *(f"{count:>6} {what}" for what, count in counts.items())]
    for what in ("left over", "left behind", "new"):
        lines += _reasons(what, [fate for fate in fates if fate.what == what])
    return "\n".join(lines)


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
        "read": [_plain(fate) for fate in read],
        "written": [_plain(fate) for fate in written],
    }
    for direction, fates in (("read", read), ("written", written)):
        counts: dict[str, Any] = collections.Counter(fate.what for fate in fates)
        values[f"{direction}_counts"] = counts
        values[f"{direction}_reasons"] = collections.Counter(
            f"{fate.what}: {fate.reason}" for fate in fates if fate.reason
        )
    return json.dumps(values, indent=1) + "\n"


def _source(source: Source) -> dict[str, Any]:
    values = {"path": str(source.path), "kind": source.card.kind, "origin": source.card.origin}
    if source.state is None:
        return values
    state = source.state
    return values | {
        "format": source.format.name,
        "form": state.form,
        "wrapping": source.card.origin.get("wrapping", ""),
        "config": str(source.config) if source.config else "",
        "besides": state.besides,
        "bytes": state.bytes,
    }


def _plain(fate: Fate) -> dict[str, Any]:
    return dataclasses.asdict(fate)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
