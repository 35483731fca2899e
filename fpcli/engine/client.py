"""All that a client ever does: take the bytes of a job, return the bytes of a reply."""

from __future__ import annotations

import os
import time
import traceback
from functools import partial

from torch import Tensor

from fpcli.engine import memory
from fpcli.engine.client_context import EVALUATE, UPLOAD, ClientContext
from fpcli.engine.evaluate import evaluate
from fpcli.engine.fit import explain_lone_sample
from fpcli.engine.method import Method
from fpcli.engine.site import Site
from fpcli.engine.types import TRAIN, Work, require_kind
from fpcli.errors import DivergedError, FpError, WireError
from fpcli.rng import seed_torch
from fpcli.structure.choice import list_within
from fpcli.structure.sparse_kernels import use_sparse
from fpcli.user_code import describe_failure
from fpcli.wire.message import MaskError, Reply, pack_reply, unpack_job

_MASK = "mask"
_NOTHING = Work()


def perform(data: bytes, site: Site) -> bytes:
    """Do one job and return its reply; an error of the client's is a reply that says so.

    The result depends on ``data`` and ``site`` alone: every random number is derived from the
    run's seed, the round and the client, torch's global generator included.

    Raises:
        WireError: ``data`` is not a job of this run.
    """
    started = time.perf_counter()
    try:
        job = unpack_job(data, limit_bytes=site.limit_bytes, known=partial(_restore_mask, site))
    except MaskError as error:
        lost = Reply(error.header.envelope, site.up_codec, error=f"failed: {error.message}")
        return pack_reply(lost)
    header = job.header
    if header.run != site.run:
        raise WireError("a job of another run", hint="client and server must use one recipe")
    cx = ClientContext(site, job)

    def pack(work: Work = _NOTHING, num_examples: int = 0, error: str = "") -> bytes:
        real_s = time.perf_counter() - started
        reply = Reply(header.envelope, site.up_codec, work, num_examples, real_s, error)
        return pack_reply(reply, known=job.mask, rng=cx.rng(UPLOAD))

    purpose = f"client/torch/{header.op}"
    with seed_torch(site.seed, purpose, header.round, header.client, device=site.device):
        try:
            with explain_lone_sample(header.local.batch_size, cx.num_examples, "local.batch_size"):
                return pack(*_OPS.get(header.op, _answer)(cx))
        except DivergedError as error:
            problem = f"diverged: {error.message}"
        except FpError as error:
            remedy = f" ({error.hint})" if error.hint else ""
            problem = f"failed: {error.message}{remedy}"
        except Exception as error:  # the client's fault must not stop the round
            problem = f"failed: {describe_failure(error)}"
            if os.environ.get("FP_DEBUG"):
                traceback.print_exception(error)
    return pack(error=problem)


def _train(cx: ClientContext) -> tuple[Work, int]:
    method: Method = cx.site.hooks
    traits, model = method.traits_of(cx.options), cx.module(cx.received)
    if traits.trains_sparse:
        model = use_sparse(model, cx.mask, list_within(cx.mask, cx.site.sparse.train))
    work = require_kind(method.train(cx, model), Work, "train")
    own_masks = work.mask or {} if traits.uploads != "entries" else {}
    if traits.remembers_masks and (own_masks or not cx.job.is_mask_known):
        mask = {**cx.mask, **own_masks}
        memory.remember(cx.site.home, cx.client, _MASK, cx.round, mask)
    return work, cx.num_examples


def _answer(cx: ClientContext) -> tuple[Work, int]:
    work = cx.site.hooks.answer(cx, cx.module(cx.received), cx.task.op)
    return require_kind(work, Work, "answer"), cx.num_examples


def _evaluate(cx: ClientContext) -> tuple[Work, int]:
    site = cx.site
    model = cx.module(site.hooks.view(cx, cx.received))
    test = site.dataset.test.take(site.test_parts[cx.client])
    score = evaluate(
        model, test, site.dataset, own_classes=cx.own_classes, channels_last=site.is_channels_last
    )
    return Work(metrics={**score.metrics, "loss": score.loss}), score.num_examples


def _restore_mask(site: Site, client: int, round: int) -> dict[str, Tensor]:
    """Return the masks that a client had after its last training, block coordinates."""
    return memory.recall(site.home, client, _MASK, round)


_OPS = {TRAIN: _train, EVALUATE: _evaluate}
