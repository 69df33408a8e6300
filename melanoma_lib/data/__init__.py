"""From files to tensors: sources, case table, splits, encoder, pixels, loaders."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "sources": ["load_cases"],
        "splits": ["split_cases", "audit_leakage"],
        "audit": ["audit_cases"],
        "schema": ["validate_cases"],
        "metadata": ["MetadataEncoder"],
        "datamodule": ["DermoscopyDataModule"],
        "synthetic": ["SyntheticDermoscopy"],
        "download": ["fetch"],
    },
)
