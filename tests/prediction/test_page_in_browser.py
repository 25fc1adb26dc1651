"""The page of a clip in Chromium without a screen, told what to do over a pair of pipes."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time

import numpy as np
import pytest

from aavs_jax.prediction.page import PageContent, write_page
from aavs_jax.prediction.result import palette_of
from data_pipelines.media.film_writer import FilmWriter

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
PATIENCE = 60.0  # s for a page to do what it is asked


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed"),
]


class Page:
    """A page of a browser, by the DevTools protocol."""

    def __init__(self, requests, answers):
        self._requests, self._answers, self._count = requests, answers, 0
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.complaints = []  # what it wrote on its console, and was refused
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._requests.write(json.dumps(message).encode() + b"\0")
        self._requests.flush()
        while True:
            answer = json.loads(self._next())
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
            given = answer.get("params", {})
            logged = given.get("entry", {}).get("level") == "error"
            if logged or answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(given)

    def _next(self):
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return message

    def open(self, path, width=1200, height=1600, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def value(self, expression):
        """Of an expression in JavaScript; promises are waited for."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression, returnByValue=True, awaitPromise=True, userGesture=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not self.value(condition):
            assert time.monotonic() < end, f"waited for {condition}"
            time.sleep(0.05)

    def press(self, key, code=0, text=""):
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if kind == "keyDown" and text else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed,
            )  # fmt: skip

    def click(self, selector, across=0.5):
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            f"return [b.left + b.width * {across}, b.top + b.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path):
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextlib.contextmanager
def browser(folder):
    """A page of a browser that keeps what it keeps in `folder`."""
    to_it, requests = os.pipe()
    answers, from_it = os.pipe()
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--remote-debugging-pipe", "--no-first-run", "--disable-extensions", "--mute-audio",
        f"--user-data-dir={folder}",
    ]  # fmt: skip
    # It reads from descriptor 3 and writes to 4.
    shell = f'exec "$@" 3<&{to_it} 4>&{from_it}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command],
        pass_fds=(to_it, from_it),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_it)
    os.close(from_it)
    try:
        with open(requests, "wb") as write, open(answers, "rb") as read:
            yield Page(write, read)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


CLASSES = ("background", "dog", "guitar")
SECONDS = 10
# How many pixels of each colour, divided by 8, are painted over the film: what is half transparent
# comes back rounded.
PAINTED = """(() => {
  const canvas = document.getElementById("masks");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const found = {};
  for (let i = 0; i < data.length; i += 4) {
    const colour = Array.from(data.slice(i, i + 3)).map((v) => Math.round(v / 8)).join(",");
    if (data[i + 3]) found[colour] = (found[colour] || 0) + 1;
  }
  return found;
})()"""
# The colour in the middle of the film as it is shown.
SHOWN = """(() => {
  const canvas = document.createElement("canvas"), video = document.getElementById("film");
  canvas.width = canvas.height = 1;
  canvas.getContext("2d").drawImage(video, 100, 100, 1, 1, 0, 0, 1, 1);
  return Array.from(canvas.getContext("2d").getImageData(0, 0, 1, 1).data.slice(0, 3));
})()"""
TIME = "document.getElementById('film').currentTime"


