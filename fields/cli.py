"""The command line: `fieldfit COMMAND ...`. Imports nothing heavy, so that help and mistakes are answered at once."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn, TextIO

from scenes.errors import InputError, InputWarning

COMMANDS = {
    "fit": ("fit", "fit a field to an image, a mesh, a video or posed photographs"),
    "eval": ("evaluate", "measure a run on held-out data"),
    "render": ("render", "pictures or a video of a run"),
    "view": ("view", "look at a run in the browser"),
    "export": ("export", "a triangle mesh of a run, in your own coordinates"),
    "compress": ("compress", "a picture or film as a small file with checksums"),
    "decompress": ("decompress", "the picture or film of such a file"),
    "bench-codec": ("bench_codec", "that compression beside JPEG, WebP, AVIF, x264 and others on your own data"),
    "info": ("info", "what a run, or data that could be fitted, consists of"),
    "compare": ("compare", "fit several fields to the same data, and write a page that compares them"),
    "fields": ("fields", "the encodings and networks that fields are made of"),
    "doctor": ("doctor", "what this machine offers, and what is wrong with it"),
}

EXAMPLES = """examples:
  fieldfit fit demo                                 a capture that fieldfit makes itself, in under a minute
  fieldfit fit demo-dynamic                         the same in motion, photographed over time
  fieldfit fit photo.jpg --minutes 0.5              an image, half a minute of fitting
  fieldfit fit bunny.ply --out runs/bunny           a mesh
  fieldfit fit clip.mp4 --downscale 2               a video, as colours over (x, y, t)
  fieldfit fit lego/                                a folder with transforms.json and pictures
  fieldfit fit lego/ --resume --minutes 10          go on with the last run of that name
  fieldfit fit photo.jpg --encoding dense --fit.optimiser.table-rate 0.01
  fieldfit compare photo.jpg --fields ngp,siren,hash+glu --minutes 0.5
  fieldfit fit lego/ --view                         look at it in the browser while it is fitted
  fieldfit view runs/lego                           look at it afterwards
  fieldfit eval runs/lego --json
  fieldfit render runs/lego --out orbit.mp4
  fieldfit render runs/clip --out slow.mp4 --frames 480 --fps 30
  fieldfit compress photo.png photo.ff --bpp 0.5    a picture as a field in a small file
  fieldfit decompress photo.ff again.png
  fieldfit export runs/bunny bunny.glb --resolution 512
"""

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


class Terminated(BaseException):
    """SIGTERM came where nothing needs to be saved."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (by default the process's arguments) asks for; the result is the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    signal.signal(signal.SIGTERM, _raise_terminated)
    _show_warnings_as_lines(debug)
    try:
        return _dispatch(arguments)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except Terminated:
        return _say("terminated", TERMINATED)
    except BrokenPipeError:  # `fieldfit info ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001  the last resort: one line, or the traceback with --debug
        if debug:
            traceback.print_exc()
            return 1
        return _say(_explain(error), 1)


def help_text() -> str:
    """What `fieldfit --help` prints."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items())
    return (
        "usage: fieldfit COMMAND ...\n\nFit any signal to a neural field, on any machine.\n\n"
        f"commands (`fieldfit COMMAND --help` lists the options of one):\n{table}\n\n{EXAMPLES}\n"
        "options:\n  --version   print the version\n"
        "  --debug     show the traceback of an unexpected error, and all warnings"
    )


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    name, *rest = arguments
    if name == "--version":
        from importlib import metadata

        print(f"fieldfit {metadata.version('fieldfit')}")
        return 0
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        return _say(f"unknown command {name!r}; {hint}", 2)
    # Before OpenMP is loaded: threads that spin while they wait take the cores from whatever else runs there.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    module = importlib.import_module(f"fields.commands.{COMMANDS[name][0]}")
    from fields.commands.arguments import UsageError

    try:
        return module.run(rest)
    except UsageError as error:
        return _say(str(error), 2)


def _explain(error: Exception) -> str:
    """One line for whatever ended a command."""
    match error:
        case InputError():
            return str(error)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            return f"{error.filename or 'the disk'}: {error.strerror}; free some space"
        case PermissionError():
            return f"{error.filename}: {error.strerror}"
        case ImportError():
            return f"{error}; see `fieldfit doctor`"
        case MemoryError():
            return "not enough memory; try --downscale 2, or fewer samples a step"
        case _:
            first = (str(error).strip().splitlines() or [""])[0]
            return f"unexpected {type(error).__name__}: {first}; run it again with --debug to see where"


def _say(message: str, code: int) -> int:
    print(f"fieldfit: {' '.join(message.split())}", file=sys.stderr)
    return code


def _show_warnings_as_lines(debug: bool) -> None:
    """Warnings about input as one line each; those of libraries only with --debug."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, InputWarning):
            print(f"fieldfit: warning: {message}", file=sys.stderr)
        elif debug:
            usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    warnings.simplefilter("always", InputWarning)


def _raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
