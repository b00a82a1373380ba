"""The door of the viewer: who comes in, and who does not, over real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from browser import SECONDS, cookie, ended, get, is_welcome, join, received
from websockets.exceptions import InvalidStatus

from scenes.errors import InputError
from viewer import incoming
from viewer.serving import Door, open_server

ROOT = Path(__file__).resolve().parent.parent
FIRST_FREE_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
NOBODY = 65534
TOKEN = "open-sesame~0.1"


@pytest.fixture(scope="module")
def served():
    served = open_server(Door(port=0), "a fit")
    yield served
    served.close()


@pytest.fixture(scope="module")
def locked():
    served = open_server(Door(port=0, token=TOKEN), "a fit")
    yield served
    served.close()


def refused(served, *headers, **how):
    with pytest.raises(InvalidStatus) as caught:
        join(served, *headers, **how)
    return caught.value.response.status_code == 403


def test_this_machine_comes_in_without_a_token(served):
    assert Door() == Door("127.0.0.1", 8080, None)
    assert served.url == f"http://127.0.0.1:{served.port}/"
    line = f"from another machine, first: ssh -N -L {served.port}:127.0.0.1:{served.port} "
    assert served.lines()[0] == f"open {served.url}"
    assert served.lines()[1].startswith(line)
    status, headers, page = get(served)
    assert status == 200 and b"<title>Viser</title>" in page
    assert "Set-Cookie" not in headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert f"connect-src 'self' ws://127.0.0.1:{served.port} " in headers["Content-Security-Policy"]
    assert is_welcome(served)


@pytest.mark.parametrize("name", ["localhost:9", "127.0.0.1", "LOCALHOST:8080", "[::1]:80"])
def test_names_of_this_machine(served, name):
    assert get(served, host=[name])[0] == 200  # any port: a tunnel changes it


@pytest.mark.parametrize(
    "names", [[], ["evil.example"], ["127.0.0.1.evil.example:8080"], ["a b"], [""], ["localhost", "localhost"]]
)
def test_other_names_are_refused(served, names):
    """A page of evil.example whose name is made to point at 127.0.0.1 would be of the same origin as ours."""
    status, headers, page = get(served, host=names)
    assert status == 403
    assert headers["Content-Type"].startswith("text/plain")
    assert page == b"403: open the viewer under the name localhost or 127.0.0.1\n"


def test_only_our_own_page_may_connect(served):
    port = served.port
    for origin in (None, "null", "http://evil.example", f"http://localhost:{port}", "http://127.0.0.1:1", "http://"):
        assert refused(served, origin=origin), origin
    assert refused(served, ("Origin", f"http://127.0.0.1:{port}"))  # twice
    assert refused(served, name="evil.example", origin="http://evil.example:{}")
    assert refused(served, protocol="viser-v0.0.1")  # of which viser would print a line
    assert is_welcome(served, name="localhost", origin="http://localhost:{}")


def test_the_token_opens_the_page_and_the_cookie_all_else(locked):
    assert locked.url == f"http://127.0.0.1:{locked.port}/?token={TOKEN}"
    status, headers, page = get(locked)
    assert status == 403 and len(page) < 200
    assert b"open the address that the program printed" in page
    assert "Set-Cookie" not in headers
    status, headers, page = get(locked, f"/?token={TOKEN}")
    assert status == 200 and b"<title>Viser</title>" in page
    assert headers["Set-Cookie"] == f"fieldfit-{locked.port}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    assert get(locked, "/index.html")[0] == 403
    assert get(locked, "/index.html", cookie(locked, TOKEN))[0] == 200
    assert get(locked, "/missing.js", cookie(locked, TOKEN))[0] == 404
    assert get(locked, "/", cookie(locked, "bad"))[0] == 403
    assert get(locked, "/", cookie(locked, TOKEN, port=1))[0] == 403
    assert get(locked, "/", cookie(locked, TOKEN, port=7), host=["localhost:7"])[0] == 200  # through a tunnel
    assert get(locked, f"/?token={TOKEN}", host=["evil.example"])[0] == 403
    assert refused(locked)
    assert is_welcome(locked, cookie(locked, TOKEN))


def test_after_forty_bad_attempts_a_good_one_comes_in(locked):
    wrong = ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%FF", "%00", "%C3%A9", TOKEN + "%0D%0ASet-Cookie:%20a=b"]
    for i in range(40):
        token = wrong[i % len(wrong)]
        assert get(locked, f"/?token={token}")[0] == 403
        assert get(locked, "/", ("Cookie", f"fieldfit-{locked.port}={token}"))[0] == 403
        assert refused(locked, cookie(locked, "bad"))
        assert refused(locked, cookie(locked, TOKEN), origin=f"http://evil{i}.example")
    assert get(locked, "/", cookie(locked, TOKEN + "é"))[0] == 403
    assert get(locked, f"/?token={TOKEN}")[0] == 200
    assert is_welcome(locked, cookie(locked, TOKEN))


def test_other_machines_need_a_token():
    served = open_server(Door(host="0.0.0.0", port=0), "a fit")
    other = open_server(Door(host="0.0.0.0", port=0), "a fit")
    address, token = served.url.split("?token=")
    assert address == f"http://{socket.gethostname()}:{served.port}/"
    assert len(token) >= 43 and token not in other.url
    assert served.lines()[0] == f"open {served.url}" and "ssh" not in " ".join(served.lines())
    assert get(served, host=["machine.example"])[0] == 403
    assert get(served, f"/?token={token}", host=["machine.example"])[0] == 200
    assert refused(served)
    assert refused(served, cookie(served, token), origin="http://evil.example")
    assert is_welcome(served, cookie(served, token))
    served.close()
    other.close()


@pytest.mark.parametrize(
    "token", ["", "short", "with space and more", "semi;colon;s", "line\nbreaks", "ümlaute-sind", "x" * 257]
)
def test_a_token_fits_into_an_address_and_a_cookie(token):
    with pytest.raises(InputError, match="expected a token of 8 to 256 letters"):
        open_server(Door(port=0, token=token), "a fit")


def test_a_taken_port(served):
    with pytest.raises(InputError) as caught:
        open_server(Door(port=served.port), "another fit")
    expected = (
        f"port {served.port} is taken (on 127.0.0.1); close what uses it, or take another with --port (0 chooses one)"
    )
    assert str(caught.value) == expected
    assert is_welcome(served)


@pytest.mark.parametrize(
    ("door", "words"),
    [
        (Door(port=-1), "expected a port from 0 to 65535, got -1; 0 chooses a free one"),
        (Door(port=65536), "expected a port from 0 to 65535, got 65536"),
        (Door(host="203.0.113.7"), "203.0.113.7 is not an address of this machine; take 127.0.0.1"),
        (Door(host="machine.invalid"), "expected a host of this machine, got 'machine.invalid'; take 127.0.0.1"),
        (Door(host=""), "expected a host of this machine, got ''"),
        (Door(host="x" * 300), "expected a host of this machine"),
        (Door(host="a\0b"), "expected a host of this machine"),
    ],
)
def test_a_place_where_nothing_can_listen(door, words):
    with pytest.raises(InputError) as caught:
        open_server(door, "a fit")
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(int(FIRST_FREE_PORT.read_text()) <= 1, reason="here anyone may take any port")
def test_a_port_of_the_system():
    before = os.geteuid()
    try:
        os.seteuid(before or NOBODY)
    except OSError:
        pytest.skip("here root cannot become anyone else")
    try:
        with pytest.raises(InputError, match="port 1 is not for everyone; take another with --port"):
            open_server(Door(port=1), "a fit")
    finally:
        os.seteuid(before)


def test_two_servers_and_a_port_that_is_free_again():
    one, two = (open_server(Door(port=0), "a fit") for _ in range(2))
    assert one.port != two.port
    assert is_welcome(one) and is_welcome(two)
    with join(one) as browser:
        received(browser)
        one.close()
        assert ended(browser) == 1001
    one.close()  # again does nothing
    again = open_server(Door(port=one.port), "a fit")
    assert again.port == one.port
    assert is_welcome(again) and is_welcome(two)
    again.close()
    two.close()


def test_a_viser_that_is_built_otherwise_is_not_used(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with monkeypatch.context() as patch:
        patch.setitem(incoming.READERS, "GuiUpdateMessage", incoming.READERS["ViewerCameraMessage"])
        patch.setitem(incoming.READERS, "NoSuchMessage", incoming.READERS["ViewerCameraMessage"])
        with pytest.raises(InputError, match=r"not built as expected \(GuiUpdateMessage, NoSuchMessage\); pip install"):
            open_server(Door(port=port), "a fit")
    open_server(Door(port=port), "a fit").close()


def test_nothing_is_printed_but_what_we_print():
    """Without a terminal, a display, a name of the user, or an end: the program does not close the door itself."""
    program = (
        "import rich\nfrom viewer.serving import Door, open_server\n"
        "served = open_server(Door(port=0, token='12345678'), 'a fit')\nrich.print('ours')\nprint(served.url)\n"
    )
    line = [sys.executable, "-c", program]
    none = subprocess.DEVNULL
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(line, env=environment, stdin=none, capture_output=True, text=True, timeout=SECONDS, cwd="/")
    first, second, *rest = done.stdout.splitlines()
    assert (first, rest, done.stderr, done.returncode) == ("ours", [], "", 0)
    assert second.startswith("http://127.0.0.1:") and second.endswith("/?token=12345678")
