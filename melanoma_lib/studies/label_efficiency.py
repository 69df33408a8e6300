"""What a warm start is worth by the share of labels: frozen features under a linear probe, and fine-tuning, on the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.errors import StudyError
from melanoma_lib.evaluation import OperatingCurve, bootstrap_gain, bootstrap_mean_auroc, delong_test
from melanoma_lib.heads import FeatureTable, cached_features
from melanoma_lib.model import MelanomaNet
from melanoma_lib.runs import Run
from melanoma_lib.settings import Settings
from melanoma_lib.studies.backbones import command_of
from melanoma_lib.studies.results import ResultTable, interval_text
from melanoma_lib.studies.selfsupervised import Pretraining, WarmStart, pretrain
from melanoma_lib.training import keep_freed_memory, train
from melanoma_lib.weights import load_branch

DRAWS = {0.01: 10, 0.05: 5, 0.1: 5, 1.0: 1}  # share of the training lesions or patients whose labels are known -> random choices
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # scikit-learn's C, on standardised features
FINE_TUNED = (0.1, 1.0)
LONGER = 3  # times as many epochs where a tenth of the labels is known
RANDOM, IMAGENET, SIMCLR = "random weights", "ImageNet", "SimCLR"
PROBE, TUNED = "linear probe", "fine-tuned"


@dataclass(frozen=True)
class Trial:
    """Test scores of one method from one start at one share of the labels, one array a random choice of labels.

    Attributes:
        method: ``linear probe`` or ``fine-tuned``.
        start: of the image branch.
        share: of the training lesions or patients, in (0, 1].
        labels: images and melanomas among the labels, averaged over the choices.
        scores: of the test cases, shape ``(n_test,)`` each; the higher, the more likely melanoma.
        seconds: of training; None where it is part of another study.
    """

    method: str
    start: str
    share: float
    labels: tuple[float, float]
    scores: list[np.ndarray] = field(repr=False)
    seconds: float | None = None


def draw_labels(cases: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Rows whose labels are known: whole lesions or patients, the share the same among those with and without melanoma.

    Args:
        cases: the training cases; ``group_id`` and ``target`` are used.
        share: of the groups, in (0, 1]; at least two of each kind.
        seed: of the choice.

    Returns:
        Positions in ``cases``, ascending.

    Raises:
        ValueError: if the share is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share expects a number above 0 and at most 1, got {share}")
    melanoma = cases.groupby("group_id")["target"].max().sort_index()
    rng, chosen = np.random.default_rng(seed), []
    for kind in (0, 1):
        groups = melanoma.index[melanoma == kind].to_numpy()
        n = min(len(groups), max(2, round(share * len(groups))))
        chosen.extend(rng.permutation(groups)[:n])
    return np.flatnonzero(cases["group_id"].isin(chosen))


def probe(table: FeatureTable, labelled: np.ndarray) -> np.ndarray:
    """Log-odds of the test cases by a logistic regression on frozen features; its penalty is chosen on validation.

    Args:
        table: features of all cases.
        labelled: positions among the training cases whose labels are known.

    Returns:
        Scores, shape ``(n_test,)``.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (train_x, train_y), (val_x, val_y), (test_x, _) = (
        tuple(part.double().numpy() for part in table.tensors(split, "image")) for split in ("train", "val", "test")
    )
    best, scores = -1.0, np.empty(0)
    for penalty in PENALTIES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=500))
        model.fit(train_x[labelled], train_y[labelled])
        reached = OperatingCurve(val_y, model.decision_function(val_x)).auroc
        if reached > best:
            best, scores = reached, model.decision_function(test_x)
    return scores


def features_of(settings: Settings, start: str, warm: WarmStart, data: DermoscopyDataModule) -> FeatureTable:
    """Frozen features of all cases, of an image branch that no label has touched."""
    pl.seed_everything(settings.seed, workers=False, verbose=False)
    n_metadata, pretrained = data.encoder.n_features, start == IMAGENET
    model = MelanomaNet(settings.backbone, n_metadata, pretrained, "image")
    if start == SIMCLR:
        load_branch(model.image_branch, warm.file)
    return cached_features(model, data)


