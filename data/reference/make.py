"""Pack finished runs into the reference runs of this folder.

``python data/reference/make.py NAME RUN --command LINE`` packs one run: its checkpoint mostly in half precision, with
predictions, calibration, operating point and metrics made anew by that checkpoint, and what the app knows of its images.
``python data/reference/make.py NAME --command LINE --out-of-fold FUSION IMAGE METADATA`` adds the predictions of every
image by the models that were not trained on it, from three cross-validations of the same folds.
"""

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd
import torch

from melanoma_lib.data.datamodule import DermoscopyDataModule
from melanoma_lib.evaluation import evaluate_predictions
from melanoma_lib.explain.unlike import Reference
from melanoma_lib.export import write_card
from melanoma_lib.inference import predict_logits
from melanoma_lib.runs.run import CHECKPOINT, DEMONSTRATION, ENVIRONMENT, HISTORY, SETTINGS, SPLITS, Run, sha256
from melanoma_lib.runs.writer import RunWriter
from melanoma_lib.settings import Settings
from melanoma_lib.utils import replacing, write_text

HERE = Path(__file__).parent
OUT_OF_FOLD = "out_of_fold.csv.gz"
LARGE = 20_000  # numbers of a tensor that is kept with 16 bits
PUBLISHED = """Trained on HAM10000 (Tschandl, Rosendahl and Kittler, Scientific Data 5, 180161, 2018,
doi:10.1038/sdata.2018.161; data at doi:10.7910/DVN/DBW86T), licence CC BY-NC 4.0. Weights and predictions follow that licence:
no commercial use, and the authors are cited. No image is in this folder. The network started from ImageNet's weights."""
PAINTED = "Trained on synthetic cases that the kit paints: it knows nothing of skin and answers paintings alone."
TABLE = ["image_id", "group_id", "target", "age_approx", "sex", "anatom_site_general_challenge", "acquisition"]


def pack(run: Run, name: str, commit: str, demonstration: str = "") -> None:
    """Write ``data/reference/NAME`` from a finished run, in place of what is there."""
    folder = HERE / name
    data = DermoscopyDataModule(run.settings, run.cases())
    kept = Settings.from_json(run.settings.with_changes(run_dir=None, data_dir=None, image_dirs=(), threads=0).to_json())
    writer = RunWriter(kept.with_changes(run_dir=folder))
    shutil.rmtree(writer.partial, ignore_errors=True)
    (writer.partial / CHECKPOINT).parent.mkdir(parents=True)
    for file in (SPLITS, HISTORY):
        shutil.copy(run.path / file, writer.partial)
    write_text(writer.partial / SETTINGS, kept.to_json())
    if demonstration:
        write_text(writer.partial / DEMONSTRATION, demonstration + "\n")
    halve(run.path / CHECKPOINT, writer.partial / CHECKPOINT)

    model = run.model()
    state = torch.load(writer.partial / CHECKPOINT, weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})
    loaders = {"val": data.val_dataloader(), "test": data.test_dataloader()}
    logits = {split: predict_logits(model, loader, run.settings.tta) for split, loader in loaders.items()}
    writer.finish(data.cases, run.encoder, logits)
    write_text(writer.partial / ENVIRONMENT, json.dumps(run.environment | {"commit": commit}, indent=2) + "\n")

    shutil.rmtree(folder, ignore_errors=True)
    packed = Run(writer.partial.rename(folder))
    write_card(packed)
    if run.settings.source != "synthetic":
        packed.settings = run.settings  # where the images lie here
        Reference.of(packed)


