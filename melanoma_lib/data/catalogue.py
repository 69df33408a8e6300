"""What can be fetched: whose it is, under which licence, whom to cite, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass

DATAVERSE = "https://dataverse.harvard.edu"
CHALLENGE = "https://isic-challenge-data.s3.amazonaws.com"
ARCHIVE = "https://api.isic-archive.com/api/v2"

CC_BY_NC = "CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/): name the source, no commercial use"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    Attributes:
        name: what it is called on disk.
        url: where it lies.
        folder: for a zip: the folder its content ends up in, below the root; None for a file that stays as it is.
        md5: checksum the service publishes; None where it publishes none.
    """

    name: str
    url: str
    folder: str | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Offer:
    """One data set as its publisher offers it.

    Attributes:
        title: name and extent.
        page: where a person finds it in a browser.
        licence: licence and what it asks for.
        cite: works to cite.
        manual: what to do by hand where there is no network.
    """

    title: str
    page: str
    licence: str
    cite: tuple[str, ...]
    manual: str

    def __str__(self) -> str:
        cite = "\n".join(f"  {work}" for work in self.cite)
        return f"{self.title}\nPage: {self.page}\nLicence: {self.licence}\nPlease cite:\n{cite}"


_HAM = (
    "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source dermatoscopic images of "
    "common pigmented skin lesions. Sci Data 5:180161 (2018). doi:10.1038/sdata.2018.161"
)
_HAM_MASKS = (
    "For the masks: Tschandl P, Rinner C, Apalla Z et al. Human-computer collaboration for skin cancer recognition. "
    "Nat Med 26:1229-1234 (2020). doi:10.1038/s41591-020-0942-0"
)
_MSK = (
    "Codella NCF, Gutman D, Celebi ME et al. Skin lesion analysis toward melanoma detection: a challenge at the 2017 ISBI. "
    "arXiv:1710.05006 (2017)"
)
_BCN = "Combalia M, Codella NCF, Rotemberg V et al. BCN20000: dermoscopic lesions in the wild. arXiv:1908.02288 (2019)"
_ISIC_2020 = (
    "Rotemberg V, Kurtansky N, Betz-Stablein B et al. A patient-centric dataset of images and metadata for identifying "
    "melanomas using clinical context. Sci Data 8:34 (2021). doi:10.1038/s41597-021-00815-z"
)

HAM10000_DOI = "doi:10.7910/DVN/DBW86T"
HAM10000_FILES = {  # name on the Dataverse, without the ending it gives to tables -> folder
    "HAM10000_metadata": None,
    "HAM10000_images_part_1.zip": "HAM10000_images_part_1",
    "HAM10000_images_part_2.zip": "HAM10000_images_part_2",
    "HAM10000_segmentations_lesion_tschandl.zip": "HAM10000_segmentations_lesion_tschandl",
}
CHALLENGE_FILES = {
    "isic2019": (
        ("2019/ISIC_2019_Training_Metadata.csv", None),
        ("2019/ISIC_2019_Training_GroundTruth.csv", None),
        ("2019/ISIC_2019_Training_Input.zip", "ISIC_2019_Training_Input"),
    ),
    "isic2020": (
        ("2020/ISIC_2020_Training_GroundTruth_v2.csv", None),
        ("2020/ISIC_2020_Training_JPEG.zip", "jpeg"),
    ),
}

OFFERS = {
    "ham10000": Offer(
        "HAM10000: 10,015 images of 7,470 lesions, with lesion masks",
        f"{DATAVERSE}/dataset.xhtml?persistentId={HAM10000_DOI}",
        CC_BY_NC,
        (_HAM, _HAM_MASKS),
        "open the page, accept the terms, take HAM10000_metadata, HAM10000_images_part_1.zip, HAM10000_images_part_2.zip "
        "and, for the masks, HAM10000_segmentations_lesion_tschandl.zip; unpack each zip into a folder of its own name",
    ),
    "isic2019": Offer(
        "ISIC 2019 challenge, training part: 25,331 images",
        "https://challenge.isic-archive.com/data/#2019",
        CC_BY_NC,
        (_HAM, _MSK, _BCN),
        "open the page, take ISIC_2019_Training_Metadata.csv, ISIC_2019_Training_GroundTruth.csv and "
        "ISIC_2019_Training_Input.zip; unpack the zip into ISIC_2019_Training_Input/",
    ),
    "isic2020": Offer(
        "SIIM-ISIC 2020 challenge, training part: 33,126 images of 2,056 patients",
        "https://challenge.isic-archive.com/data/#2020",
        CC_BY_NC,
        (_ISIC_2020, "The data set itself: doi:10.34970/2020-ds01"),
        "open the page, take ISIC_2020_Training_GroundTruth_v2.csv and the JPEG training images; unpack the zip into jpeg/, "
        "so that there is jpeg/train/",
    ),
    "isic_archive": Offer(
        "A collection of the ISIC Archive, fetched with the archive's own isic-cli",
        "https://www.isic-archive.com/",
        "differs by image (CC-0, CC BY or CC BY-NC): see copyright_license in metadata.csv and the folder licenses/",
        ("The contributors listed in attribution.txt, and the work named on the collection's page",),
        "open the page, choose a collection, download it as a zip and unpack it, so that metadata.csv lies beside the images",
    ),
}
DEFAULT_COLLECTION = "BCN20000"
