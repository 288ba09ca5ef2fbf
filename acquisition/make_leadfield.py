"""Make `leadfield.npz`: how dipoles in a spherical head appear on the scalp.

    python -m acquisition.make_leadfield

The head is mne's four-layer sphere (brain, CSF, skull, skin; Berg and Scherg 1994,
doi 10.1016/0013-4694(94)90113-9), the electrodes are the 32 of the simulated subject
at their standard_1005 positions. The file holds, for each dipole, its position and the
potential of a 1 nAm dipole along x, y and z.
"""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np

from acquisition.simulated_subject import CH_NAMES

RADIUS = 0.09
# Metres in head coordinates, mirrored to the other hemisphere: x right, y front, z up.
VISUAL = [
    (0.010, -0.070, 0.030),
    (0.012, -0.066, 0.045),
    (0.025, -0.062, 0.035),
    (0.035, -0.055, 0.028),
]
CATEGORY = [
    (0.040, -0.042, 0.012),
    (0.050, -0.028, 0.008),
    (0.052, -0.010, 0.010),
    (0.045, -0.045, 0.050),
    (0.035, -0.040, 0.070),
    (0.055, -0.020, 0.045),
    (0.020, -0.050, 0.080),
]
N_BACKGROUND = 180


def positions() -> dict[str, np.ndarray]:
    """Dipole positions in metres by group, each (n, 3)."""
    both = {
        "visual": [(s * x, y, z) for x, y, z in VISUAL for s in (-1, 1)],
        "category": [(s * x, y, z) for x, y, z in CATEGORY for s in (-1, 1)],
    }
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(4 * N_BACKGROUND, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # The upper part of the sphere, at the depth of the cortex.
    direction = direction[direction[:, 2] > -0.4][:N_BACKGROUND]
    depth = rng.uniform(0.65, 0.85, (N_BACKGROUND, 1)) * RADIUS
    return {
        "visual": np.array(both["visual"]),
        "category": np.array(both["category"]),
        "background": direction * depth + [0, 0, 0.04],
    }


def main() -> None:
    mne.set_log_level("ERROR")
    info = mne.create_info(list(CH_NAMES), 250.0, "eeg")
    info.set_montage("standard_1005")
    sphere = mne.make_sphere_model(r0=(0.0, 0.0, 0.04), head_radius=RADIUS, info=info)
    where = np.array([ch["loc"][:3] for ch in info["chs"]], np.float32)
    out: dict[str, np.ndarray] = {"ch_names": np.array(CH_NAMES), "positions": where}
    for group, rr in positions().items():
        nn = np.tile([0.0, 0.0, 1.0], (len(rr), 1))
        src = mne.setup_volume_source_space(pos={"rr": rr, "nn": nn}, sphere_units="m")
        forward = mne.make_forward_solution(info, None, src, sphere, meg=False, mindist=0.0)
        assert forward["nsource"] == len(rr), f"{group}: {forward['nsource']} of {len(rr)} dipoles"
        # Volts per Am to microvolts per nAm.
        gain = forward["sol"]["data"].reshape(len(CH_NAMES), len(rr), 3) * 1e6 * 1e-9
        out[group] = gain.astype(np.float32)
    # numpy's types take the names for its own options.
    np.savez_compressed(Path(__file__).with_name("leadfield.npz"), **out)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
