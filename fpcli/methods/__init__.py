"""Federated methods, one per file; a reader of the paper finds all of it there."""

METHODS = {
    "fedavg": "fpcli.methods.fedavg:FedAvg",
    "fedmp": "fpcli.methods.fedmp:FedMP",
    "uniform": "fpcli.methods.uniform:Uniform",
}
"""Name -> ``module:class``, read by ``plugins.lookup``."""
