"""router-ml: learns from your logs which model tier is the cheapest that answers well enough."""

__version__ = "0.1.0"
