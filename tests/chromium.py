"""The viewer's page in Chromium: what people see there, and what they do with mouse and keys."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from program import Program, command, environment

from scenes.demo import write_demo

SECONDS = 60.0
"""Of waiting for what has to come; only a failure takes so long."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
LARGE, SMALL = (1280, 720), (640, 380)
"""Windows; in the small one everything is made sooner."""
COMPLETE = re.compile(r"\d+ x \d+ in [0-9.]+ s|.*: full resolution")
"""What the line of text says when nothing finer follows."""
SENT = 60
"""Milliseconds."""
MOVING = "moving: the proxy"
BARE = ".mantine-Notifications-root { visibility: hidden }"
"""Style of a page of which only the picture is wanted."""
STATUS = """() => {
    const tabs = document.querySelector("[role=tablist]");
    const lines = tabs ? [...document.querySelectorAll("p")].filter(p => p.compareDocumentPosition(tabs) & 4) : [];
    return lines.length ? lines.pop().innerText : "";
}"""
"""The text before the tabs."""
SEEN = 12
"""Of 255: a colour that differs so much is another one, whatever JPEG did to it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; where there is none, what needs it is skipped."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no Chromium, in which the viewer's page is looked at; get it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


# The program ----------------------------------------------------------------------------------------------------------


@dataclass
class Served:
    """`fieldfit` with a viewer, in a process of its own, without a terminal or a display."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    url: str = ""

    @property
    def port(self) -> int:
        return int(self.url.split(":")[-1].split("/")[0])

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)

    def said(self) -> str:
        """All that was printed."""
        return self.out.read_text() + self.err.read_text()


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator[Served]:
    """`fieldfit` with these arguments, which open a viewer that listens; it has ended when this has, whatever
    happens."""
    surroundings = environment() | {"OMP_NUM_THREADS": "2", "XDG_CACHE_HOME": str(folder / "cache")}
    surroundings.pop("DISPLAY", None)
    n = len(list(folder.glob("*.viewer.out")))
    out, err = (folder / f"{n}.viewer.{name}" for name in ("out", "err"))
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = subprocess.Popen(
            command(*arguments), cwd=folder, env=surroundings, stdin=subprocess.DEVNULL, stdout=to_out, stderr=to_err
        )
    served = Served(process, out, err)

    def listens() -> bool:
        found = re.search(r"^open (\S+)$", out.read_text(), re.MULTILINE)
        served.url = found[1] if found else ""
        assert found or process.poll() is None, served.said()
        return bool(served.url)

    try:
        wait_until(listens, "the viewer listens")
        yield served
    finally:
        process.kill()
        process.wait(SECONDS)


def fit_toy(fieldfit: Program, folder: Path) -> Path:
    """`folder` with the run runs/toy, of a toy photographed all around; made by whoever needs it first."""
    if not folder.exists():
        write_demo(folder / "toy", size=100, n_train=24)
        done = fieldfit(folder, "fit", "toy", "--steps", "300")
        assert done.code == 0, done.stderr
    return folder


@contextmanager
def serving(folder: Path, *arguments: object) -> Iterator[Served]:
    """The same until the end, where Ctrl-C ends a viewer without complaint."""
    with started(folder, *arguments) as served:
        try:
            yield served
        finally:
            code = served.interrupt()
        assert (code, served.err.read_text()) == (0, "\nended\n"), served.said()


