"""The recorder process: what is on the bus into an XDF file, see docs/recordings.md.

It is off until an operator asks for it and says that the person agreed. What is on the bus waits
for it in a bounded queue, so that a slow disk holds up nothing; what did not fit is counted.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np

from acquisition.channels import Channel
from acquisition.xdf_writer import StreamHeader, XDFWriter, numbers, text
from app.bus import Bus, Subscriber, Topic
from app.child import begin_child
from app.errors import SettingsError, SummaryError
from app.messages import Message, pack

REQUEST = "recording.json"
CONSENT = (
    "The person agreed that their EEG and what they were shown is recorded under this pseudonym "
    "and kept until the date given."
)
MOST_DAYS = 3650
# Messages of raw EEG that wait: 40 s.
DEPTH = 512
# Seconds between clock offsets, marks in the file, and telemetry.
OFFSETS_PERIOD, MARKS_PERIOD, TELEMETRY_PERIOD = 5.0, 10.0, 0.5
_PSEUDONYM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
# Of the header: as older programs read them, names of elements have no spaces.
_PROGRAM = "Phosphene"


def is_pseudonym(name: str) -> bool:
    """Whether a person's folder may have this name.

    >>> is_pseudonym("P01"), is_pseudonym("../P01")
    (True, False)
    """
    return bool(_PSEUDONYM.fullmatch(name))


@dataclass(frozen=True, slots=True)
class Request:
    """What an operator says before a recording begins.

    Attributes
    ----------
    subject : pseudonym of the person.
    keep_days : after which the recording is to be deleted.
    has_consent : whether the person agreed, see `CONSENT`.

    Raises
    ------
    SettingsError
        The person did not agree, or a value makes no sense.
    """

    subject: str
    keep_days: int
    has_consent: bool

    def __post_init__(self) -> None:
        if self.has_consent is not True:
            raise SettingsError(
                "EEG is recorded only of a person who agreed to it. Ask them, then say so (a mark "
                "in the page, --consented on the command line)."
            )
        if not isinstance(self.subject, str) or not is_pseudonym(self.subject):
            raise SettingsError(
                "A pseudonym has 1 to 32 letters, digits, - and _, and begins with no sign, as "
                f"P01; found {self.subject!r}."
            )
        if type(self.keep_days) is not int or not 1 <= self.keep_days <= MOST_DAYS:
            raise SettingsError(
                f"A recording is kept for 1 to {MOST_DAYS} days, not {self.keep_days!r}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read JSON values; what is missing makes no sense."""
        names = ("subject", "keep_days", "has_consent")
        return cls(*(values.get(name) for name in names))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def new_file(folder: Path, request: Request, now: datetime) -> Path:
    """Where a recording that begins now is written: a folder for each pseudonym.

    Raises
    ------
    SummaryError
        The folder cannot be made.
    """
    try:
        (folder / request.subject).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SummaryError(
            f"Recordings cannot be written to {folder} ({error.strerror}). Name a folder that can "
            "be made with --recordings."
        ) from error
    stem = now.strftime("%Y-%m-%dT%H-%M-%S")
    path, n = folder / request.subject / f"{stem}.xdf", 2
    while path.exists():
        path, n = path.with_name(f"{stem}-{n}.xdf"), n + 1
    return path


