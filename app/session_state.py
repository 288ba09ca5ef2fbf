"""What the server knows of the session, from everyone's telemetry and the markers."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, cast, get_args

from acquisition.stimuli import concepts
from app.messages import Message
from app.summary import percentiles

Action = Literal["pause", "resume", "stop"]


def to_action(found: object) -> Action:
    """What a request asks for; ValueError, in a sentence, if there is no such action."""
    for action in get_args(Action):
        if found == action:
            return cast(Action, action)
    raise ValueError(f"There is no action {found!r}; use {', '.join(get_args(Action))}.")


# Newest latency samples that the percentiles on the page are of: two minutes at 4 per second.
WINDOW = 512

# Seconds over which pictures per second are counted.
RATE_SPAN = 5.0

# Telemetry comes four times a second; a child silent for this long (seconds) is down.
SILENCE = 3.0

NOT_HEARD: dict[str, Any] = {"t": float("-inf"), "state": "starting", "message": ""}

# The worker's libraries load for seconds before it can say so itself.
WORKER_NOT_HEARD = {**NOT_HEARD, "message": "The bundle is being loaded."}


@cache
def _characters() -> dict[str, str]:
    return {concept.name: concept.character for concept in concepts()}


class SessionState:
    """What the page shows beside pictures and traces; used by the event loop alone.

    Parameters
    ----------
    source, bundle : as the settings name them.
    thumbnails : addresses of small pictures, by the name of what is shown.
    bundle_says : what everyone must know of the bundle (`app.personal`).
    """

    def __init__(
        self,
        source: str,
        bundle: str,
        thumbnails: Mapping[str, str] | None = None,
        bundle_says: str = "",
    ) -> None:
        self._bundle_says = bundle_says
        self._thumbnails = thumbnails or {}
        self._source = source
        self._bundle = bundle
        self._acquisition = NOT_HEARD
        self._worker = WORKER_NOT_HEARD
        self._children: dict[str, dict[str, Any]] = {}
        self._recorder: dict[str, Any] = {}
        self._trainer: dict[str, Any] = {}
        self._training: dict[str, Any] | None = None
        self._seen: dict[str, Any] | None = None
        self._latency = {name: deque[float](maxlen=WINDOW) for name in ("painted", "drawn")}
        self._painted: deque[tuple[float, int]] = deque()
        self._is_paused_wanted: bool | None = None

    def add(self, message: Message) -> bool:
        """Take in telemetry or a marker.

        Returns
        -------
        whether people should be told at once, rather than with the next state.
        """
        before = self._urgent
        header = message.header
        if message.type == "marker":
            self._add_marker(header)
        elif header["from"] == "acquisition":
            self._acquisition = header
        elif header["from"] == "worker":
            self._worker = header
            self._latency["painted"].extend(header["painted_ms"])
            self._add_count(header["t"], header["frames_painted"])
        elif header["from"] == "recorder":
            self._recorder = header
        elif header["from"] == "trainer":
            self._trainer = header
        elif header["from"] == "supervisor":
            self._children = header["children"]
            self._set_training(header.get("training"))
        return before != self._urgent

    @property
    def _urgent(self) -> tuple[Any, ...]:
        return self.sentence, self.is_paused, self._seen, self._children, self._training

    @property
    def recording(self) -> dict[str, Any] | None:
        """What is being recorded, for everyone to see; None where nothing is."""
        child = self._children.get("recorder")
        if child is None or child["state"] == "failed":
            return None
        last = self._recorder
        return {name: last.get(name, 0) for name in ("seconds", "n_missed")}

    @property
    def recording_file(self) -> str:
        """Where the newest recording lies; "" where there was none."""
        return str(self._recorder.get("file", ""))

    @property
    def training(self) -> dict[str, Any] | None:
        """The newest training, for the operator; None where there was none.

        `state` is running, finished, stopped or failed (then `message` says why); `done` is 0 to 1,
        `seconds` the time that this took.
        """
        if self._training is None:
            return None
        told = self._trainer if self._trainer.get("asked") == self._training["asked"] else {}
        progress = {"done": 0.0, "what": "", "seconds": 0.0}
        progress = {name: told.get(name, value) for name, value in progress.items()}
        return {**{n: self._training[n] for n in ("subject", "state", "message")}, **progress}

    @property
    def is_training(self) -> bool:
        """Whether a training goes on."""
        return self._training is not None and self._training["state"] == "running"

    def ask_training(self, subject: str, asked: float) -> None:
        """Remember that the operator wants one, at session time `asked`."""
        self._training = {"subject": subject, "asked": asked, "state": "running", "message": ""}

    def _set_training(self, told: dict[str, Any] | None) -> None:
        # The supervisor may still tell of the one before.
        if told and (self._training is None or told["asked"] >= self._training["asked"]):
            self._training = told

    def add_drawn(self, samples_ms: list[float]) -> None:
        """Take in first-use latencies."""
        self._latency["drawn"].extend(samples_ms)

    def _add_marker(self, header: dict[str, Any]) -> None:
        kind, _, name = header["label"].partition("/")
        if kind == "onset":
            self._seen = {
                "name": name,
                "character": _characters().get(name, ""),
                "picture": self._thumbnails.get(header["details"].get("picture", name), ""),
                "is_on": True,
                "t": header["timestamp"],
            }
        elif kind == "offset" and self._seen:
            self._seen = {**self._seen, "is_on": False, "t": header["timestamp"]}

    def _add_count(self, t: float, n_painted: int) -> None:
        if self._painted and n_painted < self._painted[-1][1]:
            self._painted.clear()  # the worker began again
        self._painted.append((t, n_painted))
        while t - self._painted[0][0] > RATE_SPAN:
            self._painted.popleft()

    @property
    def frames_per_second(self) -> float:
        """Pictures painted per second, over the last `RATE_SPAN`."""
        if len(self._painted) < 2:
            return 0.0
        (t_first, n_first), (t_last, n_last) = self._painted[0], self._painted[-1]
        return round((n_last - n_first) / max(t_last - t_first, 1e-3), 2)

    @property
    def is_paused(self) -> bool:
        """As the operator wants it, also while the worker is being started again."""
        if self._is_paused_wanted is None:
            return self._is_worker_paused
        return self._is_paused_wanted

    @property
    def _is_worker_paused(self) -> bool:
        return bool(self._worker.get("is_paused", False))

    def ask(self, action: Action) -> None:
        """Remember what the operator wants."""
        if action != "stop":
            self._is_paused_wanted = action == "pause"

    @property
    def overdue(self) -> Action | None:
        """What the operator asked for and the worker does not do: it was started again."""
        wanted = self._is_paused_wanted
        if self._worker is WORKER_NOT_HEARD or wanted in (None, self._is_worker_paused):
            return None
        return "pause" if wanted else "resume"

    @property
    def sentence(self) -> str:
        """The most important thing that people should know, or ""."""
        for role, child in self._children.items():
            message = child["message"] or f"The {role} process has ended."
            if child["state"] == "restarting":
                return f"{message} It is being started again."
            if child["state"] == "failed":
                return str(message)
        return str(self._acquisition["message"] or self._worker["message"])

    def _is_acquiring(self, t: float) -> bool:
        last = self._acquisition
        return last["state"] != "finished" and t - float(last["t"]) < SILENCE

    def health(self, t: float) -> tuple[bool, dict[str, Any]]:
        """Whether pictures can be made at session time `t`, and how the children are."""
        report = {"server": {"state": "running", "message": ""}}
        is_well = True
        for role, last in (("acquisition", self._acquisition), ("worker", self._worker)):
            child = self._children.get(role, {"state": "running", "message": ""})
            state, message = last["state"], last["message"]
            if child["state"] != "running":
                state, message = child["state"], child["message"]
            elif state != "starting" and t - last["t"] > SILENCE:
                state = "silent"
            report[role] = {"state": state, "message": message}
            is_well &= state in ("running", "ready", "finished", "stalled", "reconnecting")
        return is_well, report

    def to_dict(self, t: float) -> dict[str, Any]:
        """Header of a `state` message at session time `t`, but for what the viewers add.

        `viewers` and `is_operator` are theirs.
        """
        acquisition = self._acquisition
        info = acquisition.get("info") or {}
        return {
            "honesty": info.get("honesty", ""),
            "source": info.get("name") or self._source,
            "ch_names": info.get("ch_names", []),
            "sfreq": info.get("sfreq", 0.0),
            "bundle": self._worker.get("bundle") or self._bundle,
            "bundle_says": self._bundle_says,
            "fidelity": acquisition.get("fidelity"),
            "fidelity_text": acquisition.get("fidelity_text", ""),
            "drift": self._worker.get("drift"),
            "children": self._children or self.health(t)[1],
            "sentence": self.sentence,
            "quality": acquisition.get("quality", []),
            "seen": self._seen if self._is_acquiring(t) else None,
            "latency_ms": {name: percentiles(values) for name, values in self._latency.items()},
            "frames_per_second": self.frames_per_second,
            "is_paused": self.is_paused,
            "recording": self.recording,
            "samples_in": acquisition.get("samples_in", 0),
            "samples_lost": acquisition.get("samples_lost", 0),
        }
