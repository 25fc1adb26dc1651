import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from aavs_jax.errors import UserError
from aavs_jax.report import presentation
from aavs_jax.report.page import write_report
from aavs_jax.report.score_tables import format_table
from aavs_jax.scoring import metrics as aavs_metrics
from aavs_jax.scoring import one_pass
from data_pipelines import pages
from data_pipelines.pages import render

VOID = {"meta", "img"}
FRAME_OF_ALL = Path(pages.__file__).with_name("page.html")
# A second, 16 kHz, one channel, softly begun and ended.
TONE = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) * np.hanning(16000)
TONE = 0.5 * TONE[:, None].astype(np.float32)


class Page(HTMLParser):
    """Checks that tags are balanced and collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data + " "

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def row(stage, sound, metric, value, prior="none", split="test", clips=12, frames=60):
    return dict(
        stage=stage, split=split, sound=sound, prior=prior, protocol="stepping_stones",
        metric=metric, value=value, clips=clips, frames=frames,
    )  # fmt: skip


ROWS = [
    row("localise", "right", "J", 0.8125),
    row("localise", "right", "F", 0.9),
    row("localise", "other", "J", 0.25),
    row("localise", "silence", "J", 0.125),
    row("understand", "right", "mIoU", 0.75, "predicted"),
    row("understand", "right", "IoU/bell", 0.4375, "predicted"),
    row("understand", "right", "mIoU", 0.875, "true"),
]


def metrics():
    lines = []
    for phase, steps in (("a", 40), ("b", 80)):
        for step in range(0, steps + 1, 10):
            common = dict(stage="localise", phase=phase, step=step)
            lines.append(common | {"kind": "train", "loss": 50.0 / (step + 1), "loss/mask": 3.0})
            if step % 20 == 0:
                lines.append(common | {"kind": "val", "J": step / 100})
    return lines


def example(size=(24, 32), seconds=3, **more):
    image = np.full((*size, 3), 90, np.uint8)
    rows = [("frames", [image] * seconds), ("truth", [image])]
    return dict(title="v2 / clip", note="a note", rows=rows) | more


def write(tmp_path, **content):
    path = tmp_path / "report" / "index.html"
    write_report(path, **({"title": "A run"} | content))
    text = path.read_text("utf-8")
    return Page(text), text


def test_whole_page_holds_everything_and_loads_nothing(tmp_path):
    page, text = write(
        tmp_path,
        facts=[("command", "python -m aavs_jax.main"), ("duration", "8 min")],
        rows=ROWS,
        metrics=metrics(),
        examples=[example(sounds=[("its own sound", TONE)])],
        legend=[("bell", (128, 0, 64))],
        notes=["Stage two saw predicted masks."],
    )
    for words in (
        "python -m aavs_jax.main", "8 min", "0.812", "0.562", "0.750", "0.875", "stepping_stones",
        "12 clips", "60 frames", "another clip's sound", "true masks", "a note", "its own sound",
        "Stage two saw predicted masks.", "IoU / bell", "0.438", "best J 0.800 at step 120",
    ):  # fmt: skip
        assert words in page.text, words
    assert "rgb(128,0,64)" in text
    sources = [a["src"] for a in page.named("img")]
    assert len(sources) == 4 and all(s.startswith("data:image/png;base64,") for s in sources)
    text = re.sub(r"base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//\w|@import|<script|<link|src=\"(?!data:)|url\(", text)


@pytest.mark.parametrize("old", [False, True])
def test_sounds_of_an_example_can_be_heard(tmp_path, monkeypatch, old):
    """As MP3, or as WAV where libsndfile is too old to write that; the page's policy lets it."""
    if old:
        formats = {k: v for k, v in soundfile.available_formats().items() if k != "MP3"}
        monkeypatch.setattr(soundfile, "available_formats", lambda: formats)
    sides = np.concatenate([TONE, 0.5 * TONE], axis=1)
    sounds = [("its own sound", TONE), ("another clip's: v2/dog", sides)]
    page, text = write(tmp_path, examples=[example(sounds=sounds)])
    players = page.named("audio")
    assert [player["aria-label"] for player in players] == [label for label, _ in sounds]
    for player, (_, waveform) in zip(players, sounds, strict=True):
        head, _, content = player["src"].partition(",")
        assert head == f"data:audio/{'wav' if old else 'mpeg'};base64" and "controls" in player
        played, rate = soundfile.read(io.BytesIO(base64.b64decode(content)), always_2d=True)
        assert rate == 16000 and played.shape[1] == waveform.shape[1]
        played = played[: len(waveform)]
        assert np.abs(played - waveform[: len(played)]).max() < (1e-4 if old else 0.02)
        assert len(content) > 1.3 * 2 * waveform.size if old else len(content) < waveform.size
    assert "; media-src data:" in text


