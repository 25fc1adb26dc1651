"""AVSBench-Single+: AVSBench's single-source clips with the category of the sound in every pixel.

An early version of the paper that brought VPO (Chen et al., arXiv 2304.02970v1) scored 24 classes
on them: background and the 23 sound categories in alphabetical order. Nothing was published but the
idea, so the labels are made by its rule: a pixel has the clip's category where its mask is on.
"""

import dataclasses
import hashlib

from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.reading.raw import Finding, RawTable

NAME = "AVSBench-Single+"
SUBSET = "v1s"
CLASS_NAMES = (avsbench.BACKGROUND, *sorted(avsbench.S4_CATEGORIES))


def single_plus(table: RawTable) -> RawTable:
    """The single-source clips of a table with Single+'s 24 classes.

    Args:
        table: of the unified or of the first release.

    Returns:
        The table of its v1s clips. Those that do not sound of exactly one category are left out.

    Raises:
        DataError: no such clip.
    """
    category_of = {name: category for category, name in avsbench.S4_CATEGORIES.items()}
    clips, findings = [], [f for f in table.findings if f.clip.split("/")[0] in ("", SUBSET)]
    for clip in table.clips:
        if clip.subset != SUBSET:
            continue
        names = [table.class_names[index] for index in clip.objects or ()]
        categories = [category_of[name] for name in names if name in category_of]
        if len(names) == len(categories) == 1:
            index = CLASS_NAMES.index(categories[0])
            clips.append(
                dataclasses.replace(
                    clip,
                    label_encoding="foreground",
                    label_ids=None,
                    foreground=index,
                    objects=(index,),
                )
            )
        else:
            what = " and ".join(names) or "nothing"
            message = f"clip {clip.name} sounds of {what}, not of one of Single+'s 23 categories"
            findings.append(Finding("left out", clip.name, "no category", message))
    if not clips:
        raise DataError(
            f"no clips for Single+ in {table.roots[0]}: it is made of AVSBench's v1s (S4) clips, "
            f"and this is {table.layout} without any"
        )
    return dataclasses.replace(
        table,
        layout=f"{NAME}, made of {table.layout}",
        class_names=CLASS_NAMES,
        clips=tuple(clips),
        fingerprint=hashlib.sha256(f"{NAME} {table.fingerprint}".encode()).hexdigest(),
        binary_only=(),
        expected={key: count for key, count in table.expected.items() if key[0] == SUBSET},
        findings=tuple(findings),
    )
