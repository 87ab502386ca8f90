"""What README.md shows works as it stands there."""

import numpy as np

from tests.readme import README, blocks, example


def run_block(name):
    names = {}
    exec(next(block for block in blocks("python") if f"def {name}(" in block), names)
    return names[name]


def test_training_from_own_arrays():
    """Eight classes, each a bright square at a place of its own: learned in a few steps."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (8, 10, 16, 16, 1)).astype(np.uint8)
    for label in range(8):
        row, column = divmod(label, 4)
        images[label, :, 8 * row : 8 * row + 8, 4 * column : 4 * column + 4] += 150
    labels = np.repeat(np.arange(8), 10)
    accuracies = run_block("train")(images.reshape(80, 16, 16, 1), labels, steps=4, seeds=1)
    assert len(accuracies) == 1
    assert accuracies[0] > 0.5


def test_the_new_algorithm_fits_on_a_screen():
    example()
    code = next(block for block in blocks("python") if "def meta_sgd(" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_every_room_of_the_map_exists():
    root = README.parent
    names = [
        line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")
    ]
    folder = root
    for cell in names:
        for name in (part.strip(" `") for part in cell.split(",")):
            path = root / name if (root / name).exists() else folder / name
            assert path.exists(), name
            folder = path if path.is_dir() else path.parent
