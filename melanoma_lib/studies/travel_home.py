"""What travels badly can often be seen at home: by camera, by colour of the skin, and with an artefact put on the picture."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from melanoma_lib.data.artefacts import ARTEFACTS
from melanoma_lib.evaluation.paired import bootstrap_mean_auroc, stratified_auroc
from melanoma_lib.evaluation.subgroups import MIN_GROUPS, subgroup_intervals, too_few_groups
from melanoma_lib.studies.artefact_effect import ALL, OFF, ArtefactEffect, artefact_effect
from melanoma_lib.studies.skin_tone import LIGHTS, TONES, light_changes, measure_tones, repeatability, tone_by_source, tone_of
from melanoma_lib.studies.sources_out import sure_ends
from melanoma_lib.studies.travel import Traveller, columns_of

NO_TONE = "no colour of skin"  # what is said of a picture whose skin has a cast instead
LIT_CASES = 1000  # on which other lights are tried
CLASSES = {"melanoma": 1, "other": 0}


def within_sources(travellers: Sequence[Traveller], cases: pd.DataFrame, n: int = 2000, seed: int = 0) -> dict:
    """AUROC within each acquisition source beside the pooled one; means over the models' own test cases.

    Args:
        travellers: whose ``home`` tables are scored.
        cases: of the home collection, with ``acquisition``.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        ``pooled``, ``within``, ``between``, ``excess``, ``share_between`` as in ``StratifiedAuroc``; ``source_alone``: AUROC of
        a score that knows nothing but the source's share of melanomas in training; ``sources``: a row each. Where a class has
        fewer than ``MIN_GROUPS`` groups, ends are None and ``note`` says so. Empty where the table does not name two sources or
        more.
    """
    if cases["acquisition"].isna().any() or cases["acquisition"].nunique() < 2:
        return {}
    source_of = cases.set_index("image_id")["acquisition"]
    homes = [one.home.assign(source=one.home["image_id"].map(source_of)) for one in travellers]
    parts = stratified_auroc([(*columns_of(home), home["source"]) for home in homes], n, seed)
    whole = pd.concat(homes)
    note = too_few_groups(whole["target"], whole["group_id"])
    found = {name: sure_ends(getattr(parts, name), note).to_dict() for name in ("pooled", "within", "between", "excess")}
    alone = [_knowing_the_source(one, home, source_of) for one, home in zip(travellers, homes, strict=True)]
    source_alone = sure_ends(bootstrap_mean_auroc(alone, n=n, seed=seed), note)
    found |= {"share_between": parts.share_between, "source_alone": source_alone.to_dict(), "note": note}
    rows = []
    for source, own in cases.groupby("acquisition"):
        row = {"source": source, "images": len(own), "melanomas": int(own["target"].sum()), "prevalence": own["target"].mean()}
        tested = [home[home["source"] == source] for home in homes]
        samples = [columns_of(table) for table in tested if table["target"].nunique() == 2]
        row |= {"models": len(samples), "auroc": None}
        asked = pd.concat(tested)
        if samples:
            few = too_few_groups(asked["target"], asked["group_id"])
            row["auroc"] = sure_ends(bootstrap_mean_auroc(samples, n=n, seed=seed), few).to_dict()
        rows.append(row | _rates(asked, n, seed))
    return found | {"sources": rows}


def _knowing_the_source(one: Traveller, home: pd.DataFrame, source_of: pd.Series) -> tuple:
    splits = one.run.splits
    training = splits[splits["split"] == "train"]
    share = training.groupby(training["image_id"].map(source_of))["target"].mean()
    targets, _, groups = columns_of(home)
    return targets, home["source"].map(share).fillna(0.0).to_numpy(), groups


def _rates(table: pd.DataFrame, n: int, seed: int) -> dict:
    """Sensitivity and specificity of each model's own decisions, over all its cases."""
    intervals, note = subgroup_intervals(table, 0.0, "margin", n, seed, 0.95)
    return {name: intervals[name].to_dict() for name in ("sensitivity", "specificity")} | {"note": note}


def by_tone(tables: Sequence[pd.DataFrame], tones: pd.Series, n: int = 2000, seed: int = 0) -> list[dict]:
    """AUROC, sensitivity and specificity by tone group, all models' cases together, each decided by its own model.

    Args:
        tables: of each model: ``image_id``, ``group_id``, ``target``, ``margin``.
        tones: name of the tone group by image id; missing where there is none.
        n: number of resamples.
        seed: of the resampling.

    Returns:
        One row a group that has cases, from very light to dark, then those without; ``images`` counts each once.
    """
    pooled = pd.concat(tables, ignore_index=True)
    named = pooled["image_id"].map(tones).astype(object)
    named = named.where(named.notna(), NO_TONE)
    rows = []
    for tone in (*TONES, NO_TONE):
        part = pooled[(named == tone).to_numpy()]
        if len(part):
            intervals, note = subgroup_intervals(part, 0.0, "margin", n, seed, 0.95)
            once = part.drop_duplicates("image_id")
            counts = {"images": len(once), "groups": once["group_id"].nunique(), "melanomas": int(once["target"].sum())}
            rows.append({"tone": tone} | counts | {name: one.to_dict() for name, one in intervals.items()} | {"note": note})
    return rows


