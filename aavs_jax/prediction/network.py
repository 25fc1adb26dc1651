"""A network from its folder of weights alone: `load(folder)` needs no config."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from aavs_jax.errors import UserError
from aavs_jax.methods.method import Method, Prediction
from aavs_jax.methods.tasks import TASKS
from aavs_jax.methods.telling import as_view, told
from aavs_jax.prediction import arrays
from aavs_jax.prediction.result import Result, at_size, palette_of
from aavs_jax.weights import card as cards
from aavs_jax.weights.beside import beside
from aavs_jax.weights.card import Card
from aavs_jax.weights.card_method import method_of, side_of
from aavs_jax.weights.given_weights import check_whole
from aavs_jax.weights.keeping import kept_phases
from data_pipelines.facts.avsbench import SAMPLE_RATE
from data_pipelines.loading.front_ends import FrontEnd


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its parameters, to be called on NumPy arrays.

    Attributes:
      card: what its folder says of it, classes among it.
      method: what it computes, see `methods.method.Method`.
      parameters: by path.
      before: the network whose masks tell this one where it sounds; None where it needs none, or
        none was found.
    """

    card: Card
    method: Method
    parameters: Mapping[str, jax.Array]
    before: "Network | None" = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class id; of a card without names 'class 1' and so on."""
        task = TASKS[self.method.task].classes
        named = task or self.card.classes or ("background",)
        more = range(len(named), self.method.num_classes)
        return (*named, *(f"class {number}" for number in more))

    @property
    def palette(self) -> np.ndarray:
        """Colours to look at, uint8 [K,3], by class id."""
        return palette_of(self.classes)

    @property
    def chain(self) -> "tuple[Network, ...]":
        """The networks that compute one after the other, this one last."""
        return (*(self.before.chain if self.before else ()), self)

    def __call__(
        self,
        frames: np.ndarray,
        waveform: np.ndarray,
        prior_mask: np.ndarray | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> np.ndarray:
        """What sounds in a clip, and where.

        Args:
          frames: uint8 [T,H,W,3], RGB, of any size, one a second.
          waveform: the clip's sound, [S], [S,1] or [S,2]: float in [-1,1] or int16. S is T times
            the sample rate; where it is shorter AAVS hears the last second again that it fills, as
            prepared clips do.
          prior_mask: float [T,h,w] in [0,1], of any size, where it sounds, for a network that is
            told so, in the view that its scores are of; None: as the network before says.
          sample_rate: of the waveform, Hz.

        Returns:
          uint8 [T,H,W], class ids, named by `classes`; of the binary task 1 where it sounds.

        Raises:
          UserError: arrays of other shapes or types; a prior mask is needed, and none is there.
          DataError: the sound is too short for a single second.
        """
        found = self.predict(frames, waveform, prior_mask, sample_rate=sample_rate)
        size = np.shape(frames)[1:3]
        return np.stack([at_size(grid, size) for grid in np.asarray(found.classes[0])])

    def results(
        self,
        frames: np.ndarray,
        waveform: np.ndarray,
        prior_mask: np.ndarray | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> list[Result]:
        """The same, second by second: with classes, scores and areas, to be drawn in a notebook.

        Arguments and errors are those of a call.
        """
        found = self.predict(frames, waveform, prior_mask, sample_rate=sample_rate)
        return [
            Result(second, float(second), frame, grid, confidence, self.classes)
            for second, (frame, grid, confidence) in enumerate(
                zip(frames, np.asarray(found.classes[0]), confidence_of(found)[0], strict=True)
            )
        ]

    def scores(
        self,
        frames: np.ndarray,
        waveform: np.ndarray,
        prior_mask: np.ndarray | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> np.ndarray:
        """What each class gets at each pixel, float32 [T,G,G,K], 0 or more; the greatest wins.

        Arguments and errors are those of a call.
        """
        if self.method.scores is None:
            raise UserError(f"{self.card.describe()} has no scores of classes")
        batch = self._batch(frames, waveform, prior_mask, sample_rate)
        with jax.default_matmul_precision("highest"):
            return np.asarray(self.method.scores(self.parameters, batch)[0])

    def stream(
        self,
        source: str | os.PathLike[str],
        *,
        fps: float | str = 1,
        start: float = 0.0,
        duration: float | None = None,
        sound: str | os.PathLike[str] | None = None,
        silence: bool = False,
    ) -> Iterator[Result]:
        """What sounds in a video, and where, as it is read: memory does not grow with its length.

            for result in model.stream("clip.mp4", fps=4):
                result.seconds, result.mask, result.objects

        Args:
          source: a video with sound, a picture or a folder of frames with a sound, see
            `prediction.sources`.
          fps: masks a second, or "all": one for each frame. Of a folder of frames it is the rate at
            which they were taken.
          start: s, where to begin.
          duration: s, how much; None: to the end.
          sound: file that is heard in place of the clip's own.
          silence: nothing is heard.

        Raises:
          UserError, DataError, at once or while it is read: the file cannot be read, or has no
            sound; an option cannot be.
        """
        from aavs_jax.prediction import sources, stream  # which are of files, not of arrays

        clips = sources.find([str(source)], Path(sound) if sound else None, silent=silence)
        if len(clips) != 1:
            raise UserError(f"{source} holds {len(clips)} clips: name one of them")
        span = stream.Span(fps, start, duration)
        return stream.results(self, clips[0], span)

    def predict(
        self,
        frames: np.ndarray,
        waveform: np.ndarray,
        prior_mask: np.ndarray | None = None,
        *,
        sample_rate: int = SAMPLE_RATE,
    ) -> Prediction:
        """The same at the size G that the network is scored at, as its method gives it.

        Products of float32 are exact, whatever the device would round. Arguments and errors are
        those of a call.

        Returns:
          With B = 1: classes uint8 [1,T,G,G], maps float32 [1,T,G,G].
        """
        batch = self._batch(frames, waveform, prior_mask, sample_rate)
        with jax.default_matmul_precision("highest"):
            return self.method.predict(self.parameters, batch)

    def of_rows(
        self, shown: Mapping[int, np.ndarray], heard: Mapping[FrontEnd, np.ndarray]
    ) -> Prediction:
        """What the networks say, one after the other, of clips that are ready for them.

        Args:
          shown: by the side S of each network of `chain`: uint8 [B,T,S,S,3].
          heard: by the front end of each: [B,T,...].

        Returns:
          That of the last; it may still be computing.
        """
        found = None
        with jax.default_matmul_precision("highest"):
            for network in self.chain:
                frames = shown[network.side]
                batch = {"frames": frames, "valid": np.ones(frames.shape[:2], bool)}
                batch["audio"] = heard[network.method.front_end]
                if found is not None:
                    batch["prior_mask"] = told(found, network.card.told)
                found = network.method.predict(network.parameters, network.seen(batch))
        return found

    @property
    def side(self) -> int:
        """Pixels of a side of the frames that it sees."""
        return side_of(self.card)

    def seen(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays of a batch that it reads."""
        return {name: batch[name] for name in self.method.entries if name in batch}

    def _batch(self, frames, waveform, prior_mask, sample_rate) -> dict[str, Any]:
        frames = arrays.checked_frames(frames)
        front_end = self.method.front_end
        sound = arrays.heard(waveform, sample_rate, front_end.channels)
        batch = {
            "frames": np.stack([arrays.shown_at(frame, self.side) for frame in frames])[None],
            "audio": front_end(sound, len(frames))[None],
            "valid": np.ones((1, len(frames)), bool),
        }
        if self.card.network.get("prior"):
            if prior_mask is None and self.before is None:
                raise UserError(
                    f"{self.card.describe()} is told where it sounds: give prior_mask, or load the "
                    "run that has both stages"
                )
            if prior_mask is not None and (
                np.ndim(prior_mask) != 3 or len(prior_mask) != len(frames)
            ):
                raise UserError(
                    f"prior_mask is {list(np.shape(prior_mask))}: give [T,h,w], of {len(frames)} "
                    "frames"
                )
            if prior_mask is None:
                before = self.before.predict(frames, waveform, sample_rate=sample_rate)
                batch["prior_mask"] = told(before, self.card.told)
            else:
                mask = np.asarray(prior_mask, np.float32)[None]
                batch["prior_mask"] = as_view(mask, self.card.told.get("view", "predicted"))
        return self.seen(batch)


