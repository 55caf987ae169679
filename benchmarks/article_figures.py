"""Draws the figures of docs/articles/: the two memories, a frame of Breakout, its four preparations.

python benchmarks/article_figures.py
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
FOLDER = ROOT / "docs" / "articles"
ERRORS = np.array([0.3, 0.1, 1.0, 0.2, 0.6, 0.1, 0.9, 0.4])


def memories():
    """Eight transitions, their TD errors, and four draws, one from each quarter of the sum."""
    import per_cartpole

    tree = per_cartpole.SumTree(len(ERRORS))
    tree[np.arange(len(ERRORS))] = ERRORS
    draws = (np.arange(4) + np.array([0.6, 0.8, 0.6, 0.4])) / 4 * ERRORS.sum()
    found = tree.find(draws)
    figure = Figure((8, 4), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(2, 1))
    colours = ["tab:orange" if i in found else "0.8" for i in range(len(ERRORS))]
    above.bar(range(len(ERRORS)), ERRORS, color=colours)
    names = [f"s{i}, a{i},\nr{i}, s{i + 1}" for i in range(len(ERRORS))]
    above.set(title="Beside each transition, its |TD error|", xticks=range(len(names)))
    above.set_xticklabels(names)
    ends = np.cumsum(ERRORS)
    below.barh(0, ERRORS, left=ends - ERRORS, color=colours, edgecolor="white")
    for i, (end, error) in enumerate(zip(ends, ERRORS, strict=True)):
        below.text(end - error / 2, 0, i, ha="center", va="center")
    for part in np.arange(5) * ERRORS.sum() / 4:
        below.axvline(part, color="0.4", linestyle=":", linewidth=1)
    below.plot(draws, [0.6] * 4, "v", color="black")
    below.set(title="End to end: one draw (triangle) from each equal part finds a transition")
    below.set(yticks=[], ylim=(-0.5, 0.8), xlabel="running sum of |TD error|")
    return figure


def played():
    """A game of the shipped agent: its states (84 x 84), and (picture, lives) of every frame."""
    import ale_py
    import torch
    from ale_py import roms

    import a2c_breakout

    torch.manual_seed(1)
    agent = a2c_breakout.Agent(a2c_breakout.Config())
    weights = ROOT / "weights" / "a2c_breakout.pth"
    a2c_breakout.load_weights(agent, weights)
    games = a2c_breakout.Games(1, 0, 18_000, fire=True)
    states, frames = [], []
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0)
    ale.loadROM(roms.get_rom_path("breakout"))
    actions = ale.getMinimalActionSet()
    _, info = a2c_breakout.make_env(1, 18_000).reset(seed=games.seeds)
    for _ in range(info["frame_number"][0]):
        ale.act(actions[0])
    while not games.ended[0]:
        games.step(agent.act(games.state))
        states.append(games.state[0])
        for _ in range(4):
            ale.act(actions[games.action[0]])  # FIRE included
            frames.append((ale.getScreenRGB(), ale.lives()))
    return states, frames


def frame(states, frames):
    """A whole frame, with what is written in it."""
    axes = Figure((6, 5), layout="constrained").subplots()
    axes.imshow(frames[1200][0], aspect=0.8)
    for word, x in ("score", 50), ("lives", 105), ("player", 135):
        axes.text(x, -6, word, ha="center")
    for word, y in ("points of a brick:\n7, 7, 4, 4, 1, 1", 75), ("paddle", 192):
        axes.text(165, y, word, va="center")
    axes.set(xlabel="160 pixels", ylabel="210 pixels", xticks=[], yticks=[])
    return axes.figure


def preparations(states, frames):
    """A row for each: no-ops, a lost life, four frames an action, 84 x 84 and a stack."""
    import a2c_breakout

    started, info = a2c_breakout.make_env(5, 18_000, colour=True).reset(seed=np.arange(5))
    lost = next(i for i in range(800, len(frames)) if frames[i][1] < frames[i - 1][1])
    four = [(f"frame {i + 1}", frames[1200 + i][0]) for i in range(4)]
    brightest = ("brighter of 3 and 4", np.maximum(four[2][1], four[3][1]))
    rows = {
        "1. Games start after 0 to 29 frames without action (noop_max=30)": [
            (f"{n} frames", picture)
            for n, picture in zip(info["frame_number"], started[:, 0], strict=True)
        ],
        "2. A lost life ends the return, the wall stays": [
            (f"{frames[i][1]} lives", frames[i][0]) for i in range(lost - 16, lost + 12, 8)
        ],
        "3. An action lasts four frames (frameskip=4, maxpool=True)": [*four, brightest],
        "4. 84 x 84 and grey; the last four make a state": [
            (name, states[300][i]) for i, name in enumerate(("t - 3", "t - 2", "t - 1", "t"))
        ],
    }
    figure = Figure((8, 9), layout="constrained")
    for part, (title, pictures) in zip(figure.subfigures(4, 1), rows.items(), strict=True):
        part.suptitle(title, x=0.02, ha="left")
        for axes in (all_axes := part.subplots(1, 5)):
            axes.set_axis_off()
        for axes, (name, picture) in zip(all_axes, pictures, strict=False):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_title(name, fontsize=9)
    return figure


def main():
    memories().savefig(FOLDER / "memories.png", dpi=80)
    game = played()
    for draw in frame, preparations:
        draw(*game).savefig(FOLDER / f"{draw.__name__}.png", dpi=80)


if __name__ == "__main__":
    main()
