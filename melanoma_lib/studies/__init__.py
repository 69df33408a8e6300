"""Studies on real data: each is one command that leaves a table of figures, and no image, name or label of a single case."""