def test_only_a_page_that_has_sounds_may_play_them():
    assert "media-src" not in render(FRAME_OF_ALL, title="A page")


@pytest.mark.parametrize("evil", ['<b x="1">&', "\"><script>alert('x')</script>{{ 7 * 7 }}"])
def test_everything_given_is_escaped(tmp_path, evil):
    page, text = write(
        tmp_path,
        title=evil,
        facts=[(evil, evil)],
        rows=[row(evil, evil, evil, 0.5, evil, evil), row("s", "right", "J", 0.5, split=evil)],
        metrics=[
            {"stage": evil, "phase": phase + evil, "step": 1, "kind": kind, key: 1.0}
            for phase in "ab"
            for kind, key in (("val", evil), ("train", "loss/" + evil))
        ],
        examples=[example(title=evil, note=evil, sounds=[(evil, TONE)], rows=[(evil, [])])],
        legend=[(evil, (0, 0, 0))],
        notes=[evil],
    )
    assert not page.named("b") and not page.named("script") and evil not in text
    assert page.text.count(evil) > 12


def test_names_that_no_file_or_terminal_can_show_become_escapes(tmp_path):
    odd = "clip\x1b[31m\udcff\u202e"  # a colour code, a byte that is no UTF-8, right to left
    page, text = write(tmp_path, facts=[("data", odd)], examples=[example(title=odd)])
    assert page.text.count(r"clip\x1b[31m\udcff\u202e") == 2
    assert "\x1b" not in text and "\u202e" not in text


def test_a_run_that_only_just_began_has_its_ticks_inside_the_frame(tmp_path):
    metrics = [dict(stage="s", phase="p", step=0, kind="val", J=0.5)]
    _, text = write(tmp_path, metrics=metrics)
    (chart,) = (ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S))
    width = float(chart.get("viewBox").split()[2])
    places = [float(element.get("x", 0)) for element in chart.iter("text")]
    assert len(places) > 5 and 0 <= min(places) <= max(places) <= width


def test_charts_are_well_formed_and_lie_inside_their_frame(tmp_path):
    lines = metrics()
    assert lines[3]["kind"] == "train"
    lines[3]["loss"] = float("nan")
    _, text = write(tmp_path, metrics=lines)
    charts = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.S)]
    assert len(charts) == 2
    for chart in charts:
        _, _, width, height = map(float, chart.get("viewBox").split())
        for path in chart.iter("path"):
            assert "nan" not in path.get("d")
            for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.get("d")):
                assert 0 <= float(x) <= width and 0 <= float(y) <= height
        names = [element.text for element in chart.iter("text")]
        assert {"a", "b", "optimiser step"} <= set(names)


def test_phases_follow_each_other_and_replayed_steps_count_once(tmp_path):
    lines = metrics() + [dict(stage="localise", phase="b", step=80, kind="val", J=0.5)]
    page, text = write(tmp_path, metrics=lines)
    assert text.count("<circle") == (3 + 5) + 1  # phase a, phase b, the ring
    assert "best J 0.600 at step 100" in page.text  # 60 of phase b, after the 40 of phase a


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"rows": ROWS[:2]},
        {"rows": [row("understand", "right", "mIoU", None), row("u", "right", "F", float("nan"))]},
        {"rows": [row("localise", "right", "J", 0.0), row("localise", "other", "J", float("nan"))]},
        {"metrics": [dict(stage="s", phase="p", step=0, kind="train", loss=float("nan"))]},
        {"metrics": [dict(stage="s", phase="p", step=0, kind="val", J=0.0)]},
        {"metrics": [dict(stage="s", phase="p", step=3, kind="train", learning_rate=1e-3)]},
        {"examples": [dict(title="t", note="", rows=[])]},
    ],
)
def test_page_stands_with_parts_missing(tmp_path, content):
    page, text = write(tmp_path, **content)
    assert "A run" in page.text
    assert ("Results" in page.text) == ("rows" in content)
    assert ("Examples" in page.text) == ("examples" in content)
    assert "{{" not in text and "{%" not in text and "None" not in page.text


def test_headline_prefers_the_test_split(tmp_path):
    rows = [row("localise", "right", "J", 0.25, split="val"), row("localise", "right", "J", 0.5)]
    _, text = write(tmp_path, rows=rows)
    assert re.findall(r'class="value">([^<]+)', text) == ["0.500"]
    _, text = write(tmp_path, rows=rows[:1])
    assert re.findall(r'class="value">([^<]+)', text) == ["0.250"]
    # Who only writes masks of training clips is beside the point.
    writer = row("localise_earlier", "right", "J", 0.75, split="train")
    _, text = write(tmp_path, rows=[*rows, writer])
    assert re.findall(r'class="value">([^<]+)', text) == ["0.500"]


