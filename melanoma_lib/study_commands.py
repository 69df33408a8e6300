"""What ``study`` and ``costs`` do: each function takes plain values, prints a table and leaves it where it was told to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from melanoma_lib.runs import Run
    from melanoma_lib.settings import Settings
    from melanoma_lib.studies.results import ResultTable

OUT = Path("reports/results")  # never among the committed tables, which name the commit that made them
ISIC_2024 = 401_059  # images of the ISIC 2024 challenge's training part


def study_travel(
    settings: "Settings", runs: Sequence[Path], metadata: Sequence[Path] = (), folder: Path | None = None, out: Path = OUT
) -> None:
    """Test runs of one recipe on ISIC 2020, in ``folder``; ``metadata`` are runs of metadata alone to gain over."""
    from melanoma_lib.runs import Run
    from melanoma_lib.studies.external import external_validation

    table = external_validation(
        [Run(path) for path in runs],
        folder or Path("data/isic2020"),
        settings.cache_dir if "cache_dir" in settings.model_fields_set else None,
        [Run(path) for path in metadata],
        settings.n_resamples,
        settings.seed,
        show=print,
    )
    _show(table, ("external", "external, metadata") if metadata else ("external",), out)


def costs(runs: Sequence[Path], images: int = ISIC_2024) -> None:
    """Print what training of some runs took for an image, and what a larger archive would take."""
    from melanoma_lib.runs import Run

    print(cost_table([Run(path) for path in runs], images).T.to_string(header=False))


def cost_table(runs: Sequence["Run"], images: int = ISIC_2024) -> "pd.DataFrame":
    """What training costs for an image, read from finished runs, and what so many images would take on the same machine.

    Args:
        runs: that differ in nothing but the seed or the fold; a cross-validation stands for the runs of its folds.
        images: of the larger archive.

    Returns:
        One row: milliseconds of an image and epoch with validation (median, low, high of the epochs measured), hours (the
        same three), gigabytes of the two image caches: pixels for training, larger than the input by the tightest crop, and
        those of evaluation.

    Raises:
        RunError: if there is none, or they differ in more, or were trained on other machines.
    """
    import numpy as np
    import pandas as pd

    from melanoma_lib.data.images import stored_side
    from melanoma_lib.errors import RunError

    runs = [part for run in runs for part in (run.folds if run.is_cross_validation else [run])]
    if not runs:
        raise RunError("costs are read from finished runs, got none")
    machine = ("platform", "device", "threads")
    kinds = {
        (
            run.settings.with_changes(seed=0, fold=0).fingerprint(),
            run.settings.devices,
            *(run.environment[key] for key in machine),
        )
        for run in runs
    }
    if len(kinds) > 1:
        raise RunError(f"{len(runs)} runs differ in more than the seed, or in their machine; name runs of one recipe and machine")
    seen = [int(run.splits["split"].ne("test").sum()) for run in runs]  # test cases wait until the end
    seconds = np.concatenate([run.history["seconds"] / count for run, count in zip(runs, seen, strict=True)])
    share, epochs = sum(seen) / sum(len(run.splits) for run in runs), -(-sum(len(run.history) for run in runs) // len(runs))
    settings, environment = runs[0].settings, runs[0].environment
    row = {"recipe": f"{settings.backbone}, {settings.modalities}, {settings.image_size} px, {settings.source}"}
    row |= {"runs": len(runs)} | {key: environment[key] for key in machine} | {"torch": environment["packages"]["torch"]}
    ends = {"": np.median(seconds), "_low": seconds.min(), "_high": seconds.max()}
    row |= {f"milliseconds{end}": round(1000 * value, 2) for end, value in ends.items()} | {"epochs_measured": len(seconds)}
    row |= {"images": images, "share": round(share, 2), "epochs": epochs}
    row |= {f"hours{end}": round(value * epochs * share * images / 3600, 1) for end, value in ends.items()}
    sides = (stored_side(settings.image_size), settings.image_size) if "image" in settings.modalities else ()
    return pd.DataFrame([row | {"cache_gigabytes": round(sum(images * 3 * side**2 for side in sides) / 1e9, 1)}])


def _show(table: "ResultTable", views: Sequence[str], out: Path) -> None:
    from melanoma_lib.studies.results import save_results
    from melanoma_lib.studies.views import view

    for name in views:
        print(f"{view(name, table).to_string(index=False)}\n")
    print(f"written to {save_results(table, out)}")
