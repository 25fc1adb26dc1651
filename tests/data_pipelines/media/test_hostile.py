"""Damaged files of every kind: a clip is read well or left out with a reason, and nothing else."""

import io
import json
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.facts import avsbench
from data_pipelines.media.labels import colours_to_ids
from data_pipelines.preparing.read import ReadOptions, read_clip
from data_pipelines.reading.raw import RawClip, Sound

SECONDS = 2
CLASSES = 5
KINDS = {"left out", "repaired", "noticed"}


def settled(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def picture(mode, file_format, **options):
    noise = np.random.default_rng(0).integers(0, 5, (24, 16, 3)).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 4000)
    elif mode == "label":
        image = Image.fromarray(avsbench.palette(256)[noise[..., 0]])
    elif mode == "ids":
        image = Image.fromarray(noise[..., 0])
    else:
        image = Image.fromarray(noise * 40).convert(mode)
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def recording(file_format, subtype, rate=8000, channels=2):
    time = np.arange(SECONDS * rate + rate // 4) / rate
    tones = [0.3 * np.sin(2 * np.pi * 300 * (c + 1) * time) for c in range(channels)]
    out = io.BytesIO()
    soundfile.write(out, np.stack(tones, 1), rate, format=file_format, subtype=subtype)
    return out.getvalue()


def film(container, video="mpeg4", sound="aac", rate=16000):
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        pictures = file.add_stream(video, rate=8)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        track = file.add_stream(sound, rate=rate, layout="mono")
        for i in range(8 * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * i, np.uint8))
            frame.pts, frame.time_base = i, Fraction(1, 8)
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        tone = 0.3 * np.sin(np.arange(SECONDS * rate + 4000) / 5)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(track.format, "mono", rate)
        for piece in resampler.resample(frame) + resampler.resample(None):
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return out.getvalue()


