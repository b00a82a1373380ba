"""viser's page, made lighter for machines without a GPU.

There the browser draws in software, and edges that are smoothed over four samples of every pixel take about as long as
all the rest of a picture. So the page asks for none where it sees that a program draws.
"""

from __future__ import annotations

import gzip

SOFTWARE = "swiftshader|llvmpipe|softpipe|software|basic render"
SCRIPT = f"""<script>(() => {{
  const test = document.createElement("canvas").getContext("webgl2");
  const info = test && test.getExtension("WEBGL_debug_renderer_info");
  const name = info ? String(test.getParameter(info.UNMASKED_RENDERER_WEBGL)) : "";
  if (test) {{ const lose = test.getExtension("WEBGL_lose_context"); if (lose) lose.loseContext(); }}
  if (!/{SOFTWARE}/i.test(name)) return;
  const usual = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, how) {{
    return usual.call(this, kind, /^webgl/.test(kind) ? Object.assign({{}}, how, {{ antialias: false }}) : how);
  }};
}})();</script>"""


def lighter(body: bytes, *, zipped: bool) -> bytes:
    """The HTML of the page with the script in front of all others; anything else as it is."""
    text = gzip.decompress(body) if zipped else body
    head, found, rest = text.partition(b"<head>")
    if not found:
        return body
    changed = head + found + SCRIPT.encode() + rest
    return gzip.compress(changed, compresslevel=1) if zipped else changed
