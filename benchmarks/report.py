"""Puts the figures of results/ into the pages and the scripts' "Expect:" lines; draws the pictures.

    python benchmarks/report.py [--check]

--check changes nothing and exits with 1 where a file does not say what the results say.
"""

import argparse
import difflib
import hashlib
import json
import re
import sys
from pathlib import Path

import figures
import pandas as pd
from PIL import Image
from seeds import FOLDER, PROGRAMS, SCRIPTS, read

ROOT = Path(__file__).parent.parent
TITLES = {"cartpole": "`{}_cartpole.py`", "port": "the book's {}, ported", "sb3": "SB3's {}"}
ORDER = {f"{n}_{kind}": TITLES[kind].format(n) for kind, names in PROGRAMS.items() for n in names}
NEIGHBOURS = {  # which sections to compare (None: all), and what to say
    ("dqn", "ddqn"): (
        None,
        "Two networks share the target: one picks the next action, one values it.",
    ),
    ("ddqn", "dueling"): (None, "One output layer becomes two: Q = V + A - mean A (equation 9)."),
    ("ddqn", "per"): (None, "The memory draws by priority and returns importance weights."),
    ("a2c", "breakout"): (
        ("Memory", "Network", "Agent"),
        "A convolutional network reads pictures; the agent can average gradients and be resumed.",
    ),
}
JAPANESE = {
    "script": "スクリプト",
    "seeds solved": "解けたシード",
    "episodes": "エピソード",
    "environment steps": "環境ステップ",
    "seconds": "秒",
    "evaluation, worst seed": "評価: 最も悪いシード",
    "environment steps of training": "学習した環境ステップ",
    "games": "ゲーム数",
    "mean score": "平均得点",
    "standard deviation": "標準偏差",
    "min": "最低",
    "max": "最高",
    "best life": "1ライフの最高得点",
}


def number(value):
    """A median as it is: no rounding of halves."""
    return f"{value:,.1f}".removesuffix(".0")


def spread(values, form=number, worst=max):
    """The median, in brackets the 95th percentile (the 5th where less is worse) and the worst."""
    tail = values.quantile(0.95 if worst is max else 0.05)
    return f"{form(values.median())} ({form(round(tail, 1))}; {form(worst(values))})"


def seeds_table(rows, key="program", extra=()):
    """A row for each program: how many seeds were solved, how fast, and how well it then plays."""
    table = {}
    for name, group in rows.groupby(key, sort=False):
        table[name] = {
            "seeds solved": f"{group.solved.sum():.0f} / {len(group)}",
            "episodes": spread(group.episodes),
            "environment steps": spread(group.env_steps),
            "ten in a row at": number(group.get("ten_in_a_row", group.env_steps).median()),
            "seconds": spread(group.train_seconds, "{:.1f}".format),
            "evaluation": spread(group.evaluation_mean, "{:.1f}".format, min),
        } | {column: f"{group[column].median():.2f}" for column in extra}
    return pd.DataFrame(table).T


def short_table(table, rows):
    """The five scripts for the READMEs."""
    table = table.loc[[f"{name}_cartpole" for name in SCRIPTS]]
    worst = rows.groupby("program").evaluation_mean.min()
    table = table.assign(**{"evaluation, worst seed": [f"{worst[key]:.1f}" for key in table.index]})
    table = table.drop(columns=["evaluation", "ten in a row at"])
    return table.replace(r"; [\d,.]+\)", ")", regex=True)


def ratios_table(rows, learning):
    """Each script relative to its port or rival, on the seeds that both ran."""
    table = {}
    for name, kind in [(n, k) for k in ("port", "sb3") for n in PROGRAMS[k]]:
        pair = [rows[rows.program == f"{name}_{k}"].set_index("seed") for k in ("cartpole", kind)]
        a, b = (side.loc[pair[0].index.intersection(pair[1].index)] for side in pair)
        speed = [learning.get(f"{name}_{k}", float("nan")) for k in ("cartpole", kind)]
        table[f"{ORDER[f'{name}_cartpole']} / {ORDER[f'{name}_{kind}']}"] = {
            "seeds": len(a),
            "seconds": f"{a.train_seconds.median() / b.train_seconds.median():.2f}",
            "slowest seed": f"{a.train_seconds.max() / b.train_seconds.max():.2f}",
            "environment steps": f"{a.env_steps.median() / b.env_steps.median():.2f}",
            "steps/s while learning": f"{speed[0] / speed[1]:.1f}".replace("nan", ""),
        }
    return pd.DataFrame(table).T


def costs_table(costs):
    """What a step costs, and the whole command."""
    rows = {
        f"sum tree, {int(n):,} transitions, us a step": f"{x:.0f}"
        for n, x in costs["sum_tree"].items()
    }
    rows["a step of PER / of double DQN, while learning"] = f"{costs['per_step']:.2f}"
    for threads, x in costs["busy"].items():
        rows[f"speed beside a busy process / alone, {threads} PyTorch threads"] = f"{x:.2f}"
    rows |= {
        f"whole command, `{script}.py`, s": f"{x:.1f}" for script, x in costs["command"].items()
    }
    return pd.DataFrame({"": rows})


def agent_table(history, games):
    """The shipped Breakout agent."""
    score = games.score
    row = [len(score), f"{score.mean():.1f}", f"{score.std(ddof=0):.1f}", score.min(), score.max()]
    columns = ["games", "mean score", "standard deviation", "min", "max", "best life"]
    steps = f"{history.env_steps.iloc[-1]:,}"
    return pd.DataFrame([[*row, games.best_life.max()]], [steps], columns)


