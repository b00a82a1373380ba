"""The door through which browsers reach a viser server: who may come in.

By itself viser listens on every interface, moves to another port when its own is taken, answers any page of the web
that a browser has open, and shows itself to everyone who finds it. Behind the door:

- The socket is ours: only this machine reaches it unless told otherwise, and then only with a token.
- A request names this machine as its host, a WebSocket comes from our own page, and both carry the token if there is
  one: first in the address, from then on in a cookie.
- Our page connects to nothing but us, whatever its address says.
- Browsers say only what `viewer.incoming` lets pass.

viser starts its server within its constructor, so `websockets.asyncio.server.serve` is ours for that long. What this
takes for granted about viser is looked at, and an InputError says what is different.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import getpass
import hmac
import ipaddress
import logging
import re
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import rich
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from scenes.errors import InputError
from viewer.incoming import connection_type, unlike_viser
from viewer.page import fitted

if TYPE_CHECKING:
    import viser

LARGEST_MESSAGE = 2**20
"""Bytes that a browser may send at once; what passes has a few hundred."""
CLOSING = 2.0
"""Seconds that a browser has to say goodbye."""

TOKEN = re.compile(r"[A-Za-z0-9._~-]{8,256}")
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
ANYTHING = "'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # viser's page is one file that unpacks itself


@dataclass(frozen=True)
class Door:
    """Where browsers may come in."""

    host: str = "127.0.0.1"
    """Address of this machine to listen on; by any but 127.0.0.1 others can reach it, and it takes a token."""
    port: int = 8080
    """Port to listen on; 0 chooses a free one."""
    token: str | None = None
    """What a browser must know: 8 or more letters, digits and -._~. Without, a new one, where one is needed."""


@dataclass(frozen=True)
class Served:
    """A viser server behind its door."""

    server: viser.ViserServer
    url: str
    """What a person opens, the token included."""
    port: int
    tunnel: str | None
    """What a person types on another machine to look from there; None if the address is enough."""

    def lines(self) -> list[str]:
        """What a program should print: where to look, and what that takes."""
        if self.tunnel is None:
            return [f"open {self.url}", "whoever has this address can look and steer; nothing on the way is encrypted"]
        return [f"open {self.url}", f"from another machine, first: {self.tunnel}"]

    def close(self) -> None:
        """Say goodbye to the browsers and free the port."""
        atexit.unregister(self.close)
        _stop(self.server)


def open_server(door: Door, label: str) -> Served:
    """A viser server that listens, with an empty scene and an empty panel under `label`.

    Raises InputError for a port that is taken or not allowed, a host that is not this machine, a token that does not
    fit into an address, and a viser that is not built as expected.
    """
    import viser

    if door.token is not None and TOKEN.fullmatch(door.token) is None:
        raise InputError("expected a token of 8 to 256 letters, digits and -._~, got another; without one, one is made")
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(_listen(door))
        address, port = listener.getsockname()[:2]
        ip = ipaddress.ip_address(address.partition("%")[0])
        token = door.token or (None if ip.is_loopback else secrets.token_urlsafe(32))
        ours = {"localhost", "127.0.0.1", "[::1]", _bracketed(address), _bracketed(door.host.lower())}
        guard = _Guard(
            _Rules(token, frozenset(ours) if ip.is_loopback else None, f"viser-v{viser.__version__}"), listener
        )
        with _silent_viser(), _instead_of_serve(guard):
            server = viser.ViserServer("127.0.0.1", 0, label, verbose=False)
        undo.callback(_stop, server)
        _take_away_sharing(server, guard)
        undo.pop_all()
    guard.server = server
    name = socket.gethostname() if ip.is_unspecified else _bracketed(door.host)
    url = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
    tunnel = f"ssh -N -L {port}:{_bracketed(address)}:{port} {_user()}@{socket.gethostname()}"
    served = Served(server, url, port, tunnel if ip.is_loopback else None)
    atexit.register(served.close)  # before viser's own, which would print
    return served


def _listen(door: Door) -> socket.socket:
    """A socket that takes connections; they wait until a server takes them up."""
    if not 0 <= door.port <= 65535:
        raise InputError(f"expected a port from 0 to 65535, got {door.port}; 0 chooses a free one")
    advice = "take 127.0.0.1 for this machine alone"
    try:
        family, _, _, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, ValueError):
        raise InputError(f"expected a host of this machine, got {door.host!r}; {advice}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        at, other = f"port {door.port}", "take another with --port (0 chooses one)"
        match error.errno:
            case errno.EADDRINUSE:
                raise InputError(f"{at} is taken (on {door.host}); close what uses it, or {other}") from None
            case errno.EACCES | errno.EPERM:
                raise InputError(f"{at} is not for everyone; {other}, from 1024") from None
            case _:
                raise InputError(f"{door.host} is not an address of this machine; {advice}") from None
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run as numbers without names
        return "user"


@dataclass(frozen=True)
class _Rules:
    """Who may come in."""

    token: str | None
    names: frozenset[str] | None
    """What a browser may call this machine, so that no web page can call it its own (DNS rebinding); None: anything."""
    protocol: str
    """What viser's page calls itself; viser prints a line about every other."""

    def refusal(self, request: Request) -> str | None:
        """What a person should do whose browser may not come in; None lets it in."""
        host = _only(request, "Host").lower()
        called = HOST.fullmatch(host)
        if called is None or (self.names is not None and called["name"] not in self.names):
            return "open the viewer under the name localhost or 127.0.0.1"
        known = self._by_cookie(request)
        if "Upgrade" not in request.headers:
            known = known or self._by_address(request)
        elif _only(request, "Origin").lower() not in (f"http://{host}", f"https://{host}"):
            return "only the viewer's own page may connect to it"
        elif _only(request, "Sec-WebSocket-Protocol") != self.protocol:
            return "reload the page: it is of another version"
        return None if known else "open the address that the program printed when it started, with ?token= at its end"

    def dress(self, request: Request, response: Response) -> None:
        """Add to a response the cookie, and what keeps others from borrowing our page, or turning it on somebody else
        (viser's page connects to what an address such as /?websocket=... names, and does what it is told there)."""
        host = _only(request, "Host")
        sockets = f"ws://{host} wss://{host}" if HOST.fullmatch(host) else ""
        policy = f"default-src {ANYTHING}; connect-src 'self' {sockets} data: blob:; frame-ancestors 'none'"
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": f"{policy}; base-uri 'none'; form-action 'none'",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        response.headers.update(headers)
        response.headers.setdefault("Connection", "close")
        if self.token is not None and response.status_code == HTTPStatus.OK and self._by_address(request):
            response.headers["Set-Cookie"] = f"{_cookie(request)}={self.token}; HttpOnly; SameSite=Strict; Path=/"

    def _by_address(self, request: Request) -> bool:
        return self._knows(parse_qs(request.path.partition("?")[2]).get("token", []))

    def _by_cookie(self, request: Request) -> bool:
        name = _cookie(request) + "="
        cookies = [cookie.strip() for line in request.headers.get_all("Cookie") for cookie in line.split(";")]
        return self._knows([cookie.removeprefix(name) for cookie in cookies if cookie.startswith(name)])

    def _knows(self, presented: list[str]) -> bool:
        if self.token is None:
            return True
        token = self.token.encode()
        return any(hmac.compare_digest(one.encode("utf-8", "surrogateescape"), token) for one in presented)


