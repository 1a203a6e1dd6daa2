"""Trains a small model on real health data twice, without and with differential privacy, and shows the paperwork.

Data: the RAND Health Insurance Experiment (20,190 person-years, public, shipped with statsmodels). From insurance plan
and self-reported health the model predicts whether a person saw a doctor that year.

What to know about the privacy of this example:
- The data holds no person identifier, so the unit of privacy is one person-year: a row. Somebody who took part in five
  years has five rows and is protected five times less. With identifiers one would train on one row a person.
- Nothing on the private path is computed from the data without noise. Columns are scaled by round constants that follow
  from what the columns mean (SCALES), not by the mean and deviation of the rows.
- The number of rows is treated as public.
- The twin without privacy, and the accuracy on held-out rows, are shown because this data set is public. With private
  data neither may be released.

Run it again and it trains again: a new run in the same ledger. What both runs reveal adds up, and the report shows it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import statsmodels.datasets.randhie
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import hushgrad
from hushgrad.keys import Keyring
from hushgrad.ledger import Ledger
from hushgrad.report import build, render
from hushgrad.report.numbers import round_down, round_up

DATASET = "rand-hie"
TARGET_EPSILON = 3.0
BATCH_SIZE = 2048
EPOCHS = 20
LEARNING_RATE = 0.03
MAX_GRAD_NORM = 0.5

# (centre, half-width), from the meaning of each column: logarithms of at most 100 % and about 1,000 dollars, yes or no,
# a score of chronic diseases where 30 is a lot.
SCALES = {
    "lncoins": (2.3, 2.3),
    "idp": (0.5, 0.5),
    "lpi": (3.5, 3.5),
    "fmde": (4.0, 4.0),
    "physlm": (0.5, 0.5),
    "disea": (15.0, 15.0),
    "hlthg": (0.5, 0.5),
    "hlthf": (0.5, 0.5),
    "hlthp": (0.5, 0.5),
}

console = Console()


@dataclass(frozen=True)
class Files:
    """What the example writes, in one folder."""

    folder: Path

    @property
    def ledger(self) -> Path:
        """The budget ledger; it outlives the runs."""
        return self.folder / "hushgrad.ledger.db"

    @property
    def keyring(self) -> Path:
        """The keys that open the checkpoint. In earnest: not beside it."""
        return self.folder / "hushgrad.keyring"

    @property
    def checkpoint(self) -> Path:
        """The private model, encrypted."""
        return self.folder / "model.sealed"

    @property
    def report(self) -> Path:
        """The budget report as a page; report.json lies beside it."""
        return self.folder / "report.html"


def load_data() -> tuple[TensorDataset, TensorDataset]:
    """Training and held-out rows: features float32 [n, 9], labels float32 [n, 1].

    Every fifth block of 100 rows is held out. Rows of one person seem to stand next to each other, so blocks keep most
    people on one side of the split.
    """
    rows = statsmodels.datasets.randhie.load_pandas().data
    columns = [(rows[name].to_numpy(dtype=np.float32) - centre) / width for name, (centre, width) in SCALES.items()]
    features = torch.from_numpy(np.stack(columns, axis=1)).clamp(-3, 3)
    labels = torch.from_numpy((rows["mdvis"] > 0).to_numpy(dtype=np.float32)).unsqueeze(1)
    held_out = torch.arange(len(labels)) // 100 % 5 == 4
    return TensorDataset(features[~held_out], labels[~held_out]), TensorDataset(features[held_out], labels[held_out])


def make_model() -> nn.Module:
    """A multilayer perceptron: nine features in, one logit out."""
    return nn.Sequential(nn.Linear(len(SCALES), 16), nn.Tanh(), nn.Linear(16, 1))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Adam over all parameters of the model."""
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)


def train(
    title: str, model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, ...]]
) -> None:
    """The training loop. It is the same with and without privacy."""
    criterion = nn.BCEWithLogitsLoss()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=EPOCHS * len(loader))
        for _ in range(EPOCHS):
            for features, labels in loader:
                optimizer.zero_grad()
                loss = criterion(model(features), labels)
                loss.backward()
                optimizer.step()
                progress.advance(task)