def probe_trials(settings: Settings, warm: WarmStart, data: DermoscopyDataModule, draws: dict[float, int]) -> list[Trial]:
    """The linear probe from every start, at every share, on the same choices of labels."""
    training = data.cases[data.cases["split"] == "train"].reset_index(drop=True)
    trials = []
    for start in (RANDOM, IMAGENET, SIMCLR) if settings.pretrained else (RANDOM, SIMCLR):
        table = features_of(settings, start, warm, data)
        for share, n in draws.items():
            choices = [draw_labels(training, share, settings.seed + draw) for draw in range(n)]
            trials.append(Trial(PROBE, start, share, _labels(training, choices), [probe(table, rows) for rows in choices]))
    return trials


def tuned_trials(settings: Settings, warm: WarmStart, data: DermoscopyDataModule, shares: Sequence[float]) -> list[Trial]:
    """The whole recipe from the settings' own start and from the warm one, at some shares, on the same labels.

    A tenth of the labels is seen ``LONGER`` times as often; validation, which stops and calibrates, stays whole.
    """
    training, trials = np.flatnonzero(data.cases["split"] == "train"), []
    cold = IMAGENET if settings.pretrained else RANDOM
    tested = data.cases.loc[data.cases["split"] == "test", "image_id"].reset_index(drop=True)
    for share in shares:
        chosen = draw_labels(data.cases.iloc[training], share, settings.seed)
        cases = data.cases.drop(index=np.setdiff1d(training, training[chosen])).reset_index(drop=True)
        labels = _labels(data.cases.iloc[training], [chosen])
        for start, file in ((cold, None), (SIMCLR, warm.file)):
            run = _tuned(settings.with_changes(init_weights=file, resume=True), share, cases)
            if not run.predictions("test")["image_id"].equals(tested):
                raise StudyError(f"{run.path} tests other cases than this study; train it again")
            seconds = float(run.history["seconds"].sum())
            trials.append(Trial(TUNED, start, share, labels, [run.predictions("test")["logit"].to_numpy()], seconds))
    return trials


def _tuned(settings: Settings, share: float, cases: pd.DataFrame) -> Run:
    if share == 1:
        return train(settings)
    longer = {"max_epochs": LONGER * settings.max_epochs, "patience": LONGER * settings.patience}
    settings = settings.with_changes(**longer)
    base = settings.run_path
    return train(settings.with_changes(run_dir=base.with_name(f"{base.name}-with-{share * 100:g}pct-of-labels")), cases)


def _labels(training: pd.DataFrame, choices: Sequence[np.ndarray]) -> tuple[float, float]:
    targets = training["target"].to_numpy()
    return float(np.mean([len(rows) for rows in choices])), float(np.mean([targets[rows].sum() for rows in choices]))


def study_labels(settings: Settings, how: Pretraining) -> ResultTable:
    """Pretrain without labels, then compare the starts by the share of labels; what is missing is trained.

    Args:
        settings: the recipe, with its split or fold; both branches are fine-tuned, the probe sees the image alone.
        how: of the pretraining.

    Raises:
        StudyError: if ``lightly`` is not installed.
    """
    settings = settings.with_changes(run_dir=None)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_memory()
    data = DermoscopyDataModule(settings.with_changes(modalities="image"))
    warm = pretrain(settings, how, data)
    trials = probe_trials(settings, warm, data, DRAWS) + tuned_trials(settings, warm, data, FINE_TUNED)
    return label_table(settings, how, warm, trials, data.cases[data.cases["split"] == "test"])


