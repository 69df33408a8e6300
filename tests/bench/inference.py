"""Inference: a run's model by PyTorch against its ONNX file by ONNX Runtime, from prepared pixels to logits.

    python -m tests.bench.inference --run-dir runs/mine --threads 1

Without a run, one is trained for an epoch on few synthetic cases: the speed is the same.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch

from melanoma_lib.data import DermoscopyDataModule
from melanoma_lib.export import export_run
from melanoma_lib.runs import Run
from melanoma_lib.training import train
from tests.bench.turns import options, small_settings, take_turns


def main(words: list[str] | None = None) -> list[pd.DataFrame]:
    given = options(__doc__, words, run_dir="", backbone="tf_efficientnet_lite0", image_size=128, rounds=15, threads=1)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        size = {"backbone": given.backbone, "image_size": given.image_size, "threads": given.threads}
        run = Run(given.run_dir) if given.run_dir else train(small_settings(folder, n_patients=40, max_epochs=1, **size))
        model = run.model().to(memory_format=torch.channels_last)
        batch = next(iter(DermoscopyDataModule(run.settings, run.cases()).test_dataloader()))
        limits = onnxruntime.SessionOptions()
        limits.intra_op_num_threads = given.threads
        session = onnxruntime.InferenceSession(str(export_run(run, "onnx", Path(folder) / "model.onnx")), limits)
    names, found = [one.name for one in session.get_inputs()], []
    for n in (1, len(batch["image"])):
        image, *metadata = tensors = [batch[name][:n].contiguous() for name in names]
        arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

        @torch.inference_mode()
        def by_torch(image=image, metadata=metadata) -> np.ndarray:
            return model(image.contiguous(memory_format=torch.channels_last), *metadata).numpy()

        def by_onnx(arrays=arrays) -> np.ndarray:
            return session.run(None, arrays)[0]

        np.testing.assert_allclose(by_onnx().ravel(), by_torch(), atol=1e-4)
        what = f"inference, batch {n}, {run.settings.backbone} at {run.settings.image_size} px, {given.threads} thread(s)"
        found.append(take_turns(what, {"PyTorch": by_torch, "ONNX Runtime": by_onnx}, given.rounds))
    return found


if __name__ == "__main__":
    main()
