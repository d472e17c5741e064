import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Explore logs")

with app.setup:
    import os
    from datetime import UTC, datetime

    import marimo as mo

    from router_ml_training.review.home import attempt, home_folder, open_home, read_sample
    from router_ml_training.review.logbook import (
        data_quality,
        days,
        examples,
        feedback_table,
        interaction_table,
        tier_table,
    )
    from router_ml_training.review.pictures import as_html, traffic_over_time
    from router_ml_training.review.tables import brief


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Explore logs

    What is in the log before anything is learned from it: how much, of what quality, which tier answered at what cost,
    what was escalated, and who said whether answers were good.
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
    mo.md(f"{sample.note} From {', '.join(f'`{log}`' for log in home.logs)}.")
    return (sample,)


@app.cell
def _(home, sample):
    table = interaction_table(sample.interactions, home.ladder.names)
    quality = data_quality(sample.interactions, datetime.now(UTC))
    mo.hstack(
        [
            mo.stat(f"{quality.n_interactions:,}", label="interactions"),
            mo.stat(f"{quality.n_attempts:,}", label="attempts"),
            mo.stat(f"{quality.n_errors:,}", label="attempts with an error"),
            mo.stat(f"{table['cost_usd'].sum():,.2f}", label="USD in all"),
        ],
        widths="equal",
        wrap=True,
    )
    return quality, table


@app.cell(hide_code=True)
def _(quality):
    mo.vstack(
        [
            mo.md("## Data quality"),
            mo.plain_text(quality.to_text()),
            mo.callout(mo.md("\n".join(f"- {one}" for one in quality.warnings)), kind="warn")
            if quality.warnings
            else mo.md("Nothing suspicious."),
        ]
    )
    return


@app.cell
def _(home, sample):
    tiers = tier_table(sample.interactions, home.ladder.names)
    mo.vstack(
        [
            mo.md(
                "## Tiers\n\nOutcomes that are known only because a cheaper tier had failed count here, too: "
                "the dearer tiers of a cascade look worse than they are."
            ),
            mo.ui.table(brief(tiers), selection=None),
        ]
    )
    return (tiers,)


@app.cell
def _(home, sample, table):
    over_time = days(table)
    mo.vstack(
        [
            mo.md("## Over time"),
            mo.Html(as_html(traffic_over_time(table, home.ladder.names, simulated=sample.dataset.simulated))),
            mo.ui.table(brief(over_time), selection=None, page_size=31),
        ]
    )
    return (over_time,)


@app.cell
def _(sample):
    feedback = feedback_table(sample.interactions)
    mo.vstack(
        [
            mo.md("## Who says what\n\nJudgements by source; a verifier's word is the router's own opinion."),
            mo.ui.table(brief(feedback), selection=None),
        ]
    )
    return (feedback,)


@app.cell
def _():
    kind = mo.ui.dropdown(["escalated", "failed", "dearest", "all"], value="escalated", label="show")
    mo.vstack([mo.md("## Examples"), kind])
    return (kind,)


@app.cell
def _(kind, table):
    shown = examples(table, kind.value)
    mo.ui.table(brief(shown), selection=None, wrapped_columns=["prompt"]) if len(shown) else mo.md(
        f"No interaction of the kind '{kind.value}'."
    )
    return (shown,)


if __name__ == "__main__":
    app.run()
