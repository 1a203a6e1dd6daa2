"""What a PrivacyEngine puts into a checkpoint, and what it demands of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from hushgrad import checkpoint
from hushgrad.errors import InvalidArgument, LedgerError
from hushgrad.sealed import signing_key_of
from hushgrad.signing import PublicKey

if TYPE_CHECKING:
    from hushgrad.engine import PrivacyEngine

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(
    engine: PrivacyEngine,
    path: str | os.PathLike[str],
    *,
    module: nn.Module,
    optimizer: Optimizer | None,
    extra: object,
    overwrite: bool,
    background: bool,
    metric: float | None,
    keep_last: int | None,
    keep_best: int,
) -> checkpoint.Saving:
    """See PrivacyEngine.save_checkpoint."""
    if engine._sessions and engine._sessions[-1].ranks is not None and not engine._sessions[-1].ranks.first:
        return checkpoint.Saving.finished(path, "")  # the first process has the same state, and the ledger
    ledger, session = engine._ledger, engine._sessions[-1] if engine._sessions else None
    training = session.training if session else None
    run_id = training.run_id if training else ""
    delta = None if training is None else training.target_delta
    keyring = engine._require_keyring()

    def record(digest: str) -> None:
        # Before the file is visible: a checkpoint that the ledger does not know was made by somebody else.
        engine._last_checkpoint = digest
        if ledger.durable:
            ledger.record("checkpoint", {"digest": digest, "run": run_id})

    def after() -> None:
        if keep_last is not None:
            checkpoint.retain(
                Path(path).parent, keyring=keyring, keep_last=keep_last, keep_best=keep_best, dataset=engine.dataset, run_id=run_id
            )

    state = {
        "model": module.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "extra": extra,
    }
    described: dict[str, Any] = {
        "keyring": keyring,
        "dataset": engine.dataset,
        "overwrite": overwrite,
        "run_id": run_id,
        "step": training.steps if training else 0,
        "plan": training.plan_json if training else "{}",
        "ledger_head": ledger.head(),
        "ledger_id": ledger.id if ledger.durable else "",
        "epsilon": {} if delta is None else {"accountant": engine.accountant, **engine._spent_json(delta)},
        "metric": metric,
        "identity": engine.identity,
        "previous": engine._last_checkpoint,
        "before_publish": record,
    }
    if background:
        return checkpoint.save_async(path, state, **described, after=after)
    saving = checkpoint.Saving.finished(path, checkpoint.save(path, state, **described))
    after()
    return saving


def load_checkpoint(
    engine: PrivacyEngine,
    path: str | os.PathLike[str],
    *,
    module: nn.Module,
    optimizer: Optimizer | None,
    strict: bool,
    writer: PublicKey | str | None,
) -> Any:
    """See PrivacyEngine.load_checkpoint."""
    def trusted(reader: checkpoint.Reader) -> bool:
        if not reader.holds("model"):
            raise InvalidArgument(
                "[load_checkpoint] Expected a checkpoint of PrivacyEngine.save_checkpoint, received another. Open it with hushgrad.checkpoint.load."
            )
        if optimizer is not None and not reader.holds("optimizer"):
            raise InvalidArgument("[load_checkpoint] Expected a checkpoint with an optimizer, received one without.")
        core = reader._core.core
        if engine.identity is not None:
            own = signing_key_of(engine.identity).public_key
            if core["writer"] == own.id:
                reader._core.verify_manifest(own)
        sequence, head = core["ledger_sequence"], core["ledger_hash"]
        if sequence > 0 and not engine._ledger.expect(sequence, head):
            raise LedgerError(
                f"[load_checkpoint] Expected a ledger that holds entry {sequence} as the checkpoint saw it, received one that does not: the "
                "ledger is older than the checkpoint or another one. Restore the newest ledger, or have two people accept the loss: "
                "hushgrad ledger repair."
            )
        if not core["ledger_id"] or core["ledger_id"] != engine._ledger.id:
            return False
        if not engine._ledger.has_checkpoint(reader.digest):
            raise LedgerError(
                f"[load_checkpoint] Expected {os.fspath(path)} to be as the ledger recorded it, received a file that was written or changed by "
                "somebody else who has the key. Do not use it; restore the original."
            )
        return True

    into = {"model": module}
    loaded = checkpoint.load(path, keyring=engine._require_keyring(), writer=writer, trusted=trusted, into=into, strict=strict)
    if optimizer is not None:
        optimizer.load_state_dict(loaded.state["optimizer"])
    engine._last_checkpoint = loaded.digest
    return loaded.state.get("extra")


