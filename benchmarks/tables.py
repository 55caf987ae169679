"""The tables that report.py writes from results/."""

import re

import pandas as pd
from seeds import PROGRAMS, SCRIPTS

TITLES = {"cartpole": "`{}_cartpole.py`", "port": "the book's {}, ported", "sb3": "SB3's {}"}
LATER = (500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 5_000_000, 7_500_000)
EXCHANGED = "`per_cartpole.py` with the network of `dueling_cartpole.py`"
ORDER = {f"{n}_{kind}": TITLES[kind].format(n) for kind, names in PROGRAMS.items() for n in names}
ORDER["per_dueling_cartpole"] = EXCHANGED
HEADS = {  # Japanese, Korean
    "exercise": ("問題", "문제"),
    "evaluation": ("評価", "평가"),
    "": ("", ""),
    "script": ("スクリプト", "스크립트"),
    "seeds solved": ("解けたシード", "해결한 시드"),
    "episodes": ("エピソード", "에피소드"),
    "environment steps": ("環境ステップ", "환경 스텝"),
    "seconds": ("秒", "초"),
    "evaluation, worst seed": ("評価(最悪のシード)", "평가: 최악의 시드"),
    "environment steps of training": ("学習した環境ステップ", "학습한 환경 스텝"),
    "games": ("ゲーム数", "게임 수"),
    "mean score": ("平均得点", "평균 점수"),
    "standard deviation": ("標準偏差", "표준편차"),
    "min": ("最低", "최저"),
    "max": ("最高", "최고"),
}


def count(value):
    """A number of steps or episodes; a median that lies between two is rounded."""
    return f"{value:,.0f}"


def number(value):
    """A number with at most one decimal."""
    return f"{value:,.1f}".removesuffix(".0")


def spread(values, form=count, low=False):
    """The median, in brackets the 95th percentile (the 5th where less is worse) and the worst."""
    tail = values.quantile(0.05, "lower") if low else values.quantile(0.95, "higher")
    return f"{form(values.median())} ({form(tail)}; {form(values.min() if low else values.max())})"


def pair(values, worst, form=count):
    """The median, in brackets the worst."""
    return f"{form(values.median())} ({form(worst)})"


def largest_target(rows):
    """The spread of the largest targets; nothing for programs of which none is known."""
    if "max_target" not in rows or rows.max_target.isna().any():
        return ""
    return spread(rows.max_target, lambda x: f"{x:.2f}" if x < 1000 else f"{x:.1g}")


def groups(rows):
    """The lines of each program, in the order of the tables."""
    return {ORDER[p]: rows[rows.program == p] for p in ORDER if (rows.program == p).any()}


def seeds(lines):
    """For each {title: its lines}: seeds solved, how fast, and how well the agent then plays."""
    table = {}
    for title, group in lines.items():
        table[title] = {
            "seeds solved": f"{group.solved.sum():.0f} / {len(group)}",
            "episodes": spread(group.episodes),
            "environment steps": spread(group.env_steps),
            "seconds": spread(group.train_seconds, "{:.1f}".format),
            "largest target": largest_target(group),
            "evaluation": spread(group.evaluation_mean, "{:.1f}".format, low=True),
        }
    table = pd.DataFrame(table).T
    known = (table["largest target"] != "").any()
    return table if known else table.drop(columns="largest target")


def short(rows):
    """The five scripts for the READMEs, without the worst seeds but with the worst evaluation."""
    table = seeds(groups(rows)).loc[[ORDER[f"{name}_cartpole"] for name in SCRIPTS]]
    table = table.drop(columns=["evaluation", "largest target"], errors="ignore")
    table = table.replace(r"; [\d,.]+", "", regex=True)
    worst = rows.groupby("program").evaluation_mean.min().rename(ORDER)
    return table.assign(**{"evaluation, worst seed": worst[table.index].map("{:.1f}".format)})


ARTICLES = {  # page: episodes until solved, as the article tells
    "dqn": "85 episodes",
    "ddqn": "46",
    "dueling": "164",
    "per": "175",
    "a2c": "25 of environment 0",
    "keras_per": "about 70",
    "korean_per": "",
    "dezero": "",
}
LESSON = {  # rows of a page's own table; Japanese, Korean
    "article": ("記事の実行結果(1回)", "글의 실행 결과(1회)"),
    "settings": ("本実装、記事の設定", "이 구현, 노트북의 설정"),
    "defaults": ("本実装、既定の設定", "이 구현, 기본 설정"),
}


