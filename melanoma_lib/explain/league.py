"""The league of heatmaps: every layer and method of a run against controls that have seen no model, with intervals.

Educational, not for diagnosis.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_lib.errors import KitError
from melanoma_lib.explain.cam import CAM_METHODS
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.explain.league_cases import Grades, Plan, choose_cases, grade_cases
from melanoma_lib.explain.league_exam import exam_table, last_stage, of_maps
from melanoma_lib.explain.league_statistics import group_means, simultaneous_means
from melanoma_lib.explain.league_words import LEGEND, UNTOLD, conclusion, in_words, judge
from melanoma_lib.explain.perturbation import WEIGHTS
from melanoma_lib.utils import write_text

VERSION = 3  # raise it when the same run and knobs no longer give the same grades
DEFAULT_METHODS = tuple(method for method in CAM_METHODS if method not in WEIGHTS)
ARTEFACT = "energy_on_"
# What is compared with the centre prior: 1 where more is better, -1 where less is, 0 where neither is.
COMPARED = {
    "energy_in_mask": 1, "energy_beyond_centred": 1, "pointing_game": 1, "rank_accuracy": 1, "overlap": 1, "deletion": -1,
    "insertion": 1, "deletion_insertion": 1, "road": 1,
}  # fmt: skip
THE_SAME = 0.9  # rank correlation above which two maps of a case count as the same
COLUMNS = {
    "layer": str, "method": str, "score": str, "value": float, "low": float, "high": float, "cases": int, "melanomas": float,
    "others": float, "vs_centre": float, "vs_centre_low": float, "vs_centre_high": float, "verdict": str,
}  # fmt: skip


@dataclass(frozen=True)
class League:
    """Grades of all maps, their intervals and verdicts.

    Attributes:
        facts: what was graded: run, checkpoint_sha256, n, melanomas, groups, seed, layers, methods, n_faithful, n_road,
            n_sanity, n_slow, n_resamples, image_ids (a digest), version, key.
        scores: one row a map and score: layer (empty for a control), method, score, value with low and high (95%, groups
            resampled, each for itself), cases, means of melanomas and of others; vs_centre: the paired difference to the centre
            prior, whose interval holds for all maps of the score at once; verdict in words.
    """

    facts: dict
    scores: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """One row a map, in words: the main scores, and whether it beats the centre prior, ignores model or class."""
        return in_words(self.scores)

    @property
    def exam(self) -> pd.DataFrame:
        """One row a map, by layer and method; by question ``passes``, ``fails``, ``not settled``, or empty: not asked."""
        return of_maps(exam_table(self.scores))

    @property
    def conclusion(self) -> str:
        """What the numbers say, and what they do not, as one paragraph."""
        return conclusion(self.facts, self.scores)

    @property
    def cascade(self) -> pd.DataFrame:
        """Similarity to the original map after each stage of randomised weights: layer, method, stage, value, low, high."""
        rows = self.scores[self.scores["score"].str.startswith("cascade:")]
        return rows.assign(stage=rows["score"].str.removeprefix("cascade:"))[["layer", "method", "stage", "value", "low", "high"]]

    @property
    def has_cascade(self) -> bool:
        """Whether weights were shuffled for any of the maps."""
        return bool(self.cascade.loc[self.cascade["layer"] != "", "value"].notna().any())

    def score(self, name: str) -> pd.DataFrame:
        """Rows of one score, by layer and method.

        Raises:
            ValueError: if the league has no such score.
        """
        rows = self.scores[self.scores["score"] == name]
        if rows.empty:
            raise ValueError(f"score: expected one of {list(dict.fromkeys(self.scores['score']))}, got {name!r}")
        return rows.set_index(["layer", "method"])

    def __str__(self) -> str:
        """The table as Markdown, and the conclusion."""
        table = self.table
        lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in table.itertuples(index=False)]
        return "\n".join(lines) + f"\n\n{LEGEND}\n\n{self.conclusion}\n"

    def to_json(self) -> str:
        """Facts and scores; numbers come back to the last digit, NaN as null."""
        scores = self.scores.astype(object).where(self.scores.notna(), None)
        return json.dumps({"facts": self.facts, "scores": scores.to_dict("records")}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "League":
        """The league that :meth:`to_json` wrote."""
        found = json.loads(text)
        return cls(found["facts"], pd.DataFrame(found["scores"], columns=list(COLUMNS)).astype(COLUMNS))


def league(
    run,
    n: int = 500,
    methods: Sequence[str] = DEFAULT_METHODS,
    layers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    n_faithful: int = 100,
    n_road: int = 40,
    n_sanity: int = 100,
    n_slow: int = 20,
    n_resamples: int = 2000,
    cases: pd.DataFrame | None = None,
    out: Path | None = None,
    show_progress: bool = True,
) -> League:
    """Grade every layer and method of a trained run, and the controls, on cases whose lesion is outlined.

    Half of the cases are melanomas as far as there are so many, so that melanomas weigh more than in a clinic; means of both
    classes stand beside the whole. All maps are for melanoma. A map without any positive value is graded as a uniform one: so all
    maps are compared on the same cases.

    With dozens of maps some differences look real by luck alone. The intervals of the differences to the centre prior, and of
    what the verdicts on model and class rest on, therefore hold for all maps of one score at once (95%, max-T over resampled
    groups). Between scores nothing is adjusted.

    A map ignores the model if, after all weights are shuffled, its similarity to the original is nearer to 1, which a map that
    never saw the model keeps, than to the similarity of the original with another case's map, which has nothing in common with it
    but layer and method: that is, above the middle of the two, or above 0.9 if that is less. A map ignores the class if the maps
    for and against correlate above 0.9.

    Beside the controls that know nothing stands the outline of the lesion as a map: what there is to win by place, and how much
    the lesion matters to the model.

    Args:
        run: a finished run with an image branch.
        n: cases; all with a mask, if fewer.
        methods: of ``CAM_METHODS``; ``scorecam`` and ``ablationcam``, which ask the model once a channel, only on request.
        layers: names from :func:`cam_layers`; all if None.
        seed: of the choice of cases, the random control, the noise of ROAD and the shuffled weights.
        n_faithful: cases of deletion and insertion: the first of the chosen ones, in the same proportion of classes.
        n_road: cases of ROAD, which takes several times as long.
        n_sanity: cases of class swap, shuffled weights and mirroring; not of ``scorecam`` and ``ablationcam``.
        n_slow: cases of ``scorecam`` and ``ablationcam``.
        n_resamples: of groups.
        cases: table to choose from; the run's test split if None.
        out: JSON file to keep the league in. When it holds the same league already, that is returned; an interrupted league goes
            on where it stopped.
        show_progress: draw a bar.

    Raises:
        ValueError: for unknown layers or methods, or numbers below what they count.
        DataError: if no case has a mask, or an image cannot be read.
        ForeignThresholdError: if the checkpoint is not the one the run's threshold was chosen with.
        KitError: if the model has no image branch.
    """
    if "image" not in run.settings.modalities:
        raise KitError(f"{run.path} looks at metadata only; a league of heatmaps needs a run with an image branch")
    if unknown := [method for method in methods if method not in CAM_METHODS]:
        raise ValueError(f"methods: expected some of {list(CAM_METHODS)}, got {unknown}")
    knobs = {"n": n, "methods": list(methods), "layers": None if layers is None else list(layers), "seed": seed}
    knobs |= {"n_faithful": n_faithful, "n_road": n_road, "n_sanity": n_sanity, "n_slow": n_slow, "n_resamples": n_resamples}
    ids = run.splits.loc[run.splits["split"] == "test", "image_id"] if cases is None else cases["image_id"]
    knobs |= {"checkpoint_sha256": run.operating_point.checkpoint_sha256, "version": VERSION, "image_ids": _digest(list(ids))}
    key = _digest(knobs)
    if out and out.is_file() and (kept := League.from_json(out.read_text(encoding="utf-8"))).facts["key"] == key:
        return kept
    model = run.model()
    known = list(cam_layers(model))
    if unknown := [layer for layer in layers or [] if layer not in known]:
        raise ValueError(f"layers: expected some of {known}, got {unknown}")
    if cases is None:
        cases = run.cases().query("split == 'test'")
    chosen = choose_cases(cases, n, seed)
    plan = Plan(
        tuple(layers or known), tuple(methods), seed, *(min(m, len(chosen)) for m in (n_faithful, n_road, n_sanity, n_slow))
    )
    grades = grade_cases(run, model, chosen, plan, out and out.with_name(f".{out.name}.{key[:12]}.partial"), show_progress)
    facts = knobs | {
        "key": key, "run": run.path.name, "n": len(chosen), "melanomas": int(chosen["target"].sum()),
        "groups": int(chosen["group_id"].nunique()), "layers": list(plan.layers), "n_faithful": plan.n_faithful,
        "n_road": plan.n_road,
        "n_sanity": plan.n_sanity, "n_slow": plan.n_slow if plan.slow else 0,
    }  # fmt: skip
    found = League(facts, score_table(grades, plan.contestants, chosen["target"], chosen["group_id"], n_resamples, seed))
    if out:
        write_text(out, found.to_json())
    return found


def score_table(
    grades: Grades,
    contestants: Sequence[tuple[str, str]],
    targets: pd.Series,
    groups: pd.Series,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means, intervals, paired differences to the centre prior and verdicts.

    Args:
        grades: by score, shape ``(N, K)``.
        contestants: layer and method of each column; one is ``("", "centre")``.
        targets: 1 melanoma, 0 not, shape ``(N,)``.
        groups: lesion or patient, shape ``(N,)``.
        n_resamples: of groups.
        seed: of the resampling.

    Returns:
        The ``scores`` of a :class:`League`.
    """
    centre = list(contestants).index(("", "centre"))
    is_melanoma = targets.to_numpy() == 1
    all_shuffled = last_stage(grades)
    layers, methods = zip(*contestants, strict=True)
    parts = []
    for name, values in grades.items():
        means = group_means(values, groups, n_resamples, seed)
        by_class = [group_means(values[own], groups[own], 1, seed).value if own.any() else np.nan for own in _halves(is_melanoma)]
        part = pd.DataFrame({"layer": layers, "method": methods, "score": name, "value": means.value, "low": means.low})
        part = part.assign(high=means.high, cases=means.cases, melanomas=by_class[0], others=by_class[1])
        better = COMPARED.get(name, 0 if name.startswith(ARTEFACT) else None)
        if better is not None:
            against = simultaneous_means(values - values[:, [centre]], groups, n_resamples, seed)
            part = part.assign(vs_centre=against.value, vs_centre_low=against.low, vs_centre_high=against.high)
            words = {1: ("better", "worse"), -1: ("worse", "better"), 0: ("more", "less")}[better]
            verdicts = judge(against, *words, otherwise=UNTOLD)
            part["verdict"] = [*verdicts[:centre], "the reference", *verdicts[centre + 1 :]]
        elif name == "class_swap":
            against = simultaneous_means(values - THE_SAME, groups, n_resamples, seed)
            part["verdict"] = judge(against, "ignores the class", "knows the class", otherwise="unclear")
        elif name == all_shuffled:
            against = simultaneous_means(values - _halfway(grades["stranger"]), groups, n_resamples, seed)
            part["verdict"] = judge(against, "ignores the model", "changes with it", otherwise="unclear")
        if "verdict" in part and name not in COMPARED and not name.startswith(ARTEFACT):
            # Of a control, which sees neither, only noise can seem to react.
            by_itself = (part["layer"] == "") & part["verdict"].isin(["knows the class", "changes with it"])
            part.loc[by_itself, "verdict"] = "changes by itself"
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).reindex(columns=list(COLUMNS))
    return table.assign(verdict=table["verdict"].fillna("")).astype(COLUMNS)


def _halfway(stranger: np.ndarray) -> np.ndarray:
    """What a map's similarity to its original must exceed to count as ignoring the model, shape ``(N, K)``.

    Where even strangers' maps are nearly the same, halfway to 1 would let nothing pass for ignoring; there it is ``THE_SAME``.
    """
    alike = group_means(stranger, np.arange(len(stranger)), 1).value
    return np.where((1 + alike) / 2 > THE_SAME, np.where(np.isnan(stranger), np.nan, THE_SAME), (1 + stranger) / 2)


def _halves(is_melanoma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return is_melanoma, ~is_melanoma


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
