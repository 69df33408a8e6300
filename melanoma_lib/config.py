"""Settings as constants, for code written against constants: ``from melanoma_lib.config import IMAGE_SIZE, LR``.

Every setting has one, its name in capitals. Each is what environment, ``.env`` and profile say at the time of the import.
"""

from melanoma_lib.settings import Settings

SHORT = {"LR": "learning_rate", "EPOCHS": "max_epochs", "FOCAL_ALPHA": "alpha", "FOCAL_GAMMA": "gamma", "RANDOM_SEED": "seed"}


def __getattr__(name: str) -> object:
    field = SHORT.get(name, name.lower())
    if name != name.upper() or field not in Settings.model_fields:
        raise AttributeError(f"no constant {name!r}; there are {', '.join([*SHORT, *map(str.upper, Settings.model_fields)])}")
    return getattr(Settings(), field)
