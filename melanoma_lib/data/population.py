"""The synthetic world as a table: causes, effects and the cases drawn from them, before any pixel is painted.

A lesion's risk of melanoma is ``sigmoid(intercept + image effect + metadata effect)``. Image factors tend to come together but
know nothing of age, sex and site, so the risk given only one part is an integral over the known distribution of the other part.
Every column has a random stream of its own, so row ``i`` is the same however many rows or columns there are.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import betaincinv, expit, ndtr, ndtri
from scipy.stats import qmc

from melanoma_lib.data.metadata import SITES
from melanoma_lib.data.optics import CAMERAS
from melanoma_lib.data.schema import group_ids, validate_cases


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
    """One of several values, each with a share (scaled to sum to 1) and an effect; not recorded (None) in a share ``missing``."""
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
    "family": choice({"melanocytic": (0.70, 0.2), "keratosis": (0.15, -0.7), "vascular": (0.05, -2.0), "pink": (0.10, -0.2)}),
    "asymmetry": graded(1.4),  # 0 concentric to 1 one-sided, in outline and in pigment
    "border": graded(1.1),  # 0 smooth outline to 1 notched and ragged
    "colours": choice({1: (0.50, 0.0), 2: (0.29, 1.0), 3: (0.14, 2.0), 4: (0.07, 3.0)}),  # number of pigment colours
    "veil": rare(0.15, 2.5),  # opacity of the blue-white veil
    "regression": rare(0.14, 1.5),  # opacity of white scar with grey peppering
    "streaks": rare(0.14, 1.5),  # strength of radial streaks at the edge
    "network": graded(0.6),  # 0 fine and regular to 1 coarse, broken and dark
    "globules": graded(0.4),  # 0 fine and even to 1 clumped and uneven
}
METADATA_FACTORS = {
    "age_approx": choice(
        {age: (float(np.exp(-0.5 * ((age - 52) / 19) ** 2)), 0.088 * (age - 52)) for age in range(5, 91, 5)}, missing=0.04
    ),
    "sex": choice({"female": (0.48, -0.4), "male": (0.52, 0.4)}, missing=0.03),
    "anatom_site_general_challenge": choice(
        dict(zip(SITES, [(0.14, 0.8), (0.16, 0.1), (0.22, -0.8), (0.43, 0.1), (0.03, -0.8), (0.02, -0.8)], strict=True)),
        missing=0.05,
    ),
}
OTHER_DIAGNOSES = {
    "melanocytic": "nevus",
    "keratosis": "seborrheic keratosis",
    "vascular": "vascular lesion",
    "pink": "basal cell carcinoma",
}
DISORDER = 0.7  # correlation of any two image factors before they are mapped to their scales; the family stands apart
LESIONS_PER_PATIENT = choice({1: (0.40, 0), 2: (0.30, 0), 3: (0.20, 0), 4: (0.10, 0)})
PHOTOS_PER_LESION = choice({1: (0.60, 0), 2: (0.28, 0), 3: (0.12, 0)})
ACQUISITION = choice(dict(zip(CAMERAS, [(0.25, 0), (0.30, 0), (0.30, 0), (0.15, 0)], strict=True)))
# How often each artefact occurs without any tie to the label, by acquisition style in the order of CAMERAS
ARTEFACT_SHARES = {
    "ink": (0.03, 0.05, 0.06, 0.02),
    "hair": (0.25, 0.35, 0.40, 0.30),
    "bubbles": (0.15, 0.05, 0.12, 0.35),
    "ruler": (0.04, 0.12, 0.25, 0.03),
    "patch": (0.02, 0.03, 0.05, 0.02),
    "vignette": (0.02, 0.40, 0.15, 0.04),
}


def image_factors(u: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values of all image factors, ``(N,)`` each, from uniform numbers for each and for ``disorder``: a Gaussian copula."""
    common = np.sqrt(DISORDER) * ndtri(u["disorder"])
    own = {name: ndtr(common + np.sqrt(1 - DISORDER) * ndtri(u[name])) for name in IMAGE_FACTORS if name != "family"}
    return {name: factor.quantile(own.get(name, u["family"])) for name, factor in IMAGE_FACTORS.items()}


