"""A network as a folder that jax and numpy alone can run: a StableHLO program and its weights."""

import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from aavs_jax.errors import UserError
from aavs_jax.methods.telling import told
from aavs_jax.prediction.network import Network
from aavs_jax.prediction.outputs import ADVICE, check_free, whole
from aavs_jax.run.files import writing
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.loading.front_ends import FrontEnd

PLATFORMS = ("cpu", "cuda", "tpu")
# JAX promises that a program loads with every jax of the half year after it was written.
PROMISE = datetime.timedelta(days=180)
FILES = ("program.jaxexport", "weights.npz", "export.json", "README.md", "load.py")
PROGRAM, WEIGHTS, CARD, README, LOADER = FILES
WRITTEN_BY = "aavs_jax.export"


def check_flatbuffers() -> None:
    """Raises UserError where the package is lacking by which jax saves programs."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "jax saves programs by the package flatbuffers, which is not installed: "
            "pip install flatbuffers"
        )


def check_place(out: Path) -> None:
    """Raises UserError where something lies at `out` that is neither empty nor an export."""
    with writing(out, ADVICE):
        check_free(out, CARD, WRITTEN_BY)
        # What loads it may lie beside it; Python leaves the last one there.
        strangers = {path.name for path in out.glob("*")} - {*FILES, "__pycache__"}
    if strangers:
        raise UserError(
            f"{out} holds {min(strangers)} besides an earlier export: move that away, or choose "
            "another folder with --out"
        )


def write(network: Network, out: Path) -> None:
    """Writes a network, with those that tell it where it sounds, as a folder.

    It appears whole or not at all, and an earlier export is replaced by it.

    Args:
      network: see `prediction.network.load`.
      out: where the folder is to be; above it folders are made.

    Raises:
      UserError: something else is there, it cannot be written, or the network cannot be exported,
        see `exported`.
    """
    check_flatbuffers()
    check_place(out)
    program = exported(network)
    with whole(out, CARD, WRITTEN_BY) as folder, writing(out, ADVICE):
        (folder / PROGRAM).write_bytes(program.serialize())
        # NumPy's own format, so that nothing but NumPy is needed to read it.
        values = {path: np.asarray(array) for path, array in _parameters(network).items()}
        np.savez(folder / WEIGHTS, **values)
        shutil.copyfile(Path(__file__).with_name("exported_loader.py"), folder / LOADER)
        card = _card(network, program)
        card["sha256"] = {name: _digest(folder / name) for name in (PROGRAM, WEIGHTS)}
        (folder / CARD).write_text(json.dumps(card, indent=1))
        (folder / README).write_text(_readme(card))


def exported(network: Network) -> export.Exported:
    """The program of a network, from a picture and its second of sound to masks, for PLATFORMS.

    It takes parameters as `<number of the stage>/<path>`; frames uint8 [N,S,S,3] for any N; and of
    each its second of sound, float32 [N,16000], or [N,16000,2] where a stage hears left and right.
    It gives class ids, uint8 [N,G,G], and `Prediction.maps["confidence"]`, float32 [N,G,G].

    Raises:
      UserError: a front end cannot be exported; stages see frames of different sizes; the network
        is told where it sounds, and the one that tells it is not there.
    """
    stages = network.chain
    sides = [stage.side for stage in stages]
    if len(set(sides)) > 1:
        raise UserError(
            f"the stages see frames of different sizes ({sides} pixels), and a program takes one: "
            "export each of them alone"
        )
    if stages[0].card.network.get("prior"):
        raise UserError(
            f"{stages[0].card.describe()} is told where it sounds: export the run that has both "
            "stages, or give both folders"
        )
    for stage in stages:
        _check_front_end(stage.method.front_end)
    (number,) = export.symbolic_shape("n")
    parameters = _parameters(network).items()
    shapes = (
        {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in parameters},
        jax.ShapeDtypeStruct((number, sides[0], sides[0], 3), jnp.uint8),
        jax.ShapeDtypeStruct((number, *_sound_shape(stages)), jnp.float32),
    )
    # As `Network.predict` has it.
    with jax.default_matmul_precision("highest"):
        return export.export(jax.jit(_program(stages)), platforms=PLATFORMS)(*shapes)


def _program(stages: Sequence[Network]) -> Callable:
    def program(parameters, frames, waveform):
        waveform = waveform if waveform.ndim == 3 else waveform[..., None]
        # A frame and its second are a clip of their own.
        batch = {"frames": frames[:, None], "valid": jnp.ones((frames.shape[0], 1), bool)}
        found = None
        for index, stage in enumerate(stages):
            own = {path: parameters[f"{index}/{path}"] for path in stage.parameters}
            if found is not None:
                batch["prior_mask"] = told(found, stage.card.told)
            batch["audio"] = _hears(stage.method.front_end, waveform)
            found = stage.method.predict(own, stage.seen(batch))
        confidence = found.maps.get("confidence", jnp.ones(found.classes.shape, jnp.float32))
        return found.classes[:, 0], confidence[:, 0]

    return program


def _hears(front_end: FrontEnd, waveform: jax.Array) -> jax.Array:
    """Seconds of sound [N,16000,channels] -> what is heard in them, [N,1,...]."""
    if front_end.channels < waveform.shape[-1]:
        waveform = waveform.mean(-1, keepdims=True)
    return jax.vmap(lambda second: front_end(second, 1, xp=jnp))(waveform)


def _check_front_end(front_end: FrontEnd) -> None:
    second = jax.ShapeDtypeStruct((1, SAMPLE_RATE, front_end.channels), jnp.float32)
    try:
        jax.eval_shape(lambda waveform: _hears(front_end, waveform), second)
    # Without the parameter `xp`; with numpy's functions; with what jax.numpy lacks.
    except (TypeError, AttributeError) as error:
        fault = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"{front_end!r} cannot be exported ({fault}): let it compute by its parameter xp alone,"
            " as LogMel in data_pipelines/loading/front_ends.py does"
        ) from error


def _parameters(network: Network) -> dict[str, jax.Array]:
    return {
        f"{index}/{path}": array
        for index, stage in enumerate(network.chain)
        for path, array in stage.parameters.items()
    }


def _sound_shape(stages: Sequence[Network]) -> tuple[int, ...]:
    channels = max(stage.method.front_end.channels for stage in stages)
    return (SAMPLE_RATE,) if channels == 1 else (SAMPLE_RATE, channels)


def _card(network: Network, program: export.Exported) -> dict:
    """What the folder says of itself, but for the digests of its files."""
    today = datetime.datetime.now(datetime.UTC).date()
    _, frames, waveform = jax.tree.unflatten(program.in_tree, program.in_avals)[0]
    return {
        "written_by": WRITTEN_BY,
        "stages": [stage.card.describe() for stage in network.chain],
        "task": network.method.task,
        "classes": list(network.classes),
        "frames": list(frames.shape[1:]),
        "waveform": list(waveform.shape[1:]),
        "sample_rate": SAMPLE_RATE,
        "masks": list(program.out_avals[0].shape[1:]),
        "platforms": list(program.platforms),
        "aavs_jax": importlib.metadata.version("aavs_jax"),
        "jax": jax.__version__,
        "exported": str(today),
        "loads_until": str(today + PROMISE),
    }


def _readme(card: Mapping) -> str:
    def shape(key: str) -> str:
        return f"[{','.join(map(str, ('N', *card[key])))}]"

    return f"""# {" after ".join(reversed(card["stages"]))}

Written by `python -m aavs_jax.export` on {card["exported"]} with jax {card["jax"]}; by JAX's
promise it loads with what jax is released until {card["loads_until"]}. {LOADER} needs nothing of
aavs_jax: `pip install jax flatbuffers`. It runs on {", ".join(card["platforms"])}.

```python
from load import load  # load.py of this folder

model = load("this/folder")
masks = model(frames, waveform)  # uint8 {shape("masks")}, class ids: model.card["classes"]
masks, confidence = model.predict(frames, waveform)
```

`frames`: uint8 {shape("frames")}, RGB, for any N. `waveform`: float32 {shape("waveform")}, of each
frame its second of sound at {card["sample_rate"]} Hz, samples in [-1,1]. The first call with an N
compiles. {PROGRAM} is the program, front end included (`jax.export`), {WEIGHTS} its
parameters, {CARD} says the rest.
"""


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
