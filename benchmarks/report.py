"""Puts the figures of results/ into the pages and the scripts' "Expect:" lines; draws the pictures.

    python benchmarks/report.py [--check]

--check changes nothing and exits with 1 where a file does not say what the results say.
"""

import argparse
import hashlib
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path

import diffs
import excerpts
import figures
import own_limit
import own_task
import pandas as pd
import tables
from PIL import Image
from seeds import FOLDER, SCRIPTS
from tables import count, markdown, number

ROOT = Path(__file__).parent.parent
OLDER = "of that training by an earlier version"
PICTURES = {  # each with the results it is drawn from, and by what
    "curves": (("seeds", "curves_seeds"), figures.learning_curves),
    "parts": (("parts",), figures.parts),
    "a2c_alpha": (("breakout_alpha",), figures.a2c_breakout),
    "per_breakout_agent": (("rates",), figures.per_breakout),
    "a2c_games": (("breakout_games",), figures.a2c_games),
}
COSTS = ("costs", "breakout_speed", "dqn_speed")
EXERCISES = {"docs/exercises.md": None, "docs/exercises.ja.md": 0, "docs/exercises.ko.md": 1}
PAGES = {"README.md": None, "docs/README.ja.md": 0, "docs/README.ko.md": 1}  # languages of HEADS


def read(name):
    """A table of results/."""
    return pd.read_csv(FOLDER / f"{name}.csv")


def expectations(rows):
    """What each script may be expected to do: {script: words}."""
    for name in (f"{name}_cartpole" for name in SCRIPTS):
        group = rows[rows.program == name]
        episodes, steps, mean = group[["episodes", "env_steps", "evaluation_mean"]].median()
        medians = f"{count(episodes)} episodes, {count(steps)} steps"
        seconds, seeds = group.train_seconds.median(), f"{group.solved.sum()} of {len(group)} seeds"
        yield (
            name,
            f"{medians}, {seconds:.1f} s (medians; {seeds} solved); greedy {number(mean)} steps.",
        )
    alpha = read("breakout_alpha")
    alpha = alpha[alpha.run.str.startswith("alpha_0.9_")]
    rates = figures.defaults(read("rates")).assign(run="defaults")
    for name, curves, kept, limit, version in (
        ("a2c_breakout", alpha, "breakout_scores", "5 minutes", "trained with alpha 0.95"),
        ("extras/per_breakout", rates, "per_breakout_scores", "half an hour", OLDER),
    ):
        scores = read(kept)
        score = f"{scores.score.mean():.0f} in {len(scores)} games of up to {limit}"
        yield name, f"{course(curves)}. The agent in weights/, {version}: mean score {score}."


def course(curves):
    """The mean score along each training of a table, in words."""
    runs = [rows.set_index("env_steps")["mean"] for _, rows in curves.groupby("run")]
    marks = [m for m in (0.5, 1, 2, 5, 10) if m * 1e6 <= runs[0].index[-1]]
    way = []
    for million in marks:
        means = sorted({round(run.loc[: million * 1e6 + 8000].iloc[-1]) for run in runs})
        way.append(f"{' to '.join(map(str, means[:: max(1, len(means) - 1)]))} at {million:g}")
    trainings = "one training" if len(runs) == 1 else f"{len(runs)} trainings"
    return f"mean of the last 100 games of {trainings}: {', '.join(way)} million steps"


def drawn(path, names, figure, check):
    """Draws figure(tables) into a PNG that names its sources' digest; returns whether it was stale."""
    content = b"".join((FOLDER / f"{name}.csv").read_bytes() for name in names)
    content += inspect.getsource(figure).encode()
    digest = hashlib.sha256(content).hexdigest()
    if path.exists() and Image.open(path).info.get("Source") == digest:
        return False
    if not check:
        figure(*map(read, names)).savefig(path, metadata={"Source": digest})
    return True


def replaced(text, page, blocks):
    """A page's text with new content between each block's two marks, and the blocks not in it."""
    missing = []
    for name, content in blocks.items():
        pattern = f"(?s)(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        text, n = re.subn(pattern, lambda m, content=content: f"{m[1]}{content}\n{m[2]}", text)
        missing += [] if n == 1 else [f"{page}: not one block {name}"]
    return text, missing


