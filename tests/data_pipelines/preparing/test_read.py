"""A clip from disk: what is stored, what is mended and said, and what is left out."""

import dataclasses
import io
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import ExifTags, Image, ImageOps

from data_pipelines import media
from data_pipelines.facts import avsbench
from data_pipelines.loading.front_ends import LOG_MEL, log_mel_examples
from data_pipelines.media import labels
from data_pipelines.media.waveforms import load_waveform
from data_pipelines.preparing.read import ReadOptions, read_clip
from data_pipelines.reading.raw import RawClip, Sound

RATE = 16_000
CLASSES = 5
ROOT = Path(__file__).parents[3]


def noise(seconds, seed=0, channels=1):
    samples = np.random.default_rng(seed).normal(0, 0.1, (int(seconds * RATE), channels))
    return samples.astype(np.float32)


@pytest.fixture
def clip(tmp_path):
    """3 s, all of them labelled with class 2 on the left and 3 in a corner."""
    folder = tmp_path / "data" / "a clip"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = np.zeros((20, 30), np.uint8)
    ids[:, :10], ids[:5, 25:] = 2, 3
    for t in range(3):
        pixels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{t}.jpg")
        Image.fromarray(avsbench.palette()[ids]).save(folder / f"{t}.png")
    soundfile.write(folder / "a.wav", noise(3.5), RATE, subtype="FLOAT")
    return RawClip(
        subset="v1m",
        uid="a",
        split="train",
        seconds=3,
        frames=tuple(folder / f"{t}.jpg" for t in range(3)),
        labels=tuple((t, folder / f"{t}.png") for t in range(3)),
        sounds=(Sound(folder / "a.wav"),),
    )


def int16(waveform, seconds=3):
    """A waveform as it is stored."""
    return np.rint(waveform[: seconds * RATE] * 32768).astype(np.int16)


def read(clip, class_count=CLASSES, **options):
    root = (clip.frames[0] if clip.frames else clip.video).parents[1]
    result = read_clip(clip, ReadOptions(**options), class_count, (root,))
    json.dumps(result.facts)
    return result


def change(clip, **changes):
    return dataclasses.replace(clip, **changes)


def only(result, kind, code):
    """The message of the one finding."""
    assert [(f.kind, f.code) for f in result.findings] == [(kind, code)]
    assert (result.example is None) == (kind == "left out")
    return result.findings[0].message


def ids_of(encoded):
    return labels.colours_to_ids(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))


# --- what is stored -----------------------------------------------------------------------------


def test_a_whole_clip(clip):
    result = read(clip)
    assert result.findings == ()
    example = result.example
    assert (example["uid"], example["subset"]) == ("a", "v1m")
    assert example["frames"] == [path.read_bytes() for path in clip.frames]
    for encoded, (_, path) in zip(example["labels"], clip.labels, strict=True):
        stored = Image.open(io.BytesIO(encoded))
        assert stored.mode == "P"  # a quarter of the time to decode
        np.testing.assert_array_equal(stored.convert("RGB"), Image.open(path).convert("RGB"))
    assert example["labelled"].dtype == bool and example["labelled"].all()
    assert example["objects"] == [2, 3]
    assert example["waveform"].dtype == np.int16
    np.testing.assert_array_equal(example["waveform"], int16(noise(3.5)))
    facts = result.facts
    assert facts["pixels"] == {0: 3 * 375, 2: 600, 3: 75}
    assert facts["label_pixels"] == 1800
    assert facts["empty_masks"] == facts["silent_seconds"] == facts["repaired_seconds"] == 0
    assert facts["objects"] == [2, 3]
    assert len(set(facts["frame_digests"])) == 3


def test_the_same_each_time_and_in_other_processes(clip):
    first, again = read(clip, stereo=True), pickle.loads(pickle.dumps(read(clip, stereo=True)))
    assert first.facts == again.facts and first.example["frames"] == again.example["frames"]
    np.testing.assert_array_equal(first.example["waveform"], again.example["waveform"])
    assert pickle.loads(pickle.dumps(media.MediaError("a b", "c"))).code == "a b"


