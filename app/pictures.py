"""Render compositions of the 40 concepts from the Noto Color Emoji font.

The font (OFL, Debian package fonts-noto-color-emoji) is needed for training
pictures only; it is not part of this repository. `python -m app.pictures`
measures each glyph and rewrites the statistics in `acquisition/concepts.json`.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

import acquisition.stimuli
from acquisition.stimuli import Composition

FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
# The only bitmap size in the font.
FONT_SIZE = 109


class FontMissingError(Exception):
    """Noto Color Emoji is not installed."""


@cache
def _font() -> ImageFont.FreeTypeFont:
    for folder in FONT_FOLDERS:
        for path in Path(folder).expanduser().rglob("NotoColorEmoji.ttf"):
            return ImageFont.truetype(str(path), FONT_SIZE)
    raise FontMissingError(
        "The font Noto Color Emoji, needed to draw training pictures, was not found in "
        f"{', '.join(FONT_FOLDERS)}. On Debian: apt install fonts-noto-color-emoji."
    )


@cache
def glyph(code_point: str) -> Image.Image:
    """The emoji as an RGBA picture, cut to its bounding box."""
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 8), chr(int(code_point, 16)), font=_font(), embedded_color=True)
    return canvas.crop(canvas.getbbox())


def render(composition: Composition, pixels: int = 128) -> np.ndarray:
    """Draw a composition.

    Returns
    -------
    array of shape (pixels, pixels, 3), uint8 RGB.
    """
    c = composition
    grid = (np.arange(pixels) + 0.5) / pixels - 0.5
    along = math.cos(c.gradient_angle) * grid[None, :] + math.sin(c.gradient_angle) * grid[:, None]
    hsv = np.empty((pixels, pixels, 3), np.uint8)
    hsv[..., 0] = round(c.hue * 255) % 256
    hsv[..., 1] = round(c.saturation * 255)
    hsv[..., 2] = np.clip((c.value + c.gradient * along) * 255, 0, 255)
    picture = Image.fromarray(hsv, "HSV").convert("RGB")

    emoji = glyph(c.concept.code_point)
    if c.is_mirrored:
        emoji = emoji.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    emoji = emoji.rotate(math.degrees(c.rotation), Image.Resampling.BICUBIC, expand=True)
    scale = c.size * pixels / max(emoji.size)
    width, height = (max(1, round(s * scale)) for s in emoji.size)
    emoji = emoji.resize((width, height), Image.Resampling.LANCZOS)
    light = ImageEnhance.Brightness(emoji.convert("RGB")).enhance(c.light)
    corner = (round(c.x * pixels - width / 2), round(c.y * pixels - height / 2))
    picture.paste(light, corner, emoji.getchannel("A"))
    return np.asarray(picture)


def measure_glyph(code_point: str) -> dict[str, object]:
    """Colour and outline of a glyph, as stored in `concepts.json`."""
    rgba = np.asarray(glyph(code_point), np.float64) / 255
    alpha = rgba[..., 3]
    height, width = alpha.shape
    weight = alpha / alpha.sum()
    rgb = (rgba[..., :3] * weight[..., None]).sum((0, 1))
    luminance = (rgba[..., :3] @ [0.2126, 0.7152, 0.0722]) * alpha + 0.5 * (1 - alpha)
    gradient_y, gradient_x = np.gradient(luminance)
    y, x = np.mgrid[:height, :width].astype(float)
    x = x - (x * weight).sum()
    y = (y * weight).sum() - y
    covariance = np.array(
        [
            [(weight * x * x).sum(), (weight * x * y).sum()],
            [(weight * x * y).sum(), (weight * y * y).sum()],
        ]
    )
    values, vectors = np.linalg.eigh(covariance)
    return {
        "rgb": [round(float(v), 4) for v in rgb],
        "aspect": round(math.log(width / height), 4),
        "fill": round(float(alpha.mean()), 4),
        "edges": round(float(np.hypot(gradient_x, gradient_y).mean()), 4),
        "elongation": round(1 - math.sqrt(values[0] / values[1]), 4),
        "axis": round(math.atan2(vectors[1, 1], vectors[0, 1]) % math.pi, 4),
    }


def main() -> None:
    """Measure every glyph again and rewrite `acquisition/concepts.json`."""
    path = Path(acquisition.stimuli.__file__).with_name("concepts.json")
    rows = json.loads(path.read_text(encoding="utf-8"))
    for row in rows:
        row.update(measure_glyph(row["code_point"]))
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