def halve(checkpoint: Path, out: Path) -> None:
    """Keep of a checkpoint the weights of the model alone, with 16 bits those of large tensors.

    Small ones (normalisation, depthwise kernels, the head) keep 32 bits: on HAM10000 the largest change of a risk falls from
    0.005 to 0.0006 for 7% more bytes.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name: value for name, value in state.items() if name.startswith("model.")}
    large = [name for name, value in weights.items() if value.is_floating_point() and value.numel() >= LARGE]
    kept = weights | {name: weights[name].half() for name in large}
    with replacing(out) as temporary:
        torch.save({"state_dict": kept}, temporary)


def out_of_fold(fusion: Run, image: Run, metadata: Run) -> pd.DataFrame:
    """A row an image, in the order of the folds: who it is, and what each kind of model says that was not trained on it.

    ``probability`` is the sigmoid of the logit of that fold's model, ``risk`` its calibration on that fold's validation cases.
    """
    table = fusion.cases()[TABLE].set_index("image_id")
    for ending, run in {"": fusion, "_image": image, "_metadata": metadata}.items():
        tested = {number: fold.predictions("test") for number, fold in enumerate(run.folds, start=1)}
        folds = pd.concat(tested, names=["fold"]).reset_index("fold").set_index("image_id").loc[table.index]
        if "fold" in table and not table["fold"].equals(folds["fold"]):
            raise SystemExit(f"{run.path} has other folds than {fusion.path}")
        table["fold"] = folds["fold"]
        table[f"probability{ending}"], table[f"risk{ending}"] = folds["probability"].round(6), folds["risk"].round(6)
    return table.sort_values(["fold", "group_id", "image_id"]).reset_index()


def write_readme(run: Run, command: str, licence: str, table: pd.DataFrame | None) -> None:
    """``README.md``: how the run was made, what it may be used for, and what it is worth."""
    environment, metrics = run.environment, run.metrics
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    measures = {"AUROC": metrics["auroc"], "average precision": metrics["average_precision"]}
    measures |= {name: metrics["at_threshold"][name] for name in ("sensitivity", "specificity", "ppv")}
    point = run.operating_point
    lines = [
        f"# {run.path.name}\n", "Assistive and educational, never a diagnosis.\n", licence + "\n", "```", command, "```\n",
        f"- code: commit {environment['commit']}, finished {environment['finished']}, Python {environment['python']}",
        f"- {packages}",
        "- large tensors are kept with 16 bits; predictions, calibration, operating point and metrics are of these weights",
        f"- threshold {point.threshold:.6f} on the probability: {point.rule}",
        "- [model card](model_card.md); digests of all files: `SHA256SUMS`\n",
        f"Test cases: {metrics['n']:,} images, {metrics['n_melanoma']:,} melanomas.\n", "| measure | value [95% interval] |",
        "|---|---|", *(f"| {name} | {interval_of(measure)} |" for name, measure in measures.items()),
    ]  # fmt: skip
    if table is not None:
        size = f"{len(table):,} images, {table['group_id'].nunique():,} lesions"
        lines += [f"\n`{OUT_OF_FOLD}`: {size}; all images, intervals over lesions:\n"]
        lines += ["| model | AUROC | average precision |", "|---|---|---|"]
        for ending, words in {"": "image + metadata", "_image": "image alone", "_metadata": "metadata alone"}.items():
            answers = {name: table[f"{name}{ending}"] for name in ("probability", "risk")}
            found = evaluate_predictions(table.assign(**answers).drop(columns="fold"), 0.5)
            lines.append(f"| {words} | {interval_of(found['auroc'])} | {interval_of(found['average_precision'])} |")
    write_text(run.path / "README.md", "\n".join(lines) + "\n")


def interval_of(measure: dict) -> str:
    """A measure with its 95% interval, as text."""
    return f"{measure['value']:.3f} [{measure['low']:.3f}, {measure['high']:.3f}]"


def write_digests(folder: Path) -> None:
    """``SHA256SUMS`` of the files that others rely on."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name not in ("SHA256SUMS", "README.md")]
    write_text(folder / "SHA256SUMS", "".join(f"{sha256(file)}  {file.relative_to(folder)}\n" for file in files))


def main() -> None:
    """Read the command line and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="folder beside this file")
    parser.add_argument("run", type=Path, nargs="?", help="finished run; without it, the packed one stays")
    parser.add_argument("--command", required=True, help="that trained it")
    parser.add_argument("--commit", help="of the code that trained it; default: as the run says")
    parser.add_argument("--demonstration", default="", help="what a run that was trained to go wrong shows")
    parser.add_argument("--out-of-fold", nargs=3, type=Path, metavar=("FUSION", "IMAGE", "METADATA"))
    given = parser.parse_args()
    packed = HERE / given.name
    if given.run:
        run = Run(given.run)
        pack(run, given.name, given.commit or run.environment["commit"], given.demonstration)
    packed = Run(packed)
    table = None
    if given.out_of_fold:
        table = out_of_fold(*map(Run, given.out_of_fold))
        with replacing(packed.path / OUT_OF_FOLD) as temporary:
            table.to_csv(temporary, index=False, compression={"method": "gzip", "mtime": 0})
    licence = PUBLISHED if packed.settings.source == "ham10000" else PAINTED
    write_readme(packed, given.command, licence, table)
    write_digests(packed.path)


if __name__ == "__main__":
    main()
