"""A browser as the viewer's server sees it: what viser's page asks for, and what it says."""

from __future__ import annotations

import http.client
import socket
import threading

import msgspec
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

PROTOCOL = f"viser-v{viser.__version__}"
SECONDS = 60
"""Of waiting for what has to come; only a failure takes so long."""
VIEW = {
    "type": "ViewerCameraMessage",
    "wxyz": [1, 0, 0, 0],
    "position": [0.5, 1, 2],
    "fov": 1.2,
    "near": 0.01,
    "far": 1000,
    "image_height": 720,
    "image_width": 1280,
    "look_at": [0, 0, 0],
    "up_direction": [0, 0, 1],
}
encode = msgspec.msgpack.encode


def get(served, path="/", *headers, host=None):
    """(status, headers, body) of a request with these headers; `host` may also be several, or none."""
    hosts = [f"127.0.0.1:{served.port}"] if host is None else host
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in [*[("Host", one) for one in hosts], *headers]:
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def cookie(served, token, port=None):
    return "Cookie", f"other=1; fieldfit-{port or served.port}={token}"


def join(served, *headers, name="127.0.0.1", origin="http://127.0.0.1:{}", protocol=PROTOCOL):
    """A WebSocket, as viser's page opens it."""
    options = {"additional_headers": headers, "subprotocols": [protocol], "compression": None, "max_size": None}
    sock = socket.create_connection(("127.0.0.1", served.port), timeout=SECONDS)
    origin = None if origin is None else Origin(origin.format(served.port))
    return connect(f"ws://{name}:{served.port}/", sock=sock, origin=origin, proxy=None, **options)


def received(browser):
    """The next messages of viser, which come packed together."""
    data = browser.recv(timeout=SECONDS)
    length, packed = (int.from_bytes(data[i : i + 8], "little") for i in (0, 8))
    return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + packed], length))["messages"]


def ended(browser):
    """The code with which the server closes the connection; what it sends until then is read."""
    try:
        while True:
            browser.recv(timeout=SECONDS)
    except ConnectionClosed as closed:
        return closed.rcvd and closed.rcvd.code


def flooded(browser, raw):
    """Whether the connection ended while this was sent, again and again."""
    try:
        for _ in range(1_000_000):
            browser.send(raw)
    except ConnectionClosed:
        return True
    return False


def is_welcome(served, *headers, after=(), **how):
    """Whether a well-behaved browser comes in, is told what there is, and is known once it has said where it looks;
    what it says `after` it came in is said before that."""
    known = threading.Event()

    @served.server.on_client_connect
    def greet(client):
        if client.camera.position.tolist() == VIEW["position"]:
            known.set()

    with join(served, *headers, **how) as browser:
        told = []
        while not told or told[-1]["type"] != "ReplayDoneMessage":
            told += received(browser)
        for message in (*after, VIEW):
            browser.send(encode(message))
        assert known.wait(SECONDS)
    served.server._client_connect_cb.remove(greet)
    return {"type": "SetGuiPanelLabelMessage", "label": "a fit"} in told
