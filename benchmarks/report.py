"""Puts the figures of results/ into the pages and the scripts' "Expect:" lines; draws the pictures and the diffs page.

    python benchmarks/report.py [--check]

--check changes nothing and exits with 1 where a file does not say what the results say.
"""

import argparse
import difflib
import hashlib
import json
import re
import sys
import textwrap
from pathlib import Path

import figures
import numpy as np
from ablation import ABLATION
from PIL import Image
from seeds import PROGRAMS, RESULTS, SCRIPTS, read

ROOT, FOLDER = Path(__file__).parent.parent, RESULTS.parent
sys.path.insert(0, str(ROOT))


def column(rows, program, name, seeds=None):
    """One column of one program's lines, in the order of the seeds."""
    lines = sorted((row for row in rows if row["program"] == program), key=lambda row: row["seed"])
    return np.array([row[name] for row in lines if seeds is None or row["seed"] in seeds])


def title(kind, name):
    """What a program is called in the tables."""
    forms = {
        "cartpole": f"`{name}_cartpole.py`",
        "port": f"article's {name}, ported",
        "sb3": f"SB3's {name.upper()}",
    }
    return forms[kind]


def spread(values, digits=0, low=False):
    """A cell: the median, the 5th and 95th percentile, and the worst."""
    middle, bottom, top = (f"{np.percentile(values, q):,.{digits}f}" for q in (50, 5, 95))
    return f"{middle} ({bottom}-{top}; {min(values) if low else max(values):,.{digits}f})"


def seeds_table(rows):
    """Scripts, ports and rivals: how many seeds were solved, how fast, and how well the greedy policy did."""
    yield "| program | seeds solved | episodes | environment steps | seconds | checks | evaluation, mean steps |"
    yield "|---|---|---|---|---|---|---|"
    for kind, names in PROGRAMS.items():
        for name in names:
            solved, episodes, steps, seconds, checks, mean = (
                column(rows, f"{name}_{kind}", field)
                for field in (
                    "solved",
                    "episodes",
                    "env_steps",
                    "train_seconds",
                    "checks",
                    "evaluation_mean",
                )
            )
            if len(solved):
                yield (
                    f"| {title(kind, name)} | {solved.sum():.0f} / {len(solved)} | {spread(episodes)} "
                    f"| {spread(steps)} | {spread(seconds, 1)} | {np.median(checks):.0f} | {spread(mean, 1, True)} |"
                )


