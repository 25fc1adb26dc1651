"""Which stages of a schedule would ask what another one answers."""

from collections.abc import Sequence

from aavs_jax.plan.folds import BY_OTHERS
from aavs_jax.plan.stage import Stage
from data_pipelines.prepared.source import ClipSource


def repeated_question(stages: Sequence[Stage]) -> dict[str, str]:
    """The semantic stages that would ask what a binary one before them asks -> that one.

    Where the labels tell one class, or none, what something is and where it sounds are the same
    question, and one stage answers it.

    Args:
      stages: on their data.
    """
    binary = [stage.name for stage in stages if stage.task.name == "binary"]
    return {
        stage.name: binary[0]
        for stage in stages
        if binary and stage.task.name == "semantic" and all(map(one_class, stage.sources.values()))
    }


def without_repeated_question(stages: Sequence[Stage]) -> list[Stage]:
    """The stages but those of `repeated_question`, and but what only writes masks for those.

    Args:
      stages: on their data, those that only write masks, too.
    """
    answered = repeated_question(stages)
    taken: dict[bool, set[str]] = {True: set(), False: set()}
    for stage in stages:
        if stage.keys["prior"]["train"] in BY_OTHERS:
            taken[stage.name in answered].add(stage.keys["prior"]["masks"])
    idle = taken[True] - taken[False]
    return [s for s in stages if s.name not in answered and s.writes_for not in idle]


def one_class(source: ClipSource) -> bool:
    """Whether the labels of a split tell foreground and background, and no more."""
    binary_only = {clip.subset for clip in source.clips} <= set(source.binary_only)
    return binary_only or source.num_classes <= 2
