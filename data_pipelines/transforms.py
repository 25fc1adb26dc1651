"""From encoded pictures to arrays, and the small Grain transforms of a clip.

All randomness is in `Draw`, which says what to read before anything is read; the rest is a
function of that request, so an iterator resumes exactly and caching changes nothing.
"""

import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np
from PIL import Image

from data_pipelines.audio import silence_example
from data_pipelines.avsbench import layout
from data_pipelines.errors import DataError

# Grain and XLA share the cores; threads of OpenCV's own would only stand in their way.
cv2.setNumThreads(1)

SILENCE = -1  # in place of the index of a clip: no sound at all


# --- pictures ---------------------------------------------------------------------------------


def decode_frame(encoded: bytes, size: int) -> np.ndarray:
    """Decodes a frame and resizes it as Pillow's bilinear does (antialiased when shrinking).

    Args:
        encoded: JPEG or PNG.
        size: S, pixels.

    Returns:
        uint8 [S, S, 3], RGB.
    """
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def colours_to_ids(colours: np.ndarray) -> np.ndarray:
    """Class ids of label colours; a colour that is none of the 256 palette's is background.

    Args:
        colours: uint8 [..., 3], RGB.

    Returns:
        uint8 [...].
    """
    # The palette uses the three highest bits of each channel, so nine bits tell its colours apart.
    high = (colours >> 5).astype(np.uint16)
    ids = _ID_OF_HIGH_BITS[(high[..., 0] << 6) | (high[..., 1] << 3) | high[..., 2]]
    stray = ((colours[..., 0] | colours[..., 1] | colours[..., 2]) & 31) != 0
    return np.where(stray, np.uint8(0), ids)


def _id_of_high_bits() -> np.ndarray:
    high = (layout.palette(256) >> 5).astype(np.uint16)
    table = np.zeros(512, np.uint8)
    table[(high[:, 0] << 6) | (high[:, 1] << 3) | high[:, 2]] = np.arange(256)
    return table


_ID_OF_HIGH_BITS = _id_of_high_bits()


def semantic_label(encoded: bytes, size: int) -> np.ndarray:
    """Class ids of a colour label: nearest (Pillow's, at pixel centres), then colour -> id.

    Args:
        encoded: PNG of class colours.
        size: G, pixels.

    Returns:
        uint8 [G, G].
    """
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    return colours_to_ids(np.asarray(image.resize((size, size), Image.Resampling.NEAREST)))


def binary_label(encoded: bytes, size: int) -> np.ndarray:
    """Foreground of a colour label: OpenCV's bilinear (no antialias), then grey > 0.

    A pixel that the object only touches counts as foreground.

    Args:
        encoded: PNG of class colours.
        size: G, pixels.

    Returns:
        uint8 [G, G], 0 or 1.
    """
    colours = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    colours = cv2.resize(colours, (size, size), interpolation=cv2.INTER_LINEAR)
    return (cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY) > 0).astype(np.uint8)


def predicted_mask(path: Path, size: int) -> np.ndarray:
    """Reads a mask that stage one wrote.

    Args:
        path: grey PNG, 0 to 255.
        size: G; a mask of another size is resized bilinearly.

    Returns:
        uint8 [G, G]; divided by 255 it is the prior.

    Raises:
        DataError: the file is missing or no picture.
    """
    try:
        image = Image.open(path).convert("L")
    except FileNotFoundError as fault:
        raise DataError(
            f"predicted mask missing: {path}; stage localise writes it when it is complete"
        ) from fault
    except (OSError, SyntaxError) as fault:
        raise DataError(
            f"predicted mask cannot be read: {path}; delete the folder masks and results.json of "
            "the stage that wrote it, and start the command again"
        ) from fault
    mask = np.asarray(image)
    if mask.shape != (size, size):
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)
    return mask


# --- requests: what a training or evaluation example is made of -------------------------------


@dataclasses.dataclass(frozen=True)
class Request:
    """One clip of a batch, said in numbers.

    Attributes:
        index: which clip of the source.
        frames: T seconds whose frames and labels are shown.
        sounds: T seconds whose sound is heard.
        valid: T flags; False is padding.
        sound_index: the clip whose sound is heard, or SILENCE.
        prior: "none", "true" or "predicted".
        flip: whether left and right are swapped.
    """

    index: int
    frames: tuple[int, ...]
    sounds: tuple[int, ...]
    valid: tuple[bool, ...]
    sound_index: int
    prior: str = "none"
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class Draw(grain.transforms.RandomMap):
    """The index of a clip -> a `Request`, everything random in it drawn.

    Attributes:
        labelled: for each clip of the source, its labelled seconds.
        lengths: for each clip, its length in seconds.
        sampling: "clip" (all seconds in order) or "frame" (one random labelled second).
        seconds: T of the request; what a clip lacks is padding.
        prior: as in `Request`, or "mixture".
        mixture: share of requests with predicted masks where prior is "mixture".
        flip: whether half of the requests are flipped.
    """

    labelled: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    sampling: str
    seconds: int
    prior: str
    mixture: float
    flip: bool

    def random_map(self, index: int, rng: np.random.Generator) -> Request:
        # Always the same number of draws, so that no option shifts what the others get.
        pick, coin, share = rng.random(3)
        index = int(index)
        labelled, length = self.labelled[index], self.lengths[index]
        if self.sampling == "frame":
            frames = sounds = (labelled[int(pick * len(labelled))],)
            length = 1
        else:
            sounds = tuple(min(t, length - 1) for t in range(self.seconds))
            # Where only the first frame is labelled it is shown with each second's sound.
            frames = (0,) * self.seconds if labelled == (0,) else sounds
        prior = self.prior
        if prior == "mixture":
            prior = "predicted" if share < self.mixture else "true"
        return Request(
            index=index,
            frames=frames,
            sounds=sounds,
            valid=tuple(t < length for t in range(self.seconds)),
            sound_index=index,
            prior=prior,
            flip=self.flip and bool(coin < 0.5),
        )


