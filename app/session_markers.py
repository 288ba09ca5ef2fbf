"""The markers of a session's file: what a person saw, and when it went."""

from __future__ import annotations

import json

from acquisition.channels import Channel
from acquisition.xdf_writer import StreamHeader

MARKERS = StreamHeader("Markers", "Markers", "string", 0.0, [Channel("marker")])
ONSET, OFFSET = "onset/", "offset"


def onset_text(
    name: str, number: int, picture: str, trial: int, run: int, is_catch: bool = False
) -> str:
    """The sample of the stream `MARKERS` that says that a picture appeared.

    `label` is the marker's own text, as the recorder has it, so that the class's number needs
    another name.

    Parameters
    ----------
    name, number : of the class.
    picture : its name.
    trial : counted from 0 over the session.
    run : from 0; runs are never shared by training and test.
    is_catch : whether the picture repeats the one before, to be noticed.

    >>> onset_text("cat", 1, "cat_01", 7, 0)
    '{"label": "onset/cat", "number": 1, "picture": "cat_01", "trial": 7, "run": 0, "is_catch": \
false}'
    """
    details = {"number": number, "picture": picture, "trial": trial, "run": run}
    return json.dumps({"label": f"{ONSET}{name}", **details, "is_catch": is_catch})