def grid(*squares):
    found = np.zeros((32, 32), np.uint8)
    for class_id, left in squares:
        found[8:24, left : left + 8] = class_id
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page of ten seconds; in each the film has a colour of its own, and the dog moves on."""
    folder = tmp_path_factory.mktemp("page")
    with FilmWriter(folder / "film.mp4", 320, 180) as film:
        for n in range(10 * SECONDS):
            colour = (10 + 25 * (n // 10), 120, 220 - 20 * (n // 10))
            film.write(n / 10, np.full((180, 320, 3), colour, np.uint8))
        film.finish(SECONDS)
    marks = []
    for n in range(SECONDS):
        squares = [(1, 2 * n)] + [(2, 24)] * (n >= 5)
        found = [(class_id, 0.75, 0.125) for class_id, _ in squares]
        marks.append((n + 0.5, grid(*squares), found))
    content = PageContent(
        title="A walk with a dog",
        facts=[("input", "walk.mp4")],
        notes=[],
        classes=CLASSES,
        palette=palette_of(CLASSES),
        width=320,
        height=180,
        duration=float(SECONDS),
        marks=marks,
        peaks=np.abs(np.sin(np.arange(500) / 20)),
        film=folder / "film.mp4",
    )
    write_page(folder / "index.html", content)
    return folder / "index.html"


@pytest.fixture
def page(path, tmp_path):
    with browser(tmp_path) as page:
        page.open(path)
        page.wait("document.getElementById('film').readyState >= 2")
        yield page
        assert not page.complaints


def key_of(class_id):
    return ",".join(str(int(value / 8 + 0.5)) for value in palette_of(CLASSES)[class_id])


def test_it_plays_and_the_masks_go_with_it(page):
    dog, guitar = key_of(1), key_of(2)
    first = page.value(PAINTED)
    assert set(first) == {dog}
    assert first[dog] == pytest.approx(640 * 360 / 8, rel=0.02)  # a quarter wide, half as high
    assert page.value(SHOWN) == pytest.approx([10, 120, 220], abs=6)
    page.call("Runtime.evaluate", expression="document.getElementById('film').play()")
    page.wait(f"{TIME} > 1.2")
    page.value("document.getElementById('film').pause()")
    assert page.value(PAINTED) != first or page.value(TIME) < 1
    page.value("document.getElementById('film').currentTime = 7.25")
    page.wait("!document.getElementById('film').seeking")
    assert set(page.value(PAINTED)) == {dog, guitar}
    assert page.value(SHOWN) == pytest.approx([185, 120, 80], abs=6)


def test_a_class_is_switched_off_and_on(page):
    page.value("document.getElementById('film').currentTime = 7.25")
    page.wait("!document.getElementById('film').seeking")
    both = page.value(PAINTED)
    page.click("[data-class='1']")
    only = page.value(PAINTED)
    assert set(both) == {key_of(1), key_of(2)} and only == {key_of(2): both[key_of(2)]}
    page.value("document.querySelector('[data-class=\"1\"]').focus()")
    page.press(" ", 32, " ")
    assert page.value(PAINTED) == both


def test_keys_step_and_a_click_goes_to_its_moment(page):
    for key, code, expected in (
        ("ArrowRight", 39, 1.5), ("ArrowRight", 39, 2.5), ("ArrowLeft", 37, 1.5), ("End", 35, 9.5),
        ("ArrowRight", 39, 9.5), ("Home", 36, 0.5), ("ArrowLeft", 37, 0.5),
    ):  # fmt: skip
        page.press(key, code)
        assert page.value(TIME) == pytest.approx(expected, abs=0.01)
    page.click("#line", across=0.4)
    assert page.value(TIME) == pytest.approx(4.0, abs=0.05)
    assert page.value("document.getElementById('line').ariaValueNow") == "4.00"
    place = page.value("parseFloat(document.getElementById('head').style.left)")
    assert place == pytest.approx(40, abs=0.5)


def test_the_timeline_is_drawn(page):
    drawn = page.value(
        "Array.from(document.querySelectorAll('.timeline canvas')).map((c) => Array.from("
        "c.getContext('2d').getImageData(0, c.height - 3, c.width, 1).data)"
        ".filter((_, i) => i % 4 == 3).map((a) => a > 0))"
    )
    _, dog, guitar = (np.mean(lane) for lane in drawn)
    assert dog == 1 and guitar == pytest.approx(0.5, abs=0.01)
    wave = page.value(
        "(() => { const c = document.getElementById('wave'); return c.getContext('2d')"
        ".getImageData(0, c.height / 4, c.width, 1).data.filter((_, i) => i % 4 == 3)"
        ".reduce((n, a) => n + (a > 0), 0) / c.width; })()"
    )
    assert 0.3 < wave < 0.95
