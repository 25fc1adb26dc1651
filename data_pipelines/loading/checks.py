"""What can be asked of the loaders, and whether it fits the clips."""

from data_pipelines.errors import DataError
from data_pipelines.loading.decoding import RESIZES
from data_pipelines.loading.front_ends import FrontEnd
from data_pipelines.prepared.embeddings import Embeddings
from data_pipelines.prepared.source import ClipSource

# What a network may be told of where it sounds: in training ...
PRIORS = ("none", "true", "predicted", "mixture")
# ... and when it is judged, where "unknown" is 0.5 everywhere and "both" this and predicted masks.
VIEWS = ("none", "true", "predicted", "unknown", "both")
PREDICTED = frozenset({"predicted", "mixture", "both"})  # those that need masks
SOUNDS = ("right", "other", "silence")


def labelled_clips(source: ClipSource) -> list[int]:
    """Indices of the clips that can be trained on: those that have a label.

    Raises:
        DataError: there are none.
    """
    members = [index for index, clip in enumerate(source.clips) if clip.labelled]
    if not members:
        raise DataError("no clip of the training split has a label: nothing can be learnt from it")
    return members


def check_targets(
    source: ClipSource, task: str, max_targets: int, key: str = "max_targets"
) -> None:
    """Whether the label maps that are trained on show no more classes than there is room for.

    They were counted when the data were prepared, at the maps' own size; where maps are made
    smaller, fewer may be left, and so the check may ask for more room than is needed.

    Args:
        source: the clips.
        task: "binary", which always has two, or "semantic".
        max_targets: the most classes of one label map, background counted, ignored pixels not.
        key: what to call it in the message.

    Raises:
        DataError: a label map shows more; no clip with a label.
    """
    counts = {
        source.clips[i].name: 2 if task == "binary" else source.clips[i].classes
        for i in labelled_clips(source)
    }
    name = max(counts, key=counts.__getitem__)
    if counts[name] > max_targets:
        others = sum(count > max_targets for count in counts.values()) - 1
        raise DataError(
            f"clip {name} shows up to {counts[name]} classes in one label map, background "
            f"counted, which is more than {max_targets}"
            + (f" (and {others} other clips show more, too)" if others else "")
            + f": give {key}={counts[name]}"
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises DataError where the value is none of the choices."""
    if value not in choices:
        raise DataError(f"{name} {value!r} is none of {', '.join(choices)}")


def check_task_and_prior(task: str, prior: str, prior_dir, priors: tuple[str, ...]) -> None:
    """Raises DataError where a task has no such prior, or the prior's masks are not given."""
    check_choice("task", task, ("binary", "semantic"))
    check_choice("prior", prior, priors)
    if task == "binary" and prior != "none":
        raise DataError(f"the binary task takes no prior mask, but prior is {prior!r}")
    if prior in PREDICTED and prior_dir is None:
        raise DataError(f"prior is {prior!r}, but prior_dir, the folder of its masks, is not given")


def check_resize(resize: str, prior: str, features: object) -> None:
    """Raises DataError where there is no such way, or what is kept was resized in another."""
    check_choice("resize", resize, RESIZES)
    if resize != "squash" and (prior in PREDICTED or features is not None):
        kept = "maps of frames" if features is not None else "predicted masks"
        raise DataError(f"resize is {resize!r}, but {kept} are of squashed frames: give 'squash'")


def check_shared(batch_size: int, process_count: int) -> None:
    """Raises DataError where the processes cannot have equal shares of a batch."""
    if batch_size % process_count or batch_size < 1:
        raise DataError(
            f"batch_size {batch_size} cannot be shared by {process_count} processes: "
            "make it a multiple"
        )


def check_sound(front_end: FrontEnd, embeddings: Embeddings | None) -> None:
    """Raises DataError where there is no such sound."""
    if front_end.channels not in (1, 2):
        raise DataError(f"a sound has 1 or 2 channels, not {front_end.channels}")
    if front_end.channels == 2 and embeddings is not None:
        raise DataError("embeddings are of mono sound: set model.audio.channels to 1")
