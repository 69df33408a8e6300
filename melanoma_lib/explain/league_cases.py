"""Which cases a league of heatmaps plays on, and each map's grade on each of them; interrupted, it goes on where it stopped."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.data.images import evaluation_pixels, normalise, read_square, stored_side
from melanoma_lib.errors import DataError
from melanoma_lib.explain.cam import heatmaps_by_method, resize_heatmap
from melanoma_lib.explain.controls import CONTROLS
from melanoma_lib.explain.exam import score_heatmaps
from melanoma_lib.explain.faithfulness import deletion_insertion, road
from melanoma_lib.explain.perturbation import WEIGHTS
from melanoma_lib.explain.sanity import MOVES, cascade, class_swap, flip_repeatability, spearman
from melanoma_lib.model import MelanomaNet
from melanoma_lib.utils import progress_bar, replacing

BATCH = 16
ROAD_SHARES = (0.1, 0.3, 0.5)  # of the pixels; beyond half, little of the order is left to tell maps apart
Contestant = tuple[str, str]  # layer and method; a control has no layer
PLAYERS = CONTROLS | {"uniform": lambda image, _: np.ones(image.shape[:2], np.float32)}  # the last scores what an empty map does
OUTLINE = ("", "outline")  # the lesion itself as a map: what there is to win
Grades = dict[str, np.ndarray]  # by score, one row a case and one column a contestant, shape (N, K); NaN where not graded


@dataclass(frozen=True)
class Plan:
    """Who plays, and on how many of the cases what is graded; each number counts from the first case.

    Attributes:
        layers: of the model.
        methods: of ``CAM_METHODS``.
        seed: of the cases, the random control and the random weights.
        n_faithful: cases of deletion and insertion.
        n_road: cases of ROAD, which fills in pixels and takes several times as long.
        n_sanity: cases of class swap, random weights and mirroring.
        n_slow: cases of the methods that ask the model once a channel.
    """

    layers: tuple[str, ...]
    methods: tuple[str, ...]
    seed: int
    n_faithful: int
    n_road: int
    n_sanity: int
    n_slow: int

    @cached_property
    def contestants(self) -> list[Contestant]:
        """Layer and method of each column of the grades; the controls, which have no layer, come last."""
        return (
            [(layer, method) for method in self.methods for layer in self.layers] + [("", name) for name in PLAYERS] + [OUTLINE]
        )

    @property
    def fast(self) -> list[str]:
        """Methods that one forward and backward pass serves."""
        return [method for method in self.methods if method not in WEIGHTS]

    @property
    def slow(self) -> list[str]:
        """Methods that ask the model again for each channel."""
        return [method for method in self.methods if method in WEIGHTS]


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
        raise DataError(f"none of {len(cases)} cases has a mask, and a league grades maps against the outline of the lesion")
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
    """Grade every contestant on the cases.

    Args:
        run: whose encoder and settings prepare the cases.
        model: of the run.
        cases: from :func:`choose_cases`.
        plan: what is graded.
        working: folder in which finished batches are kept until all are; None keeps nothing.
        show_progress: draw a bar.

    Returns:
        The scores of ``score_heatmaps``; ``energy_on_<artefact>`` where the source says what it painted; ``deletion`` and
        ``insertion`` as published, the gains ``deletion_insertion`` and ``road`` in logits; ``class_swap``, ``repeat``,
        ``cascade:<stage>`` from the head down, ``stranger`` (similarity to the map of another case); ``silent`` and ``doubtful``:
        1 where a map has nothing positive, or an arbitrary sign.
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
                grades = _Batch(run, model, rows, plan, start).grades()
                if kept:
                    with replacing(kept) as temporary, temporary.open("wb") as file:
                        np.savez(file, **grades)
            batches.append(grades)
            for _ in range(len(rows)):
                advance()
    names = dict.fromkeys(name for grades in batches for name in grades)
    empty = [np.full((len(next(iter(grades.values()))), len(plan.contestants)), np.nan) for grades in batches]
    joined = {name: np.concatenate([grades.get(name, e) for grades, e in zip(batches, empty, strict=True)]) for name in names}
    if working:
        shutil.rmtree(working)
    return joined


