"""What the notebooks in ``notebooks/studies`` do not hold: result tables and their views, external validation, artefacts."""
