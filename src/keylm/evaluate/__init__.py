"""What a model has learned: scores, baselines, results and the report."""