def articles(rows):
    """The articles' settings in the scripts, beside the one run of each article."""
    chosen = {f"[{page}]({page}.md)": rows[rows.program == page] for page in ARTICLES}
    table = seeds(chosen).drop(columns="seconds")
    table.insert(0, "the article's run", list(ARTICLES.values()))
    return table


def lesson(page, articles, rows, language):
    """One article's run, ours with its settings, and ours as it is: medians, and the worst."""
    name = {"keras_per": "per", "korean_per": "per_dueling", "dezero": "dqn"}.get(page, page)
    told = re.findall(r"\d+", ARTICLES[page])  # some tell nothing
    table = {}
    if told:
        row = {"seeds solved": "", "episodes": told[0], "environment steps": ""}
        table[LESSON["article"][language]] = row
    for key, group in (
        ("settings", articles[articles.program == page]),
        ("defaults", rows[rows.program == f"{name}_cartpole"]),
    ):
        values = seeds({key: group})
        worst = values[["episodes", "environment steps"]].replace(r"\([^;]*; ", "(", regex=True)
        table[LESSON[key][language]] = values[["seeds solved"]].join(worst).loc[key]
    columns = ["seeds solved", "episodes", "environment steps"]
    return pd.DataFrame(table).T[columns]


def gridworld(rows):
    """The grid world by Q-learning with a network: how many seeds got how many places right."""
    right = rows.right.value_counts().sort_index(ascending=False)
    table = {f"{count} of {rows.places[0]}": {"seeds": n} for count, n in right.items()}
    return pd.DataFrame(table).T


def a2c_seeds(history):
    """A2C's trainings on Breakout: the mean score along the training, and the last."""
    table = {}
    for run, rows in history.groupby("run", sort=False):
        steps = rows.set_index("env_steps")["mean"]
        marks = [mark for mark in LATER if mark <= steps.index[-1]]
        row = {f"{mark:,} steps": f"{steps.loc[: mark + 8000].iloc[-1]:.0f}" for mark in marks}
        row |= {"latest": f"{steps.iloc[-1]:.0f} ({steps.index[-1]:,})"}
        fall = (steps / steps.cummax()).loc[2_000_000:]
        row |= {"deepest fall": f"to {fall.min():.0%}" if len(fall) else ""}
        table[run.replace("_", " ")] = row
    return pd.DataFrame(table).T.fillna("")


def games(rows):
    """Whole games of A2C on Breakout: how they end."""
    table = {}
    for run, group in rows.groupby("run", sort=False):
        cut, score = group[group.lives > 0], group.score
        table[run.replace("_", " ")] = {
            "games": len(group),
            "mean": f"{score.mean():.1f}",
            "after five minutes": f"{group.five_minutes.mean():.1f}",
            "below 400": (score < 400).sum(),
            "400 to 432": score.between(400, 432).sum(),
            "above": (score > 432).sum(),
            "cut by the limit": len(cut),
        }
    return pd.DataFrame(table).T


def alpha_steps(rows):
    """How far single updates move the policy of A2C on Breakout; the shares are each seed's."""
    rows = rows[rows["update"] > 300]  # of the average of squares 0.99^300 = 5 % are older then
    table = {}
    for run, group in rows.groupby(
        rows.run.str.replace(r", seed \d+$", "", regex=True), sort=False
    ):
        above = {f"above {x}": (group.kl > x).groupby(group.run).mean() for x in (0.02, 0.05)}
        table[run] = {
            "updates": len(group),
            "median": f"{group.kl.median():.2g}",
            "95th percentile": f"{group.kl.quantile(0.95):.2g}",
            "largest": f"{group.kl.max():.2g}",
        } | {name: ", ".join(f"{x:.1%}" for x in shares) for name, shares in above.items()}
    return pd.DataFrame(table).T


