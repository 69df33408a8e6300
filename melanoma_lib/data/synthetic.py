"""The offline default data set: synthetic dermoscopy whose every risk, mask and artefact is known.

Not medical data. It teaches how a classifier is trained, tested and fooled; it says nothing about real melanoma.
"""

import hashlib
import io
import json
import operator
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_lib.data.artefacts import ARTEFACTS, paint_artefact
from melanoma_lib.data.images import mark_painted
from melanoma_lib.data.optics import CAMERAS
from melanoma_lib.data.painting import paint_case
from melanoma_lib.data.population import draw_cases, draw_lesions
from melanoma_lib.errors import DataError
from melanoma_lib.utils import progress_bar

VERSION = 2  # raise it when the same knobs no longer give the same pixels
DESCRIPTION, TABLE = "generator.json", "cases.csv"
JPEG_QUALITY = 94
KNOBS = ("n_patients", "seed", "image_size", "shortcut", "prevalence")
_LESION, _PHOTO, _ARTEFACT, _NOISE = range(1, 5)  # independent random streams; 0 is the table's


@dataclass(frozen=True)
class SyntheticCase:
    """One rendered case: uint8 ``(H, W, 3)``, the lesion's pixels and, for each artefact drawn, those it visibly changed."""

    image: np.ndarray
    mask: np.ndarray
    artefacts: dict[str, np.ndarray]


