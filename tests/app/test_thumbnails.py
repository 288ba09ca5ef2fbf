import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from app.messages import Message
from app.session_state import SessionState
from app.thumbnails import SIDE, read_thumbnails


def test_pictures_become_small_addresses_and_damaged_ones_are_left_out(tmp_path: Path) -> None:
    Image.fromarray(np.full((300, 200, 3), 90, np.uint8)).save(tmp_path / "low 45°.png")
    Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(tmp_path / "cat 1.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    found = read_thumbnails(tmp_path)
    assert list(found) == ["cat 1", "low 45°"]
    kind, _, text = found["low 45°"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert max(image.size) == SIDE
    assert read_thumbnails(tmp_path / "missing") == {}


def test_the_page_is_told_the_picture_of_what_is_seen() -> None:
    known = {"low 45°": "data:image/png;base64,AA", "cat 1": "data:image/png;base64,BB"}
    state = SessionState("file:x.csv", "gratings", known)
    state.add(Message("telemetry", {"from": "acquisition", "t": 0.0, "state": "running",
                                    "message": ""}, b""))  # fmt: skip
    for label, picture in (("onset/low 45°", "data:image/png;base64,AA"), ("onset/other", "")):
        state.add(Message("marker", {"label": label, "timestamp": 1.0, "details": {}}, b""))
        assert state.to_dict(1.0)["seen"]["picture"] == picture
    # A concept has several pictures: the marker says which.
    details = {"picture": "cat 1"}
    state.add(Message("marker", {"label": "onset/cat", "timestamp": 2.0, "details": details}, b""))
    seen = state.to_dict(2.0)["seen"]
    assert (seen["name"], seen["picture"]) == ("cat", known["cat 1"])
