"""The page of a clip: it holds everything, shows what was found, and runs nothing of others."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from aavs_jax.errors import UserError
from aavs_jax.prediction import page as pages
from aavs_jax.prediction.page import PageContent, percent, write_page
from aavs_jax.prediction.result import palette_of

CLASSES = ("background", "dog", "guitar")
VOID = {"meta", "img", "input"}
GRID = 16


class Page(HTMLParser):
    """Checks that tags are balanced, and collects attributes, text, and the texts of scripts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.scripts = [], [], "", []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def grid(class_id, top=4, rows=8):
    found = np.zeros((GRID, GRID), np.uint8)
    found[top : top + rows, 4:12] = class_id
    return found


def content(**changes):
    """Ten seconds, in which a dog is heard and then a guitar."""
    marks = []
    for n in range(20):
        class_id = 1 if n < 10 else 2
        share = float(np.mean(grid(class_id) > 0))
        marks.append((0.25 + n / 2, grid(class_id), [(class_id, 0.5 + n / 40, share)]))
    picture = np.full((90, 160, 3), 120, np.uint8)
    values = dict(
        title="A walk with a dog",
        facts=[("input", "walk.mp4"), ("command", "python -m aavs_jax.predict walk.mp4")],
        notes=["Of 250 frames each was looked at."],
        classes=CLASSES,
        palette=palette_of(CLASSES),
        width=320,
        height=180,
        duration=10.0,
        marks=marks,
        peaks=np.abs(np.sin(np.arange(500) / 20)),
        film=b"not decoded here",
        comparison=[(0.5, picture, grid(1), grid(1, rows=1)), (6.0, picture, grid(2), grid(0))],
    )
    return PageContent(**values | changes)


def write(folder, **changes):
    write_page(folder / "index.html", content(**changes))
    text = (folder / "index.html").read_text("utf-8")
    page = Page(text)
    return page, text, json.loads(page.scripts[0])


def test_everything_is_inside_and_nothing_is_loaded(tmp_path):
    page, text, data = write(tmp_path)
    for words in (
        "A walk with a dog", "walk.mp4", "python -m aavs_jax.predict", "dog", "guitar",
        "Of 250 frames each was looked at.", "up to 25%", "The same frames with silence",
        "0.50 s", "6.00 s", "25% marked", "3.1% marked", "marks nothing",
    ):  # fmt: skip
        assert words in page.text, words
    assert base64.b64decode(page.scripts[1]) == b"not decoded here"
    assert all(a["src"].startswith("data:image/") for a in page.named("img"))
    assert len(page.named("img")) == 4 and all(a["alt"] for a in page.named("img"))
    markup = re.sub(r"<script.*?</script>|data:image/[^\"]*", "", text, flags=re.S)
    assert not re.search(r"https?:|//\w|@import|<link|url\(", markup)
    assert data["duration"] == 10 and data["size"] == [640, 360] and data["grid"] == [GRID, GRID]


def test_only_its_own_script_may_run(tmp_path):
    page, _, _ = write(tmp_path)
    policy = page.named("meta")[2]["content"]
    allowed = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = base64.b64encode(hashlib.sha256(page.scripts[2].encode()).digest()).decode()
    assert allowed == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "media-src": "blob: data:",
        "script-src": f"'sha256-{digest}'",
    }
    assert len(page.scripts) == 3
    assert not any(name.startswith("on") for _, given in page.tags for name in given)


def test_masks_can_be_decoded(tmp_path):
    odd = np.random.default_rng(0).integers(0, 3, (5, 7)).astype(np.uint8)
    marks = [(0.5, odd, [(1, 0.5, 0.1234567)]), (1.5, np.zeros_like(odd), [])]
    _, _, data = write(tmp_path, marks=marks)
    assert data["grid"] == [5, 7] and data["times"] == [0.5, 1.5]
    for runs, (_, expected, _) in zip(data["runs"], marks, strict=True):
        decoded = np.repeat(runs[::2], runs[1::2]).reshape(expected.shape)
        np.testing.assert_array_equal(decoded, expected)
    assert data["found"] == [[[1, 0.5, 0.12346]], []]


