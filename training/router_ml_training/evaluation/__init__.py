"""Judging models: curves, metrics with intervals, comparison, figures, report."""