@pytest.mark.parametrize(
    ("count", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4), (16, 4), (17, 8), (71, 8)]
)
def test_a_label_has_no_more_bits_than_its_colours_need(clip, count, bits):
    ids = (np.arange(20 * 30).reshape(20, 30) % count + 71 - count).astype(np.uint8)
    Image.fromarray(avsbench.palette()[ids]).save(clip.labels[0][1])
    encoded = read(clip, class_count=71).example["labels"][0]
    stored = Image.open(io.BytesIO(encoded))
    assert stored.mode == "P" and media.bits_per_channel(encoded, stored) == bits
    np.testing.assert_array_equal(ids_of(encoded), ids)


def test_only_labelled_seconds_are_marked(clip):
    result = read(change(clip, labels=clip.labels[1:2], objects=(4,)))
    assert result.example["labelled"].tolist() == [False, True, False]
    assert result.example["objects"] == [4] and len(result.example["labels"]) == 1


def test_size_makes_small_jpegs(clip):
    result = read(clip, size=8)
    for path, encoded in zip(clip.frames, result.example["frames"], strict=True):
        expected = Image.open(path).resize((8, 8), Image.Resampling.BILINEAR)
        found = Image.open(io.BytesIO(encoded))
        assert found.format == "JPEG" and found.size == (8, 8)
        assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).mean() <= 4
    assert result.example["labels"] == read(clip).example["labels"]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "I;16", "1", "LA"])
def test_frames_that_are_not_8_bit_rgb_are_converted(clip, mode):
    image = Image.open(clip.frames[1])
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(clip.frames[1], "JPEG" if mode == "CMYK" else "PNG")
    result = read(clip)
    assert f"{clip.frames[1]} (mode {mode}" in only(result, "repaired", "frame converted")
    found = Image.open(io.BytesIO(result.example["frames"][1]))
    assert found.mode == "RGB" and found.format == "PNG"
    grey = np.asarray(found.convert("L")).astype(int)
    expected = np.asarray(image.convert("L")) if mode != "I;16" else np.asarray(image) >> 8
    assert np.abs(grey - expected).mean() <= 4
    assert result.example["frames"][0] == clip.frames[0].read_bytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, 8])
def test_frames_are_stored_as_they_are_looked_at(clip, orientation, size):
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:10, :10], upright[10:, 15:] = (250, 0, 0), (0, 0, 250)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # The inverse of what a viewer does.
    stored = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(
        orientation, media._TURNS.get(orientation)
    )
    image = Image.fromarray(upright)
    image = image if stored is None else image.transpose(stored)
    image.save(clip.frames[1], exif=exif, quality=95)
    result = read(clip, size=size)
    encoded = result.example["frames"][1]
    if orientation > 1:
        assert f"upright, as its EXIF says: {clip.frames[1]}" in (
            only(result, "repaired", "frame turned")
        )
    else:
        assert result.findings == () and (size or encoded == clip.frames[1].read_bytes())
    looked_at = ImageOps.exif_transpose(Image.open(clip.frames[1]))
    assert looked_at.size == (30, 20)
    found = Image.open(io.BytesIO(encoded))
    assert found.format == "JPEG" and found.getexif().get(ExifTags.Base.Orientation, 1) == 1
    expected = looked_at.resize((8, 8), Image.Resampling.BILINEAR) if size else looked_at
    assert found.size == expected.size
    assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).mean() <= 4


def test_a_still_is_stored_once(clip):
    result = read(change(clip, frames=clip.frames[:1], labels=clip.labels[:1]))
    assert result.findings == () and len(result.example["frames"]) == 1
    assert result.example["labelled"].tolist() == [True, False, False]


