"""Training from the page, its answer, and what the live page says of a bundle, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.flash_guard import FlashGuard
from app.settings import Settings
from tests.personal_report import write_report
from tests.web.room import TOKEN, Room, begin, wait_until

pytestmark = pytest.mark.browser

NOT_ABOVE = "is not above chance: what it paints tells nothing"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of P01, who was recorded."""
    folder = tmp_path / "P01"
    folder.mkdir()
    (folder / "a.xdf").touch()
    return folder


@pytest.fixture
def training_room(folder: Path) -> Iterator[Room]:
    room = Room(FlashGuard(), settings=Settings(recordings=str(folder.parent))).start()
    yield room
    room.close()


def text(page: Any, id: str) -> str:
    return str(page.locator(f"#{id}").text_content())


def open_page(page: Any, room: Room) -> None:
    room.acquire()
    page.goto(room.address + f"calibrate#operator={TOKEN}")
    page.wait_for_selector("#earlier-train:enabled")
    page.get_by_label("Their pseudonym").fill("P01")


class Trainer:
    """What supervisor and trainer say of the training that was asked for."""

    def __init__(self, room: Room) -> None:
        wait_until(lambda: bool(room.sent))
        self._room, self._header = room, room.sent[-1]
        assert self._header["action"] == "train"
        assert self._header["subject"] == "P01"

    def progress(self, done: float, what: str, seconds: float) -> None:
        told = {"from": "trainer", "t": 0.0, "asked": self._header["asked"]}
        self._room._receive("telemetry", {**told, "done": done, "what": what, "seconds": seconds})
        self.end("running")

    def end(self, state: str, message: str = "") -> None:
        training = {"asked": self._header["asked"], "subject": "P01"}
        training |= {"state": state, "message": message}
        header = {"from": "supervisor", "t": 0.0, "children": {}, "training": training}
        self._room._receive("telemetry", header)


def test_training_is_asked_for_shown_and_answered(
    page: Any, training_room: Room, folder: Path
) -> None:
    open_page(page, training_room)
    page.get_by_role("button", name="Train", exact=True).click()
    trainer = Trainer(training_room)
    page.wait_for_selector("#training:visible")
    wait_until(lambda: "not known yet" in text(page, "left"))
    trainer.progress(0.4, "Testing on runs that were held out.", 20.0)
    wait_until(lambda: text(page, "done-share") == "40 %")
    assert text(page, "what") == "Testing on runs that were held out."
    assert page.locator("#done").evaluate("bar => bar.value") == 0.4
    assert "About 30 seconds left." in text(page, "left")
    # Whoever comes later sees the same.
    page.reload()
    wait_until(lambda: text(page, "done-share") == "40 %")
    report = write_report(folder)
    trainer.end("finished")
    page.wait_for_selector("#report:visible")
    assert text(page, "answer") == report["sentence"]
    assert text(page, "report-honesty-word") == "simulated"
    rows = page.locator("#accuracy li").all_text_contents()
    assert rows == [
        "This decoder46 % 42 to 50 %", "Classical decoder31 % 27 to 35 %",
        "Shuffled EEG11 % 8.5 to 14 %", "Chance10 %",
    ]  # fmt: skip
    assert page.locator("#curve circle").count() == 4
    names = page.locator("#classes .name").all_text_contents()
    assert names == report["classes"]
    assert "else mostly taken for cat" in str(page.locator("#classes li").nth(1).text_content())
    assert "28 trials were repeats" in text(page, "dropped")
    assert page.locator("#warnings-part").is_hidden()
    assert text(page, "command") == (
        f"phosphene serve --bundle {folder / 'bundle'} --source simulated:"
    )
    assert page.locator("#not-above").is_hidden()


def test_bars_are_as_long_as_their_shares(page: Any, training_room: Room, folder: Path) -> None:
    write_report(folder)
    open_page(page, training_room)
    page.get_by_role("button", name="Show the answer").click()
    page.wait_for_selector("#report:visible")
    found = page.evaluate("""() => [...document.querySelectorAll("#accuracy li")].map((row) => {
      const box = (name) => row.querySelector(name)?.getBoundingClientRect();
      const [track, fill, whisker] = [".bar", ".fill", ".whisker"].map(box);
      return [fill.width, ...(whisker ? [whisker.left - track.left, whisker.width] : [])].map(
        (length) => length / track.width,
      );
    })""")
    # The axis ends at 60 %.
    for lengths, shares in zip(
        found, [(0.46, 0.42, 0.08), (0.31, 0.27, 0.08), (0.11, 0.085, 0.05), (0.1,)], strict=True
    ):
        assert lengths == pytest.approx([share / 0.6 for share in shares], abs=0.005)
    # On the curve, each dot lies in the middle of its interval.
    offsets = page.evaluate("""() => {
      const middle = (shape) => shape.getBoundingClientRect();
      const [dots, lines] = ["circle", ".interval"].map((kind) =>
        [...document.querySelectorAll(`#curve ${kind}`)].map(middle));
      return dots.map((dot, i) => [
        dot.x + dot.width / 2 - lines[i].x - lines[i].width / 2,
        dot.y + dot.height / 2 - lines[i].y - lines[i].height / 2,
        lines[i].height,
      ]);
    }""")
    assert len(offsets) == 4
    for across, up, height in offsets:
        assert (across, up) == pytest.approx((0, 0), abs=1)
        assert height > 10


