"""Runs the articles' settings, the commands of docs/articles/, on many seeds: results/articles.csv.

    python benchmarks/articles.py [--seeds 20] [--jobs 2]

A line for each page and seed, the Korean notebook's with its dueling network; what is there already is not run again.
"""

import re

from seeds import FOLDER, ROOT, line, run_missing, train_script

PAGES = ROOT / "docs" / "articles"
COMMAND = r"<!-- settings -->\n```sh\npython (\w+)_cartpole\.py (.*)\n```"


def commands():
    """The commands of the pages: {page: (script, its settings)}."""
    found = {}
    for page in sorted(PAGES.glob("*.md")):
        for name, flags in re.findall(COMMAND, page.read_text(encoding="utf-8")):
            words = flags.split()
            settings = {}
            for flag, value in zip(words[::2], words[1::2], strict=True):
                kind = int if value.isdigit() else float
                settings[flag[2:].replace("-", "_")] = kind(value)
            found[page.stem] = name, settings
    return found | {"korean_per": ("per_dueling", found["korean_per"][1])}


def work(task):
    """Trains with one page's settings on one seed."""
    page, seed = task
    name, settings = commands()[page]
    agent, result = train_script(name, seed, **settings)
    row = line(page, seed, agent, result, agent.config.max_steps)
    return {FOLDER / "articles.csv": row}


if __name__ == "__main__":
    run_missing(__doc__, "articles", commands(), work, seeds=20)