def write_film(path, seconds):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for i in range(int(8 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 5 * i, np.uint8))
            frame.pts, frame.time_base = i, Fraction(1, 8)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def test_frames_of_a_video(clip):
    video = clip.frames[0].with_name("a.mp4")
    filmed = change(clip, frames=(), labels=(), video=video)
    write_film(video, 3)
    frames = [Image.open(io.BytesIO(each)) for each in read(filmed).example["frames"]]
    assert [(f.format, f.size) for f in frames] == [("JPEG", (32, 16))] * 3
    assert [np.asarray(f).mean() for f in frames] == pytest.approx([35, 75, 115], abs=3)
    assert Image.open(io.BytesIO(read(filmed, size=8).example["frames"][0])).size == (8, 8)
    late = read(change(filmed, start=1, seconds=2)).example["frames"]
    assert np.asarray(Image.open(io.BytesIO(late[0]))).mean() == pytest.approx(75, abs=3)
    write_film(video, 2.5)
    result = read(filmed)
    assert "a.mp4 ends before second 3" in only(result, "repaired", "video short")
    assert result.facts["repaired_seconds"] == 1
    write_film(video, 1.5)
    assert "a.mp4 shows 1 of the 3" in only(read(filmed), "left out", "video too short")
    video.unlink()
    assert only(read(filmed), "left out", "video missing").endswith("a.mp4")


# --- labels -------------------------------------------------------------------------------------


def write_label(clip, pixels, **options):
    Image.fromarray(pixels).save(clip.labels[0][1], "PNG", **options)
    return change(clip, labels=clip.labels[:1])


def test_ids_in_every_depth(clip):
    ids = np.zeros((20, 30), np.uint8)
    ids[3:9] = 3
    path = clip.labels[0][1]
    one = change(clip, labels=clip.labels[:1], label_encoding="ids")
    pictures = [Image.fromarray(ids), Image.fromarray(ids.astype(np.uint16))]
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(list(range(200, 0, -1)))
    alpha = Image.merge("LA", [pictures[0], pictures[0].point(lambda _: 7)])
    colour = Image.merge("RGB", [pictures[0]] * 3)
    for image in (*pictures, palette, alpha, colour):
        image.save(path)
        result = read(one)
        assert result.findings == ()
        np.testing.assert_array_equal(ids_of(result.example["labels"][0]), ids)
        assert result.facts["pixels"] == {0: 420, 3: 180} and result.example["objects"] == [3]
    palette.save(path, bits=2)
    np.testing.assert_array_equal(ids_of(read(one).example["labels"][0]), ids)
    Image.fromarray(ids > 0).save(path)
    np.testing.assert_array_equal(ids_of(read(one).example["labels"][0]), ids > 0)


@pytest.mark.parametrize("bits", [2, 4])
def test_ids_of_grey_with_few_bits(clip, bits):
    """Pillow stretches their values, and does not write such files; the header is changed."""
    values = np.tile(np.arange(4, dtype=np.uint8), (20, 8))[:, :30]
    packed = np.zeros((20, -(-30 * bits // 8)), np.uint8)
    for x in range(30):
        packed[:, x * bits // 8] |= values[:, x] << (8 - bits - x * bits % 8)

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    clip.labels[0][1].write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, bits, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed)))
        + chunk(b"IEND", b"")
    )
    result = read(change(clip, labels=clip.labels[:1], label_encoding="ids"))
    np.testing.assert_array_equal(ids_of(result.example["labels"][0]), values)


def test_ids_by_a_table(clip):
    pixels = np.zeros((20, 30), np.uint16)
    pixels[:, :10], pixels[0, 20:] = 300, 255
    one = change(
        write_label(clip, pixels), label_encoding="ids", label_ids=((0, 0), (255, 0), (300, 4))
    )
    result = read(one)
    np.testing.assert_array_equal(ids_of(result.example["labels"][0]), (pixels == 300) * 4)
    pixels[7, 7] = 301
    write_label(clip, pixels)
    message = only(read(one), "left out", "label value unknown")
    assert message.endswith("0.png holds the value 301, which stands for no class")
    message = only(read(one, class_count=4), "left out", "label value unknown")
    pixels[7, 7] = 0
    write_label(clip, pixels)
    message = only(read(one, class_count=4), "left out", "label above 3")
    assert "the value 300 of class id 4" in message and message.endswith("only ids 0 to 3")


