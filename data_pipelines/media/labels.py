"""Label maps in the encodings that data sets have, checked and counted, and written as AVSBench's.

Large maps are looked at a few rows at a time, so that checking needs little memory.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

from data_pipelines import media
from data_pipelines.facts import avsbench
from data_pipelines.media import MediaError

# Size of label maps in the first release, whatever the shape of the frames (width, height).
SQUARE_LABEL = (224, 224)
STRIP_PIXELS = 2**20

# In place of a class id: a pixel that counts for nothing, neither in the loss nor in scores. In the
# palette it is the colour that Pascal VOC calls void.
IGNORED = 255

# Of a label map without any colour of the palette: above it this is no blur at some edge.
MOST_STRAY = 0.001

_PNG = {"format": "PNG"}
_WHITE = 255


@dataclasses.dataclass(frozen=True)
class Label:
    """A label map as it is stored."""

    # A PNG that shows AVSBench's colours: with a palette, which takes a quarter of the time to
    # decode; the file as it was, if it has other colours, too.
    encoded: bytes
    size: tuple[int, int]  # width, height
    # How many pixels have each class id, int64 [256], and at IGNORED how many are ignored; not
    # those of foreground whose class is not known. Colours of no class count as background.
    pixels: np.ndarray
    foreground: int  # pixels that are neither black nor ignored
    stray: int = 0  # pixels whose colour is no class's

    @property
    def classes(self) -> int:
        """How many classes it shows, background counted and ignored pixels not; foreground whose
        class is not known is one."""
        known = np.count_nonzero(self.pixels[:IGNORED])
        return int(known + (self.foreground > self.stray + self.pixels[1:IGNORED].sum()))


def read_label(
    path: str | os.PathLike[str],
    encoding: str,
    class_count: int,
    *,
    label_ids: tuple[tuple[int, int], ...] | None = None,
    foreground: int | None = None,
) -> Label:
    """Reads a label map.

    Args:
        path: of the picture.
        encoding: "colours", "ids" or "foreground", see `raw.RawClip`.
        class_count: K; class ids are 0 to K - 1.
        label_ids: pixel value -> class id, or IGNORED, for "ids"; None: the values are class ids,
            of which none is ignored.
        foreground: class id of what is not black, for "foreground"; None: not known.

    Returns:
        The label map.

    Raises:
        MediaError: see `media.read_picture`; a value that is no class; colours of which none is
            a class's.
    """
    encoded, image = media.read_picture(path, "label")
    if encoding == "colours":
        return _colours(path, encoded, image, class_count)
    if encoding == "foreground":
        return _foreground(path, image, class_count, foreground)
    return _ids(path, encoded, image, class_count, label_ids)


def check_size(
    path, size: tuple[int, int], frame_size: tuple[int, int], first_size: tuple[int, int]
) -> None:
    """A label map covers its frame: same shape up to scale and rounding.

    Args:
        path: of the label map.
        size: its width and height.
        frame_size: of the frame.
        first_size: of the first label map of the clip.

    Raises:
        MediaError: it does not, or the clip's label maps differ in size.
    """
    (width, height), (frame_width, frame_height) = size, frame_size
    skew = abs(width * frame_height - height * frame_width)
    if size != SQUARE_LABEL and skew > 2 * max(frame_size):
        other = f"its frame {frame_width}x{frame_height}"
    elif size != first_size:
        other = f"those before it in the clip {first_size[0]}x{first_size[1]}"
    else:
        return
    raise media.fault("label of wrong size", f"{path} is {width}x{height}, {other}")


def _colours(path, encoded: bytes, image: Image.Image, class_count: int) -> Label:
    pixels, foreground, stray, brightest = np.zeros(256, np.int64), 0, 0, 0
    grey = media.bits_per_channel(encoded, image) == 8 and image.mode in ("L", "LA", "RGB", "RGBA")
    colour_of_id = avsbench.palette(256)
    whole = np.empty((image.height, image.width), np.uint8)
    for top, strip in _strips(image):
        colours = np.asarray(media.to_rgb(strip))
        ids = colours_to_ids(colours)
        whole[top : top + strip.height] = ids
        pixels += np.bincount(ids.ravel(), minlength=256)
        coloured = colours.any(axis=-1)
        foreground += int(np.count_nonzero(coloured))
        stray += int(np.count_nonzero(coloured & (ids == 0)))
        brightest = max(brightest, int(colours.max()))
        grey = grey and bool((colours == colours[..., :1]).all())
    if stray and stray == foreground:
        # OpenCV repeats ids in three channels where it read them from a grey picture.
        if grey and brightest < class_count:
            return _ids(path, encoded, image, class_count, None)
        if stray > MOST_STRAY * whole.size:
            raise media.fault(
                "label of no class",
                f"{path} holds {stray} pixels that are not black, and none has the colour of a "
                "class",
            )
    highest = int(np.flatnonzero(pixels).max())
    if highest >= class_count:
        colour = tuple(int(v) for v in colour_of_id[highest])
        raise _above(f"{path} holds colour {colour} of class id {highest}", class_count)
    if not stray:
        encoded = _encode_ids(whole)
    return Label(encoded, image.size, pixels, foreground, stray)


def _foreground(path, image: Image.Image, class_count: int, class_id: int | None) -> Label:
    if class_id is not None and class_id >= class_count:
        raise _above(f"{path}: its foreground is class id {class_id}", class_count)
    mask = np.empty((image.height, image.width), np.uint8)
    for top, strip in _strips(image):
        # Not by way of RGB where it is grey: of 16 bits the lower ones count, too.
        values = np.asarray(
            strip if strip.mode in ("1", "L") or strip.mode.startswith("I") else media.to_rgb(strip)
        )
        rows = values != 0
        mask[top : top + strip.height] = rows if rows.ndim == 2 else rows.any(axis=-1)
    count = int(np.count_nonzero(mask))
    pixels = np.zeros(256, np.int64)
    pixels[0] = mask.size - count
    if class_id is None:
        encoded = media.encode(Image.fromarray(mask * np.uint8(_WHITE)).convert("RGB"), _PNG)
    else:
        if class_id:
            pixels[class_id] = count
        encoded = _encode_ids(mask * np.uint8(class_id))
    return Label(encoded, image.size, pixels, count)


def _ids(path, encoded: bytes, image: Image.Image, class_count: int, label_ids) -> Label:
    known = np.full(2**16, -1, np.int32)
    if label_ids is None:
        known[:] = np.arange(2**16)
    else:
        for value, class_id in label_ids:
            known[value] = class_id
    ids = np.empty((image.height, image.width), np.uint8)
    bits = media.bits_per_channel(encoded, image)
    for top, strip in _strips(image):
        values = _values(path, strip, bits)
        mapped = known[values]
        if (mapped < 0).any():
            value = int(values[mapped < 0].max())
            what = f"{path} holds the value {value}, which stands for no class"
            raise media.fault("label value unknown", what)
        # Only a table can say that a value is ignored: in masks of one's own 255 may mean "object".
        shown = mapped if label_ids is None else np.where(mapped == IGNORED, 0, mapped)
        if (highest := int(shown.max())) >= class_count:
            value = int(values[shown == highest][0])
            raise _above(f"{path}: it holds the value {value} of class id {highest}", class_count)
        ids[top : top + strip.height] = mapped
    pixels = np.bincount(ids.ravel(), minlength=256).astype(np.int64)
    return Label(_encode_ids(ids), image.size, pixels, int(pixels[1:IGNORED].sum()))


def _values(path, strip: Image.Image, bits: int) -> np.ndarray:
    """The values that the file holds, as integers [h, w]: of a palette the indices."""
    mode = strip.mode
    if mode in ("1", "L", "P", "PA") or mode.startswith("I"):
        values = np.asarray(strip if mode != "PA" else strip.getchannel("P"))
        # Pillow stretches grey of 2 and 4 bits to 8.
        return values // {2: 85, 4: 17}[bits] if mode == "L" and bits in (2, 4) else values * 1
    if bits == 8 and mode in ("LA", "RGB", "RGBA"):
        bands = np.asarray(strip)
        if mode == "LA" or (bands[..., :3] == bands[..., :1]).all():
            return bands[..., 0]
    what = f"{path} should hold class ids (a grey PNG, or one with a palette)"
    raise media.fault("label of colours", what)


def _above(what: str, class_count: int) -> MediaError:
    return MediaError(
        f"label above {class_count - 1}",
        f"label value out of range: {what}, but the classes have only ids 0 to {class_count - 1}",
    )


def _encode_ids(ids: np.ndarray) -> bytes:
    """A PNG of class colours, with no more bits of a pixel than its colours need: these are what
    takes time to decode."""
    shown = np.unique(ids)
    places = np.zeros(256, np.uint8)
    places[shown] = np.arange(len(shown))
    image = Image.fromarray(places[ids]).convert("P")
    image.putpalette(avsbench.palette(256)[shown].tobytes())
    bits = next(bits for bits in (1, 2, 4, 8) if len(shown) <= 2**bits)
    return media.encode(image, {**_PNG, "bits": bits})


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


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


_HIGH = (avsbench.palette(256) >> 5).astype(np.uint16)
_ID_OF_HIGH_BITS = np.zeros(512, np.uint8)
_ID_OF_HIGH_BITS[(_HIGH[:, 0] << 6) | (_HIGH[:, 1] << 3) | _HIGH[:, 2]] = np.arange(256)
