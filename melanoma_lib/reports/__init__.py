"""What finished runs say: a report on one, several compared, another collection, and what Weights & Biases gets.

Names are loaded on first use, so that importing the package costs nothing.
"""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "report": (
            "Report", "bayes_ceiling", "evaluate_run", "log_run", "predict_with_views", "report_figures", "wandb_logger",
            "write_report",
        ),
        "comparison": (
            "ISIC_2024", "compare_runs", "compare_seeds", "comparison_text", "cost_table", "differ_in_seeds", "save_table",
            "with_intervals",
        ),
        "external": ("evaluate_external", "predict_cases", "seen_cases"),
    },
)  # fmt: skip
