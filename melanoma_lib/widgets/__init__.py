"""Explorers: pure functions from values to a state, shown live by a few lines of JavaScript in the page."""

from importlib import import_module

_HOMES = {
    "CaseExplorer": "cases",
    "HeadExplorer": "head",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import an explorer from its module on first use, so that one explorer never waits for what another needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
