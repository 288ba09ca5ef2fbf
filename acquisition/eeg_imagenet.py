"""The EEG of EEG-ImageNet, which DreamDiffusion was fine-tuned on.

Spampinato et al. 2017, arXiv 1609.00344: 128 actiCAP electrodes at 1 kHz. Their names stand in
the order of the data's rows, as its makers gave it (perceivelab, eeg_visual_classification,
issue 4).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from acquisition.epoch_spec import EpochSpec

SPEC_FILE = Path(__file__).with_name("dreamdiffusion_spec.json")

# Samples 20 to 459 of an epoch at 1 kHz are stretched to 512, ends on ends: 1164 Hz. The band
# is that of the data's variant. Nothing was re-referenced.
REFERENCE_SPEC = EpochSpec.from_dict(json.loads(SPEC_FILE.read_text(encoding="utf-8")))
"""What the reference's encoder was given: epochs that the data's makers had z-scored."""

DREAMDIFFUSION_SPEC = replace(REFERENCE_SPEC, normalisation="channel")
"""The same for live EEG, which nobody has z-scored."""
