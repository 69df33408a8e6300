"""The words and bounds of the metadata: plain values, for whoever has neither pandas nor a case table at hand."""

SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SEXES = ("female", "male")
MAX_AGE = 120.0  # years
