import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Review a challenger")

with app.setup:
    import os

    import marimo as mo
    import numpy as np

    from router_ml_training.review.challenger import duel, gate_table, shelf_table
    from router_ml_training.review.home import attempt, home_folder, open_home, read_sample
    from router_ml_training.review.runs import run_table
    from router_ml_training.review.tables import brief


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Review a challenger

    Two versions decide the same requests: figures side by side, the gates, and every request that the two send to
    different tiers, with what the difference is worth.
    """)
    return


@app.cell
def _():
    home, problem = attempt(lambda: open_home(home_folder(mo.cli_args(), os.environ), os.environ))
    mo.stop(home is None, mo.callout(mo.md(problem), kind="warn"))
    return (home,)


@app.cell
def _(home):
    sample, problem_of_log = attempt(lambda: read_sample(home))
    mo.stop(sample is None, mo.callout(mo.md(problem_of_log), kind="warn"))
    shelf = shelf_table(home.shelf)
    versions = home.versions()
    too_few = (
        f"There are {len(versions)} versions on the shelf `{home.shelf.directory}`, and it takes two to compare: "
        "`router-ml train LOG` or `router-ml retrain` makes another."
    )
    mo.stop(len(versions) < 2, mo.callout(mo.md(too_few), kind="warn"))
    mo.vstack([mo.md(f"{sample.note}\n\n## The shelf"), mo.ui.table(brief(shelf), selection=None)])
    return sample, shelf, versions


@app.cell
def _(home, versions):
    in_service = home.shelf.champion()
    first = in_service if in_service in versions else versions[-1]
    champion = mo.ui.dropdown(versions, value=first, label="champion")
    challenger = mo.ui.dropdown(versions, value=next(one for one in versions if one != first), label="challenger")
    quality = mo.ui.slider(
        start=0.8, stop=1.0, step=0.005, value=home.config.policy.quality, label="quality", show_value=True
    )
    mo.hstack([champion, challenger, quality], justify="start", wrap=True)
    return challenger, champion, quality


@app.cell
def _(challenger, champion, home, quality, sample):
    found, problem_of_duel = attempt(
        lambda: duel(
            sample,
            home.bundle(champion.value),
            home.bundle(challenger.value),
            home.ladder,
            quality=quality.value,
            rng=np.random.default_rng(0),
        )
    )
    mo.stop(found is None, mo.callout(mo.md(problem_of_duel), kind="warn"))
    mo.vstack(
        [
            mo.md("## Side by side"),
            mo.callout(mo.md("\n\n".join(found.notes)), kind="info"),
            mo.ui.table(found.figures, selection=None, page_size=20),
            mo.md("Paired differences on the same requests, with 95 % intervals:"),
            mo.ui.table(brief(found.difference), selection=None),
        ]
    )
    return (found,)


@app.cell
def _(challenger, home):
    kept, problem_of_gates = attempt(lambda: home.shelf.gates(challenger.value))
    mo.stop(kept is None, mo.callout(mo.md(problem_of_gates), kind="warn"))
    gates = gate_table(kept)
    mo.vstack(
        [
            mo.md(f"## Gates of {challenger.value}"),
            mo.ui.table(brief(gates), selection=None, wrapped_columns=["why"])
            if len(gates)
            else mo.md(
                "None are kept: it was trained by hand, or before there were gates. `router-ml retrain` runs them."
            ),
        ]
    )
    return (gates,)


@app.cell
def _(found):
    worst, best = found.worst(), found.best()
    mo.vstack(
        [
            mo.md(
                f"## Where they disagree\n\nOn {len(found.disagreements):,} of {found.n_rows:,} requests "
                f"({100 * found.disagree:.1f} %). *Worth* is the quality won by the challenger, plus the money it "
                "saves at its own price of quality. Where the challenger is worse:"
            ),
            mo.ui.table(brief(worst), selection=None, wrapped_columns=["prompt"]),
            mo.md("Where it is better:"),
            mo.ui.table(brief(best), selection=None, wrapped_columns=["prompt"]),
        ]
        if len(found.disagreements)
        else [mo.md("## Where they disagree\n\nNowhere on these requests.")]
    )
    return best, worst


@app.cell
def _(found, home):
    runs = {side.name: side.bundle.manifest.mlflow_run_id for side in (found.champion, found.challenger)}
    side_by_side, problem_of_runs = attempt(lambda: run_table(runs, home.mlflow, home.folder))
    mo.vstack(
        [
            mo.md(
                "## Runs in MLflow\n\nWhat each run measured on its own held-out rows, which differ: the figures of "
                "*Side by side* are the ones to compare."
            ),
            mo.md(
                "\n".join(f"- {version}: {f'run `{run}`' if run else 'not recorded'}" for version, run in runs.items())
            ),
            mo.callout(mo.md(problem_of_runs), kind="warn")
            if side_by_side is None
            else mo.ui.table(side_by_side, selection=None, page_size=100),
        ]
    )
    return problem_of_runs, runs, side_by_side


if __name__ == "__main__":
    app.run()
