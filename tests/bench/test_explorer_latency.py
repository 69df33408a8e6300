from pathlib import Path

from tests.bench.explorer_latency import layer_cells


def test_the_kernel_finds_a_run_that_is_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(layer_cells(Path("runs/mine")))
    assert f"run = Run({str(tmp_path / 'runs' / 'mine')!r})" in code
    compile(code, "cells", "exec")
