"""What one request's evidence says about every tier: a binary Markov chain over the ladder, solved exactly.

Tier t is adequate or not, and given the tier before it nothing cheaper matters: it rises (adequate although the cheaper
one failed) or slips (fails although the cheaper one did not). What was said about each tier is a likelihood. Backward,
then forward, over at most ten tiers and all requests at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Smoothed", "smooth"]

F64: TypeAlias = NDArray[np.float64]

# No transition is impossible: a chain that contradicts the model is surprising, not undefined.
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Smoothed:
    """Posteriors given all evidence on a request, (n, K) each.

    `ok` is P(adequate). `if_failed` and `if_ok` are P(adequate) given that the tier before failed, or did not; in
    column 0 both are `ok`.
    """

    ok: F64
    if_failed: F64
    if_ok: F64


def smooth(rise: F64, slip: F64, likelihood: F64, known: F64 | None = None) -> Smoothed:
    """Return posteriors under given transitions.

    Args:
        rise: P(adequate given that the tier before failed), (n, K); column 0 is P(adequate).
        slip: P(inadequate given that the tier before was adequate), (n, K); column 0 is not read.
        likelihood: P(what was said given adequate), as a share of itself and P(what was said given inadequate),
            (n, K): 1 and 0 settle the matter, 0.5 says nothing.
        known: Graded outcomes, (n, K), NaN elsewhere: these are what they are, whatever the neighbours say.

    Source: the forward-backward recursions, Baum et al. 1970, for two states.
    """
    n, n_tiers = rise.shape
    rise, slip = np.clip(rise, _EPSILON, 1.0 - _EPSILON), np.clip(slip, _EPSILON, 1.0 - _EPSILON)
    if_failed, if_ok = np.empty((n, n_tiers)), np.empty((n, n_tiers))
    after_failure, after_success = np.ones(n), np.ones(n)
    for t in range(n_tiers - 1, -1, -1):
        good, bad = likelihood[:, t] * after_success, (1.0 - likelihood[:, t]) * after_failure
        failed_good, failed = rise[:, t] * good, rise[:, t] * good + (1.0 - rise[:, t]) * bad
        kept_good, kept = (1.0 - slip[:, t]) * good, (1.0 - slip[:, t]) * good + slip[:, t] * bad
        if_failed[:, t], if_ok[:, t] = failed_good / failed, kept_good / kept
        scale = failed if t == 0 else np.maximum(failed, kept)
        after_failure, after_success = failed / scale, kept / scale
    if_ok[:, 0] = if_failed[:, 0]
    if known is not None:
        # Read as a likelihood, a graded outcome would be multiplied with the model's own belief, round after round.
        if_failed, if_ok = (np.where(np.isnan(known), one, known) for one in (if_failed, if_ok))
    ok = np.empty((n, n_tiers))
    for t in range(n_tiers):
        before = ok[:, t - 1] if t else np.zeros(n)
        ok[:, t] = (1.0 - before) * if_failed[:, t] + before * if_ok[:, t]
    return Smoothed(ok, if_failed, if_ok)
