"""Everything the simulated subject is made of, as numbers, at two difficulties."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from acquisition.errors import SourceError


@dataclass(frozen=True, slots=True)
class SimulationParameters:
    """Everything the simulated subject is made of.

    Amplitudes are peak microvolts at the electrode that sees the source best unless
    said otherwise. Noise and artefacts have the sizes of the literature's single-trial EEG. How
    large responses are, and how alike between subjects, is set for the difficulty.

    Attributes
    ----------
    version : raised whenever a default or the generator changes.
    viewing : seconds for which a picture is shown.
    gap_min, gap_max : seconds of nothing after it, drawn evenly.
    early_uv : standard deviation over pictures of the response of one visual dipole; latencies
        as of C1, P1 and N1 (Di Russo et al. 2002, doi 10.1002/hbm.10010).
    early_latency, early_spread, early_width : seconds; mean and spread over dipoles of
        the peak, and standard deviation of its Gaussian.
    late_uv : response of one category dipole to a concept.
    late_latencies, late_width : seconds; peaks of its components, as of N170 to P3
        (Bentin et al. 1996, doi 10.1162/jocn.1996.8.6.551; Cichy et al. 2014,
        doi 10.1038/nn.3635, for when category is decodable).
    sustained_uv : of the part that lasts as long as the picture.
    sustained_rise, sustained_decay : seconds; time constants.
    offset_share : response to the picture's end, as a share of the early one.
    group_share : share of a concept's late pattern that its group (animals, vehicles...)
        has in common.
    latency_jitter : seconds, standard deviation over trials.
    amplitude_jitter : standard deviation over trials of the log of the amplitude.
    subject_share : share of variance of the response patterns that differs from subject
        to subject.
    session_share : the same from session to session of one subject.
    background_uv : standard deviation of the 1/f noise, mean over electrodes.
    background_exponent : of its power spectrum (He 2014, doi 10.1016/j.tics.2014.04.003).
    sensor_uv : standard deviation of white noise of each electrode.
    alpha_uv, alpha_hz, alpha_width_hz : of the posterior rhythm; amplitude is the
        standard deviation at rest.
    alpha_viewing : factor on alpha while a picture is seen and attended (Klimesch 2012,
        doi 10.1016/j.tics.2012.10.007).
    attention_time : seconds; time constant of the wandering of attention.
    blinks_per_minute, blink_uv, blink_width : rate, height and width (seconds; Bentivoglio
        et al. 1997, doi 10.1002/mds.870120629, for the rate).
    bursts_per_minute, burst_uv : of temporal muscle.
    mains_uv, mains_hz : mean over electrodes.
    drift_uv : standard deviation of the electrodes' drift over one second.
    pops_per_minute, pop_uv, pop_decay : of electrodes; decay in seconds.
    """

    version: int = 3
    viewing: float = 2.0
    gap_min: float = 0.5
    gap_max: float = 1.5
    early_uv: float = 10.0
    early_latency: float = 0.13
    early_spread: float = 0.03
    early_width: float = 0.022
    late_uv: float = 3.4
    late_latencies: tuple[float, ...] = (0.2, 0.3, 0.42)
    late_width: float = 0.045
    sustained_uv: float = 2.5
    sustained_rise: float = 0.25
    sustained_decay: float = 3.0
    offset_share: float = 0.4
    group_share: float = 0.3
    latency_jitter: float = 0.01
    amplitude_jitter: float = 0.2
    subject_share: float = 0.6
    session_share: float = 0.05
    background_uv: float = 9.0
    background_exponent: float = 1.0
    sensor_uv: float = 1.0
    alpha_uv: float = 9.0
    alpha_hz: float = 10.0
    alpha_width_hz: float = 1.5
    alpha_viewing: float = 0.6
    attention_time: float = 20.0
    blinks_per_minute: float = 12.0
    blink_uv: float = 140.0
    blink_width: float = 0.08
    bursts_per_minute: float = 2.0
    burst_uv: float = 12.0
    mains_uv: float = 3.0
    mains_hz: float = 50.0
    drift_uv: float = 4.0
    pops_per_minute: float = 0.5
    pop_uv: float = 80.0
    pop_decay: float = 0.6

    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any parameter."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    @property
    def difficulty(self) -> str:
        """Name of this set in `DIFFICULTIES`; "other" where somebody changed something."""
        names = [name for name, known in DIFFICULTIES.items() if known == self]
        return names[0] if names else "other"

    def to_dict(self) -> dict[str, str | int]:
        """What stands in every result: name, version and digest."""
        return {
            "difficulty": self.difficulty,
            "parameters_version": self.version,
            "parameters": self.digest(),
        }


_DEMO = SimulationParameters()

# `demo` is made to be decoded. At `literature` LDA gets what the best decoder of Ahmed et al.
# (2021, doi 10.1109/CVPR46437.2021.00384) got from as many trials in random order; how that was
# fitted is in docs/simulated-subject.md.
DIFFICULTIES = {
    "demo": _DEMO,
    "literature": replace(_DEMO, early_uv=0.27, late_uv=0.74, sustained_uv=0.222),
}


def of_difficulty(name: str) -> SimulationParameters:
    """The parameters called `name`.

    Raises
    ------
    SourceError
        There are none.
    """
    if name not in DIFFICULTIES:
        raise SourceError(
            f"There is no difficulty '{name}' of the simulated subject. "
            f"Take {' or '.join(DIFFICULTIES)}."
        )
    return DIFFICULTIES[name]


def without_artefacts(parameters: SimulationParameters) -> SimulationParameters:
    """A subject who neither blinks nor moves, with electrodes that hold."""
    return replace(parameters, blinks_per_minute=0.0, bursts_per_minute=0.0, pops_per_minute=0.0)
