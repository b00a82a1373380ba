"""The README's film of the viewer, taken from the page by what drives it in the tests.

python tests/viewer_pictures.py docs/pictures
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from chromium import LARGE, Look, chromium, looking, serving
from PIL import Image
from program import Program

WIDTH, FRAMES = 760, 24
"""Pixels of the animation, and how many pictures it has of each turn."""


def animation(look: Look) -> list[Image.Image]:
    """A turn of the proxy, the field at rest, and photographs held against it."""
    frames = [shot(look)] * 6
    width, height = look.canvas
    look.page.mouse.move(width / 2, height / 2)
    look.page.mouse.down()
    for i in range(FRAMES):
        look.page.mouse.move(width / 2 + 14 * i, height / 2 + 2 * i)
        look.page.wait_for_timeout(60)
        frames.append(shot(look))
    look.page.mouse.up()
    look.settled()
    frames += [shot(look)] * 8
    look.choose("Channel", "depth")
    look.settled()
    frames += [shot(look)] * 8
    look.choose("Channel", "colour")
    look.tab("Photographs")
    look.press("Look through this camera")
    look.sees("dB over")
    for share in (0.2, 0.35, 0.5, 0.65, 0.8, 0.5):
        look.slide("Wipe", share)
        look.page.wait_for_timeout(700)
        frames += [shot(look)] * 3
    return frames


def shot(look: Look) -> Image.Image:
    """The whole page."""
    return Image.open(io.BytesIO(look.page.screenshot())).convert("RGB")


def main() -> None:
    """Write viewer.webp into the folder that is named."""
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name, Program() as fieldfit, chromium() as browser:
        folder = Path(name)
        done = fieldfit(folder, "fit", "demo")
        assert done.code == 0, done.stderr
        with serving(folder, "view", "runs/demo", "--port", "0") as served, looking(browser, served.url, LARGE) as look:
            look.settled()
            look.page.wait_for_timeout(15_000)  # until the proxy is there
            frames = animation(look)
    small = [frame.resize((WIDTH, round(WIDTH * LARGE[1] / LARGE[0])), Image.Resampling.LANCZOS) for frame in frames]
    small[0].save(target / "viewer.webp", save_all=True, append_images=small[1:], duration=90, loop=0, quality=70)


if __name__ == "__main__":
    main()
