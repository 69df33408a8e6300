"""The synthetic world's causes and effects: which factors there are, how they are spread, what they do to the risk.

A lesion's risk of melanoma is ``sigmoid(intercept + image effect + metadata effect)``. The factors are independent of each
other, so the risk given only one part is an integral over the known distribution of the other part.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, expit
from scipy.stats import qmc


@dataclass(frozen=True)
class Factor:
    """One cause: ``quantile`` turns uniform numbers into its values, ``effect`` turns values into log-odds."""

    quantile: Callable[[np.ndarray], np.ndarray]
    effect: Callable[[np.ndarray], np.ndarray]


def graded(weight: float) -> Factor:
    """A degree from 0 to 1, Beta(1.1, 1.6) distributed, with ``weight`` log-odds at 1."""
    return Factor(lambda u: betaincinv(1.1, 1.6, u), lambda x: weight * x)


def rare(share: float, weight: float) -> Factor:
    """Absent (0) in all but a ``share`` of lesions, where its strength lies between 0.5 and 1."""
    return Factor(lambda u: np.where(u > 1 - share, 1 - 0.5 * (1 - u) / share, 0.0), lambda x: weight * x)


def choice(options: Mapping[object, tuple[float, float]], missing: float = 0.0) -> Factor:
    """One of several values, each with a share (scaled to sum to 1) and an effect.

    ``missing`` is the share of lesions whose value is not recorded (None), which leaves their log-odds as they are.
    """
    names = np.array([*options, None], dtype=object)
    shares = np.array([share for share, _ in options.values()])
    edges = np.cumsum(shares / shares.sum() * (1 - missing))
    effects = {name: effect for name, (_, effect) in options.items()} | {None: 0.0}
    edges[-1] += 1e-12 * (missing == 0)  # rounding must not make a value missing
    return Factor(
        lambda u: names[np.searchsorted(edges, u, side="right")],
        lambda x: np.array([effects[value] for value in x]),
    )


IMAGE_FACTORS = {
    "family": choice({"melanocytic": (0.70, 0.3), "keratosis": (0.15, -1.1), "vascular": (0.05, -2.6), "pink": (0.10, -0.3)}),
    "asymmetry": graded(4.5),
    "border": graded(3.0),
    "colours": choice({1: (0.50, 0.0), 2: (0.29, 1.9), 3: (0.14, 3.8), 4: (0.07, 5.7)}),
    "veil": rare(0.14, 5.2),
    "regression": rare(0.13, 3.4),
    "streaks": rare(0.13, 3.4),
    "network": graded(1.8),
    "globules": graded(1.2),
}
METADATA_FACTORS = {
    "age_approx": choice(
        {age: (float(np.exp(-0.5 * ((age - 52) / 19) ** 2)), 0.088 * (age - 52)) for age in range(5, 91, 5)}, missing=0.04
    ),
    "sex": choice({"female": (0.48, -0.4), "male": (0.52, 0.4)}, missing=0.03),
    "anatom_site_general_challenge": choice(
        {
            "head/neck": (0.14, 0.8),
            "upper extremity": (0.16, 0.1),
            "lower extremity": (0.22, -0.8),
            "torso": (0.43, 0.1),
            "palms/soles": (0.03, -0.8),
            "oral/genital": (0.02, -0.8),
        },
        missing=0.05,
    ),
}


def total_effect(factors: Mapping[str, Factor], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of the factors' log-odds for columns of values, each of shape ``(N,)``."""
    return sum(factor.effect(values[name]) for name, factor in factors.items())


@lru_cache(maxsize=2)
def effect_spread(part: str) -> np.ndarray:
    """1,024 equally likely values of the ``image`` or ``metadata`` effect, by quasi-Monte-Carlo over its factors."""
    factors = {"image": IMAGE_FACTORS, "metadata": METADATA_FACTORS}[part]
    u = qmc.Sobol(len(factors), seed=0).random_base2(17)  # (131072, factors)
    effect = total_effect(factors, {name: factor.quantile(u[:, k]) for k, (name, factor) in enumerate(factors.items())})
    return np.sort(effect).reshape(1024, -1).mean(axis=1)


@dataclass(frozen=True)
class RiskModel:
    """The three risks of a lesion at one prevalence.

    Attributes:
        intercept: log-odds of a lesion without any effect, solved so that the mean risk is the prevalence.
    """

    intercept: float

    @classmethod
    def at_prevalence(cls, prevalence: float) -> "RiskModel":
        """The model whose mean risk over all lesions is ``prevalence``, in (0, 1)."""
        effect = effect_spread("image")[:, None] + effect_spread("metadata")[None, ::8]  # (1024, 128)
        return cls(brentq(lambda b: expit(b + effect).mean() - prevalence, -60, 60))

    def both(self, image_effect: np.ndarray, metadata_effect: np.ndarray) -> np.ndarray:
        """P(melanoma | all factors), exact: labels are drawn from it. Shapes ``(N,)``."""
        return expit(self.intercept + image_effect + metadata_effect)

    def given(self, part: str, effect: np.ndarray) -> np.ndarray:
        """P(melanoma | one part): the other part's effect integrated out.

        Args:
            part: what is known, ``image`` or ``metadata``.
            effect: its log-odds, ``(N,)``.

        Returns:
            Risks in (0, 1), ``(N,)``.
        """
        unknown = effect_spread({"image": "metadata", "metadata": "image"}[part])
        grid = np.linspace(effect.min() - 1e-9, effect.max() + 1e-9, 1001)
        # smooth and monotone in the effect, so a fine grid loses nothing (error below 1e-5)
        return np.interp(effect, grid, expit(self.intercept + grid[:, None] + unknown).mean(axis=1))
