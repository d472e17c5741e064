"""The online side: a FastAPI service that decides, proxies, judges, escalates and records."""
