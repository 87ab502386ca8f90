#!/usr/bin/env bash
# learn2learn 0.2.0: MetaSGD.adapt unties shared weights, and adapts only the first of their places.
#
# Two layers of a net share one weight, as an embedding and an output layer do. After `adapt`, the
# first layer of the clone has the adapted weight, and the second one keeps the old weight. So the
# clone is another net, without an error. MAML of the same release, with the same net and the same
# learning rate, adapts the weight in both places.
#
#   bash findings/learn2learn-meta-sgd-tied-weights.sh
#
# Exit status: 0 while it is so, and not 0 when it has changed or could not be tried. It needs
# Python 3.11 with venv, and a network for PyTorch. On Linux pip may choose a CUDA build of it unless
# PIP_EXTRA_INDEX_URL names PyTorch's index of CPU builds. It leaves nothing behind.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install torch==2.13.0 numpy==2.3.5 setuptools==84.2.1
# It compiles C code that current Pythons refuse. MAML and Meta-SGD are pure Python.
"${pip[@]}" download --no-deps --no-build-isolation --no-binary :all: --dest "$folder" \
    learn2learn==0.2.0
tar -xzf "$folder/learn2learn-0.2.0.tar.gz" -C "$folder"

cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PROGRAM'
import sys
import types

for package in ("learn2learn", "learn2learn.algorithms"):  # past the parts in C
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = ["learn2learn-0.2.0/" + package.replace(".", "/")]
import torch
from learn2learn.algorithms.maml import MAML
from learn2learn.algorithms.meta_sgd import MetaSGD


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(3, 3, bias=False)
        self.second = torch.nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


torch.manual_seed(1)
x, y = torch.randn(5, 3), torch.randn(5, 3)
print(f"learn2learn 0.2.0, torch {torch.__version__}")
tied = {}
for make in (MAML, MetaSGD):
    learner = make(Tied(), lr=0.1)
    clone = learner.clone()
    clone.adapt(((clone(x) - y) ** 2).mean())
    old, net = learner.module.first.weight, clone.module
    tied[make] = torch.equal(net.first.weight, net.second.weight)
    moved = [not torch.equal(layer.weight, old) for layer in (net.first, net.second)]
    loss = ((clone(x) - y) ** 2).mean().item()
    print(f"{make.__name__}: adapted {moved}, still tied {tied[make]}, loss {loss:.6f}")
as_stated = tied[MAML] and not tied[MetaSGD] and moved == [True, False]
print("as stated: Meta-SGD adapts one place" if as_stated else "changed: see the lines above")
sys.exit(0 if as_stated else 1)
PROGRAM
