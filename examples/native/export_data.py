"""Writes the rows of quickstart.py, scaled as there, to train.csv and held_out.csv for train.cpp."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from quickstart import SCALES, load_data


def main() -> None:
    """Usage: export_data.py FOLDER"""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(("train.csv", "held_out.csv"), load_data(), strict=True):
        table = np.concatenate([tensor.numpy() for tensor in rows.tensors], axis=1)
        # Nine digits give every float32 back exactly.
        header = ",".join([*SCALES, "label"])
        np.savetxt(folder / name, table, fmt="%.9g", delimiter=",", header=header, comments="")


if __name__ == "__main__":
    main()
