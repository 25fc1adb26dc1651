"""Pictures, sounds and videos: what can be read is read exactly, and the limits hold."""

import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from data_pipelines import media
from data_pipelines.media import MediaError
from data_pipelines.media.sound_files import read_sound
from data_pipelines.media.video_files import video_frames

ROOT = Path(__file__).parents[3]


def blank_png(width, height, rows=0):
    """A grey PNG that says how large it is and holds some rows of zeros."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tones(channels, rate, seconds):
    time = np.arange(int(rate * seconds)) / rate
    return np.stack(
        [0.5 / c * np.sin(2 * np.pi * 200 * c * time) for c in range(1, channels + 1)], 1
    )


def write_film(path, *, video="mpeg4", sound=None, rate=16000, seconds=3, fps=16, samples=None):
    """Frames are grey: 60 * second + 3 * the frame's number within the second."""
    with av.open(str(path), "w") as file:
        pictures = file.add_stream(video, rate=fps, bit_rate=2_000_000)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream(sound, rate=rate, layout="mono") if sound else None
        for i in range(round(fps * seconds)):
            grey = np.full((48, 64, 3), 60 * (i // fps % 4) + 3 * (i % fps), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey)
            frame.pts, frame.time_base = i, Fraction(1, fps)
            file.mux(pictures.encode(frame))
        file.mux(pictures.encode(None))
        if sound:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(track.format, "mono", rate)
            for piece in resampler.resample(frame) + resampler.resample(None):
                file.mux(track.encode(piece))
            file.mux(track.encode(None))
    return path


# --- opening ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "frame missing: .*x$"),
        (lambda p: p.mkdir(), "frame unreadable: .*x is a folder, no file"),
        (os.mkfifo, "frame unreadable: .*x is a pipe, socket or device, no file"),
        (lambda p: p.symlink_to("/dev/zero"), "frame unreadable: .*x is a pipe, socket or device"),
        (lambda p: p.symlink_to(p), "frame unreadable: .*x .Too many levels"),
        (lambda p: p.write_bytes(b""), r"corrupt frame: .*x \(the file is empty\)"),
        (lambda p: p.write_bytes(b"GIF89a" + bytes(99)), "corrupt frame: .*no whole JPEG or PNG"),
    ],
)
def test_what_is_no_picture_file(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(MediaError, match=message):
        media.read_picture(tmp_path / "x", "frame")


def test_names_that_no_file_can_have():
    with pytest.raises(MediaError, match=r"frame unreadable: a\\x00b \(embedded null byte\)"):
        media.read_picture("a\0b", "frame")
    with pytest.raises(MediaError, match=r"frame missing: a\\nb\\x1b\\udcff$"):
        media.read_picture("a\nb\x1b\udcff", "frame")


def test_unreadable(tmp_path, monkeypatch):
    """The superuser may read everything, so the system's answer is put in its mouth."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").write_bytes(b"x")
    monkeypatch.setattr(media, "open", refuse, raising=False)
    with pytest.raises(MediaError, match=r"label unreadable: .*x \(Permission denied\)") as caught:
        media.read_picture(tmp_path / "x", "label")
    assert caught.value.code == "label unreadable"


# --- pictures -----------------------------------------------------------------------------------


def test_sizes_from_one_pixel_to_bombs(tmp_path, recwarn):
    (tmp_path / "one.png").write_bytes(blank_png(1, 1, 1))
    assert media.read_picture(tmp_path / "one.png", "frame")[1].size == (1, 1)
    for width, height in (
        (20_000, 20_000),
        (9_000, 8_000),
        (10_000, 9_500),
        (2**31 - 1, 2**31 - 1),
        (64_000_001, 1),
    ):
        (tmp_path / "bomb.png").write_bytes(blank_png(width, height))
        with pytest.raises(
            MediaError, match="frame too large: .*bomb.png.*64 megapixels"
        ) as caught:
            media.read_picture(tmp_path / "bomb.png", "frame")
        assert caught.value.code == "frame too large"
    assert [str(w.message) for w in recwarn] == []


def test_files_too_large_are_not_read(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(media.MAX_PICTURE_BYTES + 1)
    with pytest.raises(MediaError, match="frame too large: .*more than 128 MiB"):
        media.read_picture(tmp_path / "x.png", "frame")


def test_to_rgb_keeps_the_high_bits_and_the_colours(tmp_path):
    grey = np.arange(0, 2**16, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(grey).save(tmp_path / "16.png")
    encoded, image = media.read_picture(tmp_path / "16.png", "frame")
    assert media.bits_per_channel(encoded, image) == 16
    expected = np.repeat((grey >> 8)[..., None], 3, 2)
    np.testing.assert_array_equal(np.asarray(media.to_rgb(image)), expected)
    red = Image.new("RGB", (16, 16), (255, 0, 51))
    for mode, file_format in (("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")):
        red.convert(mode).save(tmp_path / "red", file_format, quality=95)
        _, image = media.read_picture(tmp_path / "red", "frame")
        assert image.mode == mode
        assert np.abs(np.asarray(media.to_rgb(image)).astype(int) - (255, 0, 51)).max() <= 4


def test_encoding_is_bare_and_the_same_each_time():
    image = Image.new("RGB", (64, 32), (1, 2, 3))
    image.info = {"comment": b"secret", "exif": b"Exif\0\0secret", "icc_profile": b"secret"}
    for size, lossless, found in ((None, True, "PNG"), (None, False, "JPEG"), (8, True, "JPEG")):
        encoded = media.encode_frame(image, size, lossless=lossless)
        assert encoded == media.encode_frame(image, size, lossless=lossless)
        assert b"secret" not in encoded
        again = Image.open(io.BytesIO(encoded))
        assert again.format == found and again.size == ((size, size) if size else (64, 32))


# --- sound --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 1 / 100),
        ("a.wav", "PCM_16", 1 / 2**14),
        ("a.wav", "PCM_24", 1 / 2**22),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "DOUBLE", 1e-6),
        ("a.wav", "ULAW", 0.03),
        ("a.flac", "PCM_24", 1 / 2**22),
        ("a.ogg", "VORBIS", 0.1),
        ("a.aiff", "PCM_16", 1 / 2**14),
        ("a.w64", "PCM_24", 1 / 2**22),
    ],
)
def test_formats_of_sound(tmp_path, name, subtype, tolerance):
    """Five channels; the name says nothing, the content does."""
    samples = tones(5, 22050, 3)
    soundfile.write(tmp_path / name, samples, 22050, subtype=subtype)
    (tmp_path / name).rename(tmp_path / "sound")
    excerpt = read_sound(tmp_path / "sound", start=1, seconds=1, sides=True)
    assert excerpt.rate == 22050 and excerpt.samples.dtype == np.float32
    expected = samples[22050:44100]
    np.testing.assert_allclose(excerpt.samples, expected[:, :2], atol=tolerance)
    mono = read_sound(tmp_path / "sound", start=1, seconds=1).samples
    np.testing.assert_allclose(mono, expected.mean(1, keepdims=True), atol=tolerance)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.mp4", "aac", 44100), ("a.webm", "libopus", 48000), ("a.mkv", "flac", 22050)],
)
@pytest.mark.parametrize("start", [0, 2])
def test_sound_tracks_are_where_they_were(tmp_path, name, codec, rate, start):
    """Noise, found again by correlation to the millisecond."""
    noise = np.random.default_rng(0).normal(0, 0.2, 5 * rate)
    noise = np.convolve(noise, np.ones(8) / 8, "same").astype(np.float32)
    video = "libvpx" if name == "a.webm" else "mpeg4"
    path = write_film(
        tmp_path / name, video=video, sound=codec, rate=rate, samples=noise, seconds=5
    )
    samples = read_sound(path, start=start, seconds=2).samples[:, 0]
    assert len(samples) == 2 * rate
    expected = noise[start * rate : (start + 2) * rate]
    spectrum = np.fft.rfft(samples, 4 * rate) * np.conj(np.fft.rfft(expected, 4 * rate))
    lag = int(np.fft.irfft(spectrum).argmax())
    assert min(lag, 4 * rate - lag) <= rate / 1000 + 1


def test_only_the_part_that_is_asked_for_is_read(tmp_path, monkeypatch):
    """Of two hours, three seconds; from the end and from the middle."""
    rate = 2000
    ramp = (np.arange(7200 * rate, dtype=np.int64) // rate).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", ramp, rate)
    counted = []
    read = soundfile.SoundFile.read

    def count(self, frames, **options):
        block = read(self, frames, **options)
        counted.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", count)
    last = read_sound(tmp_path / "long.wav", start=7198, seconds=6).samples[:, 0] * 32768
    assert len(last) == 2 * rate and set(last) == {7198, 7199}
    middle = read_sound(tmp_path / "long.wav", seconds=3, middle=True).samples[:, 0] * 32768
    assert len(middle) == 3 * rate and np.median(middle) == 3599.5
    assert sum(counted) < 200_000


@pytest.mark.parametrize(
    ("samples", "rate", "code"),
    [
        (np.zeros((0, 1)), 16000, "no samples"),
        (np.full((9, 1), np.nan), 16000, "samples no numbers"),
        (np.array([[0, 0, 0, np.inf]]), 16000, "samples no numbers"),
        (np.array([[3e38, 3e38]]), 16000, "samples no numbers"),
        (np.full((9, 1), 20000.0), 16000, "samples out of range"),
        (np.zeros((9, 65)), 16000, "sound out of limits"),
        (np.zeros((9, 1)), 999, "sound out of limits"),
        (np.zeros((9, 1)), 768_001, "sound out of limits"),
    ],
)
def test_sounds_that_are_refused(tmp_path, samples, rate, code):
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(MediaError, match=r"sound file .*a\.wav") as caught:
        read_sound(tmp_path / "a.wav")
    assert caught.value.code == code


def test_limits_of_sound_are_inclusive(tmp_path):
    for rate in media.RATES:
        soundfile.write(tmp_path / "a.wav", np.zeros((9, media.MAX_CHANNELS)), rate)
        assert read_sound(tmp_path / "a.wav").samples.shape == (9, 1)


def test_playlists_are_not_followed(tmp_path, monkeypatch):
    """FFmpeg would open what they name."""
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "secret.wav", np.zeros(16000), 16000)
    for text in (
        "#EXTM3U\n#EXTINF:1,\nsecret.wav\n",
        "ffconcat version 1.0\nfile secret.wav\n",
        f"file {tmp_path}/secret.wav\n",
    ):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(MediaError, match=r"cannot be read: .*list\.mp4"):
            read_sound(tmp_path / "list.mp4")


# --- video --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
def test_the_last_of_16_frames_of_each_second(tmp_path, name):
    path = write_film(tmp_path / name, video="libvpx" if name == "a.webm" else "mpeg4", seconds=3)
    for start in (0, 1):
        found = list(video_frames(path, start, 3 - start))
        assert [reached for _, reached in found] == [True] * (3 - start)
        for t, (image, _) in enumerate(found, start):
            assert image.mode == "RGB" and image.size == (64, 48)
            assert abs(np.asarray(image).mean() - (60 * t + 45)) < 1.5


def test_a_video_that_ends_early(tmp_path):
    path = write_film(tmp_path / "a.mp4", seconds=2.5)
    found = list(video_frames(path, 0, 3))
    assert [reached for _, reached in found] == [True, True, False]
    assert abs(np.asarray(found[-1][0]).mean() - 141) < 1.5  # the frame at 2.44 s
    assert len(list(video_frames(path, 0, 5))) == 2
    assert list(video_frames(path, 3600, 2)) == []


def test_a_video_that_lies_is_set_upright(tmp_path):
    """The display matrix of the track header, written in by hand: a quarter turn."""
    path = write_film(tmp_path / "a.mp4", seconds=1)
    data = path.read_bytes()
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:place] + turned + data[place + len(upright) :])
    [(image, _)] = video_frames(path, 0, 1)
    assert image.size == (48, 64)


def test_files_that_are_no_videos(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    with pytest.raises(MediaError, match=r"video cannot be read: .*a\.wav \(it has no picture"):
        list(video_frames(tmp_path / "a.wav", 0, 1))
    with pytest.raises(MediaError, match=r"sound file cannot be read: .*b\.mp4 \(it has no sound"):
        read_sound(write_film(tmp_path / "b.mp4"))


def test_decoding_stops_where_it_would_not_end(tmp_path, monkeypatch):
    path = write_film(tmp_path / "a.mp4", seconds=3)
    monkeypatch.setattr(media, "MAX_DECODED_FRAMES", 20)
    with pytest.raises(MediaError, match=r"video cannot be read: .*too deep in the stream"):
        list(video_frames(path, 0, 3))
    monkeypatch.setattr(media, "MAX_STREAM_BYTES", 100)
    with pytest.raises(MediaError, match="video cannot be read"):
        list(video_frames(path, 0, 1))


# --- memory -------------------------------------------------------------------------------------

LARGEST = {
    "colours": "Image.new('CMYK', (8000, 8000)).save(f, 'JPEG')",
    "16 bits": "Image.fromarray(np.arange(64_000_000, dtype=np.uint16).reshape(8000, 8000))"
    ".save(f, 'PNG', compress_level=1)",
    "bomb": "f.write(open(sys.argv[1], 'rb').read())",
    "video": "film(f)",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", LARGEST)
def test_memory_of_a_worker(what, tmp_path):
    """The file is made by one process, and read by another whose peak is looked at."""
    (tmp_path / "bomb").write_bytes(blank_png(20_000, 20_000, 20_000))
    make = f"""
        import sys, io, av
        import numpy as np
        from PIL import Image
        Image.MAX_IMAGE_PIXELS = None
        def film(f):
            with av.open(f, "w", format="matroska") as file:
                stream = file.add_stream("ffv1", rate=1)
                stream.width = stream.height = 8000
                stream.pix_fmt = "yuv420p"
                frame = av.VideoFrame(8000, 8000, "yuv420p")
                frame.pts = 0
                file.mux(stream.encode(frame))
                file.mux(stream.encode(None))
        with open(sys.argv[2], "wb") as f:
            {LARGEST[what]}
        """
    read = """
        import re, sys
        from pathlib import Path
        import soundfile
        from data_pipelines.reading.raw import RawClip, Sound
        from data_pipelines.preparing.read import ReadOptions, read_clip
        path, folder = Path(sys.argv[2]), Path(sys.argv[2]).parent
        soundfile.write(folder / "a.wav", [0.0] * 16000, 16000)
        film = {"frames": (), "video": path} if sys.argv[3] == "video" else {"frames": (path,)}
        clip = RawClip(subset="clips", uid="a", split="train", seconds=1, labels=(),
                       sounds=(Sound(folder / "a.wav"),), **film)
        result = read_clip(clip, ReadOptions(size=64), 2, (folder,))
        print(result.example is not None, [f.code for f in result.findings])
        # Not ru_maxrss, which begins with that of the process that started this one.
        print(re.search(r"VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1])
        """
    for code in (make, read):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), tmp_path / "bomb", tmp_path / "x", what],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
    verdict, peak = done.stdout.splitlines()
    assert (
        verdict
        == {
            "colours": "True ['frame converted']",
            "16 bits": "True ['frame converted']",
            "bomb": "False ['frame too large']",
            "video": "False ['video unreadable']",
        }[what]
    )
    assert int(peak) * 1024 < (media.PEAK_MEMORY if verdict.startswith("True") else 2**28)
