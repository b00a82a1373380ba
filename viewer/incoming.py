"""What a browser may say to a viser server: the few messages that a viewer has a use for, and nothing else.

A message passes if it is one of `READERS`, and what goes on to viser is made anew from what was understood, so that
nothing rides along. What viser knows and a viewer has no use for (uploads, which viser would keep; a tunnel to the
internet; a notice that it would repeat to every browser from then on) is dropped, as is a value that the addressed
input cannot hold. A message that is malformed ends its connection. To let another message in, add its struct.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosedError
from websockets.frames import CloseCode
from websockets.typing import Data

LONGEST_TEXT = 10_000
"""Characters of a text field."""
FARTHEST = 1e9
"""World units."""
LARGEST_CANVAS = 16_384
"""Pixels of a side."""
LARGEST_NUMBER = 2.0**53
"""Up to here every integer is a float. Beyond 2^64 viser fails to send one on, for good and to every browser."""

Value = bool | int | float | str | list[float]
FindInput = Callable[[str], object]
"""The input of the panel that has an id; None if there is none."""


class Kind(msgspec.Struct):
    """Any message of viser."""

    type: str


class Camera(msgspec.Struct, tag_field="type", tag="ViewerCameraMessage"):
    """From where a browser looks: OpenCV axes, world units, radians, pixels."""

    wxyz: tuple[float, float, float, float]
    position: tuple[float, float, float]
    fov: float
    near: float
    far: float
    image_height: int
    image_width: int
    look_at: tuple[float, float, float]
    up_direction: tuple[float, float, float]

    def plausible(self) -> bool:
        """Whether pictures can be drawn for it: not for that of a page whose canvas is still empty."""
        return (
            all(abs(x) <= FARTHEST for x in (*self.position, *self.look_at))
            and abs(math.hypot(*self.wxyz) - 1) < 0.01
            and 0.01 < math.hypot(*self.up_direction) < 100
            and 0 < self.fov < math.pi
            and 0 < self.near < self.far < math.inf
            and 0 < self.image_width <= LARGEST_CANVAS
            and 0 < self.image_height <= LARGEST_CANVAS
        )


class Click(msgspec.Struct, tag_field="type", tag="SceneNodeClickMessage"):
    """Which thing of the scene a person clicked, and along which ray: world units, and shares of the canvas."""

    name: str
    instance_index: int | None
    ray_origin: tuple[float, float, float]
    ray_direction: tuple[float, float, float]
    screen_pos: tuple[float, float]
    modifier: str | None
    owner: str

    def plausible(self) -> bool:
        """Whether it is at a place."""
        place = (*self.ray_origin, *self.ray_direction, *self.screen_pos, self.instance_index or 0)
        return all(abs(x) <= FARTHEST for x in place)


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    """Nothing but the value of an input: not its limits, its label or whether it can be seen."""

    value: Value


class GuiUpdate(msgspec.Struct, tag_field="type", tag="GuiUpdateMessage"):
    """What a person chose on the panel."""

    uuid: str
    updates: Choice


KIND = msgspec.msgpack.Decoder(Kind)
READERS = {
    "ViewerCameraMessage": msgspec.msgpack.Decoder(Camera),
    "SceneNodeClickMessage": msgspec.msgpack.Decoder(Click),
    "GuiUpdateMessage": msgspec.msgpack.Decoder(GuiUpdate),
}


def unlike_viser(theirs: Mapping[str, Any]) -> list[str]:
    """Names of the messages here whose fields are not those of viser's own, which are given by name."""
    return [
        name
        for name, reader in READERS.items()
        if name not in theirs
        or {field.name for field in dataclasses.fields(theirs[name])} != set(reader.type.__struct_fields__)
    ]


def connection_type(find: FindInput) -> type[ServerConnection]:
    """Connections that receive only what passes."""

    class Connection(ServerConnection):
        async def recv(self, decode: bool | None = None) -> Data:  # pyright: ignore[reportIncompatibleMethodOverride]
            while True:
                raw = await super().recv(decode)
                try:
                    message = passed(raw, find)
                except (ValueError, RecursionError):
                    async with self.send_context():
                        self.protocol.fail(CloseCode.POLICY_VIOLATION, "malformed message")
                        self.transport.resume_reading()  # what is still on its way is thrown away
                    raise ConnectionClosedError(None, None) from None
                if message is not None:
                    return message

    return Connection


def passed(raw: Data, find: FindInput) -> bytes | None:
    """The message made anew; None if it is dropped. Raises ValueError or RecursionError if it is malformed."""
    if isinstance(raw, str):
        raise ValueError("expected a binary message, got text")
    reader = READERS.get(KIND.decode(raw).type)
    match None if reader is None else reader.decode(raw):
        case (Camera() | Click()) as message if message.plausible():
            return msgspec.msgpack.encode(message)
        case GuiUpdate(uuid, Choice(chosen)):
            value = fitted(find(uuid), chosen)
            return None if value is None else msgspec.msgpack.encode(GuiUpdate(uuid, Choice(value)))
        case _:
            return None


def fitted(handle: object, value: Value) -> Value | None:
    """The value as an input of the panel can hold it; None if it cannot. Those of a slider are brought within its ends,
    and ascend if there are several; a vector's are not."""
    import viser

    numbers = value if isinstance(value, list) else [] if isinstance(value, str) else [value]
    if not all(abs(x) <= LARGEST_NUMBER for x in numbers):
        return None
    match handle, value:
        case viser.GuiInputHandle(disabled=True) | viser.GuiButtonHandle(disabled=True), _:
            return None
        case viser.GuiCheckboxHandle() | viser.GuiButtonHandle(), bool():
            return value
        case viser.GuiDropdownHandle() | viser.GuiButtonGroupHandle(), str():
            return value if value in handle.options else None
        case viser.GuiTextHandle(), str():
            return value if len(value) <= LONGEST_TEXT else None
        case _, bool():
            return None
        case viser.GuiSliderHandle(), int() | float():
            return min(max(value, handle.min), handle.max)  # a browser rounds, beyond the ends too
        case viser.GuiMultiSliderHandle(value=now), list() if len(value) == len(now):
            return sorted(min(max(x, handle.min), handle.max) for x in value)
        case ((viser.GuiRgbHandle(value=now) | viser.GuiRgbaHandle(value=now)), list()) if len(value) == len(now):
            return [min(max(x, 0.0), 255.0) for x in value]
        case viser.GuiNumberHandle(min=low, max=high), int() | float():
            return value if (low is None or low <= value) and (high is None or value <= high) else None
        case ((viser.GuiVector2Handle(value=now) | viser.GuiVector3Handle(value=now)), list()) if len(value) == len(
            now
        ):
            return value
        case _:
            return None
