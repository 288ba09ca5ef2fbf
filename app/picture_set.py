"""The pictures that are presented: a bundle's stimuli, or a folder with a folder for each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acquisition.stimuli import concepts, read_stimuli
from app.bundle import STIMULI
from app.errors import SettingsError

ENDINGS = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class StimulusPicture:
    """A picture and what it shows.

    Attributes
    ----------
    name : of the picture, unlike any other's of the set.
    class_name : of what it shows.
    label : number of the class.
    path : of the file.
    """

    name: str
    class_name: str
    label: int
    path: Path


PictureSet = tuple[StimulusPicture, ...]


def find_pictures(folder: str, bundle: Path) -> PictureSet:
    """The pictures of a setting's folder; where it is "", the stimuli of the bundle, if any.

    Raises
    ------
    SettingsError
        The folder is missing, or holds pictures of fewer than two classes.
    """
    if folder:
        return read_pictures(Path(folder).expanduser())
    stimuli = bundle / STIMULI
    return read_pictures(stimuli) if stimuli.is_dir() else ()


def read_pictures(folder: Path) -> PictureSet:
    """The pictures of a folder: with `stimuli.json` as a bundle's, else a folder for each class.

    Raises
    ------
    SettingsError
        The folder is missing, or holds pictures of fewer than two classes.
    """
    if not folder.is_dir():
        raise SettingsError(
            f"There is no folder of pictures at {folder.absolute()}. Name one with --pictures."
        )
    is_of_bundle = (folder / "stimuli.json").is_file()
    pictures = _of_bundle(folder) if is_of_bundle else _of_folders(folder)
    n_classes = len({picture.label for picture in pictures})
    if n_classes < 2:
        raise SettingsError(
            f"{folder} holds pictures of {n_classes} classes; at least two are needed. Put "
            "JPEG or PNG files into one folder for each class, as cat/1.jpg and dog/1.jpg."
        )
    return pictures


def _of_bundle(folder: Path) -> PictureSet:
    files = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in ENDINGS}
    return tuple(
        StimulusPicture(name, concepts()[shown.label].name, shown.label, files[name])
        for name, shown in read_stimuli(folder).items()
        if name in files
    )


def _of_folders(folder: Path) -> PictureSet:
    by_class = {
        inner.name: sorted(p for p in inner.iterdir() if p.suffix.lower() in ENDINGS)
        for inner in sorted(folder.iterdir())
        if inner.is_dir()
    }
    classes = [name for name, paths in by_class.items() if paths]
    return tuple(
        StimulusPicture(f"{name}/{path.name}", name, label, path)
        for label, name in enumerate(classes)
        for path in by_class[name]
    )
