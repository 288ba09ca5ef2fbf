"""The image files that were shown, found by what a marker says of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from acquisition.source import Marker
from app.errors import SettingsError
from app.picture_shards import PictureShards
from app.skipped import Skipped

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read_image(path: Path, pixels: int) -> np.ndarray:
    """The square in the middle of an image file, scaled.

    Returns
    -------
    array of shape (pixels, pixels, 3), uint8 RGB.

    Raises
    ------
    OSError, ValueError
        The file is missing, damaged or no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata; what is damaged is raised
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
        except (SyntaxError, Image.DecompressionBombError) as error:  # as PIL's readers say it
            raise ValueError(str(error)) from error
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((pixels, pixels), Image.Resampling.LANCZOS))


class StimulusImages:
    """Image files as pictures of a prepared set, each written once, when it is first wanted.

    Parameters
    ----------
    shards : where pictures are written.
    skipped : told of images that are missing or damaged.
    """

    def __init__(self, shards: PictureShards, skipped: Skipped) -> None:
        self._shards, self._skipped = shards, skipped
        self._ids: dict[Path, int | None] = {}

    def id_of(self, path: Path, label: int, caption: str) -> int | None:
        """The picture's id, or None where the file is missing or damaged."""
        if path not in self._ids:
            try:
                image = read_image(path, self._shards.pixels)
                self._ids[path] = self._shards.append(image, label, caption)
            except (OSError, ValueError):
                self._ids[path] = None
        if self._ids[path] is None:
            state = "is damaged" if path.is_file() else "is missing"
            self._skipped.add(f"the image {state}", path.name)
        return self._ids[path]


class StimulusNames:
    """A folder of stimuli: sub-folders are classes, and markers name the files.

    A marker may say the file's stem (`cat_01`), its name (`cat_01.jpg`) or its path in the
    folder with or without the ending (`animals/cat_01`), each also behind `onset/`. An image
    that lies in no sub-folder is a class of its own.

    Parameters
    ----------
    folder : of the stimuli.

    Raises
    ------
    SettingsError
        The folder is missing or holds no image.
    """

    def __init__(self, folder: Path) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise SettingsError(
                f"--stimuli expects a folder of images ({', '.join(SUFFIXES)}); {folder} "
                f"{'holds none' if folder.is_dir() else 'is no folder'}. Give another."
            )
        self.folder = folder
        self.class_of: dict[Path, str] = {}
        self._paths: dict[str, set[Path]] = {}
        for path in paths:
            inside = path.relative_to(folder)
            self.class_of[path] = inside.parts[0] if len(inside.parts) > 1 else path.stem
            for name in (inside.as_posix(), inside.with_suffix("").as_posix()):
                for key in (name, name.rpartition("/")[2]):
                    self._paths.setdefault(key, set()).add(path)

    def find(self, label: str) -> Path | None:
        """The image that a marker names, or None.

        Raises
        ------
        SettingsError
            Several images have the name that the marker says.
        """
        found = self._paths.get(label.strip().replace("\\", "/").removeprefix("onset/"))
        if found and len(found) > 1:
            raise SettingsError(
                f"The marker '{label}' may mean {' or '.join(sorted(map(str, found)))}. "
                "Give every image a name of its own, or name the sub-folder in the marker."
            )
        return next(iter(found)) if found else None


class StimulusFolder:
    """The images of a folder of stimuli as pictures of a prepared set; see `StimulusNames`.

    Parameters
    ----------
    folder : of the stimuli.
    images : where they go.
    skipped : told of markers that name no image.
    numbers : of the markers that count, by their text; empty: all but `offset` count, and
        the label is the class's number in alphabetical order.

    Raises
    ------
    SettingsError
        The folder is missing or holds no image.
    """

    def __init__(
        self, folder: Path, images: StimulusImages, skipped: Skipped, numbers: dict[str, int]
    ) -> None:
        self._names = StimulusNames(folder)
        self._images, self._skipped, self._numbers = images, skipped, numbers
        classes = sorted(set(self._names.class_of.values()))
        self.labels = numbers or {name: number for number, name in enumerate(classes)}

    def __call__(self, marker: Marker) -> tuple[int, int] | None:
        """Label and picture of a marker; None where its epochs are not wanted.

        Raises
        ------
        SettingsError
            Several images have the name that the marker says.
        """
        if marker.label == "offset" or (self._numbers and marker.label not in self._numbers):
            return None
        path = self._names.find(marker.label)
        if path is None:
            self._skipped.add("no image of that name is in the folder of stimuli", marker.label)
            return None
        name = self._names.class_of[path]
        label = self._numbers[marker.label] if self._numbers else self.labels[name]
        image_id = self._images.id_of(path, label, name)
        return None if image_id is None else (label, image_id)
