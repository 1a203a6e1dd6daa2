"""``DPLightningDataModule``: a Lightning data module whose training batches are Poisson batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hushgrad.compat.opacus.data_loader import DPDataLoader
from hushgrad.compat.opacus.utils.uniform_sampler import refuse_generator

__all__ = ["DPLightningDataModule"]

if TYPE_CHECKING:
    _DataModule: Any = object
else:
    try:
        from pytorch_lightning import LightningDataModule as _DataModule
    except ImportError:
        try:
            from lightning.pytorch import LightningDataModule as _DataModule
        except ImportError as error:
            raise ImportError(
                "[compat.opacus.lightning] Expected PyTorch Lightning, received no such package. Install pytorch-lightning."
            ) from error


class DPLightningDataModule(_DataModule):  # type: ignore[misc]
    """Passes everything on to ``datamodule``; only the training loader becomes a ``DPDataLoader``, one for each fit.

    Hand that loader to ``make_private`` in ``configure_optimizers``: it is made private in place.
    """

    def __init__(self, datamodule: Any, generator: object = None) -> None:
        super().__init__()
        refuse_generator(generator)
        self.datamodule = datamodule
        self.generator = None
        self._training: DPDataLoader | None = None

    def prepare_data(self) -> None:
        """As the inner module."""
        self.datamodule.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """As the inner module, and a new training loader."""
        self._training = None
        self.datamodule.setup(stage)

    def train_dataloader(self) -> DPDataLoader:
        """Poisson batches of the inner module's training data."""
        # Lightning asks more than once in a fit, and must train with the loader that was made private.
        if self._training is None:
            self._training = DPDataLoader.from_data_loader(self.datamodule.train_dataloader())
        return self._training

    def val_dataloader(self) -> Any:
        """As the inner module."""
        return self.datamodule.val_dataloader()

    def test_dataloader(self) -> Any:
        """As the inner module."""
        return self.datamodule.test_dataloader()

    def predict_dataloader(self) -> Any:
        """As the inner module."""
        return self.datamodule.predict_dataloader()

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """As the inner module."""
        return self.datamodule.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As the inner module."""
        return self.datamodule.on_before_batch_transfer(batch, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """As the inner module."""
        return self.datamodule.on_after_batch_transfer(batch, dataloader_idx)
