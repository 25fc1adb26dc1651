"""A part of a clip, written: all that is in the folder counts from the right moment."""

import json
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from aavs_jax.prediction import KINDS, clip_folder, films, sources
from aavs_jax.prediction.clip_folder import Asked, write_clip
from aavs_jax.prediction.stream import Span
from data_pipelines.media.sound_files import read_sound

RATE, START, LASTS, CLICK = 8, 1.0, 2.0, 2.5


@pytest.fixture(scope="module", params=["film.mp4", "film.mkv"])
def clip(request, tmp_path_factory):
    """Four seconds of coloured blocks, and one click; Matroska does not say how long it is."""
    path = tmp_path_factory.mktemp("clip") / request.param
    random = np.random.default_rng(0)
    sound = 0.08 * random.normal(size=(1, 64000)).astype(np.float32)
    sound[:, round(16000 * CLICK) :][:, :200] = 0.8
    with av.open(str(path), "w") as file:
        pictures = file.add_stream("libx264", rate=RATE)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream("aac", rate=16000, layout="mono")
        for _ in range(4 * RATE):
            blocks = random.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            frame = blocks.repeat(8, axis=0).repeat(8, axis=1)
            file.mux(pictures.encode(av.VideoFrame.from_ndarray(frame)))
        heard = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
        heard.sample_rate, heard.pts, heard.time_base = 16000, 0, Fraction(1, 16000)
        for stream, frame in ((pictures, None), (track, heard), (track, None)):
            file.mux(stream.encode(frame))
    return sources.find([str(path)])[0]


def test_a_part_counts_from_its_beginning(marking_tiny_run, clip, tmp_path, monkeypatch):
    network, pages, marks = marking_tiny_run, [], []
    span = Span(2, START, LASTS)
    mark, write_page = films.Mark, clip_folder.write_page
    monkeypatch.setattr(films, "Mark", lambda *given: marks.append(given) or mark(*given))
    monkeypatch.setattr(
        clip_folder, "write_page", lambda path, page: pages.append(page) or write_page(path, page)
    )
    summary = write_clip(network, clip, tmp_path / "out", Asked(span, KINDS))
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written == {"written_by": "aavs_jax.predict", **summary} and summary["masks"] == 4
    moments = (np.arange(4) + 15 / 16) / 2
    np.testing.assert_allclose(summary["seconds"], START + moments)
    np.testing.assert_allclose([seconds for seconds, _ in marks], moments)
    (page,) = pages
    np.testing.assert_allclose([seconds for seconds, *_ in page.marks], moments)
    np.testing.assert_allclose([seconds for seconds, *_ in page.comparison], moments)
    assert page.duration == pytest.approx(LASTS, abs=0.05)
    assert np.argmax(page.peaks) == pytest.approx(50 * (CLICK - START), abs=3)

    options = dict(fps=2, start=START, duration=LASTS)
    seen = list(network.stream(clip.path, **options))
    silent = list(network.stream(clip.path, silence=True, **options))
    rows = list(zip(page.comparison, seen, silent, strict=True))
    for (_, _, sound, silence), heard, unheard in rows:
        np.testing.assert_array_equal(sound, heard.grid)
        np.testing.assert_array_equal(silence, unheard.grid)
    assert any((row[0][2] != row[0][3]).any() for row in rows)

    with av.open(str(tmp_path / "out" / "overlay.mp4")) as film:
        times = [frame.time for frame in film.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(LASTS * RATE) / RATE, atol=1e-4)
    overlay = read_sound(tmp_path / "out" / "overlay.mp4")
    loud = np.flatnonzero(np.abs(overlay.samples[:, 0]) > 0.5) / overlay.rate
    assert loud[0] == pytest.approx(CLICK - START, abs=0.03)
    assert len(overlay.samples) / overlay.rate == pytest.approx(LASTS, abs=0.1)


def test_what_is_said_of_a_sound_that_is_not_there_all_the_time():
    def notes(begins, ends, heard="a.wav"):
        opened = SimpleNamespace(heard=heard, sound=SimpleNamespace(begins=begins, ends=ends))
        return clip_folder._sound_notes(opened, 10.0)

    assert notes(0.1, 9.9) == notes(0.0, None) == []
    assert notes(1.5, 4.0) == [
        "The sound begins 1.5 s late: until then silence was heard.",
        "The sound ends after 4.0 s: from then on silence was heard.",
    ]
    assert notes(None, 0.0) == ["There is no sound in this part: what was heard is silence."]
    assert notes(None, None, heard=None) == ["Nothing was heard: silence was asked for."]
