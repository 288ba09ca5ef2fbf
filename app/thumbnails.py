"""Small pictures of what a subject may be shown, for the page's "Seen"."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

# 64 x 64 pixels are far below the area in which flashes count (WCAG 2.3.1: 21,824).
SIDE = 64
MOST = 256


def read_thumbnails(folder: Path) -> dict[str, str]:
    """PNG and JPEG files of a folder as `data:` addresses by the files' names without ending.

    Parameters
    ----------
    folder : `stimuli` of a bundle; a missing one holds none. What is damaged is left out,
        since nothing depends on it.
    """
    thumbnails = {}
    paths = [p for p in folder.glob("*") if p.suffix in (".png", ".jpg")]
    for path in sorted(paths)[:MOST]:
        try:
            with Image.open(path) as image:
                small = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        small.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        small.save(out, "PNG")
        text = base64.b64encode(out.getvalue()).decode("ascii")
        thumbnails[path.stem] = f"data:image/png;base64,{text}"
    return thumbnails
