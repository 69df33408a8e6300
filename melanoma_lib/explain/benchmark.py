"""The benchmark of heatmaps: every layer and method of a run against controls that have seen no model, with intervals.

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
from melanoma_lib.explain.cam import CAM_METHODS, ONE_PASS_METHODS
from melanoma_lib.explain.grading import Grades, Plan, choose_cases, grade_cases
from melanoma_lib.explain.layers import cam_layers
from melanoma_lib.explain.statistics import group_means, simultaneous_means
from melanoma_lib.utils import write_text

VERSION = 4  # raise it when the same run and knobs no longer give the same grades
# What is compared with the centre prior, and whether more of it is better.
COMPARED = {
    "energy_in_mask": 1, "energy_beyond_centred": 1, "pointing_game": 1, "rank_accuracy": 1, "overlap": 1, "deletion": -1,
    "insertion": 1, "deletion_insertion": 1, "road": 1,
}  # fmt: skip
THE_SAME = 0.9  # rank correlation above which two maps of a case count as the same
BETTER, WORSE, INCONCLUSIVE = "better", "worse", "inconclusive"
CRITERIA = {  # question and its score; "cascade" stands for the last stage, after which all weights are shuffled
    "on the lesion": "energy_in_mask",
    "beyond itself centred": "energy_beyond_centred",
    "faithful": "deletion_insertion",
    "class-discriminative": "class_swap",
    "depends on the weights": "cascade",
}
ABOUT_THE_MODEL = ["faithful", "class-discriminative", "depends on the weights"]  # the others ask where a map points
COLUMNS = {
    "layer": str, "method": str, "score": str, "estimate": float, "low": float, "high": float, "n": int, "melanomas": float,
    "others": float, "difference": float, "difference_low": float, "difference_high": float, "verdict": str,
}  # fmt: skip
# How tables of earlier versions, the committed one among them, say the same.
FORMER_COLUMNS = {
    "value": "estimate", "cases": "n", "vs_centre": "difference", "vs_centre_low": "difference_low",
    "vs_centre_high": "difference_high",
}  # fmt: skip
FORMER_VERDICTS = {
    "not told apart": INCONCLUSIVE, "unclear": INCONCLUSIVE, "fewer than 10 groups": INCONCLUSIVE,
    "knows the class": BETTER, "ignores the class": WORSE, "changes with it": BETTER, "ignores the model": WORSE,
    "the reference": "", "not graded": "", "changes by itself": "",
}  # fmt: skip


@dataclass(frozen=True)
class Benchmark:
    """Grades of all maps with their intervals.

    Attributes:
        facts: what was graded: run, checkpoint_sha256, n, melanomas, groups, seed, layers, methods, n_faithful, n_road,
            n_sanity, n_resamples, image_ids (a digest), version, key.
        scores: one row a map and score: ``layer`` (empty for a control), ``method``, ``score``; ``estimate`` with ``low`` and
            ``high`` (95%, groups resampled, each for itself); ``n`` cases; means of ``melanomas`` and ``others``; the
            ``difference`` to its reference, whose interval holds for all maps of the score at once; and its ``verdict``:
            ``better``, ``worse`` or ``inconclusive`` where the score has a reference. The reference is the centre prior; of
            ``class_swap`` a correlation of 0.9; of the last ``cascade`` the middle between 1 and the similarity to another case.
    """

    facts: dict
    scores: pd.DataFrame

    @property
    def criteria(self) -> pd.DataFrame:
        """Verdicts by layer and method, one column a question of ``CRITERIA`` that was asked; empty text where it was not."""
        last = [name for name in dict.fromkeys(self.scores["score"]) if name.startswith("cascade:")][-1:]
        verdicts = self.scores.set_index(["layer", "method", "score"])["verdict"].unstack("score")
        verdicts = verdicts.reindex(self.scores.set_index(["layer", "method"]).index.unique())
        names = {question: last[0] if last and score == "cascade" else score for question, score in CRITERIA.items()}
        return pd.DataFrame({question: verdicts[name] for question, name in names.items() if name in verdicts}).fillna("")

    def score(self, name: str) -> pd.DataFrame:
        """Rows of one score, by layer and method.

        Raises:
            ValueError: if there is no such score.
        """
        rows = self.scores[self.scores["score"] == name]
        if rows.empty:
            raise ValueError(f"score: expected one of {list(dict.fromkeys(self.scores['score']))}, got {name!r}")
        return rows.set_index(["layer", "method"])

    def __str__(self) -> str:
        """The criteria as a table, and how many cases they rest on."""
        facts = self.facts
        about = f"{facts['n']} test cases of {facts['run']}: {facts['melanomas']} melanomas, {facts['groups']} groups"
        return f"{self.criteria.to_string()}\n\n{about}"

    def to_json(self) -> str:
        """Facts and scores; numbers come back to the last digit, NaN as null."""
        scores = self.scores.astype(object).where(self.scores.notna(), None)
        return json.dumps({"facts": self.facts, "scores": scores.to_dict("records")}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Benchmark":
        """The benchmark that :meth:`to_json` wrote, an earlier version of it, or the table that the study of heatmaps committed.

        Raises:
            KitError: if the text is none of these.
        """
        try:
            found = json.loads(text)
            return cls.from_rows(*((found["facts"], found["scores"]) if "facts" in found else (found["details"], found["rows"])))
        except (KeyError, ValueError, TypeError) as error:
            raise KitError(f"expected a benchmark of heatmaps as explain --league writes it, got other text: {error}") from error

    @classmethod
    def from_rows(cls, facts: dict, rows: Sequence[dict]) -> "Benchmark":
        """From facts and rows of a table, such as the committed one's; an earlier version's names become those of this one."""
        scores = pd.DataFrame(rows).rename(columns=FORMER_COLUMNS).reindex(columns=list(COLUMNS)).astype(COLUMNS)
        return cls(facts, scores.assign(verdict=scores["verdict"].replace(FORMER_VERDICTS)))


def benchmark_heatmaps(
    run,
    n: int = 500,
    methods: Sequence[str] = ONE_PASS_METHODS,
    layers: Sequence[str] | None = None,
    *,
    seed: int = 0,
    n_faithful: int = 100,
    n_road: int = 40,
    n_sanity: int = 100,
    n_resamples: int = 2000,
    cases: pd.DataFrame | None = None,
    out: Path | None = None,
    show_progress: bool = True,
) -> Benchmark:
    """Grade every layer and method of a trained run, and the controls, on cases whose lesion is outlined.

    Half of the cases are melanomas as far as there are so many, so that melanomas weigh more than in a clinic; means of both
    classes stand beside the whole. All maps are for melanoma. A map without any positive value is graded as a uniform one: so all
    maps are compared on the same cases.

    With dozens of maps some differences look real by chance alone. The intervals of the differences, on which the verdicts rest,
    therefore hold for all maps of one score at once (95%, max-T over resampled groups). Between scores nothing is adjusted.

    Beside the controls that know nothing stands the outline of the lesion as a map: what there is to win by place, and how much
    the lesion matters to the model.

    Args:
        run: a finished run with an image branch.
        n: cases; all with a mask, if fewer.
        methods: of ``CAM_METHODS``; ``scorecam`` and ``ablationcam`` ask the model once a channel, which takes long.
        layers: names from :func:`cam_layers`; all if None.
        seed: of the choice of cases, the random control, the noise of ROAD and the shuffled weights.
        n_faithful: cases of deletion and insertion: the first of the chosen ones, in the same proportion of classes.
        n_road: cases of ROAD, which takes many times as long.
        n_sanity: cases of class swap and shuffled weights; not of ``scorecam`` and ``ablationcam``.
        n_resamples: of groups.
        cases: table to choose from; the run's test split if None.
        out: JSON file to keep the benchmark in. When it holds the same one already, that is returned; an interrupted one goes
            on where it stopped.
        show_progress: draw a bar.

    Raises:
        ValueError: for unknown layers or methods, or numbers below what they count.
        DataError: if no case has a mask, or an image cannot be read.
        ForeignThresholdError: if the checkpoint is not the one the run's threshold was chosen with.
        KitError: if the model has no image branch, or ``out`` holds something else.
    """
    if "image" not in run.settings.modalities:
        raise KitError(f"{run.path} looks at metadata only; a benchmark of heatmaps needs a run with an image branch")
    if unknown := [method for method in methods if method not in CAM_METHODS]:
        raise ValueError(f"methods: expected some of {list(CAM_METHODS)}, got {unknown}")
    knobs = {"n": n, "methods": list(methods), "layers": None if layers is None else list(layers), "seed": seed}
    knobs |= {"n_faithful": n_faithful, "n_road": n_road, "n_sanity": n_sanity, "n_resamples": n_resamples}
    ids = run.splits.loc[run.splits["split"] == "test", "image_id"] if cases is None else cases["image_id"]
    knobs |= {"checkpoint_sha256": run.operating_point.checkpoint_sha256, "version": VERSION, "image_ids": _digest(list(ids))}
    key = _digest(knobs)
    if out and out.is_file() and (kept := Benchmark.from_json(out.read_text(encoding="utf-8"))).facts.get("key") == key:
        return kept
    model = run.model()
    known = list(cam_layers(model))
    if unknown := [layer for layer in layers or [] if layer not in known]:
        raise ValueError(f"layers: expected some of {known}, got {unknown}")
    if cases is None:
        cases = run.cases().query("split == 'test'")
    chosen = choose_cases(cases, n, seed)
    plan = Plan(tuple(layers or known), tuple(methods), seed, *(min(m, len(chosen)) for m in (n_faithful, n_road, n_sanity)))
    grades = grade_cases(run, model, chosen, plan, out and out.with_name(f".{out.name}.{key[:12]}.partial"), show_progress)
    facts = knobs | {
        "key": key, "run": run.path.name, "n": len(chosen), "melanomas": int(chosen["target"].sum()),
        "groups": int(chosen["group_id"].nunique()), "layers": list(plan.layers), "n_faithful": plan.n_faithful,
        "n_road": plan.n_road, "n_sanity": plan.n_sanity,
    }  # fmt: skip
    found = Benchmark(facts, score_table(grades, plan.maps, chosen["target"], chosen["group_id"], n_resamples, seed))
    if out:
        write_text(out, found.to_json())
    return found


def score_table(
    grades: Grades,
    maps: Sequence[tuple[str, str]],
    targets: pd.Series,
    groups: pd.Series,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means, intervals, paired differences to the reference and verdicts.

    Args:
        grades: by score, shape ``(N, K)``.
        maps: layer and method of each column; one is ``("", "centre")``.
        targets: 1 melanoma, 0 not, shape ``(N,)``.
        groups: lesion or patient, shape ``(N,)``.
        n_resamples: of groups.
        seed: of the resampling.

    Returns:
        The ``scores`` of a :class:`Benchmark`.
    """
    layers, methods = zip(*maps, strict=True)
    is_control, is_centre = np.array(layers) == "", np.array([each == ("", "centre") for each in maps])
    is_melanoma = targets.to_numpy() == 1
    last = ([name for name in grades if name.startswith("cascade:")] or [""])[-1]
    parts = []
    for name, values in grades.items():
        means = group_means(values, groups, n_resamples, seed)
        by_class = [
            group_means(values[own], groups[own], 1, seed).value if own.any() else np.nan for own in (is_melanoma, ~is_melanoma)
        ]
        part = pd.DataFrame({"layer": layers, "method": methods, "score": name, "estimate": means.value, "low": means.low})
        part = part.assign(high=means.high, n=means.cases, melanomas=by_class[0], others=by_class[1], verdict="")
        if name in COMPARED:
            reference, better = values[:, is_centre], COMPARED[name]
        elif name == "class_swap":
            reference, better = THE_SAME, -1
        elif name == last:
            reference, better = _halfway(grades["stranger"]), -1
        else:
            parts.append(part)
            continue
        against = simultaneous_means(values - reference, groups, n_resamples, seed)
        good, bad = (against.low > 0, against.high < 0) if better > 0 else (against.high < 0, against.low > 0)
        # The centre prior has no reference but itself; a control that differs from itself is noise, and knows neither.
        silent = (means.cases == 0) | (is_centre if name in COMPARED else is_control & good)
        verdict = np.select([silent, good, bad], ["", BETTER, WORSE], INCONCLUSIVE)
        ends = {"difference": against.value, "difference_low": against.low, "difference_high": against.high}
        parts.append(part.assign(**ends, verdict=verdict))
    return pd.concat(parts, ignore_index=True).reindex(columns=list(COLUMNS)).astype(COLUMNS)


def _halfway(stranger: np.ndarray) -> np.ndarray:
    """What a map's similarity to its original must exceed to count as independent of the weights, shape ``(N, K)``.

    It is the middle between 1, which a map that never saw the model keeps, and the similarity to another case's map. Where even
    these are nearly the same, halfway to 1 would let nothing pass; there it is ``THE_SAME``.
    """
    alike = group_means(stranger, np.arange(len(stranger)), 1).value
    return np.where((1 + alike) / 2 > THE_SAME, np.where(np.isnan(stranger), np.nan, THE_SAME), (1 + stranger) / 2)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
