import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Off-policy evaluation")

with app.setup:
    import os

    import marimo as mo

    from router_ml_training.offpolicy_report import offpolicy_report
    from router_ml_training.reporting import learned_from
    from router_ml_training.review.estimates import (
        estimate_table,
        estimates_chart,
        left_out_table,
        overlap_table,
        refusals,
    )
    from router_ml_training.review.home import attempt, home_folder, open_home, read_sample
    from router_ml_training.review.pictures import as_html
    from router_ml_training.review.tables import brief
    from router_ml_training.scored import score_with_bundle


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Off-policy evaluation

    What a version would have been worth on a log that another policy wrote, by the probabilities that are in the log.
    Where the log says too little, there is no figure, and the reason instead.
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
    versions = home.versions() or ["default"]
    version = mo.ui.dropdown(versions, value=home.shelf.champion() or versions[0], label="version")
    quality = mo.ui.slider(
        start=0.8, stop=1.0, step=0.005, value=home.config.policy.quality, label="quality", show_value=True
    )
    mo.vstack([mo.md(sample.note), mo.hstack([version, quality], justify="start", wrap=True)])
    return quality, sample, version


@app.cell
def _(home, sample, version):
    bundle, problem_of_bundle = attempt(lambda: home.bundle(None if version.value == "default" else version.value))
    mo.stop(bundle is None, mo.callout(mo.md(problem_of_bundle), kind="warn"))
    scored, problem_of_scores = attempt(lambda: score_with_bundle(sample.dataset, bundle, home.ladder))
    mo.stop(scored is None, mo.callout(mo.md(problem_of_scores), kind="warn"))
    return bundle, scored


@app.cell
def _(bundle, quality, scored):
    report, problem_of_propensities = attempt(lambda: offpolicy_report(scored, bundle.policy, quality=quality.value))
    mo.stop(report is None, mo.callout(mo.md(problem_of_propensities), kind="warn"))
    refused = refusals(report)
    enough = f"The log says enough: {report.drawn:,} of {report.n:,} requests were drawn with known probabilities."
    mo.vstack(
        [
            mo.callout(mo.md("\n\n".join(refused) or enough), kind="warn" if refused else "success"),
            *(mo.md(one) for one in learned_from(scored.dataset, bundle)),
        ]
    )
    return refused, report


@app.cell
def _(report, scored):
    estimates = estimate_table(report)
    mo.vstack(
        [
            mo.md("## Estimates\n\nDR shrunk is the figure to quote."),
            mo.Html(as_html(estimates_chart(report, simulated=scored.dataset.simulated))),
            mo.ui.table(brief(estimates), selection=None, page_size=20, wrapped_columns=["refused"]),
        ]
    )
    return (estimates,)


@app.cell
def _(report):
    overlap = overlap_table(report)
    mo.vstack(
        [
            mo.md(
                "## Overlap\n\nThe effective sample size is what the weighted requests are worth in requests; the mean "
                "weight of a log with true probabilities is 1."
            ),
            mo.ui.table(brief(overlap), selection=None, wrapped_columns=["refused"]),
        ]
    )
    return (overlap,)


@app.cell
def _(report):
    left_out = left_out_table(report)
    mo.vstack(
        [
            mo.md("## Left out"),
            mo.ui.table(left_out, selection=None, wrapped_columns=["why"]) if len(left_out) else mo.md("Nothing."),
            mo.md(" ".join(report.to_dict()["notes"])),
        ]
    )
    return (left_out,)


if __name__ == "__main__":
    app.run()
