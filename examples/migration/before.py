"""Handwritten digits with differential privacy, by Opacus. What changes for hushgrad is one import: see after.py."""

import argparse

import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load_data():
    """1,797 public images of 8 x 8 pixels, shipped with scikit-learn; every fifth is held out."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    held_out = torch.arange(len(labels)) % 5 == 4
    return TensorDataset(images[~held_out], labels[~held_out]), TensorDataset(images[held_out], labels[held_out])


class SampleConvNet(nn.Module):
    """Two convolutions and two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 2 * 2, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        """x: [B, 1, 8, 8] -> logits [B, 10]."""
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def train(args, model, train_loader, optimizer, privacy_engine, epoch):
    """One epoch."""
    model.train()
    criterion = nn.CrossEntropyLoss()
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(data), target)
        loss.backward()
        optimizer.step()
    if epoch % 10 == 0:
        epsilon = privacy_engine.accountant.get_epsilon(delta=args.delta)
        print(f"Train Epoch: {epoch} (ε = {epsilon:.2f}, δ = {args.delta})")


@torch.no_grad()
def test(model, dataset):
    """Accuracy on held-out images, in percent."""
    model.eval()
    images, labels = dataset.tensors
    return 100 * (model(images).argmax(1) == labels).float().mean().item()


def main():
    """Trains and prints accuracy and epsilon."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=120)
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--sigma", type=float, default=1.3)
    parser.add_argument("--max-per-sample-grad_norm", "-c", type=float, default=1.0)
    parser.add_argument("--delta", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    train_dataset, test_dataset = load_data()
    train_loader = DataLoader(train_dataset, batch_size=args.batch_size)
    model = SampleConvNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)

    privacy_engine = PrivacyEngine()
    model, optimizer, train_loader = privacy_engine.make_private(
        module=model,
        optimizer=optimizer,
        data_loader=train_loader,
        noise_multiplier=args.sigma,
        max_grad_norm=args.max_per_sample_grad_norm,
    )
    for epoch in range(1, args.epochs + 1):
        train(args, model, train_loader, optimizer, privacy_engine, epoch)
    print(f"Test accuracy: {test(model, test_dataset):.1f}%")
    print(f"Epsilon: {privacy_engine.get_epsilon(args.delta):.2f}")


if __name__ == "__main__":
    main()
