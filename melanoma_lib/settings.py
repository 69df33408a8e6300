"""One frozen settings object for the library, the command line, the notebooks and the app.

Order of precedence, lowest first: field defaults, the profile, ``.env``, ``MELANOMA_*`` variables, arguments (command line or
Python). An unknown or ill-typed name is an error wherever it comes from.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from dotenv.parser import parse_stream
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from melanoma_lib.errors import SettingsError
from melanoma_lib.utils import project_dir

ENV_FILE, ENV_PREFIX = ".env", "MELANOMA_"
TEST_ENV_PREFIX = "MELANOMA_TEST_"  # belongs to the test suite, never to a setting
Width = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1)]
UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
INIT_NAME = re.compile(r".+-([0-9a-f]{8,64})\.pt")  # as torch.hub names weights: the digest tells them apart wherever they lie

Source = Literal["synthetic", "ham10000", "isic2017", "isic2018", "isic2019", "isic2020", "isic_archive"]
Modalities = Literal["image+metadata", "image", "metadata"]
Monitor = Literal["val/f1", "val/auroc", "val/average_precision", "val/loss"]
Rule = Literal["sensitivity", "specificity", "f1", "youden", "cost", "0.5"]

# The recipe of short trainings on few synthetic cases, where the field defaults, tuned on thousands of photographs, do not fit.
_SHORT: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0", "sampler": "weighted", "learning_rate": 1.5e-3, "ema_decay": 0.99, "weight_decay": 0.01,
    "drop_path": 0.0, "diagnosis_weight": 0.0, "frozen_stride": 0, "small_epochs": 0.0,
    "monitor": "val/auroc",  # F1 of so few validation cases is a lottery
}  # fmt: skip
# Only what differs from the field defaults; one code path serves all three.
PROFILES: dict[str, dict[str, Any]] = {
    "fast": _SHORT | {"image_size": 64, "max_epochs": 4, "n_patients": 600, "n_resamples": 500},
    "class": _SHORT | {"image_size": 96, "max_epochs": 6, "n_patients": 1200},
    "full": {},
}


class ProfileSource(InitSettingsSource):
    """Values of the chosen profile, overridden by everything but the field defaults."""

    def __call__(self) -> dict[str, Any]:
        """Values of the profile that the sources of higher precedence chose."""
        chosen = self.current_state.get("profile", self.settings_cls.model_fields["profile"].default)
        return PROFILES.get(chosen, {}) if isinstance(chosen, str) else {}  # the field's own type rejects the rest


class Settings(BaseSettings):
    """Everything a run depends on. Frozen: derive another one with :meth:`with_changes`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_file=ENV_FILE, frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True,
        protected_namespaces=(),
    )  # fmt: skip

    profile: Literal["fast", "class", "full"] = Field("full", description="preset: fast (about a minute), class, full")

    source: Source = Field("synthetic", description="where the cases come from")
    data_dir: UserPath | None = Field(None, description="folder of the source; default data/<source>")
    image_dirs: Annotated[tuple[UserPath, ...], NoDecode] = Field((), description="further folders to look for images in")
    missing_images: Literal["error", "drop"] = Field("error", description="what to do when a listed image is absent")
    n_patients: int = Field(2000, ge=20, description="synthetic source: patients to generate")
    data_seed: int = Field(0, ge=0, description="synthetic source: seed of the generator")
    val_fraction: float = Field(0.15, gt=0, lt=0.5, description="share of cases for validation")
    test_fraction: float = Field(0.15, gt=0, lt=0.5, description="share of cases for the test")

    folds: int = Field(0, ge=0, le=50, description="cross-validation with so many folds; 0: one split by the shares above")
    fold: int = Field(0, ge=0, description="which of the folds to train, from 1; 0: all, gathered into one run")

    backbone: str = Field("efficientnet_b0", description="name of a timm model for the image branch")
    pretrained: bool = Field(True, description="start from ImageNet weights")
    init_weights: UserPath | None = Field(None, description="NAME-DIGEST.pt, in place of ImageNet's weights")
    modalities: Modalities = Field("image+metadata", description="which branches the model has")
    image_size: int = Field(256, ge=32, le=1024, description="side of the square input in pixels")
    metadata_hidden: Annotated[Width | Widths, NoDecode] = Field(64, description="width of each metadata layer, such as 64,32")
    metadata_dropout: float = Field(0.1, ge=0, lt=1, description="chance that a training case hides all its metadata")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the logit and in the metadata branch")
    frozen_stride: int = Field(4, ge=0, description="pretrained stages down to this stride keep ImageNet's weights; 0: all learn")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the image branch, where it has any")

    loss: Literal["focal", "bce", "weighted_bce"] = Field("focal", description="training loss, on the logit")
    alpha: float | None = Field(None, ge=0, le=1, description="focal weight of the positives, such as 0.25; none: no weights")
    gamma: float = Field(2.0, ge=0, le=10, description="focal exponent; 0 gives cross-entropy")
    reduction: Literal["mean", "sum"] = Field("mean", description="loss of a batch from those of its cases")
    diagnosis_weight: float = Field(0.5, ge=0, le=10, description="weight of naming the exact diagnosis as a second task")
    sampler: Literal["plain", "weighted", "oversample"] = Field(
        "plain", description="draw evenly, melanomas more often, or repeat melanomas until the classes balance"
    )
    sampled_prevalence: float = Field(0.3, gt=0, lt=1, description="share of melanomas that the weighted sampler draws")

    augmentation: Literal["mild", "strong"] = Field("mild", description="strong: twice the change of colour, hidden patches")
    small_epochs: float = Field(0.6, ge=0, lt=1, description="first share of the epochs at three quarters of the image size")

    batch_size: int = Field(32, ge=2, description="cases a training step, of all processes together")
    max_epochs: int = Field(8, ge=1, description="passes over the training cases")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="adam decays the weights through the gradient")
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="peak learning rate of the new layers")
    backbone_lr_scale: float = Field(0.5, gt=0, le=1, description="learning rate of the image branch over that")
    weight_decay: float = Field(0.05, ge=0, description="weight decay, decoupled with adamw")
    head_epochs: int = Field(0, ge=0, description="first epochs in which the image branch stays frozen")
    warmup_epochs: float = Field(0.5, ge=0, description="epochs of linear warm-up")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="moving average of the weights; 0 switches it off")
    monitor: Monitor = Field("val/f1", description="what the best checkpoint is best in")
    patience: int = Field(5, ge=1, description="epochs without a better monitor before training stops")

    seed: int = Field(0, ge=0, description="seeds the split (not folds), the initial weights, the order and the augmentation")
    deterministic: bool = Field(True, description="same seed, same machine: same predictions")
    precision: Literal["auto", "32", "bf16"] = Field("auto", description="auto takes what was faster for the backbone")
    devices: int = Field(0, ge=0, description="training processes a machine, one device each; 0: as many as torchrun started")
    nodes: int = Field(0, ge=0, description="machines that train together; 0: as many as torchrun was started on")
    num_workers: int = Field(0, ge=0, description="loader processes; 0 loads in the training process")
    threads: int = Field(0, ge=0, description="CPU threads of torch; 0 leaves torch's choice")
    progress: bool = Field(True, description="progress bar with the time left")
    wandb: bool = Field(False, description="log to Weights & Biases, offline without WANDB_API_KEY")
    wandb_project: str = Field("melanoma-classification", description="Weights & Biases project")

    threshold_rule: Rule = Field("sensitivity", description="how validation chooses the threshold")
    min_sensitivity: float = Field(0.95, gt=0, le=1, description="sensitivity that the rule of this name must reach")
    min_specificity: float = Field(0.8, gt=0, le=1, description="specificity that the rule of this name must reach")
    fn_cost: float = Field(10.0, gt=0, description="cost of a false negative in false positives, for the rule cost")
    n_resamples: int = Field(2000, ge=100, description="group resamples behind each interval")
    tta: bool = Field(False, description="average the eight flips and turns of each image when predicting")

    runs_dir: UserPath = Field(Path("runs"), description="where run directories go")
    run_dir: UserPath | None = Field(None, description="this run's directory; default: named after its settings")
    cache_dir: UserPath = Field(Path("data/cache"), description="decoded images, safe to delete")
    resume: bool = Field(False, description="continue an interrupted run of the same settings")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over ``.env`` over profile."""
        init, env, dotenv = (sources[f"{name}_settings"] for name in ("init", "env", "dotenv"))
        dotenv.env_vars = {name: value for name, value in dotenv.env_vars.items() if name.startswith(ENV_PREFIX.lower())}
        return init, env, dotenv, ProfileSource(settings_cls, {})

    def __init__(self, **values: Any) -> None:
        reject_unknown(values, type(self).model_fields, "setting")
        complete = set(values) == set(type(self).model_fields)  # then no other source is consulted
        if not complete:
            reject_unknown_variables(type(self))
        try:
            super().__init__(**values, **({"_env_file": None} if complete else {}))
        except ValidationError as error:
            raise SettingsError(explain_invalid(error)) from error

    @field_validator("*", mode="before")
    @classmethod
    def _untext(cls, value: Any, info: ValidationInfo) -> Any:
        """Read the word ``none`` and comma lists, which a command line, a variable or papermill passes as text."""
        if not isinstance(value, str):
            return value
        if not value.strip() and info.field_name.endswith(("_dir", "_weights")):
            raise ValueError("expected a path")
        if value.lower() == "none" and type(None) in get_args(cls.model_fields[info.field_name].annotation):
            return None
        several = info.field_name == "image_dirs" or (info.field_name == "metadata_hidden" and "," in value)
        return tuple(part for part in value.split(",") if part) if several else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val_fraction + self.test_fraction > 0.8:
            raise ValueError("val_fraction + test_fraction leave less than a fifth of the cases for training")
        if self.folds == 1 or self.fold > self.folds:
            raise ValueError(f"fold={self.fold} of folds={self.folds}: expected 2 folds or more and one of them, or 0 for all")
        if self.init_weights is not None and not INIT_NAME.fullmatch(self.init_weights.name):
            told = "expected a name with digits of the file's SHA-256, such as simclr-0123456789ab.pt"
            raise ValueError(f"init_weights={self.init_weights}: {told}, as the study self_supervised writes it")
        if self.head_epochs >= self.max_epochs and self.head_epochs:
            raise ValueError(f"head_epochs={self.head_epochs} must be below max_epochs={self.max_epochs}")
        if self.run_dir is not None and self.run_dir.resolve() == self.runs_dir.resolve():
            raise ValueError("run_dir and runs_dir are the same folder; a run needs one of its own")
        return self

    @property
    def data_root(self) -> Path:
        """Folder of the source."""
        return self.data_dir or Path("data") / self.source

    @property
    def run_path(self) -> Path:
        """This run's directory, named after what it is and a digest of every setting that shapes its result."""
        if self.run_dir is not None:
            return self.run_dir
        branch = {"image+metadata": "fusion", "image": "image", "metadata": "metadata"}[self.modalities]
        part = f"-fold{self.fold}of{self.folds}" if self.fold else f"-{self.folds}folds" if self.folds else ""
        name = f"{self.source}-{self.backbone}-{branch}-{self.image_size}px-seed{self.seed}{part}-{self.fingerprint()}"
        return self.runs_dir / name.replace("/", "_")

    @property
    def is_pretrained(self) -> bool:
        """Whether the image branch starts from trained weights, ImageNet's or those of a file."""
        return self.pretrained or self.init_weights is not None

    def fingerprint(self) -> str:
        """Eight hex digits that change with every setting that shapes the result, not with where things lie."""
        return hashlib.sha256(json.dumps(self.shaping(), sort_keys=True).encode()).hexdigest()[:8]

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the result, JSON-ready."""
        without = {name for name in LATER_FIELDS if getattr(self, name) == type(self).model_fields[name].default}
        without = (without - {"fold"} if self.folds else without) | {"init_weights"}
        start = {"init_weights": self.init_weights.name} if self.init_weights else {}  # the digest is part of the name
        return self.model_dump(mode="json", exclude=PLACE_FIELDS | without) | start

    def with_changes(self, **changes: Any) -> Self:
        """A copy with some settings changed, validated like the original; ignores environment and profile."""
        return type(self)(**{**self.model_dump(), **changes})  # complete, so that no other source is consulted

    @classmethod
    def for_notebook(cls, **parameters: Any) -> Self:
        """Settings from a notebook's plain scalar parameters; an empty string or None means "derive it".

        The kernel is moved to the project's folder, so that ``.env``, ``data`` and ``runs`` are those of the command line.
        """
        os.chdir(project_dir())
        return cls.from_parameters(**parameters)

    @classmethod
    def from_parameters(cls, **parameters: Any) -> Self:
        """What :meth:`for_notebook` gives, or raises, without moving the process."""
        reject_unknown(parameters, cls.model_fields, "notebook parameter")
        return cls(**{name: value for name, value in parameters.items() if value not in ("", None)})

    @classmethod
    def from_json(cls, text: str, file: str = "settings.json") -> Self:
        """Settings as :meth:`to_json` wrote them into a ``file``, regardless of environment and profile."""
        try:
            values = {name: cls.model_fields[name].default for name in LATER_FIELDS} | json.loads(text)
        except (json.JSONDecodeError, TypeError) as error:
            raise SettingsError(f"{file}: expected the settings of a run, a JSON object ({error})") from error
        if differing := sorted(set(values) ^ set(cls.model_fields)):
            some = ", ".join(differing[:4])
            raise SettingsError(f"{file}: expected the settings of a run of this version of the kit; differing: {some}")
        return cls(**values)

    def to_json(self) -> str:
        """Every setting as JSON, sorted by name."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


