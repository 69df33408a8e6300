"""The words and bounds of the metadata, and age, sex and site as numbers: missing values flagged, never imputed silently.

How each source names sites, sexes and diagnoses stands in ``vocabulary.toml``. An exported model encodes its patients with this
module, so nothing heavy is imported here.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from melanoma_lib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SEXES = ("female", "male")
MAX_AGE = 120.0  # years
_TARGETS = {"melanoma": 1, "other": 0, "undecided": None}
_LISTS = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text(encoding="utf-8"))
MISSING = frozenset(_LISTS.pop("MISSING"))
# Title of a table -> a publisher's name, in lower case -> the kit's word or, for diagnoses, the target (None: undecided).
NAMES = {
    title: {theirs: _TARGETS.get(ours, ours) for ours, names in table.items() for theirs in names}
    for title, table in _LISTS.items()
}


@dataclass(frozen=True)
class MetadataEncoder:
    """Turns the metadata of a case table into a matrix.

    Columns: standardised age (0 where missing), a flag for missing age, then one column a sex and a site, each group closed by
    its own missing flag. Exactly one column of the sex group and one of the site group is 1.
    """

    age_mean: float  # of the training cases, years
    age_std: float  # of the training cases, years, positive
    sexes: tuple[str, ...] = SEXES
    sites: tuple[str, ...] = SITES

    @classmethod
    def fit(cls, cases: pd.DataFrame) -> MetadataEncoder:
        """Learn the age scale from the training cases alone; DataError if there are none."""
        if cases.empty:
            raise DataError("MetadataEncoder.fit expects at least one training case, got none; check the split fractions")
        ages = cases["age_approx"].dropna().to_numpy(float)
        if ages.size == 0:
            return cls(age_mean=0.0, age_std=1.0)  # every age is flagged missing, so the scale never matters
        spread = float(ages.std())
        return cls(age_mean=float(ages.mean()), age_std=spread if spread > 1e-6 else 1.0)  # one age alone leaves rounding errors

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the encoded columns, in order."""
        sexes = [f"sex={sex}" for sex in self.sexes]
        sites = [f"site={site}" for site in self.sites]
        return ("age", "age missing", *sexes, "sex missing", *sites, "site missing")

    @property
    def n_features(self) -> int:
        """Width of the encoded matrix, M."""
        return len(self.columns)

    @property
    def missing(self) -> np.ndarray:
        """The encoding of a case that tells nothing, shape ``(M,)``, float32."""
        return self.encode_cases([None], [None], [None])[0]

    def encode(self, age: float | None = None, sex: str | None = None, site: str | None = None) -> np.ndarray:
        """Encode one case, shape ``(1, M)``; arguments and errors as for :meth:`encode_cases`."""
        return self.encode_cases([age], [sex], [site])

    def transform(self, cases: pd.DataFrame) -> np.ndarray:
        """Encode age, sex and site of a case table, float32 ``(N, M)``; DataError if one is not in [0, 120] or not known."""
        columns = (cases[name] for name in ("age_approx", "sex", "anatom_site_general_challenge"))
        return self.encode_cases(*(column.astype(object).where(column.notna(), None) for column in columns))

    def encode_cases(self, ages: Iterable[float | None], sexes: Iterable[str | None], sites: Iterable[str | None]) -> np.ndarray:
        """Encode cases given as plain values, as many of each; None or NaN means not known. Else as :meth:`transform`."""
        years = np.array([_years(age) for age in ages], float)
        known = ~np.isnan(years)
        age = np.where(known, (years - self.age_mean) / self.age_std, 0.0)
        sex = _one_hot(sexes, self.sexes, "sex")
        site = _one_hot(sites, self.sites, "anatom_site_general_challenge")
        return np.column_stack([age, ~known, sex, site]).astype(np.float32)  # (N, 2 + S + 1 + L + 1)

    def to_json(self) -> str:
        """Serialise; :meth:`from_json` gives an equal encoder back."""
        return json.dumps({"columns": self.columns, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> MetadataEncoder:
        """Read what :meth:`to_json` wrote; DataError if the text is not an encoder or its numbers are unusable."""
        try:
            values = json.loads(text)
            mean, std = float(values["age_mean"]), float(values["age_std"])
            encoder = cls(mean, std, tuple(values["sexes"]), tuple(values["sites"]))
            if not (math.isfinite(mean) and 0 < std < math.inf):
                raise ValueError(f"age scale must be finite and positive, got mean {mean}, std {std}")
            if (columns := values["columns"]) != list(encoder.columns):
                raise ValueError(f"its columns {columns} do not follow from its names, {encoder.columns} do")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"expected the JSON of a MetadataEncoder, got {text[:80]!r} ({error})") from error
        return encoder


def _years(age: float | None) -> float:
    """A number of years, NaN where it is not known."""
    if _is_missing(age):
        return math.nan
    try:
        years = float(age)
    except (TypeError, ValueError):
        years = math.nan  # refused below
    if not 0 <= years <= MAX_AGE:
        raise DataError(f"age_approx expects years in [0, {MAX_AGE:g}] or nothing, got {age!r}")
    return years


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def _one_hot(values: Iterable[str | None], names: tuple[str, ...], column: str) -> np.ndarray:
    """One column a name and one for missing, shape ``(N, len(names) + 1)``."""
    values = [None if _is_missing(value) else value for value in values]
    if strangers := set(values) - {None, *names}:
        raise DataError(f"{column} expects one of {list(names)} or nothing, got {strangers.pop()!r}")
    return np.eye(len(names) + 1)[[[*names, None].index(value) for value in values]]
