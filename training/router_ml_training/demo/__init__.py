"""The whole cycle on one machine: a log, a model, a service, its traffic, a better model."""
