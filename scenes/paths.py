"""Files that a JSON names: found the way people write them, and never outside of the JSON's own folder by surprise."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scenes.errors import InputError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp")
ALLOW = "or allow it with --allow-outside if you trust this file"


class Folder:
    """The folder of a JSON, as a place to look up the names that it holds.

    A name is relative and may be written with back-slashes, a leading `./`, another case than the file's, or without
    its extension. It must not leave the folder through `..`, an absolute path or a symbolic link, unless
    `allow_outside`.
    """

    def __init__(self, path: Path, *, allow_outside: bool = False) -> None:
        self.path = path
        self.allow_outside = allow_outside
        self._root = os.path.realpath(path)
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str, where: str, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> Path:
        """The file that `name` means. Raises InputError, which begins with `where`, if there is none."""
        found = self.look_for(name, where, suffixes)
        if found is None:
            raise InputError(f"{where}: there is no file {name!r} in {self.path}; check the name, or remove the frame")
        return found

    def look_for(self, name: str, where: str, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> Path | None:
        """The same, or None if there is no such file; a name that leaves the folder raises InputError all the same."""
        written = name.replace("\\", "/")
        if not written.strip("./ ") or any(c < " " or "\ud800" <= c <= "\udfff" for c in written):
            raise InputError(f"{where}: expected the name of a file, got {name[:80]!r}")
        absolute = written.startswith("/") or re.match(r"[A-Za-z]:", written) is not None
        if absolute and not self.allow_outside:
            raise InputError(f"{where}: {name!r} is an absolute path; write it relative to the file, {ALLOW}")
        start = "/" if written.startswith("/") else str(self.path)
        parts = [part for part in written.split("/") if part not in ("", ".")]
        self._refuse_outside(os.path.normpath(os.path.join(start, *parts)), name, where)
        found = self._walk(start, parts, suffixes)
        if found is None:
            return None
        self._refuse_outside(os.path.realpath(found), name, where)
        return Path(found)

    def name_of(self, file: Path) -> str:
        """How results name a file: relative to the folder where it lies inside."""
        return file.relative_to(self.path).as_posix() if file.is_relative_to(self.path) else file.as_posix()

    def _refuse_outside(self, target: str, name: str, where: str) -> None:
        real = os.path.realpath(target)
        if not self.allow_outside and os.path.commonpath((real, self._root)) != self._root:
            raise InputError(f"{where}: {name!r} leaves the folder {self.path}; move the file inside, {ALLOW}")

    def _walk(self, start: str, parts: list[str], suffixes: tuple[str, ...]) -> str | None:
        folder, last = start, parts[-1]
        exact = os.path.join(start, *parts)
        if os.path.isfile(exact):
            return os.path.normpath(exact)
        for part in parts[:-1]:
            step = os.path.join(folder, part)
            if part != ".." and not os.path.isdir(step):
                if (entry := self._list(folder).get(part.lower())) is None:
                    return None
                step = os.path.join(folder, entry)
            folder = step
        names = self._list(folder)
        for candidate in (last, *(last + suffix for suffix in suffixes)):
            if (entry := names.get(candidate.lower())) and os.path.isfile(found := os.path.join(folder, entry)):
                return os.path.normpath(found)
        return None

    def _list(self, folder: str) -> dict[str, str]:
        """Lower-case name to name."""
        if folder not in self._listings:
            try:
                entries = sorted(os.listdir(folder))
            except OSError:
                entries = []
            self._listings[folder] = {entry.lower(): entry for entry in entries}
        return self._listings[folder]
