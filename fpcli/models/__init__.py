"""Networks by name; each is a plain module that knows nothing of pruning."""

from __future__ import annotations

from collections.abc import Mapping

MODELS: Mapping[str, str] = {
    "digits-cnn": "fpcli.models.cnn:digits_cnn",
    "lenet5": "fpcli.models.cnn:lenet5",
    "mnist-cnn": "fpcli.models.cnn:mnist_cnn",
    "mnist-mlp": "fpcli.models.mlp:mnist_mlp",
    "tabular-mlp": "fpcli.models.mlp:tabular_mlp",
    "mlp-reg": "fpcli.models.mlp:mlp_reg",
    "fedavg-cnn": "fpcli.models.cnn:fedavg_cnn",
    "conv2": "fpcli.models.cnn:conv2",
    "conv4": "fpcli.models.cnn:conv4",
    "alexnet": "fpcli.models.alexnet:alexnet",
    "resnet20": "fpcli.models.resnet:resnet20",
    "resnet32": "fpcli.models.resnet:resnet32",
    "resnet44": "fpcli.models.resnet:resnet44",
    "resnet56": "fpcli.models.resnet:resnet56",
    "resnet110": "fpcli.models.resnet:resnet110",
    "resnet20-pad": "fpcli.models.resnet:resnet20_pad",
    "resnet32-pad": "fpcli.models.resnet:resnet32_pad",
    "resnet44-pad": "fpcli.models.resnet:resnet44_pad",
    "resnet56-pad": "fpcli.models.resnet:resnet56_pad",
    "resnet110-pad": "fpcli.models.resnet:resnet110_pad",
    "vgg11": "fpcli.models.vgg:vgg11",
    "vgg11-plain": "fpcli.models.vgg:vgg11_plain",
    "vgg13": "fpcli.models.vgg:vgg13",
    "vgg16": "fpcli.models.vgg:vgg16",
    "vgg19": "fpcli.models.vgg:vgg19",
    "hetero-cnn": "fpcli.models.heterofl_nets:hetero_cnn",
    "preresnet-hfl": "fpcli.models.heterofl_nets:preresnet_hfl",
    "preresnet18": "fpcli.models.heterofl_nets:preresnet18",
    "subfedavg-cifar": "fpcli.models.subfedavg_nets:subfedavg_cifar",
    "subfedavg-cifar-bn": "fpcli.models.subfedavg_nets:subfedavg_cifar_bn",
    "subfedavg-mnist": "fpcli.models.subfedavg_nets:subfedavg_mnist",
    "subfedavg-mnist-bn": "fpcli.models.subfedavg_nets:subfedavg_mnist_bn",
    "fedsparsify-mlp": "fpcli.models.fedsparsify_nets:fedsparsify_mlp",
    "fedsparsify-cnn": "fpcli.models.fedsparsify_nets:fedsparsify_cnn",
    "fmlp": "fpcli.models.fmlp_nets:fmlp",
    "fmlp-parity": "fpcli.models.fmlp_nets:fmlp_parity",
    "sasrec": "fpcli.models.sasrec:sasrec",
    "gru4rec": "fpcli.models.gru4rec:gru4rec",
}
"""Name -> ``factory(input_shape, num_outputs) -> nn.Module``; input_shape is (C, H, W) of
an image, (features,) of a row of a table or (L,) of a sequence. A network of sequences takes item
ids, int64 ``[b, L]``: 1 to num_outputs, 0 for padding in front, the newest last; and returns the
score of item i in column i-1.

What may follow a name stands in ``models.names``; a factory with a keyword ``width`` accepts
``@WIDTH``."""

DEFAULT_MODEL: Mapping[str, str] = {
    "digits": "digits-cnn",
    "breast-cancer": "tabular-mlp",
    "diabetes": "mlp-reg",
    "mnist": "lenet5",
    "fashion-mnist": "lenet5",
    "emnist": "lenet5",
    "emnist-letters": "lenet5",
    "emnist-digits": "lenet5",
    "emnist-byclass": "lenet5",
    "emnist-bymerge": "lenet5",
    "cifar10": "resnet20",
    "cifar100": "resnet20",
    "svhn": "resnet20",
    "ml-100k": "fmlp",
    "markov": "fmlp",
    "rec-synth": "fmlp",
    "csv:": "tabular-mlp",
    "ratings:": "fmlp",
}
"""Data set -> the model that it is trained with unless another one is named; a key that ends in a
colon stands for all data with that prefix."""