def test_several_protocols_stand_side_by_side_and_the_first_is_the_headline(tmp_path):
    rows = [
        row("localise", sound, metric, value) | {"protocol": protocol}
        for protocol, shift in (("stepping_stones", 0.0), ("cavp", 0.25))
        for sound, metric, value in (
            ("right", "J", 0.5 + shift),
            ("silence", "J", 0.125 + shift),
            *([("right", "FDR", 0.0625)] if protocol == "cavp" else []),
        )
    ]
    page, text = write(tmp_path, rows=rows)
    assert re.findall(r'class="value">([^<]+)', text) == ["0.500"]
    assert "Localise, by every protocol" in page.text
    first = text[text.index("by every protocol") : text.index("<details>")]
    assert re.findall(r'scope="row">([^<]+)', first) == ["stepping_stones", "cavp"]
    assert "0.500" in first and "0.750" in first and "0.062" in first and "0.125" not in first
    assert text.count("<details>") == 2
    assert format_table(rows).count("protocol") == 2
    one = [found for found in rows if found["protocol"] == "cavp"]
    page, _ = write(tmp_path, rows=one)
    assert "by every protocol" not in page.text and "protocol cavp" in page.text


def test_masks_as_given_have_headlines_too(tmp_path):
    rows = [row("localise", "given", "J", 0.5), row("understand", "given", "mIoU", 0.25)]
    page, text = write(tmp_path, rows=rows)
    assert re.findall(r'class="value">([^<]+)', text) == ["0.500", "0.250"]
    assert "Localise: J, masks as given" in page.text


@pytest.mark.parametrize("task", ["binary", "semantic"])
def test_figures_that_are_not_defined(tmp_path, task):
    """No frame with a label: some figures are means of nothing, and JSON has no NaN."""
    state = aavs_metrics.init(task, tuple(aavs_metrics.PROTOCOLS), num_classes=3, clips=1)
    empty = np.zeros((1, 2, 8, 8), np.uint8)
    maps = {name: empty.astype(np.float32) for name in ("stepping_stones", "softmax")}
    state = aavs_metrics.update(
        state, empty, empty, np.zeros((1, 2), bool), np.zeros(1, np.int32),
        maps=maps if task == "binary" else {}, labels_nearest=empty,
    )  # fmt: skip
    labels = {"stage": "localise", "split": "test", "sound": "right", "prior": "none"}
    rows = one_pass.to_rows(aavs_metrics.result(state), task, ("background", "a", "b"), **labels)
    assert {found["protocol"] for found in rows} >= {"stepping_stones", "cavp"}
    assert any(found["value"] is None for found in rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    rows += [found | {"sound": "other"} for found in rows]
    assert " - " in format_table(rows)
    page, text = write(tmp_path, rows=rows)
    assert "Results" in page.text and "NaN" not in page.text


def test_notes_say_nothing_of_averages_that_no_stage_has():
    rows = [row("localise", "right", name, 0.5) for name in ("J", "F")]
    notes = presentation._notes(rows, {"binary"})
    assert "(binary stages)" in notes[0] and "(semantic stages)" not in notes[0]
    rows += [row("understand", "right", name, 0.5) for name in ("mIoU", "F")]
    notes = presentation._notes(rows, {"binary", "semantic"})
    assert "(binary stages)" in notes[0] and "(semantic stages)" in notes[0]


def test_notes_speak_of_scores():
    rows = [
        row("localise", sound, "J", 0.5, "predicted") | {"protocol": protocol}
        for protocol in aavs_metrics.PROTOCOLS
        for sound in ("right", "other", "given")
    ]
    notes = presentation._notes(rows, {"binary"})
    assert presentation.LISTENING in notes and len(notes) == len(aavs_metrics.PROTOCOLS) + 4
    assert not any("figure" in note for note in notes)


def test_small_pictures_are_exact_and_large_ones_shrunk(tmp_path):
    page, _ = write(tmp_path, examples=[example(), example((360, 640), 1)])

    def decode(attributes):
        data = base64.b64decode(attributes["src"].split(",")[1])
        return np.array(Image.open(io.BytesIO(data)))

    images = page.named("img")
    np.testing.assert_array_equal(decode(images[0]), np.full((24, 32, 3), 90))
    assert decode(images[-1]).shape == (144, 256, 3)
    assert (images[-1]["width"], images[-1]["height"]) == ("256", "144")


def test_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(UserError, match="cannot write .*index.html"):
        write(tmp_path)
