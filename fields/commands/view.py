"""`fieldfit view`: an interactive view of a run in the browser."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from fields.commands.arguments import parse
from fields.commands.device import DeviceName, choose_device
from fields.run import Run
from scenes import load
from scenes.errors import InputError

if TYPE_CHECKING:
    from viewer.live.window import Window
    from viewer.serving import Door

DESCRIPTION = """Look at a run in the browser: drag to turn, scroll to come nearer, drag with the right button to move
along. The address is printed; Ctrl-C ends it."""


@dataclass(frozen=True)
class ServeOptions:
    """Where the viewer listens."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but 127.0.0.1 is for others too, and needs the token that is printed with it."""
    port: int = 8080
    """Port to listen on; 0 chooses a free one."""
    token: str | None = None
    """What a browser must know, 8 letters or more; by default a random one where one is needed."""

    def door(self) -> Door:
        """For the viewer."""
        from viewer.serving import Door

        return Door(self.host, self.port, self.token)


@dataclass(frozen=True)
class ViewOptions:
    """Options of `fieldfit view`."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A folder that `fieldfit fit` wrote."""
    serve: tyro.conf.OmitArgPrefixes[ServeOptions] = ServeOptions()
    """Where it listens."""
    device: DeviceName = "auto"
    """Where pictures are made."""
    no_data: bool = False
    """Do not load what was fitted: no photographs, originals and comparisons."""


def run(argv: Sequence[str]) -> int:
    """Returns 0 when Ctrl-C ends it."""
    options = parse(ViewOptions, argv, prog="fieldfit view", description=DESCRIPTION)
    device = choose_device(options.device)
    opened = Run.open(options.run)
    field = opened.field(device)
    from viewer.live.window import Window

    window = Window(opened, field, options.serve.door())
    try:
        announce(window)
        if options.no_data:
            window.without_scene = "--no-data was given, so the data were not loaded."
        else:
            threading.Thread(target=_load, args=(window,), daemon=True).start()
        keep_serving(window)
    finally:
        window.close()
    return 0


def announce(window: Window) -> None:
    """Print where the viewer is."""
    for line in window.served.lines():
        print(line, flush=True)


def keep_serving(window: Window) -> None:
    """Until Ctrl-C, or a signal to end."""
    print("Ctrl-C ends the viewer", flush=True)
    try:
        window.serve()
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr)


def _load(window: Window) -> None:
    """Load what was fitted, for as long as it takes."""
    data = window.run.data
    try:
        window.set_scene(load(Path(data.path), options=data.options))
    except InputError as error:
        window.without_scene = f"The data are not there: {error}"
        window.say_without_scene()
