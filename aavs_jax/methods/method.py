"""The seam: what a method is. Data, schedule, scores and commands know methods by this file alone.

A method is a module with four names. `make(stage, num_classes, ignores)` gives a `Method`. `SIZES`
and `LOSS` are frozen dataclasses with defaults, of which `stage.model` and `stage.loss` of a config
may set any field; `task`, `num_classes` and `prior` of SIZES, and `max_targets` and `ignores` of
LOSS, come from elsewhere. `PRETRAINED` says which keys of config.init it takes. There may be a
fifth, `as_published(stage)`: with config.as_published, a stage's keys as the public code has them
where that is not what the paper means.

Clips are flattened to frames inside a method, never outside: some attend over time. Letters: B
clips, T seconds, G pixels of a label's side, K classes with background.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.loading.front_ends import FrontEnd

Parameters = Mapping[str, jax.Array]
Batch = Mapping[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Aux:
    """What a loss gives besides its total.

    Attributes:
      scalars: name, as in 'loss/mask' -> float32 scalar to be logged.
      mutable: path -> running statistic after this batch, of all of `Method.mutable`.
      memory: the same of `Method.memory`.
    """

    scalars: dict[str, jax.Array]
    mutable: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    memory: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of a batch.

    Attributes:
      classes: uint8 [B,T,G,G], class ids; of the binary task 0 and 1.
      maps: float32 [B,T,G,G] by name. Of the binary task for the F-score: 'foreground', Stepping
        Stones', and 'softmax', that of other code bases. Of either task 'confidence', in [0,1]: the
        share of the chosen class in the scores of all; without it every pixel counts as 1.
    """

    classes: jax.Array
    maps: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SoundEncoder:
    """An encoder of sound that sees nothing else, so that its output can be kept once it is frozen.

    Attributes:
      prefix: beginning of its parameters' paths.
      make: its parameters, by path without the prefix -> a function of host arrays: rows of the
        front end [n,...] -> embeddings float32 [n,E], which the network takes in their place.
    """

    prefix: str
    make: Callable[[Mapping[str, np.ndarray]], Callable[[np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class FrameEncoder:
    """A part that sees each frame by itself and hears nothing, so that its maps can be kept.

    Attributes:
      prefix: beginning of its parameters' paths, as in 'backbone/'.
      make: its parameters, by path without the prefix -> a function of host arrays: uint8 frames
        [n,H,W,3] -> maps float32 [n,h,w,C] each. The loss takes them in place of `frames`, as the
        entries `features_0`, `features_1` and so on, [B,T,h,w,C] or, of one picture, [B,1,h,w,C].
      shapes: of a frame's maps, [h,w,C] each.
      settings: all that they depend on besides its parameters and the frames, in words.
      random_by: key of `stage.model` that makes them random in training; '': none does.
    """

    prefix: str
    make: Callable[[Mapping[str, np.ndarray]], Callable[[np.ndarray], Sequence[np.ndarray]]]
    shapes: tuple[tuple[int, int, int], ...]
    settings: str
    random_by: str = ""


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights from which a part of a network may start, given by a key of config.init.

    Attributes:
      kinds: of folders that have such a part, see `weights.card.KINDS`.
      file: the published file that the paper's recipe takes.
      command: that makes a folder of it.
      prefix: beginning of the paths of what it has; '': of what no other key has.
      sizes: beginning of the keys of `Method.network` that are of this part alone.
      what: the part is called, for people.
      lacking: which published files of the whole network do without it; '': none do.
    """

    kinds: tuple[str, ...]
    file: str
    command: str
    prefix: str = ""
    sizes: str = ""
    what: str = ""
    lacking: str = ""


@dataclasses.dataclass(frozen=True)
class Inner:
    """A network within a method's, which answers a question of its own and is scored on it, too.

    Attributes:
      prefix: beginning of its parameters' paths.
      method: that reads it, with their paths without the prefix; its loss is not used.
      guard: by how much its score on the validation split may fall below that of the phase which
        it starts from; a checkpoint with less is never the best.
    """

    prefix: str
    method: "Method"
    guard: float


@dataclasses.dataclass(frozen=True)
class Resizable:
    """Parameters that may be of another size where they come from, and are then drawn.

    Attributes:
      axis: that may differ.
      what: it counts, 'classes' or 'queries'.
      besides: how many of its entries are not that: "no object" is no class.
    """

    axis: int
    what: str
    besides: int = 0


@dataclasses.dataclass(frozen=True)
class Slices:
    """A loss that is a sum over pictures, so that it can be taken of some of them at a time.

    A picture is what goes through a network's eye by itself: a frame, with one or more seconds of
    sound. Of no method that looks at pictures together, or that has running statistics.

    Attributes:
      split: (batch, key) -> (rows, shared): arrays with a row for each picture, clip by clip, among
        them `counts`, bool [N], whether it has part in the loss; and arrays that every row needs,
        such as what sums are divided by. What a row draws is decided here, by a key in the row.
      loss: (parameters, rows, shared, progress) -> (total, Aux), the share of these rows without
        those that do not count; what a row gives must not depend on others. Scalars are sums, too.
    """

    split: Callable[[Batch, jax.Array], tuple[Batch, Any]]
    loss: Callable[[Parameters, Batch, Any, jax.Array], tuple[jax.Array, Aux]]

    def whole(
        self, parameters: Parameters, batch: Batch, key: jax.Array, progress: jax.Array
    ) -> tuple[jax.Array, Aux]:
        """The loss of a batch at once, as `Method.loss`."""
        return self.loss(parameters, *self.split(batch, key), progress)


@dataclasses.dataclass(frozen=True)
class Method:
    """One stage's network with what trains it and what reads it; functions of plain arrays.

    Attributes:
      task: one of `tasks.TASKS`.
      num_classes: K.
      network: its sizes, nested plain values of SIZES, for the card of its weights.
      shapes: path -> ShapeDtypeStruct of every parameter and running statistic.
      initial: (seed, only=None) -> first values, float32 host arrays by path; only: the paths
        wanted, None: all.
      loss: (parameters, batch, key, progress) -> (total, Aux); key for drop-path and the like,
        progress float32 scalar, the share of the phase that is done, from 0 up to 1. To be jitted
        by the caller.
      predict: (parameters, batch) -> Prediction; compiled once for each shape, or number of frames.
      entries: names of the batch's arrays that these read, see `data_pipelines.loader`. In
        prediction a `prior_mask` may be of V views, [B,T,V,G,G]: their class scores are averaged.
      front_end: what it hears of a waveform, the entry `audio`.
      scores: (parameters, batch) -> float32 [B,T,G,G,K], of every class, 0 or more; the greatest
        is what `predict` chooses. None where it has none.
      slices: the loss once more, as a sum over pictures; None where it is none.
      mutable: paths of running statistics, which the loss gives anew and no gradient changes.
      memory: path -> first value of what the loss remembers of the batches before, and finds among
        the parameters, such as a queue of sounds. A phase begins with it, its checkpoints hold it;
        no prediction reads it, and it is no part of weights.
      counts: batch -> bool scalar, whether any frame of it has part in the loss, where a batch
        without any is no step of the optimiser; None: every batch is a step. To be jitted by the
        caller.
      over_time: whether what is said of a second depends on the clip's others: clips are then given
        whole.
      stills: whether `frames` may be [B,1,...] where audio and labels are [B,T,...]: one picture
        for all seconds.
      sound_encoder: None where nothing can be kept.
      frame_encoder: likewise.
      inner: name -> a network within this one.
      parts: pattern of paths -> what they are called together, and how many arrays that are where
        it is always as many. The first pattern that matches counts.
      resizable: pattern of paths -> how they may differ.
      pretrained: key of config.init -> what it takes; later ones win.
      may_differ: keys of `network` (dotted) in which weights may differ and still fit.
      training_only: those of them that have no part in a prediction.
    """

    task: str
    num_classes: int
    network: Mapping[str, Any]
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    initial: Callable[..., dict[str, np.ndarray]]
    loss: Callable[[Parameters, Batch, jax.Array, jax.Array], tuple[jax.Array, Aux]]
    predict: Callable[[Parameters, Batch], Prediction]
    entries: tuple[str, ...]
    front_end: FrontEnd
    scores: Callable[[Parameters, Batch], jax.Array] | None = None
    slices: Slices | None = None
    mutable: frozenset[str] = frozenset()
    memory: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    counts: Callable[[Batch], jax.Array] | None = None
    over_time: bool = False
    stills: bool = False
    sound_encoder: SoundEncoder | None = None
    frame_encoder: FrameEncoder | None = None
    inner: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, tuple[str, int | None]] = dataclasses.field(default_factory=dict)
    resizable: Mapping[str, Resizable] = dataclasses.field(default_factory=dict)
    pretrained: Mapping[str, Pretrained] = dataclasses.field(default_factory=dict)
    may_differ: frozenset[str] = frozenset()
    training_only: frozenset[str] = frozenset()

    def trains_on(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of a training batch that the loss reads: maps of frames, or `entries`."""
        maps = tuple(name for name in batch if name.startswith("features_"))
        names = (*maps, *(name for name in self.entries if not (maps and name == "frames")))
        return {name: batch[name] for name in names}
