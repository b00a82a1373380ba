"""What a person is told when data cannot be used: one line, without a traceback."""

from __future__ import annotations


class InputError(Exception):
    """Bad input. The message is one line: what was expected, what came, what to do; it names the file."""


class InputWarning(UserWarning):
    """Input that is used, but not as it stands; the message is one line that names the file."""