def test_ignored_pixels_are_kept_and_not_counted(clip):
    pixels = np.zeros((20, 30), np.uint8)
    pixels[:, :10], pixels[0, 20:] = 30, 255
    table = ((0, 0), (255, labels.IGNORED), (30, 4))
    one = change(write_label(clip, pixels), label_encoding="ids", label_ids=table)
    result = read(one)
    expected = np.where(pixels == 30, 4, pixels)
    np.testing.assert_array_equal(ids_of(result.example["labels"][0]), expected)
    maps = len(one.labels)
    assert result.facts["pixels"] == {0: 390 * maps, 4: 200 * maps}
    assert result.facts["ignored_pixels"] == 10 * maps and result.facts["classes"] == 2
    assert result.facts["objects"] == [4]
    write_label(clip, np.full_like(pixels, 255))
    facts = read(one).facts
    assert (facts["pixels"], facts["objects"], facts["classes"]) == ({}, [], 0)
    assert facts["empty_masks"] == maps
    # Who has no table may mean an object by it.
    message = only(read(change(one, label_ids=None)), "left out", "label above 4")
    assert "the value 255 of class id 255" in message


def test_the_most_classes_of_one_label_map_are_counted(clip):
    assert read(clip).facts["classes"] == 3
    white = change(clip, label_encoding="foreground")
    assert read(white).facts["classes"] == 2  # of which one is not known
    one = change(clip, label_encoding="foreground", foreground=4)
    assert read(one).facts["classes"] == 2
    assert read(change(clip, labels=())).facts["classes"] == 0


def test_ids_must_not_be_colours(clip):
    assert "0.png" in only(read(change(clip, label_encoding="ids")), "left out", "label of colours")


@pytest.mark.parametrize("make", ["1", "P", "grey", "faint 16 bits", "RGBA"])
def test_foreground(clip, make):
    mask = np.zeros((20, 30), bool)
    mask[4:8, 3:] = True
    image = Image.fromarray(mask)
    if make == "P":
        image = Image.fromarray(np.uint8(mask)).convert("P")
        image.putpalette([0, 0, 0, 0, 0, 1])
    elif make == "grey":
        image = Image.fromarray(np.uint8(mask))
    elif make == "faint 16 bits":
        image = Image.fromarray(np.uint16(mask))
    elif make == "RGBA":
        image = Image.fromarray(np.uint8(mask)[..., None] * np.array([0, 9, 0, 0], np.uint8))
    image.save(clip.labels[0][1])
    one = change(clip, labels=clip.labels[:1], label_encoding="foreground", foreground=4)
    result = read(one)
    assert result.findings == ()
    np.testing.assert_array_equal(ids_of(result.example["labels"][0]), mask * 4)
    assert result.facts["pixels"] == {0: 492, 4: 108} and result.example["objects"] == [4]
    result = read(change(one, foreground=None))
    colours = np.asarray(Image.open(io.BytesIO(result.example["labels"][0])))
    np.testing.assert_array_equal(colours, np.repeat(mask[..., None] * 255, 3, 2))
    assert result.facts["pixels"] == {0: 492}
    assert result.example["objects"] == []


def test_colours_of_no_class_are_only_noticed(clip):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[0, :3], pixels[1, :4] = (17, 201, 3), (128, 0, 0)
    one = write_label(clip, pixels)
    result = read(one)
    assert "in 3 pixels (0.50%)" in only(result, "noticed", "colours of no class")
    assert result.facts["pixels"] == {0: 596, 1: 4}
    assert result.example["labels"] == [one.labels[0][1].read_bytes()]


