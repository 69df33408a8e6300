"""The threshold lesson: what a threshold decides, six rules that choose one, what it costs, and the run that guards its own."""

import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from melanoma_lib.errors import ForeignThresholdError
from melanoma_lib.evaluation import Calibrator, Interval, OperatingCurve, bootstrap_intervals
from melanoma_lib.evaluation.inputs import check_fraction
from melanoma_lib.runs import CHECKPOINT, OPERATING_POINT, PREDICTIONS, REQUIRED, Run
from melanoma_lib.widgets.threshold import preset_thresholds

LINE = 78  # characters that a printed line may have
RATES = ("sensitivity", "specificity", "ppv", "npv")
NAMES = {"auroc": "AUROC", "ppv": "PPV", "npv": "NPV"}
FORMATS = {
    "threshold": "{:.3f}",
    "calibrated risk": "{:.1%}",
    "implied price": "{:,.1f}",
    "sensitivity": "{:.1%}",
    "specificity": "{:.1%}",
    "PPV": "{:.1%}",
    "false alarms per melanoma found": "{:.1f}",
    "cost of 1,000 lesions": "{:,.0f}",
}


# --- one threshold, and six rules that choose it ------------------------------------------------------------------------------


def six_rules(curve: OperatingCurve, fn_cost: float, fp_cost: float) -> dict[str, float]:
    """Each rule and the threshold it chooses: the explorer's five, and the lowest cost (infinite if flagging nobody is cheapest).

    Args:
        curve: of the predictions to choose on.
        fn_cost: cost of a missed melanoma, above 0, in any unit.
        fp_cost: cost of a false alarm, above 0, in the same unit.
    """
    return preset_thresholds(curve) | {f"cost {fn_cost:g} to {fp_cost:g}": cheapest_threshold(curve, fn_cost, fp_cost)}


