"""Maps of the training frames by a backbone that does not train, computed once for a whole phase.

Most of a step of such a phase goes into maps that are the same in every epoch.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import FrameEncoder
from aavs_jax.plan.stage import PhaseName, Stage, trained_paths
from aavs_jax.run.progress import progress_bar, say
from aavs_jax.run.stopping import what_is_next
from aavs_jax.state.sharding import everyone_is_here
from aavs_jax.state.tree import below, digest
from data_pipelines.errors import reason, remedy
from data_pipelines.loading import features
from data_pipelines.loading.features import Features, Wanted

GIB = 2**30


def check(stage: Stage) -> None:
    """Whether maps can be kept, where `data.features` asks for it, before data are opened.

    Raises:
      UserError: the method has none; they are random; each worker process would have its own.
    """
    how, encoder = stage.keys["data"]["features"], stage.method.frame_encoder
    if how == "none":
        return
    asked = f"{stage.where}.data.features is {how!r}, but"
    if encoder is None:
        raise UserError(
            f"{asked} the method {stage.keys['method']} has no part whose maps could be kept: set "
            f"--{stage.where}.data.features=none"
        )
    if encoder.random_by:
        raise UserError(
            f"{asked} model.{encoder.random_by} makes its maps random at each step: set "
            f"--{stage.where}.model.{encoder.random_by}=0.0, or --{stage.where}.data.features=none"
        )
    if how == "memory" and stage.config["data"]["num_workers"]:
        raise UserError(
            f"{asked} every process that decodes would keep its own: set "
            f"--config.data.num_workers=0, or --{stage.where}.data.features=disk"
        )


def check_room(stage: Stage) -> None:
    """Whether all maps that phases of a stage on its data will keep are within the budget.

    Raises:
      UserError: they are not; says how much they take.
    """
    data = stage.keys["data"]
    if data["features"] == "none" or not any(is_frozen(stage, name) for name in stage.phases):
        return
    wanted = _wanted(stage)
    needed = wanted.size / GIB
    if needed > data["features_gib"]:
        raise UserError(
            f"{stage.where}.data.features is {data['features']!r}, but the maps of "
            f"{len(wanted.frames)} training frames take {needed:.3g} GiB, and "
            f"data.features_gib allows {data['features_gib']:g}: allow more with "
            f"--{stage.where}.data.features_gib, or set --{stage.where}.data.features=none"
        )


def for_phase(
    stage: Stage, name: PhaseName, parameters: Mapping[str, np.ndarray], data_dir: Path
) -> Features | None:
    """What a phase trains on in place of frames; computed here if nobody has done so.

    In float32 with exact products, if that is what the network's own dtype is, and on one device.

    Args:
      stage: on its data.
      name: of the phase.
      parameters: by path; those that the phase never trains as it starts with them.
      data_dir: the prepared data set.

    Returns:
      None where the network has to look at frames.

    Raises:
      UserError: there is no room for the maps, in memory or on the disk.
    """
    how, encoder = stage.keys["data"]["features"], stage.method.frame_encoder
    if how == "none":
        return None
    part = encoder.prefix.rstrip("/")
    if not is_frozen(stage, name):
        say(f"[{name}] trains inside the {part}: computes its maps at every step")
        return None
    values = {p: np.asarray(value) for p, value in below(parameters, encoder.prefix).items()}
    wanted = _wanted(stage)
    size = f"maps of {len(wanted.frames)} training frames, {wanted.size / GIB:.3g} GiB"
    if how == "memory":
        found = _in_memory(name, wanted, encoder, values)
        say(f"[{name}] takes {size}, from memory in place of its {part}")
        return found
    folder = _on_disk(stage, name, wanted, values, data_dir)
    say(f"[{name}] takes {size}, from {folder} in place of its {part}")
    return Features(wanted, folder)


def is_frozen(stage: Stage, name: PhaseName) -> bool:
    """Whether a phase changes nothing of what its method's maps are computed with."""
    trained, _ = trained_paths(stage.method, stage.phase(name), name)
    prefix = stage.method.frame_encoder.prefix
    return not any(path.startswith(prefix) for path in (*trained, *stage.method.mutable))


def _wanted(stage: Stage) -> Wanted:
    data = stage.keys["data"]
    shapes = stage.method.frame_encoder.shapes
    return Wanted(stage.sources["train"], data["sampling"], data["image_size"], shapes)


def _in_memory(
    name: PhaseName, wanted: Wanted, encoder: FrameEncoder, values: Mapping[str, np.ndarray]
) -> Features:
    try:
        with _bar(name, wanted) as bar:
            return features.in_memory(wanted, make_encode(encoder, values), progress=bar.update)
    except MemoryError as error:
        raise UserError(
            f"there is not enough memory for the {wanted.size / GIB:.3g} GiB of maps that {name} "
            f"is to keep: set --config.stages.{name.stage}.data.features=disk, or none"
        ) from error


def _on_disk(
    stage: Stage,
    name: PhaseName,
    wanted: Wanted,
    values: Mapping[str, np.ndarray],
    data_dir: Path,
) -> Path:
    encoder = stage.method.frame_encoder
    identity = f"{digest(values)} {encoder.settings}"
    try:
        folder = features.find(data_dir, wanted, identity)
        if folder is None:
            encode = make_encode(encoder, values)
            with _bar(name, wanted) as bar:
                folder = features.write(data_dir, wanted, identity, encode, progress=bar.update)
    except OSError as error:
        raise UserError(
            f"cannot write the {wanted.size / GIB:.3g} GiB of maps that {name} is to keep to "
            f"{features.folder_of(data_dir, wanted, identity)} ({reason(error)}): "
            f"{remedy(error)}, or do without with --{stage.where}.data.features=none"
        ) from error
    everyone_is_here(f"features {identity}")
    return folder


def make_encode(encoder: FrameEncoder, values: Mapping[str, np.ndarray]) -> features.Encode:
    """The encoder as a function of frames uint8 [n,H,W,3], n at most `features.BATCH`.

    It is compiled once.
    """
    apply = encoder.make(values)

    def encode(frames: np.ndarray) -> list[np.ndarray]:
        padding = [(0, features.BATCH - len(frames)), (0, 0), (0, 0), (0, 0)]
        with jax.default_matmul_precision("highest"):
            return [maps[: len(frames)] for maps in apply(np.pad(frames, padding))]

    return encode


@contextlib.contextmanager
def _bar(name: PhaseName, wanted: Wanted):
    """Progress, by frames."""
    shown = jax.process_index() == 0
    with (
        progress_bar(len(wanted.frames), 0, f"{name} maps of frames", enabled=shown) as bar,
        what_is_next("the same command computes the maps again"),
    ):
        yield bar
