"""What runs are worth: one run's report, runs beside each other, a run on another collection, what training cost."""

from melanoma_lib.utils import lazy_names

__all__, __getattr__ = lazy_names(
    __name__,
    {
        "evaluate": (
            "ISIC_2024", "Report", "bayes_ceiling", "cost_table", "evaluate_run", "log_run", "predict_with_views", "test_figures",
            "wandb_logger", "write_report",
        ),
        "compare": (
            "compare_runs", "compare_seeds", "comparison_text", "differ_in_seeds", "evaluate_external", "predict_cases",
            "save_table", "seen_cases", "with_intervals",
        ),
    },
)  # fmt: skip
