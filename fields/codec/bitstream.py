"""Files of the codec: a header, sections with checksums, and the SHA-256 of what they decode to. See docs/format.md.

Every length is checked before it is believed, and sizes are limited before memory is taken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

MAGIC = b"\x89FFC"
VERSION = 1
MAX_SECTION = 1 << 30
MAX_HEADER = 4096
GROUP = "G"


class BitstreamError(ValueError):
    """Data that are no file of the codec, or a damaged one; one line that says so."""


@dataclass(frozen=True)
class Container:
    """What a file consists of, its checksums checked."""

    header: bytes
    sections: Mapping[str, bytes]
    groups: tuple[bytes, ...] = ()
    """Of a film's frames: sections G, of which there may be many."""


def pack(container: Container) -> bytes:
    """The bytes of a file."""
    out = bytearray(MAGIC + bytes([VERSION]) + varint(len(container.header)) + container.header)
    out += struct.pack("<I", zlib.crc32(out))
    for tag, payload in [*container.sections.items(), *((GROUP, group) for group in container.groups)]:
        section = tag.encode("ascii") + varint(len(payload)) + payload
        out += section + struct.pack("<I", zlib.crc32(section))
    return bytes(out)


def unpack(data: bytes) -> Container:
    """The parts of a file. Raises BitstreamError."""
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError("is no file of `fieldfit compress`; it begins with other bytes")
    reader = Reader(data, len(MAGIC))
    version = reader.byte()
    if version != VERSION:
        raise BitstreamError(f"has format version {version}, and this fieldfit reads version {VERSION}; upgrade it")
    header = reader.take(reader.varint(MAX_HEADER))
    _check(reader, 0, "header")
    sections: dict[str, bytes] = {}
    groups: list[bytes] = []
    while not reader.at_end():
        start = reader.at
        tag = chr(reader.byte())
        if not (tag.isascii() and tag.isalpha()) or tag in sections:
            raise BitstreamError("is damaged: a section has no valid name; copy it again")
        payload = reader.take(reader.varint(MAX_SECTION))
        _check(reader, start, f"section {tag}")
        if tag == GROUP:
            groups.append(payload)
        else:
            sections[tag] = payload
    return Container(header, sections, tuple(groups))


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow (LEB128)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class Reader:
    """Takes bytes from the front. What is not there is a BitstreamError."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.at >= len(self.data)

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > len(self.data) - self.at:
            raise BitstreamError(f"is cut off after {len(self.data)} bytes; copy it again")
        self.at += n
        return self.data[self.at - n : self.at]

    def byte(self) -> int:
        """The next one."""
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        """A number of at most `most`, in its shortest form."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > most or (byte == 0 and shift > 0):
                    break
                return value
        raise BitstreamError("is damaged: a length is out of range; copy it again")


def _check(reader: Reader, start: int, name: str) -> None:
    expected = zlib.crc32(reader.data[start : reader.at])
    (stored,) = struct.unpack("<I", reader.take(4))
    if stored != expected:
        raise BitstreamError(f"is damaged: the checksum of its {name} does not match; copy it again")