def _only(request: Request, name: str) -> str:
    """A header's value; empty where there is none, or several."""
    values = request.headers.get_all(name)
    return values[0] if len(values) == 1 else ""


def _cookie(request: Request) -> str:
    """Named by the port that the browser sees: it keeps one set of cookies for all ports of localhost, and what lies
    behind several tunnels may be several machines."""
    called = HOST.fullmatch(_only(request, "Host"))
    return f"fieldfit-{(called and called['port']) or 80}"


class _Guard:
    """Called in place of `websockets.asyncio.server.serve`: the same server, on our socket and by our rules."""

    def __init__(self, rules: _Rules, listener: socket.socket) -> None:
        self.rules, self.listener = rules, listener
        self.server: viser.ViserServer | None = None
        """Once it is whole; until then nobody comes in."""
        self.answers: list[Callable[[ServerConnection, Request], Any]] = []
        """viser's own, to what may come in: one, if it has started as expected."""
        self.pages: dict[bool, bytes] = {}
        """By whether they are zipped."""
        self.log = logging.Logger("fieldfit.viewer", logging.ERROR)  # of its own: viser adds a filter to it
        self.log.addFilter(lambda record: record.msg != "opening handshake failed")  # anyone can make that happen

    def __call__(self, handler: Any, *place: Any, **settings: Any) -> serve:
        if handler.__module__ != "viser.infra._infra":  # somebody else's, which happens to start just now
            return serve(handler, *place, **settings)
        self.answers += [settings["process_request"]] if settings.get("process_request") else []
        return serve(
            handler,
            sock=self.listener,
            create_connection=connection_type(self.find),
            process_request=self.answer,
            process_response=lambda _, request, response: self.rules.dress(request, response),
            select_subprotocol=settings.get("select_subprotocol"),
            compression=None,
            max_size=LARGEST_MESSAGE,
            close_timeout=CLOSING,
            logger=self.log,
        )

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """To a request: viser's if it may pass."""
        if self.server is None:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "503: starting; reload the page\n")
        refusal = self.rules.refusal(request)
        if refusal is not None:
            return connection.respond(HTTPStatus.FORBIDDEN, f"403: {refusal}\n")
        response = self.answers[0](connection, request)
        if response is not None and response.headers.get("Content-Type", "").startswith("text/html"):
            self._fit(response)
        return response

    def _fit(self, response: Response) -> None:
        """Our own page in place of viser's; made once for each encoding."""
        zipped = response.headers.get("Content-Encoding") == "gzip"
        if zipped not in self.pages:
            self.pages[zipped] = fitted(bytes(response.body), zipped=zipped)
        response.body = self.pages[zipped]
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(response.body))

    def find(self, uuid: str) -> object:
        """The input with this id, on everyone's panel or on one browser's; None if there is none."""
        if self.server is not None:
            for gui in (self.server.gui, *(client.gui for client in self.server.get_clients().values())):
                if uuid in gui._gui_input_handle_from_uuid:
                    return gui._gui_input_handle_from_uuid[uuid]
        return None


