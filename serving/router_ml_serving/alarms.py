"""Sequential tests, looked at after every request, of whether a challenger is worse than allowed beside the champion.

The null hypothesis is "the challenger's rate of bad outcomes is at most the champion's plus a margin", for every pair
of rates. Outcomes are paired in blocks by arrival: as soon as both sides have one, the difference of their means in the
block is a bet. Each stake multiplies its wealth by `1 + stake * (difference - margin)`, which cannot be expected to
grow while the null holds, whatever the rates are and however they drift from block to block. The average over a fixed
set of stakes is the e-value; by Ville's inequality it ever reaches 1 / alpha with probability at most alpha, and so may
be looked at always. Pure.

Source: Waudby-Smith and Ramdas 2023 (arXiv 2010.09686), section 4: betting, with a mixture of fixed stakes; Ramdas,
Grünwald, Vovk and Shafer 2023 (arXiv 2210.01948): e-processes; Turner, Ly and Grünwald 2024: two streams in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rate", "RiseTest", "grown", "stakes"]

Doubles: TypeAlias = NDArray[np.float64]

# Shares of the largest stake that cannot lose everything. Few are needed: a stake half as large as the best one still
# grows three quarters as fast, and each further one divides the start among more. Three to six were tried on rises of
# 10 and 20 points; four were the fastest or within a few percent of it.
_FRACTIONS = (0.1, 0.25, 0.5, 0.95)


def stakes(margin: float) -> Doubles:
    """Return the stakes that are played beside each other, shape (J,).

    Args:
        margin: How much higher the challenger's rate may be, in [0, 1].
    """
    # The worst difference is -1: a stake of 1 / (1 + margin) would lose everything on it.
    return np.array(_FRACTIONS) / (1.0 + margin)


def grown(wealth: Doubles, difference: Doubles | float, margin: float) -> Doubles:
    """Return the wealth of every stake after one block.

    Args:
        wealth: Before it, shape (..., J).
        difference: Challenger's mean minus champion's, shape (...), in [-1, 1].
        margin: How much higher the challenger's rate may be, in [0, 1].
    """
    excess = np.asarray(difference, np.float64)[..., None] - margin
    return wealth * (1.0 + stakes(margin) * excess)


@dataclass(slots=True)
class Rate:
    """How many outcomes there were, and how many of them were bad."""

    n: int = 0
    bad: int = 0

    @property
    def value(self) -> float | None:
        """The share of bad ones; None before the first."""
        return self.bad / self.n if self.n else None

    def add(self, n: int, bad: int) -> None:
        """Count further outcomes."""
        self.n += n
        self.bad += bad

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and their ratio."""
        return {"n": self.n, "bad": self.bad, "rate": self.value}


@dataclass(slots=True)
class RiseTest:
    """An anytime-valid test of "challenger's rate <= champion's rate + margin" on two streams of outcomes.

    Outcomes come in any order and in any ratio, as long as who answers is drawn without looking at the outcome. State
    does not grow with the stream.

    Args:
        margin: How much higher the challenger's rate may be, in [0, 1].
    """

    margin: float
    champion: Rate = field(default_factory=Rate)
    challenger: Rate = field(default_factory=Rate)
    _open: tuple[Rate, Rate] = field(default_factory=lambda: (Rate(), Rate()))
    _stakes: list[float] = field(init=False)
    _wealth: list[float] = field(init=False)
    _largest: float = 1.0

    def __post_init__(self) -> None:
        self._stakes = stakes(self.margin).tolist()
        self._wealth = [1.0] * len(self._stakes)

    def of_champion(self, n: int, bad: int) -> None:
        """Count outcomes of the champion: `n` of them, `bad` of these bad."""
        self.champion.add(n, bad)
        self._count(0, n, bad)

    def of_challenger(self, *, bad: bool) -> None:
        """Count one outcome of the challenger."""
        self.challenger.add(1, int(bad))
        self._count(1, 1, int(bad))

    @property
    def e_value(self) -> float:
        """The evidence against the null now: its expectation is at most 1 while the null holds."""
        return sum(self._wealth) / len(self._wealth)

    @property
    def largest(self) -> float:
        """The largest e-value so far; an alarm is when it reaches 1 / alpha."""
        return self._largest

    def to_dict(self) -> dict[str, Any]:
        """Return counts and evidence."""
        return {
            "champion": self.champion.to_dict(),
            "challenger": self.challenger.to_dict(),
            "margin": self.margin,
            "e_value": self.e_value,
            "largest_e_value": self._largest,
        }

    def _count(self, side: int, n: int, bad: int) -> None:
        self._open[side].add(n, bad)
        theirs, ours = self._open
        if theirs.n and ours.n:
            # As `grown`; on four numbers a list is ten times as fast as an array.
            excess = ours.bad / ours.n - theirs.bad / theirs.n - self.margin
            pairs = zip(self._wealth, self._stakes, strict=True)
            self._wealth = [wealth * (1.0 + stake * excess) for wealth, stake in pairs]
            self._largest = max(self._largest, self.e_value)
            self._open = (Rate(), Rate())
