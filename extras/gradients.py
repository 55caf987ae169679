# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.10"
# dependencies = ["matplotlib>=3.8", "numpy>=1.26", "torch>=2.4"]
# ///

# %% [markdown]
"""
# Gradients: what every network learns by

A loss is a function of numbers. Its gradient says how the loss changes with each of them, and
autograd computes it. Going a little against the gradient, again and again, makes the loss small:

    x <- x - learning_rate * d loss / d x

Three examples, each harder than the last: a valley (two numbers), a line through points (two
weights), a sine through points (a network). Beside the first part of the notebook on
ゼロから作る Deep Learning 4, which uses DeZero.

    python extras/gradients.py [--seed 3] [--output-dir DIR]
"""

# %% Imports
import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import nn

NAME = "gradients"


# %% Matrix product
def products():
    """Return the inner product of two vectors, and the product of two matrices (2, 2)."""
    a = torch.tensor([1, 2, 3])
    b = torch.tensor([4, 5, 6])
    c = torch.tensor([[1, 2], [3, 4]])
    d = torch.tensor([[5, 6], [7, 8]])
    return a @ b, c @ d


# %% Gradient descent
def rosenbrock(x0, x1):
    """A bent valley; its lowest point is (1, 1), where it is 0."""
    return 100 * (x1 - x0**2) ** 2 + (x0 - 1) ** 2


def descend(start=(0.0, 2.0), learning_rate=1e-3, steps=10_000):
    """Go down the valley; return all places (steps + 1, 2), the last near (1, 1)."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    path = [x.tolist()]
    for _ in range(steps):
        x.grad = None  # gradients add up; here each step needs its own
        rosenbrock(x[0], x[1]).backward()
        with torch.no_grad():  # the step itself is no part of the function
            x -= learning_rate * x.grad
        path.append(x.tolist())
    return np.array(path)


# %% Linear regression
def fit_line(x, y, learning_rate=0.1, steps=100):
    """Fit y = w x + b to points (N, 1); return w, b and the losses (steps,)."""
    w = torch.zeros(1, 1, requires_grad=True)
    b = torch.zeros(1, requires_grad=True)
    losses = []
    for _ in range(steps):
        loss = (x @ w + b - y).square().mean()  # mean squared error
        w.grad = None
        b.grad = None
        loss.backward()
        with torch.no_grad():
            w -= learning_rate * w.grad
            b -= learning_rate * b.grad
        losses.append(loss.item())
    return w.item(), b.item(), losses


# %% Regression with a network
def fit_network(x, y, learning_rate=0.2, steps=10_000):
    """Fit a network of ten hidden units to points (N, 1); return it and the losses (steps,)."""
    network = nn.Sequential(nn.Linear(1, 10), nn.Sigmoid(), nn.Linear(10, 1))
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    losses = []
    for _ in range(steps):
        loss = nn.functional.mse_loss(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # what the line's fit does by hand, for all weights
        losses.append(loss.item())
    return network, losses


# %% Results
def draw_valley(axes, path):
    """Draw the valley from above, and the way down (steps + 1, 2)."""
    x0, x1 = np.meshgrid(np.linspace(-0.3, 1.5, 300), np.linspace(-0.3, 2.3, 300))
    height = rosenbrock(x0, x1) + 1e-4  # a logarithm needs more than 0
    axes.contourf(x0, x1, height, np.logspace(-4, 3, 15), cmap="Blues", norm=LogNorm(1e-3, 1e4))
    axes.plot(path[:, 0], path[:, 1], color="C1", linewidth=2, label="steps")
    axes.plot(path[0, 0], path[0, 1], "o", color="C1", label="start")
    axes.plot(1, 1, "*", color="C3", markersize=14, label="lowest point")
    axes.set(title="Gradient descent in Rosenbrock's valley", xlabel="x0", ylabel="x1")
    axes.legend(loc="lower right")


def draw_fit(axes, x, y, t, fitted, title, label):
    """Draw points (N, 1), and what was fitted to them at the places t."""
    axes.plot(x, y, "o", color="0.65", markersize=4, label="data")
    axes.plot(t, fitted, color="C3", linewidth=2, label=label)
    axes.set(title=title, xlabel="x", ylabel="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def draw(path, x, line_y, w, b, sine_y, network):
    """Return a figure: the way down the valley, the line, the sine."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    valley, line, sine = figure.subplots(1, 3)
    draw_valley(valley, path)
    t = torch.linspace(0, 1, 100).reshape(-1, 1)
    draw_fit(line, x, line_y, t, w * t + b, "Linear regression", f"y = {w:.2f} x + {b:.2f}")
    draw_fit(sine, x, sine_y, t, network(t).detach(), "Regression with a network", "network")
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
    """Do all three; return the end of the path, (w, b), and the network's last loss."""
    options = parse(arguments)
    torch.manual_seed(options.seed)
    inner, product = products()
    print(f"a . b = {inner.item()}   c d = {product.tolist()}")

    path = descend()
    x0, x1 = path[-1]
    print(f"Rosenbrock: from (0, 2) to ({x0:.3f}, {x1:.3f}); lowest at (1, 1).")

    x = torch.rand(100, 1)
    noise = torch.rand(100, 1)
    line_y = 5 + 2 * x + noise
    sine_y = torch.sin(2 * torch.pi * x) + noise
    # On average y = 2 x + 5.5; after 100 steps w is still a little too large, and b too small
    w, b, line_losses = fit_line(x, line_y)
    line = f"y = {w:.2f} x + {b:.2f}"
    print(f"Line: {line}, loss from {line_losses[0]:.2f} to {line_losses[-1]:.3f}.")
    network, losses = fit_network(x, sine_y)
    print(f"Sine: loss from {losses[0]:.2f} to {losses[-1]:.3f}; the noise alone has 0.083.")

    figure = draw(path, x, line_y, w, b, sine_y, network)
    figure.savefig(options.output_dir / "gradients.png", dpi=150)
    print(f"Results are in {options.output_dir}.")
    return path[-1], (w, b), losses[-1]


if __name__ == "__main__":
    in_cell = sys.argv[0].endswith("kernel_launcher.py")  # then the flags are the notebook's own
    main([] if in_cell else sys.argv[1:])
