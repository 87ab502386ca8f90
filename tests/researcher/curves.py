"""Noisy curves of 32 points; a class is a frequency and a phase, and test classes are new."""

from typing import Literal

import numpy as np

POINTS, PER_CLASS, NOISE = 32, 20, 0.3
CLASSES = {"train": range(40), "test": range(40, 60)}


def curves(split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """The curves, float32 `[n, 32]`, and their classes `[n]`, from 0 in each split."""
    time, found = np.linspace(0, 1, POINTS), []
    for number in CLASSES[split]:
        rng = np.random.default_rng(number)
        curve = np.sin(2 * np.pi * (rng.uniform(1, 6) * time + rng.uniform()))
        found.append(curve + NOISE * rng.standard_normal((PER_CLASS, POINTS)))
    return np.concatenate(found, dtype=np.float32), np.repeat(np.arange(len(found)), PER_CLASS)
