"""A fit while it runs: curves, speed, pause and save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from viewer.live.panels.saying import tell

if TYPE_CHECKING:
    from viewer.live.session import Session
    from viewer.live.window import Window

BLUE, ORANGE = "#2669be", "#de6e14"


class FitPanel:
    """The tab; `refresh` is called about once a second while it runs."""

    def __init__(self, window: Window, session: Session) -> None:
        assert window.fitting is not None
        self.fitting, self.session = window.fitting, session
        gui = session.client.gui
        self.text = gui.add_markdown("")
        self.pause = gui.add_button("Pause")
        self.pause.on_click(lambda _: self._pause(window))
        gui.add_button("Save now").on_click(lambda _: self._save(window))
        seconds, loss, psnr = self.fitting.curves()
        axis: Any = {"label": "seconds of fitting"}
        self.psnr = gui.add_uplot(
            (seconds, psnr),
            ({"label": "seconds"}, {"label": "PSNR, dB", "stroke": BLUE, "width": 2}),
            scales={"x": {"time": False}},
            axes=(axis, {"label": "PSNR, dB"}),
            aspect=1.6,
        )
        self.loss = gui.add_uplot(
            (seconds, loss),
            ({"label": "seconds"}, {"label": "log10 of the loss", "stroke": ORANGE, "width": 2}),
            scales={"x": {"time": False}},
            axes=(axis, {"label": "log10 loss"}),
            aspect=1.6,
        )
        self.refresh()  # the last time, if the fit is over

    def refresh(self) -> None:
        """Show where the fit is by now."""
        fitting = self.fitting
        state = "paused" if fitting.paused else "fitting" if fitting.running else "done"
        rate = f"{fitting.rate / 1e6:.2f} M samples/s" if fitting.running and not fitting.paused else ""
        self.text.content = (
            f"**{state}** {fitting.progress:.0%}, step {fitting.index:,}, {fitting.seconds:.0f} s  \n{rate}"
        )
        seconds, loss, psnr = fitting.curves()
        self.psnr.data, self.loss.data = (seconds, psnr), (seconds, loss)
        if self.pause.label != self._pause_label:
            self.pause.label = self._pause_label
        if not fitting.running:
            self.pause.disabled = True

    @property
    def _pause_label(self) -> str:
        return "Resume" if self.fitting.paused else "Pause"

    def _pause(self, window: Window) -> None:
        self.fitting.paused = not self.fitting.paused
        self.pause.label = self._pause_label
        window.desk.wake()

    def _save(self, window: Window) -> None:
        self.fitting.save_asked = True
        window.desk.wake()
        tell(self.session, "Saving", "after the step under way")
