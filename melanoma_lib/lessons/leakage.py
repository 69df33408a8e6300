"""What leaks: groups on both sides of a split, and columns of the case table that know the answer; and the fair baselines."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.data.readers import read_table
from melanoma_lib.data.splits import audit_leakage
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.evaluation import bootstrap_mean_auroc
from melanoma_lib.evaluation.subgroups import COLUMNS
from melanoma_lib.lessons.eda import MISSING, WIDTH, Row, forest, height_of, listed, unit_of
from melanoma_lib.plotting import BLUE, GREEN, GREY, ORANGE, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.settings import Settings

PATIENT, COLLECTION, ANSWER = "the patient", "how the data came together", "columns that know the answer"
KINDS = {PATIENT: (BLUE, "o"), COLLECTION: (ORANGE, "s"), ANSWER: (VERMILLION, "D")}  # of a baseline: colour and marker

# --- groups on both sides ---------------------------------------------------------------------------------------------------


def leakage_over_splits(cases: pd.DataFrame, n_splits: int = 30, seed: int = 0) -> pd.DataFrame:
    """Audit one random split after another.

    Args:
        cases: case table.
        n_splits: number of splits of each kind.
        seed: of the first.

    Returns:
        One row a split: ``by_image`` and ``by_group``, the share of test melanomas of which training holds another image of
        the same group, when images or whole groups are split.

    Raises:
        DataError: as `split_cases`.
    """
    audits = [audit_leakage(cases, seed=seed + i, n_splits=1) for i in range(n_splits)]
    both = [(audit.by_image["group"]["melanomas"], audit.by_group["group"]["melanomas"]) for audit in audits]
    return pd.DataFrame(both, columns=["by_image", "by_group"])


def leakage_figure(leakage: pd.DataFrame, guess: float | None = None, unit: str = "group") -> DescribedFigure:
    """Every split as a dot, image-level above grouped, and the reader's guess as a line.

    Args:
        leakage: from `leakage_over_splits`.
        guess: share in [0, 1] that the reader expected of image-level splits.
        unit: what the groups are.
    """
    names, jitter = (
        ("images split\nat random", f"whole {unit}s\nsplit"),
        np.random.default_rng(0).uniform(-0.18, 0.18, len(leakage)),
    )
    with kit_figure(WIDTH, 3.9) as figure:
        axes = figure.add_subplot()
        for y, (column, colour) in enumerate({"by_image": VERMILLION, "by_group": BLUE}.items()):
            mean = leakage[column].mean()
            axes.plot(leakage[column], y + jitter, "o", color=colour, markersize=8, alpha=0.55, markeredgewidth=0)
            axes.annotate(f"mean {mean:.1%}", (mean, y - 0.3), ha="center", fontsize=15, color=colour)
        if guess is not None:
            axes.axvline(guess, color=GREY, linestyle="--", label=f"your guess {guess:.0%}")
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.3)
        axes.set(xlim=(-0.09, 1.09), ylim=(1.6, -0.6))
        axes.set_xlabel(f"test melanomas of whose {unit} training holds another image ({len(leakage)} splits)")
        axes.set_yticks(range(2), names)
        axes.xaxis.set_major_formatter("{x:.0%}")
        axes.grid(visible=False, axis="y")
    image, group = leakage["by_image"], leakage["by_group"]
    return with_alt_text(
        figure,
        f"""Share of test melanomas of whose {unit} training holds another image, mean of {len(leakage)} random splits:
        {image.mean():.3f} ({image.min():.3f} to {image.max():.3f}) by image, {group.mean():.3f} by whole {unit}s.""",
    )


# --- baselines without a picture --------------------------------------------------------------------------------------------


def metadata_baselines(cases: pd.DataFrame, folds: int = 5, n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Predict melanoma from the table alone: a logistic regression for each set of columns, tested on groups it has not seen.

    A column that never varies in this source is left out. Encoders are fitted within the training folds. The intervals cover
    the choice of test cases, not that of training cases.

    Args:
        cases: case table as `load_cases` returned it, whose ``attrs`` name the source's own table.
        folds: parts into which the groups are dealt.
        n: resamples behind each interval.
        seed: of folds and resamples.

    Returns:
        Columns kind (of ``KINDS``), name and auroc, an `Interval`: mean over held-out folds, resampling groups; by kind, the
        lowest first within each.

    Raises:
        DataError: if the table does not say where it comes from.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    targets, groups = cases["target"].to_numpy(), cases["group_id"].to_numpy(str)
    dealt = list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(groups, targets, groups))
    rows = []
    for kind, columns_of in baseline_columns(cases).items():
        for name, columns in columns_of.items():
            samples = [(targets[test], _score(columns, targets, train, test), groups[test]) for train, test in dealt]
            rows.append({"kind": kind, "name": name, "auroc": bootstrap_mean_auroc(samples, None, n, seed)})
    order = sorted(rows, key=lambda row: (list(KINDS).index(row["kind"]), row["auroc"].value))
    return pd.DataFrame(order, columns=["kind", "name", "auroc"])


def _score(columns: pd.DataFrame, targets: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores of the test rows, shape ``(len(test),)``, from a model and encoders that saw the training rows alone."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler())
    encoder = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    model = make_pipeline(encoder, LogisticRegression(max_iter=1000))
    return model.fit(columns.iloc[train], targets[train]).predict_proba(columns.iloc[test])[:, 1]


def baseline_columns(cases: pd.DataFrame) -> dict[str, dict[str, pd.DataFrame]]:
    """The columns behind each baseline, by kind and name; numbers may be missing, text says where it is.

    Raises:
        DataError: if the table does not say where it comes from.
    """
    fields = {name: cases[column] if name == "age" else cases[column].fillna(MISSING) for name, column in COLUMNS.items()}
    gaps = {f"no {name}": cases[column].isna().astype(int) for name, column in (COLUMNS | {"camera": "acquisition"}).items()}
    together = {
        "which fields are empty": pd.DataFrame(gaps),
        "camera or clinic": cases[["acquisition"]].fillna(MISSING),
        f"images per {unit_of(cases)}": np.log(cases.groupby("group_id")[["image_id"]].transform("size").to_frame("images")),
    }
    patient = {name: values.to_frame() for name, values in fields.items()} | {"age, sex and site": pd.DataFrame(fields)}
    together["all of the above"] = pd.concat([patient["age, sex and site"], *together.values()], axis=1)
    answers = {name: values.to_frame() for name, values in leaky_columns(cases).items()}
    baselines = {PATIENT: patient, COLLECTION: together, ANSWER: answers}
    return {
        kind: {name: varying for name, columns in of_kind.items() if not (varying := _varying(columns)).empty}
        for kind, of_kind in baselines.items()
    }


def _varying(columns: pd.DataFrame) -> pd.DataFrame:
    return columns.loc[:, columns.nunique(dropna=False) > 1]


def leaky_columns(cases: pd.DataFrame) -> pd.DataFrame:
    """What the source's own table holds of the answer, one row a case; the kit never takes it for a feature.

    Args:
        cases: case table as `load_cases` returned it.

    Returns:
        The diagnosis and every further column of ``attrs["leaky_columns"]`` but the target itself and the synthetic world's
        causes; numbers where all filled cells are numbers.

    Raises:
        DataError: if the table does not say where it comes from, or the source's table lacks its images.
    """
    if not {"table", "leaky_columns"} <= set(cases.attrs):
        raise DataError(
            f"cases.attrs: expected 'table' and 'leaky_columns', got {sorted(cases.attrs)}; pass what load_cases returned"
        )
    raw = read_table(Path(cases.attrs["table"]), needs=())
    key = next((column for column in raw if raw[column].is_unique and cases["image_id"].isin(raw[column]).all()), None)
    if key is None:
        raise DataError(f"{cases.attrs['table']}: no column names all {len(cases)} images; load the cases again")
    raw = raw.set_index(key).loc[cases["image_id"]].set_index(cases.index)
    names = [name for name in cases.attrs["leaky_columns"] if name in raw and name != "target" and not name.startswith("truth_")]
    answers = {"diagnosis": cases["diagnosis"].fillna(MISSING)}
    for name in names:
        numbers = pd.to_numeric(raw[name].replace("", np.nan), errors="coerce")
        values = numbers if (numbers.notna() == (raw[name] != "")).all() else raw[name].replace("", MISSING)
        if not values.equals(answers["diagnosis"]):  # HAM10000 calls it dx
            answers[name] = values
    return pd.DataFrame(answers)


def bayes_ceilings(settings: Settings) -> dict[str, float]:
    """The best AUROC anyone can reach in the synthetic world, from metadata, image or both; of real lesions nobody knows."""
    if settings.source != "synthetic":
        return {}
    return SyntheticDermoscopy(settings.n_patients, settings.data_seed).bayes_auroc()


def baseline_figure(baselines: pd.DataFrame, ceilings: Mapping[str, float] | None = None) -> DescribedFigure:
    """The baselines with their intervals by kind, chance, and the ceilings where they are known.

    Args:
        baselines: from `metadata_baselines`.
        ceilings: AUROC by what it is given: metadata, image, both.
    """
    rows = []
    for kind, part in baselines.groupby("kind", sort=False):
        rows += [
            Row(kind),
            *(Row(one.name, ((one.auroc, *KINDS[kind]),), f"{one.auroc:.2f}") for one in part.itertuples(index=False)),
        ]
    with kit_figure(WIDTH, 0.6 + height_of(rows)) as figure:
        axes = figure.add_subplot()
        forest(axes, rows, "AUROC on held-out groups, with 95% interval")
        axes.axvline(0.5, color=GREY, linestyle="--", linewidth=1.5, label="chance")
        for (given, value), style in zip((ceilings or {}).items(), (":", "-.", "-"), strict=False):
            axes.axvline(value, color=GREEN, linestyle=style, linewidth=1.8, label=f"best possible, {given}: {value:.2f}")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.2, 1.0), ncols=2, borderaxespad=0.3, columnspacing=1.4)
        axes.set_xlim(min(0.4, *(auroc.value - 0.03 for auroc in baselines["auroc"])), 1.03)
    best = "".join(f"; best possible from {given} {value:.3f}" for given, value in (ceilings or {}).items())
    return with_alt_text(figure, f"AUROC for melanoma without a picture, chance 0.5: {listed(rows)}{best}.")
