"""The controls beside the picture, of one browser. What a run does not hold has no controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viewer.live.panels.exports import Exports
from viewer.live.panels.fit import FitPanel
from viewer.live.panels.paths import Paths
from viewer.live.panels.photographs import Photographs
from viewer.live.panels.sight import Sight

if TYPE_CHECKING:
    from viewer.live.session import Session
    from viewer.live.window import Window


class Panel:
    """All controls of one browser."""

    def __init__(self, window: Window, session: Session) -> None:
        self.window, self.session = window, session
        gui = session.client.gui
        session.status = gui.add_markdown("...")
        self._tabs = gui.add_tab_group()
        self.fit: FitPanel | None = None
        self.photographs: Photographs | None = None
        with self._tabs.add_tab("View"):
            self.sight = Sight(window, session)
        if window.subject.kind == "capture":
            with self._tabs.add_tab("Photographs"):
                self.photographs = Photographs(window, session)
        if window.subject.kind in ("capture", "mesh"):
            with self._tabs.add_tab("Path"):
                self.paths = Paths(window, session)
        with self._tabs.add_tab("Export"):
            self.exports = Exports(window, session)
        if window.fitting is not None:
            self.fitting_began()

    def scene_came(self) -> None:
        """The data are loaded, or cannot be."""
        if self.photographs is not None:
            self.photographs.scene_came()
        self.sight.scene_came()

    def fitting_began(self) -> None:
        """The run is being fitted."""
        if self.fit is None:
            with self._tabs.add_tab("Fit"):
                self.fit = FitPanel(self.window, self.session)
