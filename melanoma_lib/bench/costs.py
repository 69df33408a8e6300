"""What training costs an image, read from finished runs, and what a larger archive would then take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from melanoma_lib.data.images import stored_side
from melanoma_lib.errors import RunError
from melanoma_lib.runs import Run

ISIC_2024 = 401_059  # images of the ISIC 2024 challenge's training part


@dataclass(frozen=True)
class Cost:
    """Time and space of a recipe.

    Attributes:
        per_image: seconds of training (with validation once an epoch) for one image in one epoch: lowest, median, highest of all
            measured epochs.
        share: of a data set that training and validation see; the test split waits until the end.
        epochs: of one run.
        epochs_measured: behind ``per_image``.
        image_size: side of the model's input in pixels.
        has_images: whether the model looks at images, which are then cached.
        heading: whose costs these are, in words.
    """

    per_image: tuple[float, float, float]
    share: float
    epochs: int
    epochs_measured: int
    image_size: int
    has_images: bool
    heading: str

    def hours(self, images: int) -> tuple[float, float, float]:
        """Hours that a run on so many images takes where nothing but the number of images changes: low, median, high."""
        low, middle, high = (seconds * self.epochs * self.share * images / 3600 for seconds in self.per_image)
        return low, middle, high

    def cache_bytes(self, images: int) -> int:
        """Bytes of the two caches: pixels for training, larger than the input by the tightest crop, and those of evaluation."""
        sides = (stored_side(self.image_size), self.image_size) if self.has_images else ()
        return sum(images * 3 * side**2 for side in sides)

    def report(self, images: int = ISIC_2024) -> str:
        """What was measured and the projection, in words."""
        low, middle, high = self.per_image
        hours = self.hours(images)
        return "\n".join(
            [
                self.heading,
                f"measured: {1000 * middle:.2f} ms an image and epoch, median of {self.epochs_measured} epochs "
                f"(range {1000 * low:.2f} to {1000 * high:.2f})",
                f"projected to {images:,} images, {self.share:.0%} of them in training and validation, {self.epochs} epochs: "
                f"{hours[1]:.1f} hours ({hours[0]:.1f} to {hours[2]:.1f}) on the same machine",
                f"image caches of all of them: {self.cache_bytes(images) / 1e9:.1f} GB",
            ]
        )


def cost_of(runs: Sequence[Run]) -> Cost:
    """What runs of one recipe, trained on one machine, cost.

    Args:
        runs: that differ in nothing but the seed or the fold; a cross-validation stands for the runs of its folds.

    Raises:
        RunError: if there is none, or they differ in more, or were trained on other machines.
    """
    runs = [part for run in runs for part in (run.folds if run.is_cross_validation else [run])]
    if not runs:
        raise RunError("costs are read from finished runs, got none")
    kinds = {(run.settings.with_changes(seed=0, fold=0).fingerprint(), *_machine(run)) for run in runs}
    if len(kinds) > 1:
        raise RunError(f"{len(runs)} runs differ in more than the seed, or in their machine; name runs of one recipe and machine")
    seconds = []
    for run in runs:
        seen = int(run.splits["split"].ne("test").sum())
        seconds += (run.history["seconds"] / seen).tolist()
    settings, environment = runs[0].settings, runs[0].environment
    return Cost(
        per_image=(min(seconds), median(seconds), max(seconds)),
        share=sum(run.splits["split"].ne("test").sum() for run in runs) / sum(len(run.splits) for run in runs),
        epochs=math.ceil(sum(len(run.history) for run in runs) / len(runs)),
        epochs_measured=len(seconds),
        image_size=settings.image_size,
        has_images="image" in settings.modalities,
        heading=(
            f"{settings.backbone}, {settings.modalities}, {settings.image_size} px: {len(runs)} runs on {settings.source}, "
            f"{environment['device']}, {environment['threads']} thread(s), torch {environment['packages']['torch']}"
        ),
    )


def _machine(run: Run) -> tuple[str, ...]:
    environment = run.environment
    return str(environment["platform"]), str(environment["device"]), str(environment["threads"]), str(run.settings.devices)
