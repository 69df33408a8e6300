"""Sections of the model card; each takes the run and, where one was played, its league of heatmaps."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from melanoma_lib.data.splits import SPLITS, assert_no_straddling
from melanoma_lib.errors import CardError
from melanoma_lib.evaluation.intervals import RATES
from melanoma_lib.explain.benchmark import Benchmark as League
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings

SOURCES = {
    "synthetic": "synthetic dermoscopy drawn by the kit's own generator; not medical data",
    "ham10000": "HAM10000 (Tschandl et al. 2018): no patient ids, so groups are lesions",
    "isic2019": "ISIC 2019 training data: lesions where they are known",
    "isic2020": "ISIC 2020 training data (Rotemberg et al. 2021): groups are patients",
    "isic_archive": "a collection of the ISIC archive",
}
INPUTS = {"image+metadata": "image, age, sex and site", "image": "image alone", "metadata": "age, sex and site alone"}
TITLES = {"auroc": "AUROC", "ppv": "PPV", "npv": "NPV", "f1": "F1", "mcc": "MCC", "average_precision": "average precision"}
LIMITS = (
    "The test split comes from the same collection as training: same clinics, cameras and choice of lesions. Elsewhere it will "
    "do differently, most likely worse.",
    "The collection's share of melanomas is not that of a practice: PPV and NPV must be carried to the prevalence of the place.",
    "Skin tones are not recorded; dark skin is rare in dermoscopy collections. Nothing here says how the model does on it.",
    "Photographs were chosen by people who already suspected something; what nobody photographed is not represented.",
    "A heatmap shows what moved the model's output. It is no evidence of malignancy and no segmentation.",
    "The intervals hold for lesions or patients drawn like these; not for another seed, split or place.",
)


def league_of(run: Run, path: Path | None) -> League | None:
    """The run's league of heatmaps, where one was played.

    Raises:
        CardError: if the file is missing though named, or graded another model.
    """
    kept = path or run.path / "league.json"
    if not kept.is_file():
        if path:
            raise CardError(f"no league in {path}; play one with python -m melanoma_lib explain {run.path} --league 500")
        return None
    league = League.from_json(kept.read_text(encoding="utf-8"))
    if league.facts["checkpoint_sha256"] != run.operating_point.checkpoint_sha256:
        raise CardError(f"{kept} graded the heatmaps of {league.facts['run']}, another model than {run.path}")
    return league


def _model(run: Run, _league: League | None) -> str:
    settings = run.settings
    rows = [
        ("inputs", INPUTS[settings.modalities]),
        ("image branch", f"{settings.backbone} (timm) at {settings.image_size} x {settings.image_size} pixels"
         if "image" in settings.modalities else "none"),
        ("start", _start(settings)),
        ("output", "one logit; its sigmoid is not a risk, the calibrated risk is"),
        ("loss", _loss(run)),
        ("seed", settings.seed),
        ("epochs run", len(run.history)),
        ("checkpoint, SHA-256", run.operating_point.checkpoint_sha256),
    ]  # fmt: skip
    return table(("", ""), rows)


def _start(settings: Settings) -> str:
    if "image" not in settings.modalities:
        return "random weights"
    if settings.init_weights:
        return f"weights of {settings.init_weights.name}"
    return "ImageNet weights" if settings.pretrained else "random weights"


def _loss(run: Run) -> str:
    settings = run.settings
    if settings.loss == "focal":
        return f"focal, gamma {settings.gamma:g}, alpha {'none' if settings.alpha is None else format(settings.alpha, 'g')}"
    return {"bce": "cross-entropy", "weighted_bce": "cross-entropy, weighted by class"}[settings.loss]


def _use(_run: Run, _league: League | None) -> str:
    return (
        "**For** teaching how such models are trained, tested, calibrated and fooled, and for studying them on collections that "
        "were made for research.\n\n**Not for** diagnosis, triage, screening, self-examination, or any decision about a person; "
        "not for images that are no dermoscopy; not a medical device, and not examined as one."
    )


def _data(run: Run, _league: League | None) -> str:
    splits, settings = run.splits, run.settings
    assert_no_straddling(splits["group_id"], splits["split"])
    rows = []
    for split in SPLITS:
        part = splits[splits["split"] == split]
        rows.append((split, len(part), part["group_id"].nunique(), int(part["target"].sum()), f"{part['target'].mean():.1%}"))
    held = table(("split", "images", "groups", "melanomas (images)", "share"), rows)
    shared = _shared_by_image_split(splits)
    return (
        f"Source: {SOURCES[settings.source]}.\n\n{held}\n\n"
        f"Split by group with seed {settings.seed}, stratified by class. Audit: no group lies in two splits. Had the same shares "
        f"been drawn image by image, {shared:.1%} of the test melanomas would have had another image of the same group in "
        "training (expected value).\n\nOther classes are pooled as \"not melanoma\". The reference standard is the collection's: "
        "not all of its lesions were confirmed by histopathology."
    )  # fmt: skip


def _shared_by_image_split(splits: pd.DataFrame) -> float:
    """Expected share of melanoma images that a split by image would test while training holds a sibling.

    An image's k - 1 siblings all miss the training part with probability (1 - share)^(k - 1), drawing with replacement.
    """
    share = (splits["split"] == "train").mean()
    siblings = splits.groupby("group_id")["image_id"].transform("size")[splits["target"] == 1] - 1
    return float((1 - (1 - share) ** siblings).mean())


def _performance(run: Run, _league: League | None) -> str:
    metrics = run.metrics
    half, chosen = metrics["at_half"], metrics["at_threshold"]
    ranking = table(("", "value"), [(TITLES[name], interval(metrics[name])) for name in ("auroc", "average_precision")])
    counts = [" / ".join(str(point[cell]) for cell in ("tp", "fp", "tn", "fn")) for point in (half, chosen)]
    rows = [("TP / FP / TN / FN", *counts)]
    rows += [(TITLES.get(name, name.replace("_", " ")), interval(half[name]), interval(chosen[name])) for name in RATES]
    rows.append(("biopsies per melanoma found", *(number(point["biopsies_per_melanoma"], 1) for point in (half, chosen))))
    decisions = table(("", "output >= 0.5", f"output >= {chosen['threshold']:.4f} (stored)"), rows)
    resampling = metrics["resampling"]
    return (
        f"Test split: {metrics['n']} images, {metrics['n_groups']} groups, {metrics['n_melanoma']} melanomas "
        f"({metrics['prevalence']:.1%}). Brackets are {resampling['level']:.0%} intervals from {resampling['n']} resamples of "
        f"whole groups.\n\n{ranking}\n\n{decisions}"
    )


def _subgroups(run: Run, _league: League | None) -> str:
    rows = []
    for row in run.metrics["subgroups"]:
        if row["variable"] == "all":
            continue
        rates = [
            interval({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}, 2)
            for name in ("auroc", "sensitivity", "specificity")
        ]
        label = f"{row['variable']}: {row['subgroup']}{' *' if row['note'] else ''}"
        rows.append((label, row["n"], row["n_melanoma"], *rates))
    return (
        table(("subgroup", "images", "melanomas", "AUROC", "sensitivity", "specificity"), rows)
        + "\n\nAt the stored operating point. \\* few groups or one class: Wilson intervals, no interval for AUROC; a dash is "
        "undefined. Of this many rows one or two look striking by chance."
    )


def _calibration(run: Run, _league: League | None) -> str:
    calibration = run.metrics["calibration"]
    rows = [(name, *(interval(calibration[scale][name]) for scale in ("probability", "risk")))
            for name in ("brier", "slope", "intercept")]  # fmt: skip
    rows.append(("ECE, ten bins of equal size", *(number(calibration[scale]["ece"]) for scale in ("probability", "risk"))))
    fitted = run.calibrator.to_dict()
    words = ", ".join(f"{name} {value:.4f}" for name, value in fitted.items() if isinstance(value, float))
    return (
        table(("", "output (sigmoid of the logit)", "calibrated risk"), rows)
        + f"\n\nSlope and intercept from logit to risk were fitted on validation ({words}); perfect are slope 1, intercept 0."
    )


def _operating_point(run: Run, _league: League | None) -> str:
    point = run.operating_point
    rows = [
        ("rule", point.rule),
        ("threshold on the output", f"{point.threshold:.6f}"),
        ("sensitivity on validation (made to fit)", number(point.sensitivity)),
        ("specificity on validation", number(point.specificity)),
        ("validation predictions, SHA-256", point.predictions_sha256),
    ]
    return table(("", ""), rows) + "\n\nChosen on validation, stored with these digests, refused for any other model."


def _heatmaps(_run: Run, league: League | None) -> str:
    if league is None:
        return "Not examined. Until they are, look at them as pictures, not as explanations."
    facts = league.facts
    about = (
        f"Graded on {facts['n']} test cases with an outlined lesion ({facts['melanomas']} melanomas, {facts['groups']} groups)."
    )
    return f"{about}\n\n```\n{league.criteria.to_string()}\n```"


def _limits(_run: Run, _league: League | None) -> str:
    return "\n".join(f"- {limit}" for limit in LIMITS)


def _environment(run: Run, _league: League | None) -> str:
    environment = run.environment
    names = ("python", "platform", "processor", "device", "threads")
    rows = [(name, environment[name]) for name in names if name in environment]
    rows += list(environment["packages"].items())
    shaping = ", ".join(f"{name} {value}" for name, value in sorted(run.settings.shaping().items()))
    return f"{table(('', ''), rows)}\n\nSettings that shape the result: {shaping}."


SECTIONS: dict[str, Callable[[Run, League | None], str]] = {
    "Model": _model,
    "Intended use": _use,
    "Data and split": _data,
    "Performance": _performance,
    "Subgroups": _subgroups,
    "Calibration": _calibration,
    "Operating point": _operating_point,
    "Heatmaps": _heatmaps,
    "Limits": _limits,
    "Environment": _environment,
}


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (tuple(head), *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(tuple(head)), *lines[1:]])


def interval(value: dict, digits: int = 3) -> str:
    """A number with its interval; a dash where it is undefined."""
    if value["value"] is None:
        return "–"
    if value["low"] is None:
        return number(value["value"], digits)
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"
