"""The travel study as one call: everything asked, one table of results."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from melanoma_lib.data.audit import find_duplicates
from melanoma_lib.data.sources import load_cases
from melanoma_lib.errors import StudyError
from melanoma_lib.runs import Run
from melanoma_lib.studies.results import ResultTable, interval_text
from melanoma_lib.studies.travel import external_rows, few_cases, gain_over, recalibrated, sample_facts, send, single_runs
from melanoma_lib.studies.travel_home import stress, tone_study, within_sources

ABROAD = "isic2020"
STRESSED, RESAMPLES, SEED = 150, 2000, 0  # as the command takes them unless told otherwise
NOTES = (
    "Each model's own calibration and stored threshold travel with it; at home it is asked about cases that it did not train on.",
    "Intervals resample patients abroad and lesions at home; they cover the choice of cases, not that of trainings.",
    "The pooled AUROC at home counts pairs across sources, which whoever recognises the source ranks for nothing; "
    "details.within_sources takes it apart.",
    "The cases abroad are those of few patients; see details.sample for how they compare with their collection's whole table. "
    "Predictive values and calibration hold at their prevalence alone.",
    "Fits on all cases abroad are tested on the same cases and flatter themselves; details.few_cases tests on patients left out.",
    "The skin-tone proxy measures the picture's colour: lamp, camera, white balance, film and tan as well as skin. It stands for "
    "no person's skin type; details.tone.checks says how far it can be repeated. HAM10000 holds hardly any dark skin, so its "
    "rows cannot tell how the models do there.",
    "An artefact is pasted on a photograph. A flip tells of fragility near the threshold, a shift of mean risk of a shortcut.",
    "Educational, not for diagnosis.",
)


def travel(
    runs: Sequence[Run],
    abroad: Path,
    home: Path | None = None,
    cache_dir: Path | None = None,
    metadata: Sequence[Run] = (),
    stressed: int = STRESSED,
    n: int = RESAMPLES,
    seed: int = SEED,
    show: Callable[[str], None] = lambda _: None,
) -> ResultTable:
    """Test runs on the ISIC 2020 images at hand, within their own collection by source and skin tone, and under artefacts.

    Args:
        runs: of one recipe, such as seeds of one split or one cross-validation, which stands for its folds.
        abroad: folder of ISIC 2020; images that are not there are left out.
        home: folder of the runs' own source; default: where they were trained from.
        cache_dir: for decoded images; default: that of the runs.
        metadata: runs of metadata alone, to be gained over.
        stressed: melanomas, and other cases, that artefacts are pasted on; 0 leaves that out.
        n: number of resamples.
        seed: of resampling and of all draws.
        show: is told what is being done.

    Raises:
        StudyError: if the runs are not of one recipe, were trained on the cases abroad, or see no picture.
        DataError: if cases cannot be read.
    """
    settings = single_runs(runs)[0].settings
    if settings.source == ABROAD or "image" not in settings.modalities:
        raise StudyError(f"expected runs with an image branch, trained elsewhere than on {ABROAD}; got {settings.source} runs")
    places = settings.with_changes(data_dir=home or settings.data_dir, cache_dir=cache_dir or settings.cache_dir)
    own = runs[0].cases(places)
    cases = load_cases(ABROAD, abroad, missing_images="drop")
    travellers = send(runs, cases, places.cache_dir, show)
    show("scores and recalibration")
    calibration, shift = recalibrated(travellers, (sample := sample_facts(abroad, cases))["table"]["prevalence"], n, seed)
    details = {"sample": sample, "calibration": calibration, "shift": shift, "few_cases": few_cases(travellers, seed=seed)}
    rows = external_rows(travellers, n, seed)
    if metadata:
        details["metadata_alone"] = gain_over(travellers, send(metadata, cases, places.cache_dir, show), n, seed)
    show("looking for pictures that both collections hold")
    details["pictures_in_both"] = pictures_in_both(own, cases)
    show("within sources")
    details["within_sources"] = within_sources(travellers, own, n, seed)
    show("skin tone")
    details["tone"] = tone_study(travellers, own, cases, n, seed)
    if stressed:
        details["stress"] = stress(travellers, own, stressed, n, seed, show)
    return ResultTable(
        name="travel",
        title=f"{settings.source} models asked about {len(cases):,} ISIC 2020 images of {cases['patient_id'].nunique()} patients",
        command=_command(runs, metadata, abroad, stressed, n, seed),
        rows=rows,
        notes=NOTES,
        details=details
        | {name: getattr(settings, name) for name in ("backbone", "image_size", "min_sensitivity")}
        | {"models": len(travellers)},
    )


def _command(runs: Sequence[Run], metadata: Sequence[Run], abroad: Path, stressed: int, n: int, seed: int) -> str:
    """The command line that makes the table; where things lie on this machine is nobody's business."""
    words = ["python -m melanoma_lib study travel", *(f"runs/{run.path.name}" for run in runs)]
    words += ["--metadata", *(f"runs/{run.path.name}" for run in metadata)] if metadata else []
    words += ["--data-dir-2020", "FOLDER"] if abroad.resolve() != (Path("data") / ABROAD).resolve() else []
    chosen = (("stressed", stressed, STRESSED), ("n-resamples", n, RESAMPLES), ("seed", seed, SEED))
    return " ".join([*words, *(f"--{name} {value}" for name, value, default in chosen if value != default)])


