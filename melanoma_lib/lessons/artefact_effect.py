"""The same picture without and with an artefact, and what a run answers to either."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_lib.data.artefacts import ARTEFACTS, paint_artefact
from melanoma_lib.data.images import backbone_normalisation, evaluation_transform, read_square, stored_side
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError
from melanoma_lib.evaluation.intervals import Interval, wilson_interval
from melanoma_lib.explain.statistics import group_means
from melanoma_lib.runs import Run

ALL, OFF, ON = "all", "off the lesion", "on the lesion"
PARTS = (ALL, OFF, ON)
BATCH = 32  # pairs held at once


@dataclass(frozen=True)
class Pair:
    """One case twice; outside ``where`` the two pictures are the same, pixel by pixel.

    Attributes:
        without: uint8, shape ``(S, S, 3)``.
        painted: the same with the artefact, uint8, shape ``(S, S, 3)``.
        where: the artefact's pixels, boolean, shape ``(S, S)``.
        lesion: the lesion's pixels, boolean, shape ``(S, S)``; None where nobody outlined it.
    """

    without: np.ndarray
    painted: np.ndarray
    where: np.ndarray
    lesion: np.ndarray | None

    @property
    def touches(self) -> bool | None:
        """Whether the artefact lies on a pixel of the lesion; None where that is not known."""
        return None if self.lesion is None else bool((self.where & self.lesion).any())


def artefact_pair(case: pd.Series, artefact: str, side: int, generator: SyntheticDermoscopy | None = None) -> Pair:
    """A case without and with one artefact.

    A synthetic case is painted anew, so that the artefact can be removed as well as added and lies under the others where it
    belongs. On a photograph it is pasted, over whatever artefacts are there, in the square picture that the model is shown: on
    one of another aspect it stands a little stretched. It depends on the image's id alone.

    Args:
        case: row of a case table.
        artefact: one of ``ARTEFACTS``.
        side: of the pictures in pixels, at least 32; with a generator that of its own.
        generator: of a synthetic case; None pastes on the image file.

    Raises:
        ValueError: for an unknown artefact, or a side that is not the generator's.
        DataError: if the generator has no such case.
        CorruptImageError: if an image or mask cannot be read.
    """
    if artefact not in ARTEFACTS:
        raise ValueError(f"artefact: expected one of {list(ARTEFACTS)}, got {artefact!r}")
    if generator is not None:
        return _painted_anew(case, artefact, side, generator)
    without = read_square(case["image_path"], side)
    lesion = read_square(case["mask_path"], side)[..., 0] > 127 if isinstance(case["mask_path"], str) else None
    digest = hashlib.sha256(f"{artefact} {case['image_id']}".encode()).digest()
    picture = np.ascontiguousarray(without.transpose(2, 0, 1), np.float32)  # (S, S, 3) -> (3, S, S)
    where = paint_artefact(artefact, picture, np.random.default_rng(int.from_bytes(digest[:8], "big")))
    painted = np.clip(np.rint(picture), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return Pair(without, np.where(where[..., None], painted, without), where, lesion)


def _painted_anew(case: pd.Series, artefact: str, side: int, generator: SyntheticDermoscopy) -> Pair:
    if side != generator.image_size:
        raise ValueError(f"side: expected the generator's {generator.image_size}, got {side}")
    found = np.flatnonzero(generator.cases["image_id"] == case["image_id"])
    if found.size != 1:
        raise DataError(f"the generator has no case {case['image_id']!r}; pass the one that drew these cases")
    index = int(found[0])
    row = generator.cases.iloc[index]
    others = [name for name in ARTEFACTS if row[f"truth_artefact_{name}"] and name != artefact]
    without, painted = generator.render(index, others), generator.render(index, [*others, artefact])
    where = painted.artefacts[artefact]
    # What the painter changed too faintly for its own mask is left out, so that the pair differs within the mask alone.
    return Pair(without.image, np.where(where[..., None], painted.image, without.image), where, without.mask)


@dataclass(frozen=True)
class ArtefactEffect:
    """What an artefact does to the answers of a run.

    Attributes:
        artefact: its name.
        threshold: of the run's stored operating point, on the probability.
        threshold_risk: the calibrated risk at that threshold.
        table: one row a case: ``image_id``, ``group_id``, ``target``, ``area`` (share of the picture's pixels that the artefact
            covers), ``on_lesion`` (NA without a mask), and ``logit_``, ``risk_``, ``flagged_`` each ``without`` and ``with``.
    """

    artefact: str
    threshold: float
    threshold_risk: float
    table: pd.DataFrame

    def rows(self, part: str = ALL) -> pd.DataFrame:
        """The cases of one part: all, or those in which the artefact does (not) touch the lesion's mask.

        Raises:
            ValueError: for an unknown part.
        """
        if part not in PARTS:
            raise ValueError(f"part: expected one of {list(PARTS)}, got {part!r}")
        return self.table if part == ALL else self.table[(self.table["on_lesion"] == (part == ON)).fillna(False)]

    def intervals(self, part: str = ALL, n: int = 2000, seed: int = 0) -> dict[str, Interval]:
        """Means over the cases of a part, with intervals that resample whole groups.

        Args:
            part: one of ``PARTS``.
            n: number of resamples.
            seed: of the resampling.

        Returns:
            ``logit`` and ``risk``: mean change, with minus without; ``abs_risk``: mean size of the change in risk; ``flips``:
            share of cases whose decision changes; ``raised``: share of those flagged only with it among those not flagged
            without it; ``lowered``: share of those no longer flagged among those flagged without it. A rate of exactly 0 or 1
            never varies under resampling: its interval is Wilson's, each group one observation. Ends are NaN below ten groups,
            values too where no case is concerned.

        Raises:
            ValueError: for an unknown part.
        """
        rows = self.rows(part)
        changes = case_changes(rows)
        if rows.empty:
            return {name: Interval(np.nan, np.nan, np.nan) for name in changes}
        means = group_means(changes.to_numpy(), rows["group_id"], n, seed)
        found = {}
        for name, value, low, high in zip(changes, means.value, means.low, means.high, strict=True):
            found[name] = Interval(float(value), float(low), float(high), n)
            if name in ("flips", "raised", "lowered") and value in (0, 1):
                groups = rows.loc[changes[name].notna(), "group_id"].nunique()
                found[name] = wilson_interval(value * groups, groups)
        return found


def case_changes(table: pd.DataFrame) -> pd.DataFrame:
    """Each case's own ``logit``, ``risk``, ``abs_risk``, ``flips``, ``raised``, ``lowered``; NaN where it is not concerned."""
    before, after = table["flagged_without"].to_numpy(bool), table["flagged_with"].to_numpy(bool)
    risk = table["risk_with"] - table["risk_without"]
    return pd.DataFrame(
        {
            "logit": table["logit_with"] - table["logit_without"],
            "risk": risk,
            "abs_risk": risk.abs(),
            "flips": (before != after).astype(float),
            "raised": np.where(before, np.nan, after),
            "lowered": np.where(before, ~after, np.nan),
        },
        index=table.index,
    )


