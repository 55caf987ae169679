# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = ["matplotlib>=3.8", "numpy>=1.26", "torch>=2.4"]
# ///

# %% [markdown]
"""
# MNIST: a first network in PyTorch

A network of three layers reads handwritten digits. For each picture it gives ten numbers, the
logits; softmax turns them into probabilities, and the loss is the cross-entropy of the right digit:

    loss = -log softmax(network(x))[label], averaged over a batch

Beside chapter 4.3 of the book (Ogawa 2018). Downloads the 70,000 digits of MNIST once (11 MB).
Where that fails it takes the 1,797 small ones of scikit-learn, if that is installed.
"""

# %% Imports
import argparse
import contextlib
import gzip
import hashlib
import http.client
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

NAME = "mnist"

# %% Data
URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mnist")
FILES = {  # with their MD5, and the length of the head before the bytes that count
    "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 16),
    "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432", 8),
    "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3", 16),
    "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f085c9c", 8),
}


def download(name):
    """Return the bytes of one file of MNIST; OSError if it can't be had, or is not that file."""
    digest, head = FILES[name]
    path = CACHE / name
    content = path.read_bytes() if path.exists() else b""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
        try:
            with urllib.request.urlopen(URL + name, timeout=20) as answer:
                content = answer.read()
        except http.client.HTTPException as error:  # such as a download that stops early
            raise OSError(f"{URL + name}: {error!r}") from error
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
            raise OSError(f"{URL + name} is not the file that was expected")
        with contextlib.suppress(OSError):  # it only saves the next download
            keep(path, content)
    return np.frombuffer(gzip.decompress(content), np.uint8)[head:]


def keep(path, content):
    """Write a file beside its place and rename it, so that no half of it is ever found."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_bytes(content)
    os.replace(beside, path)


def load_data():
    """Return (name, pictures (N, 784) float32 from 0 to 1, labels (N,) int64).

    OSError if there are neither MNIST's digits nor those of scikit-learn.
    """
    try:
        pixels = [download(name).reshape(-1, 784) for name in FILES if "images" in name]
        labels = [download(name) for name in FILES if "labels" in name]
    except OSError as error:
        pictures, labels = load_small_digits(error)
        name = f"scikit-learn's small digits, since MNIST could not be loaded ({error})"
        return name, pictures, labels
    return "MNIST", np.float32(np.concatenate(pixels)) / 255, np.int64(np.concatenate(labels))


def load_small_digits(reason):
    """Return pictures (1797, 784) and labels (1797,) of scikit-learn's digits, as load_data."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        advice = "pip install scikit-learn, and its small digits are used"
        raise OSError(f"MNIST could not be loaded ({reason}); {advice}") from None
    small, labels = load_digits(return_X_y=True)
    # 8 x 8 pixels, each three times as wide and high, in a frame of two
    large = np.kron(small.reshape(-1, 8, 8), np.ones((3, 3)))
    framed = np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    return np.float32(framed / 16), labels.astype(np.int64)


def split(pictures, labels, seed):
    """Return shuffled tensors: pictures and labels to train with, and a seventh to test with."""
    # As in the book, from all digits; published results test with MNIST's own 10,000
    order = np.random.default_rng(seed).permutation(len(labels))
    x = torch.from_numpy(pictures[order])
    y = torch.from_numpy(labels[order])
    n = len(y) // 7
    return x[n:], y[n:], x[:n], y[:n]


# %% Network
def make_network():
    """Maps pictures (B, 784) to logits (B, 10)."""
    return nn.Sequential(
        nn.Linear(784, 100),
        nn.ReLU(),
        nn.Linear(100, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


# %% Train
def train_epoch(network, optimizer, x, y, batch_size=64):
    """Learn from every picture once, in random order; return the mean loss of the batches."""
    losses = []
    for index in torch.randperm(len(y)).split(batch_size):
        loss = nn.functional.cross_entropy(network(x[index]), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def predict(network, x):
    """Return the likeliest digit of each picture: (B,)."""
    return network(x).argmax(1)


def train(x, y, x_test, y_test, seed=0, epochs=3):
    """Return the network, and its accuracy (share of right answers) before and after each epoch."""
    torch.manual_seed(seed)
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    shares = [(predict(network, x_test) == y_test).float().mean().item()]
    for epoch in range(1, epochs + 1):
        loss = train_epoch(network, optimizer, x, y)
        shares.append((predict(network, x_test) == y_test).float().mean().item())
        print(f"Epoch {epoch}: loss {loss:.3f}, {shares[-1]:.1%} of {len(y_test):,} digits right.")
    return network, shares


# %% Results
def draw(x, labels, predictions):
    """Return a figure of the first digit, and of up to 17 that were taken for another."""
    wrong = (labels[1:] != predictions[1:]).nonzero().flatten()[:17] + 1
    shown = [0, *wrong.tolist()]
    rows = -(-len(shown) // 6)  # rounded up
    figure = Figure(figsize=(9, 1.8 * rows + 0.5), layout="constrained")
    figure.suptitle("The first test digit, and some that were taken for another", fontsize=14)
    places = figure.subplots(rows, 6, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, i in zip(places, shown):
        axes.imshow(x[i].reshape(28, 28).numpy(), cmap="gray_r")
        colour = "C2" if predictions[i] == labels[i] else "C3"
        axes.set_title(f"read {predictions[i]}, is {labels[i]}", color=colour)
    return figure


# %% Main
def parse(arguments):
    """Return the options; a bad one ends the program with one line."""
    parser = argparse.ArgumentParser(f"{NAME}.py", argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, metavar="X")
    parser.add_argument("--output-dir", type=Path, default=Path("runs", NAME), metavar="DIR")
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**32:
        parser.error(f"seed must be from 0 to {2**32 - 1}, not {options.seed}")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    return options


def main(arguments=()):
    """Train and draw; return the shares of right answers."""
    options = parse(arguments)
    try:
        name, pictures, labels = load_data()
    except OSError as error:
        print(f"{NAME}.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(labels):,} digits: {name}.")
    x, y, x_test, y_test = split(pictures, labels, options.seed)
    network, shares = train(x, y, x_test, y_test, options.seed)
    print(f"Read correctly: {shares[0]:.1%} before the training, {shares[-1]:.1%} after it.")
    figure = draw(x_test, y_test, predict(network, x_test))
    figure.savefig(options.output_dir / "mnist.png", dpi=150)
    print(f"Results are in {options.output_dir}.")
    return shares


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    main([] if in_cell else sys.argv[1:])
