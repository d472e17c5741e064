"""The commands of `router-ml` that need the training extra; one module each."""