def label_table(
    settings: Settings, how: Pretraining, warm: WarmStart, trials: Sequence[Trial], test: pd.DataFrame
) -> ResultTable:
    """Every trial, and what the warm start gains over the start it replaces."""
    cold = IMAGENET if settings.pretrained else RANDOM
    rows = []
    for trial in trials:
        base = next(t for t in trials if (t.method, t.share, t.start) == (trial.method, trial.share, cold))
        rows.append(_row(trial, None if trial is base else base, test, settings.n_resamples))
    n_compared = sum(row["gain"] is not None for row in rows)
    counts = {"n_test": len(test), "n_melanomas": int(test["target"].sum()), "n_unlabelled": warm.n_images}
    began = f"{cold} weights" if settings.pretrained else cold
    notes = [
        f"SimCLR began with {began} and saw {warm.n_images:,} training images without their labels, none of validation or test "
        "(inductive). The probe sees the image alone, fine-tuning age, sex and site too.",
        "Labels are known of whole lesions or patients, the same share among those with and without melanoma, and the same for "
        "all starts. Validation labels, which choose the penalty and stop the training, are all known at every share.",
        f"All rows predict the same {counts['n_test']:,} test images ({counts['n_melanomas']:,} melanomas). Intervals, of 95%, "
        "are for the mean over the choices of labels, and resample patients or lesions. The deviation is over those choices.",
        f"{n_compared} comparisons at 95%: about {0.05 * n_compared:.1f} of them would exclude zero by chance alone.",
        f"Fine-tuning uses one seed; with {FINE_TUNED[0]:.0%} of the labels it sees each of them {LONGER} times as often. What "
        "another seed alone would change is in the table of ingredients: a gain of one training is not settled. One pretraining "
        f"is behind all rows of {SIMCLR}, one draw of weights behind those of the probe on {RANDOM}.",
        "Few epochs at small size: SimCLR is known to gain from hundreds of epochs and batches of thousands of images.",
    ]
    start = {"history": warm.history, "loss_of_chance": warm.chance, "weights": warm.file.name}
    details = counts | {
        "modalities": settings.modalities,
        "pretraining": {"side": how.side, "epochs": how.epochs, "batch_size": how.batch_size, **start},
    }
    title = "What a self-supervised warm start is worth, by the share of labels"
    command = command_of(settings, f"study selfsupervised --epochs {how.epochs}", places=False)
    return ResultTable("selfsupervised", title, command, rows, notes, details)


def _row(trial: Trial, base: Trial | None, test: pd.DataFrame, n: int) -> dict[str, Any]:
    targets, groups = test["target"].to_numpy(), test["group_id"].to_numpy()
    samples = [(targets, scores, groups) for scores in trial.scores]
    aurocs = np.array([OperatingCurve(targets, scores).auroc for scores in trial.scores])
    several = len(samples) > 1
    row: dict[str, Any] = {"method": trial.method, "start": trial.start, "share": trial.share}
    row |= {"n_labels": trial.labels[0], "n_labelled_melanomas": trial.labels[1], "draws": len(samples)}
    row |= {"auroc": bootstrap_mean_auroc(samples, n=n).to_dict(), "deviation": float(aurocs.std(ddof=1)) if several else None}
    row |= {"gain": None, "gain_deviation": None, "delong_p": None, "training_seconds": trial.seconds, "conclusion": None}
    if base is None:
        return row
    gains = aurocs - [OperatingCurve(targets, scores).auroc for scores in base.scores]
    if several:
        gain = bootstrap_mean_auroc(samples, base.scores, n)
    else:
        gain = bootstrap_gain(targets, trial.scores[0], base.scores[0], groups, n)["auroc"]
        row["delong_p"] = delong_test(targets, trial.scores[0], base.scores[0]).p_value
    clear = gain.low > 0 or gain.high < 0
    word = f"{'better' if gain.value > 0 else 'worse'} than {base.start}" if clear else f"not told apart from {base.start}"
    if clear and trial.method == TUNED and not several:
        word += " on these cases; one training: not settled"
    return row | {
        "gain": gain.to_dict(),
        "gain_deviation": float(gains.std(ddof=1)) if several else None,
        "conclusion": word,
    }


def label_report(table: ResultTable) -> str:
    """The table as text to read in a terminal or paste into a page (Markdown)."""
    lines = [f"{table.title}. Educational, not for diagnosis.", ""]
    lines += ["| method | start | labels | images (melanomas) | AUROC | gain | |", "|---|---|---|---|---|---|---|"]
    for row in table.rows:
        cells = (
            row["method"],
            row["start"],
            f"{row['share']:.0%}",
            f"{row['n_labels']:,.0f} ({row['n_labelled_melanomas']:.0f})",
        )
        found = (interval_text(row["auroc"]), interval_text(row["gain"], 3, "+"), row["conclusion"] or "")
        lines.append("| " + " | ".join([*cells, *found]) + " |")
    return "\n".join([*lines, "", *table.notes])