def test_what_is_not_above_chance_says_so(page: Any, training_room: Room, folder: Path) -> None:
    write_report(
        folder,
        verdict="not above chance",
        honesty="live",
        warnings=["All trials of a class came together, so this score cannot be trusted."],
        baseline=None,
        learning_curve=[],
    )
    open_page(page, training_room)
    page.get_by_role("button", name="Show the answer").click()
    page.wait_for_selector("#not-above:visible")
    assert "cannot be trusted" in text(page, "warnings")
    assert page.locator("#accuracy li").count() == 3
    assert page.locator("#curve-part").is_hidden()
    # In sight wherever one looks.
    page.locator("#command").scroll_into_view_if_needed()
    assert page.evaluate("scrollY") > 0
    box = page.locator("#report-honesty").bounding_box()
    assert 0 <= box["y"] < 100


def test_without_a_bundle_it_is_said_why(page: Any, training_room: Room, folder: Path) -> None:
    write_report(folder, bundle="", no_bundle="The painter has no pictures of these classes.")
    open_page(page, training_room)
    page.get_by_role("button", name="Show the answer").click()
    page.wait_for_selector("#no-bundle:visible")
    assert page.locator("#watch").is_hidden()


def test_a_failure_is_said_and_training_begins_anew(page: Any, training_room: Room) -> None:
    open_page(page, training_room)
    page.get_by_role("button", name="Train", exact=True).click()
    trainer = Trainer(training_room)
    sentence = "The report cannot be written (No space left on device). Make room."
    trainer.end("failed", sentence)
    wait_until(lambda: text(page, "what") == sentence)
    page.get_by_role("button", name="Train again").click()
    wait_until(lambda: len(training_room.sent) == 2)
    # What is still said of the first is not taken for the second.
    trainer.end("failed", sentence)
    page.get_by_role("button", name="Stop").click()
    wait_until(lambda: training_room.sent[2:] == [{"action": "stop-training"}])
    Trainer.end(_second(training_room), "stopped")
    wait_until(lambda: text(page, "what") == "The training was stopped.")


def _second(room: Room) -> Trainer:
    trainer = Trainer.__new__(Trainer)
    trainer._room, trainer._header = room, room.sent[1]
    return trainer


def test_who_was_never_recorded_is_said(page: Any, training_room: Room) -> None:
    open_page(page, training_room)
    page.get_by_label("Their pseudonym").fill("P02")
    page.get_by_role("button", name="Train", exact=True).click()
    wait_until(lambda: "Nothing was recorded of P02" in text(page, "sentence"))
    page.get_by_role("button", name="Show the answer").click()
    wait_until(lambda: "There is no report for P02" in text(page, "sentence"))
    assert training_room.sent == []


def test_the_live_page_says_for_good_what_a_bundle_is_worth(page: Any) -> None:
    room = Room(FlashGuard(), bundle_says=f"This model {NOT_ABOVE} of what they see.").start()
    try:
        room.acquire()
        begin(page, room)
        wait_until(lambda: NOT_ABOVE in text(page, "bundle-says"))
        assert page.locator("#bundle-says").is_visible()
        page.set_viewport_size({"width": 390, "height": 720})
        assert page.locator("#bundle-says").is_visible()
    finally:
        room.close()


def test_operators_see_a_training_beside_the_live_pictures(page: Any, training_room: Room) -> None:
    training_room.acquire()
    begin(page, training_room, f"#operator={TOKEN}")
    assert page.locator("#bundle-says").is_hidden()
    training_room.relay._loop.call_soon_threadsafe(training_room.relay.train, "P01")
    wait_until(lambda: text(page, "training-now") == "Training for P01: 0 %")
    Trainer(training_room).end("stopped")
    page.wait_for_selector("#training-now", state="hidden")


def test_axe_finds_nothing_and_nothing_sticks_out(
    page: Any, training_room: Room, folder: Path
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def check() -> None:
        violations = axe.run(page).response["violations"]
        assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in violations] == []
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 720})
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    write_report(folder, warnings=["This score cannot be trusted."])
    open_page(page, training_room)
    page.get_by_role("button", name="Show the answer").click()
    page.wait_for_selector("#report:visible")
    check()
    page.get_by_role("button", name="Train again").click()
    page.wait_for_selector("#training:visible")
    check()
