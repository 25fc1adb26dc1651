"""The language of the key tables: which tensor of others is which parameter of ours.

A row reads: their name <-> our path, and how one becomes the other.

    Row("embeddings.norm", "backbone/patch_norm", "norm")

`{stage}` stands for a number, the same on both sides; `{stage+1}` and `{layer*2}` for one counted
otherwise there; `*` for whatever is left of the name. Rows of modules ('dense', 'conv', ...) stand
for a weight and its bias. Where a row has several of our paths, their tensor holds them stacked
along its first axis. `aavs_jax.convert` applies the tables.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

Transform = Callable[[np.ndarray], np.ndarray]
Filler = Callable[[Mapping[str, np.ndarray]], np.ndarray | None]
ByPath = Mapping[str, tuple[int, ...]]

# Of one tensor: theirs -> ours, ours -> theirs. Outputs come first there, last here.
TENSORS: dict[str, tuple[Transform, Transform]] = {
    "same": (lambda a: a, lambda a: a),
    "transposed": (lambda a: a.T, lambda a: a.T),
    "only row": (lambda a: a[0], lambda a: a[None]),
    "1x1": (lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),
    "1x1x1": (lambda a: a[:, :, 0, 0, 0].T, lambda a: a.T[:, :, None, None, None]),
    "window first": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
}

# Of a module: their tensor -> (our parameter, how).
MODULES: dict[str, dict[str, tuple[str, str]]] = {
    "dense": {"weight": ("kernel", "transposed"), "bias": ("bias", "same")},
    "pointwise": {"weight": ("kernel", "1x1"), "bias": ("bias", "same")},  # a 1x1 convolution
    "1x1x1 convolution": {"weight": ("kernel", "1x1x1"), "bias": ("bias", "same")},
    "conv": {"weight": ("kernel", "window first"), "bias": ("bias", "same")},
    "norm": {"weight": ("scale", "same"), "bias": ("bias", "same")},
    "batch norm": {
        "weight": ("scale", "same"),
        "bias": ("bias", "same"),
        "running_mean": ("mean", "same"),
        "running_var": ("var", "same"),
    },
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Their module or tensor <-> our module or parameter(s); `how` is of MODULES or TENSORS."""

    theirs: str
    ours: str | tuple[str, ...]
    how: str


@dataclasses.dataclass(frozen=True)
class LeftOver:
    """A tensor of theirs that is known and has no place in our network; kept beside it.

    `role` names what it is in every format that has it, so that it finds its place when a file of
    one format is written in another; '' where it is of use to nobody else.
    """

    theirs: str
    reason: str
    role: str = ""


@dataclasses.dataclass(frozen=True)
class Format:
    """A way of naming weights.

    Attributes:
      name: for cards and reports.
      title: for people: 'this is ...'.
      kind: `Kind.name` of what it holds; '' where the file's own card says.
      signature: regular expressions; a file whose names begin with a match of each, behind one
        common prefix, is of this format.
      rows: what is what.
      left_over: what else may be there.
      absent: (our path, why a file may lack it).
      spellings: (regular expression, replacement) of names by other versions of the same software;
        applied one after the other, they lead to the names in `rows`.
      derived: numbers in their names that follow from all of our paths: name -> function of the
        numbers in our path and of all our paths.
      fillers: names that a strict loader misses where the weights came from another format ->
        function of our parameters that makes them, None where they are not needed.
    """

    name: str
    title: str
    kind: str
    signature: tuple[str, ...]
    rows: tuple[Row, ...]
    left_over: tuple[LeftOver, ...] = ()
    absent: tuple[tuple[str, str], ...] = ()
    spellings: tuple[tuple[str, str], ...] = ()
    derived: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    fillers: Mapping[str, Filler] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a file may hold: a network, or a part of one.

    Attributes:
      name: as `Card.kind`.
      formats: the ways of naming it; a file is held against them in this order, and it is written
        in the first.
      sizes: (shapes of our parameters as far as the names tell, shapes of the file's tensors by
        normal name) -> the sizes, nested plain values, as `Card.network`. Raises ValueError: says
        what cannot be told.
      parameters: sizes -> path -> shape of each parameter that such a file holds.
      config: (sizes, names of the classes or ()) -> the config.json with which transformers loads
        the first of the formats; None: transformers has no such network.
      hears: whether an audio encoder, which is a file of its own, belongs to it.
    """

    name: str
    formats: tuple[Format, ...]
    sizes: Callable[[ByPath, ByPath], dict[str, Any]]
    parameters: Callable[[Mapping[str, Any]], dict[str, tuple[int, ...]]]
    config: Callable[[Mapping[str, Any], Sequence[str]], dict[str, Any]] | None = None
    hears: bool = False


def side(shapes: ByPath, path: str, axis: int) -> int:
    """One side of a parameter; raises ValueError where the file does not tell it."""
    try:
        return int(shapes[path][axis])
    except (KeyError, IndexError):
        raise ValueError(
            f"there is no tensor for {path}, or it has another form, so the network's sizes "
            "cannot be told: take the whole file"
        ) from None


def count(shapes: ByPath, place: str) -> int:
    """How many different things follow a place like 'decoder/layers/'."""
    return len({path[len(place) :].split("/")[0] for path in shapes if path.startswith(place)})


def under(theirs: str, ours: str, *rows: Row) -> tuple[Row, ...]:
    """The rows with something in front of their names and of our paths."""
    return tuple(
        Row(
            theirs + row.theirs,
            ours + row.ours if isinstance(row.ours, str) else tuple(ours + o for o in row.ours),
            row.how,
        )
        for row in rows
    )


def shapes_of(model: nnx.Module, place: str = "") -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter and running statistic of a network, abstract or not;
    `place` goes before paths.
    """
    return {
        place + "/".join(map(str, path)): tuple(variable.shape)
        for path, variable in nnx.to_flat_state(nnx.state(model))
    }
