"""The words and bounds of the metadata, and how each source names sites, sexes and diagnoses.

Every table maps a name in lower case to the kit's word (None: not recorded) or, for diagnoses, to the target: 1 melanoma,
0 not, None undecided. A name in none of the tables is an error, never a guess. No import: an exported model reads these
words without pandas.
"""

SITES = ("head/neck", "upper extremity", "lower extremity", "torso", "palms/soles", "oral/genital")
SEXES = ("female", "male")
MAX_AGE = 120.0  # years


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.replace("\n", " ").split(",")]


def _inverted(names: dict[str, str]) -> dict[str, str]:
    """Each publisher's name -> the kit's, from the kit's name -> the publisher's names."""
    return {name: ours for ours, theirs in names.items() for name in _listed(theirs)}


# Spellings of an empty cell, in every source and column of ids, ages, sexes and sites.
MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown"})

SEX_NAMES = {"female": "female", "male": "male"}

# The ISIC archive maps hand and foot to the extremity and acral to palms/soles when it republishes HAM10000 in the 2019
# challenge; the same choice is made here. It leaves trunk and genital empty there, where the words themselves are clear.
HAM10000_SITES = _inverted(
    {
        "head/neck": "ear, face, neck, scalp",
        "lower extremity": "foot, lower extremity",
        "oral/genital": "genital",
        "palms/soles": "acral",
        "torso": "abdomen, back, chest, trunk",
        "upper extremity": "hand, upper extremity",
    }
)
HAM10000_DIAGNOSES = {
    "akiec": 0,  # actinic keratosis, intraepithelial carcinoma
    "bcc": 0,  # basal cell carcinoma: malignant, but not melanoma
    "bkl": 0,  # benign keratosis
    "df": 0,  # dermatofibroma
    "mel": 1,
    "nv": 0,  # melanocytic naevus
    "vasc": 0,  # vascular lesion
}

ISIC_SITES = {site: site for site in SITES} | _inverted({"torso": "anterior torso, lateral torso, posterior torso"})
ISIC_2019_DIAGNOSES = {"mel": 1, "nv": 0, "bcc": 0, "ak": 0, "bkl": 0, "df": 0, "vasc": 0, "scc": 0, "unk": 0}

# "unknown" is a benign lesion whose exact name nobody recorded: every such row has benign_malignant "benign".
ISIC_2020_DIAGNOSES = {"melanoma": 1} | dict.fromkeys(
    _listed(
        "atypical melanocytic proliferation, cafe-au-lait macule, lentigo nos, lichenoid keratosis, nevus, "
        "seborrheic keratosis, solar lentigo, unknown"
    ),
    0,
)

# The archive's present site hierarchy (anatom_site_1 … 5): the deepest level named here decides.
ISIC_ARCHIVE_SITE_LEVELS = _inverted(
    {
        "head/neck": "head and neck",
        "lower extremity": "lower extremity",
        "oral/genital": "anogenital region, mouth",
        "palms/soles": "palm of hand, sole of foot",
        "torso": "trunk",
        "upper extremity": "upper extremity",
    }
)

# The archive's diagnosis hierarchy: (diagnosis_1, diagnosis_2) -> target; diagnosis_2 "" where the archive stops at level 1.
# Undecided (None) is what no one can call melanoma or not: melanocytic lesions of uncertain potential, collisions with
# some malignant part, and "Malignant" with nothing further. Actinic keratosis is indeterminate but epidermal: not melanoma.
_ADNEXAL = "apocrine or eccrine, follicular, sebaceous"
_SOFT_TISSUE = """
    adipocytic, cartilagenous and ossifying, fibro-histiocytic, muscle tissue or myofibroblastic, myoepithelial, neural,
    vascular"""
_OTHER_MALIGNANT = [
    *(f"malignant adnexal epithelial proliferations - {kind}" for kind in _listed(_ADNEXAL)),
    *(f"malignant soft tissue proliferations - {kind}" for kind in _listed(f"{_SOFT_TISSUE}, unknown or other histiogenesis")),
    *(f"lymphocytic proliferations - {kind}" for kind in ("b-cell", "t-cell/nk")),
    "malignant epidermal proliferations",
    "merkel cell proliferation",
    "skin metastasis of internal solid cancer - non-hematological",
]
_BENIGN = [
    *(f"benign adnexal epithelial proliferations - {kind}" for kind in _listed(_ADNEXAL)),
    *(f"benign soft tissue proliferations - {kind}" for kind in _listed(_SOFT_TISSUE)),
    *_listed(
        """
        benign - other, benign epidermal proliferations, benign melanocytic proliferations,
        collision - only benign proliferations, cysts, exogenous, flat melanotic pigmentations - not melanocytic nevus,
        hemorrhagic lesions, inflammatory or infectious diseases, langerhans cell proliferations, mast cell proliferations
        """
    ),
]
ISIC_ARCHIVE_DIAGNOSES: dict[str, int | None] = (
    {f"benign:{name}": 0 for name in ("", *_BENIGN)}
    | {f"malignant:{name}": 0 for name in _OTHER_MALIGNANT}
    | {
        "malignant:malignant melanocytic proliferations (melanoma)": 1,  # in situ, invasive and metastasis alike
        "malignant:collision - at least one malignant proliferation": None,
        "malignant:": None,
        "indeterminate:": None,
        "indeterminate:indeterminate epidermal proliferations": 0,
        "indeterminate:indeterminate melanocytic proliferations": None,
    }
)

# Exports made before the hierarchy have one `diagnosis` word instead; "" and "other" leave it to benign_malignant.
ISIC_ARCHIVE_LEGACY_DIAGNOSES: dict[str, int | None] = dict.fromkeys(
    _listed(
        """
        acrochordon, actinic keratosis, adnexal tumor, angiofibroma or fibrous papule, angiokeratoma, angioma,
        basal cell carcinoma, cafe-au-lait macule, clear cell acanthoma, dermatofibroma, ephelis, epidermal nevus,
        lentigo nos, lentigo simplex, lichenoid keratosis, merkel cell carcinoma, mucosal melanosis, neurofibroma,
        nevus, nevus spilus, pigmented benign keratosis, pyogenic granuloma, scar, sebaceous adenoma,
        sebaceous hyperplasia, seborrheic keratosis, solar lentigo, squamous cell carcinoma, vascular lesion,
        verruca
        """
    ),
    0,
) | {
    "melanoma": 1,
    "melanoma metastasis": 1,
    "aimp": None,
    "atypical melanocytic proliferation": None,
    "atypical spitz tumor": None,
}
# What benign_malignant alone settles. Malignant without a name may or may not be melanoma.
ISIC_ARCHIVE_BENIGN_MALIGNANT: dict[str, int | None] = {"benign": 0} | dict.fromkeys(
    ("malignant", "indeterminate", "indeterminate/benign", "indeterminate/malignant", "")
)
