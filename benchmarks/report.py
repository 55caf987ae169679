"""Puts the measured figures of results/ into the README and the scripts' "Expect:" lines, and writes docs/diffs.md.

    python benchmarks/report.py [--check]

--check changes nothing and exits with 1 where a file does not say what the results say.
"""

import argparse
import difflib
import json
import re
import sys
from pathlib import Path

import numpy as np
from seeds import PORTS, RESULTS, SCRIPTS, read

ROOT = Path(__file__).parent.parent


def column(rows, program, name, seeds=None):
    """One column of one program's lines, in the order of the seeds."""
    lines = sorted((row for row in rows if row["program"] == program), key=lambda row: row["seed"])
    return np.array([row[name] for row in lines if seeds is None or row["seed"] in seeds])


def seeds_table(rows):
    """Scripts and ports: how many seeds were solved, how fast, and how well the greedy policy did."""
    yield (
        "| program | seeds solved | episodes: median (95th percentile, worst) | seconds: median (worst) "
        "| steps: median | checks: median | evaluation, mean steps: worst seed |"
    )
    yield "|---|---|---|---|---|---|---|"
    for kind, names in (("cartpole", SCRIPTS), ("port", PORTS)):
        for name in names:
            program = f"{name}_{kind}"
            solved, episodes, seconds, steps, checks, mean = (
                column(rows, program, field)
                for field in ("solved", "episodes", "train_seconds", "env_steps", "checks", "evaluation_mean")
            )
            title = f"`{program}.py`" if kind == "cartpole" else f"article's {name}, ported"
            yield (
                f"| {title} | {solved.sum():.0f} of {len(solved)} "
                f"| {np.median(episodes):.0f} ({np.percentile(episodes, 95):.0f}, {episodes.max():.0f}) "
                f"| {np.median(seconds):.1f} ({seconds.max():.1f}) | {np.median(steps):,.0f} "
                f"| {np.median(checks):.0f} | {mean.min():.1f} |"
            )


def ratios_table(rows, costs):
    """Each script relative to its port, on the seeds that both ran."""
    yield (
        "| script | seeds | seconds, median | seconds, slowest seed | steps/s, whole training | steps/s while learning "
        "| the whole command |"
    )
    yield "|---|---|---|---|---|---|---|"
    for name in PORTS:
        ours, port = f"{name}_cartpole", f"{name}_port"
        common = set(column(rows, ours, "seed")) & set(column(rows, port, "seed"))
        a, b = (column(rows, program, "train_seconds", common) for program in (ours, port))
        x, y = (column(rows, program, "env_steps", common) for program in (ours, port))
        learning = costs["learning"]
        yield (
            f"| `{ours}.py` | {len(common)} | {np.median(a) / np.median(b):.2f} | {a.max() / b.max():.2f} "
            f"| {(x.sum() / a.sum()) / (y.sum() / b.sum()):.1f} | {learning[ours] / learning[port]:.1f} "
            f"| {costs['command'][ours]:.1f} s |"
        )


def costs_list(costs):
    """The figures that are not a script's own."""
    tree = costs["sum_tree"]
    small, large = tree["10000"], tree["1000000"]
    yield (
        f"- The sum tree costs {small:.0f} us a step with 10,000 transitions and {large:.0f} us with a million: "
        f"{large / small:.2f} times as much."
    )
    unpaired = costs["learning"]["ddqn_cartpole"] / costs["learning"]["per_cartpole"]
    yield (
        f"- A step of PER takes {costs['per_step']:.2f} times one of double DQN, while learning (median of 15 pairs, "
        f"run one after the other); where the ports ran in between, the medians of 5 runs give {unpaired:.2f}."
    )
    one, two = costs["busy"]["1"], costs["busy"]["2"]
    yield (
        f"- Beside a process that keeps one of two cores busy, double DQN runs at {one:.2f} of its speed alone. With "
        f"PyTorch left to use two threads it runs at {two:.2f} of its speed alone."
    )


def breakout_figures():
    """What the shipped Breakout agent was trained for and scores, and the speeds: (history, scores, speed)."""
    history, scores = (
        np.genfromtxt(RESULTS.parent / f"breakout_{name}.csv", delimiter=",", names=True)
        for name in ("history", "scores")
    )
    return history, scores, json.loads((RESULTS.parent / "breakout_speed.json").read_text())


