"""Runs the commands and the changed scripts of a page: results/own_task.csv or exercises.csv.

    python benchmarks/own_task.py [--page exercises] [--seeds 5] [--only no_target]

A block begins with a comment that names it and its script. It may have a diff, lines to take out (-) and to put in (+), and it
has a command, which is run with seed 0, 1, ...; what is there already is not run again.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
from seeds import FOLDER, read

ROOT = Path(__file__).parent.parent
DIFF = r"(?:```diff\n((?:[-+].*\n|\n)*)```\n\n)?"
BLOCK = rf"<!-- (\w+): (\w+)\.py -->\n{DIFF}```sh\npython (?:my_task|\2)\.py(.*?)\n```"


def tasks(page):
    """Each diff of the page: {name: (script, [(old lines, new lines), ...], flags)}."""
    found = {}
    for name, script, diff, flags in re.findall(BLOCK, page):
        hunks = re.findall(r"((?:^-.*\n)+)((?:^\+.*\n)+)", diff, re.M)
        pairs = [tuple(re.sub("(?m)^[-+]", "", lines) for lines in hunk) for hunk in hunks]
        found[name] = script, pairs, flags.split()
    return found


def labels(page):
    """What stands for each block in a table: {name: its exercise's number, script and flags}."""
    found = {}
    for part in re.split(r"(?m)^### ", page)[1:]:
        for name, (script, pairs, flags) in tasks(part).items():
            words = " ".join([f"{script}.py", *flags])
            if len(words) > 75:
                words = f"{words[:75].rpartition(' --')[0]} ..."
            found[name] = f"{part.split('.')[0]}: `{words}`" + (" +-" if pairs else "")
    return found


def changed(script, pairs):
    """The script with the old lines replaced; ValueError unless each is there once."""
    text = "\n" + (ROOT / f"{script}.py").read_text(encoding="utf-8")
    for old, new in pairs:
        if text.count("\n" + old) != 1:
            raise ValueError(f"not once in {script}.py: {old}")
        text = text.replace("\n" + old, "\n" + new)
    return text[1:]


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... (default: 5)")
    parser.add_argument("--page", choices=("own_task", "exercises"), default="own_task")
    parser.add_argument("--only", help="one block (default: all)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/own_task"))
    options = parser.parse_args()
    table, path = read(options.page), FOLDER / f"{options.page}.csv"
    done = set(table[["program", "seed"]].itertuples(index=False, name=None))
    diffs = tasks((ROOT / "docs" / f"{options.page}.md").read_text(encoding="utf-8"))
    if options.only and options.only not in diffs:
        parser.error(f"--only {options.only} is none of {', '.join(diffs)}")
    for name, (script, pairs, flags) in diffs.items():
        folder = options.output_dir / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "my_task.py").write_text(changed(script, pairs), encoding="utf-8")
        for seed in range(options.seeds):
            if (name, seed) in done or options.only not in (None, name):
                continue
            command = [sys.executable, folder / "my_task.py", *flags, "--no-media"]
            command += ["--seed", str(seed), "--output-dir", folder / str(seed)]
            subprocess.run(command, check=True)
            summary = json.loads((folder / str(seed) / "summary.json").read_text(encoding="utf-8"))
            keys = ("solved", "episodes", "env_steps", "train_seconds")
            row = {"program": name, "seed": seed} | {key: summary[key] for key in keys}
            row |= {f"return_{k}": summary[f"greedy_{k}"] for k in ("mean", "min")}
            pd.DataFrame([row]).to_csv(path, mode="a", header=not path.exists(), index=False)


if __name__ == "__main__":
    main()
