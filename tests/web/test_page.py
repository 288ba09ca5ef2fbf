"""The page in a real browser, against the real server."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from app.flash_guard import FlashGuard
from tests.web.room import CH_NAMES, CONCEPTS, TOKEN, Room, begin, wait_until

pytestmark = pytest.mark.browser

# Onto a canvas that is made for reading.
READ = """(id) => {
  const canvas = document.getElementById(id);
  const { width, height } = canvas;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
"""
PIXEL = f"""() => {{ return ({READ}
  const middle = 4 * (height / 2 * width + width / 2);
  return [...data.slice(middle, middle + 3)];
}})("picture") }}"""
COLUMNS = f"""() => {{ return ({READ}
  const columns = new Array(width).fill(0);
  for (let i = 3; i < data.length; i += 4) if (data[i] > 0) columns[((i - 3) / 4) % width]++;
  return columns;
}})("traces") }}"""

TEAL = (40, 160, 140)


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((64, 64, 3), colour, np.uint8)


def is_on_canvas(page: Any, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.subtract(page.evaluate(PIXEL), colour)).max() <= 4)


def text(page: Any, id: str) -> str:
    return str(page.locator(f"#{id}").text_content())


def wait_for_text(page: Any, id: str, expected: str) -> None:
    # The page's own content policy forbids what wait_for_function does.
    wait_until(lambda: text(page, id) == expected)


def test_the_warning_comes_before_anything_is_received_or_drawn(page: Any, room: Room) -> None:
    room.show(plain(TEAL))
    page.goto(room.address)
    dialog = page.get_by_role("dialog", name="Before the pictures begin")
    assert dialog.is_visible()
    assert "epilepsy" in dialog.text_content()
    page.keyboard.press("Escape")
    time.sleep(0.5)
    assert dialog.is_visible()
    assert room.hub.viewers == {}
    assert page.evaluate(PIXEL) == [0, 0, 0]
    page.keyboard.press("Enter")
    wait_until(lambda: is_on_canvas(page, TEAL))
    # Remembered in this tab.
    page.reload()
    wait_until(lambda: is_on_canvas(page, TEAL))
    assert not dialog.is_visible()


def test_frames_are_drawn_and_then_acknowledged(page: Any, room: Room) -> None:
    begin(page, room)
    assert room.acknowledged == []
    room.show(plain(TEAL))
    wait_until(lambda: is_on_canvas(page, TEAL))
    wait_until(lambda: len(room.acknowledged) > 1)
    assert room.acknowledged == sorted(set(room.acknowledged))
    # The fade goes on meanwhile.
    wait_until(lambda: room.hub.counts()["frames_drawn"] == len(room.acknowledged))
    wait_until(lambda: " s · p95 " in text(page, "latency"))


def test_a_hidden_page_acknowledges_nothing(page: Any, room: Room) -> None:
    begin(page, room)
    # What a tab in the background does: no more animation frames.
    page.evaluate("window.requestAnimationFrame = () => 0")
    time.sleep(0.2)
    n_before = len(room.acknowledged)
    room.show(plain(TEAL))
    time.sleep(1.0)
    assert len(room.acknowledged) == n_before
    assert not is_on_canvas(page, TEAL)


def test_how_real_it_is_is_always_said(page: Any, room: Room) -> None:
    begin(page, room)
    badge = page.locator("#honesty")
    looks = set()
    for honesty in ("simulated", "replay", "live"):
        room.acquire(honesty=honesty)
        wait_for_text(page, "honesty-word", honesty)
        looks.add((text(page, "honesty-text"), badge.evaluate("(e) => getComputedStyle(e).color")))
    assert len({words for words, _ in looks}) == len({colour for _, colour in looks}) == 3
    for width, height in ((1280, 720), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        assert badge.is_visible()
        assert page.get_by_text("Montage fidelity").is_visible()
    assert text(page, "fidelity") == "97 %"


def test_what_is_decoded_stands_beside_what_is_seen(page: Any, room: Room) -> None:
    begin(page, room)
    room.acquire()
    assert not page.locator("#seen-panel").is_visible()
    room.mark("onset/cat")
    page.wait_for_selector("#seen-panel:visible")
    assert text(page, "seen") == "cat"
    room.show(plain(TEAL))
    wait_for_text(page, "decoded", "cat")
    assert "cat" in str(page.locator("#picture").get_attribute("aria-label"))
    rows = page.locator("#concepts li:visible").all_text_contents()
    assert [name in row for row, (name, _, _) in zip(rows, CONCEPTS, strict=True)] == [True] * 3
    assert "42 %" in rows[0]
    assert text(page, "chance") == "chance 2.5 %"
    room.show(plain(TEAL), is_sure=False)
    wait_for_text(page, "decoded", "not sure")
    assert not page.locator("#seen-picture").is_visible()
    room.mark("onset/grating")
    page.wait_for_selector("#seen-picture:visible")
    assert page.evaluate("document.getElementById('seen-picture').naturalWidth") == 1
    room.mark("offset")
    wait_for_text(page, "seen", "nothing now")
    assert not page.locator("#seen-picture").is_visible()


def test_a_picture_says_what_was_seen_in_its_epoch_and_not_what_is_seen_now(
    page: Any, room: Room
) -> None:
    begin(page, room)
    room.acquire()
    room.mark("onset/cat")
    wait_for_text(page, "seen", "cat")
    time.sleep(0.5)
    room.mark("onset/grating")
    wait_for_text(page, "seen", "grating")
    # The epoch's middle lies half a second before its last sample.
    room.show(plain(TEAL), age=0.0)
    wait_for_text(page, "seen-then", "from EEG while cat was seen")
    room.mark("offset")
    wait_for_text(page, "seen", "nothing now")
    room.show(plain(TEAL), age=-1.0)
    wait_for_text(page, "seen-then", "from EEG while nothing was seen")
    room.show(plain(TEAL), age=60.0)
    wait_for_text(page, "seen-then", "")


def test_traces_move_and_gaps_stay_empty(page: Any, room: Room) -> None:
    begin(page, room)
    room.acquire()
    page.wait_for_selector("#honesty[data-honesty=simulated]")
    wave = 40 * np.sin(np.arange(50) / 3) * np.ones((len(CH_NAMES), 1))
    for _ in range(10):
        room.trace(wave)
    room.trace(wave, n_lost=250)
    n = 10 * 50 + 250 + 50
    names = 40

    def spans() -> list[np.ndarray]:
        columns = np.array(page.evaluate(COLUMNS))
        scale = (len(columns) - names) / (5 * 250)
        return [
            columns[int(names + a * scale) + 2 : int(names + b * scale) - 2]
            for a, b in ((0, 500), (750, n), (500, 750), (n + 20, 1250))
        ]

    wait_until(lambda: bool((spans()[1] > 0).all()))
    drawn, later, gap, ahead = spans()
    assert (drawn > len(CH_NAMES) / 2).all()
    assert (later > len(CH_NAMES) / 2).all()
    assert gap.sum() == ahead.sum() == 0


def test_gain_is_turned_by_keys_and_buttons(page: Any, room: Room) -> None:
    begin(page, room)
    gain = page.locator("#gain")
    assert gain.text_content() == "50 µV"
    page.keyboard.press("+")
    assert gain.text_content() == "20 µV"
    page.get_by_role("button", name="Traces smaller").click()
    page.keyboard.press("-")
    assert gain.text_content() == "100 µV"


def test_electrodes_have_shape_and_word(page: Any, room: Room) -> None:
    begin(page, room)
    room.acquire(
        quality={"T7": ("poor", ("line noise",)), "Fz": ("off", ("flat",)), "F3": ("fair", ())}
    )
    wait_for_text(page, "n-good", "11 good")
    assert text(page, "n-poor") == "1 poor"
    assert text(page, "troubled") == "Fz: off, flat; T7: poor, line noise"
    shapes = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#head g')].map("
        "(g) => [g.dataset.grade, g.querySelector('path').getAttribute('d')]))"
    )
    assert len(set(shapes.values())) == len(shapes) == 4


def test_electrodes_lie_where_the_10_10_system_puts_them(page: Any, room: Room) -> None:
    page.goto(room.address)
    names = ["Cz", "Fpz", "Oz", "T7", "T8", "T3", "C3", "Fp1", "O2", "F7", "FC5", "PO8", "what"]
    place = dict(
        zip(
            names,
            page.evaluate(
                "async (names) => { const { position } = await import('/electrodes.js');"
                "return names.map(position); }",
                names,
            ),
            strict=True,
        )
    )
    assert place["what"] is None
    assert place["Cz"] == pytest.approx([0, 0])
    assert place["Fpz"] == pytest.approx([0, -0.8])
    assert place["Oz"] == pytest.approx([0, 0.8], abs=1e-9)
    assert place["T3"] == place["T7"] == pytest.approx([-0.8, 0], abs=1e-9)
    assert place["T8"] == pytest.approx([0.8, 0], abs=1e-9)
    assert place["C3"] == pytest.approx([-0.4, 0], abs=1e-9)
    assert place["Fp1"] == pytest.approx([-0.247, -0.761], abs=0.01)
    assert place["O2"] == pytest.approx([0.247, 0.761], abs=0.01)
    assert place["F7"] == pytest.approx([-0.647, -0.470], abs=0.01)
    assert place["FC5"][0] < -0.5 < place["FC5"][1] < 0
    assert place["PO8"][0] > 0.4 < place["PO8"][1]


def test_latency_rate_and_losses_are_shown(page: Any, room: Room) -> None:
    begin(page, room)
    room.work(frames_painted=10)
    room.work(frames_painted=12, painted_ms=(600.0,) * 20)
    room.acquire(samples_lost=1234)
    wait_for_text(page, "lost", "1,234")
    assert text(page, "latency-painted") == "0.60 s · p95 0.60 s"
    assert text(page, "latency") == "no figure yet"
    assert text(page, "rate").endswith("per second")


def test_how_far_the_eeg_has_moved_is_shown_for_a_persons_own_bundle(page: Any, room: Room) -> None:
    begin(page, room)
    room.work()
    wait_for_text(page, "bundle", "scale-model")
    assert page.locator("#drift-row").is_hidden()
    room.work(drift=(0.034, 0.0121))
    wait_for_text(page, "drift", "3.4 % · usual 1.2 %")
    fits = "(shown) => shown.scrollWidth <= shown.clientWidth"
    assert page.locator("#drift").evaluate(fits)


def test_a_child_that_restarts_is_told_in_one_sentence(page: Any, room: Room) -> None:
    begin(page, room)
    restarting = {"state": "restarting", "restarts": 1, "message": "The worker process was killed."}
    room.supervise(worker=restarting)
    wait_until(lambda: "killed" in text(page, "sentence"))
    assert page.locator("#sentence[role=status][aria-live=polite]").is_visible()
    # No worker has been heard in this room.
    room.supervise(worker={"state": "running", "restarts": 1, "message": ""})
    wait_for_text(page, "sentence", "The bundle is being loaded.")


def test_the_page_comes_back_without_reload_when_the_server_does(page: Any, room: Room) -> None:
    begin(page, room)
    room.show(plain(TEAL))
    wait_until(lambda: is_on_canvas(page, TEAL))
    page.evaluate("window.isSamePage = true")
    room.close()
    page.wait_for_selector("body.away")
    assert "does not answer" in text(page, "sentence")
    assert is_on_canvas(page, TEAL)
    again = Room(FlashGuard(), room.port).start()
    try:
        wait_until(lambda: len(again.hub.viewers) == 1)
        again.show(plain((160, 60, 60)))
        wait_until(lambda: is_on_canvas(page, (160, 60, 60)))
        assert page.evaluate("window.isSamePage")
        assert page.locator("body.away").count() == 0
        wait_until(lambda: len(again.acknowledged) > 0)
    finally:
        again.close()


def test_who_may_not_watch_is_told_why(page: Any, room: Room, monkeypatch: Any) -> None:
    monkeypatch.setattr("app.server.MAX_VIEWERS", 0)
    # Health is well: the browser complains of any other answer.
    room.acquire()
    room.work()
    page.goto(room.address)
    page.keyboard.press("Enter")
    wait_for_text(page, "sentence", "There are 0 viewers already; try again later.")
    monkeypatch.undo()
    wait_until(lambda: len(room.hub.viewers) == 1)
    wait_for_text(page, "sentence", "")


def test_escape_makes_the_picture_stand_still(page: Any, room: Room) -> None:
    begin(page, room)
    room.show(plain(TEAL))
    wait_until(lambda: is_on_canvas(page, TEAL))
    page.keyboard.press("Escape")
    assert "stands still" in text(page, "sentence")
    room.show(plain((200, 40, 40)))
    time.sleep(0.8)
    assert is_on_canvas(page, TEAL)
    page.get_by_role("button", name="Go on").click()
    room.show(plain((200, 40, 40)))
    wait_until(lambda: is_on_canvas(page, (200, 40, 40)))


def test_only_the_operator_has_controls(page: Any, room: Room) -> None:
    begin(page, room, f"#operator={TOKEN}")
    pause = page.get_by_role("button", name="Pause")
    pause.wait_for()
    assert page.evaluate("location.hash") == ""
    assert TOKEN not in page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, document.cookie])"
    )
    pause.click()
    wait_until(lambda: room.sent == [{"action": "pause"}])
    page.get_by_role("button", name="Stop").click()
    time.sleep(0.2)
    assert len(room.sent) == 1
    page.get_by_role("button", name="press again").click()
    wait_until(lambda: room.sent[1:] == [{"action": "stop"}])


def test_recording_begins_with_consent_and_is_marked_in_red(page: Any, room: Room) -> None:
    begin(page, room, f"#operator={TOKEN}")
    page.get_by_role("button", name="Record…").click()
    dialog = page.get_by_role("dialog", name="Record the EEG")
    start = dialog.get_by_role("button", name="Record", exact=True)
    dialog.get_by_label("Pseudonym", exact=True).fill("P01")
    # Without consent the browser does not send it, and a letter is no shortcut.
    start.click()
    assert dialog.is_visible()
    dialog.get_by_label("The person agreed").check()
    start.click()
    wait_until(lambda: len(room.sent) == 1)
    request = {"subject": "P01", "keep_days": 90, "has_consent": True}
    assert room.sent == [{"action": "record", "request": request}]
    assert not dialog.is_visible()
    assert not page.locator("#recording").is_visible()

    def tell(**children: Any) -> None:
        room._receive("telemetry", {"from": "supervisor", "t": 0.0, "children": children})

    recorder = {"from": "recorder", "t": 0.0, "seconds": 125.0, "n_missed": 0}
    room._receive("telemetry", recorder)
    tell(recorder={"state": "running", "message": "", "restarts": 0})
    page.locator("#recording").wait_for()
    assert text(page, "recording-text") == "Recording the EEG: 2 min"
    red, green, blue = page.evaluate(
        "getComputedStyle(document.getElementById('recording')).color.match(/\\d+/g).map(Number)"
    )[:3]
    assert red > 1.4 * max(green, blue)
    page.get_by_role("button", name="Stop recording").click()
    wait_until(lambda: room.sent[1:] == [{"action": "stop-recording"}])
    tell()
    wait_until(lambda: not page.locator("#recording").is_visible())
    # Agreed to anew, each time.
    page.get_by_role("button", name="Record…").click()
    assert not dialog.get_by_label("The person agreed").is_checked()
    dialog.get_by_role("button", name="Cancel").click()
    assert not dialog.is_visible()


def test_a_viewer_has_none_and_a_wrong_token_is_told(page: Any, room: Room) -> None:
    page.goto(room.address + "#operator=wrong")
    page.get_by_role("button", name="Show the pictures").click()
    wait_for_text(page, "viewers", "1")
    assert not page.get_by_role("button", name="Pause").is_visible()
    wait_until(lambda: "token" in text(page, "sentence"))


def test_nothing_sticks_out_of_the_window(page: Any, room: Room) -> None:
    begin(page, room)
    room.acquire()
    room.mark("onset/butterfly")
    room.show(plain(TEAL))
    wait_for_text(page, "decoded", "cat")
    for width, height in ((1280, 720), (1920, 1080), (820, 1180), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        found = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight,"
            " document.getElementById('traces').clientHeight]"
        )
        assert found[0] <= width
        assert found[1] <= height or height > width
        assert found[2] > 150


def test_axe_finds_nothing(page: Any, room: Room) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.goto(room.address)
    assert axe.run(page).response["violations"] == []
    page.keyboard.press("Enter")
    room.acquire(quality={"T7": ("poor", ("line noise",))})
    room.mark("onset/cat")
    room.show(plain((250, 250, 250)))
    wait_for_text(page, "decoded", "cat")
    violations = axe.run(page).response["violations"]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in violations] == []
