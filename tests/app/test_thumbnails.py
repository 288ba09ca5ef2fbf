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
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    found = read_thumbnails(tmp_path)
    assert list(found) == ["low 45°"]
    kind, _, text = found["low 45°"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        assert max(image.size) == SIDE
    assert read_thumbnails(tmp_path / "missing") == {}


def test_the_page_is_told_the_picture_of_what_is_seen() -> None:
    state = SessionState("file:x.csv", "gratings", {"low 45°": "data:image/png;base64,AA"})
    state.add(Message("telemetry", {"from": "acquisition", "t": 0.0, "state": "running",
                                    "message": ""}, b""))  # fmt: skip
    for label, picture in (("onset/low 45°", "data:image/png;base64,AA"), ("onset/other", "")):
        state.add(Message("marker", {"label": label, "timestamp": 1.0, "details": {}}, b""))
        assert state.to_dict(1.0)["seen"]["picture"] == picture
