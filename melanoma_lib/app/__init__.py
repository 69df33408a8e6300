"""The page: one lesion in, risk, decision and heatmap out; served on this machine, nothing of an upload kept."""