# --- arrays of a request ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ReadClip(grain.transforms.Map):
    """`Request` -> the arrays of one clip.

    Attributes:
        source: random access to clips (`source.ClipSource`).
        task: "binary" or "semantic".
        image_size: S.
        label_size: G.
        prior_dir: the folder of stage one's masks.
        max_targets: the most classes a label map may hold (background counted); None: any.
        cache: keep what was decoded in memory.
    """

    source: Any
    task: str
    image_size: int
    label_size: int
    prior_dir: str | None = None
    max_targets: int | None = None
    cache: bool = False
    _kept: dict = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self):
        return {**self.__dict__, "_kept": {}}  # a worker process starts with an empty cache

    def __setstate__(self, state):
        self.__dict__.update(state)

    def map(self, request: Request) -> dict[str, Any]:
        """Reads what the request names.

        Returns:
            frames uint8 [T,S,S,3], labels uint8 [T,G,G], labelled and valid bool [T], audio
            float32 [T,96,64], ids str, and if a prior is asked for prior_mask float32 [T,G,G].
            Labels are 0 where `labelled` is False, as it is in padding. The id of a request
            that is padding from end to end is "".
        """
        clip = self.source.clips[request.index]
        kept = self._kept if self.cache else {}
        self._decode(request, kept)
        frames, labels = (
            np.stack([kept[request.index, t, name] for t in request.frames])
            for name in ("frame", "label")
        )
        valid = np.array(request.valid)
        labelled = np.array([t in clip.labelled for t in request.frames]) & valid
        labels[~labelled] = 0
        element = {
            "frames": frames,
            "labels": labels,
            "labelled": labelled,
            "valid": valid,
            "audio": self._sound(request, kept),
            "ids": clip.name if valid.any() else "",
        }
        if request.prior == "true":
            element["prior_mask"] = (labels != 0).astype(np.float32)
        elif request.prior == "predicted":
            masks = np.stack([kept[request.index, t, "predicted"] for t in request.frames])
            element["prior_mask"] = masks.astype(np.float32) / np.float32(255)
        if request.flip:
            for name in {"frames", "labels", "prior_mask"} & element.keys():
                element[name] = element[name][:, :, ::-1]
        return element

    def _decode(self, request: Request, kept: dict) -> None:
        """Adds to `kept` what the request needs and is not there."""
        index, clip = request.index, self.source.clips[request.index]
        seconds = sorted(set(request.frames))
        missing = [t for t in seconds if (index, t, "label") not in kept]
        if missing:
            record = self.source[index]
            kept[index, "audio"] = record["audio"]
            for t in missing:
                kept[index, t, "frame"] = decode_frame(record["frames"][t], self.image_size)
                kept[index, t, "label"] = self._label(clip, record, t)
        if request.prior == "predicted":
            for t in seconds:
                if (index, t, "predicted") not in kept:
                    path = layout.mask_path(self.prior_dir, clip.subset, clip.uid, t)
                    kept[index, t, "predicted"] = predicted_mask(path, self.label_size)

    def _label(self, clip, record: dict[str, Any], second: int) -> np.ndarray:
        if second not in clip.labelled:
            return np.zeros((self.label_size, self.label_size), np.uint8)
        decode = binary_label if self.task == "binary" else semantic_label
        label = decode(record["labels"][clip.labelled.index(second)], self.label_size)
        if self.max_targets is not None:
            classes = np.count_nonzero(np.bincount(label.ravel()))
            if classes > self.max_targets:
                raise DataError(
                    f"clip {clip.name}, second {second}: {classes} classes in one label map, "
                    f"more than max_targets ({self.max_targets}); raise it"
                )
        return label

    def _sound(self, request: Request, kept: dict) -> np.ndarray:
        if request.sound_index == SILENCE:
            return np.stack([silence_example()] * len(request.sounds))
        key = (request.sound_index, "audio")
        if key not in kept:
            kept[key] = self.source[request.sound_index]["audio"]
        # Another clip's sound may be shorter than this clip.
        return kept[key][np.minimum(request.sounds, len(kept[key]) - 1)]