_STARTING = threading.RLock()


@contextlib.contextmanager
def _instead_of_serve(guard: _Guard) -> Iterator[None]:
    with _STARTING:
        websockets.asyncio.server.serve = guard  # pyright: ignore[reportAttributeAccessIssue]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve


@contextlib.contextmanager
def _silent_viser() -> Iterator[None]:
    """Nothing is printed by viser; by others it is."""
    with _STARTING:
        printed = rich.print

        def others(*values: Any, **how: Any) -> None:
            if not sys._getframe(1).f_globals["__name__"].startswith("viser."):
                printed(*values, **how)

        rich.print = others
        try:
            yield
        finally:
            rich.print = printed


def _stop(server: viser.ViserServer) -> None:
    with _silent_viser():
        server.stop()


def _take_away_sharing(server: viser.ViserServer, guard: _Guard) -> None:
    """No browser opens a tunnel. Raises InputError unless viser is built as these files take for granted."""
    import viser

    strange = [] if len(guard.answers) == 1 else ["how it starts"]
    strange += [] if "_gui_input_handle_from_uuid" in vars(server.gui) else ["its panel"]
    try:
        from viser import _messages

        strange += unlike_viser(vars(_messages))
        for message in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
            server._websock_server.unregister_handler(message)
    except (ImportError, AttributeError, AssertionError):
        strange.append("its messages")
    if strange:
        what = ", ".join(strange)
        raise InputError(f"viser {viser.__version__} is not built as expected ({what}); pip install 'viser~=1.1.1'")
