"""The training of `hushgrad demo`: patients that do not exist, an ordinary loop, two runs, a sealed checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import hushgrad
from hushgrad.cli.demo import BATCH, DATASET, DELTA, EPOCHS, MAX_GRAD_NORM, RECORDS, TARGET, TOO_MANY
from hushgrad.errors import BudgetExceeded, SealError
from hushgrad.keys import Keyring

if TYPE_CHECKING:
    from hushgrad.cli.demo import Place
    from hushgrad.engine import PrivacyEngine

__all__ = ["accuracy_of", "opens_altered", "opens_equal", "train_over_budget", "train_privately"]


def _patients(count: int, seed: int) -> TensorDataset:
    """Age, stay, former admissions, three measurements, each about one wide; and whether the patient came back."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator).clamp(-3, 3)
    score = 1.2 * features[:, 0] + features[:, 1] + 1.5 * features[:, 2] * features[:, 3]
    came_back = score + 0.5 * torch.randn(count, generator=generator) > 0
    return TensorDataset(features, came_back.float().unsqueeze(1))


def _model() -> nn.Module:
    torch.manual_seed(0)  # of the first weights only; noise and batches cannot be seeded
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def train_privately(place: Place, bar: Callable[[Any, str, int], Iterator[Any]]) -> tuple[PrivacyEngine, nn.Module, torch.optim.Optimizer]:
    """The first run, within the budget."""
    keyring = Keyring.create(place.keyring)
    keyring.create_key(dataset=DATASET)
    engine = hushgrad.PrivacyEngine(ledger=place.ledger, dataset=DATASET, purpose="demo: who comes back", actor="demo", keyring=keyring)
    model = _model()
    model, optimizer, loader = engine.make_private_with_epsilon(
        module=model, optimizer=_optimizer(model), data_loader=DataLoader(_patients(RECORDS, 1), batch_size=BATCH),
        target_epsilon=TARGET, target_delta=DELTA, epochs=EPOCHS, max_grad_norm=MAX_GRAD_NORM,
    )  # fmt: skip
    batches = (batch for _ in range(EPOCHS) for batch in loader)
    with engine:
        for features, came_back in bar(batches, "training", EPOCHS * len(loader)):
            _step(model, optimizer, features, came_back)
    return engine, model, optimizer


def opens_equal(place: Place, engine: PrivacyEngine, model: nn.Module) -> bool:
    """Whether the checkpoint gives back the weights of ``model``, bit for bit."""
    reopened = _model()
    engine.load_checkpoint(place.checkpoint, module=reopened, optimizer=_optimizer(reopened))
    return all(torch.equal(value, model.state_dict()[name]) for name, value in reopened.state_dict().items())


def opens_altered(place: Place, engine: PrivacyEngine) -> bool:
    """Whether a copy with one changed bit opens all the same."""
    altered = place.checkpoint.with_suffix(".altered")
    content = bytearray(place.checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    altered.chmod(0o600)
    model = _model()
    try:
        engine.load_checkpoint(altered, module=model, optimizer=_optimizer(model))
    except SealError:
        return False
    finally:
        altered.unlink()
    return True


def train_over_budget(place: Place, before: PrivacyEngine) -> int:
    """Trains on from the checkpoint until the ledger refuses; the number of steps it still allowed."""
    engine = hushgrad.PrivacyEngine(ledger=place.ledger, dataset=DATASET, purpose="demo: once more", actor="demo", keyring=before.keyring)
    model = _model()
    optimizer = _optimizer(model)
    before.load_checkpoint(place.checkpoint, module=model, optimizer=optimizer)
    model, optimizer, loader = engine.make_private(
        module=model, optimizer=optimizer, data_loader=DataLoader(_patients(RECORDS, 1), batch_size=BATCH),
        noise_multiplier=1.0, max_grad_norm=MAX_GRAD_NORM,
    )  # fmt: skip
    taken = 0
    try:
        with engine:
            while taken < TOO_MANY:
                for features, came_back in loader:
                    _step(model, optimizer, features, came_back)
                    taken += 1
    except BudgetExceeded:
        return taken
    raise AssertionError("the demo's budget did not hold")


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, features: Tensor, came_back: Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.binary_cross_entropy_with_logits(model(features), came_back).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def accuracy_of(model: nn.Module) -> float:
    """On other patients that do not exist; with real ones this number would itself be a release."""
    features, came_back = _patients(1000, 2).tensors
    model.eval()
    return float(((model(features) > 0) == (came_back > 0.5)).float().mean())
