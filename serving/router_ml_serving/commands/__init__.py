"""Commands of `router-ml` that belong to the service."""
