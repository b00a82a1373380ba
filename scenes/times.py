"""Times of photographs: brought into [0, 1], and views held out by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scenes.transforms import Frame


def in_unit(frames: Sequence[Frame]) -> tuple[list[Frame], tuple[float, float] | None]:
    """The frames with times in [0, 1], and the files' times that are 0 and 1 here; None where nothing has a time.

    Times that lie in [0, 1] stay as they are; others, such as seconds or numbers of frames, are spread over it.
    """
    times = [frame.time for frame in frames if frame.time is not None]
    if not times:
        return list(frames), None
    first, last = min(times), max(times)
    if first >= 0 and last <= 1:
        return list(frames), (0.0, 1.0)
    length = (last - first) or 1.0
    timed = [f if f.time is None else replace(f, time=min((f.time - first) / length, 1.0)) for f in frames]
    return timed, (first, last)


def held_out(frames: Sequence[Frame], every: int) -> tuple[list[int], list[int]]:
    """Indices of views to train on and of views held out; both in order.

    Of views with times all those of every n-th time are held out, beginning within the clip, so that each such time
    lies between others; of other views every n-th by name, beginning with the first.
    """
    order = sorted(range(len(frames)), key=lambda i: (frames[i].time or 0.0, frames[i].name))
    times = sorted({time for frame in frames if (time := frame.time) is not None})
    if every <= 0:
        return order, []
    if len(times) > 1:
        chosen = set(times[min(every, len(times)) // 2 :: every])
        test = [i for i in order if frames[i].time in chosen]
    else:
        test = order[::every]
    return [i for i in order if i not in set(test)], test
