"""Pictures that commands write, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from fields.files import write_whole


def write_png(path: Path, picture: UInt8[np.ndarray, "H W C"]) -> None:
    """Write a picture under a temporary name until it is complete. Raises OSError."""
    from PIL import Image

    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    write_whole(path, lambda temporary: image.save(temporary, format="PNG"))
