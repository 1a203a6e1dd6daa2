"""Opens checkpoints, of train.cpp or quickstart.py, and prints what `train FOLDER --open FILE...` prints."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from quickstart import DATASET, area_under_curve, load_data, make_model, make_optimizer

import hushgrad


def main() -> None:
    """Usage: open_checkpoints.py FOLDER FILE..."""
    folder, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    engine = hushgrad.PrivacyEngine(
        ledger=folder / "hushgrad.ledger.db", dataset=DATASET, keyring=folder / "hushgrad.keyring"
    )
    held_out = load_data()[1]
    for file in files:
        model = make_model()
        engine.load_checkpoint(file, module=model, optimizer=make_optimizer(model))
        print(f"{file.name}: AUC {area_under_curve(model, held_out):.6f}")


if __name__ == "__main__":
    main()
