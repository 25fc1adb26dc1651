"""From encoded pictures to arrays, and from a request to the arrays of a clip."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import grain
import numpy as np
from PIL import Image

from data_pipelines.audio import EXAMPLE_WINDOWS, silence_example
from data_pipelines.errors import DataError
from data_pipelines.facts import avsbench
from data_pipelines.loading.augment import mix
from data_pipelines.loading.request import NOTHING, SILENCE, Request
from data_pipelines.media.labels import IGNORED, colours_to_ids

# Grain and XLA share the cores; threads of OpenCV's own would only stand in their way.
cv2.setNumThreads(1)


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


def semantic_label(encoded: bytes, size: int) -> np.ndarray:
    """Class ids of a colour label: nearest (Pillow's, at pixel centres), then colour -> id.

    Args:
        encoded: PNG of class colours.
        size: G, pixels.

    Returns:
        uint8 [G, G], IGNORED (255) where the label is ignored.
    """
    # Fewer pixels to convert; nearest takes whole pixels, so the order makes no difference.
    image = Image.open(io.BytesIO(encoded)).resize((size, size), Image.Resampling.NEAREST)
    return colours_to_ids(np.asarray(image.convert("RGB")))


def binary_label(encoded: bytes, size: int, ignores: bool = False) -> np.ndarray:
    """Foreground of a colour label: OpenCV's bilinear (no antialias), then grey > 0.

    A pixel that the object only touches counts as foreground. Ignored pixels touch nothing, and
    where the nearest one is ignored, so is the result.

    Args:
        encoded: PNG of class colours.
        size: G, pixels.
        ignores: whether the label may have ignored pixels.

    Returns:
        uint8 [G, G], 0, 1 or, with `ignores`, IGNORED (255).
    """
    colours = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    if ignores:
        ignored = colours_to_ids(colours) == IGNORED
        colours = np.where(ignored[..., None], np.uint8(0), colours)
    colours = cv2.resize(colours, (size, size), interpolation=cv2.INTER_LINEAR)
    label = (cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY) > 0).astype(np.uint8)
    return _with_ignored(label, encoded) if ignores else label


def nearest_binary_label(encoded: bytes, size: int, ignores: bool = False) -> np.ndarray:
    """Foreground of a colour label: the nearest pixel (Pillow's, at pixel centres) is not black.

    Args and result are those of `binary_label`.
    """
    image = Image.open(io.BytesIO(encoded)).resize((size, size), Image.Resampling.NEAREST)
    label = np.asarray(image.convert("RGB")).any(axis=-1).astype(np.uint8)
    return _with_ignored(label, encoded) if ignores else label


def _with_ignored(label: np.ndarray, encoded: bytes) -> np.ndarray:
    """A binary label [G, G], IGNORED where the nearest pixel of the label map is."""
    ids = semantic_label(encoded, len(label))
    return np.where(ids == IGNORED, np.uint8(IGNORED), label)


def sounding(labels: np.ndarray) -> np.ndarray:
    """Where labels show something that sounds, bool; an ignored pixel shows nothing."""
    return (labels != 0) & (labels != IGNORED)


def predicted_mask(path: Path, size: int) -> np.ndarray:
    """Reads a mask that stage one, or another tool, wrote.

    Args:
        path: grey PNG, 0 to 255; also of 16 bits, 0 to 65535, with a palette of greys; or
            black and white in three channels.
        size: G; a mask of another size is resized bilinearly.

    Returns:
        uint8 [G, G]; divided by 255 it is the prior.

    Raises:
        DataError: the file is missing or no picture; it is of colours or class ids; or so dark
            that white must have been meant otherwise.
    """
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError as fault:
        raise DataError(
            f"predicted mask missing: {path}; a stage of the run writes its masks when it is "
            "complete, and a folder of another tool has to hold one for every second"
        ) from fault
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as fault:
        raise DataError(
            f"predicted mask cannot be read: {path}; delete the folder masks and results.json of "
            "the stage that wrote it, and start the command again"
        ) from fault
    mask = _greys(path, image)
    if mask.shape != (size, size):
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_LINEAR)
    return mask


def _greys(path: Path, image: Image.Image) -> np.ndarray:
    """The greys of a predicted mask, uint8 [H, W]."""
    if image.mode == "L":
        mask = np.asarray(image)
        # No mask of shades is worth reading whose highest is 1 of 255: a hard one is meant, or ids.
        if mask.max() == 1:
            raise _no_greys(path, "holds only 0 and 1")
        return mask
    # What is not shown counts, too: a class may have a grey colour in a palette of others.
    if image.mode == "1" or (image.mode == "P" and _is_grey(image.getpalette("RGB"))):
        return _greys(path, image.convert("L"))
    if image.mode == "RGB":
        channels = np.asarray(image)
        # Black and white in three channels, as some tools save it; other greys may be a class's.
        if np.isin(channels, (0, 255)).all() and (channels == channels[..., :1]).all():
            return channels[..., 0]
    # Of 32 bits, "I", Pillow also has what other formats hold, whose white nobody knows.
    if image.mode.startswith("I;16"):
        wide = np.asarray(image)
        if 0 < wide.max() <= 255:
            raise _no_greys(path, f"has 16 bits, but holds no value above {wide.max()}")
        return np.rint(wide / 257).astype(np.uint8)
    coloured = " with colours" if image.mode in ("P", "PA", "RGB") else ""
    raise _no_greys(path, f"is a picture of mode {image.mode}{coloured}")


def _is_grey(palette: list[int]) -> bool:
    return palette[::3] == palette[1::3] == palette[2::3]


def _no_greys(path: Path, what: str) -> DataError:
    return DataError(
        f"predicted mask {path} {what}: write masks as grey PNG from 0 to 255 (of 16 bits to "
        "65535), where hard ones hold 0 and 255 and empty ones 0 only"
    )


# --- arrays of a request ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ReadClip(grain.transforms.Map):
    """`Request` -> the arrays of one clip.

    Attributes:
        source: random access to clips (`source.ClipSource`).
        task: "binary" or "semantic".
        image_size: S; None where only labels are wanted: neither frames nor sounds are read.
        label_size: G.
        prior_dir: the folder of stage one's masks.
        channels: of the sound: 1, or 2 for left and right, which are alike where only a mono
            sound is known.
        embeddings: `embeddings.Embeddings` of the clips' sounds, read instead of log-mel examples.
        nearest: binary task: whether the labels are read a second time, resized by nearest.
        cache: keep what was decoded in memory.
    """

    source: Any
    task: str
    image_size: int | None
    label_size: int
    prior_dir: str | None = None
    channels: int = 1
    embeddings: Any = None
    nearest: bool = False
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
            float32 [T,96,64], [T,96,64,2] of two channels or [T,E] of embeddings, ids str, if a
            prior is asked for prior_mask float32 [T,G,G], if nearest labels are labels_nearest
            uint8 [T,G,G]; and the request's flip and seed, and its index as position.
            Labels are 0 where `labelled` is False, as it is in padding, and IGNORED (255) in pixels
            that count for nothing, which are background in prior masks made of labels. The id
            of a request that is padding from end to end is "".
        """
        clip = self.source.clips[request.index]
        kept = self._kept if self.cache else {}
        self._decode(request, kept)
        stored = [_stored(clip, t) for t in request.frames]
        valid = np.array(request.valid)
        labelled = np.array([t in clip.labelled for t in request.frames]) & valid
        element = {
            "labelled": labelled,
            "valid": valid,
            "ids": clip.name if valid.any() else "",
            "flip": request.flip,
            "seed": request.seed,
            "position": np.int32(request.index),
        }
        for name in ("labels", "labels_nearest") if self.nearest else ("labels",):
            labels = np.stack([kept[request.index, t, name] for t in stored])
            labels[~labelled] = 0
            if request.empty:
                labels[labels != IGNORED] = 0
            element[name] = labels
        if self.image_size is not None:
            element["frames"] = np.stack([kept[request.index, t, "frame"] for t in stored])
            element["audio"] = self._heard(request, kept)
        if request.prior == "true":
            element["prior_mask"] = sounding(element["labels"]).astype(np.float32)
        elif request.prior == "predicted":
            masks = np.stack([kept[request.index, t, "predicted"] for t in request.frames])
            element["prior_mask"] = masks.astype(np.float32) / np.float32(255)
        return element

    def _decode(self, request: Request, kept: dict) -> None:
        """Adds to `kept` what the request needs and is not there."""
        index, clip = request.index, self.source.clips[request.index]
        seconds = sorted({_stored(clip, t) for t in request.frames})
        missing = [t for t in seconds if (index, t, "labels") not in kept]
        if missing:
            record = self.source[index]
            if self.image_size is not None:
                kept[index, "audio"] = self._sound(index, record)
            for t in missing:
                if self.image_size is not None:
                    kept[index, t, "frame"] = decode_frame(record["frames"][t], self.image_size)
                if self.nearest:
                    nearest = self._label(nearest_binary_label, clip, record, t)
                    kept[index, t, "labels_nearest"] = nearest
                decode = binary_label if self.task == "binary" else semantic_label
                kept[index, t, "labels"] = self._label(decode, clip, record, t)
        if request.prior == "predicted":
            # Of a still, too, there is a mask for every second: they differ by what is heard.
            for t in set(request.frames):
                if (index, t, "predicted") not in kept:
                    path = avsbench.mask_path(self.prior_dir, clip.subset, clip.uid, t)
                    kept[index, t, "predicted"] = predicted_mask(path, self.label_size)

    def _label(self, decode, clip, record: dict[str, Any], second: int) -> np.ndarray:
        if second not in clip.labelled:
            return np.zeros((self.label_size, self.label_size), np.uint8)
        encoded = record["labels"][clip.labelled.index(second)]
        if decode is semantic_label:
            return decode(encoded, self.label_size)
        # To look for ignored pixels takes time, and few clips have any.
        return decode(encoded, self.label_size, clip.ignored > 0)

    def _heard(self, request: Request, kept: dict) -> np.ndarray:
        """What the request says is heard, mixed."""
        if request.sound_index == SILENCE:
            return np.stack([self._silence()] * len(request.sounds))
        heard = self._seconds(request.sound_index, request, kept)
        if request.mixed_index != NOTHING:
            other = self._seconds(request.mixed_index, request, kept)
            heard = mix(heard, other, request.mixed_level)
        return heard

    def _silence(self) -> np.ndarray:
        if self.embeddings is not None:
            return self.embeddings.silence
        silence = silence_example()
        return silence if self.channels == 1 else np.stack([silence] * self.channels, axis=-1)

    def _seconds(self, index: int, request: Request, kept: dict) -> np.ndarray:
        """The seconds of a clip's sound that are asked for, a copy."""
        if (index, "audio") not in kept:
            kept[index, "audio"] = self._sound(index, None)
        sound = kept[index, "audio"]
        # Another clip's sound may be shorter than this clip.
        seconds = np.minimum(request.sounds, len(sound) - 1)
        if not request.shift:
            return sound[seconds]
        # Examples follow each other without a gap, so there are windows between them, too.
        windows = sound.reshape(-1, *sound.shape[2:])
        wanted = seconds[:, None] * EXAMPLE_WINDOWS + np.arange(EXAMPLE_WINDOWS) + request.shift
        return windows[np.clip(wanted, 0, len(windows) - 1)]

    def _sound(self, index: int, record: dict[str, Any] | None) -> np.ndarray:
        """The whole sound of a clip; its record is read if it is needed and not given."""
        if self.embeddings is not None:
            return self.embeddings[index]
        record = self.source[index] if record is None else record
        if self.channels == 1:
            return record["audio"]
        if len(record["stereo"]):
            return np.moveaxis(record["stereo"], 1, -1)
        return np.stack([record["audio"]] * self.channels, axis=-1)


def _stored(clip, second: int) -> int:
    """Where the frame and label of a second are: of a still one is stored, and seen in all."""
    return 0 if clip.still else second
