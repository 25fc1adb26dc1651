"""How fast training batches are read, from built-in clips that are made for it.

What reading costs beside the public way: `python -m data_pipelines.benchmark`.
"""

import tempfile
from pathlib import Path

from aavs_jax.benchmark import cases
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.work import Work
from data_pipelines.loader import open_source, train_loader
from data_pipelines.making import audible_shapes
from data_pipelines.prepare import prepare as prepare_folder

CLIPS = 24
READ_AHEAD = 16  # batches, at least, which are there while nobody reads


def prepare(case: Case) -> Work:
    """Makes and prepares clips; a run reads at least as many batches as hold all of them.

    The sound of each frame is its log-mel example, computed when it is read.
    """
    config, stage = cases.config_of(case), cases.stage_of(case)
    data, batches = stage["data"], {}
    # Deleted when the process ends.
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    size = data["image_size"] if case.size == "full" else config["data"]["size"]
    raw = audible_shapes.make(Path(folder.name) / "raw", clips=CLIPS, size=size, progress=False)
    data_dir = Path(folder.name) / "prepared"
    prepare_folder(raw, data_dir, progress=False)
    source = open_source(data_dir, "train")
    batches["iterator"] = train_loader(
        source,
        task=case.task,
        image_size=data["image_size"],
        label_size=data["label_size"],
        batch_size=data["batch_size"],
        seconds=data["seconds"] if data["sampling"] == "frame" else _longest(source),
        sampling=data["sampling"],
        bucket_by_length=data["bucket_by_length"],
        augment=data["augment"],
        max_targets=data["max_targets"],
        prior="none" if case.task == "binary" else "true",
        cache=config["data"]["cache"],
    )
    # What was read ahead is there at once, so that a few batches would take no time at all.
    count = max(-(-len(source.clips) // data["batch_size"]), 3 * READ_AHEAD)

    def read(number: int) -> int:
        return sum(next(batches["iterator"])["valid"].size for _ in range(number))

    def run():
        batches["frames"] = read(count)

    return Work(
        run,
        lambda: {"frames": batches["frames"], "folder": folder.name},
        settle=lambda: read(READ_AHEAD),
    )


def _longest(source) -> int:
    return max(clip.seconds for clip in source.clips)
