import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Train and compare")

with app.setup:
    import os
    from datetime import UTC, datetime

    import marimo as mo

    from router_ml_training.review.competition import competition_table, play
    from router_ml_training.review.home import attempt, home_folder, open_home, read_sample
    from router_ml_training.review.pictures import as_html
    from router_ml_training.review.tables import brief


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Train and compare

    Every candidate of `[training] learners` is trained on the log and judged on rows that it has not seen; the simplest
    within one standard error of the best is kept. Nothing is written: `router-ml train` puts a bundle on the shelf.
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
    learners = mo.ui.multiselect(
        options=list(home.training.learners), value=list(home.training.learners), label="candidates"
    )
    mo.vstack([mo.md(sample.note), learners])
    return learners, sample


@app.cell
def _(home, learners, sample):
    mo.stop(not learners.value, mo.callout(mo.md("Choose at least one candidate."), kind="warn"))
    training = home.training.model_copy(update={"learners": tuple(learners.value)})
    with mo.status.spinner(title="training", remove_on_exit=True) as spinner:
        match, problem_of_training = attempt(
            lambda: play(
                sample.dataset,
                home.ladder,
                training,
                quality=home.config.policy.quality,
                now=datetime.now(UTC),
                progress=lambda text: spinner.update(text),
            )
        )
    mo.stop(match is None, mo.callout(mo.md(problem_of_training), kind="warn"))
    choice = match.trained.competition.choice
    mo.vstack(
        [
            mo.callout(mo.md(f"**{choice.verdict}**"), kind="neutral" if choice.keep_constant else "success"),
            *(mo.callout(mo.md(one), kind="warn") for one in match.report.cautions),
            *(mo.md(note) for note in match.report.notes),
        ]
    )
    return (match,)


@app.cell
def _(match):
    competition = competition_table(match.trained)
    mo.vstack([mo.md("## The competition"), mo.ui.table(brief(competition), selection=None)])
    return (competition,)


@app.cell
def _(match):
    curves = match.curve_table()
    whose = (
        f" Untried tiers count as '{match.trained.learner}' estimates them, which flatters its own curve."
        if match.assessment.estimated
        else ""
    )
    mo.vstack(
        [
            mo.md(f"## Curves\n\nScores before the call alone, one answer per request.{whose}"),
            mo.Html(as_html(match.curve_picture())),
            mo.ui.table(brief(curves), selection=None),
        ]
    )
    return (curves,)


@app.cell
def _(match):
    reliability = match.picture("reliability")
    mo.vstack(
        [
            mo.md("## Calibration"),
            mo.Html(as_html(reliability)) if reliability else mo.md("Too few known outcomes to tell."),
        ]
    )
    return (reliability,)


@app.cell
def _(match):
    importance = match.picture("feature_importance")
    mo.vstack(
        [
            mo.md("## What it looks at"),
            mo.Html(as_html(importance)) if importance else mo.md("No outcome is known on the test rows."),
        ]
    )
    return (importance,)


@app.cell
def _(match):
    slices = match.picture("slice_table")
    mo.vstack(
        [
            mo.md(f"## Slices\n\nAt quality {match.assessment.quality:g}."),
            mo.Html(as_html(slices)) if slices else mo.md("No slice has ten test requests."),
        ]
    )
    return (slices,)


if __name__ == "__main__":
    app.run()