class SyntheticDermoscopy:
    """Patients with lesions, lesions with photographs, all drawn from known causes.

    The label of a lesion is a coin tossed with its ``true_risk``, so no model can beat :meth:`bayes_auroc`, unless artefacts
    are correlated with it through ``shortcut``. Case ``i`` depends on ``seed`` and ``i`` alone: neither on how many patients
    there are nor on the order, batch or process in which cases are drawn.

    Args:
        n_patients: number of patients; each has 1-4 lesions and each lesion 1-3 photographs.
        seed: non-negative.
        image_size: side of the square pictures in pixels, at least 32.
        shortcut: for artefacts of ``ARTEFACTS`` a correlation with the label, from -1 to 1:
            ``P(present | melanoma) - P(present | other)``. At 1 exactly the melanomas have it, at -1 exactly the others.
        prevalence: expected share of melanomas among lesions, in (0, 1).

    Raises:
        ValueError: for a knob outside its range or an unknown artefact; TypeError for one of the wrong type.
    """

    def __init__(
        self,
        n_patients: int = 600,
        seed: int = 0,
        image_size: int = 128,
        shortcut: Mapping[str, float] | None = None,
        prevalence: float = 0.2,
    ) -> None:
        self.n_patients, self.seed, self.image_size = map(operator.index, (n_patients, seed, image_size))  # whole numbers alone
        self.prevalence, shortcut = float(prevalence), shortcut or {}
        if self.n_patients < 1 or self.seed < 0 or self.image_size < 32 or not 0 < prevalence < 1:
            raise ValueError(
                "expected n_patients of at least 1, seed of at least 0, image_size of at least 32, prevalence between 0 and 1; "
                f"got {n_patients}, {seed}, {image_size} and {prevalence}"
            )
        if not set(shortcut) <= set(ARTEFACTS) or not all(-1 <= tie <= 1 for tie in shortcut.values()):
            raise ValueError(f"shortcut expects a tie from -1 to 1 for some of {list(ARTEFACTS)}, got {dict(shortcut)}")
        self.shortcut = {name: float(shortcut[name]) for name in ARTEFACTS if name in shortcut}

    @classmethod
    def of_folder(cls, root: Path) -> "SyntheticDermoscopy | None":
        """The generator of the data set that :meth:`write` left in a folder; None if the folder holds none."""
        description = Path(root) / DESCRIPTION
        if not description.is_file():
            return None
        try:
            stored = json.loads(description.read_text(encoding="utf-8"))
            return cls(**{name: stored[name] for name in KNOBS})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{description}: expected the knobs {list(KNOBS)} as JSON, got {error!r}; write it again") from error

    @property
    def fingerprint(self) -> str:
        """A folder name that differs whenever the data do."""
        digest = hashlib.sha256(self._description().encode()).hexdigest()[:8]
        return f"{self.n_patients}-patients-seed-{self.seed}-{self.image_size}px-{digest}"

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.cases)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """The validated case table, one row per photograph; paths are relative to the folder :meth:`write` is given.

        Beyond the schema's columns: ``true_risk`` (given image factors and metadata), ``truth_risk_image`` and
        ``truth_risk_metadata`` (given only one of them), the image factors as ``truth_<factor>``, ``truth_skin_tone`` and
        ``truth_artefact_<name>``. A missing age, sex or site has no effect on the risk.
        """
        return draw_cases(self.n_patients, self.seed, self.prevalence, self.shortcut)

    def render(self, index: int, artefacts: Collection[str] | None = None) -> SyntheticCase:
        """Paint a row of :attr:`cases`, with these artefacts in place of those it lists; all else stays, pixel by pixel."""
        row = self.cases.iloc[index].to_dict()  # as numbers of Python: those of NumPy would make all pixels float64
        if artefacts is None:
            artefacts = [name for name in ARTEFACTS if row[f"truth_artefact_{name}"]]
        elif unknown := set(artefacts) - set(ARTEFACTS):
            raise ValueError(f"unknown artefact {sorted(unknown)}; expected some of {list(ARTEFACTS)}")
        look = SimpleNamespace(**{name.removeprefix("truth_"): value for name, value in row.items()})
        camera, lesion_rng = CAMERAS[row["acquisition"]], self._rng(_LESION, int(row["lesion_id"].rpartition("L")[2]))
        image, mask = paint_case(look, camera, lesion_rng, self._rng(_PHOTO, index), self.image_size)
        np.clip(image, 0, 255, out=image)
        masks = {
            name: paint_artefact(name, image, self._rng(_ARTEFACT, index, k))
            for k, name in enumerate(ARTEFACTS)
            if name in artefacts
        }
        # bytes instead of a normal law: the eye cannot tell, and they come ten times faster
        noise = np.frombuffer(self._rng(_NOISE, index).bytes(4 * mask.size), np.uint8).reshape(4, *mask.shape)
        noise = (noise.astype(np.float32) - 127.5) * np.float32(camera.noise / 73.9)  # standard deviation camera.noise
        image += 0.8 * noise[3] + 0.6 * noise[:3]  # mostly grey, some colour
        pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        return SyntheticCase(np.ascontiguousarray(pixels), mask, masks)

    def bayes_auroc(self, n_patients: int = 50_000) -> dict[str, float]:
        """AUROC of the exact risk given ``image``, ``metadata`` or ``both``: the best there is, shortcuts aside."""
        from sklearn.metrics import roc_auc_score

        lesions = draw_lesions(n_patients, self.seed, self.prevalence)
        columns = {"image": "truth_risk_image", "metadata": "truth_risk_metadata", "both": "true_risk"}
        return {part: float(roc_auc_score(lesions["target"], lesions[column])) for part, column in columns.items()}

    def write(self, root: Path, only: Collection[str] = ()) -> Path:
        """Write the data set as a folder that ``load_cases("synthetic", root)`` reads.

        Holds ``cases.csv``, ``images/<image_id>.jpg``, ``masks/<image_id>.png`` (255 on the lesion) and ``generator.json`` (the
        knobs). The folder appears when all of it is there; one that already holds the same data is left as it is. Where the
        images ``only`` will do, they get a folder of their own beside ``root``, which is returned, unless ``root`` is there.

        Raises:
            DataError: if ``root`` holds something else, or the disk refuses.
        """
        root, chosen, part_of = Path(root), np.arange(len(self)), ""
        if self._already_in(root):
            return root
        if only:
            chosen = np.flatnonzero(self.cases["image_id"].isin(set(only)))
            part_of = f"{len(chosen)}-images-{hashlib.sha256(chosen.tobytes()).hexdigest()[:8]}"
            root = root.with_name(f"{root.name}-{part_of}")
            if self._already_in(root, part_of):
                return root
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(".part", f".{root.name}.", root.parent, ignore_cleanup_errors=True) as temporary:
                part = Path(temporary)
                for folder in ("images", "masks"):
                    (part / folder).mkdir()
                with progress_bar("painting synthetic cases", len(chosen)) as advance:
                    for index in chosen:
                        case, name = self.render(index), self.cases["image_id"][index]
                        (part / "images" / f"{name}.jpg").write_bytes(painted_jpeg(case.image))
                        Image.fromarray(case.mask.astype(np.uint8) * 255).save(part / "masks" / f"{name}.png")
                        advance()
                self.cases.iloc[chosen].to_csv(part / TABLE, index=False)
                (part / DESCRIPTION).write_text(self._description(part_of), encoding="utf-8")
                part.chmod(0o755)  # its own mode would shut out other readers
                part.replace(root)
        except OSError as error:
            if not self._already_in(root, part_of):  # else another process was faster with the same data
                raise DataError(
                    f"cannot write synthetic cases to {root}: {error}; choose a folder you may write to, or free some space."
                ) from error
        return root

    def _description(self, part_of: str = "") -> str:
        part = {"only": part_of} if part_of else {}
        knobs = {name: getattr(self, name) for name in KNOBS}
        return json.dumps({"version": VERSION, "artefacts": ARTEFACTS, **knobs, **part}, indent=1, sort_keys=True)

    def _already_in(self, root: Path, part_of: str = "") -> bool:
        """Whether ``root`` holds these data; False if there is nothing, an error if there is something else."""
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        description = root / DESCRIPTION
        found = description.read_text(encoding="utf-8") if description.is_file() else f"no {DESCRIPTION}"
        if found == self._description(part_of):
            return True
        raise DataError(
            f"{root} already exists and holds something else; choose another folder, or delete this one if it may go.\n"
            f"expected {DESCRIPTION}: {self._description(part_of)}\nfound: {found}"
        )

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, *stream]))


def painted_jpeg(pixels: np.ndarray) -> bytes:
    """A picture of the generator's, uint8 ``(H, W, 3)``, as a JPEG file that is known for one."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return mark_painted(file.getvalue())
