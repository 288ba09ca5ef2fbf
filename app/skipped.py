"""What was left out of a prepared set, told by name."""

from __future__ import annotations

from collections.abc import Iterator

# Of each reason so many names are printed; `spec.json` holds them all.
N_SHOWN = 8


class Skipped:
    """Collects what is left out, by reason."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, int]] = {}

    def add(self, reason: str, name: str) -> None:
        """Leave `name` out; `reason` goes behind "were left out: "."""
        names = self._names.setdefault(reason, {})
        names[name] = names.get(name, 0) + 1

    def to_dict(self) -> dict[str, dict[str, int]]:
        """How often each name was left out, by reason; JSON values only."""
        return {reason: dict(names) for reason, names in self._names.items()}

    def sentences(self) -> Iterator[str]:
        """For people, one for each reason.

        >>> skipped = Skipped()
        >>> skipped.add("no such image", "cat")
        >>> skipped.add("no such image", "cat")
        >>> list(skipped.sentences())
        ['2 trials were left out: no such image (cat, 2 times).']
        """
        for reason, names in self._names.items():
            n_trials = sum(names.values())
            shown = [n if k == 1 else f"{n}, {k} times" for n, k in list(names.items())[:N_SHOWN]]
            more = f"; and {len(names) - N_SHOWN} more" if len(names) > N_SHOWN else ""
            verb = "trial was" if n_trials == 1 else "trials were"
            yield f"{n_trials} {verb} left out: {reason} ({'; '.join(shown)}{more})."
