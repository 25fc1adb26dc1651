"""The language of the key tables: what a row says, and how one array becomes the other."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]
Filler = Callable[[Mapping[str, np.ndarray]], np.ndarray | None]

# Of one tensor: theirs -> ours, ours -> theirs. Outputs come first there, last here.
TENSORS: dict[str, tuple[Transform, Transform]] = {
    "same": (lambda a: a, lambda a: a),
    "transposed": (lambda a: a.T, lambda a: a.T),
    "only row": (lambda a: a[0], lambda a: a[None]),
    "1x1": (lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),
    "window first": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
}

# Of a module: their tensor -> (our parameter, how).
MODULES: dict[str, dict[str, tuple[str, str]]] = {
    "dense": {"weight": ("kernel", "transposed"), "bias": ("bias", "same")},
    "pointwise": {"weight": ("kernel", "1x1"), "bias": ("bias", "same")},  # a 1x1 convolution
    "conv": {"weight": ("kernel", "window first"), "bias": ("bias", "same")},
    "norm": {"weight": ("scale", "same"), "bias": ("bias", "same")},
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
      kind: of `card.KINDS`; '' where the file's own card says.
      signature: regular expressions; a file whose names begin with a match of each, behind one
        common prefix, is of this format. FORMATS are tried in order.
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