class _Batch:
    """A few cases with their maps, and the grades of these maps."""

    def __init__(self, run, model: MelanomaNet, rows: pd.DataFrame, plan: Plan, start: int) -> None:
        self.model, self.rows, self.plan, self.start = model, rows, plan, start
        self.side = run.settings.image_size
        backbone = run.settings.backbone
        to_pixels = evaluation_pixels(backbone, self.side)
        files = [read_square(Path(path), stored_side(self.side)) for path in rows["image_path"]]
        self.pixels = torch.stack([to_pixels(Image.fromarray(file)) for file in files])  # uint8 (B, 3, S, S)
        self.image = normalise(self.pixels, backbone)
        self.metadata = torch.from_numpy(run.encoder.transform(rows))
        self.masks = [read_square(Path(path), self.side)[..., 0] > 127 for path in rows["mask_path"]]  # (S, S) each
        self.groups = rows["group_id"].to_numpy()
        self.found: Grades = {}

    def grades(self) -> Grades:
        """All grades of the batch, shape ``(B, K)`` each."""
        plan = self.plan
        maps = self._maps(plan.fast, len(self.rows)) | {("", name): self._control(name, self.pixels) for name in PLAYERS}
        maps[OUTLINE] = np.stack(self.masks).astype(np.float32)
        self._grade(maps, len(self.rows))
        if plan.slow and (n := self._first(plan.n_slow)) > 0:
            self._grade(self._maps(plan.slow, n), n)
        if (n := self._first(plan.n_sanity)) > 0:
            self._test_sanity({contestant: heatmaps[:n] for contestant, heatmaps in maps.items()}, n)
        return self.found

    def _first(self, total: int) -> int:
        """How many cases of this batch are among the first ``total`` of the league."""
        return min(len(self.rows), total - self.start)

    def _keep(self, name: str, contestants: Sequence[Contestant], values: np.ndarray, at: slice | int) -> None:
        """Enter grades of some cases, shape ``(n, len(contestants))``."""
        shape = len(self.rows), len(self.plan.contestants)
        columns = [self.plan.contestants.index(contestant) for contestant in contestants]
        self.found.setdefault(name, np.full(shape, np.nan))[at, columns] = values

    def _maps(self, methods: Sequence[str], n: int) -> dict[Contestant, np.ndarray]:
        """Maps of the first cases, shape ``(n, h, w)`` each, at the resolution of the layer."""
        if not methods:
            return {}
        found = heatmaps_by_method(self.model, self.image[:n], self.metadata[:n], methods, self.plan.layers)
        maps = {(layer, method): heatmap for method, own in found.items() for layer, heatmap in own.items()}
        doubtful = [own.doubtful_sign[layer] for own in found.values() for layer in own]
        self._keep("doubtful", list(maps), np.stack(doubtful, axis=1), slice(n))
        return maps

    def _control(self, name: str, pixels: Tensor, again: int = 0) -> np.ndarray:
        """A control's maps, shape ``(B, S, S)``; what is random in it differs from case to case and from time to time."""
        pictures = pixels.permute(0, 2, 3, 1).contiguous().numpy()  # (B, 3, S, S) -> (B, S, S, 3)
        rngs = [np.random.default_rng([self.plan.seed, self.start + i, again]) for i in range(len(pictures))]
        return np.stack([PLAYERS[name](picture, rng) for picture, rng in zip(pictures, rngs, strict=True)])

    def _grade(self, maps: dict[Contestant, np.ndarray], n: int) -> None:
        """Localisation of all ``n`` cases and faithfulness of those that have their turn; ``large`` is ``(n, K, S, S)``."""
        large = np.stack([[resize_heatmap(each, self.side) for each in heatmaps[:n]] for heatmaps in maps.values()], axis=1)
        contestants = list(maps)
        for i in range(n):
            self._keep("silent", contestants, ~(large[i] > 0).any((1, 2)), i)
            for name, place in {"": self.masks[i], **_artefacts(self.rows.iloc[i], self.masks[i])}.items():
                for score, values in _localised(large[i], place).items():
                    if not name or score == "energy_in_mask":
                        self._keep(f"energy_on_{name}" if name else score, contestants, values, i)
        if (m := min(n, self._first(self.plan.n_faithful))) > 0:
            curves = deletion_insertion(self.model, self.image[:m], self.metadata[:m], large[:m], seed=self.plan.seed)
            grades = {"deletion": curves.deletion, "insertion": curves.insertion, "deletion_insertion": curves.gain()}
            for name, values in grades.items():
                self._keep(name, contestants, values, slice(m))
        if (m := min(n, self._first(self.plan.n_road))) > 0:
            curves = road(self.model, self.image[:m], self.metadata[:m], large[:m], shares=ROAD_SHARES, seed=self.plan.seed)
            self._keep("road", contestants, curves.gain(), slice(m))

    def _test_sanity(self, maps: dict[Contestant, np.ndarray], n: int) -> None:
        """Of the fast methods and, by asking them again, of the controls: these know neither class nor weights."""
        plan, shown = self.plan, (self.model, self.image[:n], self.metadata[:n])
        if plan.fast:
            fallen = cascade(*shown, plan.layers, plan.fast, seed=plan.seed)
            tests = {"class_swap": class_swap(*shown, plan.layers, plan.fast)}
            tests["repeat"] = flip_repeatability(*shown, plan.layers, plan.fast)
            for i, stage in enumerate(fallen.stages):
                tests[f"cascade:{stage}"] = {
                    method: {layer: values[i] for layer, values in by_layer.items()}
                    for method, by_layer in fallen.similarity.items()
                }
            for name, by_method in tests.items():
                columns = {(layer, method): values for method, own in by_method.items() for layer, values in own.items()}
                self._keep(name, list(columns), np.stack(list(columns.values()), axis=1), slice(n))
            for control in PLAYERS:
                self._ask_again(control, maps["", control], [name for name in tests if name != "repeat"], n)
        others = np.roll(np.arange(n), 1)
        alien = self.groups[:n] != self.groups[others]
        for contestant, heatmaps in maps.items():
            self._keep("stranger", [contestant], np.where(alien, _similar(heatmaps, heatmaps[others]), np.nan)[:, None], slice(n))

    def _ask_again(self, control: str, original: np.ndarray, names: Sequence[str], n: int) -> None:
        """A control's similarity with itself, asked a second time for all of the tests, and for the moved images."""
        moves = [
            _similar(original, back(self._control(control, there(self.pixels[:n]), again=1 + i)))
            for i, (there, back) in enumerate(MOVES.values())
        ]
        self._keep("repeat", [("", control)], np.mean(moves, axis=0)[:, None], slice(n))
        second = _similar(original, self._control(control, self.pixels[:n], again=1 + len(moves)))
        for name in names:
            self._keep(name, [("", control)], second[:, None], slice(n))


