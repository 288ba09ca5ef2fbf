"""The painter, imported without what diffusers brings along and nothing here paints with."""

from __future__ import annotations

import importlib
import json
import sys
from types import ModuleType

from app.bundle import find_bundle
from models.errors import BundleError

# What diffusers imports wherever it is installed, in four of eight seconds, and no painting needs.
# SciPy some samplers compute with; these do not.
NOT_FOR_PAINTING = ("peft", "transformers")
WITHOUT_SCIPY = ("LCMScheduler", "DDIMScheduler", "PNDMScheduler")


def _sampler(bundle: str) -> str:
    """Class of a bundle's scheduler; "" if that cannot be read, which loading will tell of."""
    try:
        index = (find_bundle(bundle) / "model_index.json").read_text(encoding="utf-8")
        return str(json.loads(index)["scheduler"][1])
    except (BundleError, OSError, ValueError, LookupError, TypeError):
        return ""


def import_painter(bundle: str) -> ModuleType:
    """Import `models.painter`, for which torch and diffusers are imported.

    For a process that only paints this bundle, as people call it: there diffusers does not find
    what that does without, now or later.
    """
    is_without = _sampler(bundle) in WITHOUT_SCIPY
    names = (*NOT_FOR_PAINTING, *(["scipy"] if is_without else []))
    hidden = [name for name in names if name not in sys.modules]
    # None: an import says that there is no such module.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        return importlib.import_module("models.painter")
    finally:
        for name in hidden:
            del sys.modules[name]