def decision_table(
    curve: OperatingCurve,
    thresholds: Mapping[str, float],
    calibrator: Calibrator | None = None,
    costs: tuple[float, float] | None = None,
) -> pd.DataFrame:
    """What each threshold decides on these predictions, one row a threshold.

    Args:
        curve: of outputs (sigmoid of the logit).
        thresholds: on the output, by name.
        calibrator: adds the risk that an output equal to the threshold means, and the price it implies, (1 - risk) / risk: how
            many false alarms a missed melanoma is worth to whoever acts from this calibrated risk on. It is not the price for
            which the cut is the cheapest on these predictions: there the calibrator and the few cases near the cut may disagree.
        costs: of a missed melanoma and of a false alarm; adds what 1,000 such lesions cost.

    Returns:
        Columns among those of `FORMATS`, as numbers; `printed` makes them text.
    """
    point = curve.at(np.array(list(thresholds.values()), dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {"threshold": point.threshold}
        if calibrator is not None:
            risk = calibrator.risk(logit(point.threshold))
            columns |= {"calibrated risk": risk, "implied price": (1 - risk) / risk}
        columns |= {"sensitivity": point.sensitivity, "specificity": point.specificity, "PPV": point.ppv}
        columns["false alarms per melanoma found"] = point.fp / point.tp
    if costs is not None:
        columns["cost of 1,000 lesions"] = 1000 * expected_cost(curve, point.threshold, *costs)
    return pd.DataFrame(columns, index=list(thresholds))


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """A `decision_table` as text; a dash where a number is undefined."""

    def text(value: float, form: str) -> str:
        return "–" if np.isnan(value) else form.format(value)

    return table.apply(lambda column: column.map(lambda value: text(value, FORMATS[column.name])))


# --- costs --------------------------------------------------------------------------------------------------------------------


def expected_cost(
    curve: OperatingCurve, thresholds: ArrayLike, fn_cost: float, fp_cost: float, prevalence: float | None = None
) -> NDArray[np.float64]:
    """Cost a case: ``prevalence x missed share x fn_cost + (1 - prevalence) x false-alarm share x fp_cost``.

    Args:
        curve: of the predictions.
        thresholds: shape ``(T,)``; infinite flags nobody.
        fn_cost: cost of a missed melanoma.
        fp_cost: cost of a false alarm, in the same unit.
        prevalence: share of melanomas where the threshold will be used; that of the predictions if None.

    Returns:
        Shape ``(T,)``, in the unit of the costs.

    Raises:
        ValueError: if the prevalence lies outside (0, 1) or a threshold is NaN.
    """
    prevalence = curve.prevalence if prevalence is None else check_fraction(prevalence, "prevalence")
    point = curve.at(np.asarray(thresholds, dtype=np.float64))
    # As OperatingCurve.min_cost computes it, digit for digit: equal costs must stay equal.
    missed, alarmed = 1 - point.tp / curve.n_positive, point.fp / curve.n_negative
    return prevalence * missed * fn_cost + (1 - prevalence) * alarmed * fp_cost


def cheapest_threshold(curve: OperatingCurve, fn_cost: float, fp_cost: float, prevalence: float | None = None) -> float:
    """The observed score with the lowest expected cost, among equals the lowest; infinite where flagging nobody costs less."""
    candidates = np.append(curve.thresholds, np.inf)
    return float(candidates[np.argmin(expected_cost(curve, candidates, fn_cost, fp_cost, prevalence))])


def output_for_risk(calibrator: Calibrator, risk: float) -> float:
    """The output (sigmoid of the logit) that the calibrator translates into ``risk``.

    Args:
        calibrator: with a slope above 0.
        risk: in (0, 1).

    Raises:
        ValueError: if the risk lies outside (0, 1), or the calibrator's slope is not positive.
    """
    check_fraction(risk, "risk")
    if calibrator.slope <= 0:
        raise ValueError(
            f"calibrator: expected a positive slope, got {calibrator.slope:.4g}: its risk does not rise with the output, so no "
            "cut on the output stands for a risk. Check the labels and the training of this run before choosing a threshold"
        )
    return float(expit((logit(risk) - calibrator.intercept) / calibrator.slope))


# --- how sure, and once on test -----------------------------------------------------------------------------------------------


def intervals_by_unit(
    predictions: pd.DataFrame, threshold: float, n: int = 2000, seed: int = 0
) -> dict[str, tuple[Interval, Interval]]:
    """95% intervals by metric: once as if each image stood for itself, once with whole patients or lesions resampled.

    Args:
        predictions: columns image_id, group_id, target, probability.
        threshold: ``probability >= threshold`` is called melanoma.
        n: number of resamples.
        seed: of the resampling.
    """
    by_image, by_group = (
        bootstrap_intervals(predictions["target"], predictions["probability"], predictions[unit], threshold, n, seed)
        for unit in ("image_id", "group_id")
    )
    return {name: (by_image[name], by_group[name]) for name in ("sensitivity", "specificity", "ppv", "auroc")}


def applied_once(run: Run) -> pd.DataFrame:
    """The stored threshold where it was chosen and where it was not: rates with intervals that resample patients or lesions.

    Args:
        run: a finished run; its own number of resamples is used, so that the test column repeats ``run.metrics``.

    Returns:
        Text, one row a rate, columns validation and test.

    Raises:
        ForeignThresholdError: if the stored threshold belongs to another model or other predictions.
    """
    threshold, columns = run.operating_point.threshold, {}
    for split, heading in (("val", "validation, where it was chosen"), ("test", "test, where it was not")):
        cases = run.predictions(split)
        intervals = bootstrap_intervals(
            cases["target"], cases["probability"], cases["group_id"], threshold, n=run.settings.n_resamples
        )
        counts = {"images": f"{len(cases):,}", "melanomas": f"{cases['target'].sum():,}"}
        columns[heading] = counts | {NAMES.get(name, name): f"{intervals[name]:.3f}" for name in (*RATES, "auroc")}
    return pd.DataFrame(columns)


# --- the contract -------------------------------------------------------------------------------------------------------------


@contextmanager
def copy_of(run: Run) -> Iterator[Run]:
    """A copy of the run in a temporary folder, to do to it what nobody should do to a run; gone after the ``with`` block."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for name in REQUIRED:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / name, copy / name)
        yield Run(copy)


def change_one_answer(run: Run) -> None:
    """Tamper: the first validation case gets a probability that differs by 0.01."""
    answers = run.predictions("val")
    first = answers.loc[0, "probability"]
    answers.loc[0, "probability"] = first - 0.01 if first > 0.5 else first + 0.01
    answers.to_csv(run.path / PREDICTIONS.format("val"), index=False)


def change_one_weight(run: Run) -> None:
    """Tamper: the checkpoint becomes another model's, one weight of which differs by 0.01."""
    import torch

    checkpoint = torch.load(run.path / CHECKPOINT, map_location="cpu", weights_only=True)
    first = next(weight for weight in checkpoint["state_dict"].values() if weight.is_floating_point())
    first[(0,) * first.ndim] += 0.01
    torch.save(checkpoint, run.path / CHECKPOINT)


def verdict(run: Run) -> str:
    """``accepted`` with the stored threshold, or ``refused`` with the reason that whoever opens the run is told; in lines."""
    try:
        point = Run(run.path).operating_point
    except ForeignThresholdError as error:
        reason = str(error).replace(str(run.path / OPERATING_POINT), OPERATING_POINT)
        return textwrap.fill(f"refused: {reason}", LINE)
    return f"accepted: threshold {point.threshold:.3f}"
