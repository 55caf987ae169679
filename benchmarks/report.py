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
import textwrap
from pathlib import Path

import figures
import tables
from PIL import Image
from seeds import FOLDER, SCRIPTS, read
from tables import markdown, number

import weights

ROOT = Path(__file__).parent.parent
NEIGHBOURS = (  # which sections to compare (none: all), and what to say
    ("dqn", "ddqn", "", "Two networks share the target: one picks the next action, one values it."),
    ("ddqn", "dueling", "", "One output layer becomes two: Q = V + A - mean A (equation 9)."),
    ("ddqn", "per", "", "The memory draws by priority and returns importance weights."),
    ("a2c", "breakout", "Memory Network Agent", "A convolutional network reads pictures; the agent "
     "can average gradients and be resumed."),
)  # fmt: skip
CSVS = ("seeds", "curves_seeds", "breakout_history", "breakout_scores")
Q_AGENT = ("per_breakout_history", "per_breakout_scores")  # of the agent that is shipped
ARMS = ("arms", "arms_scores")
OTHERS = ("ablation", "inside", "own_task", "parts", "per_dueling", "articles", "gridworld")
SEEDS = ("breakout_seeds", "breakout_games", "divergence")
PRECISIONS = ("breakout_float32", "breakout_bfloat16")
COSTS = ("costs", "breakout_speed", "dqn_speed")
PAGES = {"README.md": None, "docs/README.ja.md": 0, "docs/README.ko.md": 1}  # languages of HEADS


def sections(name, titles):
    """The lines of a script's sections; without titles, of all but the introduction."""
    script = "a2c_breakout" if name == "breakout" else f"{name}_cartpole"
    text = (ROOT / f"{script}.py").read_text().split("# %% Imports\n")[1]
    parts = re.split("(?m)^(?=# %% )", text)
    chosen = [part for part in parts if not titles or part[5:].split("\n")[0] in titles.split()]
    return "".join(chosen).splitlines(), f"{script}.py"


def diffs_page():
    """What changes from each script to its neighbour, without the introductions at their tops."""
    page = ["# The diffs", "", "Without the introductions. Made by `python benchmarks/report.py`."]
    for old, new, titles, words in NEIGHBOURS:
        (a, first), (b, second) = sections(old, titles), sections(new, titles)
        page += ["", f"## {first} to {second}", "", words, "", "```diff"]
        diff = difflib.unified_diff(a, b, first, second, n=2, lineterm="")
        page += ["@@" if line.startswith("@@") else line for line in diff] + ["```"]
    return "\n".join(page) + "\n"


def expectations(rows, history, games):
    """What each script may be expected to do: {script: words}."""
    for name in (f"{name}_cartpole" for name in SCRIPTS):
        group = rows[rows.program == name]
        episodes, steps, mean = group[["episodes", "env_steps", "evaluation_mean"]].median()
        medians = f"{number(episodes)} episodes, {number(steps)} steps"
        seconds, seeds = group.train_seconds.median(), f"{group.solved.sum()} of {len(group)} seeds"
        yield (
            name,
            f"{medians}, {seconds:.1f} s (medians; {seeds} solved); greedy {number(mean)} steps.",
        )
    for name, curve, scores in (
        ("a2c_breakout", history, games),
        ("extras/per_breakout", *map(read, Q_AGENT)),
    ):
        score = f"{scores.score.mean():.0f} in whole games ({len(scores)} games, one training)"
        million = f"{curve.env_steps.iloc[-1] / 1e6:.1f} million"
        yield name, f"after {million} steps a mean score of {score}."


def drawn(path, names, figure, check):
    """Draws figure() into a PNG that names its sources' digest; returns whether it was stale."""
    content = b"".join((FOLDER / f"{name}.csv").read_bytes() for name in names)
    digest = hashlib.sha256(content).hexdigest()
    if path.exists() and Image.open(path).info.get("Source") == digest:
        return False
    if not check:
        figure().savefig(path, metadata={"Source": digest})
    return True


def replaced(path, blocks):
    """The page with new content between each block's two marks, and the blocks it does not have."""
    text, missing = path.read_text(), []
    for name, content in blocks.items():
        pattern = f"(?s)(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text, n = re.subn(pattern, lambda m, content=content: f"{m[1]}{content}\n{m[2]}", text)
        missing += [] if n == 1 else [f"{path.name}: not one block {name}"]
    return text, missing