def tone_study(
    travellers: Sequence[Traveller], home: pd.DataFrame, abroad: pd.DataFrame, n: int, seed: int, progress: bool = False
) -> dict:
    """The proxy, its weaknesses measured, and what it says of the models.

    Args:
        travellers: with predictions at home and abroad.
        home: case table of the home collection.
        abroad: case table of the other one.
        n: number of resamples.
        seed: of resampling, and of the choice of cases that are put under other lights.
        progress: draw bars.
    """
    measured = {"home": measure_tones(home, show_progress=progress), "abroad": measure_tones(abroad, show_progress=progress)}
    lit = home.sample(min(LIT_CASES, len(home)), random_state=seed)
    ita, frame = measured["home"]["ita"], measured["home"]["frame"]
    outlined = home["mask_path"].notna() & ita.notna() & frame.notna()
    both = tone_of(ita[outlined]).astype(str) == tone_of(frame[outlined]).astype(str)
    sources, between = ([], None) if home["acquisition"].isna().all() else tone_by_source(ita, home["acquisition"])
    tables = {"home": [one.home for one in travellers], "abroad": [one.abroad for one in travellers]}
    performance = {}
    for place, cases in (("home", home), ("abroad", abroad)):
        names = pd.Series(tone_of(measured[place]["ita"]).to_numpy(), index=cases["image_id"].to_numpy())
        performance[place] = by_tone(tables[place], names, n, seed)
    return {
        "performance": performance,
        "checks": {
            "no_tone_home": float(ita.isna().mean()),
            "no_tone_abroad": float(measured["abroad"]["ita"].isna().mean()),
            "same_lesion": repeatability(ita, home["lesion_id"]),
            "sources": sources,
            "between_sources": between,
            "lights": light_changes(measure_tones(lit, LIGHTS, progress)),
            "frame_agrees": float(both.mean()) if len(both) else None,
            "frame_correlation": float(np.corrcoef(ita[outlined], frame[outlined])[0, 1]) if len(both) > 1 else None,
        },
    }


def stress(
    travellers: Sequence[Traveller],
    cases: pd.DataFrame,
    per_class: int = 150,
    n: int = 2000,
    seed: int = 0,
    show: Callable[[str], None] = lambda _: None,
) -> list[dict]:
    """The same real picture without and with an artefact: how often does a decision flip, which way do the risks go?

    Args:
        travellers: each is asked about test cases of its own.
        cases: case table of the home collection.
        per_class: melanomas asked about, and other cases, over all models.
        n: number of resamples.
        seed: of the choice of cases and the resampling.
        show: is told what is being done.

    Returns:
        One row an artefact, class and part of the cases (all, or those whose lesion the artefact does not touch); see
        ``ArtefactEffect.intervals``.
    """
    chosen = [_chosen(one, cases, per_class / len(travellers), seed) for one in travellers]
    models = [one.run.model() for one in travellers]
    rows = []
    for artefact in ARTEFACTS:
        show(f"putting {artefact} on {sum(map(len, chosen))} pictures")
        asked = zip(travellers, chosen, models, strict=True)
        effects = [artefact_effect(one.run, own, artefact, model=model) for one, own, model in asked]
        table = pd.concat([effect.table for effect in effects], ignore_index=True)
        for name, target in CLASSES.items():
            effect = ArtefactEffect(artefact, np.nan, np.nan, table[table["target"] == target])
            facts = {"artefact": artefact, "class": name}
            rows += [facts | {"part": part} | _stress_row(effect, part, n, seed) for part in (ALL, OFF)]
    return rows


def _chosen(one: Traveller, cases: pd.DataFrame, per_class: float, seed: int) -> pd.DataFrame:
    """Test cases of one model: so many of each class, or all there are, each of another group."""
    rng = np.random.default_rng(seed)
    own = cases.set_index("image_id", drop=False).loc[one.home["image_id"]].reset_index(drop=True)
    own = own.iloc[rng.permutation(len(own))].drop_duplicates("group_id")
    count = max(1, round(per_class))
    return pd.concat([own[own["target"] == target].head(count) for target in CLASSES.values()]).reset_index(drop=True)


def _stress_row(effect: ArtefactEffect, part: str, n: int, seed: int) -> dict:
    rows = effect.rows(part)
    found = effect.intervals(part, n, seed)
    names = {"risk": "risk_change", "abs_risk": "risk_change_size", "flips": "flips", "raised": "raised", "lowered": "lowered"}
    facts = {"images": len(rows), "area": float(rows["area"].mean()) if len(rows) else None}
    facts["few"] = rows["group_id"].nunique() < MIN_GROUPS
    return facts | {name: found[key].to_dict() for key, name in names.items()}
