"""Logs as parts that are cached on disk: what has been read and featurised once is not read again."""

from router_ml_training.corpus.gathering import Corpus
from router_ml_training.corpus.reading import read_corpus

__all__ = ["Corpus", "read_corpus"]
