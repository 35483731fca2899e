"""Federated methods, one per file; a reader of the paper finds all of it there."""

METHODS = {
    "coverage": "fpcli.methods.coverage:Coverage",
    "fedavg": "fpcli.methods.fedavg:FedAvg",
    "fedmp": "fpcli.methods.fedmp:FedMP",
    "fedprox": "fpcli.methods.fedprox:FedProx",
    "flexcom": "fpcli.methods.flexcom:FlexCom",
    "heterofl": "fpcli.methods.heterofl:HeteroFL",
    "known-speeds": "fpcli.methods.known_speeds:KnownSpeeds",
    "local-only": "fpcli.methods.local:LocalOnly",
    "pace": "fpcli.methods.pace:Pace",
    "prunefl": "fpcli.methods.prunefl:PruneFL",
    "random-mask": "fpcli.methods.random_mask:RandomMask",
    "subfedavg": "fpcli.methods.subfedavg:SubFedAvg",
    "uniform": "fpcli.methods.uniform:Uniform",
    "unlearn": "fpcli.methods.unlearn:Unlearn",
}
"""Name -> ``module:class``, read by ``plugins.lookup``."""
