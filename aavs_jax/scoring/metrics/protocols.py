"""The protocols, as data: what each averages over, on which map and labels, and what it drops.

Read from the public code named in each row's `source`; where code and paper differ, the code is
followed, for it made the published figures.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

TASKS = ("binary", "semantic")  # S4 and MS3; AVSS and VPO
PROTOCOL = "stepping_stones"  # by which checkpoints are chosen, and which scores come first

_PER_FRAME = ("mIoU", "F", "mIoU_no_background", "F_no_background")
_CAVP = ("mIoU", "F", "J&F", "F1", "FDR")


@dataclass(frozen=True)
class Protocol:
    """How one code base turns predictions into scores.

    Attributes:
      name: in configs and results.
      title: for tables.
      source: code base and file that define it, and the paper.
      averages: what scores are means of, by task, for people.
      unit: binary scores are taken per "group" of consecutive clips and averaged, or once for the
        whole "set" from sums of pixels.
      clips_per_group: consecutive clips of the split that make a group; 1 is one clip. The best
        threshold is chosen per group.
      map: which of `update`'s maps F's thresholds are laid on; "" for F of the decided mask.
      decision: "argmax" of the two scores, or whether the "map" is above 0.5.
      labels: binary labels: "touched" counts each pixel that the object touches, "nearest" is the
        nearest pixel of the annotation. Semantic labels are nearest everywhere.
      frame_mean: semantic scores are means over the frames that show a class, instead of sums
        over the set.
      padding: frames that a clip has at least in the semantic task; what it lacks is scored as
        background, predicted and wanted.
      no_background: the class that semantic means "without background" leave out: 0 or the last,
        -1; None where there is no such mean.
      scores: names of the numbers in a result, by task.
    """

    name: str
    title: str
    source: str
    averages: MappingProxyType
    unit: str
    clips_per_group: int
    map: str
    decision: str
    labels: str
    frame_mean: bool
    padding: int
    no_background: int | None
    scores: MappingProxyType


def _by_task(binary, semantic) -> MappingProxyType:
    return MappingProxyType({"binary": binary, "semantic": semantic})


_JF = ("J", "F", "J&F")
_FRAMES_OF_A_CLASS = "frames that show or predict a class, then all classes"

_ROWS = (
    Protocol(
        name="stepping_stones",
        title="Stepping Stones",
        source="GeWu-Lab/Stepping-Stones, avs/utils/utility.py and avss/utils/utility.py"
        " (ECCV 2024, arXiv 2407.11820)",
        averages=_by_task("frames of a clip, then clips", _FRAMES_OF_A_CLASS),
        unit="group",
        clips_per_group=1,
        map="stepping_stones",
        decision="argmax",
        labels="touched",
        frame_mean=True,
        padding=0,
        no_background=0,
        scores=_by_task(_JF, _PER_FRAME),
    ),
    Protocol(
        name="avsbench",
        title="AVSBench (TPAVI)",
        source="OpenNLPLab/AVSBench, avs_scripts/: avs_s4/utils/utility.py, avs_s4/test.sh and"
        " avss/utils/compute_color_metrics.py (ECCV 2022, arXiv 2207.05042; IJCV 2024)",
        averages=_by_task("frames of four clips, then groups of four", _FRAMES_OF_A_CLASS),
        unit="group",
        clips_per_group=4,
        map="softmax",
        decision="map",
        labels="nearest",
        frame_mean=True,
        padding=10,
        no_background=-1,
        scores=_by_task(_JF, _PER_FRAME),
    ),
    Protocol(
        name="avsegformer",
        title="AVSegFormer",
        source="vvvb-github/AVSegFormer, scripts/s4/utility.py, config/ and"
        " utils/compute_color_metrics.py (AAAI 2024, arXiv 2307.01146)",
        averages=_by_task("frames of two clips, then pairs", _FRAMES_OF_A_CLASS),
        unit="group",
        clips_per_group=2,
        map="softmax",
        decision="map",
        labels="nearest",
        frame_mean=True,
        padding=10,
        no_background=-1,
        scores=_by_task(_JF, _PER_FRAME),
    ),
    Protocol(
        name="combo",
        title="COMBO",
        source="yannqi/COMBO-AVS, models/evaluation/sem_seg_evaluation.py and _ss.py"
        " (CVPR 2024, arXiv 2312.06462)",
        averages=_by_task("frames of a clip, then clips", _FRAMES_OF_A_CLASS),
        unit="group",
        clips_per_group=1,
        map="softmax",
        decision="map",
        labels="nearest",
        frame_mean=True,
        padding=0,
        no_background=-1,
        scores=_by_task(_JF, _PER_FRAME),
    ),
    Protocol(
        name="cavp",
        title="CAVP / VPO",
        source="cyh-0/CAVP, utils/eval_utils.py and trainer/trainer_cavp_*.py"
        " (CVPR 2024, arXiv 2304.02970)",
        averages=_by_task(
            "pixels of the set, then both classes", "pixels of the set, then classes"
        ),
        unit="set",
        clips_per_group=1,
        map="",
        decision="argmax",
        labels="nearest",
        frame_mean=False,
        padding=0,
        no_background=None,
        scores=_by_task((*_JF, "F1", "FDR"), (*_CAVP, *(f"{name}_multi_source" for name in _CAVP))),
    ),
    Protocol(
        name="data_set",
        title="Data set mIoU",
        source="the usual measure of semantic segmentation (PASCAL VOC)",
        averages=_by_task("pixels of the set", "pixels of the set, then classes that occur"),
        unit="set",
        clips_per_group=1,
        map="",
        decision="argmax",
        labels="nearest",
        frame_mean=False,
        padding=0,
        no_background=0,
        scores=_by_task((*_JF, "mIoU"), _PER_FRAME),
    ),
)

PROTOCOLS: MappingProxyType[str, Protocol] = MappingProxyType({row.name: row for row in _ROWS})


def parse(names: str) -> tuple[str, ...]:
    """Names of protocols from 'all' or a list separated by commas, without repetitions.

    Raises:
      ValueError: a name is not known, or there is none.
    """
    if names.strip() == "all":
        return tuple(PROTOCOLS)
    wanted = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    unknown = [name for name in wanted if name not in PROTOCOLS]
    if unknown or not wanted:
        known = ", ".join(PROTOCOLS)
        found = f"no protocol {unknown[0]!r}" if unknown else "no protocol is named"
        raise ValueError(f"{found}; there are {known}, or all")
    return wanted


def labels_used(protocols: Iterable[str]) -> tuple[str, ...]:
    """Which labels these protocols score against in the binary task: "touched", "nearest"."""
    return tuple(dict.fromkeys(PROTOCOLS[name].labels for name in protocols))
