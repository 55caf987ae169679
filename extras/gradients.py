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

    python gradients.py [--seed 3] [--output-dir DIR]
"""

# %% Imports
import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


# %% Matrix product
def products():
    """Return the inner product of two vectors, and the product of two matrices (2, 2)."""
    a, b = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    c, d = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[5, 6], [7, 8]])
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
    w, b, losses = torch.zeros(1, 1, requires_grad=True), torch.zeros(1, requires_grad=True), []
    for _ in range(steps):
        loss = (x @ w + b - y).square().mean()  # mean squared error
        w.grad = b.grad = None
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
    optimizer, losses = torch.optim.SGD(network.parameters(), learning_rate), []
    for _ in range(steps):
        loss = nn.functional.mse_loss(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # the two lines of the line's fit, for all weights
        losses.append(loss.item())
    return network, losses


# %% Results
def draw(path, x, line_y, w, b, sine_y, network):
    """Return a figure: the way down the valley, the line, the sine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    valley, line, sine = figure.subplots(1, 3)
    x0, x1 = np.meshgrid(np.linspace(-0.2, 1.4, 200), np.linspace(-0.2, 2.2, 200))
    levels = np.logspace(-2, 3, 12)
    valley.contour(x0, x1, rosenbrock(x0, x1), levels, colors="0.8")
    valley.plot(*path.T, label="steps")
    valley.plot(1, 1, "r*", label="lowest point")
    valley.set(title="Rosenbrock's function", xlabel="x0", ylabel="x1")
    t = torch.linspace(0, 1, 100).reshape(-1, 1)
    line.scatter(x, line_y, s=10, color="0.6")
    line.plot(t, w * t + b, "r", label=f"y = {w:.2f} x + {b:.2f}")
    line.set(title="Linear regression", xlabel="x", ylabel="y")
    sine.scatter(x, sine_y, s=10, color="0.6")
    sine.plot(t, network(t).detach(), "r", label="network")
    sine.set(title="Sine regression", xlabel="x", ylabel="y")
    for axes in (valley, line, sine):
        axes.legend()
    return figure


# %% Main
def main(arguments=()):
    """Do all three; return the end of the path, (w, b), and the network's last loss."""
    parser = argparse.ArgumentParser("gradients.py", argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="of the points and the network (0)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/gradients"))
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed {options.seed} is not from 0 to {2**32 - 1}")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(error)
    torch.manual_seed(options.seed)
    print("a . b =", products()[0].item(), "  c d =", products()[1].tolist())
    path = descend()
    print(f"Rosenbrock: from (0, 2) to ({path[-1][0]:.3f}, {path[-1][1]:.3f}); lowest at (1, 1).")
    x, noise = torch.rand(100, 1), torch.rand(100, 1)
    line_y, sine_y = 5 + 2 * x + noise, torch.sin(2 * torch.pi * x) + noise
    w, b, losses = fit_line(x, line_y)
    print(f"Line: y = {w:.2f} x + {b:.2f}, loss from {losses[0]:.2f} to {losses[-1]:.3f}.")
    network, losses = fit_network(x, sine_y)
    print(f"Sine: loss from {losses[0]:.2f} to {losses[-1]:.3f}; the noise alone has 0.083.")
    draw(path, x, line_y, w, b, sine_y, network).savefig(options.output_dir / "gradients.png")
    print(f"The picture is {options.output_dir / 'gradients.png'}.")
    return path[-1], (w, b), losses[-1]


if __name__ == "__main__":
    main([] if "ipykernel" in sys.modules else sys.argv[1:])
