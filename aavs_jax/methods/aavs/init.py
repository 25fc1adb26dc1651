"""A network's first values: nothing compiled, and no part's draw depending on another part."""

import hashlib
from collections.abc import Container

import numpy as np
from flax import nnx

from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import AAVS


def abstract_model(config: AAVSConfig) -> AAVS:
    """The network with shapes in place of values: its structure, without its memory."""
    return nnx.eval_shape(lambda: AAVS(config))


def initial_parameters(
    model: nnx.Module, seed: int, only: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """Draws every parameter of a model, abstract or not.

    Each depends on the seed and its own path only: a new or missing part changes no other draw.

    Args:
      model: modules whose parameters were made by `layers.parameter`.
      seed: any integer >= 0.
      only: paths of those wanted; None: all.

    Returns:
      float32 arrays by path, as in 'backbone/stages/0/blocks/1/attention/query/kernel'.
    """
    parameters = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = "/".join(map(str, path))
        if only is not None and name not in only:
            continue
        digest = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32)
        rng = np.random.Generator(np.random.SFC64([seed, *digest.tolist()]))
        initializer = variable.get_metadata()["initializer"]
        parameters[name] = initializer.draw(rng, variable.shape)
    return parameters