def load(
    folder: str | os.PathLike[str],
    *,
    before: str | os.PathLike[str] | None = None,
    method: str | None = None,
    dtype: str | None = None,
) -> Network:
    """A network from its folder; no config is needed.

        network = aavs_jax.load("runs/avss")
        masks = network(frames, waveform)  # uint8 [T,H,W]

    Args:
      folder: a run, of which what its last stage keeps is taken, with the stage before where it is
        told where it sounds; `<run>/<stage>/<phase>`; or what `aavs_jax.convert` wrote.
      before: a folder of the network that says where it sounds, for one that is told so.
      method: of a folder by a method of one's own, the name of its module.
      dtype: of matrix products, "float32" or "bfloat16"; None: as its card says.

    Raises:
      UserError: no weights there, not of a whole network, or damaged; `before` has no use.
    """
    folder = Path(folder)
    network = given = None if before is None else load(before, method=method, dtype=dtype)
    for phase in kept_phases(folder) if (folder / "config.json").exists() else [folder]:
        parameters, card = cards.weights(phase)
        if dtype is not None:
            card = dataclasses.replace(card, network={**card.network, "dtype": dtype})
        made = method_of(card, method)
        for key, part in made.pretrained.items():
            if part.lacking and not any(path.startswith(part.prefix) for path in parameters):
                others, sizes = beside(phase, key, part)
                parameters |= others
                made = method_of(dataclasses.replace(card, network=card.network | sizes), method)
        check_whole(phase, parameters, made)
        tells = network if card.network.get("prior") else None
        network = Network(card, made, jax.device_put(parameters), tells)
    if given is not None and not any(each is given for each in network.chain):
        raise UserError(
            f"{before} has no use: {folder} needs nobody, or has its own stage, to say where it "
            "sounds; leave one of them out"
        )
    return network


def confidence_of(found: Prediction) -> np.ndarray:
    """float32 [B,T,G,G]; of a method that does not say it 1."""
    if "confidence" in found.maps:
        return np.asarray(found.maps["confidence"])
    return np.ones(found.classes.shape, np.float32)