def own_task(rows):
    """Other tasks, by the diffs of docs/own_task.md: returns of 100 episodes after the training."""
    table, wanted = {}, {"acrobot": -100}
    for name, group in rows.groupby("program", sort=False):
        good = group.return_mean >= wanted[name.split("_")[0]]
        table[f"`{name}`"] = {
            "good": f"{good.sum()} / {len(group)}",
            "solved": f"{group.solved.sum()} / {len(group)}",
            "environment steps": pair(group.env_steps, group.env_steps.max()),
            "mean return": pair(group.return_mean, group.return_mean.min(), number),
        }
    return pd.DataFrame(table).T


def exercises(rows, labels, unchanged):
    """The scripts as they are and the exercises' commands: medians, in brackets the worst seed."""
    own = unchanged[unchanged.seed < 5].rename(columns={"evaluation_mean": "return_mean"})
    rows = pd.concat([own, rows])
    labels = {f"{name}_cartpole": f"`{name}_cartpole.py`" for name in SCRIPTS} | labels

    table = {}
    for name, label in labels.items():
        group = rows[rows.program == name]
        table[label] = {
            "seeds solved": f"{group.solved.sum()} / {len(group)}",
            "episodes": pair(group.episodes, group.episodes.max()),
            "environment steps": pair(group.env_steps, group.env_steps.max()),
            "evaluation": pair(group.return_mean, group.return_mean.min(), number),
        }
    return pd.DataFrame(table).T


def programs(rows):
    """The lines of each program, in the order of the file: {program: lines}."""
    return dict(list(rows.groupby("program", sort=False)))


def parts(rows):
    """The scripts with one part left out or changed."""
    return seeds(programs(rows)).drop(columns="seconds")


def ratios(rows):
    """Each script relative to its port or rival, on the seeds that both ran."""
    table = {}
    for name, kind in [(n, k) for k in ("port", "sb3") for n in PROGRAMS[k]]:
        keys = f"{name}_cartpole", f"{name}_{kind}"
        ours, theirs = (rows[rows.program == key].set_index("seed").sort_index() for key in keys)
        both = ours.index.intersection(theirs.index)
        a, b = ours.loc[both], theirs.loc[both]
        table[f"{ORDER[keys[0]]} / {ORDER[keys[1]]}"] = {
            "seeds": len(both),
            "seconds": f"{a.train_seconds.median() / b.train_seconds.median():.2f}",
            "slowest seed": f"{a.train_seconds.max() / b.train_seconds.max():.2f}",
            "environment steps": f"{a.env_steps.median() / b.env_steps.median():.2f}",
        }
    return pd.DataFrame(table).T


def costs(costs):
    """What a step costs, and the whole command."""
    rows = {
        f"sum tree, {int(n):,} transitions, µs per step": x for n, x in costs["sum_tree"].items()
    }
    rows["a step of PER / of double DQN, while learning"] = costs["per_step"]
    for n, x in costs["busy"].items():
        threads = f"{n} PyTorch thread{'s' if n != '1' else ''}"
        rows[f"speed beside a busy process, {threads} / one thread alone"] = x
    rows |= {f"whole command, `{name}.py`, s": x for name, x in costs["command"].items()}
    return pd.DataFrame({"median": {name: f"{x:.3g}" for name, x in rows.items()}})


def agent(history, games):
    """The shipped Breakout agent."""
    score = games.score
    row = {"games": len(score), "mean score": f"{score.mean():.1f}"}
    row |= {"standard deviation": f"{score.std(ddof=0):.1f}"}
    row |= {"min": score.min(), "max": score.max()}
    return pd.DataFrame([row], [f"{history.env_steps.iloc[-1]:,}"])


def speed(medians):
    """Training speed on Breakout, that of its parts alone, and stable-baselines3's."""
    rows = {name: f"{median['speed']:,.0f}" for name, median in medians.items()}
    return pd.DataFrame({"steps/s": rows}).sort_index(ascending=False)


def markdown(table, head, language=None):
    """A table in Markdown, its heads in English or in HEADS' language number 0 or 1."""
    text = table.rename_axis(index=head, columns=None).reset_index().astype(str)
    if language is not None:
        text.columns = [HEADS[name][language] for name in text.columns]
    return text.to_markdown(index=False, disable_numparse=True)
