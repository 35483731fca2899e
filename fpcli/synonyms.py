"""Other words for our names, and which name was meant by a word that is none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

SYNONYMS: Mapping[str, str] = {
    # Options, and keys of recipes; some with the value that was meant.
    "clients": "n-clients num-clients nclients number-of-clients total-clients num-users nodes",
    "clients-per-round": "frac fraction fraction-fit participation sample-clients cohort",
    "rounds": "n-rounds num-rounds global-rounds comm-rounds communication-rounds server-rounds",
    "epochs": "n-epochs num-epochs local-epochs local-ep iterations iters",
    "lr": "learning-rate eta step-size",
    "batch-size": "bs local-bs minibatch-size train-batch-size",
    "weight-decay": "wd l2-penalty",
    "method": "algorithm algo strategy aggregator pruner",
    "data": "dataset data-set data-name",
    "data-dir": "data-path data-root datadir root",
    "model": "net network arch architecture backbone",
    "recipe": "config cfg conf config-file yaml",
    "--device cuda": "gpu cuda gpus use-cuda use-gpu accelerator",
    "--device cpu": "cpu no-cuda",
    "device": "dev torch-device",
    "--partition dirichlet": "noniid non-iid heterogeneous",
    "partition": "split distribution heterogeneity partitioner",
    "alpha": "dirichlet beta concentration",
    "seed": "random-seed random-state manual-seed",
    "out": "output output-dir out-dir save save-dir save-path",
    "runs": "output output-dir out-dir save-dir log-dir",
    "name": "run-name exp-name experiment",
    "resume": "continue checkpoint restore load",
    "force": "overwrite yes",
    "target": "target-accuracy target-acc target-metric stop-at",
    "workers": "num-workers n-workers processes jobs threads",
    "codec": "compression compress quantize quantization",
    "ratio": "sparsity amount prune-ratio pruning-ratio pruning-rate prune-rate",
    "macs": "flops mac gmacs",
    "params": "parameters num-params",
    "finetune": "fine-tune finetune-epochs retrain retrain-epochs",
    "score": "criterion importance metric",
    "to": "format formats",
    "weights": "pretrained checkpoint load state-dict",
    "quiet": "silent",
    "verbose": "log-level",
    # Commands.
    "train": "run start learn simulate federate",
    "unlearn": "forget erase",
    "bench": "benchmark time speed profile latency",
    "compare": "diff summary",
    "report": "plot plots show visualize html",
    "doctor": "check env info devices status",
    "methods": "algorithms strategies",
    "train --help": "model models networks options",
    "--version": "version",
    "list": "ls all",
    "fetch": "download get pull",
    "copy": "cp",
    # Values.
    "dirichlet": "noniid non-iid dir lda heterogeneous label-skew hetero",
    "shards": "pathological sort-and-partition",
    "quantity": "size-skew quantity-skew unbalanced",
    "natural": "by-user per-user real users",
    "iid": "uniform random homogeneous even",
    "cuda": "gpu nvidia",
    "pt2": "pytorch torch pt pth torchscript jit exported-program",
    "safetensors": "pytorch torch weights state-dict",
    "onnx": "onnxruntime",
    "fashion-mnist": "fmnist fashion",
    "breast-cancer": "wdbc tabular",
    "ml-100k": "movielens movielens-100k ml100k",
    "fedavg-cnn": "cnn",
    "mnist-mlp": "mlp",
    "tabular-mlp": "mlp",
    "fmlp": "fmlp-rec filter-mlp",
    "sasrec": "transformer attention",
    "gru4rec": "gru rnn recurrent",
    "float16": "fp16 half",
    "int8": "q8 8bit",
    "sparse": "topk",
    "pool": "process processes multiprocessing parallel ray",
    "inline": "serial sequential single",
    "l1": "magnitude norm abs",
    "bn-scale": "slimming network-slimming bn gamma",
    "adam": "fedadam adamw",
    "yogi": "fedyogi",
    "adagrad": "fedadagrad",
    "momentum": "fedavgm sgdm",
    "crop-flip": "true standard",
    "validation": "val valid dev",
    "test": "holdout",
    "acc": "accuracy top1 test-acc val-acc",
    "mae": "l1-error mean-absolute-error absolute-error",
    "r2": "r-squared rsquared coefficient-of-determination",
    "hr@10": "hit-rate hit-ratio hitrate hits@10 hit@10 recall@10",
    "ndcg@10": "ndcg",
    "mrr": "mean-reciprocal-rank",
}
"""What something is called here -> what others call it. It is only ever understood where its name
is one of those that could be meant, and stays a hint: the name that is written is ours."""


def find_nearest(
    word: str, names: Iterable[str], written: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return what was meant by a word that is none of the names; empty where nothing is near.

    Case and punctuation do not count, a synonym goes before what merely looks alike, and of names
    that look equally alike the one that begins most like the word is it.

    Args:
        names: that could be meant.
        written: what to write for some of them, where that is more than the name.

    >>> find_nearest("--n-clients", ["--min-clients", "--clients"])
    ['--clients']
    >>> find_nearest("L1", ["l1", "l2"]), find_nearest("resnet2O", ["resnet20", "resnet32"])
    (['l1'], ['resnet20'])
    >>> find_nearest("torch", ["safetensors", "onnx", "pt2"])
    ['pt2', 'safetensors']
    """
    by_letters: dict[str, str] = {}
    for name in names:
        by_letters.setdefault(_letters_of(name), name)
    letters = _letters_of(word)
    if letters in by_letters:
        return [written.get(by_letters[letters], by_letters[letters])]
    meant = []
    for synonym, words in SYNONYMS.items():
        first, space, value = synonym.partition(" ")
        there = by_letters.get(_letters_of(first))
        is_meant = letters in map(_letters_of, words.split())
        if there and is_meant and (there == first or not space):
            meant.append(f"{written.get(there, there)}{space}{value}")
    if meant:
        return meant[:2]

    def rate_likeness(other: str) -> tuple[float, int]:
        ratio = difflib.SequenceMatcher(None, other, letters).ratio()
        return ratio, sum(letters.startswith(other[:n]) for n in range(1, len(other)))

    alike = difflib.get_close_matches(letters, by_letters, n=5, cutoff=0.6)
    nearest = [by_letters[max(alike, key=rate_likeness)]] if alike else []
    return [written.get(name, name) for name in nearest]


def _letters_of(word: str) -> str:
    """Return a word without case and punctuation, unless it is nothing else."""
    return re.sub(r"[\W_]", "", word).lower() or word
