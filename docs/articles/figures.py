"""Draws the figures of these pages: memories, the sum tree, networks, returns, Breakout's frames.

    python docs/articles/figures.py

What is written in them is formulas and numbers, so that they serve pages in all languages.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
sys.path.insert(0, str(ROOT))
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


def sum_tree():
    """The article's tree of eight leaves, and the way that s = 24 takes from the root to a leaf."""
    leaves = [3, 10, 12, 4, 1, 2, 8, 2]
    levels = [leaves]
    while len(levels[0]) > 1:
        below = levels[0]
        levels.insert(0, [below[i] + below[i + 1] for i in range(0, len(below), 2)])
    places = [[(2**-k * 8 * (i + 0.5), -k) for i in range(2**k)] for k in range(4)]
    way = [0, 0, 1, 2]  # which node of each level
    axes = Figure((8, 4), layout="constrained").subplots()
    for k in range(3):
        for i, (x, y) in enumerate(places[k + 1]):
            above = places[k][i // 2]
            on_way = way[k + 1] == i
            colour = "tab:orange" if on_way else "0.7"
            axes.plot([above[0], x], [above[1], y], color=colour, zorder=0, lw=3 if on_way else 1)
    for k, values in enumerate(levels):
        for i, value in enumerate(values):
            colour = "tab:orange" if way[k] == i else "0.85"
            axes.text(
                *places[k][i],
                value,
                ha="center",
                va="center",
                bbox={"boxstyle": "circle,pad=0.4", "facecolor": colour, "edgecolor": "none"},
            )
    for i, (x, y) in enumerate(places[3]):
        axes.text(x, y - 0.42, f"i = {i}", ha="center", color="0.4")
    steps = ("24 < 29", "24 ≥ 13:  24 - 13 = 11", "11 < 12")
    for k, words in enumerate(steps):
        x, y = places[k][way[k]]
        axes.text(x + 0.45, y + 0.12, f"s = {words}", color="tab:orange", weight="bold")
    axes.set(xlim=(0, 8), ylim=(-3.7, 0.4))
    axes.set_axis_off()
    return axes.figure


def networks():
    """What goes through the Q network, the dueling network, and actor and critic."""
    rows = (
        ("QNetwork", ["s", "hidden 1", "hidden 2"], ["Q(s, a)"], None),
        (
            "QNetwork, dueling",
            ["s", "hidden 1", "hidden 2"],
            ["V(s)", "A(s, a)"],
            "Q = V + A - mean A",
        ),
        ("ActorCritic", ["s", "hidden 1", "hidden 2"], ["log pi(a | s)", "V(s)"], None),
    )
    figure = Figure((8, 5), layout="constrained")
    for axes, (title, line, heads, join) in zip(figure.subplots(3, 1), rows, strict=True):

        def box(x, y, words, axes=axes, colour="0.88"):
            style = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "none"}
            axes.text(x, y, words, ha="center", va="center", bbox=style)

        for x, words in enumerate(line):
            box(1.6 * x, 0, words)
            if x:
                axes.annotate(
                    "", (1.6 * x - 0.5, 0), (1.6 * x - 1.25, 0), arrowprops={"arrowstyle": "->"}
                )
        heights = [0] if len(heads) == 1 else [0.6, -0.6]
        for y, words in zip(heights, heads, strict=True):
            axes.annotate("", (4.2, y), (3.7, 0), arrowprops={"arrowstyle": "->"})
            box(4.9, y, words, colour="bisque")
            if join:
                axes.annotate("", (6.0, 0), (5.5, y), arrowprops={"arrowstyle": "->"})
        if join:
            box(7.1, 0, join, colour="bisque")
        axes.set_title(title, loc="left", fontsize=10)
        axes.set(xlim=(-0.5, 8.2), ylim=(-1.1, 1.1))
        axes.set_axis_off()
    return figure


def returns():
    """Five steps of one game: the last one's return has one reward, the first one's five."""
    axes = Figure((8, 3.2), layout="constrained").subplots()
    for t in range(5):
        y = -t
        for k in range(t, 5):
            words = ("", r"$\gamma\,$", r"$\gamma^2$", r"$\gamma^3$", r"$\gamma^4$")[k - t]
            axes.barh(y, 0.92, left=k, color="0.88")
            axes.text(k + 0.46, y, words + rf"$r_{k}$", ha="center", va="center")
        axes.barh(y, 1.2, left=5, color="bisque")
        power = "" if t == 4 else f"^{5 - t}"
        axes.text(5.6, y, rf"$\gamma{power}\,V(s_5)$", ha="center", va="center")
        axes.text(t - 0.1, y, rf"$R_{t} =$", ha="right", va="center")
    axes.set(xlim=(-0.7, 6.3))
    axes.set_axis_off()
    return axes.figure


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
        games.step(agent.act(games.state, games.idle))
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
    for draw in memories, sum_tree, networks, returns:
        draw().savefig(FOLDER / f"{draw.__name__}.png", dpi=80)
    game = played()
    for draw in frame, preparations:
        draw(*game).savefig(FOLDER / f"{draw.__name__}.png", dpi=80)


if __name__ == "__main__":
    main()
