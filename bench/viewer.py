"""The viewer in a real browser: how soon it shows something, how smoothly it moves, what it costs a fit.

    python bench/viewer.py RUN [--only page proxies memory fit] [--repeat 5] [--software]

RUN is a run of a capture. Needs Chromium, which draws in software where there is no GPU, or with --software anyway, and
`pip install -e '.[dev]'` for Playwright. Times are medians over the repeats, in a window of 1280 x 720.

- page: from opening to the first picture; from the first event of a drag to the proxy, or without one to the next
  picture of the field; from its end to the full resolution; pictures a second while dragging.
- proxies: the mesh with colours at its vertices, and Gaussian splats at those, against the field from the same camera.
- memory: what the server keeps after 1,000 browsers came and went.
- fit: steps a second with nobody looking, with a browser open, and while somebody drags, over those without a viewer.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from report import Asked, console, machine
from visitors import WINDOW, visit

from fields.field import build, initialise
from fields.fitting import FitConfig, fit
from fields.presets import preset
from fields.run import Run
from scenes import load

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
STATUS = """() => { const tabs = document.querySelector("[role=tablist]");
  const lines = tabs ? [...document.querySelectorAll("p")].filter(p => p.compareDocumentPosition(tabs) & 4) : [];
  return lines.length ? lines.pop().innerText : ""; }"""
COUNT = """(() => { window.drawn = []; window.answers = []; window.answered = 0; let last = -1, moved = 0;
  const usual = WebGL2RenderingContext.prototype.drawElements;
  addEventListener("pointermove", event => { moved = moved || event.timeStamp; }, { capture: true });
  WebGL2RenderingContext.prototype.drawElements = function (...how) { const now = performance.now();
    if (now - last > 4) { window.drawn.push(now);
      const page = window.__viserMutable, proxy = page && page.nodeRefFromName["/proxy"];
      const field = page && page.backgroundMaterial.uniforms, from = window.moved;
      const shows = proxy && proxy.visible && !field.enabled.value;
      const other = window.picture && field.colorMap.value !== window.picture;
      if (from && (shows || other) && !window.answered) requestAnimationFrame(() => {
        window.answered = window.answered || performance.now() - from; });
      if (moved) requestAnimationFrame(() => { window.answers.push(performance.now() - moved); moved = 0; }); }
    last = now; return usual.apply(this, how); }; })()"""
"""Counts pictures, of which draws less than 4 ms apart belong to one; and how long after a movement of the mouse one
was drawn and the next could begin: any one, and the first that shows the proxy in place of the field's picture, or
another picture of the field than `window.picture`."""


@contextmanager
def served(run: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of `fieldfit view`, and its process."""
    command = [sys.executable, "-m", "fields.cli", "view", str(run), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parent.parent)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1], process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@contextmanager
def opened(software: bool) -> Iterator[Any]:
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        raise SystemExit("Chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", *(SOFTWARE if software else ())]
        browser = playwright.chromium.launch(executable_path=found[0], args=arguments)
        yield browser
        browser.close()


def page_of(browser: Any, url: str) -> tuple[Page, float]:
    """A page that was just opened, and when."""
    page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
    page.set_default_timeout(60_000)
    page.add_init_script(COUNT)
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    return page, started


def until(page: Page, condition: str) -> float:
    """Wait until the line about the picture fulfils a condition on `text`; when that was."""
    page.wait_for_function(f"() => {{ const text = ({STATUS})(); return {condition}; }}", polling="raf")
    return time.perf_counter()


FINISHED = "/ in [0-9.]+ s$/.test(text)"
ANYTHING = "text !== '' && text !== '...'"


def drag(page: Page, seconds: float) -> None:
    """Move the mouse with its button down, about 60 times a second."""
    started, i = time.perf_counter(), 0
    while (now := time.perf_counter()) - started < seconds:
        page.mouse.move(300 + (7 * i) % 400, 340 + (3 * i) % 60)
        i += 1
        time.sleep(max(started + i / 60 - now, 0))