def breakout_list(history, scores, speed):
    """The shipped agent, and the speed of its training."""
    score, steps = scores["score"], history["env_steps"][-1]
    yield (
        f"- The agent in `weights/` was trained for {steps / 1e6:.1f} million steps with seed 0. Its score in "
        f"{len(score)} whole games: mean {score.mean():.1f}, standard deviation {score.std():.1f}, lowest "
        f"{score.min():.0f}, highest {score.max():.0f}. Its best life: {scores['best_life'].max():.0f} points."
    )
    median = {name: values["speed"] for name, values in speed["medians"].items()}
    other = max(median[name] for name in median if name.startswith("sb3"))
    for name in sorted(name for name in median if name.startswith("ours")):
        _, games, precision = name.split(", ")
        parts = [median[f"network, {games}, {precision}"], median[f"environment, {games}"]]
        limit = 1 / sum(1 / part for part in parts)
        yield (
            f"- {games}, {precision}: {median[name]:,.0f} steps a second, {median[name] / other:.1f} times as many as "
            f"stable-baselines3's A2C ({other:,.0f}; 16 games, float32). The network alone makes {parts[0]:,.0f}, "
            f"the games alone {parts[1]:,.0f}: taking turns they could reach {limit:,.0f}, of which this is "
            f"{median[name] / limit:.2f}. Memory: {speed['medians'][name]['memory']:.2f} GiB."
        )


def breakout_expectation(history, scores):
    """The "Expect:" line of a2c_breakout.py."""
    score, steps = scores["score"], history["env_steps"][-1]
    return (
        f"Expect: a mean score of {score.mean():.0f} in whole games after {steps / 1e6:.1f} million steps\n"
        f"(the agent that play shows; {len(score)} games, one training)."
    )


def expectation(rows, script):
    """The script's "Expect:" line: what happened on the seeds that were run."""
    solved, episodes, seconds, mean = (
        column(rows, script, field) for field in ("solved", "episodes", "train_seconds", "evaluation_mean")
    )
    of = " of environment 0" if script == "a2c_cartpole" else ""
    return (
        f"Expect: solved after {np.median(episodes):.0f} episodes{of} and {np.median(seconds):.1f} s (medians; "
        f"{solved.sum():.0f} of {len(solved)} seeds),\n"
        f"then a greedy mean of {np.median(mean):.0f} steps (worst seed {mean.min():.1f})."
    )


NEIGHBOURS = {
    ("dqn", "ddqn"): """
The target's two halves come from two networks: the Q network picks the next action (argmax), the target network values
it (gather). That is the target of van Hasselt et al. 2016, y = r + gamma * Q_target(s', argmax_a Q(s', a)).
""",
    ("ddqn", "dueling"): """
One output layer becomes two, for the value of the state and the advantage of each action, put together as in Wang et
al. 2016, equation 9: Q = V + A - mean A. Whoever calls the network sees no difference.
""",
    ("ddqn", "per"): """
The memory draws by priority, from a sum tree, and returns importance weights, as in Schaul et al. 2016, algorithm 1.
`learn` weights its loss by them, and hands the TD errors back to become the new priorities.
""",
}


def diffs_page():
    """What changes from each script to its neighbour, without the introductions at their tops."""

    def body(name):
        return (ROOT / f"{name}_cartpole.py").read_text().split("# %% Imports\n")[1].splitlines()

    yield "# The diffs"
    yield ""
    yield "What changes from one script to the next idea's; the introductions at their tops are left out. Made by"
    yield "`python benchmarks/report.py`."
    for (old, new), words in NEIGHBOURS.items():
        names = f"{old}_cartpole.py", f"{new}_cartpole.py"
        yield from ("", f"## {names[0]} to {names[1]}", words, "```diff")
        for line in difflib.unified_diff(body(old), body(new), *names, n=2, lineterm=""):
            yield "@@" if line.startswith("@@") else line  # without the introductions the line numbers would be wrong
        yield "```"


def replaced(text, block, content):
    """The text with the block between its two marks replaced."""
    start, end = f"<!-- {block} -->\n", f"<!-- end of {block} -->"
    before, rest = text.split(start)
    return before + start + "\n".join(content) + "\n" + end + rest.split(end)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    rows, costs = read(), json.loads((RESULTS.parent / "costs.json").read_text())
    readme = (ROOT / "README.md").read_text()
    readme = replaced(readme, "seeds", seeds_table(rows))
    readme = replaced(readme, "ratios", ratios_table(rows, costs))
    history, scores, speed = breakout_figures()
    readme = replaced(readme, "breakout", breakout_list(history, scores, speed))
    texts = {ROOT / "README.md": replaced(readme, "costs", costs_list(costs))}
    texts[ROOT / "docs" / "diffs.md"] = "\n".join(diffs_page()) + "\n"
    lines = {f"{name}_cartpole": expectation(rows, f"{name}_cartpole") for name in SCRIPTS}
    for name, line in {**lines, "a2c_breakout": breakout_expectation(history, scores)}.items():
        path = ROOT / f"{name}.py"
        texts[path] = re.sub(r'^Expect:[^"]*(?=\n""")', lambda _, line=line: line, path.read_text(), flags=re.M)
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.name} does not say what {RESULTS.parent.name}/ says: run benchmarks/report.py")
        else:
            path.write_text(texts[path])
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
