"""The words and bounds of the metadata; how each source names sites, sexes and diagnoses stands in ``vocabulary.toml``.

Every table maps a publisher's name, in lower case, to the kit's word or, for diagnoses, to the target: 1 melanoma, 0 not, None
undecided. An exported model reads these words, so nothing heavy is imported here.
"""

import tomllib
from pathlib import Path

SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SEXES = ("female", "male")
MAX_AGE = 120.0  # years

_TARGETS = {"melanoma": 1, "other": 0, "undecided": None}
_LISTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
MISSING = frozenset(_LISTS.pop("MISSING"))
NAMES = {
    title: {theirs: _TARGETS.get(ours, ours) for ours, names in table.items() for theirs in names}
    for title, table in _LISTS.items()
}
