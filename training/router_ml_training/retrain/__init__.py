"""Retraining in steps that can be interrupted: what is done is kept, and a rerun does only what changed."""