def test_ids_that_were_saved_as_rgb(clip):
    """As OpenCV does; what is as grey as a colour of the palette stays that colour."""
    ids = np.zeros((20, 30), np.uint8)
    ids[:, :9], ids[3, 20:] = 2, 3
    one = write_label(clip, np.repeat(ids[..., None], 3, 2))
    result = read(one)
    assert result.findings == () and result.example["objects"] == [2, 3]
    np.testing.assert_array_equal(ids_of(result.example["labels"][0]), ids)
    only(read(one, class_count=3), "left out", "label of no class")
    write_label(clip, np.repeat(ids[..., None] // 2 * np.uint8(128), 3, 2))
    result = read(one, class_count=200)
    assert result.findings == () and result.example["objects"] == [7]


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (2, 1, 1)])
def test_labels_without_one_colour_of_a_class(clip, colour):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:, 3:9] = colour
    one = write_label(clip, pixels)
    assert "0.png holds 120 pixels" in only(read(one), "left out", "label of no class")
    result = read(change(one, label_encoding="foreground"))  # where classes are not asked for
    assert result.findings == () and result.facts["pixels"] == {0: 480}
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[5, 7:9] = colour
    only(read(write_label(clip, pixels)), "noticed", "colours of no class")


def test_empty_masks_are_counted(clip):
    write_label(clip, np.zeros((20, 30, 3), np.uint8))
    assert read(clip).facts["empty_masks"] == 1


# --- sound --------------------------------------------------------------------------------------


def test_silent_seconds(clip):
    samples = noise(3.5)
    samples[: int(1.5 * RATE)] = 1e-7
    soundfile.write(clip.sounds[0].path, samples, RATE, subtype="FLOAT")
    assert read(clip).facts["silent_seconds"] == 1


def test_a_sound_that_is_short(clip):
    soundfile.write(clip.sounds[0].path, noise(2.2), RATE)
    result = read(clip)
    message = only(result, "repaired", "sound short")
    assert "repeated for 1 of the clip's 3 seconds" in message and message.endswith("a.wav")
    assert result.example["waveform"].shape == (35200, 1)
    assert result.facts["repaired_seconds"] == 1
    soundfile.write(clip.sounds[0].path, noise(1.2), RATE)
    assert "for 2 of the clip's 3" in only(read(clip), "repaired", "sound short")
    own = change(clip, subset="clips")
    message = only(read(own), "left out", "sound too short")
    assert "for 2 of the clip's 3 seconds (one frame a second is expected): " in message
    still = change(own, frames=clip.frames[:1], labels=clip.labels[:1])
    assert "one frame" not in only(read(still), "left out", "sound too short")
    # Half of it is enough.
    two = change(own, seconds=2, frames=clip.frames[:2], labels=clip.labels[:2])
    only(read(two), "repaired", "sound short")
    soundfile.write(clip.sounds[0].path, noise(0.9), RATE)
    message = only(read(clip), "left out", "sound too short")
    assert message.endswith("too short for a log-mel example: " + str(clip.sounds[0].path))


def test_start_of_the_sound(clip):
    samples = noise(9)
    soundfile.write(clip.sounds[0].path, samples, RATE, subtype="FLOAT")
    expected = int16(samples[4 * RATE :])
    np.testing.assert_array_equal(read(change(clip, start=4)).example["waveform"], expected)
    message = only(read(change(clip, start=9)), "left out", "no samples")
    assert "no samples from second 9 on" in message


def test_centred_sounds(clip):
    centred = change(clip, centred=True)
    samples = noise(9)
    soundfile.write(clip.sounds[0].path, samples, RATE, subtype="FLOAT")
    result = read(centred)
    assert result.findings == ()
    np.testing.assert_array_equal(result.example["waveform"], int16(samples[3 * RATE : 6 * RATE]))
    soundfile.write(clip.sounds[0].path, samples[:RATE], RATE, subtype="FLOAT")
    result = read(centred)
    assert "a.wav lasts 1.00 s" in only(result, "repaired", "sound repeated")
    expected = int16(np.tile(samples[:RATE], (3, 1)))
    np.testing.assert_array_equal(result.example["waveform"], expected)
    assert result.facts["repaired_seconds"] == 2


@pytest.mark.parametrize("seconds", [2.2, 3.0, 4.5])
def test_sixteen_bits_are_heard_to_the_bit_as_they_were_recorded(clip, seconds):
    path = clip.sounds[0].path
    soundfile.write(path, noise(seconds), RATE, subtype="PCM_16")
    stored = read(clip).example["waveform"]
    recorded = load_waveform(path)
    np.testing.assert_array_equal(stored[:, 0] / np.float32(32768), recorded[: 3 * RATE])
    examples = log_mel_examples(recorded)  # of all there is, and then cut to the clip
    expected = examples[np.minimum(np.arange(3), len(examples) - 1)]
    np.testing.assert_array_equal(LOG_MEL(stored / np.float32(32768), 3), expected)


