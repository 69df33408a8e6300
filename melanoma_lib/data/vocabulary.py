"""The words and bounds of the metadata; how each source names sites, sexes and diagnoses stands in ``vocabulary.toml``.

Every table maps a publisher's name, in lower case, to the kit's word (or to None: not recorded) or, for diagnoses, to the target:
1 melanoma, 0 not, None undecided. An exported model reads these words, so nothing heavy is imported here.
"""

import tomllib
from pathlib import Path

SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SEXES = ("female", "male")
MAX_AGE = 120.0  # years

_TARGETS = {"melanoma": 1, "other": 0, "undecided": None}
_LISTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
MISSING = frozenset(_LISTS.pop("MISSING"))
_TABLES = {
    title: {theirs: _TARGETS.get(ours, ours) for ours, names in table.items() for theirs in names}
    for title, table in _LISTS.items()
}
SEX_NAMES = _TABLES["SEX_NAMES"]
HAM10000_SITES = _TABLES["HAM10000_SITES"]
HAM10000_DIAGNOSES = _TABLES["HAM10000_DIAGNOSES"]
ISIC_SITES = _TABLES["ISIC_SITES"]
ISIC_2019_DIAGNOSES = _TABLES["ISIC_2019_DIAGNOSES"]
ISIC_2020_DIAGNOSES = _TABLES["ISIC_2020_DIAGNOSES"]
ISIC_ARCHIVE_SITE_LEVELS = _TABLES["ISIC_ARCHIVE_SITE_LEVELS"]
ISIC_ARCHIVE_DIAGNOSES = _TABLES["ISIC_ARCHIVE_DIAGNOSES"]
ISIC_ARCHIVE_LEGACY_DIAGNOSES = _TABLES["ISIC_ARCHIVE_LEGACY_DIAGNOSES"]
ISIC_ARCHIVE_BENIGN_MALIGNANT = _TABLES["ISIC_ARCHIVE_BENIGN_MALIGNANT"]
