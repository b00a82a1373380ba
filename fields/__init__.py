"""Neural fields: what a signal becomes. Names load when they are first used, so that importing this costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fields.export import export_mesh
    from fields.field import Field, RadianceField, build
    from fields.fitting import FitConfig, Step, fit
    from fields.presets import Config, preset
    from fields.rendering.render import predictor, render_view
    from fields.run import Run

_HOMES = {
    "Config": "fields.presets",
    "Field": "fields.field",
    "FitConfig": "fields.fitting",
    "RadianceField": "fields.field",
    "Run": "fields.run",
    "Step": "fields.fitting",
    "build": "fields.field",
    "export_mesh": "fields.export",
    "fit": "fields.fitting",
    "predictor": "fields.rendering.render",
    "preset": "fields.presets",
    "render_view": "fields.rendering.render",
}

__all__ = [
    "Config",
    "Field",
    "FitConfig",
    "RadianceField",
    "Run",
    "Step",
    "build",
    "export_mesh",
    "fit",
    "predictor",
    "preset",
    "render_view",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fields' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