@torch.no_grad()
def area_under_curve(model: nn.Module, data: TensorDataset) -> float:
    """Area under the ROC curve: the chance that a random positive row scores above a random negative one, ties half."""
    features, labels = data.tensors
    scores, positive = model(features).flatten(), labels.flatten() > 0.5
    _, group, size = torch.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = size.cumsum(0).double() - (size - 1) / 2
    ups, downs = int(positive.sum()), int((~positive).sum())
    return float((mean_rank[group][positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def open_keyring(path: Path) -> Keyring:
    """The keyring at `path`, made on first use (mode 0600), with a key for the data set."""
    keyring = Keyring(str(path)) if path.exists() else Keyring.create(str(path))
    keyring.create_key(dataset=DATASET)
    return keyring


def grant_budget(ledger_path: Path, delta: float) -> None:
    """Plays the data owner: allows epsilon 3 on top of what earlier runs of this example spent."""
    ledger = Ledger(ledger_path)
    spent = ledger.spent(dataset=DATASET, delta=delta)[1]
    ledger.set_budget(dataset=DATASET, epsilon=spent + TARGET_EPSILON, delta=delta)
    if spent > 0:
        raised = round_down(spent + TARGET_EPSILON)
        console.print(f"Earlier runs spent epsilon {round_up(spent)}; the budget is raised to {raised}.")


def write_report(files: Files) -> None:
    """The budget report of the data set, for people (HTML) and programs (JSON)."""
    document = build(Ledger(files.ledger), dataset=DATASET)
    files.report.write_bytes(render(document, format="html"))
    files.report.with_suffix(".json").write_bytes(render(document, format="json"))


def train_privately(training: TensorDataset, delta: float, files: Files) -> tuple[nn.Module, nn.Module, float]:
    """The private model, the same model read back from its sealed checkpoint, and the epsilon of this run."""
    engine = hushgrad.PrivacyEngine(
        ledger=files.ledger,
        dataset=DATASET,
        purpose="Quickstart: who sees a doctor",
        keyring=open_keyring(files.keyring),
    )
    model = make_model()
    model, optimizer, loader = engine.make_private_with_epsilon(
        module=model,
        optimizer=make_optimizer(model),
        data_loader=DataLoader(training, batch_size=BATCH_SIZE),
        target_epsilon=TARGET_EPSILON,
        target_delta=delta,
        epochs=EPOCHS,
        max_grad_norm=MAX_GRAD_NORM,
    )
    with engine:  # records in the ledger whether the run completed or failed
        train("with privacy   ", model, optimizer, loader)

    engine.save_checkpoint(files.checkpoint, module=model, optimizer=optimizer, overwrite=True)
    reopened = make_model()
    engine.load_checkpoint(files.checkpoint, module=reopened, optimizer=make_optimizer(reopened))
    return model, reopened, engine.get_epsilon(delta)


def main() -> None:
    """Trains both models, saves and reopens the private one, writes the report."""
    parser = argparse.ArgumentParser(description="Private training on public health data, start to finish.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output", help="folder for all files")
    files = Files(parser.parse_args().output)
    files.folder.mkdir(parents=True, exist_ok=True)

    training, held_out = load_data()
    delta = 1 / (10 * len(training))
    console.print(f"{len(training):,} rows to train on, {len(held_out):,} held out; delta {delta:.2g}")

    plain = make_model()
    train("without privacy", plain, make_optimizer(plain), DataLoader(training, batch_size=BATCH_SIZE, shuffle=True))
    grant_budget(files.ledger, delta)
    private, reopened, epsilon = train_privately(training, delta, files)
    write_report(files)

    without, with_privacy, again = (area_under_curve(model, held_out) for model in (plain, private, reopened))
    if again != with_privacy:
        raise SystemExit("The reopened model differs from the saved one.")
    console.print("\nAUC on held-out rows:")
    console.print(f"  {without:.3f} without privacy")
    console.print(f"  {with_privacy:.3f} with epsilon {round_up(epsilon)} at delta {delta:.2g}")
    console.print(f"  {again:.3f} after sealing the checkpoint and opening it again\n")
    for what, path in (("checkpoint", files.checkpoint), ("keyring", files.keyring), ("ledger", files.ledger),
                       ("report", files.report)):  # fmt: skip
        console.print(f"{what:>10}: {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
