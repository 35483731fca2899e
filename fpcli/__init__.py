"""fpcli: prune neural networks, and train them federated with pruning."""

__version__ = "0.1.0"

__all__ = ["__version__"]
