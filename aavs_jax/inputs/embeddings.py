"""The output of an audio encoder that never trains, computed once for all clips of a data set.

VGGish is the larger part of what a frame costs to hear, and the paper's recipe keeps it frozen: the
network then takes embeddings in place of log-mel examples, and skips its encoder.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from aavs_jax.errors import UserError
from aavs_jax.methods.aavs.config import AAVSConfig, AudioConfig
from aavs_jax.methods.method import Method
from aavs_jax.methods.parts.vggish import AudioEncoder
from aavs_jax.run.progress import progress_bar, say
from aavs_jax.run.stopping import what_is_next
from aavs_jax.state.checkpoint import load_parameters
from aavs_jax.state.sharding import everyone_is_here
from aavs_jax.state.tree import digest
from aavs_jax.weights.pretrained import AUDIO_ENCODER, load_audio_encoder
from data_pipelines.errors import reason, remedy
from data_pipelines.loading.front_ends import LogMel
from data_pipelines.prepared import embeddings

# Augmentations after which the embedding would be another.
CHANGES_OF_SOUND = ("sound_gain", "mix_sounds", "time_shift")


def for_stage(
    config: Mapping[str, Any], stage_name: str, method: Method, data_dir: Path, root: Path
) -> Path | None:
    """The folder of embeddings that a stage can take in place of log-mel examples.

    That is so where `config.data.embeddings` is set and the encoder is the one of config.init from
    the stage's beginning to its end. They are computed here if nobody has done so.

    Args:
      config: as in configs/base.py.
      stage_name: one of its stages.
      method: of the stage.
      data_dir: the prepared data set.
      root: the folder of the run.

    Returns:
      The folder, for `data_pipelines.prepared.embeddings.Embeddings`; None where log-mel is needed.

    Raises:
      UserError: pretrained parameters cannot be read, or embeddings cannot be written.
    """
    if not config["data"]["embeddings"]:
        return None
    stage = config["stages"][stage_name]
    origins = {_origin(config, f"{stage_name}/{name}", method) for name in stage["order"]}
    if None in origins:
        return None
    encoders = [_encoder_of(config, origin, root) for origin in sorted(origins)]
    parameters = encoders[0]
    wanted = {
        path.removeprefix(AUDIO_ENCODER): leaf.shape
        for path, leaf in method.shapes.items()
        if path.startswith(AUDIO_ENCODER)
    }
    found = {path: value.shape for path, value in parameters.items()}
    if not wanted or found != wanted or len({digest(encoder) for encoder in encoders}) > 1:
        return None  # what does not fit is initialised at random, and embeddings would not be of it
    if reason := _needs_sound(stage):
        say(f"[{stage_name}] does without embeddings of the frozen audio encoder: {reason}")
        return None
    model = AAVSConfig.from_dict({"audio": stage["model"]["audio"]})
    folder = compute(data_dir, parameters, model.audio)
    say(f"[{stage_name}] hears embeddings, of the frozen audio encoder, from {folder}")
    return folder


def compute(data_dir: Path, parameters: Mapping[str, np.ndarray], config: AudioConfig) -> Path:
    """Embeddings of all clips of a prepared data set, computed once for each set of weights.

    On one device of whichever process of a machine comes first; the others wait. In float32 with
    exact products, whatever the run computes in, so that one folder serves every run.

    Args:
      data_dir: as given to `data_pipelines.prepared.source.open_source`.
      parameters: of the encoder alone, by path ('blocks/0/0/kernel').
      config: its sizes.

    Returns:
      The folder, for `data_pipelines.prepared.embeddings.Embeddings`.

    Raises:
      UserError: it cannot be written.
      DataError: nothing is prepared in `data_dir`.
    """
    identity, front_end = digest(parameters), LogMel(config.channels)
    place = embeddings.folder_of(data_dir, identity, front_end)
    try:
        folder = embeddings.find(data_dir, identity, front_end)
        if folder is None:
            encode = make_encode(parameters, config)
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
    return folder


def make_encode(
    parameters: Mapping[str, np.ndarray], config: AudioConfig
) -> Callable[[np.ndarray], np.ndarray]:
    """The encoder as a function of host arrays, compiled once.

    Args:
      parameters: of the encoder alone, by path.
      config: its sizes.

    Returns:
      Log-mel examples float32 [n,96,64], n at most `embeddings.BATCH` -> float32 [n,E].
    """
    graphdef, state = nnx.split(nnx.eval_shape(lambda: AudioEncoder(config, "float32")))
    nested: dict = {}
    for path, _ in nnx.to_flat_state(state):
        inner = nested
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = np.asarray(parameters["/".join(map(str, path))], np.float32)
    nested = jax.device_put(nested)

    @jax.jit
    def encoder(values, examples):
        return nnx.merge(graphdef, values)(examples)

    def encode(examples: np.ndarray) -> np.ndarray:
        padding = [(0, embeddings.BATCH - len(examples)), (0, 0), (0, 0)]
        return np.asarray(encoder(nested, np.pad(examples, padding)))[: len(examples)]

    return encode


def _needs_sound(stage: Mapping[str, Any]) -> str:
    """Why a stage cannot do with embeddings of the one clip's sound; '' if it can."""
    if stage["model"]["audio"]["channels"] != 1:
        return "it hears left and right"
    for name in CHANGES_OF_SOUND:
        if stage["data"]["augment"][name]["probability"]:
            return f"data.augment.{name} changes sounds in training"
    return ""


def _origin(config: Mapping[str, Any], name: str, method: Method) -> str | None:
    """The phase that takes the encoder from config.init, if nothing changes it until `name`'s end.

    None if something does, or if it comes from elsewhere.
    """
    stage_name, _, phase_name = name.partition("/")
    if stage_name not in config["schedule"]:
        return None  # 'nothing', or a phase of an earlier run, whose encoder may be any
    phase = config["stages"][stage_name]["phases"][phase_name]
    changed = (*phase["trains"], *phase["fresh"], *phase["zero"])
    encoder = [path for path in method.shapes if path.startswith(AUDIO_ENCODER)]
    if any(re.fullmatch(pattern, path) for pattern in changed for path in encoder):
        return None
    return name if phase["start"] == "pretrained" else _origin(config, phase["start"], method)


def _encoder_of(config: Mapping[str, Any], name: str, root: Path) -> dict[str, np.ndarray]:
    """The encoder that a phase started from, by path within it, or else will start from."""
    # What config.init names may be gone or changed since; a phase keeps what it never trains.
    frozen = root / name / "frozen"
    values = load_parameters(frozen) if frozen.is_dir() else load_audio_encoder(config["init"])
    return {
        path.removeprefix(AUDIO_ENCODER): np.asarray(value)
        for path, value in values.items()
        if path.startswith(AUDIO_ENCODER)
    }
