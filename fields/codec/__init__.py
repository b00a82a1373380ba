"""Pictures as files: a field of latents that a context network codes (docs/format.md)."""

from __future__ import annotations

from fields.codec.bitstream import BitstreamError
from fields.codec.fitting import Effort, Fit, Packed, Step, Target
from fields.codec.image_file import ImageHeader, read_image

__all__ = ["BitstreamError", "Effort", "Fit", "ImageHeader", "Packed", "Step", "Target", "read_image"]
