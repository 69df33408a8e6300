"""Draw contact sheet, map of lessons and import layers, for README and CONTRIBUTING: ``python docs/pictures.py``."""

import ast
import base64
import io
import re
import textwrap
import tomllib
from pathlib import Path

import pandas as pd
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps

from melanoma_lib.classroom.handout import pictures
from melanoma_lib.classroom.lesson import Lesson, find_lessons
from melanoma_lib.data import SyntheticDermoscopy
from melanoma_lib.plotting import BLUE, DescribedFigure, kit_figure, with_alt_text

HERE = Path(__file__).parent


def contact_sheet(generator: SyntheticDermoscopy, rows_a_class: int = 2, columns: int = 6) -> DescribedFigure:
    """The first lesions of a synthetic world, half of them melanomas, each with its metadata and the risk it was drawn with.

    Args:
        generator: the world; nothing is chosen by looks, the table's order decides.
        rows_a_class: rows of pictures of each class.
        columns: pictures a row.
    """
    lesions = generator.cases.drop_duplicates("lesion_id")
    wanted = rows_a_class * columns
    shown = pd.concat([lesions[lesions["target"] == target].head(wanted) for target in (0, 1)])
    with kit_figure(2.0 * columns, 4.9 * rows_a_class) as figure:
        axes = figure.subplots(2 * rows_a_class, columns)
        for axis, (index, case) in zip(axes.flat, shown.iterrows(), strict=True):
            axis.imshow(generator.render(index).image)
            axis.set_axis_off()
            axis.set_title(caption(case), fontsize=10.5, loc="center")
        for row, title in ((0, "Not melanoma"), (rows_a_class, "Melanoma")):
            axes[row, 0].annotate(title, (0, 1.34), xycoords="axes fraction", fontsize=14, fontweight="bold")
    risks = shown.groupby("target")["true_risk"].median()
    return with_alt_text(
        figure,
        f"""Contact sheet of {len(shown)} synthetic dermoscopy images, {wanted} of each class, with age, sex, site and the risk of
        melanoma they were drawn with. The classes overlap: the median risk is {risks[0]:.0%} above and {risks[1]:.0%} below.""",
    )


def caption(case: pd.Series) -> str:
    """Age, sex, site and true risk of a case in two lines."""
    age = "age ?" if pd.isna(case["age_approx"]) else f"{case['age_approx']:.0f} y"
    sex = "sex ?" if pd.isna(case["sex"]) else case["sex"]
    site = "site ?" if pd.isna(case["anatom_site_general_challenge"]) else case["anatom_site_general_challenge"]
    return f"{age}, {sex}\n{site}, risk {case['true_risk']:.0%}"


def lesson_map(lessons: list[Lesson], columns: int = 4) -> DescribedFigure:
    """The first committed picture of each lesson, in their order.

    Args:
        lessons: with their outputs.
        columns: pictures a row.
    """
    rows = -(-len(lessons) // columns)
    with kit_figure(5.2 * columns, 3.8 * rows) as figure:
        for number, lesson in enumerate(lessons):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.imshow(ImageOps.pad(committed_picture(lesson), (900, 600), color="white", centering=(0, 0)))
            axes.set_axis_off()
            axes.set_title(title_of(lesson), fontsize=13, loc="left")
    return with_alt_text(figure, f"A picture of each lesson: {'; '.join(map(title_of, lessons))}.")


def title_of(lesson: Lesson) -> str:
    """The heading of a lesson."""
    return lesson.notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def committed_picture(lesson: Lesson) -> Image.Image:
    """The picture that the lesson's map shows."""
    data = pictures(lesson.notebook.cells)[0].data["image/png"]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def layers() -> list[str]:
    """The import layers of ``pyproject.toml``, from the top down."""
    contracts = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["id"] == "layers")


def layer_picture() -> DescribedFigure:
    """The import layers, one above the other, with what each package or module says of itself."""
    package, found = HERE.parent / "melanoma_lib", layers()
    with kit_figure(13, 0.95 * len(found) + 0.3) as figure:
        axes = figure.add_subplot(xlim=(0, 12), ylim=(-len(found), 0.1))
        axes.set_axis_off()
        for row, layer in enumerate(found):
            names = [name.strip() for name in layer.replace(":", "|").split("|")]
            width = 12 / len(names)
            for place, name in enumerate(names):
                file = package / name / "__init__.py" if (package / name).is_dir() else package / f"{name}.py"
                said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))).partition("\n")[0].replace("`", "")
                words = textwrap.fill(textwrap.shorten(re.split(r"[:;.] ", said)[0], 66, placeholder=" …"), round(11.5 * width))
                left, middle = place * width + 0.05, (place + 0.5) * width
                axes.add_patch(Rectangle((left, -row - 0.88), width - 0.1, 0.84, facecolor="#EAF2F8", edgecolor=BLUE))
                axes.text(middle, -row - 0.22, name, ha="center", va="center", fontsize=12, fontweight="bold")
                axes.text(middle, -row - 0.6, words, ha="center", va="center", fontsize=8.5)
    return with_alt_text(figure, f"Import layers, each of which knows only those below it: {'; '.join(found)}.")


def draw_pictures() -> None:
    """Draw all three; the one of the layers remembers of which contract it is."""
    layer_picture().savefig(HERE / "layers.png", dpi=80, metadata={"layers": "\n".join(layers())})
    lesson_map(find_lessons()).savefig(HERE / "lessons.png", dpi=80)
    contact_sheet(SyntheticDermoscopy(n_patients=150, seed=0, image_size=192)).savefig(HERE / "cases.png", dpi=80)


if __name__ == "__main__":
    draw_pictures()