def measure_page(browser: Any, url: str, proxy: bool) -> dict[str, float]:
    """One opening, one drag, one rest. Seconds, and pictures a second."""
    page, started = page_of(browser, url)
    found = {"first": until(page, ANYTHING) - started, "full": until(page, FINISHED) - started}
    time.sleep(1.0)
    if not proxy:
        page.get_by_label("Proxy while moving").uncheck(force=True)
    time.sleep(1.0)
    page.mouse.move(300, 340)
    page.mouse.down()
    if not proxy:
        page.evaluate("() => { window.picture = __viserMutable.backgroundMaterial.uniforms.colorMap.value; }")
    page.evaluate(
        "() => { window.drawn.length = window.answered = window.moved = 0; addEventListener('pointermove', event => "
        "{ window.moved = window.moved || event.timeStamp; }, { capture: true }); }"
    )
    page.mouse.move(330, 345)
    page.wait_for_function("() => window.answered", polling="raf")
    found["answer"] = page.evaluate("() => window.answered") / 1e3
    page.evaluate("() => { window.drawn.length = window.answers.length = 0; }")
    began = time.perf_counter()
    drag(page, 3.0)
    answers = page.evaluate("() => window.answers")
    found["while dragging"] = statistics.median(answers) / 1e3
    drawn, lasted = page.evaluate("() => window.drawn.length"), time.perf_counter() - began
    found["a second"] = drawn / lasted
    page.mouse.up()
    ended = time.perf_counter()
    found["rested"] = until(page, FINISHED) - ended
    page.close()
    return found


def pages(run: Path, software: bool, repeat: int) -> Iterator[str]:
    """Medians, with the proxy and without."""
    with served(run) as (url, _), opened(software) as browser:
        page, _ = page_of(browser, url)  # the proxy is made and the page compiled
        until(page, FINISHED)
        time.sleep(20 if not list((run / "viewer").glob("*.glb")) else 2)
        page.close()
        for proxy in (True, False):
            all_found = [measure_page(browser, url, proxy) for _ in range(repeat)]
            found = {name: statistics.median(one[name] for one in all_found) for name in all_found[0]}
            kind = "with the proxy" if proxy else "without it"
            for asked in page_figures(found, proxy):
                yield f"{kind}: {asked.line()}"


def page_figures(found: dict[str, float], proxy: bool) -> Iterator[Asked]:
    """What was asked for."""
    yield Asked("first picture after opening", found["first"], 2.0, "{:.2f} s", at_most=True)
    bound = 50 if proxy else 150
    yield Asked("answer to the first movement", 1e3 * found["answer"], bound, "{:.0f} ms", at_most=True)
    yield Asked("full resolution after rest", found["rested"], 2.5, "{:.2f} s", at_most=True)
    if proxy:
        yield Asked("answer while dragging", 1e3 * found["while dragging"], bound, "{:.0f} ms", at_most=True)
        yield Asked("pictures while dragging", found["a second"], 30, "{:.0f} a second")


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """In dB, of 8-bit pictures."""
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2))


def proxies(run: Path, software: bool) -> Iterator[str]:
    """What each kind of proxy looks like and how smoothly it moves."""
    from PIL import Image

    from viewer.live.window import Window
    from viewer.serving import Door

    opened_run = Run.open(run)
    window = Window(opened_run, opened_run.field(), Door(port=0))
    thread = threading.Thread(target=window.serve, args=(600.0,), daemon=True)
    thread.start()
    kinds = proxy_kinds(window)
    with opened(software) as browser:
        page, _ = page_of(browser, window.served.url)
        until(page, FINISHED)
        time.sleep(2.0)
        part: Any = {"x": 0, "y": 150, "width": 950, "height": 560}
        field = np.array(Image.open(io.BytesIO(page.screenshot(clip=part))).convert("RGB"))
        session = window.sessions[0]
        for name, make in kinds.items():
            started = time.perf_counter()
            node = make(session.client.scene)
            took = time.perf_counter() - started
            session.use_field = False
            session.client.scene.set_background_image(None)
            time.sleep(3.0)
            shown = np.array(Image.open(io.BytesIO(page.screenshot(clip=part))).convert("RGB"))
            page.mouse.move(400, 400)
            page.mouse.down()
            drag(page, 1.0)
            page.evaluate("() => { window.drawn.length = 0; }")
            began = time.perf_counter()
            drag(page, 3.0)
            rate = page.evaluate("() => window.drawn.length") / (time.perf_counter() - began)
            page.mouse.up()
            node.remove()
            page.get_by_role("button", name="Back to the first view").click()
            time.sleep(2.0)
            quality = f"{psnr(shown, field):.2f} dB of the field"
            yield f"{name}: {quality}, {rate:.0f} pictures a second, made in {took:.1f} s"
    window.close()


