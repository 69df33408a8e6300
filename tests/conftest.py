"""Shared fixtures: where real data lies, if anywhere; a small synthetic source; a small finished run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

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
    if not (root := os.environ.get(SHARED)):
        pytest.skip(f"real data not available: set {SHARED} to the folder that holds ham10000/, isic2019/, isic2020/")
    return Path(root).resolve(strict=True)


@pytest.fixture(scope="session")
def ham10000_root(shared_data: Path) -> Path:
    """Real HAM10000 as a user unpacks it."""
    return shared_data / "ham10000"


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all worker processes of this call of pytest share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def built_once(session_folder: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """``built_once(name, build)``: the folder that ``build(folder)`` filled, in whichever worker came first."""

    def folder_of(name: str, build: Callable[[Path], object]) -> Path:
        folder, done = session_folder / name, session_folder / f"{name}.done"
        with FileLock(session_folder / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a worker left that failed
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tiny_settings(session_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a training that takes seconds; workers share the cases, each trains among runs of its own."""
    shared = session_folder / "tiny"
    return Settings(
        source="synthetic", data_dir=shared / "data", runs_dir=tmp_path_factory.mktemp("tiny") / "runs",
        cache_dir=shared / "cache", backbone="test_efficientnet", pretrained=False, image_size=32, n_patients=80,
        metadata_hidden=8, max_epochs=3, batch_size=16, learning_rate=3e-3, n_resamples=100, threads=1, progress=False,
        small_epochs=0,
        precision="32",  # bfloat16, where the processor has it, moves rankings of such small models
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tiny_settings: Settings, built_once):
    """A finished run of the tiny settings, trained once for all workers; each has a copy where nothing else is trained."""
    from melanoma_lib.runs import Run
    from melanoma_lib.training import train

    trained = built_once("tiny_run", lambda folder: train(tiny_settings.with_changes(runs_dir=folder)))
    settings = tiny_settings.with_changes(runs_dir=tiny_settings.runs_dir.with_name("tiny_run"))
    shutil.copytree(trained / settings.run_path.name, settings.run_path)
    (settings.run_path / "settings.json").write_text(settings.to_json(), encoding="utf-8")
    return Run(settings.run_path)


@pytest.fixture
def own_run(tiny_run, tmp_path: Path):
    """A copy of the tiny run that a test may change."""
    return type(tiny_run)(shutil.copytree(tiny_run.path, tmp_path / "own_run"))


@pytest.fixture(scope="session")
def lesson_folders(session_folder: Path) -> dict[str, Path]:
    """Where the tests of lessons keep data, runs and decoded images, so that each run is trained once."""
    return {name: session_folder / "lessons" / name for name in ("data_dir", "runs_dir", "cache_dir")}


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a chromium."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    from tests.browser.lab import BROWSERS

    if found := next(filter(None, map(shutil.which, BROWSERS)), None):
        return found
    pytest.skip(f"no browser: install one of {', '.join(BROWSERS)} (on Debian: apt-get install chromium)")
