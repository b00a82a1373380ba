"""What a browser may say to the viewer, and ten thousand things that it may not, over real sockets."""

from __future__ import annotations

import math
import queue

import pytest
from browser import SECONDS, VIEW, encode, ended, flooded, is_welcome, join, received
from hypothesis import given, settings
from hypothesis import strategies as st
from viser import _messages

from viewer.incoming import fitted, passed
from viewer.serving import Door, open_server


@pytest.fixture(scope="module")
def served():
    served = open_server(Door(port=0), "a fit")
    yield served
    served.close()


@pytest.fixture(scope="module")
def number(served):
    return served.server.gui.add_number("frame", 1)


MALFORMED = [
    "text", "", b"", b"\xc1", b"\x01", b"\x80", b"\x90", b"\x81\xa4type", encode({"type": 1}), encode(VIEW) + b"\x00",
    b"\x00" * 1_000_000, b"\x91" * 100_000 + b"\x00", b"\x82\xa4type\xa1x\xa1y" + b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    encode({"type": "ViewerCameraMessage"}), encode(VIEW | {"fov": None}), encode(VIEW | {"fov": "1"}),
    encode(VIEW | {"position": [0] * 100_000}), encode(VIEW | {"image_width": 1.5}),
    encode({"type": "GuiUpdateMessage", "uuid": "x", "updates": {}}),
    encode({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": b"bytes"}}),
    encode({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": True, "visible": False}}),
]  # fmt: skip
CLICK = {
    "type": "SceneNodeClickMessage",
    "name": "/camera",
    "instance_index": None,
    "ray_origin": [0, 0, 1],
    "ray_direction": [0, 0, -1],
    "screen_pos": [0.5, 0.5],
    "modifier": None,
    "owner": "",
}
USELESS = [
    {"type": "ShareUrlRequest"}, {"type": "ShareUrlDisconnect"}, {"type": "NoSuchMessage"},
    {"type": "GuiFormDirtyMessage", "uuid": "x"},
    {"type": "GuiUpdateMessage", "uuid": "no such input", "updates": {"value": 1}},
    {"type": "RunJavascriptMessage", "source": "x"}, {"type": "ViewerCameraMessages", "deep": [[[[[]]]]]},
    *[VIEW | {"fov": x} for x in (math.nan, math.inf, 0, -1, 4, 1e300)],
    *[VIEW | {"position": [x, 0, 0]} for x in (math.nan, math.inf, -1e300)],
    *[VIEW | {"look_at": [0, 0, math.nan]}, VIEW | {"up_direction": [0, 0, 0]}, VIEW | {"wxyz": [0, 0, 0, 0]}],
    *[VIEW | {"near": 5, "far": 4}, VIEW | {"far": math.inf}, VIEW | {"near": 0}],
    *[VIEW | {"image_width": x} for x in (0, -1, 10**9)], VIEW | {"image_height": 0},
    CLICK | {"ray_origin": [0, 0, math.nan]}, CLICK | {"screen_pos": [math.inf, 0]}, CLICK | {"instance_index": 2**60},
]  # fmt: skip


def choice(handle, value):
    return encode({"type": "GuiUpdateMessage", "uuid": handle._impl.uuid, "updates": {"value": value}})


@pytest.mark.parametrize("raw", MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_message_ends_its_connection_only(served, raw):
    with join(served) as other, join(served) as browser:
        received(browser)
        browser.send(raw)
        assert ended(browser) == 1008
        assert other.ping().wait(SECONDS)


def test_a_message_that_is_too_long_ends_its_connection(served):
    with join(served) as browser:
        browser.send(encode(VIEW | {"more": bytes(2**20)}))
        assert ended(browser) == 1009
    assert is_welcome(served)


def test_ten_thousand_bad_messages(served, number, capfd, caplog):
    useless = [encode(message) for message in USELESS]
    useless += [choice(number, value) for value in (True, "3", math.nan, 1e300, [1, 2], "x" * 50_000)]
    sent = 0
    for i in range(100):
        with join(served) as browser:
            for k in range(100):
                browser.send(useless[k % len(useless)] if k < 99 else MALFORMED[i % len(MALFORMED)])
                sent += 1
            assert ended(browser) == 1008
    for raw in MALFORMED:  # all at once, long after the server has had enough
        with join(served) as browser:
            assert flooded(browser, raw)
    assert sent == 10_000
    assert is_welcome(served)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_what_a_viewer_has_no_use_for_is_dropped():
    assert all(passed(encode(message), lambda uuid: None) for message in (VIEW, CLICK))
    assert [message for message in USELESS if passed(encode(message), lambda uuid: None) is not None] == []


def test_what_a_viewer_has_no_use_for_is_not_kept(served):
    button = served.server.gui.add_button("render")
    buffer = served.server._websock_server._broadcast_buffer
    upload = {"source_component_uuid": button._impl.uuid, "transfer_uuid": "u"}
    start = {"type": "FileTransferStartUpload", "filename": "f", "mime_type": "", "part_count": 9, "size_bytes": 9}
    parts = [{"type": "FileTransferPart", "part_index": i, "content": bytes(500_000)} | upload for i in range(9)]
    notices = [{"type": "GuiFormDirtyMessage", "uuid": str(i)} for i in range(100)]
    before = len(buffer.message_from_id)
    assert is_welcome(served, after=[start | upload, *parts, *notices])
    assert not {_messages.ShareUrlRequest, _messages.ShareUrlDisconnect} & set(
        served.server._websock_server._incoming_handlers
    )
    assert served.server.gui._current_file_upload_states == {}
    assert len(buffer.message_from_id) == before
    button.remove()


def test_what_a_person_chooses_arrives(served, number):
    slider = served.server.gui.add_slider("exposure", -2.0, 2.0, 0.5, 0.0)
    chosen = queue.Queue()
    slider.on_update(lambda event: chosen.put(event.target.value))
    number.on_update(lambda event: chosen.put(event.target.value))
    with join(served) as browser:
        browser.send(encode(VIEW))
        for handle, value in [
            (slider, "1"),
            (slider, 1),
            (slider, math.nan),
            (slider, [1]),
            (number, True),
            (number, 7),
        ]:
            browser.send(choice(handle, value))
        assert {chosen.get(timeout=SECONDS), chosen.get(timeout=SECONDS)} == {1.0, 7}
    assert (slider.value, number.value) == (1.0, 7)
    assert chosen.empty()
    slider.remove()


def test_a_click_on_a_thing_arrives(served):
    clicked = queue.Queue()
    for name in ("/camera", "/other"):
        node = served.server.scene.add_camera_frustum(name, 1.0, 1.5)
        node.on_click(lambda event, name=name: clicked.put((name, event.ray_direction)))
    assert is_welcome(served, after=[VIEW, CLICK | {"name": "/none"}, CLICK | {"name": 'x"\n'}, CLICK])
    assert clicked.get(timeout=SECONDS) == ("/camera", (0.0, 0.0, -1.0))
    assert clicked.empty()
    served.server.scene.reset()


def test_an_input_takes_what_it_can_hold(served):
    gui = served.server.gui
    never = [math.nan, math.inf, 1e300, 2**60, [math.nan] * 3, "x" * 10_001]
    cases = [
        (gui.add_slider("", 0, 10, 1, 5), [(3, 3), (-4, 0), (12, 10)], [True, "3", [3.0]]),
        (gui.add_number("", 1.0, min=0.0), [(3, 3), (0.5, 0.5), (1e9, 1e9)], [-1, False, "3", [3.0]]),
        (gui.add_checkbox("", False), [(True, True)], [1, "true", [1.0]]),
        (gui.add_button(""), [(True, True)], [1, "true"]),
        (gui.add_dropdown("", ("a", "b")), [("b", "b")], ["c", "", 0, True, [1.0]]),
        (gui.add_button_group("", ("a", "b")), [("b", "b")], ["c", 0]),
        (gui.add_text("", "a"), [("b", "b"), ("", "")], [1, True, [1.0]]),
        (gui.add_vector3("", (0.0, 0.0, 0.0)), [([1.0, 2.0, 3.0],) * 2], [[1.0, 2.0], 1, "1", []]),
        (gui.add_vector2("", (0.0, 0.0)), [([1.0, 2.0],) * 2], [[1.0], True]),
        (gui.add_rgb("", (1, 2, 3)), [([0.0, 5.0, 255.0],) * 2, ([-9.0, 5.0, 999.0], [0.0, 5.0, 255.0])], [[1.0] * 4]),
        (gui.add_multi_slider("", 0.0, 1.0, 0.1, (0.2, 0.8)), [([1.5, -3.0], [0.0, 1.0])], [[0.5], 0.5]),
        (gui.add_text("", "a", disabled=True), [], ["b"]),
        (gui.add_progress_bar(3.0), [], [1.0]),
        (gui.add_upload_button(""), [], [True, "b"]),
        (None, [], [True, 1, "b", [1.0]]),
    ]
    for handle, good, bad in cases:
        assert [fitted(handle, value) for value, _ in good] == [held for _, held in good]
        assert [value for value in (*bad, *never) if fitted(handle, value) is not None] == []
        if handle is not None:
            handle.remove()


@given(
    st.sampled_from([VIEW, CLICK, {"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": 1}}]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.binary(max_size=9),
)
@settings(max_examples=1000)
def test_what_passes_is_what_viser_reads(number, message, changes, end):
    data = bytearray(encode(message))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        made = passed(bytes(data) + end, lambda uuid: number)
    except (ValueError, RecursionError):
        return
    match made and _messages.Message.deserialize(made):
        case None:
            pass
        case _messages.ViewerCameraMessage() as view:
            assert math.isfinite(
                sum((*view.wxyz, *view.position, *view.look_at, *view.up_direction, view.near, view.far))
            )
        case _messages.SceneNodeClickMessage() as click:
            assert math.isfinite(sum((*click.ray_origin, *click.ray_direction, *click.screen_pos)))
        case _messages.GuiUpdateMessage(updates={"value": value, **more}):
            assert not more and math.isfinite(value)
        case other:
            raise AssertionError(other)
