"""What users of other projects reported in public, tried on this kit; docs/faults.md tells what was seen."""

import asyncio
import os
import pickle
from functools import partial
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from melanoma_lib.app.files import gather
from melanoma_lib.app.server import create_app
from melanoma_lib.app.service import Service
from melanoma_lib.data import DermoscopyDataModule, load_cases
from melanoma_lib.data.images import open_cache
from melanoma_lib.errors import DataError
from melanoma_lib.training import train, trainer
from melanoma_lib.widgets import ThresholdExplorer
from tests.app.test_api import TABLE, WRITE
from tests.data.builders import write_isic2020


def saw(thread: str, seen: str) -> None:
    """Hold the last cell of the row that cites a thread to what was seen, or write it anew."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    (row,) = (number for number, line in enumerate(lines) if f"github.com/{thread})" in line)
    lines[row] = f"{lines[row].rsplit(' | ', 1)[0]} | {seen} |"
    if os.environ.get(WRITE):
        TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")
    assert lines[row] in TABLE.read_text(encoding="utf-8").splitlines(), f"{WRITE}=1 writes it anew"


def test_folders_and_tables_as_people_have_them(tmp_path):
    images = write_isic2020(tmp_path) / "jpeg" / "train"
    table, real = pd.read_csv(tmp_path / "train.csv"), {str(path) for path in images.iterdir()}
    for name in [".DS_Store", "Thumbs.db", *(f"._{Path(path).name}" for path in real)]:
        (images / name).write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    plain, asked = load_cases("isic2020", tmp_path, "drop"), gather([tmp_path])
    assert set(plain["image_path"]) == set(asked["image"].map(str)) == real
    saw("upscayl/upscayl/issues/1474", f"Passes them over: {len(plain)} images in the case table, {len(asked)} for `predict`.")

    table.assign(image_name=table["image_name"] + ".jpg").to_csv(tmp_path / "train.csv", index=False)
    cases = load_cases("isic2020", tmp_path, "drop")
    pd.testing.assert_frame_equal(cases, plain)
    saw("ImageMarkup/isic-challenge-scoring/pull/62", f"Finds the {len(cases)} images that it finds without the ending.")

    text = table.assign(age_approx=table["age_approx"] + 0.5).to_csv(index=False, sep=";", decimal=",")
    (tmp_path / "train.csv").write_text(f"sep=;\n{text}", encoding="utf-8-sig")
    cases = load_cases("isic2020", tmp_path, "keep")
    assert cases["age_approx"].tolist() == [age + 0.5 for age in table["age_approx"]]
    saw("timeseer-ai/kukur/issues/279", f"Reads all {len(cases)} rows, ages up to {cases['age_approx'].max()}.")


def test_file_names_of_other_systems(tmp_path):
    known = {"Läsion 1": 61.0, "_Muttermal (2)...__ Kopie": 62.5, "größer als 5 mm.neu": 63.0}
    for name in known:
        Image.new("RGB", (40, 40)).save(tmp_path / normalize("NFD", f"{name}.jpg"))
    pd.Series(known, name="age").rename_axis("image").to_csv(table := tmp_path / "ages.csv", sep=";")
    for cases in (gather([tmp_path, table]), gather([table])):
        names = [normalize("NFC", file.stem) for file in cases["image"] if file.is_file()]
        assert dict(zip(names, cases["age_approx"], strict=True)) == known
    saw("gradio-app/gradio/issues/7755", f"Finds {len(names)} of {len(known)} images and their ages.")


def test_loaders(tiny_settings, tmp_path):
    loader = DermoscopyDataModule(tiny_settings).train_dataloader()
    sent = pickle.dumps((loader.dataset, loader.collate_fn))  # what a worker gets that starts with nothing
    dataset, collate = pickle.loads(sent)
    assert 10 * len(sent) < loader.dataset.pixels.nbytes
    pairs = [(batch, collate(dataset.__getitems__(draw))) for draw, batch in zip(loader.batch_sampler, loader, strict=True)]
    same = sum(all(torch.equal(batch[name], other[name]) for name in batch) for batch, other in pairs)
    assert same == len(pairs) > 1
    saw("torchgeo/torchgeo/issues/886", f"Sends the data set without its pixels; {same} of {len(pairs)} batches are the same.")

    y, x = np.mgrid[:64, :64]
    colours = np.stack([200 - x, 140 - y // 2, 110 + 0 * x], axis=-1).astype(np.uint8)
    grey = np.rint(colours @ [0.299, 0.587, 0.114]).astype(np.uint16)
    image, clear = Image.fromarray(colours), Image.fromarray(np.dstack([colours, 255 * (y < 32)]).astype(np.uint8))
    kinds = {"l.png": image.convert("L"), "16.png": Image.fromarray(grey * 257), "c.jpg": image.convert("CMYK"), "a.png": clear}
    for name in kinds:
        kinds[name].save(tmp_path / name)
    pixels = open_cache([tmp_path / name for name in kinds], 64, tmp_path / "cache").astype(int)
    assert np.abs(pixels - np.stack([*[grey[..., None].repeat(3, 2)] * 2, colours, colours])).max() <= 3
    saw("pytorch/vision/issues/2218", f"Reads {len(pixels)} of {len(kinds)}, to within 3 of 255; transparency is left out.")


def test_trainings(tiny_settings, tmp_path, monkeypatch):
    settings = tiny_settings.with_changes(modalities="metadata", max_epochs=30, patience=1)
    unbroken, settings = train(settings.with_changes(runs_dir=tmp_path / "a")), settings.with_changes(runs_dir=tmp_path / "b")
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(trainer, "predict_logits", lambda *_: 1 / 0)
        train(settings)
    resumed = train(settings.with_changes(resume=True))
    pd.testing.assert_frame_equal(resumed.predictions("test"), unbroken.predictions("test"))
    further = len(resumed.history) - len(unbroken.history)
    assert further == 0 and len(unbroken.history) < 30
    saw("Lightning-AI/pytorch-lightning/issues/8278", f"Trains {further} further epochs and answers as the unbroken run.")

    cases = DermoscopyDataModule(tiny_settings).cases
    cases.loc[cases["split"] == "val", ["target", "diagnosis"]] = 0, "nevus"
    with pytest.raises(DataError, match="'val' needs melanomas") as refused:
        train(tiny_settings.with_changes(run_dir=tmp_path / "c"), cases)
    saw("Lightning-AI/torchmetrics/issues/205", f"Refuses before training: {str(refused.value).partition(';')[0]}.")


def test_hosts(tiny_run):
    app, image = create_app(Service(tiny_run)), Path(tiny_run.cases()["image_path"][0]).read_bytes()
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/api/images", "query_string": b"", "headers": []}

    def answer_to(body: bytes, whole: bool) -> tuple[int, str]:
        arriving, answers = [{"type": "http.request", "body": body, "more_body": not whole}], []
        listen = partial(asyncio.to_thread, lambda: arriving.pop() if arriving else {"type": "http.disconnect"})
        asyncio.run(app(scope, listen, partial(asyncio.to_thread, answers.append)))  # raises what would be logged
        return answers[0]["status"], answers[1]["body"].decode()

    status, said = answer_to(image[: len(image) // 2], whole=False)
    assert status == 422 and "broke off" in said and answer_to(image, whole=True)[0] == 200
    saw("gradio-app/gradio/issues/6393", f"No exception; {status} with `{said}` to whoever listens. The next one is answered.")

    targets, scores = np.arange(40) % 4 == 0, np.linspace(0, 1, 40).round(2)
    data, metadata = ThresholdExplorer(targets, scores)._repr_mimebundle_()
    said = f"Score histograms and ROC curve (AUROC {roc_auc_score(targets, scores):.3f})"
    assert data["image/png"].startswith(b"\x89PNG") and metadata["image/png"]["alt"].startswith(said)
    saw("jupyter-widgets/ipywidgets/issues/3773", f"The output also holds a picture and its description: “{said} …”.")
