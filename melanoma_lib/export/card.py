"""The model card: what a run is, what it is worth, and what it is not for, written from its directory alone."""

import difflib
import tomllib
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from melanoma_lib.data.splits import SPLITS, assert_no_straddling
from melanoma_lib.evaluation.intervals import RATES
from melanoma_lib.runs import Run
from melanoma_lib.utils import write_text

NAME, FOLDER = "model_card.md", Path(__file__).parent


def write_card(run: Run) -> Path:
    """Write ``model_card.md`` into the directory of a finished run.

    Raises:
        ForeignThresholdError: if the stored operating point is.
    """
    write_text(run.path / NAME, card_text(run))
    return run.path / NAME


def differences(run: Run) -> list[str]:
    """How the card in the run directory differs from what the run says now: lines of a diff, none if it does not."""
    kept = (run.path / NAME).read_text(encoding="utf-8").splitlines()
    return list(difflib.unified_diff(kept, card_text(run).splitlines(), "card", "run", lineterm="", n=0))


def card_text(run: Run) -> str:
    """The card as Markdown; errors as of :func:`write_card`."""
    splits = run.splits
    assert_no_straddling(splits["group_id"], splits["split"])
    environment = Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("card.md.j2").render(
        name=run.path.name, settings=run.settings, epochs=len(run.history), point=run.operating_point, metrics=run.metrics,
        splits=splits.sort_values("split", key=lambda column: column.map(SPLITS.index), kind="stable"),
        leaked=shared_by_image_split(splits), rates=RATES, calibrator=run.calibrator, environment=run.environment,
        guidelines=guidelines(),
    ).rstrip() + "\n"  # fmt: skip


def guidelines() -> list[dict]:
    """The reporting checklists, ``title`` and ``items``."""
    found = tomllib.loads((FOLDER / "checklists.toml").read_text(encoding="utf-8"))["guideline"]
    for guideline in found:
        parts = ("topic", "by_card", "by_human")
        guideline["items"] = [dict(zip(parts, [*one, "", ""], strict=False)) for one in guideline["items"]]
    return found


def shared_by_image_split(splits: pd.DataFrame) -> float:
    """Expected share of melanoma images that a split by image would test while training holds a sibling.

    An image's k - 1 siblings all miss the training part with probability (1 - share)^(k - 1), drawing with replacement.
    """
    siblings = splits.groupby("group_id")["image_id"].transform("size")[splits["target"] == 1] - 1
    return float((1 - (splits["split"] != "train").mean() ** siblings).mean())