def total_effect(factors: Mapping[str, Factor], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sum of the factors' log-odds for columns of values, each of shape ``(N,)``."""
    return sum(factor.effect(values[name]) for name, factor in factors.items())


@lru_cache(maxsize=2)
def effect_spread(part: str) -> np.ndarray:
    """1,024 equally likely values of the ``image`` or ``metadata`` effect, by quasi-Monte-Carlo over its factors."""
    if part == "image":
        columns = ["disorder", *IMAGE_FACTORS]
        u = np.clip(qmc.Sobol(len(columns), seed=0).random_base2(17), 1e-9, 1 - 1e-9).T  # (columns, 131072)
        effect = total_effect(IMAGE_FACTORS, image_factors(dict(zip(columns, u, strict=True))))
    else:
        u = qmc.Sobol(len(METADATA_FACTORS), seed=0).random_base2(17).T
        values = {name: factor.quantile(v) for (name, factor), v in zip(METADATA_FACTORS.items(), u, strict=True)}
        effect = total_effect(METADATA_FACTORS, values)
    return np.sort(effect).reshape(1024, -1).mean(axis=1)


def intercept_at(prevalence: float) -> float:
    """Log-odds of a lesion without any effect, such that the mean risk over all lesions is ``prevalence``, in (0, 1)."""
    effect = effect_spread("image")[:, None] + effect_spread("metadata")[None, ::8]  # (1024, 128)
    return brentq(lambda intercept: expit(intercept + effect).mean() - prevalence, -60, 60)


def risk_given_part(effect: np.ndarray, unknown: str, intercept: float) -> np.ndarray:
    """P(melanoma | the image or the metadata), ``(N,)`` from its log-odds: the ``unknown`` other part is integrated out."""
    # smooth and monotone in the effect, so a fine grid loses nothing (error below 1e-5); beyond it all risks are 0 or 1
    grid = np.linspace(-20, 40, 2401)
    return np.interp(effect, grid, expit(intercept + grid[:, None] + effect_spread(unknown)).mean(axis=1))


def uniform(seed: int, column: str, n: int) -> np.ndarray:
    """Uniform numbers of one column, ``(n,)``; the first ``n`` are the same for every larger ``n``."""
    number = int.from_bytes(hashlib.sha256(column.encode()).digest()[:4], "big")
    return np.random.default_rng(np.random.SeedSequence([seed, 0, number])).random(n)


def draw_lesions(n_patients: int, seed: int, prevalence: float) -> pd.DataFrame:
    """One row per lesion: the number of its ``patient``, metadata, image factors, risks and the label drawn from them."""
    count = LESIONS_PER_PATIENT.quantile(uniform(seed, "lesions", n_patients)).astype(int)
    patient = np.repeat(np.arange(n_patients), count)
    n = len(patient)
    per_patient = {"age_approx": n_patients, "sex": n_patients}  # a site is the lesion's own
    metadata = {name: f.quantile(uniform(seed, name, per_patient.get(name, n))) for name, f in METADATA_FACTORS.items()}
    metadata |= {name: metadata[name][patient] for name in per_patient}
    factors = image_factors({name: uniform(seed, name, n) for name in ("disorder", *IMAGE_FACTORS)})
    image_effect, metadata_effect = total_effect(IMAGE_FACTORS, factors), total_effect(METADATA_FACTORS, metadata)
    intercept = intercept_at(prevalence)
    risk = expit(intercept + image_effect + metadata_effect)  # exact: labels are drawn from it
    target = (uniform(seed, "target", n) < risk).astype(int)
    skin = {name: uniform(seed, f"skin {name}", n_patients)[patient] for name in ("tone", "blood", "freckles")}
    return pd.DataFrame(
        {
            "patient": patient,
            **metadata,
            "target": target,
            "diagnosis": pd.Series(factors["family"]).map(OTHER_DIAGNOSES).where(target == 0, "melanoma"),
            "true_risk": risk,
            "truth_risk_image": risk_given_part(image_effect, "metadata", intercept),
            "truth_risk_metadata": risk_given_part(metadata_effect, "image", intercept),
            **{f"truth_{name}": values for name, values in factors.items()},
            "truth_skin_tone": 0.04 + 1.2 * skin["tone"] ** 5,  # mostly fair, as the archives are, with a tail of dark skin
            "truth_skin_blood": 0.08 + 0.24 * skin["blood"],
            "truth_skin_freckles": skin["freckles"] ** 3,
        }
    ).astype({"age_approx": float, "truth_colours": int})


def draw_cases(n_patients: int, seed: int, prevalence: float, shortcut: Mapping[str, float]) -> pd.DataFrame:
    """The validated case table, one row per photograph; arguments as in :class:`SyntheticDermoscopy`."""
    lesions = draw_lesions(n_patients, seed, prevalence)
    photos = PHOTOS_PER_LESION.quantile(uniform(seed, "photos", len(lesions))).astype(int)
    cases = lesions.loc[lesions.index.repeat(photos)].rename_axis("lesion").reset_index()
    style = ACQUISITION.quantile(uniform(seed, "acquisition", len(cases)))
    for name, shares in ARTEFACT_SHARES.items():
        base = pd.Series(style).map(dict(zip(CAMERAS, shares, strict=True))).to_numpy(float)
        tie = shortcut.get(name, 0.0)
        # moves the two classes apart by exactly the tie, whatever the base share is
        share = (1 - abs(tie)) * base + abs(tie) * (cases["target"].to_numpy() == (tie > 0))
        cases[f"truth_artefact_{name}"] = uniform(seed, f"artefact {name}", len(cases)) < share
    ids = f"SYN{seed}_" + pd.Series(range(len(cases))).astype(str).str.zfill(7)
    cases = cases.assign(
        image_id=ids,
        image_path="images/" + ids + ".jpg",
        mask_path="masks/" + ids + ".png",
        patient_id=f"SYN{seed}_P" + cases.pop("patient").astype(str).str.zfill(6),
        lesion_id=f"SYN{seed}_L" + cases.pop("lesion").astype(str).str.zfill(6),
        acquisition=style,
    )
    cases["group_id"] = group_ids(cases)
    return validate_cases(cases, "synthetic cases")