def artefact_effect(
    run: Run, cases: pd.DataFrame, artefact: str, generator: SyntheticDermoscopy | None = None, model=None
) -> ArtefactEffect:
    """Ask a run twice about each case: without the artefact and with it.

    A changed answer alone does not prove a shortcut: pasting changes pixels, perhaps those that show the melanoma. Look at the
    cases whose lesion it does not touch, and compare with a model that had no reason to learn it.

    Args:
        run: a finished run with an image branch.
        cases: what to ask about, such as its test split; for HAM10000 the table of ``run.cases()``.
        artefact: one of ``ARTEFACTS``.
        generator: that drew the cases, if synthetic; None pastes on the image files.
        model: ``run.model()``, where it is already at hand.

    Raises:
        ValueError: if there are no cases, or as :func:`artefact_pair`.
        DataError: as :func:`artefact_pair`.
        ForeignThresholdError: if the stored threshold belongs to another model.
    """
    return effect_by_run({"": run}, cases, artefact, generator, {"": model} if model else None)[""]


def effect_by_run(
    runs: Mapping[str, Run],
    cases: pd.DataFrame,
    artefact: str,
    generator: SyntheticDermoscopy | None = None,
    models: Mapping | None = None,
) -> dict[str, ArtefactEffect]:
    """:func:`artefact_effect` of several runs that are shown pictures alike; each pair is painted once, for all of them.

    Args:
        runs: by what to call them.
        cases: as for one run.
        artefact: one of ``ARTEFACTS``.
        generator: as for one run.
        models: of the runs, by the same names, where they are already at hand.

    Raises:
        ValueError: as for one run, or if the runs are not shown pictures alike.
    """
    from melanoma_lib.inference import predict_logits

    require_pictures(cases, runs)
    models = models or {name: run.model() for name, run in runs.items()}
    facts, logits = [], {name: [] for name in runs}
    for pairs, batches in pair_batches(runs, cases, artefact, generator):
        facts.extend((pair.where.mean(), pair.touches) for pair in pairs)
        for name, run in runs.items():
            logits[name].append(predict_logits(models[name], [batches[name]], run.settings.tta))
    table = cases[["image_id", "group_id", "target"]].reset_index(drop=True)
    table = table.assign(area=[area for area, _ in facts], on_lesion=pd.array([touches for _, touches in facts], dtype="boolean"))
    return {name: _effect(run, artefact, table, np.concatenate(logits[name]).reshape(-1, 2)) for name, run in runs.items()}