PICTURES = {
    "rgb.jpg": picture("RGB", "JPEG"),
    "progressive.jpg": picture("RGB", "JPEG", progressive=True),
    "cmyk.jpg": picture("CMYK", "JPEG"),
    "grey.jpg": picture("L", "JPEG"),
    "rgb.png": picture("RGB", "PNG"),
    "palette.png": picture("P", "PNG"),
    "grey16.png": picture("I;16", "PNG"),
    "alpha.png": picture("LA", "PNG"),
}
LABELS = {
    "colours": picture("label", "PNG"),
    "ids": picture("ids", "PNG"),
    "foreground": picture("1", "PNG"),
}
SOUNDS = {
    "pcm16.wav": recording("WAV", "PCM_16", 16000),
    "pcm24.wav": recording("WAV", "PCM_24"),
    "float.wav": recording("WAV", "FLOAT", channels=5),
    "adpcm.wav": recording("WAV", "MS_ADPCM"),
    "sound.flac": recording("FLAC", "PCM_16"),
    "sound.ogg": recording("OGG", "VORBIS"),
    "sound.opus": recording("OGG", "OPUS"),
    "sound.mp3": recording("MP3", "MPEG_LAYER_III"),
    "sound.aiff": recording("AIFF", "PCM_16"),
}
FILMS = {
    "film.mp4": film("mp4"),
    "film.webm": film("webm", "libvpx", "libopus", 48000),
    "film.mkv": film("matroska", "ffv1", "flac"),
    "film.avi": film("avi", "mpeg4", "mp2"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Whole files, each of which a test writes over."""
    return tmp_path_factory.mktemp("hostile")


def write(folder: Path, **damaged) -> RawClip:
    """A clip of whole files, but for `frame`, `label`, `sound` or `video`; read anew each time."""
    contents = {"frame": PICTURES["rgb.jpg"], "label": LABELS["colours"]}
    contents["sound"] = SOUNDS["pcm16.wav"]
    encoding, centred = damaged.pop("encoding", "colours"), damaged.pop("centred", False)
    if encoding != "colours":
        contents["label"] = LABELS[encoding]
    contents |= damaged
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return RawClip(
        subset="clips",
        uid="a",
        split="train",
        seconds=SECONDS,
        frames=() if "video" in contents else (folder / "frame",) * SECONDS,
        labels=((0, folder / "label"),) if "video" not in contents else (),
        sounds=(Sound(folder / ("video" if "video" in contents else "sound")),),
        label_encoding=encoding,
        video=folder / "video" if "video" in contents else None,
        centred=centred,
    )


def check(clip: RawClip, root: Path, **options):
    """Reads the clip and sees that what comes out is as promised."""
    result = read_clip(clip, ReadOptions(**options), CLASSES, (root,))
    assert (result.example is None) == any(f.kind == "left out" for f in result.findings)
    for finding in result.findings:
        assert finding.kind in KINDS and finding.clip == "clips/a"
        assert 1 <= len(finding.code.split()) <= 5
        assert str(root) in finding.message or "clips/a" in finding.message
        assert finding.message.isprintable()
    if result.example is None:
        return result
    example = result.example
    samples, channels = example["waveform"].shape
    assert 15600 <= samples <= SECONDS * 16000 and example["waveform"].dtype == np.int16
    assert channels in (1, 1 + options.get("stereo", False))
    assert len(example["frames"]) == SECONDS and example["labelled"].shape == (SECONDS,)
    for encoded in example["frames"]:
        image = Image.open(io.BytesIO(encoded))
        assert image.mode == "RGB" and image.format in ("JPEG", "PNG")
        image.load()
    for encoded in example["labels"]:
        ids = colours_to_ids(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))
        assert ids.max() < CLASSES
    json.dumps(result.facts)
    return result


@st.composite
def damaged(draw, files: dict[str, bytes]):
    """One of the files, with parts overwritten, cut out, repeated, taken from another, or lost."""
    names = sorted(files)
    data = bytearray(files[draw(st.sampled_from(names))])
    # Headers matter most, so half of the places are there.
    place = st.one_of(st.integers(0, min(len(data), 120)), st.integers(0, len(data)))
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.sampled_from(("flip", "overwrite", "cut", "repeat", "splice", "end")))
        at = min(draw(place), max(0, len(data) - 1))
        if what == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "overwrite":
            new = draw(st.one_of(st.binary(max_size=8), st.sampled_from(_NUMBERS)))
            data[at : at + len(new)] = new
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif what == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        elif what == "splice":
            other = files[draw(st.sampled_from(names))]
            data[at:] = other[draw(st.integers(0, len(other))) :]
        else:
            del data[at:]
    return bytes(data)


_NUMBERS = [
    struct.pack(order + kind, value)
    for order in "<>"
    for kind, values in (("I", (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1)), ("H", (0, 2**16 - 1)))
    for value in values
]


@given(frame=damaged(PICTURES), size=st.sampled_from((None, 8)))
@settled(100)
def test_frames(folder, frame, size):
    check(write(folder, frame=frame), folder, size=size)


@given(data=st.data(), encoding=st.sampled_from(("colours", "ids", "foreground")))
@settled(100)
def test_labels(folder, data, encoding):
    files = {**LABELS, "16.png": PICTURES["grey16.png"], "p.png": PICTURES["palette.png"]}
    check(write(folder, label=data.draw(damaged(files)), encoding=encoding), folder)


@given(sound=damaged(SOUNDS), stereo=st.booleans(), centred=st.booleans())
@settled(120)
def test_sounds(folder, sound, stereo, centred):
    check(write(folder, sound=sound, centred=centred), folder, stereo=stereo)


@given(video=damaged(FILMS))
@settled(80)
def test_films(folder, video):
    check(write(folder, video=video), folder)


@given(data=st.one_of(st.binary(max_size=300), st.sampled_from(_NUMBERS)), start=st.data())
@settled(80)
def test_bytes_after_any_beginning(folder, data, start):
    magics = [
        m[:n] for m in (*PICTURES.values(), *SOUNDS.values(), *FILMS.values()) for n in (4, 16)
    ]
    data = (
        start.draw(st.sampled_from([b"", b"#EXTM3U\n", b"ffconcat version 1.0\n", *magics])) + data
    )
    check(write(folder, frame=data), folder)
    check(write(folder, label=data), folder)
    check(write(folder, sound=data), folder)
    check(write(folder, video=data), folder)


@given(
    tag=st.sampled_from((1, 2, 3, 6, 7, 17, 0x55, 0xFFFE, 0x1234)),
    channels=st.one_of(st.integers(0, 6), st.just(65535)),
    rate=st.sampled_from((0, 1, 999, 1000, 8000, 16000, 44100, 768000, 768001, 2**31, 2**32 - 1)),
    byte_rate=st.sampled_from((0, 32000, 2**32 - 1)),
    align=st.integers(0, 24),
    bits=st.sampled_from((0, 1, 8, 12, 16, 24, 32, 64, 65535)),
    size=st.sampled_from((0, 1, 4000, 8000, 2**31, 2**32 - 1)),
    body=st.sampled_from((b"", bytes(8000), b"\xff\x7f" * 20000, b"\0\0\xc0\x7f" * 10000)),
)
@settled(100)
def test_headers_of_wav(folder, tag, channels, rate, byte_rate, align, bits, size, body):
    header = struct.pack("<HHIIHH", tag, channels, rate, byte_rate, align, bits)
    sound = b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + header
    check(
        write(folder, sound=sound + b"data" + struct.pack("<I", size) + body), folder, stereo=True
    )


def test_nothing_reaches_stderr(folder, capfd):
    """Neither Pillow's warnings nor what the libraries in C print."""
    rng = np.random.default_rng(1)
    for what, files in (("frame", PICTURES), ("sound", SOUNDS), ("video", FILMS)):
        for data in files.values():
            for _ in range(3):
                broken = bytearray(data)
                for at in rng.integers(0, len(broken), 20):
                    broken[at] = rng.integers(256)
                check(write(folder, **{what: bytes(broken)}), folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "contents",
    [{"frame": data} for data in PICTURES.values()]
    + [{"sound": data} for data in SOUNDS.values()]
    + [{"video": data} for data in FILMS.values()]
    + [{"encoding": encoding} for encoding in LABELS],
)
def test_whole_files_are_read(folder, contents):
    """What the others damage is read when it is whole."""
    assert check(write(folder, **contents), folder, stereo=True).example is not None