def written():
    """Return what the pages and scripts should say, {path: text}, and the blocks not there."""
    costs, speed, dqn = (
        json.loads((FOLDER / f"{n}.json").read_text(encoding="utf-8")) for n in COSTS
    )
    rows, alpha, games = map(read, ("seeds", "breakout_alpha", "breakout_scores"))
    rates, q_games = map(read, ("rates", "per_breakout_scores"))
    steps = "environment steps of training"
    agent = tables.agent(alpha[alpha.run == figures.SHIPPED], games)
    thousand = tables.seeds(tables.groups(read("thousand"))).drop(columns="seconds")
    short = tables.games(read("breakout_temperature"))
    exchanged = tables.seeds({tables.EXCHANGED: read("per_dueling")}).drop(columns="seconds")
    rows_500 = read("own_limit")
    limits = {f"`{p}`": rows_500[rows_500.program == p] for p in own_limit.PROGRAMS}
    blocks = {  # a page's block: its table, and what stands above the first column
        "docs/results_cartpole.md": {
            "all": (tables.seeds(tables.groups(rows)), "program"),
            "ratios": (tables.ratios(rows), "script / compared with"),
            "costs": (tables.costs(costs), "cost"),
            "exchanged": (exchanged, "program"),
            "own_limit": (tables.seeds(limits).drop(columns="seconds"), "trained by"),
            "thousand": (thousand, "program"),
        },
        "docs/results_breakout.md": {
            "speed": (tables.speed(speed["medians"]), "what runs"),
            "a2c_alpha": (tables.a2c_seeds(alpha), "run"),
            "alpha_steps": (tables.alpha_steps(read("breakout_alpha_steps")), "goes on from"),
            "a2c_games": (tables.games(read("breakout_games")), "agent"),
            "a2c_temperature": (short.drop(columns="after five minutes"), "agent"),
        },
        "docs/results_q_breakout.md": {
            "dqn_speed": (tables.speed(dqn["medians"]), "what runs"),
            "q_agent": (tables.agent(figures.defaults(rates), q_games), steps),
        },
        "docs/parts.md": {"parts": (tables.parts(read("parts")), "script: variant")},
        "docs/articles/README.md": {"articles": (tables.articles(read("articles")), "page")},
        "docs/articles/dezero.md": {
            "gridworld": (
                tables.gridworld(read("gridworld")),
                "places with an optimal greedy action",
            ),
        },
        "docs/own_task.md": {"own_task": (tables.own_task(read("own_task")), "diff")},
    }
    for name, language in PAGES.items():
        seeds = tables.short(rows), "script", language
        blocks[name] = {"seeds": seeds, "agent": (agent, steps, language)}
    page = (ROOT / "docs" / "exercises.md").read_text(encoding="utf-8")
    tried = tables.exercises(read("exercises"), own_task.labels(page), rows)
    for name, language in EXERCISES.items():
        blocks[name] = {"exercises": (tried, "exercise", language)}
    texts, missing = {ROOT / "docs" / "diffs.md": diffs.page()}, []
    for name, page in blocks.items():
        page = {block: markdown(*table) for block, table in page.items()}
        text = (ROOT / name).read_text(encoding="utf-8")
        texts[ROOT / name], faults = replaced(text, name, page)
        missing += faults
    own = {"articles": read("articles"), "rows": pd.concat([rows, read("per_dueling")])}
    for page in (ROOT / "docs" / "articles").glob("*.md"):
        text = excerpts.filled(texts.get(page) or page.read_text(encoding="utf-8"), page.name)
        if page.stem in tables.ARTICLES:
            language = int(page.stem == "korean_per")
            result = markdown(tables.lesson(page.stem, **own, language=language), "", language)
            text, faults = replaced(text, page.name, {"result": result})
            missing += faults
        texts[page] = text
    for script, words in expectations(rows):
        path, words = ROOT / f"{script}.py", textwrap.fill(f"Expect: {words}", 100)
        pattern = r'\nExpect: (?:.+\n)+?(?=\n|"""|CartPole is)'  # to the end of its paragraph
        text = path.read_text(encoding="utf-8")
        texts[path], n = re.subn(pattern, f"\n{words}\n", text)
        missing += [] if n == 1 else [f"{script}.py: not one line Expect"]
    return texts, missing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    try:
        texts, faults = written()
    except FileNotFoundError as error:
        sys.exit(f"not there: {error.filename}")
    stale = [
        path
        for path, text in texts.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in [] if check else stale:
        path.write_text(texts[path], encoding="utf-8")
    for name, (sources, figure) in PICTURES.items():
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