def pictures_in_both(home: pd.DataFrame, abroad: pd.DataFrame) -> int:
    """How many pairs of the same photograph, or nearly, lie across the two collections; a test is external only at 0."""
    pairs, _ = find_duplicates([*home["image_path"], *abroad["image_path"]])
    return int(((pairs["first"] < len(home)) & (pairs["second"] >= len(home))).sum())


def travel_report(table: ResultTable) -> str:
    """What a terminal shows of the table, in Markdown."""
    names = (
        "auroc_home",
        "auroc_abroad",
        "sensitivity_abroad",
        "specificity_abroad",
        "ppv_abroad",
        "observed_over_expected_abroad",
    )
    lines = [table.title, "", "| model | " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---|" * 7]
    lines += [f"| {row['model']} | " + " | ".join(interval_text(row.get(name)) for name in names) + " |" for row in table.rows]
    if alone := table.details.get("metadata_alone"):
        lines += [
            "",
            f"Metadata alone abroad: AUROC {interval_text(alone['auroc'])}; gain {interval_text(alone['gain'], 3, '+')}",
        ]
    lines += ["", "Risks of the average abroad:"]
    for row in table.details["calibration"]:
        ratio, slope = interval_text(row["observed_over_expected"], 2), interval_text(row["slope"], 2)
        rates = ", ".join(f"{name} {interval_text(row[name], 2)}" for name in ("sensitivity", "specificity"))
        lines.append(f"- {row['method']}: observed/expected {ratio}, slope {slope}, {rates}")
    if within := table.details["within_sources"]:
        parts = ", ".join(f"{name} {interval_text(within[name])}" for name in ("pooled", "within", "between", "source_alone"))
        lines += ["", f"At home: {parts}"]
        lines += [
            f"- {row['source']}: AUROC {interval_text(row['auroc'])}, {row['prevalence']:.1%} melanoma"
            for row in within["sources"]
        ]
    lines += ["", "By skin-tone proxy at home:"]
    for row in table.details["tone"]["performance"]["home"]:
        rates = ", ".join(f"{name} {interval_text(row[name], 2)}" for name in ("auroc", "sensitivity", "specificity"))
        lines.append(f"- {row['tone']}: {row['images']:,} images, {row['melanomas']} melanomas, {rates}")
    lines += ["", "With an artefact pasted on:"] if "stress" in table.details else []
    for row in table.details.get("stress", ()):
        if row["part"] == "all":
            change = interval_text(row["risk_change"], 3, "+")
            lines.append(f"- {row['artefact']}, {row['class']}: flips {interval_text(row['flips'], 2)}, change of risk {change}")
    return "\n".join([*lines, "", *table.notes])
