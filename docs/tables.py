"""Write the tables that pages quote, from the files of ``docs/results``: ``python docs/tables.py``.

Each file holds the numbers of one study, with the command, the day, the machine and the commit that made them; an interval is a
dictionary of ``value``, ``low`` and ``high``. A page quotes a view of it below a line ``<!-- table: VIEW -->``.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent
PAGES = (HERE.parent / "README.md", HERE / "results.md")
QUOTED = re.compile(r"(<!-- table: (.+?) -->\n)((?:\|.*\n)*)")


@dataclass(frozen=True)
class View:
    """Some columns of a table, as text.

    Attributes:
        table: name of the study.
        columns: heading to key and format, such as ``auroc:.3f``; a number or an interval, else text. Key ``.`` is the row.
        path: where the rows are, such as ``details.stress``; one dictionary is one row.
        where: values that a row must have.
        pivot: heading of the rows and of the columns; the last of ``columns`` then fills the cells.
    """

    table: str
    columns: dict[str, str]
    path: str = "rows"
    where: dict[str, Any] = field(default_factory=dict)
    pivot: tuple[str, str] | None = None


_RATES = {"AUROC": "auroc:.3f", "sensitivity": "sensitivity:.3f", "specificity": "specificity:.3f"}
_MAPS = {"layer": "layer", "method": "method", "value": ".:.2f"}
_INTERNAL_EXTERNAL = {
    f"{measure}, {place}": f"{key}_{column}:.3f"
    for measure, key in (("AUROC", "auroc"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))
    for place, column in (("internal", "home"), ("external", "abroad"))
}
VIEWS = {
    "folds": View("folds", {
        "prediction": "name", "AUROC, mean of folds": "auroc:.3f", "average precision": "average_precision:.3f",
        "sensitivity": "sensitivity:.3f", "specificity": "specificity:.3f", "Brier": "brier:.3f",
        "calibration slope": "slope:.3f",
    }),
    "folds, short": View("folds", {"prediction": "name"} | _RATES),
    "folds, each": View("folds", {"AUROC of each fold": ".:.3f"}, "details.auroc_by_fold"),
    "inputs": View("inputs", {
        "inputs": "inputs", "seeds": "seeds", "test AUROC": "auroc:.3f", "gain over metadata only": "gain_metadata:+.3f",
        "gain over image only": "gain_image:+.3f",
    }),
    "external, mean": View("travel", {"models": "model"} | _INTERNAL_EXTERNAL, where={"model": "mean of 5 models"}),
    "external": View("travel", {"models": "model"} | _INTERNAL_EXTERNAL),
    "external, metadata": View("travel", {
        "AUROC of metadata alone, external": "auroc:.3f", "gain of the image model": "gain:+.3f",
    }, "details.metadata_alone"),
    "recalibration": View("travel", {
        "local patients": "patients", "method": "method", "observed / expected": "observed_over_expected:.2f",
        "low": "observed_over_expected_low:.2f", "high": "observed_over_expected_high:.2f", "sensitivity": "sensitivity:.2f",
        "specificity": "specificity:.2f",
    }, "details.few_cases"),
    "within": View("travel", {
        "all pairs": "pooled:.3f", "pairs within a source": "within:.3f", "pairs across sources": "between:.3f",
        "difference, all less within": "excess:+.3f", "source alone": "source_alone:.3f",
    }, "details.within_sources"),
    "sources": View("travel", {
        "source": "source", "images": "images:,", "melanomas": "melanomas:,",
    } | _RATES, "details.within_sources.sources"),
    "skin tone": View("travel", {
        "skin-tone proxy": "tone", "images": "images:,", "melanomas": "melanomas:,",
    } | _RATES, "details.tone.performance.home"),
    "artefacts": View("travel", {
        "artefact": "artefact", "class": "class", "images": "images", "share of decisions changed": "flips:.2f",
        "change of risk": "risk_change:+.3f",
    }, "details.stress", {"part": "all"}),
    "left out": View("sources_out", {
        "source left out": "source", "melanomas": "melanomas:,", "AUROC, seen": "auroc_seen:.3f",
        "AUROC, never seen": "auroc_unseen:.3f", "change": "auroc_change:+.3f",
    }),
    "backbones": View("league", {
        "model": "name", "AUROC": "auroc:.3f", "AUROC minus the default's": "gain_auroc:+.3f",
        "DeLong p (Holm)": "delong_p_holm:.3f", "average precision": "average_precision:.3f", "Brier, calibrated": "brier:.3f",
    }),
    "backbones, decisions": View("league", {
        "model": "name", "specificity at 95% sensitivity (test ROC)": "specificity_at:.3f",
        "sensitivity, threshold from validation": "sensitivity:.3f",
        "specificity, threshold from validation": "specificity:.3f",
    }),
    "backbones, costs": View("league", {
        "model": "name", "parameters": "parameters:,", "multiply-adds an image": "macs:,",
        "training, images/s": "training_rate:.0f",
        "inference, images/s": "inference_rate:.0f", "epochs": "epochs",
    }),
    "ablations": View("ingredients", {
        "change": "name", "AUROC": "auroc:.3f", "gain over the default's seeds": "fair_gain:+.4f",
        "training, s": "training_seconds:,", "passes an image": "passes",
    }),
    "recipes": View("recipes", {
        "change": "name", "AUROC": "auroc:.3f", "average precision": "average_precision:.3f", "gain in AUROC": "gain:+.3f",
        "gain in average precision": "gain_ap:+.3f", "passes an image": "passes", "MB of a checkpoint": "megabytes:.1f",
    }),
    "self-supervised": View("selfsupervised", {
        "method": "method", "start": "start", "share of labels": "share:.0%", "AUROC": "auroc:.3f",
        "standard deviation over label draws": "deviation:.3f", "gain over ImageNet": "gain:+.3f",
    }),
    "heatmaps, controls": View("heatmaps", {"score": "score", "method": "method", "value": ".:.2f"}, where={"layer": ""},
                               pivot=("score", "method")),
    "heatmaps, energy": View("heatmaps", _MAPS, where={"score": "energy_in_mask"}, pivot=("layer", "method")),
    "heatmaps, deletion": View("heatmaps", _MAPS, where={"score": "deletion_insertion"}, pivot=("layer", "method")),
}  # fmt: skip


def view(name: str) -> pd.DataFrame:
    """A view of a result table: a frame of text, intervals as ``0.906 [0.892, 0.919]``, a dash for what is not known."""
    wanted = VIEWS[name]
    part: Any = json.loads((HERE / "results" / f"{wanted.table}.json").read_text(encoding="utf-8"))
    for key in wanted.path.split("."):
        part = part[key]
    rows = [part] if isinstance(part, dict) else part
    kept = [row for row in rows if all(row.get(key) == value for key, value in wanted.where.items())]
    frame = pd.DataFrame([{head: _cell(row, column) for head, column in wanted.columns.items()} for row in kept])
    if wanted.pivot:
        down, across = wanted.pivot
        if "layer" not in wanted.where and "layer" in frame:
            frame = frame[frame["layer"] != ""]  # controls have none
        order = {column: list(dict.fromkeys(frame[column])) for column in (down, across)}
        frame = frame.pivot(index=down, columns=across, values=list(wanted.columns)[-1]).fillna("–")
        frame = frame.loc[order[down], order[across]].reset_index().rename_axis(columns=None)
    return frame


def _cell(row: dict[str, Any], column: str) -> str:
    key, _, spec = column.partition(":")
    value = row if key == "." else row.get(key)
    if isinstance(value, dict):
        ends = [value.get(end) for end in ("low", "high")]
        known = f" [{ends[0]:{spec}}, {ends[1]:{spec}}]" if None not in ends else ""
        return "–" if value["value"] is None else f"{value['value']:{spec}}{known}"
    if spec == ".3f" and value is not None and 0 < value < 0.0005:  # a p value is never zero
        return "< 0.001"
    return "–" if value is None else format(value, spec)


def markdown(frame: pd.DataFrame) -> str:
    """A frame of text as a Markdown table without its index."""
    lines = [list(frame.columns), ["---", *["---:"] * (frame.shape[1] - 1)], *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def quote_tables(text: str) -> str:
    """A Markdown page with the table below each ``<!-- table: VIEW -->`` written from the committed results."""
    return QUOTED.sub(lambda found: f"{found[1]}{markdown(view(found[2]))}\n", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(quote_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