class Recorder:
    """Writes what the other processes publish; used by one thread.

    Parameters
    ----------
    path : of the file, which must not exist.
    request : of the operator.
    send : publishes packed telemetry.
    today : when it begins.
    clock : of the session.

    Raises
    ------
    SummaryError
        The file cannot be made; later, by any call, there is no room any more.
    """

    def __init__(
        self,
        path: Path,
        request: Request,
        send: Callable[[bytes], None],
        today: date,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._send, self._clock = path, send, clock
        self._n_samples = self._n_segments = 0
        self._raw, self._painter = _Numbered(), _Numbered()
        # Of the segment: its stream, its samples, and the index of the next on the source's grid.
        self._eeg = self._n_in_segment = 0
        self._next_sample: int | None = None
        self._quality: list[Any] = []
        self._began = clock()
        self._offsets_at = self._marked_at = self._told_at = self._began
        until = today + timedelta(days=request.keep_days)
        notes = {
            "program": _PROGRAM,
            "subject": request.subject,
            "recorded_on": today.isoformat(),
            "keep_until": until.isoformat(),
            "consent": CONSENT,
        }
        try:
            self._writer = XDFWriter(path, notes)
            self._markers = self._writer.add_stream(_texts("Markers", "Markers", "marker"))
            self._qualities = self._writer.add_stream(_texts("Quality", "Quality", "json"))
            self._stimuli = self._writer.add_stream(_texts("Stimuli", "Stimuli", "json"))
            self._paintings = self._writer.add_stream(_texts("Painter", "Painter", "json"))
            self._segments = self._writer.add_stream(_texts("Segments", "Segments", "json"))
        except OSError as error:
            raise self._cannot(error) from error

    def run(self, incoming: Subscriber, is_ending: Callable[[], bool]) -> None:
        """Write until it shall end, and then what still waits."""
        while not is_ending():
            if message := incoming.receive(TELEMETRY_PERIOD / 2):
                self.take_in(message)
            self.tick()
        while message := incoming.receive(0):
            self.take_in(message)

    def take_in(self, message: Message) -> None:
        """Write what a message of the bus says."""
        header = message.header
        try:
            if message.type == "raw":
                self._add_raw(header, message.payload)
            elif message.type == "marker":
                self._writer.add_text(self._markers, header["timestamp"], _marker_text(header))
            elif message.type == "stimulus":
                self._writer.add_text(self._stimuli, header["t"], json.dumps(header))
            elif message.type == "painter":
                self._painter.take(header["process"], header["number"])
                line = json.dumps({**header["event"], "number": header["number"]})
                self._writer.add_text(self._paintings, header["t"], line)
            elif header.get("from") == "acquisition" and header.get("quality") != self._quality:
                self._quality = header["quality"]
                self._writer.add_text(self._qualities, header["t"], json.dumps(self._quality))
        except OSError as error:
            raise self._cannot(error) from error

    def _add_raw(self, header: Mapping[str, Any], payload: bytes | memoryview) -> None:
        if self._raw.take(header["began"], header["number"]):
            self._begin_segment(header)
        n, first_sample = header["n_times"], header["first_sample"]
        timestamps = np.frombuffer(payload, np.float64, n)
        samples = np.frombuffer(payload, np.float32, offset=timestamps.nbytes)
        pieces = [numbers(self._eeg, timestamps, samples.reshape(-1, n))]
        if first_sample != self._next_sample:
            place = {
                "segment": self._n_segments,
                "sample": self._n_in_segment,
                "first_sample": first_sample,
            }
            pieces.insert(0, text(self._segments, float(timestamps[0]), json.dumps(place)))
        self._writer.add(*pieces)
        self._n_in_segment += n
        self._n_samples += n
        self._next_sample = first_sample + n

    def _begin_segment(self, header: Mapping[str, Any]) -> None:
        """A stream of its own: an acquisition that begins again may have other electrodes."""
        self._n_segments += 1
        self._n_in_segment, self._next_sample = 0, None
        info, segment = header["info"], self._n_segments
        name = info["name"] if segment == 1 else f"{info['name']} (segment {segment})"
        channels = [Channel(name, "EEG", "microvolts") for name in info["ch_names"]]
        notes = {
            "segment": str(segment),
            "honesty": info["honesty"],
            "began": repr(header["began"]),
        }
        self._eeg = self._writer.add_stream(
            StreamHeader(name, "EEG", "float32", info["sfreq"], channels, notes)
        )

    def tick(self) -> None:
        """Write what is due by time, and tell how it goes."""
        t = self._clock()
        try:
            if t - self._offsets_at >= OFFSETS_PERIOD:
                self._offsets_at = t
                # All streams are on the session clock already.
                for stream in range(1, self._writer.n_streams + 1):
                    self._writer.add_clock_offset(stream, t, 0.0)
            if t - self._marked_at >= MARKS_PERIOD:
                self._marked_at = t
                self._writer.mark()
        except OSError as error:
            raise self._cannot(error) from error
        if t - self._told_at >= TELEMETRY_PERIOD:
            self.tell()

    def tell(self) -> None:
        """Publish telemetry."""
        self._told_at = self._clock()
        header = {
            "from": "recorder",
            "t": self._told_at,
            "state": "running",
            "message": "",
            "file": str(self._path),
            "seconds": round(self._told_at - self._began, 1),
            "n_samples": self._n_samples,
            "n_missed": self._raw.n_missed + self._painter.n_missed,
            "n_segments": self._n_segments,
        }
        self._send(pack("telemetry", header))

    def close(self) -> None:
        """Write the footers; without room for them the file is whole, too."""
        try:
            self._writer.close()
        except OSError as error:
            raise self._cannot(error) from error

    def _cannot(self, error: OSError) -> SummaryError:
        return SummaryError(
            f"The recording {self._path} cannot be written ({error.strerror}). What was written "
            "before is whole. Make room, or name another folder with --recordings, and start it "
            "again."
        )


class _Numbered:
    """Counts the messages that were sent and did not come.

    Attributes
    ----------
    n_missed : of all senders.
    """

    def __init__(self) -> None:
        self.n_missed = 0
        self._sender: float | None = None
        self._next = 0

    def take(self, sender: float, number: int) -> bool:
        """Whether this sender's message is its first here; others may have gone before it."""
        is_first = sender != self._sender
        if not is_first:
            self.n_missed += number - self._next
        self._sender, self._next = sender, number + 1
        return is_first


def _marker_text(header: Mapping[str, Any]) -> str:
    """A marker's label, or JSON of it and what else is known."""
    label, details = header["label"], header["details"]
    # The number of its class is called as it is: it would hide the marker's own label.
    named = {"number" if name == "label" else name: value for name, value in details.items()}
    return json.dumps({"label": label, **named}) if details else str(label)


def _texts(name: str, kind: str, label: str) -> StreamHeader:
    return StreamHeader(name, kind, "string", 0.0, [Channel(label)])


def main() -> None:
    """Run as the child process `recorder`."""
    with begin_child("recorder") as child, Bus(child.folder, "recorder") as bus:
        asked = (child.folder / REQUEST).read_text(encoding="utf-8")
        request = Request.from_dict(json.loads(asked))
        topics: tuple[Topic, ...] = ("raw", "marker", "stimulus", "painter", "telemetry")
        incoming = bus.subscriber(*topics, depth=DEPTH)
        path = new_file(Path(child.settings.recordings), request, datetime.now().astimezone())
        today = datetime.now(UTC).date()
        recorder = Recorder(path, request, bus.publisher("telemetry").send, today)
        try:
            recorder.tell()
            try:
                recorder.run(incoming, child.stop.is_set)
            finally:
                recorder.close()
        except SummaryError as error:
            # Told also while ending: samples that waited found no room.
            child.fail(error)
        recorder.tell()


if __name__ == "__main__":
    main()
