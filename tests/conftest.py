"""Shared fixtures: where real data lies, if anywhere; a small synthetic source; a small finished run."""

import os
from pathlib import Path

import hypothesis
import pytest

from melanoma_lib.settings import ENV_PREFIX, TEST_ENV_PREFIX, Settings

SHARED = f"{TEST_ENV_PREFIX}DATA"

hypothesis.settings.register_profile("kit", deadline=None, max_examples=60)  # no clock: a slow machine is no failure
hypothesis.settings.load_profile("kit")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own variables and ``.env`` out of the tests."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX) and not name.startswith(TEST_ENV_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder that holds `ham10000/`, `isic2019/` and `isic2020/`; skips where MELANOMA_TEST_DATA names none."""
    root = os.environ.get(SHARED)
    if not root:
        pytest.skip(f"real data not available: set {SHARED} to the folder that holds ham10000/, isic2019/, isic2020/")
    path = Path(root)
    if not path.is_dir():
        pytest.fail(f"{SHARED}={root!r} is not a folder; unset it or point it at the real data")
    return path


@pytest.fixture(scope="session")
def ham10000_root(shared_data: Path) -> Path:
    """Real HAM10000 as a user unpacks it."""
    return shared_data / "ham10000"


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a training that takes seconds: a test-sized backbone on few small synthetic cases."""
    root = tmp_path_factory.mktemp("tiny")
    return Settings(
        source="synthetic", data_dir=root / "data", runs_dir=root / "runs", cache_dir=root / "cache",
        backbone="test_efficientnet", pretrained=False, image_size=32, n_patients=80, metadata_hidden=8,
        max_epochs=3, batch_size=16, learning_rate=3e-3, n_resamples=100, threads=1, progress=False,
        small_epochs=0,
        precision="32",  # bfloat16, where the processor has it, moves rankings of such small models
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tiny_settings: Settings):
    """A finished run of the tiny settings, in a folder where nothing else is trained."""
    from melanoma_lib.training import train

    return train(tiny_settings.with_changes(runs_dir=tiny_settings.runs_dir.with_name("tiny_run")))


@pytest.fixture(scope="session")
def lesson_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the tests of lessons keep data, runs and decoded images, so that each run is trained once."""
    root = tmp_path_factory.mktemp("lessons")
    return {"data_dir": root / "data", "runs_dir": root / "runs", "cache_dir": root / "cache"}
