"""Browsers that only speak: they come, say where they look, and read what they are sent."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

WINDOW = (1280, 720)


def visit(port: int, messages: int = 1, pause: float = 0.0) -> None:
    """A browser that says where it looks, reads a little and goes."""
    import msgspec
    import viser
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    origin, protocol = Origin(f"http://127.0.0.1:{port}"), Subprotocol(f"viser-v{viser.__version__}")
    with connect(
        f"ws://127.0.0.1:{port}/", origin=origin, subprotocols=[protocol], compression=None, max_size=None, proxy=None
    ) as browser:
        reader = threading.Thread(target=drain, args=(browser,), daemon=True)
        reader.start()
        for i in range(messages):
            angle = 0.02 * i
            view = {
                "type": "ViewerCameraMessage",
                "wxyz": [0.5**0.5, -(0.5**0.5), 0, 0],
                "position": [2 * math.sin(angle), -2 * math.cos(angle), 0.0],
                "fov": 0.8,
                "near": 0.01,
                "far": 1000,
                "image_height": WINDOW[1],
                "image_width": WINDOW[0],
                "look_at": [0, 0, 0],
                "up_direction": [0, 0, 1],
            }
            browser.send(msgspec.msgpack.encode(view))
            time.sleep(pause)
        if messages == 1:
            time.sleep(0.03)


def drain(browser: Any) -> None:
    """Read until the end."""
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            browser.recv()
    except ConnectionClosed:
        return
