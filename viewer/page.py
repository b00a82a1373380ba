"""viser's page, fitted to what it shows here.

- A picture has the window's resolution: viser would draw fewer pixels where drawing is slow, and a field's picture at
  rest would be blurred.
- Where a program draws, because there is no GPU, edges are not smoothed: that takes four samples of every pixel, as
  long as all the rest together. Nor is it warned of: no GPU is the usual case.
"""

from __future__ import annotations

import gzip

SOFTWARE = "swiftshader|llvmpipe|softpipe|software|basic render"
SCRIPT = f"""<script>(() => {{
  const ask = URLSearchParams.prototype.get;
  URLSearchParams.prototype.get = function (name) {{
    const value = ask.call(this, name);
    return value === null && name === "fixedDpr" ? String(window.devicePixelRatio) : value;
  }};
  const test = document.createElement("canvas").getContext("webgl2");
  const info = test && test.getExtension("WEBGL_debug_renderer_info");
  if (!info || !/{SOFTWARE}/i.test(String(test.getParameter(info.UNMASKED_RENDERER_WEBGL)))) return;
  const extension = WebGL2RenderingContext.prototype.getExtension;
  WebGL2RenderingContext.prototype.getExtension = function (name) {{
    return name === "WEBGL_debug_renderer_info" ? null : extension.call(this, name);
  }};
  const context = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, how) {{
    return context.call(this, kind, /^webgl/.test(kind) ? Object.assign({{}}, how, {{ antialias: false }}) : how);
  }};
}})();</script>"""


def fitted(body: bytes, *, zipped: bool) -> bytes:
    """The HTML of the page with the script in front of all others; anything else as it is."""
    text = gzip.decompress(body) if zipped else body
    head, found, rest = text.partition(b"<head>")
    if not found:
        return body
    changed = head + found + SCRIPT.encode() + rest
    return gzip.compress(changed, compresslevel=1) if zipped else changed
