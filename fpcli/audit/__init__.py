"""Audits of forgetting: how near a model is to one that never saw some classes."""

from __future__ import annotations

from collections.abc import Mapping

AUDITS: Mapping[str, str] = {
    "mia": "fpcli.audit.mia:MIA",
    "class-mia": "fpcli.audit.class_mia:CLASS_MIA",
    "probe": "fpcli.audit.probe:PROBE",
    "relearn": "fpcli.audit.relearn:RELEARN",
    "logit-mask": "fpcli.audit.logit_mask:LOGIT_MASK",
    "server-diff": "fpcli.audit.server_diff:SERVER_DIFF",
}
"""Name -> ``module:object`` of an ``audit.stage.Audit``, read by ``plugins.lookup``."""
