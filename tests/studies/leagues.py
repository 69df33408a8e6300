"""A league of made-up numbers, for what is said and drawn of one."""

from melanoma_lib.studies.backbones_words import FROZEN, IMAGENET, METADATA, SCRATCH, notes_for
from melanoma_lib.studies.results import ResultTable


def around(value, spread=0.02):
    return {"value": value, "low": value - spread, "high": value + spread}


def row(name, auroc, macs, *, weights=SCRATCH, epochs=8, size=64, backbone=None, default=False, spread=0.02, best=0.9, **changes):
    """A row whose paired differences have the spread given."""
    specificity = 2 * auroc - 1.1
    values = {
        "name": name, "default": default, "backbone": backbone or name.split()[0].lower(), "weights": weights,
        "image_size": size, "epochs": epochs, "precision": "float32", "checkpoint_bytes": 4_000_000, "weights_bytes": 1_000_000,
        "auroc": around(auroc), "average_precision": around(auroc - 0.4), "specificity_at": around(specificity),
        "sensitivity": around(0.94), "specificity": around(specificity), "brier": around(0.08, 0.004),
        "behind_auroc": around(auroc - best, spread), "behind_specificity_at": around(specificity - (2 * best - 1.1), 2 * spread),
        "gain_auroc": None if default else around(auroc - 0.87), "delong_p": None if default else 0.01,
        "delong_p_holm": None if default else 0.0301, "parameters": 3_000_000, "macs": macs,
        "command": f"melanoma_lib train --image-size {size} --max-epochs {epochs} --monitor val/auroc" if epochs else None,
        "training_rate": around(100.0, 5) if epochs else None, "inference_rate": around(3e10 / macs, 5),
    }  # fmt: skip
    return values | changes


def made_up(*rows, **details):
    """Four models and the metadata baseline, unless rows are given."""
    rows = rows or (
        row("Good (ImageNet, 64 px)", 0.90, 30_000_000, weights=IMAGENET, default=True, backbone="net"),
        row("Bare (from scratch, 64 px)", 0.80, 30_000_000, backbone="net"),
        row("Dear (from scratch, 64 px)", 0.85, 300_000_000),
        row(FROZEN, 0.84, 120_000_000, weights=IMAGENET, epochs=None, size=128),
        row(METADATA, 0.67, 13, weights=None, epochs=None, size=None, inference_rate=None),
    )
    known = {
        "min_sensitivity": 0.95, "n_cases": 2003, "n_melanomas": 222, "n_groups": 1494, "n_resamples": 2000,
        "folds": 5, "fold": 1,
    } | details  # fmt: skip
    return ResultTable("league", "Made up", "python -m melanoma_lib study league", list(rows), notes_for(known, True), known)