def _localised(maps: np.ndarray, place: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of maps, shape ``(K, S, S)``, against a place; nothing where it is empty.

    A map that points nowhere tells where the lesion is as well as a uniform one does, and is graded so: leaving the case out
    would compare maps on different cases, each on those that suit it.
    """
    if not place.any():
        return {}
    uniform = score_heatmaps(np.ones_like(maps[:1]), place)
    return {name: np.where(np.isnan(values), uniform[name], values) for name, values in score_heatmaps(maps, place).items()}


def _similar(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of the maps of each case, shape ``(B, h, w)`` twice to ``(B,)``."""
    return spearman(first.reshape(len(first), -1), second.reshape(len(second), -1))


def _artefacts(row: pd.Series, lesion: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels of each artefact beside the lesion, boolean ``(S, S)``, of a synthetic case; nothing of any other."""
    painted = [name for name in ARTEFACTS if row.get(f"truth_artefact_{name}", False)]
    if not painted:
        return {}
    with Image.open(Path(row["image_path"]).parents[1] / "artefacts" / f"{row['image_id']}.png") as file:
        bits = np.asarray(file.resize(lesion.shape[::-1], Image.Resampling.NEAREST))
    return {name: (bits >> ARTEFACTS.index(name) & 1).astype(bool) & ~lesion for name in painted}
