"""A Flax module as functions of plain arrays: split once, its parameters by path.

Nothing is compiled to fill a network, and no part's first values depend on another part.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Container, Hashable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

Parameters = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Functional:
    """A network without values.

    Attributes:
      graphdef: its structure.
      model: the module, with shapes in place of values.
      places: path as in 'backbone/stages/0/blocks/1/attention/query/kernel' -> the same in the
        module, of every parameter and running statistic.
      shapes: path -> ShapeDtypeStruct of each of them.
      mutable: paths of running statistics, which no gradient changes.
    """

    graphdef: Any
    model: nnx.Module
    places: Mapping[str, tuple]
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    mutable: frozenset[str]

    def network(self, parameters: Parameters) -> nnx.Module:
        """The module with values, by path; to be made anew wherever it is called."""
        nested: dict = {}
        for name, path in self.places.items():
            inner = nested
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = parameters[name]
        return nnx.merge(self.graphdef, nested)

    def statistics(self, network: nnx.Module) -> dict[str, jax.Array]:
        """The running statistics of a module after it was called, by path."""
        flat = nnx.to_flat_state(nnx.state(network))
        found = {_name(path): variable[...] for path, variable in flat}
        return {path: found[path] for path in self.mutable}

    def initial(self, seed: int, only: Container[str] | None = None) -> dict[str, np.ndarray]:
        """First values, see `initial_parameters`."""
        return initial_parameters(self.model, seed, only)


@functools.lru_cache(32)
def functional(make: Callable[..., nnx.Module], *sizes: Hashable) -> Functional:
    """The module `make(*sizes)`, as functions of plain arrays; no memory is taken for it.

    It takes Flax a second to go through a large one, so those made last are kept and given again:
    what is in them is not to be changed.
    """
    model = nnx.eval_shape(lambda: make(*sizes))
    graphdef, state = nnx.split(model)
    flat = nnx.to_flat_state(state)
    return Functional(
        graphdef,
        model,
        places={_name(path): path for path, _ in flat},
        shapes={_name(path): jax.ShapeDtypeStruct(v.shape, v.dtype) for path, v in flat},
        mutable=frozenset(_name(path) for path, v in flat if not isinstance(v, nnx.Param)),
    )


def initial_parameters(
    model: nnx.Module, seed: int, only: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """Draws every parameter of a model, abstract or not.

    Each depends on the seed and its own path only: a new or missing part changes no other draw.
    A parameter that was made by `layers.parameter` says how it is drawn. Flax's own layers are
    filled as Flax does by default: kernels as `lecun_normal`, norms with ones and zeros.

    Args:
      model: its modules.
      seed: any integer >= 0.
      only: paths of those wanted; None: all.

    Returns:
      float32 arrays by path.
    """
    parameters = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        name = _name(path)
        if only is not None and name not in only:
            continue
        digest = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32)
        rng = np.random.Generator(np.random.SFC64([seed, *digest.tolist()]))
        if initializer := variable.get_metadata().get("initializer"):
            parameters[name] = initializer.draw(rng, variable.shape)
        else:
            parameters[name] = _as_flax(rng, path[-1], variable.shape)
    return parameters


def _as_flax(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name in ("scale", "var"):
        return np.ones(shape, np.float32)
    if name in ("bias", "mean"):
        return np.zeros(shape, np.float32)
    normal = rng.standard_normal(shape, np.float32)
    while (wild := np.abs(normal) > 2).any():  # truncated, as Flax's initializer is
        normal[wild] = rng.standard_normal(int(wild.sum()), np.float32)
    # Of a normal distribution cut off at two, the standard deviation is 0.8796.
    return normal * np.float32(1 / np.sqrt(np.prod(shape[:-1])) / 0.87962566)


def _name(path: tuple) -> str:
    return "/".join(map(str, path))
