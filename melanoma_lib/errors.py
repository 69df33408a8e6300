"""Errors a user can mend: each message says what was expected, what came and what to do."""


class KitError(Exception):
    """Root of every error the kit raises on purpose; the command line prints it without a traceback."""


class SettingsError(KitError, ValueError):
    """A setting is unknown, ill-typed or contradicts another one."""


class DataError(KitError, ValueError):
    """A data source, table or folder is not what it should be."""


class CorruptImageError(DataError):
    """An image file cannot be decoded."""


class DownloadError(KitError):
    """A data set could not be fetched, or what came fails its checksum."""


class WeightsUnavailableError(KitError):
    """Pretrained weights were asked for and are not to be had here."""


class RunError(KitError):
    """A run directory is incomplete, foreign or not a run at all."""


class ForeignThresholdError(RunError):
    """An operating point was chosen for another model or other predictions."""


class ExplanationError(KitError, ValueError):
    """A model has nothing that a heatmap could be drawn of."""


class ExportError(KitError):
    """A model cannot be exported, or a file is no export of this kit or not the one that was written."""


class LessonError(KitError):
    """A notebook or slide deck cannot be used as it is, is given or asks for what there is not, or does not run."""