def test_left_and_right_of_a_file(clip):
    """The first two channels, whose mean mono is then; without them, the mean of all."""
    samples = noise(3.5, channels=3)
    soundfile.write(clip.sounds[0].path, samples, RATE, subtype="FLOAT")
    result = read(clip, stereo=True)
    np.testing.assert_array_equal(result.example["waveform"], int16(samples[:, :2]))
    assert not result.facts["mono_is_sum"]
    mono = int16(samples.mean(1, keepdims=True))
    np.testing.assert_array_equal(read(clip).example["waveform"], mono)
    soundfile.write(clip.sounds[0].path, samples[:, 0], RATE, subtype="FLOAT")
    example = read(clip, stereo=True).example
    np.testing.assert_array_equal(example["waveform"], int16(samples[:, :1]))


def test_sources_with_positions_are_summed(clip):
    """The second one is shorter, and in stereo, which its position overrules."""
    first, second = noise(3.5), noise(2, seed=1, channels=2)
    other = clip.sounds[0].path.with_name("b.wav")
    soundfile.write(clip.sounds[0].path, first, RATE, subtype="FLOAT")
    soundfile.write(other, second, RATE, subtype="FLOAT")
    both = change(clip, sounds=(Sound(clip.sounds[0].path, 0.25), Sound(other, 1.0)))
    x, y = first[:, 0], np.zeros(len(first), np.float32)
    y[: len(second)] = second.mean(1)
    result = read(both, stereo=True)
    expected = int16(np.stack([0.75 * x, 0.25 * x + y], 1))
    np.testing.assert_allclose(result.example["waveform"], expected, atol=1)
    assert result.facts["mono_is_sum"]
    mono = read(both)
    np.testing.assert_allclose(mono.example["waveform"], int16((x + y)[:, None]), atol=1)
    assert not mono.facts["mono_is_sum"]
    # Without a position it is in the middle of those that have one.
    both = change(both, sounds=(both.sounds[0], Sound(other)))
    y = np.zeros((len(first), 2), np.float32)
    y[: len(second)] = second / 2
    expected = int16(np.stack([0.75 * x, 0.25 * x], 1) + y)
    np.testing.assert_allclose(read(both, stereo=True).example["waveform"], expected, atol=1)


def test_another_rate_sounds_the_same(clip):
    time = np.arange(3.5 * 44100) / 44100
    soundfile.write(clip.sounds[0].path, 0.3 * np.sin(2 * np.pi * 440 * time), 44100)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
    found = read(clip).example["waveform"][:, 0]
    inside = slice(500, None)  # resampling rings at the ends
    np.testing.assert_allclose(found[inside], int16(expected)[inside], atol=2)


def test_seconds_without_sound(clip):
    """Heard are the 0.975 s of each second's log-mel example; what is repeated counts again."""
    samples = np.zeros((int(3.5 * RATE), 1), np.float32)
    for place, silent in ((None, 3), (0, 2), (15600, 2), (15400, 1), (2 * 15360 + 15600, 3)):
        changed = samples.copy()
        changed[place : place + 1 if place is not None else 0] = 0.5
        soundfile.write(clip.sounds[0].path, changed, RATE, subtype="FLOAT")
        assert read(clip).facts["silent_seconds"] == silent
    soundfile.write(clip.sounds[0].path, samples[: 2 * RATE], RATE, subtype="FLOAT")
    assert read(clip).facts["silent_seconds"] == 3


def test_too_loud_is_clipped(clip):
    soundfile.write(clip.sounds[0].path, 4 * noise(3.5) / 0.1, RATE, subtype="FLOAT")
    found = read(clip).example["waveform"]
    assert found.max() == 32767 and found.min() == -32768


# --- what is left out ---------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 200])