# Settings that say where or how comfortably to run, not what comes out.
PLACE_FIELDS = {
    "profile", "data_dir", "image_dirs", "runs_dir", "run_dir", "cache_dir", "resume", "progress", "num_workers", "threads",
    "devices", "nodes", "wandb", "wandb_project",
}  # fmt: skip
# Runs stored before these existed are read with their defaults, which shape nothing.
LATER_FIELDS = (
    "devices", "nodes", "folds", "fold", "init_weights", "augmentation", "reduction", "optimizer",
    "threshold_rule", "min_specificity", "fn_cost",
)  # fmt: skip


def reject_unknown_variables(cls: type[BaseSettings]) -> None:
    """SettingsError for variables of the environment and lines of ``.env`` that no field of ``cls`` is named after."""
    known = {f"{ENV_PREFIX}{name}".upper() for name in cls.model_fields}
    ours = {name.upper() for name in os.environ if name.upper().startswith(ENV_PREFIX)}
    reject_unknown((name for name in ours if not name.startswith(TEST_ENV_PREFIX)), known, "environment variable")
    try:
        text = Path(ENV_FILE).read_text(encoding="utf-8") if Path(ENV_FILE).is_file() else ""
    except UnicodeDecodeError as error:
        raise SettingsError(f"{ENV_FILE}: expected lines NAME=value in UTF-8, got {error}") from error
    for line in parse_stream(io.StringIO(text)):
        if (name := (line.key or "").upper()).startswith("WANDB_") and line.value is not None:
            os.environ.setdefault(name, line.value)  # where Weights & Biases itself looks
            continue
        reject_unknown([name] if name else [], known, f"name in {ENV_FILE}")
        if line.error or (name and line.value is None):  # such as a quote that does not end
            raise SettingsError(f"{ENV_FILE}: expected NAME=value, got {line.original.string.strip()[:40]!r}")


def reject_unknown(names: Iterable[str], known: Iterable[str], kind: str) -> None:
    """SettingsError for names that are not known, with similar ones, else all that are."""
    if unknown := sorted(set(names) - set(known := sorted(known))):
        close = get_close_matches(unknown[0], known, n=1)
        cure = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
        raise SettingsError(f"unknown {kind} {', '.join(unknown)}; {cure}")


def explain_invalid(error: ValidationError) -> str:
    """What pydantic found wrong, a line each, with what came."""
    told = [(".".join(map(str, one["loc"])), one["msg"], one["input"]) for one in error.errors()]
    lines = [f"{name}: {text}; got {got!r}" if name else text for name, text, got in told]
    return "\n  ".join(["settings not valid:", *lines])