def test_of_many_marks_some_are_kept_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_MARKS", 5)
    marks = [(float(n), grid(1), [(1, 0.5, 0.25)]) for n in range(9)]
    _, _, data = write(tmp_path, marks=marks)
    assert data["times"] == [0, 2, 4, 6, 8] and len(data["runs"]) == 5


def test_levels_of_a_long_sound_keep_their_peaks(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_PEAKS", 4)
    peaks = np.zeros(100, np.float32)
    peaks[[10, 30, 99]] = 0.5, 2.0, np.nan
    _, _, data = write(tmp_path, peaks=peaks)
    assert data["peaks"] == [500, 1000, 0, 0]


@pytest.mark.parametrize("size", [(0, 1), (3 * 2**16, 1), (3 * 2**16 + 1, 2), (10**6 + 2, 3)])
def test_films_of_any_length_are_embedded_to_the_byte(tmp_path, size):
    film = np.random.default_rng(size[1]).bytes(size[0])
    (tmp_path / "small.mp4").write_bytes(film)
    for given in (film, tmp_path / "small.mp4"):
        page, _, _ = write(tmp_path, film=given)
        assert base64.b64decode(page.scripts[1], validate=True) == film


@pytest.mark.parametrize(
    "evil",
    [
        "\"><script>alert('x')</script>{{ 7 * 7 }}",
        "</script><script>alert(1)</script>",
        "<!--<script>\u2028\u2029",
        'id="bytes">',
    ],
)
def test_names_cannot_break_out(tmp_path, evil):
    page, text, data = write(
        tmp_path,
        title=evil,
        classes=("background", evil, "guitar" + evil),
        facts=[(evil, evil)],
        notes=[evil],
    )
    assert len(page.scripts) == 3 and "alert" not in page.scripts[2]
    assert evil not in text.replace('<script type="text/plain" id="bytes">', "")
    shown = evil.replace("\u2028", r"\u2028").replace("\u2029", r"\u2029")
    assert page.text.count(shown) >= 6
    assert data["times"][0] == 0.25


@pytest.mark.parametrize(
    "changes",
    [
        {"marks": []},
        {"marks": [(0.5, np.zeros((GRID, GRID), np.uint8), [])]},
        {"comparison": ()},
        {"comparison": [(0.5, np.zeros((9, 7, 3), np.uint8), grid(1), None)]},
        {"peaks": np.zeros(0)},
        {"duration": 0.02},
        {"duration": 36000.0},
        {"facts": [], "notes": []},
    ],
)
def test_a_page_stands_with_parts_missing(tmp_path, changes):
    page, _, _ = write(tmp_path, **changes)
    assert "None" not in page.text and "nan" not in page.text.lower()
    compared = changes.get("comparison", [(None,) * 4])
    assert ("with silence" in page.text) == ("comparison" not in changes)
    assert ("Some of its frames" in page.text) == (
        len(compared) == 1 and compared[0][1] is not None
    )


@pytest.mark.parametrize(
    ("silence", "words"),
    [
        ([grid(0), grid(0)], "100% disappears in silence: it listens"),
        ([grid(1), grid(2)], "nothing disappears in silence: here it relies more on what it sees"),
        ([grid(2), grid(2)], "50% disappears in silence: it listens"),
        ([grid(1), None], "nothing disappears in silence"),
    ],
)
def test_it_says_whether_it_listens(tmp_path, silence, words):
    picture = np.zeros((18, 32, 3), np.uint8)
    rows = [(0.0, picture, grid(k), quiet) for k, quiet in zip((1, 2), silence, strict=True)]
    assert words in write(tmp_path, comparison=rows)[0].text
    rows = [(0.0, picture, grid(0), quiet) for quiet in silence]
    assert "marks nothing" in write(tmp_path, comparison=rows)[0].text


def test_shares_in_words():
    assert [percent(share) for share in (0, 1e-9, 0.0004, 0.0123, 0.0994, 0.0996, 0.5, 1)] == [
        "nothing", "0.1%", "0.1%", "1.2%", "9.9%", "10%", "50%", "100%",
    ]  # fmt: skip


def test_an_unwritable_place_is_one_sentence(tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(UserError, match="cannot write .*index.html"):
        write_page(tmp_path / "out" / "index.html", content())
