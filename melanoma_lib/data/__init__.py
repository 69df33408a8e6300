"""From files to tensors: sources, case table, splits, encoder, pixels, loaders."""

from importlib import import_module

_HOMES = {
    "load_cases": "sources",
    "split_cases": "splits",
    "audit_leakage": "splits",
    "audit_cases": "audit",
    "validate_cases": "schema",
    "MetadataEncoder": "metadata",
    "DermoscopyDataModule": "datamodule",
    "SyntheticDermoscopy": "synthetic",
    "fetch": "download",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a name from its module on first use, so that ``melanoma_lib.data`` itself loads at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