def markdown(table, head, translate=None):
    """A table in Markdown, its heads translated."""
    text = table.rename_axis(head).reset_index().astype(str)
    return text.rename(columns=translate or {}).to_markdown(index=False, disable_numparse=True)


def sections(name, titles):
    """The lines of a script's sections; without titles, of all but the introduction."""
    script = "a2c_breakout" if name == "breakout" else f"{name}_cartpole"
    parts = (ROOT / f"{script}.py").read_text().split("# %% Imports\n")[1]
    if titles:
        parts = re.split("(?m)^(?=# %% )", parts)
        parts = "".join(part for part in parts if part[5:].split("\n")[0] in titles)
    return parts.splitlines(), f"{script}.py"


def diffs_page():
    """What changes from each script to its neighbour, without the introductions at their tops."""
    page = ["# The diffs", "", "Without the introductions. Made by `python benchmarks/report.py`."]
    for (old, new), (titles, words) in NEIGHBOURS.items():
        (a, first), (b, second) = sections(old, titles), sections(new, titles)
        page += ["", f"## {first} to {second}", "", words, "", "```diff"]
        diff = difflib.unified_diff(a, b, first, second, n=2, lineterm="")
        page += ["@@" if line.startswith("@@") else line for line in diff] + ["```"]
    return "\n".join(page) + "\n"


def replaced(text, blocks):
    """The text with what stands between each block's two marks replaced."""
    for name, content in blocks.items():
        pattern = f"(?s)(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text = re.sub(pattern, lambda m, content=content: f"{m[1]}{content}\n{m[2]}", text)
    return text


def expectations(rows, history, games):
    """The "Expect:" line of each script."""
    for program in (f"{name}_cartpole" for name in SCRIPTS):
        group = rows[rows.program == program]
        yield (
            program,
            (
                f"Expect: solved after {number(group.env_steps.median())} environment steps and "
                f"{group.train_seconds.median():.1f} s (medians of {len(group)} seeds)."
            ),
        )
    steps = history.env_steps.iloc[-1] / 1e6
    score = f"{games.score.mean():.0f} in whole games ({len(games)} games, one training)"
    yield "a2c_breakout", f"Expect: after {steps:.1f} million steps a mean score of {score}."


def drawn(path, sources, figure, check):
    """Draws figure() into a PNG that names its sources' digest; returns whether it was stale."""
    digest = hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()
    if path.exists() and Image.open(path).info.get("Source") == digest:
        return False
    if not check:
        figure().savefig(path, metadata={"Source": digest})
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    names = ("seeds", "rule", "ablation", "breakout_history", "breakout_scores", "curves_seeds")
    rows, rule, ablation, history, games, curves = map(read, names)
    rows = rows.sort_values(["seed"]).set_index("program").loc[list(ORDER)].reset_index()
    costs = json.loads((FOLDER / "costs.json").read_text())
    table, agent = seeds_table(rows), agent_table(history, games)
    short, steps = short_table(table, rows), "environment steps of training"
    short.index = [ORDER[key] for key in short.index]
    variants = seeds_table(ablation, ["share", "program"], ["mean_weight"])
    variants.index = [
        f"{name}, {'full' if share == 1 else 'a quarter of the'} rate"
        for share, name in variants.index
    ]
    blocks = {
        "all": markdown(table.rename(index=ORDER), "program"),
        "rule": markdown(seeds_table(rule).rename(index=ORDER), "program"),
        "ratios": markdown(ratios_table(rows, costs["learning"]), "script / compared with"),
        "costs": markdown(costs_table(costs), "cost"),
        "ablation": markdown(variants.drop(columns=["seconds", "ten in a row at"]), "variant"),
    }
    texts = {ROOT / "docs" / "diffs.md": diffs_page()}
    for page, words in {"README.md": None, "docs/README.ja.md": JAPANESE}.items():
        pair = {"seeds": markdown(short, "script", words), "agent": markdown(agent, steps, words)}
        texts[ROOT / page] = replaced((ROOT / page).read_text(), pair)
    for page in ("docs/results.md", "docs/per_ablation.md"):
        texts[ROOT / page] = replaced((ROOT / page).read_text(), blocks)
    for script, words in expectations(rows, history, games):
        path = ROOT / f"{script}.py"
        texts[path] = re.sub("(?m)^Expect:.*", lambda _, w=words: w, path.read_text(), count=1)
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in [] if check else stale:
        path.write_text(texts[path])
    precision = {name: read(f"breakout_{name}") for name in ("float32", "bfloat16")}
    pictures = {  # each with what it is drawn from
        "a2c_breakout": (
            ["breakout_history"],
            lambda: figures.lines({"seed 0": history}, "A2C on Breakout"),
        ),
        "a2c_precision": (
            ["breakout_float32", "breakout_bfloat16"],
            lambda: figures.lines(precision, "A2C"),
        ),
        "curves": (["curves_seeds", "seeds"], lambda: figures.learning_curves(curves, rows)),
        "per_ablation": (["ablation"], lambda: figures.ablation(ablation)),
    }
    for name, (sources, figure) in pictures.items():
        paths = [FOLDER / f"{source}.csv" for source in sources]
        if drawn(ROOT / "docs" / f"{name}.png", paths, figure, check):
            stale.append(ROOT / "docs" / f"{name}.png")
    for path in stale if check else ():
        print(f"{path.name} does not say what results/ says: run benchmarks/report.py")
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