FAULTS = {
    "folder": (lambda c: shutil.rmtree(c.frames[0].parent), "clip folder missing: .*a clip$"),
    "frames": (
        lambda c: [c.frames[0].unlink(), c.frames[2].unlink()],
        r"frames missing in .*a clip: 0\.jpg, 2\.jpg \(the clip has 3 seconds\)",
    ),
    "truncated frame": (
        lambda c: truncate(c.frames[1]),
        r"corrupt frame: .*1\.jpg \(no whole JPEG or PNG image\)",
    ),
    "empty frame": (
        lambda c: c.frames[2].write_bytes(b""),
        r"corrupt frame: .*2\.jpg \(the file is empty\)",
    ),
    "label": (lambda c: c.labels[1][1].unlink(), r"label missing: .*1\.png$"),
    "no label": (lambda c: c.labels[1][1].write_text("x"), r"corrupt label: .*1\.png \("),
    "label value": (
        lambda c: Image.new("RGB", (30, 20), (128, 0, 128)).save(c.labels[2][1]),
        r"label value out of range: .*2\.png holds colour \(128, 0, 128\) of class id 5, but the "
        "classes have only ids 0 to 4",
    ),
    "label size": (
        lambda c: Image.new("RGB", (15, 10)).save(c.labels[2][1]),
        r"label of wrong size: .*2\.png is 15x10, those before it in the clip 30x20",
    ),
    "label shape": (
        lambda c: Image.new("RGB", (20, 20)).save(c.labels[0][1]),
        r"label of wrong size: .*0\.png is 20x20, its frame 30x20",
    ),
    "no sound": (lambda c: c.sounds[0].path.unlink(), r"sound file missing: .*a\.wav$"),
    "bad sound": (
        lambda c: c.sounds[0].path.write_bytes(b"RIFF?"),
        r"sound file cannot be read: .*a\.wav \(",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(clip, fault):
    damage, message = FAULTS[fault]
    damage(clip)
    result = read(clip)
    assert result.example is None and result.facts == {}
    [finding] = result.findings
    assert finding.kind == "left out" and finding.clip == "v1m/a"
    assert re.search(message, finding.message) and finding.message.isprintable()


def test_labels_of_the_first_release_are_square(clip):
    for _, path in clip.labels:
        Image.new("RGB", labels.SQUARE_LABEL).save(path)
    assert read(clip).findings == ()


def test_too_much_for_one_clip(clip, monkeypatch):
    monkeypatch.setattr(media, "MAX_CLIP_BYTES", 3000)
    assert "v1m/a" in only(read(clip), "left out", "clip too large")


@pytest.mark.parametrize("what", ["frame", "folder", "label", "sound"])
def test_links_that_lead_outside(clip, tmp_path, what):
    path = {"frame": clip.frames[1], "label": clip.labels[1][1], "sound": clip.sounds[0].path}.get(
        what, clip.frames[0].parent
    )
    moved = path.rename(tmp_path / "elsewhere")
    path.symlink_to(moved)
    message = only(read(clip), "left out", "link leads outside")
    assert str(path) in message and "elsewhere" in message
    assert read(clip, follow_links=True).findings == ()


def test_links_within_the_folder_are_followed(clip):
    moved = clip.frames[1].rename(clip.frames[1].parents[1] / "frame")
    clip.frames[1].symlink_to(moved)
    assert read(clip).findings == ()


def test_paths_that_climb_out(clip, tmp_path):
    outside = shutil.copy(clip.frames[0], tmp_path / "x.jpg")
    climbing = clip.frames[0].parent / ".." / ".." / Path(outside).name
    frames = (climbing, *clip.frames[1:])
    only(
        read_clip(change(clip, frames=frames), ReadOptions(), CLASSES, (tmp_path / "data",)),
        "left out",
        "link leads outside",
    )


def test_reading_imports_little():
    """It runs in many processes at once."""
    code = (
        "import sys, data_pipelines.preparing.read\n"
        "heavy = {'librosa', 'grain', 'tensorflow_datasets', 'tensorflow', 'jax', 'cv2', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
