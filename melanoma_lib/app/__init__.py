"""The page: one lesion in, risk, decision and heatmap out; served on this machine, nothing of an upload kept.

Names are loaded on first use: the service needs no Gradio.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "files": ("answer_files", "gather"),
        "uploads": ("open_upload",),
        "unlike": ("Reference",),
        "service": ("Patient", "Service"),
        "server": ("create_app", "serve"),
    },
)
