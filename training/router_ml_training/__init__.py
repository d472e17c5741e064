"""The offline half: logs -> labels -> models -> evaluation -> bundle."""