def ratios_table(rows, costs):
    """Each script relative to its port or rival, on the seeds that both ran."""
    yield (
        "| script | compared with | seeds | seconds, median | seconds, slowest seed | environment steps, median "
        "| steps/s, whole training | steps/s while learning |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    learning = costs["learning"]
    for name, kind in [
        (name, kind) for name in SCRIPTS for kind in ("port", "sb3") if name in PROGRAMS[kind]
    ]:
        ours, other = f"{name}_cartpole", f"{name}_{kind}"
        common = set(column(rows, ours, "seed")) & set(column(rows, other, "seed"))
        if not common:
            continue
        a, b = (column(rows, program, "train_seconds", common) for program in (ours, other))
        x, y = (column(rows, program, "env_steps", common) for program in (ours, other))
        yield (
            f"| {title('cartpole', name)} | {title(kind, name)} | {len(common)} "
            f"| {np.median(a) / np.median(b):.2f} | {a.max() / b.max():.2f} | {np.median(x) / np.median(y):.2f} "
            f"| {(x.sum() / a.sum()) / (y.sum() / b.sum()):.1f} "
            f"| {f'{learning[ours] / learning[other]:.1f}' if other in learning else ''} |"
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
    whole = ", ".join(
        f"`{script}.py` {seconds:.1f} s" for script, seconds in costs["command"].items()
    )
    yield f"- The whole command, from start to the last file (median of five seeds): {whole}."


def ablation_table(rows):
    """What became of prioritized replay with each of its parts left out or done otherwise."""
    yield "| variant | learning rate | seeds solved | environment steps | evaluation, mean steps | mean weight |"
    yield "|---|---|---|---|---|---|"
    kinds = dict.fromkeys(
        (row["program"], row["share"]) for row in sorted(rows, key=lambda row: -row["share"])
    )
    for kind in kinds:
        chosen = [row for row in rows if (row["program"], row["share"]) == kind]
        solved, steps, mean, weight = (
            np.array([row[name] for row in chosen])
            for name in ("solved", "env_steps", "evaluation_mean", "mean_weight")
        )
        yield (
            f"| {kind[0]} | {'as is' if kind[1] == 1 else 'a quarter'} | {solved.sum():.0f} / {len(solved)} "
            f"| {spread(steps)} | {spread(mean, 1, True)} | {np.median(weight):.2f} |"
        )


def agent_table(history, games):
    """The shipped Breakout agent."""
    score, lives = ([game[name] for game in games] for name in ("score", "best_life"))
    yield "| environment steps of training | games played | mean score | standard deviation | min | max | best life |"
    yield "|---|---|---|---|---|---|---|"
    yield (
        f"| {history[-1]['env_steps']:,.0f} | {len(score)} | {np.mean(score):.1f} | {np.std(score):.1f} "
        f"| {min(score):.0f} | {max(score):.0f} | {max(lives):.0f} |"
    )


def speed_table(speed):
    """The speed of the training on Breakout, beside stable-baselines3's A2C and its own limit."""
    yield (
        "| games, precision | steps/s | times SB3's A2C | the network alone | the games alone "
        "| limit of taking turns | share of the limit | memory, GiB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    median = {name: values["speed"] for name, values in speed["medians"].items()}
    other = max(median[name] for name in median if name.startswith("sb3"))
    for name in sorted(name for name in median if name.startswith("ours")):
        _, games, precision = name.split(", ")
        network, environment = (
            median[f"network, {games}, {precision}"],
            median[f"environment, {games}"],
        )
        limit = 1 / (1 / network + 1 / environment)
        yield (
            f"| {games.removesuffix(' games')}, {precision} | {median[name]:,.0f} | {median[name] / other:.1f} "
            f"| {network:,.0f} | {environment:,.0f} | {limit:,.0f} | {median[name] / limit:.2f} "
            f"| {speed['medians'][name]['memory']:.2f} |"
        )
    yield f"| SB3's A2C, 16, float32 | {other:,.0f} | 1.0 | | | | | |"


def breakout_expectation(history, games):
    """The "Expect:" line of a2c_breakout.py."""
    score, steps = [game["score"] for game in games], history[-1]["env_steps"]
    return (
        f"Expect: a mean score of {np.mean(score):.0f} in whole games after {steps / 1e6:.1f} million steps\n"
        f"(the agent that play shows; {len(score)} games, one training)."
    )


def breakout_curve(history):
    """The learning curve of the shipped Breakout agent, as its script draws it."""
    import a2c_breakout

    return a2c_breakout.learning_curve(
        [a2c_breakout.Row(**row) for row in history], a2c_breakout.Config()
    )


def expectation(rows, script):
    """The script's "Expect:" line: what happened on the seeds that were run."""
    solved, episodes, seconds, mean = (
        column(rows, script, field)
        for field in ("solved", "episodes", "train_seconds", "evaluation_mean")
    )
    of = " of environment 0" if script == "a2c_cartpole" else ""
    return textwrap.fill(
        f"Expect: solved after {np.median(episodes):.0f} episodes{of} and {np.median(seconds):.1f} s (medians; "
        f"{solved.sum():.0f} of {len(solved)} seeds), then a greedy mean of {np.median(mean):.0f} steps (worst seed "
        f"{mean.min():.1f}).",
        80,
    )


NEIGHBOURS = {  # which sections to compare (None: all), and what to say
    ("dqn_cartpole", "ddqn_cartpole"): (
        None,
        """
The target's two halves come from two networks: the Q network picks the next action (argmax), the target network values
it (gather). That is the target of van Hasselt et al. 2016, y = r + gamma * Q_target(s', argmax_a Q(s', a)).
""",
    ),
    ("ddqn_cartpole", "dueling_cartpole"): (
        None,
        """
One output layer becomes two, for the value of the state and the advantage of each action, put together as in Wang et
al. 2016, equation 9: Q = V + A - mean A. Whoever calls the network sees no difference.
""",
    ),
    ("ddqn_cartpole", "per_cartpole"): (
        None,
        """
The memory draws by priority, from a sum tree, and returns importance weights, as in Schaul et al. 2016, algorithm 1.
`learn` weights its loss by them, and hands the TD errors back to become the new priorities.
""",
    ),
    ("a2c_cartpole", "a2c_breakout"): (
        ("Memory", "Network", "Agent"),
        """
A convolutional network reads pictures in place of four numbers, and what is new in the agent serves a run of hours:
another device, lower precision, several processes, checkpoints. Returns and loss (Mnih et al. 2016, algorithm S3) stay
as they are; only the sections Memory, Network and Agent are shown.
""",
    ),
}


def sections(name, titles=None):
    """The lines of a script's sections; without titles, of all but the introduction."""
    parts = (ROOT / f"{name}.py").read_text().split("# %% Imports\n")[1]
    if titles:
        parts = "".join(
            part for part in re.split("(?m)^(?=# %% )", parts) if part[5:].split("\n")[0] in titles
        )
    return parts.splitlines()


def diffs_page():
    """What changes from each script to its neighbour, without the introductions at their tops."""
    yield "# The diffs"
    yield ""
    yield "What changes from one script to the next idea's; the introductions at their tops are left out. Made by"
    yield "`python benchmarks/report.py`."
    for (old, new), (titles, words) in NEIGHBOURS.items():
        names = f"{old}.py", f"{new}.py"
        yield from ("", f"## {names[0]} to {names[1]}", words, "```diff")
        for line in difflib.unified_diff(
            sections(old, titles), sections(new, titles), *names, n=2, lineterm=""
        ):
            yield (
                "@@" if line.startswith("@@") else line
            )  # without the introductions the line numbers would be wrong
        yield "```"


JAPANESE = {  # the words in the heads of the tables
    "program": "プログラム",
    "seeds solved": "解けたシード",
    "episodes": "エピソード",
    "environment steps": "環境ステップ",
    "seconds": "秒",
    "checks": "検査",
    "evaluation, mean steps": "評価: 平均ステップ",
    "script": "スクリプト",
    "compared with": "比較対象",
    "seeds": "シード",
    "seconds, median": "秒: 中央値",
    "seconds, slowest seed": "秒: 最も遅いシード",
    "environment steps, median": "環境ステップ: 中央値",
    "steps/s, whole training": "ステップ/秒: 学習全体",
    "steps/s while learning": "ステップ/秒: 更新中",
    "environment steps of training": "学習した環境ステップ",
    "games played": "ゲーム数",
    "mean score": "平均得点",
    "standard deviation": "標準偏差",
    "min": "最低",
    "max": "最高",
    "best life": "最高のライフ",
    "games, precision": "ゲーム数, 精度",
    "steps/s": "ステップ/秒",
    "times SB3's A2C": "SB3 の A2C の何倍か",
    "the network alone": "ネットワークのみ",
    "the games alone": "ゲームのみ",
    "limit of taking turns": "交互に動かす場合の上限",
    "share of the limit": "上限に対する割合",
    "memory, GiB": "メモリ (GiB)",
}


def in_japanese(table):
    """A table for docs/README.ja.md."""
    head, *rest = table
    yield "| " + " | ".join(JAPANESE[cell] for cell in head.strip("| ").split(" | ")) + " |"
    for row in rest:
        row = re.sub(r"article's (\w+), ported", r"記事の \1 (移植)", row)
        yield re.sub(r"SB3's (\w+)", r"SB3 の \1", row)


def replaced(text, block, content):
    """The text with the block between its two marks replaced."""
    start, end = f"<!-- {block} -->\n", f"<!-- end of {block} -->"
    before, rest = text.split(start)
    return before + start + "\n".join(content) + "\n" + end + rest.split(end)[1]


def draw(path, sources, figure, check):
    """Draws figure() into a PNG that names the digest of its sources; returns whether it was not there or stale."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    if path.exists():
        with Image.open(path) as image:
            if image.text.get("Source") == digest:
                return False
    if not check:
        figure().savefig(path, metadata={"Source": digest})
    return True


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    rows, costs, speed = (
        read(),
        *(json.loads((FOLDER / f"{n}.json").read_text()) for n in ("costs", "breakout_speed")),
    )
    history, scores = (FOLDER / f"breakout_{name}.csv" for name in ("history", "scores"))
    tables = {
        "seeds": list(seeds_table(rows)),
        "ratios": list(ratios_table(rows, costs)),
        "agent": list(agent_table(read(history), read(scores))),
        "speed": list(speed_table(speed)),
    }
    readme = replaced((ROOT / "README.md").read_text(), "costs", costs_list(costs))
    japanese = (ROOT / "docs" / "README.ja.md").read_text()
    for block, table in tables.items():
        readme, japanese = (
            replaced(readme, block, table),
            replaced(japanese, block, in_japanese(table)),
        )
    texts = {ROOT / "README.md": readme, ROOT / "docs" / "README.ja.md": japanese}
    texts[ROOT / "docs" / "diffs.md"] = "\n".join(diffs_page()) + "\n"
    page = ROOT / "docs" / "per_ablation.md"
    texts[page] = replaced(page.read_text(), "ablation", ablation_table(read(ABLATION)))
    lines = {f"{name}_cartpole": expectation(rows, f"{name}_cartpole") for name in SCRIPTS}
    for name, line in {
        **lines,
        "a2c_breakout": breakout_expectation(read(history), read(scores)),
    }.items():
        path = ROOT / f"{name}.py"
        texts[path] = re.sub(
            r'^Expect:[^"]*(?=\n""")', lambda _, line=line: line, path.read_text(), flags=re.M
        )
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(texts[path])
    curves, precisions = (
        FOLDER / "curves.csv",
        [FOLDER / f"breakout_{name}.csv" for name in ("float32", "bfloat16")],
    )
    drawn = {  # each with what it is drawn from
        "a2c_breakout.png": ([history], lambda: breakout_curve(read(history))),
        "a2c_precision.png": (
            precisions,
            lambda: figures.precision({p.stem[9:]: read(p) for p in precisions}),
        ),
        "curves.png": ([curves, RESULTS], lambda: figures.learning_curves(read(curves), rows)),
        "per_ablation.png": ([ABLATION], lambda: figures.ablation(read(ABLATION))),
    }
    for name, (sources, figure) in drawn.items():
        if draw(ROOT / "docs" / name, sources, figure, check):
            stale.append(ROOT / "docs" / name)
    if check:
        for path in stale:
            print(f"{path.name} does not say what {FOLDER.name}/ says: run benchmarks/report.py")
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
