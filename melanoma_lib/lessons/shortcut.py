"""The shortcut experiment: a model trained where an artefact is correlated with the label, and one trained where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.datamodule import source_root
from melanoma_lib.data.images import evaluation_transform
from melanoma_lib.data.synthetic import SyntheticDermoscopy
from melanoma_lib.errors import DataError, RunError
from melanoma_lib.evaluation.intervals import rate_intervals
from melanoma_lib.evaluation.paired import bootstrap_gain
from melanoma_lib.explain import cam_layers, default_layer, heatmaps
from melanoma_lib.explain.figures import SIGNED
from melanoma_lib.explain.grading import choose_cases
from melanoma_lib.inference import Predictor, predict_logits
from melanoma_lib.lessons.artefact_pairs import METHOD, ArtefactEffect, Pair, artefact_effect, artefact_pair
from melanoma_lib.plotting import BLACK, BLUE, GREEN, VERMILLION, DescribedFigure, kit_figure, with_alt_text
from melanoma_lib.runs import Run
from melanoma_lib.settings import PLACE_FIELDS, Settings
from melanoma_lib.training import train

ARTEFACT, TIE = "ink", 0.9
TIED, UNTIED, DIFFERENCE = "correlated", "independent", "difference"  # the artefact and the label of the tested pictures
TRAPPED, HONEST = "trained with the shortcut", "trained without it"
COLOURS = {TRAPPED: VERMILLION, HONEST: BLUE}


@dataclass(frozen=True)
class Trap:
    """Two runs that differ in one thing: whether an artefact went with the label of the pictures they were trained on.

    Patients, lesions, labels, photographs, split and settings are the same.

    Attributes:
        artefact: the one that was tied.
        honest: trained in the untied world.
        trapped: trained in the tied one.
        untied: generator of the untied world.
        tied: generator of the tied world.
    """

    artefact: str
    honest: Run
    trapped: Run
    untied: SyntheticDermoscopy
    tied: SyntheticDermoscopy

    @property
    def runs(self) -> dict[str, Run]:
        """Both runs by what to call them."""
        return {TRAPPED: self.trapped, HONEST: self.honest}

    @cached_property
    def cases(self) -> pd.DataFrame:
        """Test cases as photographed in the untied world."""
        return _tested(self.honest)

    @cached_property
    def tied_cases(self) -> pd.DataFrame:
        """The same test cases as photographed in the tied world, in the same order."""
        return _tested(self.trapped).set_index("image_id", drop=False).loc[self.cases["image_id"]].reset_index(drop=True)

    @cached_property
    def ceiling(self) -> float:
        """The best AUROC that honest causes allow, exact but for a standard error of about 0.001."""
        return self.untied.bayes_auroc()["both"]


def set_trap(settings: Settings, artefact: str = ARTEFACT, tie: float = TIE) -> Trap:
    """Find both runs, or train them.

    The honest run is that of the settings. The trapped one is trained with its settings on the same patients painted anew, and
    lies beside it in ``runs_dir``, named after it, the artefact and a digest of its data.

    Args:
        settings: of the lesson. Of another source than the synthetic one, or without an image branch, both runs are trained on
            synthetic cases in the fast profile: only there is it known which pictures have an artefact.
        artefact: one of ``ARTEFACTS``.
        tie: ``P(artefact | melanoma) - P(artefact | other)``, from -1 to 1, not 0.

    Raises:
        ValueError: for an unknown artefact or a tie out of range.
        DataError: if the settings' own cases have tied artefacts already.
        RunError: if one of the trainings is interrupted.
    """
    if not tie:
        raise ValueError("tie: expected a number from -1 to 1 other than 0, which ties nothing")
    SyntheticDermoscopy(1, shortcut={artefact: tie})  # refuses what it does not know, before anything is trained
    honest = train(_synthetic(settings))
    untied = SyntheticDermoscopy.of_folder(source_root(honest.settings))
    if untied.shortcut:
        raise DataError(f"{honest.path} was trained on cases with ties {untied.shortcut}; name a data_dir of untied ones")
    tied = SyntheticDermoscopy(**untied.knobs | {"shortcut": {artefact: tie}})
    pictures = source_root(honest.settings)
    folder = tied.write(pictures.parent / tied.fingerprint, twin=pictures)
    name = f"{honest.path.name}-{artefact}-tied-{tied.fingerprint.rpartition('-')[2]}"
    places = settings.model_dump(include=PLACE_FIELDS) | {
        "data_dir": folder,
        "run_dir": settings.runs_dir / name,
        "image_dirs": (),
    }
    shown = f"shortcut: {artefact} tied to the label by {tie:g}"
    trapped = train(honest.settings.with_changes(**places | {"resume": True}), demonstration=shown)
    if not honest.splits.equals(trapped.splits):
        raise RunError(f"{honest.path} and {trapped.path} have other splits or labels; delete the latter, it is trained again")
    return Trap(artefact, honest, trapped, untied, tied)


def _synthetic(settings: Settings) -> Settings:
    """The settings of the honest run."""
    if settings.source == "synthetic" and "image" in settings.modalities:
        return settings.with_changes(resume=True)
    own = {"data_dir": None, "run_dir": None, "image_dirs": ()}
    places = settings.model_dump(include=PLACE_FIELDS - {"profile"}) | own
    return Settings(**places | {"profile": "fast", "source": "synthetic", "seed": settings.seed, "resume": True})


def _tested(run: Run) -> pd.DataFrame:
    cases = run.cases()
    return cases[cases["split"] == "test"].reset_index(drop=True)


def compare_worlds(trap: Trap, n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """AUROC of both models on the same test cases, painted where the artefact is correlated with the label and where it is not.

    Args:
        trap: from :func:`set_trap`.
        n: resamples of patients behind each interval.
        seed: of the resampling.

    Returns:
        ``auroc``, ``low`` and ``high`` by model and by ``TIED``, ``UNTIED`` and their paired ``DIFFERENCE``.
    """
    targets, groups = trap.cases["target"].to_numpy(), trap.cases["group_id"].to_numpy(str)
    rows = {}
    for name, run in trap.runs.items():
        own = TIED if run is trap.trapped else UNTIED
        worlds = {TIED: trap.tied_cases, UNTIED: trap.cases}
        scores = {world: (stored_logits if world == own else file_logits)(run, cases) for world, cases in worlds.items()}
        for world, one in scores.items():
            rows[name, world] = rate_intervals(targets, one, groups, None, n, seed)["auroc"]
        rows[name, DIFFERENCE] = bootstrap_gain(targets, scores[TIED], scores[UNTIED], groups, n, seed)["auroc"]
    index = pd.MultiIndex.from_tuples(rows, names=["model", "artefact and label"])
    return pd.DataFrame({"auroc": [one.value for one in rows.values()], "low": [one.low for one in rows.values()],
                         "high": [one.high for one in rows.values()]}, index)  # fmt: skip


def auroc_figure(worlds: pd.DataFrame, ceiling: float) -> DescribedFigure:
    """The AUROCs of :func:`compare_worlds` with their intervals, and the best that honest causes allow."""
    shown = worlds.drop(index=DIFFERENCE, level=1)
    with kit_figure(12.0, 3.6) as figure:
        axes = figure.add_subplot()
        for y, ((model, world), row) in enumerate(shown.iterrows()):
            ends = [[row["auroc"] - row["low"]], [row["high"] - row["auroc"]]]
            fill = COLOURS[model] if world == TIED else "white"
            axes.errorbar(row["auroc"], y, xerr=ends, fmt="o", color=COLOURS[model], mfc=fill, markersize=12, capsize=6)
        axes.axvline(ceiling, color=GREEN, linestyle="--")
        axes.text(ceiling, -0.6, f" honest ceiling {ceiling:.3f}", color=GREEN, va="bottom")
        axes.set_yticks(
            range(len(shown)), [f"{model}, tested where\nartefact and label are {world}" for model, world in shown.index]
        )
        axes.set(ylim=(len(shown) - 0.4, -0.6), xlabel="AUROC on the same test cases, 95% interval")
        axes.grid(visible=False, axis="y")
    words = [f"{model}, {world}: {one.auroc:.3f} [{one.low:.3f}, {one.high:.3f}]" for (model, world), one in worlds.iterrows()]
    return with_alt_text(
        figure, f"AUROC by model and test set. {'; '.join(words)}. The best that honest causes allow is {ceiling:.3f}."
    )


def stored_logits(run: Run, cases: pd.DataFrame) -> np.ndarray:
    """Logits that a run has stored for cases of its own test split, shape ``(N,)``, in their order."""
    return run.predictions("test").set_index("image_id")["logit"].loc[cases["image_id"]].to_numpy()


def file_logits(run: Run, cases: pd.DataFrame) -> np.ndarray:
    """Logits of a run for cases as their image files are, shape ``(N,)``.

    Raises:
        CorruptImageError: if an image cannot be read.
    """
    return Predictor(run).predict_cases(cases)["logit"].to_numpy()


def artefact_effects(
    run: Run, cases: pd.DataFrame, n: int, trap: Trap, artefacts: Sequence[str] = ARTEFACTS, seed: int = 0
) -> list[ArtefactEffect]:
    """What each artefact does to a run's answers; it is pasted on photographs, the lesson's synthetic cases are painted anew.

    Args:
        run: of the lesson.
        cases: its test cases.
        n: cases asked about, half of them melanomas as far as there are so many.
        trap: whose generator draws the cases, where the run is the one trained without the shortcut.
        artefacts: to paint.
        seed: of the choice of cases.
    """
    chosen, model = choose_cases(cases, n, seed), run.model()
    generator = trap.untied if run.path.resolve() == trap.honest.path.resolve() else None
    return [artefact_effect(run, chosen, artefact, generator, model) for artefact in artefacts]


def pairs_figure(trap: Trap, n: int = 3) -> DescribedFigure:
    """Contact sheet: a case without and with the artefact, what both models answer to either, and where each of them looks.

    Args:
        trap: from :func:`set_trap`.
        n: cases shown, of those that are no melanoma the ones whose artefact covers most of the picture beside the lesion.

    Raises:
        ValueError: if there is no case to show.
    """
    others = trap.cases[trap.cases["target"] == 0].drop_duplicates("group_id").head(40)
    if others.empty or n < 1:
        raise ValueError(f"expected at least one case that is no melanoma to show, got {min(n, len(others))}")
    found = [artefact_pair(case, trap.artefact, trap.untied.image_size, trap.untied) for _, case in others.iterrows()]
    area = np.array([-1.0 if pair.touches else pair.where.mean() for pair in found])
    models, words = {name: run.model() for name, run in trap.runs.items()}, []
    chosen = np.sort(np.argsort(-area, kind="stable")[:n])
    with kit_figure(12.0, 2.95 * len(chosen) + 0.9) as figure:
        grid = figure.subplots(len(chosen), 4, squeeze=False)
        for row, i in zip(grid, chosen, strict=True):
            case, pair = others.iloc[i], found[i]
            for axes, picture in zip(row, (pair.without, pair.painted), strict=False):
                axes.imshow(picture)
            for axes, (name, run) in zip(row[2:], trap.runs.items(), strict=True):
                risks, heatmap = _asked(run, models[name], case, pair)
                top = float(np.abs(heatmap).max()) or 1.0
                axes.imshow(pair.painted.mean(axis=2), cmap="gray", vmin=-100, vmax=255)
                axes.imshow(heatmap, cmap=SIGNED, vmin=-top, vmax=top)
                if pair.where.any():
                    axes.contour(pair.where, levels=[0.5], colors=BLACK, linewidths=1.6)
                axes.set_xlabel(f"risk {risks[0]:.0%} → {risks[1]:.0%}", color=COLOURS[name], fontsize=15)
                words.append(f"{case['image_id']}, {name}: risk {risks[0]:.0%} without and {risks[1]:.0%} with it")
        for axes in grid.ravel():
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
        for axes, title in zip(grid[0], ("not melanoma", f"the same with {trap.artefact}", *trap.runs), strict=True):
            axes.set_title(title, color=COLOURS.get(title, BLACK))
        figure.supxlabel(
            f"HiResCAM, vermillion for melanoma, blue against, each map to its own scale; black: outline of the {trap.artefact}\n"
            f"cases with much {trap.artefact} clear of the lesion, not drawn at random",
            fontsize=13,
        )
    return with_alt_text(figure, f"Cases without and with {trap.artefact}. {'; '.join(words)}. Educational, not for diagnosis.")


def _asked(run: Run, model, case: pd.Series, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Risks without and with the artefact, shape ``(2,)``, and the map of the picture with it."""
    transform = evaluation_transform(run.settings.backbone, run.settings.image_size)
    image = torch.stack([transform(Image.fromarray(picture)) for picture in (pair.without, pair.painted)])  # (2, 3, S, S)
    metadata = torch.from_numpy(run.encoder.transform(case.to_frame().T)).repeat(2, 1)  # (1, M) -> (2, M)
    layer = default_layer(cam_layers(model), run.settings.image_size)
    risks = run.calibrator.risk(predict_logits(model, [{"image": image, "metadata": metadata}], run.settings.tta))
    return risks, heatmaps(model, image, metadata, layer, METHOD, size=len(pair.where))[layer][1]
