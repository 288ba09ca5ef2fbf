"""Frames as files, beside what was seen: a film, a contact sheet, and each as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from app.recorded_session import Seen
from app.stimulus_images import SUFFIXES, read_image

# Pixels of a picture's side in the film, at least; of the line of words; and between pictures.
SIDE, LINE, GAP = 256, 24, 8
# Of the contact sheet: pictures at most, columns, and the side of each with what was seen.
MOST, COLUMNS, TILE = 48, 4, 96
# Frames a second of the film at most, and ticks of its clock.
RATE, TICKS = 30, 1000
BACKGROUND, WORDS = (24, 24, 24), (220, 220, 220)
WITHOUT_AV = (
    "No film will be written, as PyAV is missing: install it with `pip install av`. The contact "
    "sheet and the frames are written without it."
)


class Film:
    """Writes `frames/00001.png` and so on, `contact.jpg`, and `session.mp4` where PyAV is there.

    Parameters
    ----------
    folder : that they are written to.
    n_frames : that will come at most, so that the contact sheet's are spread over all of them.
    stimuli : folder of the pictures that were seen, if they are known.
    say : told what is not written.
    """

    def __init__(
        self, folder: Path, n_frames: int, stimuli: Path | None, say: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._every = max(1, math.ceil(n_frames / MOST))
        self._n = 0
        self._tiles: list[Image.Image] = []
        self._movie = _open_movie(folder / "session.mp4", say)
        paths = [] if stimuli is None else sorted(stimuli.iterdir())
        self._paths = {p.stem: p for p in paths if p.suffix.lower() in SUFFIXES}
        self._seen = lru_cache(MOST)(self._draw_seen)
        (folder / "frames").mkdir()

    def add(self, t: float, rgb: np.ndarray, seen: Seen, honesty: str) -> None:
        """Take a frame (H, W, 3), uint8, that was made at session time `t`."""
        self._n += 1
        note = PngInfo()
        note.add_text("Source", f"Made from EEG: {honesty}")
        picture = Image.fromarray(rgb)
        picture.save(self._folder / "frames" / f"{self._n:05}.png", pnginfo=note)
        is_on_sheet = self._n % self._every == 1 % self._every
        if not (self._movie or is_on_sheet):
            return
        pair = self._pair(picture, seen, honesty)
        if self._movie:
            self._movie.add(t, pair)
        if is_on_sheet:
            pair.thumbnail((2 * TILE + GAP, TILE + LINE))
            self._tiles.append(pair)

    def _pair(self, picture: Image.Image, seen: Seen, honesty: str) -> Image.Image:
        side = _shown_side(picture.height)
        pair = Image.new("RGB", (2 * side + GAP, side + LINE), BACKGROUND)
        pair.paste(picture.resize((side, side), Image.Resampling.NEAREST), (0, 0))
        pair.paste(self._seen(seen, side), (side + GAP, 0))
        draw = ImageDraw.Draw(pair)
        draw.text((4, side + 5), f"made from {honesty} EEG", WORDS, _font())
        draw.text((side + GAP + 4, side + 5), f"seen: {seen.name or 'nothing'}", WORDS, _font())
        return pair

    def _draw_seen(self, seen: Seen, side: int) -> Image.Image:
        """The picture, or the name of its class where it is not known."""
        if path := self._paths.get(seen.picture):
            try:
                return Image.fromarray(read_image(path, side))
            # Nothing depends on it.
            except (OSError, ValueError):
                pass
        drawn = Image.new("RGB", (side, side), BACKGROUND)
        middle = side // 2, side // 2
        ImageDraw.Draw(drawn).text(middle, seen.name, WORDS, _font(), anchor="mm")
        return drawn

    def _write_sheet(self) -> None:
        width, height = self._tiles[0].size
        n_rows = -(-len(self._tiles) // COLUMNS)
        size = COLUMNS * (width + GAP) + GAP, n_rows * (height + GAP) + GAP
        sheet = Image.new("RGB", size, BACKGROUND)
        for i, tile in enumerate(self._tiles):
            row, column = divmod(i, COLUMNS)
            sheet.paste(tile, (GAP + column * (width + GAP), GAP + row * (height + GAP)))
        sheet.save(self._folder / "contact.jpg", quality=90)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._movie:
            self._movie.close()
        if self._tiles:
            self._write_sheet()


class _Movie:
    """H.264 in MP4, each frame for as long as it was shown."""

    def __init__(self, av: Any, path: Path) -> None:
        self._av = av
        self._container = av.open(str(path), "w")
        self._stream: Any = None
        self._t_first = 0.0
        self._last = -1

    def add(self, t: float, picture: Image.Image) -> None:
        """Show a picture from session time `t` on."""
        if self._stream is None:
            self._t_first = t
            self._stream = self._container.add_stream("libx264", rate=RATE)
            self._stream.width, self._stream.height = picture.size
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, TICKS)
        frame = self._av.VideoFrame.from_image(picture)
        # Times must rise; two frames of the same millisecond do not occur live.
        self._last = max(self._last + 1, round((t - self._t_first) * TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is still being encoded, and the end."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


def _open_movie(path: Path, say: Callable[[str], None]) -> _Movie | None:
    try:
        import av
    except ImportError:
        say(WITHOUT_AV)
        return None
    return _Movie(av, path)


def _shown_side(side: int) -> int:
    """Whole times the picture's own, and even, as H.264 wants it."""
    shown = side * max(1, SIDE // side)
    return shown + shown % 2


@lru_cache(1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)
