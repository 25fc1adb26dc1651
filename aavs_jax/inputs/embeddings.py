"""The output of an encoder of sound that never trains, computed once for all clips of a data set.

VGGish is the larger part of what a frame costs to hear, and the paper's recipe keeps it frozen: the
network then takes embeddings in place of what its front end gives, and skips its encoder.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import SoundEncoder
from aavs_jax.plan.stage import PhaseName, Stage
from aavs_jax.run.progress import progress_bar, say
from aavs_jax.run.stopping import what_is_next
from aavs_jax.state.parameter_folders import load_parameters
from aavs_jax.state.sharding import everyone_is_here
from aavs_jax.state.tree import below, digest
from aavs_jax.weights.pretrained import load_part
from data_pipelines.errors import reason, remedy
from data_pipelines.loading.augment import CHANGES_OF_SOUND
from data_pipelines.prepared import embeddings
from data_pipelines.prepared.embeddings import Embeddings


def for_training(stage: Stage, data_dir: Path) -> dict[str, Embeddings]:
    """What a stage's network can take in place of what its front end gives, for each split.

    That is so where `config.data.embeddings` is set and the encoder is the one of config.init from
    the stage's beginning to its end. They are computed here if nobody has done so.

    Args:
      stage: on its data.
      data_dir: the prepared data set.

    Returns:
      {} where the network has to hear.

    Raises:
      UserError: pretrained parameters cannot be read, or embeddings cannot be written.
    """
    encoder, init = stage.method.sound_encoder, stage.config["init"]
    if not stage.config["data"]["embeddings"] or not any(init[k] for k in stage.method.pretrained):
        return {}
    if encoder is None:
        say(f"[{stage.name}] does without embeddings of sound, which its network does not take")
        return {}
    origins = {_origin(stage, name) for name in stage.phases}
    if not origins or None in origins:  # none: it only writes masks, with an earlier checkpoint
        return {}
    encoders = [_encoder_of(stage, origin) for origin in sorted(origins)]
    wanted = {path: leaf.shape for path, leaf in below(stage.method.shapes, encoder.prefix).items()}
    found = {path: value.shape for path, value in encoders[0].items()}
    if not wanted or found != wanted or len({digest(each) for each in encoders}) > 1:
        return {}  # what does not fit is initialised at random, and embeddings would not be of it
    for name in CHANGES_OF_SOUND:
        if stage.keys["data"]["augment"][name]["probability"]:
            say(
                f"[{stage.name}] does without embeddings of the frozen audio encoder: "
                f"data.augment.{name} changes sounds in training"
            )
            return {}
    return compute(stage, encoders[0], data_dir)


def for_evaluation(
    stage: Stage, parameters: Mapping[str, np.ndarray], data_dir: Path, *, own: bool
) -> dict[str, Embeddings]:
    """The same for given weights.

    An encoder that was trained along by a run is this run's alone, and nobody computed anything of
    it: to hear all clips of all splits once would be more work than it saves, and the scores would
    not be those of the run to the last bit.

    Args:
      stage: on its data.
      parameters: of the whole network, by path.
      data_dir: the prepared data set.
      own: whether the weights are of a run.
    """
    encoder = stage.method.sound_encoder
    if not stage.config["data"]["embeddings"] or encoder is None:
        return {}
    values = below(parameters, encoder.prefix)
    if own and embeddings.find(data_dir, digest(values), stage.method.front_end) is None:
        return {}
    return compute(stage, values, data_dir)


def compute(
    stage: Stage, values: Mapping[str, np.ndarray], data_dir: Path
) -> dict[str, Embeddings]:
    """Embeddings of all clips of a prepared data set, computed once for each set of weights.

    On one device of whichever process of a machine comes first; the others wait. In float32 with
    exact products, whatever the run computes in, so that one folder serves every run.

    Args:
      stage: whose sound encoder it is.
      values: of the encoder alone, by path within it.
      data_dir: the prepared data set.

    Returns:
      Those of each split of the stage.

    Raises:
      UserError: they cannot be written.
      DataError: nothing is prepared in `data_dir`.
    """
    identity, front_end = digest(values), stage.method.front_end
    place = embeddings.folder_of(data_dir, identity, front_end)
    try:
        folder = embeddings.find(data_dir, identity, front_end)
        if folder is None:
            encode = make_encode(stage.method.sound_encoder, values)
            clips, shown = embeddings.count(data_dir), jax.process_index() == 0
            with (
                jax.default_matmul_precision("highest"),
                progress_bar(clips, 0, "embeddings", enabled=shown) as bar,
            ):
                with what_is_next("the same command computes the embeddings again"):
                    folder = embeddings.write(
                        data_dir, identity, front_end, encode, progress=bar.update
                    )
    except OSError as error:
        raise UserError(
            f"cannot write {place} ({reason(error)}): {remedy(error)}, or do without with "
            "--config.data.embeddings=False"
        ) from error
    everyone_is_here(f"embeddings {identity}")
    say(f"[{stage.name}] hears embeddings, of the audio encoder, from {folder}")
    return {split: Embeddings(folder, source) for split, source in stage.sources.items()}


def make_encode(encoder: SoundEncoder, values: Mapping[str, np.ndarray]):
    """The encoder as a function of rows [n,...], n at most `embeddings.BATCH`, compiled once."""
    apply = encoder.make(values)

    def encode(rows: np.ndarray) -> np.ndarray:
        padding = [(0, embeddings.BATCH - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
        return apply(np.pad(rows, padding))[: len(rows)]

    return encode


def _origin(stage: Stage, name: PhaseName) -> PhaseName | None:
    """The phase that takes the encoder from config.init, if nothing changes it until `name`'s end.

    None if something does, or if it comes from elsewhere.
    """
    config = stage.config
    if name.stage not in config["schedule"]:
        return None  # a phase of an earlier run, whose encoder may be any
    phase = config["stages"][name.stage]["phases"][name.phase]
    changed = (*phase["trains"], *phase["fresh"], *phase["zero"])
    prefix = stage.method.sound_encoder.prefix
    encoder = [path for path in stage.method.shapes if path.startswith(prefix)]
    if any(re.fullmatch(pattern, path) for pattern in changed for path in encoder):
        return None
    if phase["start"] == "pretrained":
        return name
    before = PhaseName.of(phase["start"])
    return None if before is None else _origin(stage, before)


def _encoder_of(stage: Stage, name: PhaseName) -> dict[str, np.ndarray]:
    """The encoder that a phase started from, by path within it, or else will start from."""
    # What config.init names may be gone or changed since; a phase keeps what it never trains.
    frozen, encoder = stage.root / str(name) / "frozen", stage.method.sound_encoder
    if frozen.is_dir():
        values = load_parameters(frozen)
    else:
        values = load_part(stage.method, stage.config["init"], encoder.prefix)
    return {path: np.asarray(value) for path, value in below(values, encoder.prefix).items()}
