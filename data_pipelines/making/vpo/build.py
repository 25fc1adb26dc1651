"""Makes VPO-SS, VPO-MS and VPO-MSMI from a COCO folder and recordings sorted by class.

Writes what the loaders of VPO's authors read (reading/layouts/vpo.py draws it), with one mask per
picture that shows all of its sources, recordings of 16 kHz, mono, the middle 10 s at most, and
VGGSound/recordings.csv, which says which recording each of them was.

compose.py says who sounds. COCO's pictures for training are `train`, those for validation `val`,
which is the split that papers report as test; where a folder has only one of the two, --val-share
of the pictures are drawn for `val`. Each source gets a recording of its class (recordings.py).
"""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.errors import DataError, lies_in
from data_pipelines.facts.vpo import SUBSETS
from data_pipelines.making.vpo import coco, write
from data_pipelines.making.vpo.recordings import SPLITS, Recordings
from data_pipelines.making.writer import whole_folder, write_table
from data_pipelines.reading.layouts.vpo_published import table_of
from data_pipelines.reading.raw import Finding

DEFAULT_VAL_SHARE = 0.1


@dataclasses.dataclass
class Report:
    """What was made and what was not."""

    rows: dict[str, list[dict]]  # setting -> rows of its table
    silent: collections.Counter  # why a class or a picture was passed over -> how often
    recordings: int  # how many are used
    findings: list[Finding]  # what was left out or noticed

    @property
    def complete(self) -> bool:
        """Whether nothing was left out for a fault in it."""
        return not any(finding.kind == "left out" for finding in self.findings)

    def lines(self) -> list[str]:
        """What people read of it."""
        lines = [f"{'setting':8} {'split':6} {'pictures':>8} {'sources':>8}  classes"]
        for setting, rows in self.rows.items():
            for split in SPLITS:
                own = [row for row in rows if row["split"] == split]
                pictures = len({row["img_Id"] for row in own})
                counts = collections.Counter(row["cateName"] for row in own)
                names = ", ".join(f"{name} {n}" for name, n in counts.most_common())
                lines.append(f"{setting:8} {split:6} {pictures:8} {len(own):8}  {names}")
        lines.append(f"{self.recordings} recordings are heard.")
        lines += [f"passed over: {why}: {n}" for why, n in self.silent.most_common()]
        by_code = collections.defaultdict(list)
        for finding in self.findings:
            by_code[finding.kind, finding.code].append(finding)
        for (kind, code), found in sorted(by_code.items()):
            lines.append(f"{kind}: {code}: {len(found)}, e.g. {found[0].message}")
        return lines


def build(
    coco_dir: Path,
    sounds: Path,
    out: Path,
    *,
    settings: Sequence[str] = SUBSETS,
    seed: int = 0,
    max_images: int | None = None,
    val_share: float = DEFAULT_VAL_SHARE,
    people: Path | None = None,
    follow_links: bool = False,
    progress: bool = True,
) -> Report:
    """Makes the data set in the folder `out`, whole or not at all.

    Args:
        coco_dir: COCO's annotations and pictures, see coco.read_folder.
        sounds: recordings, see recordings.Recordings.
        out: folder to make; it may exist if it is empty.
        settings: which of ss, ms, msmi.
        seed: not negative; the same seed gives the same files.
        max_images: at most so many pictures for each setting (and for MSMI beside MS's).
        val_share: share of recordings that only val hears; of pictures see above.
        people: a JSON file that says which annotated person is male, female or a baby.
        follow_links: whether pictures and recordings may be links that lead out of their folders.
        progress: whether to show bars.

    Raises:
        DataError: a number is out of range, `out` is in use, cannot be written or lies in a folder
            that is read, or the folders hold nothing that can be used.
    """
    _check(settings, seed, max_images, val_share)
    for option, folder in (("--coco", coco_dir), ("--sounds", sounds)):
        if lies_in(out, folder):  # nothing is written into a user's data
            raise DataError(f"--out {out} is inside {option} {folder}; name a folder elsewhere.")
    kinds = coco.read_people(people) if people else {}
    with whole_folder(out) as partial:
        pictures, findings = coco.read_folder(coco_dir, kinds, progress=progress)
        pictures = _with_splits(pictures, seed, val_share, findings)
        copies = partial / "VGGSound" / "audios"
        copies.mkdir(parents=True)
        recordings = Recordings(
            sounds,
            copies,
            seed=seed,
            val_share=val_share,
            findings=findings,
            follow_links=follow_links,
        )
        # MSMI holds MS's pictures, which lie in MS's folder.
        made = [s for s in SUBSETS if s in settings or (s == "ms" and "msmi" in settings)]
        left = _quotas(pictures, made, max_images)
        maker = write.Maker(partial / "VPO", recordings, seed, findings, follow_links)
        order = np.random.default_rng([seed]).permutation(len(pictures))
        for i in tqdm(order, desc="VPO", unit="picture", disable=not progress):
            if not any(left.values()):
                break
            split = pictures[i].split
            wanted = [setting for setting in made if left[setting, split]]
            for setting in maker.make(pictures[i], wanted):
                left[setting, split] -= 1
        # MSMI's table has the rows of MS, too.
        own = {**maker.rows, "msmi": maker.rows["msmi"] + maker.rows["ms"]}
        rows = {
            setting: sorted(own[setting], key=lambda row: row["img_Id"])  # stable
            for setting in SUBSETS
            if setting in settings
        }
        if not any(rows.values()):
            raise DataError(_why_nothing(coco_dir, sounds, maker.silent, findings))
        for setting, table in rows.items():
            write_table(table_of(partial / "VPO", setting), write.COLUMNS, table)
        used = recordings.drop_unused()
        write_table(
            partial / "VGGSound" / "recordings.csv",
            ("vgg_file", "recording"),
            [{"vgg_file": name, "recording": source} for name, source in used.items()],
        )
    findings += _notes(pictures, recordings, people is not None)
    return Report(rows, maker.silent, len(used), findings)


