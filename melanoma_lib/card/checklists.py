"""Which items of CLAIM 2024 and TRIPOD+AI a run answers, and which only a human can.

Topics are named in our own words, under the numbers of the checklists: Tejani et al. 2024, "Checklist for Artificial Intelligence
in Medical Imaging (CLAIM): 2024 update", and Collins et al. 2024, "TRIPOD+AI statement". Read the originals before you report.
"""

from dataclasses import dataclass

from melanoma_lib.card import sections

HUMAN = "to be written by you"


@dataclass(frozen=True)
class Checklist:
    """A reporting guideline.

    Attributes:
        title: with year.
        items: number -> (topic, what answers it): names of this card's sections, plus, after "+", what a human adds; or HUMAN.
    """

    title: str
    items: dict[str, tuple[str, str]]


CLAIM = Checklist(
    "CLAIM 2024",
    {
        "1": ("the title names the kind of AI", HUMAN),
        "2": ("structured abstract", HUMAN),
        "3": ("background and intended role", "Intended use + the clinical background"),
        "4": ("aims and hypotheses", HUMAN),
        "5": ("prospective or retrospective", HUMAN),
        "6": ("goal of the study", HUMAN),
        "7": ("data sources", "Data and split"),
        "8": ("who was included and excluded", "Data and split + the collection's own criteria"),
        "9": ("preprocessing", "Environment"),
        "10": ("selection of parts of the data", "Data and split + why these"),
        "11": ("de-identification", HUMAN),
        "12": ("missing data", "Environment + why they are missing"),
        "13": ("how images were taken", HUMAN),
        "14": ("reference standard", "Data and split + its definition"),
        "15": ("why this reference standard", HUMAN),
        "16": ("who annotated", HUMAN),
        "17": ("annotation of the test set", HUMAN),
        "18": ("agreement between and within raters", HUMAN),
        "19": ("how cases were assigned to partitions", "Data and split"),
        "20": ("at which level partitions are disjoint", "Data and split"),
        "21": ("sample size", "Data and split + how large it had to be"),
        "22": ("the model in detail", "Model, Environment"),
        "23": ("software and versions", "Environment"),
        "24": ("initial weights", "Model"),
        "25": ("training", "Model, Environment"),
        "26": ("choice of the final model", "Environment"),
        "27": ("ensembles", "Model"),
        "28": ("metrics", "Performance, Calibration"),
        "29": ("uncertainty", "Performance, Subgroups, Calibration"),
        "30": ("robustness", "Subgroups + further stress tests"),
        "31": ("explainability", "Heatmaps"),
        "32": ("internal testing", "Performance"),
        "33": ("external testing", HUMAN),
        "34": ("registration", HUMAN),
        "35": ("flow of cases", "Data and split + who was left out before the collection was made"),
        "36": ("characteristics by partition", "Data and split, Subgroups + those of training and validation"),
        "37": ("performance with uncertainty", "Performance, Subgroups, Calibration"),
        "38": ("diagnostic estimates and their precision", "Performance, Operating point"),
        "39": ("analysis of errors", HUMAN),
        "40": ("limitations", "Limits + those of your study"),
        "41": ("implications for practice", HUMAN),
        "42": ("protocol and further details", "Environment + the protocol"),
        "43": ("availability of software, model and data", HUMAN),
        "44": ("funding", HUMAN),
    },
)
TRIPOD_AI = Checklist(
    "TRIPOD+AI 2024",
    {
        "1": ("title", HUMAN),
        "2": ("abstract", HUMAN),
        "3": ("context, population, known inequalities", "Intended use + the rest"),
        "4": ("objectives", HUMAN),
        "5": ("sources and dates of data", "Data and split + dates and representativeness"),
        "6": ("setting, eligibility, treatments", HUMAN),
        "7": ("preparation of data", "Environment"),
        "8": ("outcome and who judged it", "Data and split + how it was judged"),
        "9": ("predictors", "Model, Environment"),
        "10": ("sample size", "Data and split + its justification"),
        "11": ("missing data", "Environment + why they are missing"),
        "12": ("analysis, performance measures, updating", "Model, Performance, Calibration, Environment"),
        "13": ("class imbalance", "Model, Calibration, Environment"),
        "14": ("fairness", "Subgroups + what was done about it"),
        "15": ("what the output is, thresholds", "Model, Operating point"),
        "16": ("differences between development and evaluation data", "Data and split, Limits"),
        "17": ("ethics approval", HUMAN),
        "18": ("funding, interests, protocol, registration, data and code", HUMAN),
        "19": ("involvement of patients and public", HUMAN),
        "20": ("flow and characteristics of participants", "Data and split, Subgroups + the rest"),
        "21": ("numbers in each analysis", "Data and split, Performance"),
        "22": ("the full model", "Model"),
        "23": ("performance, also in subgroups", "Performance, Subgroups, Calibration"),
        "24": ("results of updating", "Calibration"),
        "25": ("interpretation, fairness included", HUMAN),
        "26": ("limitations", "Limits + those of your study"),
        "27": ("usability: poor input, expertise, next steps", HUMAN),
    },
)


def checklist(guideline: Checklist, has_league: bool) -> str:
    """The guideline as a table: what the card answers, and what is left to a human.

    Args:
        guideline: one of the two.
        has_league: whether the run's heatmaps were graded; else the card cannot answer for them.
    """
    rows, answered, partly = [], 0, 0
    for item, (topic, source) in guideline.items.items():
        by_card, _, by_human = source.partition(" + ")
        if source == HUMAN or (by_card == "Heatmaps" and not has_league):
            rows.append((item, topic, "", HUMAN))
            continue
        unknown = set(by_card.split(", ")) - set(sections.SECTIONS)
        if unknown:
            raise ValueError(f"{guideline.title} {item}: the card has no section {', '.join(sorted(unknown))}")
        answered, partly = answered + (not by_human), partly + bool(by_human)
        rows.append((item, topic, by_card, by_human))
    left = len(rows) - answered - partly
    return (
        f"### {guideline.title}\n\nOf {len(rows)} items this card answers {answered}, {partly} in part; {left} only a human can "
        f"answer.\n\n{sections.table(('item', 'topic', 'answered in', 'left to you'), rows)}"
    )
