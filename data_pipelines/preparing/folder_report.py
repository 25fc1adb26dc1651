"""What is in a data folder and what is wrong with it, as data for programs."""

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.facts.avsbench import SPLITS
from data_pipelines.media import printable
from data_pipelines.preparing.clip_files import Record
from data_pipelines.reading.raw import RawClip, RawTable

KINDS = ("left out", "repaired", "noticed")
UNKNOWN = "not known"  # subset or split of clips at fault before these could be told
# A clip of AVSBench is called after its video and where in it the clip lies, in milliseconds.
VIDEO = {subset: re.compile(r"(.+)_\d+_\d+") for subset in ("v1s", "v2")}
VIDEO["v1m"] = re.compile(r"(.+)_\d+")


def gather(
    folder: Path,
    table: RawTable,
    records: Sequence[Record],
    *,
    fingerprint: str,
    options: dict[str, Any],
    written: dict[str, int] | None,
) -> dict[str, Any]:
    """The report, fit for JSON; the same for the same folder and options.

    Args:
        folder: that was read.
        table: what it holds.
        records: what became of each clip of the table.
        fingerprint: of the data set.
        options: it was read with.
        written: files and bytes of the data set; None if nothing was written.

    Returns:
        folder, layout, fingerprint, options, written; exit_code (0: all well, 3: some clips left
        out, 2: all of them); clips (counts: found, usable, left_out, repaired); subsets (a row for
        each subset and split, UNKNOWN for clips that were at fault when listed: clips, frames,
        labelled, left_out, and published, the clips of a complete copy, or None); classes (id,
        name, pixels, share of the label pixels that are not ignored, clips); ignored_pixels and
        ignored_share (of all label pixels); label_maps, empty_masks, seconds, silent_seconds,
        repaired_seconds; counts (kind -> code -> number) and all findings (kind,
        clip, code, message); duplicates (what is the same: "sound", "frame" or "video"; clips as
        "split: subset/uid").
    """
    clips = list(zip(table.clips, records, strict=True))
    usable = [(clip, record.facts) for clip, record in clips if not record.left_out]
    gone = {clip.name for clip, record in clips if record.left_out}
    findings = [
        f
        for f in (*table.findings, *(f for record in records for f in record.findings))
        if f.kind != "repaired" or f.clip not in gone  # what was mended in vain is not told
    ]
    left_out = sum(f.kind == "left out" for f in table.findings) + len(clips) - len(usable)
    repaired = sum(
        any(f.kind == "repaired" for f in r.findings) and not r.left_out for _, r in clips
    )
    counts = {kind: Counter(f.code for f in findings if f.kind == kind) for kind in KINDS}
    ignored = sum(facts["ignored_pixels"] for _, facts in usable)
    pixels = sum(facts["label_pixels"] for _, facts in usable)
    return {
        "folder": printable(folder),
        "layout": printable(table.layout),
        "fingerprint": fingerprint,
        "options": options,
        "exit_code": 2 if not usable else 3 if left_out else 0,
        "clips": {
            "found": len(usable) + left_out,
            "usable": len(usable),
            "left_out": left_out,
            "repaired": repaired,
        },
        "subsets": _subsets(table, clips),
        "classes": _classes(table, usable),
        "ignored_pixels": ignored,
        "ignored_share": ignored / pixels if pixels else 0.0,
        "label_maps": sum(len(clip.labels) for clip, _ in usable),
        "empty_masks": sum(facts["empty_masks"] for _, facts in usable),
        "seconds": sum(clip.seconds for clip, _ in usable),
        "silent_seconds": sum(facts["silent_seconds"] for _, facts in usable),
        "repaired_seconds": sum(facts["repaired_seconds"] for _, facts in usable),
        "counts": {kind: dict(sorted(c.items())) for kind, c in counts.items()},
        "findings": [
            {name: printable(value) for name, value in dataclasses.asdict(finding).items()}
            for kind in KINDS
            for finding in findings
            if finding.kind == kind
        ],
        "duplicates": _duplicates(usable),
        "written": written,
    }


def _subsets(table: RawTable, clips: Sequence[tuple[RawClip, Record]]) -> list[dict[str, Any]]:
    rows = {}
    # Subsets in the order of the table, then those of which a complete copy has clips.
    names = dict.fromkeys([clip.subset for clip, _ in clips] + [name for name, _ in table.expected])
    for subset in names:
        for split in SPLITS:
            mine = [r for c, r in clips if (c.subset, c.split) == (subset, split)]
            published = table.expected.get((subset, split))
            if mine or published:
                rows[subset, split] = {
                    "subset": subset,
                    "split": split,
                    "clips": sum(not record.left_out for record in mine),
                    "published": published,
                    "frames": 0,
                    "labelled": 0,
                    "left_out": sum(record.left_out for record in mine),
                }
    for clip, record in clips:
        if not record.left_out:
            row = rows[clip.subset, clip.split]
            row["frames"] += clip.seconds
            row["labelled"] += len(clip.labels)
    return [*rows.values(), *_unlisted(table, names)]


def _unlisted(table: RawTable, names: Collection[str]) -> list[dict[str, Any]]:
    """Rows of clips that never came into the table, so that the rows add up."""
    faults = [f.clip.split("/")[0] for f in table.findings if f.kind == "left out"]
    counts = Counter(name if name in names else UNKNOWN for name in faults)
    empty = {"clips": 0, "published": None, "frames": 0, "labelled": 0}
    return [
        {"subset": name, "split": UNKNOWN, **empty, "left_out": counts[name]}
        for name in (*names, UNKNOWN)
        if counts[name]
    ]


def _classes(table: RawTable, usable: Sequence[tuple[RawClip, dict]]) -> list[dict[str, Any]]:
    pixels, sounding, total = Counter(), Counter(), 0
    for _, facts in usable:
        pixels.update({int(index): count for index, count in facts["pixels"].items()})
        sounding.update(set(facts["objects"]))
        total += facts["label_pixels"] - facts["ignored_pixels"]
    return [
        {
            "id": index,
            "name": printable(name),
            "pixels": pixels[index],
            "share": pixels[index] / total if total else 0.0,
            "clips": sounding[index],
        }
        for index, name in enumerate(table.class_names)
    ]


def _duplicates(usable: Sequence[tuple[RawClip, dict]]) -> list[dict[str, Any]]:
    """What occurs in more than one split."""
    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for clip, facts in usable:
        keys = [("frame", digest) for digest in facts["frame_digests"]]
        if facts["silent_seconds"] < clip.seconds:  # all silence is alike
            keys.append(("sound", facts["sound_digest"]))
        if clip.subset in VIDEO and (found := VIDEO[clip.subset].fullmatch(clip.uid)):
            keys.append(("video", found[1]))
        for key in keys:
            groups[key][printable(clip.name)] = clip.split
    merged: dict[tuple, Counter] = defaultdict(Counter)
    for (what, _), members in groups.items():
        if len(set(members.values())) > 1:
            merged[what, tuple(members.items())][what] += 1  # many frames of the same clips
    return [
        {"what": what, "times": sum(times.values()), "clips": [f"{s}: {n}" for n, s in members]}
        for (what, members), times in sorted(merged.items(), key=lambda item: item[0][0])
    ]