def _effect(run: Run, artefact: str, table: pd.DataFrame, logits: np.ndarray) -> ArtefactEffect:
    """What the logits of each case without and with the artefact, shape ``(N, 2)``, mean to a run."""
    threshold, table = run.operating_point.threshold, table.copy()
    for own, name in zip(logits.T, ("without", "with"), strict=True):
        table[f"logit_{name}"], table[f"risk_{name}"] = own, run.calibrator.risk(own)
        table[f"flagged_{name}"] = 1 / (1 + np.exp(-own)) >= threshold
    cut = np.log(threshold) - np.log1p(-threshold) if 0 < threshold < 1 else np.inf * (2 * threshold - 1)
    risk = float(run.calibrator.risk(np.array([cut]))[0]) if np.isfinite(cut) else float(threshold)
    return ArtefactEffect(artefact, threshold, risk, table)


def effect_table(effects: Sequence[ArtefactEffect], n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """One row an artefact and part that has cases: number of cases, area and every mean of ``intervals``, to be printed."""
    rows = []
    for effect in effects:
        for part in PARTS:
            if len(cases := effect.rows(part)):
                facts = {"artefact": effect.artefact, "part": part, "cases": len(cases), "area": cases["area"].mean()}
                rows.append(facts | effect.intervals(part, n, seed))
    return pd.DataFrame(rows)


def require_pictures(cases: pd.DataFrame, runs: Mapping[str, Run]) -> None:
    """Refuse to paint on nothing, for a run that sees no picture, or for runs that are shown a picture in different ways.

    Raises:
        ValueError: saying which.
    """
    if cases.empty:
        raise ValueError("cases: expected at least one to paint an artefact on, got none")
    for run in runs.values():
        if "image" not in run.settings.modalities:
            raise ValueError(f"{run.path} looks at metadata only, which no artefact changes; take a run with an image branch")
    shown = {
        name: {"image_size": run.settings.image_size} | backbone_normalisation(run.settings.backbone)
        for name, run in runs.items()
    }
    if any(way != next(iter(shown.values())) for way in shown.values()):
        raise ValueError(f"runs: expected all to be shown pictures alike, got {shown}")


def pair_batches(
    runs: Mapping[str, Run], cases: pd.DataFrame, artefact: str, generator: SyntheticDermoscopy | None
) -> Iterator[tuple[list[Pair], dict[str, dict]]]:
    """Pairs and each run's input, in which each case stands twice, without and with, one after the other.

    The runs are those that :func:`require_pictures` lets pass.
    """
    import torch
    from PIL import Image

    settings = next(iter(runs.values())).settings
    transform, side = evaluation_transform(settings.backbone, settings.image_size), stored_side(settings.image_size)
    metadata = {name: torch.from_numpy(run.encoder.transform(cases)) for name, run in runs.items()}  # (N, M) each
    for start in range(0, len(cases), BATCH):
        part = slice(start, start + BATCH)
        pairs = [artefact_pair(case, artefact, side, generator) for _, case in cases.iloc[part].iterrows()]
        image = torch.stack([transform(Image.fromarray(one)) for pair in pairs for one in (pair.without, pair.painted)])
        batches = {
            name: {"image": image, "metadata": own[part].repeat_interleave(2, dim=0)}  # (B, M) -> (2B, M)
            for name, own in metadata.items()
        }
        yield pairs, batches