def wait_until(
    holds: Callable[[], object],
    what: str,
    pause: Callable[[], object] = lambda: time.sleep(0.05),
    seen: Callable[[], str] = str,
) -> None:
    """Return as soon as it holds; fail where it does not, and say what is `seen` by then."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"after {SECONDS:g} s still not so: {what} {seen()}"
        pause()


# The page -------------------------------------------------------------------------------------------------------------


class Look:
    """Somebody who looks at the page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(1000 * SECONDS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(url)
        page.locator("canvas").first.wait_for()

    # What is seen.

    @property
    def status(self) -> str:
        """The line of text about the picture; empty while there is none."""
        return self.page.evaluate(STATUS)

    def picture(self) -> np.ndarray:
        """[H, W, 3] bytes of the part of the page that is not the panel."""
        width, height = self.canvas
        png = self.page.screenshot(style=BARE, clip={"x": 0, "y": 0, "width": width, "height": height})
        return np.asarray(Image.open(BytesIO(png)).convert("RGB"))

    def panel(self) -> str:
        """Something about the panel that is another one when it was made anew."""
        return self.page.locator("label[for]:visible").first.get_attribute("for") or ""

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height of that."""
        box = self.page.locator("canvas").first.bounding_box()
        assert box is not None
        return round(box["width"]), round(box["height"])

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Return as soon as it holds."""
        wait_until(holds, what, lambda: self.page.wait_for_timeout(30), lambda: f"({self.status})")

    def still(self, unlike: np.ndarray) -> np.ndarray:
        """The picture when it does not change any more, and is another one than before."""
        last = [self.picture()]

        def done() -> bool:
            before, now = last[0], self.picture()
            last[0] = now
            return np.array_equal(before, now) and changed(now, unlike) > 0

        self.until(done, "another picture than before")
        return last[0]

    def settled(self, unlike: np.ndarray | None = None) -> np.ndarray:
        """The picture when nothing finer follows; another one than `unlike`."""
        last: list[np.ndarray] = [np.zeros(())]

        def done() -> bool:
            if COMPLETE.fullmatch(self.status) is None:
                return False
            before, now = last[0], self.picture()
            last[0] = now
            return np.array_equal(before, now) and (unlike is None or changed(now, unlike) > 0)

        self.until(done, f"a complete picture{'' if unlike is None else ', another one than before'}")
        return last[0]

    def sees(self, text: str | re.Pattern[str]) -> str:
        """Wait for a text on the page."""
        found = self.page.get_by_text(text).first
        found.wait_for()
        return found.inner_text()

    # What is done. After a value is chosen it waits: viser sends the last one that changes within 50 ms, of all inputs.

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def unfold(self, name: str) -> None:
        self.page.get_by_text(name, exact=True).locator("visible=true").click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def row(self, label: str) -> Locator:
        """What stands beside a label."""
        beside = self.page.locator("label", has_text=re.compile(f"^{re.escape(label)}$")).locator("visible=true")
        return beside.locator("xpath=ancestor::div[contains(@class, 'mantine-Flex-root')][1]")

    def control(self, label: str) -> Locator:
        """The checkbox or text there."""
        return self.row(label).locator("input:not([type=hidden])").first

    def tick(self, label: str, *, on: bool = True) -> None:
        self.control(label).set_checked(on)
        self.page.wait_for_timeout(SENT)

    def write(self, label: str, text: object) -> None:
        """Into a field, and leave it."""
        self.control(label).fill(str(text))
        self.control(label).press("Enter")
        self.page.wait_for_timeout(SENT)

    def options(self, label: str) -> list[str]:
        """Of a dropdown."""
        self.control(label).click()
        options = self.page.get_by_role("option").locator("visible=true")
        options.first.wait_for()
        found = options.all_inner_texts()
        self.page.keyboard.press("Escape")
        return found

    def choose(self, label: str, option: str) -> None:
        self.control(label).click()
        self.page.get_by_role("option", name=option, exact=True).locator("visible=true").click()
        self.page.wait_for_timeout(SENT)

    def slide(self, label: str, share: float, thumb: int = 0) -> None:
        """Drag a thumb of a slider to a place, as a share of its length."""
        row = self.row(label)
        row.scroll_into_view_if_needed()
        track = row.locator(".mantine-Slider-trackContainer, .multi-slider-track-container").bounding_box()
        grip = row.locator(".mantine-Slider-thumb, .multi-slider-thumb").nth(thumb).bounding_box()
        assert track is not None and grip is not None
        y = grip["y"] + grip["height"] / 2
        self.page.mouse.move(grip["x"] + grip["width"] / 2, y)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + share * track["width"], y, steps=4)
        self.page.mouse.up()
        self.page.wait_for_timeout(SENT)

    def turn(self, right: float = 200, down: float = 0, until: Callable[[], object] | None = None) -> None:
        """Drag over the picture by so many pixels, and go on to and fro until something holds."""
        width, height = self.canvas
        x, y = width / 2, height / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y + down, steps=10)
        if until is not None:
            place = iter(range(10**6))

            def move_on() -> None:
                self.page.mouse.move(x + right + 40 * np.sin(next(place) / 8), y + down)

            wait_until(until, "what movement brings", move_on)
        self.page.mouse.up()

    def download(self, button: str) -> Path:
        """The file that a button brings."""
        with self.page.expect_download() as coming:
            self.press(button)
        path = coming.value.path()
        return path.rename(path.with_name(coming.value.suggested_filename))


@contextmanager
def looking(browser: Browser, url: str, size: tuple[int, int] = SMALL) -> Iterator[Look]:
    """A window of the browser, closed at the end; the page had no errors by then."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
    try:
        look = Look(context.new_page(), url)
        yield look
        assert look.errors == []
    finally:
        context.close()


# Pictures -------------------------------------------------------------------------------------------------------------


def changed(a: np.ndarray, b: np.ndarray) -> float:
    """The share of pixels that are visibly different; 0 where it is less than one in a thousand."""
    if a.shape != b.shape:
        return 1.0
    share = float((np.abs(a.astype(int) - b).max(-1) > SEEN).mean())
    return share if share > 1e-3 else 0.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of bytes, dB."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))
