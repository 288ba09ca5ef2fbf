"""The EEG of EEG-ImageNet, which DreamDiffusion was fine-tuned on.

Spampinato et al. 2017, arXiv 1609.00344: 128 actiCAP electrodes at 1 kHz.
"""

from __future__ import annotations

from acquisition.epoch_spec import EpochSpec

# In the order of the data's rows, as its makers gave it (perceivelab,
# eeg_visual_classification, issue 4).
# fmt: off
CH_NAMES = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "FC5", "FC1", "FC2", "FC6", "T7", "C3", "Cz", "C4",
    "T8", "TP9", "CP5", "CP1", "CP2", "CP6", "TP10", "P7", "P3", "Pz", "P4", "P8", "PO9", "O1",
    "Oz", "O2", "PO10", "AF7", "AF3", "AF4", "AF8", "F5", "F1", "F2", "F6", "FT9", "FT7", "FC3",
    "FC4", "FT8", "FT10", "C5", "C1", "C2", "C6", "TP7", "CP3", "CPz", "CP4", "TP8", "P5", "P1",
    "P2", "P6", "PO7", "PO3", "POz", "PO4", "PO8", "Fpz", "F9", "AFF5h", "AFF1h", "AFF2h", "AFF6h",
    "F10", "FTT9h", "FTT7h", "FCC5h", "FCC3h", "FCC1h", "FCC2h", "FCC4h", "FCC6h", "FTT8h",
    "FTT10h", "TPP9h", "TPP7h", "CPP5h", "CPP3h", "CPP1h", "CPP2h", "CPP4h", "CPP6h", "TPP8h",
    "TPP10h", "POO9h", "POO1", "POO2", "POO10h", "Iz", "AFp1", "AFp2", "FFT9h", "FFT7h", "FFC5h",
    "FFC3h", "FFC1h", "FFC2h", "FFC4h", "FFC6h", "FFT8h", "FFT10h", "TTP7h", "CCP5h", "CCP3h",
    "CCP1h", "CCP2h", "CCP4h", "CCP6h", "TTP8h", "P9", "PPO9h", "PPO5h", "PPO1h", "PPO2h", "PPO6h",
    "PPO10h", "P10", "I1", "OI1h", "OI2h", "I2",
)
# fmt: on

DREAMDIFFUSION_SPEC = EpochSpec(
    ch_names=CH_NAMES,
    # Samples 20 to 459 of an epoch at 1 kHz are stretched to 512, ends on ends.
    sfreq=511 / 0.439,
    n_times=512,
    hop=256,
    tmin=0.02,
    # The variant of the data that its authors filtered so.
    l_freq=5.0,
    h_freq=95.0,
    notch_freqs=(50.0,),
    # Nothing was re-referenced. The data were z-scored by their makers, over what is not said.
    reference="none",
    normalisation="channel",
)
"""What the published checkpoint was trained on (arXiv 2306.16934 and its authors' code)."""