def _with_splits(pictures, seed, val_share, findings) -> list[coco.Picture]:
    """Pictures with a split each: the annotation file's, or drawn where there are not both."""
    if {picture.split for picture in pictures} >= set(SPLITS):
        drawn = [picture for picture in pictures if picture.split is None]
    else:
        drawn = pictures
    if drawn:
        message = f"{val_share:.0%} of {len(drawn)} pictures without a split were drawn for val."
        findings.append(Finding("noticed", "", "splits drawn", message))
    chosen = {
        picture.number: "val"
        if np.random.default_rng([seed, picture.number]).random() < val_share
        else "train"
        for picture in drawn
    }
    return [
        dataclasses.replace(picture, split=chosen.get(picture.number, picture.split))
        for picture in pictures
    ]


def _quotas(pictures, settings, max_images) -> dict[tuple[str, str], int]:
    """(setting, split) -> pictures to make; the splits have their shares, at least one each."""
    counts = collections.Counter(picture.split for picture in pictures)
    if max_images is not None and len(pictures) > max_images:
        held = round(max_images * counts["val"] / len(pictures))
        held = min(max(held, min(counts["val"], 1)), max(max_images - 1, 0))
        counts = {"val": held, "train": max_images - held}
    return {(setting, split): counts[split] for setting in settings for split in SPLITS}


def _notes(pictures, recordings, people_given) -> list[Finding]:
    """What the user should know, though it is nobody's fault."""
    notes = []
    unknown = sum(thing.class_name is None for picture in pictures for thing in picture.objects)
    if unknown:
        told = "--people does not name them" if people_given else "say which with --people"
        message = f"{unknown} persons are of unknown kind (male, female, baby): {told}."
        notes.append(Finding("noticed", "", "persons of unknown kind", message))
    for name in recordings.shared:
        message = f"Train and val hear the same recordings of {name}: there is but one."
        notes.append(Finding("noticed", name, "recordings shared by the splits", message))
    return notes


def _why_nothing(coco_dir, sounds, silent, findings) -> str:
    faults = [finding for finding in findings if finding.kind == "left out"]
    codes = collections.Counter(finding.code for finding in faults).most_common(1)
    reasons = [why for why, _ in silent.most_common(1)]
    reasons += [next(f.message for f in faults if f.code == code) for code, _ in codes]
    reason = f" ({'; '.join(reasons).rstrip('.')})" if reasons else ""
    return (
        f"No picture of {coco_dir} has an object that could sound with the recordings in "
        f"{sounds}{reason}; give folders with some of the same classes of VPO."
    )


def _check(settings, seed, max_images, val_share):
    for setting in settings:
        if setting not in SUBSETS:
            raise DataError(f"--settings has {setting!r}; choose from {', '.join(SUBSETS)}.")
    if not settings:
        raise DataError(f"--settings is empty; choose from {', '.join(SUBSETS)}.")
    if seed < 0:
        raise DataError(f"--seed is {seed}; give a number that is not negative.")
    if max_images is not None and max_images < 2:
        raise DataError(
            f"--max-images is {max_images}; give at least 2: one to train, one to test."
        )
    if not 0 < val_share < 1:
        raise DataError(f"--val-share is {val_share}; give a number between 0 and 1.")
