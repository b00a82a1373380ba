"""viser's page, fitted to what it shows here.

- A picture has the window's resolution: viser would draw fewer pixels where drawing is slow, and a field's picture at
  rest would be blurred.
- Where a program draws, because there is no GPU, edges are not smoothed: that takes four samples of every pixel, as
  long as all the rest together. Nor is it warned of: no GPU is the usual case.
- With the first movement of the camera the page shows the proxy by itself, where the session lets it; we would answer
  later. Where it then hears nothing of us, it takes it back.
- What a drag begins with says that the camera is where it was, and viser's page then waits before it says more, for as
  long as it takes to draw a picture. Such messages are left out, and the next one goes out at once.
"""

from __future__ import annotations

import gzip

PROXY, BY_ITSELF = "/proxy", "/proxy_by_itself"
"""Nodes of the scene: the proxy, and an empty one that is visible while the page may show it."""
TAKE_BACK = 3000
"""Milliseconds."""
PAUSE = 20
"""Milliseconds that viser's page leaves between two messages about its camera."""
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
}})();
(() => {{
  let control = null, speaks = null, silent = false;
  const later = window.setTimeout;
  window.setTimeout = function (call, after, ...what) {{
    if (!silent || after !== {PAUSE}) return later.call(window, call, after, ...what);
    silent = false;
    call();
    return 0;
  }};
  function listened(usual) {{
    let before = null;
    return message => {{
      if (message.type !== "ViewerCameraMessage") return usual(message);
      const now = Object.entries(message).filter(each => each[0] !== "type").flatMap(each => each[1]);
      silent = before !== null && now.every((x, i) => Math.abs(x - before[i]) <= 1e-6 * (1 + Math.abs(x)));
      if (silent) return;
      before = now;
      usual(message);
    }};
  }}
  function moved() {{
    const page = window.__viserMutable, nodes = window.__viserSceneTree && window.__viserSceneTree.getState();
    const proxy = nodes && nodes["{PROXY}"], may = nodes && nodes["{BY_ITSELF}"];
    const drawn = page && page.nodeRefFromName["{PROXY}"];
    if (!drawn || !proxy || !may || !may.visibility) return;
    const {{ enabled, colorMap }} = page.backgroundMaterial.uniforms;
    function show(yes) {{
      enabled.value = !yes;
      proxy.visibility = drawn.visible = yes;
      page.requestRender();
    }}
    if (!enabled.value || proxy.visibility) return;
    const picture = colorMap.value;
    show(true);
    setTimeout(() => {{ if (!enabled.value && picture && colorMap.value === picture) show(false); }}, {TAKE_BACK});
  }}
  setInterval(() => {{
    const now = window.__viserMutable && window.__viserMutable.cameraControl;
    if (now && now !== control) (control = now).addEventListener("update", moved);
    const page = window.__viserMutable;
    if (page && page.sendMessage && page.sendMessage !== speaks) page.sendMessage = speaks = listened(page.sendMessage);
  }}, 100);
}})();</script>"""


def fitted(body: bytes, *, zipped: bool) -> bytes:
    """The HTML of the page with the script in front of all others; anything else as it is."""
    text = gzip.decompress(body) if zipped else body
    head, found, rest = text.partition(b"<head>")
    if not found:
        return body
    changed = head + found + SCRIPT.encode() + rest
    return gzip.compress(changed, compresslevel=1) if zipped else changed
