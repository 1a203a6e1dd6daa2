"""One process of several, for test_processes.py: ``processes_worker.py FOLDER RANK SIZE SCENARIO...``.

Runs the scenarios in order over one process group and writes what it found to FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import hushgrad
from hushgrad.errors import HushgradError


class Rows(Dataset[Any]):
    """Rows that say which they are."""

    def __init__(self, size: int, width: int = 5) -> None:
        self.x = torch.randn(size, width, generator=torch.Generator().manual_seed(1))
        self.y = torch.randn(size, 2, generator=torch.Generator().manual_seed(2))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return index, self.x[index], self.y[index]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.LayerNorm(7), nn.Linear(7, 2))


class Run:
    """A model in DistributedDataParallel, made private."""

    def __init__(self, folder: Path, name: str, *, size: int = 40, batch_size: int = 16, sampler: bool = False, workers: int = 0, net: nn.Module | None = None, **options: Any) -> None:
        self.data = Rows(size)
        self.ledger = folder / f"{name}.db"
        self.net = network() if net is None else net
        self.module = DistributedDataParallel(self.net)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.1)
        chosen: DistributedSampler[Any] | None = DistributedSampler(self.data) if sampler else None
        loader = DataLoader(self.data, batch_size=batch_size, sampler=chosen, shuffle=None if sampler else True, num_workers=workers)
        self.engine = hushgrad.PrivacyEngine(ledger=self.ledger, dataset=name, keyring=options.pop("keyring", None))
        given = {"noise_multiplier": 1.0, "max_grad_norm": 0.5, **options}
        _, _, self.loader = self.engine.make_private(module=self.module, optimizer=self.optimizer, data_loader=loader, **given)
        self.name = name

    def backward(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.module(x), y).backward()

    def gradient(self) -> list[float]:
        return torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None]).tolist()

    def weights(self) -> list[float]:
        return torch.cat([p.detach().flatten() for p in self.net.parameters()]).tolist()

    def epoch(self, limit: int = 10**9) -> None:
        for i, (_, x, y) in enumerate(self.loader):
            if i == limit:
                return
            self.backward(x, y)
            self.optimizer.step()

    def charges(self) -> int:
        self.engine._ledger.settle()
        return len(hushgrad.ledger.Ledger(self.ledger).steps(self.name))


def clipped_gradients(net: nn.Module, x: torch.Tensor, y: torch.Tensor, groups: list[list[int]], bounds: list[float]) -> list[list[float]]:
    """Of each sample, in float64: the gradient with every group of parameters clipped to its bound."""
    exact = network().double()
    exact.load_state_dict({name: value.double() for name, value in net.state_dict().items()})
    parameters = list(exact.parameters())
    clipped = []
    for a, b in zip(x.double(), y.double()):
        gradients = list(torch.autograd.grad(nn.functional.mse_loss(exact(a[None]), b[None]), parameters))
        for group, bound in zip(groups, bounds):
            norm = torch.sqrt(sum((gradients[i].square().sum() for i in group), torch.zeros((), dtype=torch.float64)))
            for i in group:
                gradients[i] = gradients[i] * min(1.0, bound / norm.item())
        clipped.append(torch.cat([g.flatten() for g in gradients]).tolist())
    return clipped


def _clipped(folder: Path, name: str, groups: list[list[int]], bounds: list[float], **options: Any) -> dict[str, Any]:
    run = Run(folder, name, noise_multiplier=0.0, **options)
    found: dict[str, Any] = {"records": [], "gradients": [], "clipped": [], "expected_batch_size": 16}
    for index, x, y in run.loader:
        found["records"].append(index.tolist())
        found["clipped"].append(clipped_gradients(run.net, x, y, groups, bounds))
        run.backward(x, y)
        run.optimizer.step()
        found["gradients"].append(run.gradient())
    return found


def clipped(folder: Path, rank: int) -> dict[str, Any]:
    return _clipped(folder, "clipped", [list(range(6))], [0.5])


def clipped_per_layer(folder: Path, rank: int) -> dict[str, Any]:
    return _clipped(folder, "clipped_per_layer", [[i] for i in range(6)], [0.1] * 6, clipping="per_layer", max_grad_norm=[0.1] * 6)


def noise(folder: Path, rank: int) -> dict[str, Any]:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(20_000))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :1] * 0) * self.weight.sum() + x[:, :2] * 0 + self.weight.mean() * 0

    run = Run(folder, "noise", net=Wide(), max_grad_norm=2.0)
    found: dict[str, Any] = {"gradients": [], "noise_multiplier": 1.0, "max_grad_norm": 2.0, "expected_batch_size": 16}
    for _, x, y in run.loader:
        run.backward(x, y)
        run.optimizer.step()
        found["gradients"].append(run.gradient())
        if len(found["gradients"]) == 2:
            break
    alone = hushgrad.accounting.SelfComposedDpEvent(hushgrad.accounting.event_from_json(run.engine._latest().training.history()), 1)
    found["epsilon_of_one_process"] = hushgrad.accounting.epsilon(alone, 1e-5)[1]
    ledger = hushgrad.ledger.Ledger(run.ledger)
    found |= {
        "epsilon": run.engine.get_epsilon(1e-5), "weights": run.weights(), "run_id": run.engine.run_id, "charges": run.charges(),
        "runs": len(ledger.runs("noise")),
    }  # fmt: skip
    return found


def law(folder: Path, rank: int) -> dict[str, Any]:
    run = Run(folder, "law", size=200, batch_size=20)
    batches = run.loader.batch_sampler
    assert batches is not None
    return {"records": [list(batch) for _ in range(60) for batch in batches]}


def users(folder: Path, rank: int) -> dict[str, Any]:
    owners = [i // 3 for i in range(39)]
    run = Run(folder, "users", size=39, batch_size=4, sampling="users", user_ids=owners, max_records_per_user=2)
    seen: list[list[int]] = []
    gradients = []
    batch: list[int] = []
    for index, x, y in run.loader:
        batch += [owners[i] for i in index.tolist()]
        last = run.engine._latest()._last_physical
        run.backward(x, y)
        run.optimizer.step()
        if last:
            seen.append(batch)
            batch = []
            gradients.append(run.gradient())
    return {"users": seen, "gradients": gradients}


def stopped(run: Run, body: Callable[[], None]) -> str:
    try:
        body()
    except HushgradError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def budget(folder: Path, rank: int) -> dict[str, Any]:
    if rank == 0:
        hushgrad.ledger.Ledger(folder / "budget.db").set_budget(dataset="budget", epsilon=20.0, delta=1e-5)
    dist.barrier()
    run = Run(folder, "budget")
    before = run.weights()

    def train() -> None:
        nonlocal before
        for _ in range(100):
            for _, x, y in run.loader:
                run.backward(x, y)
                before = run.weights()
                run.optimizer.step()

    error = stopped(run, train).split(":")[0]
    return {
        "error": error, "steps": run.engine.steps, "unchanged": before == run.weights(), "spent": hushgrad.ledger.Ledger(run.ledger).spent(dataset="budget", delta=1e-5)[1],
    }  # fmt: skip


def one_fails(folder: Path, rank: int) -> dict[str, Any]:
    run = Run(folder, "one_fails")
    _, x, y = next(iter(run.loader))

    def step() -> None:
        if rank == 0:
            run.backward(x, y)
            run.optimizer.step()
        else:
            run.engine._latest().training.step()  # without a batch

    found: dict[str, Any] = {"error": stopped(run, step), "charges": run.charges()}
    run.epoch(1)
    return {**found, "later": "stepped" if run.engine.steps == 1 else "not stepped"}


def another_bound(folder: Path, rank: int) -> dict[str, Any]:
    run = Run(folder, "another_bound")
    if rank == 1:
        run.engine.max_grad_norm = 50.0
    return {"error": stopped(run, lambda: run.epoch(1)), "steps": run.engine.steps}


def another_plan(folder: Path, rank: int) -> dict[str, Any]:
    try:
        Run(folder, "another_plan", noise_multiplier=1.0 + rank)
    except HushgradError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": "nothing"}


def adaptive(folder: Path, rank: int) -> dict[str, Any]:
    """No gradient reaches the bound, so its every move is by the number of samples in both processes and the noise on it."""
    run = Run(folder, "adaptive", size=400, batch_size=160, clipping="adaptive", max_grad_norm=100.0, unclipped_num_std=0.6)
    bounds, sizes = [run.engine.max_grad_norm], []
    for _, x, y in run.loader:
        run.backward(x, y)
        run.optimizer.step()
        sizes.append(len(x))
        bounds.append(run.engine.max_grad_norm)
    return {"bounds": bounds, "sizes": sizes}


def virtual(folder: Path, rank: int) -> dict[str, Any]:
    run = Run(folder, "virtual", workers=2)
    physical = 0
    with hushgrad.BatchMemoryManager(data_loader=run.loader, max_physical_batch_size=2, optimizer=run.optimizer) as loader:
        for _ in range(2):
            for _, x, y in loader:
                run.backward(x, y)
                run.optimizer.step()
                physical += 1
    return {"physical": physical, "charges": run.charges(), "steps": run.engine.steps, "steps_per_epoch": len(run.loader)}


def shuffled(folder: Path, rank: int) -> dict[str, Any]:
    run = Run(folder, "shuffled", size=30, batch_size=4, poisson_sampling=False)
    records = []
    for _ in range(2):
        epoch = []
        for index, x, y in run.loader:
            epoch += index.tolist()
            run.backward(x, y)
            run.optimizer.step()
        records.append(epoch)
    return {"records": records, "charges": run.engine._latest().training.charges}


def plain(folder: Path, rank: int) -> dict[str, Any]:
    module = network()
    try:
        hushgrad.PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=torch.optim.SGD(module.parameters(), 0.1), data_loader=DataLoader(Rows(8), batch_size=4), noise_multiplier=1.0,
            max_grad_norm=1.0,
        )  # fmt: skip
    except HushgradError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": "nothing"}


def checkpoint(folder: Path, rank: int) -> dict[str, Any]:
    keyring = folder / "keys"
    if rank == 0:
        hushgrad.keys.Keyring.create(keyring).create_key(dataset="checkpoint")
    dist.barrier()
    run = Run(folder, "checkpoint", keyring=keyring)
    run.epoch(2)
    path = folder / "checkpoints" / "run.sealed"
    path.parent.mkdir(exist_ok=True)
    run.engine.save_checkpoint(path, module=run.module, optimizer=run.optimizer)
    dist.barrier()
    with torch.no_grad():
        for parameter in run.module.parameters():
            parameter.zero_()
    run.engine.load_checkpoint(path, module=run.module, optimizer=run.optimizer)
    before = run.engine.steps
    run.epoch(1)
    return {"files": os.listdir(path.parent), "weights": run.weights(), "later": "stepped" if run.engine.steps == before + 1 else "not stepped"}


def migrated(folder: Path, rank: int) -> dict[str, Any]:
    from hushgrad.compat.opacus import PrivacyEngine
    from hushgrad.compat.opacus.distributed import DifferentiallyPrivateDistributedDataParallel

    torch.manual_seed(rank)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    model = DifferentiallyPrivateDistributedDataParallel(net)
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    data = Rows(40)
    loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data))
    os.chdir(folder)
    engine = PrivacyEngine()
    model, optimizer, loader = engine.make_private(module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0)
    for i, (_, x, y) in enumerate(loader):
        if i == 3:
            break
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return {
        "weights": torch.cat([p.detach().flatten() for p in net.parameters()]).tolist(), "epsilon": engine.get_epsilon(1e-5),
        "expected_batch_size": optimizer.expected_batch_size, "charges": engine.native.steps,
    }  # fmt: skip


def another_sampler(folder: Path, rank: int) -> dict[str, Any]:
    module = DistributedDataParallel(network())
    data = Rows(12)
    loader = DataLoader(data, batch_size=2, sampler=DistributedSampler(data, num_replicas=3, rank=rank))
    try:
        hushgrad.PrivacyEngine(ledger=":memory:").make_private(
            module=module, optimizer=torch.optim.SGD(module.parameters(), 0.1), data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
    except HushgradError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": "nothing"}


def nobody(folder: Path, rank: int) -> dict[str, Any]:
    """Batches of at most one record: one process has it, or none."""
    run = Run(folder, "nobody", batch_size=1)
    sizes = []
    for index, x, y in run.loader:
        sizes.append(len(index))
        run.backward(x, y)
        run.optimizer.step()
    return {"sizes": sizes, "charges": run.charges(), "weights": run.weights()}


def certified(folder: Path, rank: int) -> dict[str, Any]:
    try:
        Run(folder, "certified", sensitivity="certified")
    except HushgradError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": "nothing"}


def killed(folder: Path, rank: int) -> dict[str, Any]:
    run = Run(folder, "killed")
    run.epoch(3)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"error": stopped(run, run.epoch), "steps": run.engine.steps}


def main() -> None:
    folder, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    found = {name: globals()[name](folder, rank) for name in sys.argv[4:]}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    if "killed" not in sys.argv[4:]:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
