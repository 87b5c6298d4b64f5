"""Evaluation: bits per byte, instruction following, typo robustness, lm_eval tasks, the results and the report."""