def proxy_kinds(window: Any) -> dict[str, Callable[[Any], Any]]:
    """Functions that add a proxy to a scene."""
    from viewer.live.proxies import MOST_TRIANGLES, RESOLUTION, proxy_glb, simplified

    subject, look = window.subject, window.first_look()

    def small() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mesh = subject.mesh(RESOLUTION, look)
        vertices, faces = simplified(np.asarray(mesh.vertices), np.asarray(mesh.faces), MOST_TRIANGLES)
        import trimesh

        normal = trimesh.Trimesh(vertices, faces, process=False).vertex_normals
        return subject.space.to_browser(vertices), faces, subject.surface_colours(vertices, normal, look)

    def coloured(api: Any) -> Any:
        data = proxy_glb(subject, look)
        assert data is not None
        return api.add_glb("/tried", data, cast_shadow=False, receive_shadow=False)

    def splats(api: Any) -> Any:
        import trimesh

        vertices, faces, colours = small()
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        normal = mesh.vertex_normals
        width = 0.5 * float(np.median(mesh.edges_unique_length))
        flat = np.eye(3) - 0.9 * normal[:, :, None] * normal[:, None, :]
        return api.add_gaussian_splats(
            "/tried",
            centers=vertices.astype(np.float32),
            covariances=(width**2 * flat).astype(np.float32),
            rgbs=colours.astype(np.float32),
            opacities=np.full((len(vertices), 1), 0.95, np.float32),
        )

    return {"mesh with colours at its vertices": coloured, "Gaussian splats at those": splats}


def memory(run: Path, n: int = 1000) -> Iterator[str]:
    """What the server grows by over n browsers that come and go, after fifty."""
    with served(run) as (url, process):
        port = int(url.rstrip("/").rpartition(":")[2])
        time.sleep(8)  # the proxy is there by then
        for _ in range(50):
            visit(port)
        time.sleep(6)  # what it tidies up later is no growth, and not to its credit either
        before = resident(process.pid)
        for _ in range(n):
            visit(port)
        time.sleep(6)
        grown = resident(process.pid) - before
    yield Asked(f"growth over {n} connects", grown / 1e6, 10, "{:.1f} MB", at_most=True).line()


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fits(run: Path, seconds: float, rounds: int) -> Iterator[str]:
    """Steps a second of the run's data in its preset, over those without a viewer; in turns, so that the machine's mood
    is the same for all."""
    from viewer.live.window import Window
    from viewer.serving import Door

    opened_run = Run.open(run)
    scene = load(Path(opened_run.data.path), options=opened_run.data.options)
    config = preset(scene)
    endless = FitConfig(**{**vars(config.fit), "minutes": None, "steps": 10**9})
    with tempfile.TemporaryDirectory() as folder:
        made = Run.create(Path(folder) / "run", config, scene.describe(), opened_run.data)
        field = build(config.field, scene.describe())
        initialise(field, 0)
        plain = fit(field, scene, endless)
        for _ in range(300):
            next(plain)
        window = Window(made, field, Door(port=0), scene=scene)
        followed = window.follow(plain)
        rates: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, steps, looking in (
                ("without a viewer", plain, 0),
                ("nobody looks", followed, 0),
                ("a browser rests", followed, 1),
                ("somebody drags", followed, 2),
            ):
                rates.setdefault(name, []).append(rate(steps, seconds, window.served.port, looking))
        window.close()
    usual = statistics.median(rates.pop("without a viewer"))
    bounds = {"nobody looks": 10, "a browser rests": 25, "somebody drags": 25}
    for name, found in rates.items():
        lost = 100 * (1 - statistics.median(found) / usual)
        yield Asked(f"{name}: speed lost", lost, bounds[name], "{:.1f} %", at_most=True).line()


def rate(steps: Iterator[Any], seconds: float, port: int, looking: int) -> float:
    """Steps a second while a browser rests (1) or moves 60 times a second (2)."""
    if looking:
        n, pause = (1, seconds + 2) if looking == 1 else (int(60 * (seconds + 2)), 1 / 60)
        threading.Thread(target=visit, args=(port, n, pause), daemon=True).start()
        end = time.perf_counter() + 1
        while time.perf_counter() < end:
            next(steps)
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(steps)
        n += 1
    found = n / (time.perf_counter() - started)
    if looking:
        time.sleep(2.0)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--only", nargs="+", choices=("page", "proxies", "memory", "fit"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--software", action="store_true")
    options = parser.parse_args(arguments)
    parts = {
        "page": lambda: pages(options.run, options.software, options.repeat),
        "proxies": lambda: proxies(options.run, options.software),
        "memory": lambda: memory(options.run),
        "fit": lambda: fits(options.run, 8.0, options.repeat),
    }
    out = console()
    out.print(machine(torch.get_num_threads()))
    for name in options.only or parts:
        for line in parts[name]():
            out.print(f"{name}: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