def written(rows, history, games):
    """Return what the pages and scripts should say, {path: text}, and the blocks not there."""
    costs, speed, dqn = (json.loads((FOLDER / f"{n}.json").read_text()) for n in COSTS)
    short, agent = tables.short(rows), tables.agent(history, games)
    ablation, rule = tables.ablation(read("ablation")), tables.groups(read("rule"))
    page = {
        "all": markdown(tables.seeds(tables.groups(rows)), "program"),
        "ratios": markdown(tables.ratios(rows, costs["learning"]), "script / compared with"),
        "costs": markdown(tables.costs(costs), "cost"),
        "speed": markdown(tables.speed(speed["medians"]), "what runs"),
        "dqn_speed": markdown(tables.speed(dqn["medians"]), "what runs"),
    }
    q_agent = tables.agent(*map(read, Q_AGENT))
    page["q_agent"] = markdown(q_agent, "environment steps of training")
    page["arms"] = markdown(tables.arms(*map(read, ARMS)), "arm")
    exchanged = read("per_dueling")
    table = tables.seeds({tables.EXCHANGED: exchanged}).drop(columns="seconds")
    page["exchanged"] = markdown(table, "program")
    if rule:
        page["rule"] = markdown(tables.seeds(rule), "program")
    pages = {
        "docs/results.md": page,
        "docs/per_ablation.md": {
            "ablation": markdown(ablation, "variant"),
            "inside": markdown(tables.inside(read("inside")), "optimizer, rate, weights"),
        }
        | {name: markdown(t, t.index.name) for name, t in weights.tables().items()},
    }
    pages["docs/parts.md"] = {"parts": markdown(tables.parts(read("parts")), "script: variant")}
    articles = markdown(tables.articles(read("articles")), "page")
    pages["docs/articles/README.md"] = {"articles": articles}
    places = markdown(tables.gridworld(read("gridworld")), "places with an optimal greedy action")
    pages["docs/articles/dezero.md"] = {"gridworld": places}
    trained, played, astray = map(read, SEEDS)
    page["a2c_seeds"] = markdown(tables.a2c_seeds(trained), "run")
    page["a2c_games"] = markdown(tables.games(played), "agent")
    page["divergence"] = markdown(tables.divergence(astray), "from update 800 of")
    own_task = markdown(tables.own_task(read("own_task")), "diff")
    pages["docs/own_task.md"] = {"own_task": own_task}
    for name, language in PAGES.items():
        if (ROOT / name).exists():
            steps = "environment steps of training"
            seeds = markdown(short, "script", language)
            pages[name] = {"seeds": seeds, "agent": markdown(agent, steps, language)}
    texts, missing = {ROOT / "docs" / "diffs.md": diffs_page()}, []
    for name, blocks in pages.items():
        texts[ROOT / name], faults = replaced(ROOT / name, blocks)
        missing += faults
    for script, words in expectations(rows, history, games):
        path, words = ROOT / f"{script}.py", textwrap.fill(f"Expect: {words}", 100)
        pattern = '(?s)\nExpect: .*?\n"""'  # the last lines of the introduction
        texts[path] = re.sub(pattern, f'\n{words}\n"""', path.read_text(), count=1)
    return texts, missing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    csvs = *CSVS, *ARMS, *Q_AGENT, *PRECISIONS, *OTHERS, *SEEDS
    needed = [f"{n}.csv" for n in csvs] + [f"{n}.json" for n in COSTS]
    if absent := [name for name in needed if not (FOLDER / name).exists()]:
        sys.exit(f"not in results/: {', '.join(absent)}")
    rows, curves, history, games = map(read, CSVS)
    rows = rows.sort_values("seed")
    texts, faults = written(rows, history, games)
    stale = [path for path, text in texts.items() if not path.exists() or path.read_text() != text]
    for path in [] if check else stale:
        path.write_text(texts[path])
    precision = {name.removeprefix("breakout_"): read(name) for name in PRECISIONS}
    pictures = {  # each with what it is drawn from
        "curves": (CSVS[:2], lambda: figures.learning_curves(curves, rows)),
        "per_inside": (["inside"], lambda: figures.inside(read("inside"))),
        "per_ablation": (["ablation"], lambda: figures.ablation(read("ablation"))),
        "parts": (["parts"], lambda: figures.parts(read("parts"))),
        "per_breakout": (ARMS[:1], lambda: figures.arms(read("arms"))),
        "a2c_breakout": (CSVS[2:3], lambda: figures.breakout(history, "a2c_breakout")),
        "per_breakout_agent": (
            Q_AGENT[:1],
            lambda: figures.breakout(read(Q_AGENT[0]), "extras/per_breakout"),
        ),
        "a2c_seeds": (SEEDS[:1], lambda: figures.a2c_seeds(read(SEEDS[0]))),
        "a2c_precision": (PRECISIONS, lambda: figures.lines(precision, "A2C on Breakout")),
    }
    for name, (sources, figure) in pictures.items():
        path = ROOT / "docs" / f"{name}.png"
        if drawn(path, sources, figure, check):
            stale.append(path)
    if check:
        faults += [f"{path.name} does not say what results/ says" for path in stale]
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
