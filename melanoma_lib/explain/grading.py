"""Which cases a benchmark of heatmaps is made on, and each map's grades on them; interrupted, it goes on where it stopped."""

import shutil
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from melanoma_lib.data.images import evaluation_pixels, normalise, read_square, stored_side
from melanoma_lib.errors import DataError
from melanoma_lib.explain.cam import ONE_PASS_METHODS, heatmaps_by_method, resize_heatmap
from melanoma_lib.explain.faithfulness import deletion_insertion, road
from melanoma_lib.explain.sanity import cascade, class_swap, spearman
from melanoma_lib.explain.scores import CONTROLS, score_heatmaps
from melanoma_lib.model import MelanomaNet
from melanoma_lib.utils import progress_bar, replacing

BATCH = 16
ROAD_SHARES = (0.1, 0.3, 0.5)  # of the pixels; beyond half, little of the order is left to tell maps apart
DRAWN = CONTROLS | {"uniform": lambda image, _: np.ones(image.shape[:2], np.float32)}  # the last scores what an empty map does
OUTLINE = ("", "outline")  # the lesion itself as a map: what there is to win
Grades = dict[str, np.ndarray]  # by score, one row a case and one column a map, shape (N, K); NaN where not graded


@dataclass(frozen=True)
class Plan:
    """What is graded, and on how many of the cases, from the first one on: see ``benchmark_heatmaps``, which takes the same."""

    layers: tuple[str, ...]
    methods: tuple[str, ...]
    seed: int
    n_faithful: int
    n_road: int
    n_sanity: int

    @cached_property
    def maps(self) -> list[tuple[str, str]]:
        """Layer and method of each column of the grades; the controls, which have no layer, come last."""
        graded = [(layer, method) for method in self.methods for layer in self.layers]
        return [*graded, *(("", name) for name in DRAWN), OUTLINE]


def choose_cases(cases: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
    """Cases with an outlined lesion: half of them melanomas as far as there are so many, each half drawn at random.

    Args:
        cases: a case table.
        n: cases wanted; all that there are, if fewer.
        seed: of the draw.

    Returns:
        The chosen cases in an order of which every beginning holds melanomas and others in about the same proportion.

    Raises:
        DataError: if no case has a mask.
        ValueError: if n is below 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1 case, got {n}")
    outlined = cases[cases["mask_path"].notna()]
    if outlined.empty:
        raise DataError(f"none of {len(cases)} cases has a mask, and heatmaps are graded against the outline of the lesion")
    n = min(n, len(outlined))
    melanomas, others = outlined[outlined["target"] == 1], outlined[outlined["target"] == 0]
    n_melanomas = min(len(melanomas), max(n // 2, n - len(others)))
    rng = np.random.default_rng(seed)
    drawn = [
        part.iloc[rng.permutation(len(part))[:count]] for part, count in ((melanomas, n_melanomas), (others, n - n_melanomas))
    ]
    places = np.concatenate([(np.arange(len(part)) + 0.5) / max(1, len(part)) for part in drawn])
    return pd.concat(drawn).iloc[np.argsort(places, kind="stable")].reset_index(drop=True)


def grade_cases(run, model: MelanomaNet, cases: pd.DataFrame, plan: Plan, working: Path | None, show_progress: bool) -> Grades:
    """Grade every map and control of a plan on the cases.

    Args:
        run: whose encoder and settings prepare the cases.
        model: of the run.
        cases: from :func:`choose_cases`, in its order.
        plan: layers, methods and numbers of cases.
        working: folder in which finished batches are kept until all are; None keeps nothing.
        show_progress: draw a bar.

    Returns:
        The scores of ``score_heatmaps``; ``deletion`` and ``insertion`` as published, the gains ``deletion_insertion`` and
        ``road`` in logits. ``class_swap``, ``cascade:<stage>`` from the head down and ``stranger``: similarity to the map
        against melanoma, to that after weights are shuffled, to that of another case. ``empty`` and ``doubtful``: 1 where a
        map has nothing positive, or an arbitrary sign.
    """
    batches = []
    with progress_bar("grading heatmaps", len(cases), show_progress) as advance:
        for start in range(0, len(cases), BATCH):
            rows = cases.iloc[start : start + BATCH]
            kept = working / f"{start:06d}.npz" if working else None
            if kept and kept.is_file():
                with np.load(kept) as file:
                    grades = dict(file)
            else:
                grades = _grade_batch(run, model, rows, plan, start)
                if kept:
                    with replacing(kept) as temporary, temporary.open("wb") as file:
                        np.savez(file, **grades)
            batches.append(grades)
            for _ in range(len(rows)):
                advance()
    names = dict.fromkeys(name for grades in batches for name in grades)
    absent = [np.full((len(grades["empty"]), len(plan.maps)), np.nan) for grades in batches]
    joined = {name: np.concatenate([grades.get(name, e) for grades, e in zip(batches, absent, strict=True)]) for name in names}
    if working:
        shutil.rmtree(working)
    return joined


def _grade_batch(run, model: MelanomaNet, rows: pd.DataFrame, plan: Plan, start: int) -> Grades:
    """All grades of a few cases, of which ``start`` come before them; shape ``(B, K)`` each."""
    side, backbone = run.settings.image_size, run.settings.backbone
    to_pixels = evaluation_pixels(backbone, side)
    files = [read_square(Path(path), stored_side(side)) for path in rows["image_path"]]
    pixels = torch.stack([to_pixels(Image.fromarray(file)) for file in files])  # uint8 (B, 3, S, S)
    shown = model, normalise(pixels, backbone), torch.from_numpy(run.encoder.transform(rows))
    masks = [read_square(Path(path), side)[..., 0] > 127 for path in rows["mask_path"]]  # (S, S) each
    grades: Grades = defaultdict(lambda: np.full((len(rows), len(plan.maps)), np.nan))

    found = heatmaps_by_method(*shown, plan.methods, plan.layers)
    maps = {(layer, method): own for method, by_layer in found.items() for layer, own in by_layer.items()}
    for k, (layer, method) in enumerate(maps):
        grades["doubtful"][:, k] = found[method].doubtful_sign[layer]
    maps |= {("", name): _drawn(name, pixels, plan.seed, start) for name in DRAWN}
    maps[OUTLINE] = np.stack(masks).astype(np.float32)
    large = np.stack([[resize_heatmap(each, side) for each in own] for own in maps.values()], axis=1)  # (B, K, S, S)

    grades["empty"][:] = ~(large > 0).any((2, 3))
    for i, mask in enumerate(masks):
        for score, values in _localised(large[i], mask).items():
            grades[score][i] = values
    if (n := min(len(rows), plan.n_faithful - start)) > 0:
        curves = deletion_insertion(model, shown[1][:n], shown[2][:n], large[:n], seed=plan.seed)
        grades["deletion"][:n], grades["insertion"][:n] = curves.deletion, curves.insertion
        grades["deletion_insertion"][:n] = curves.gain()
    if (n := min(len(rows), plan.n_road - start)) > 0:
        curves = road(model, shown[1][:n], shown[2][:n], large[:n], shares=ROAD_SHARES, seed=plan.seed)
        grades["road"][:n] = curves.gain()
    if (n := min(len(rows), plan.n_sanity - start)) > 0:
        _test_sanity(grades, maps, (model, shown[1][:n], shown[2][:n]), pixels[:n], rows["group_id"].to_numpy()[:n], plan, start)
    return dict(grades)


def _test_sanity(grades: Grades, maps: dict, shown: tuple, pixels: Tensor, groups: np.ndarray, plan: Plan, start: int) -> None:
    """Of the methods of one pass and, by asking them again, of the controls: these know neither class nor weights."""
    n, column = len(groups), {each: k for k, each in enumerate(plan.maps)}
    methods = [method for method in plan.methods if method in ONE_PASS_METHODS]
    if methods:
        tests = {"class_swap": class_swap(*shown, plan.layers, methods)}
        fallen = cascade(*shown, plan.layers, methods, seed=plan.seed)
        tests |= {f"cascade:{stage}": similarity for stage, similarity in fallen.items()}
        for name, by_method in tests.items():
            for method, by_layer in by_method.items():
                for layer, values in by_layer.items():
                    grades[name][:n, column[layer, method]] = values
            for control in DRAWN:
                again = _drawn(control, pixels, plan.seed, start, again=1)
                grades[name][:n, column["", control]] = _similar(maps["", control][:n], again)
    others = np.roll(np.arange(n), 1)
    for each, own in maps.items():
        grades["stranger"][:n, column[each]] = np.where(groups != groups[others], _similar(own[:n], own[others]), np.nan)


def _drawn(name: str, pixels: Tensor, seed: int, start: int, again: int = 0) -> np.ndarray:
    """A control's maps, shape ``(B, S, S)``; what is random in it differs from case to case and from time to time."""
    pictures = pixels.permute(0, 2, 3, 1).contiguous().numpy()  # (B, 3, S, S) -> (B, S, S, 3)
    rngs = [np.random.default_rng([seed, start + i, again]) for i in range(len(pictures))]
    return np.stack([DRAWN[name](picture, rng) for picture, rng in zip(pictures, rngs, strict=True)])


def _localised(maps: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of maps, shape ``(K, S, S)``, against a lesion; nothing where it is empty at this size.

    A map that points nowhere tells where the lesion is as well as a uniform one does, and is graded so: leaving the case out
    would compare maps on different cases, each on those that suit it.
    """
    if not mask.any():
        return {}
    uniform = score_heatmaps(np.ones_like(maps[:1]), mask)
    return {name: np.where(np.isnan(values), uniform[name], values) for name, values in score_heatmaps(maps, mask).items()}


def _similar(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of the maps of each case, shape ``(B, h, w)`` twice to ``(B,)``."""
    return spearman(first.reshape(len(first), -1), second.reshape(len(second), -1))
