import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Certificate and policy")

with app.setup:
    import os

    import marimo as mo
    import polars as pl

    from router_ml_training.review.home import attempt, home_folder, open_home, read_sample
    from router_ml_training.review.knob import certificate_slices, certificate_steps, knob_of
    from router_ml_training.review.pictures import as_html
    from router_ml_training.review.tables import brief


@app.cell(hide_code=True)
def _():
    mo.md("""
    # Certificate and policy

    Slide the quality knob: what is saved, what is lost, who answers, and which parts of the traffic pay for it. Below,
    what is proven about this bundle.
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
    bundle, problem_of_bundle = attempt(home.bundle)
    mo.stop(bundle is None, mo.callout(mo.md(problem_of_bundle), kind="warn"))
    knob, problem_of_scores = attempt(lambda: knob_of(bundle, sample.dataset, home.ladder))
    mo.stop(knob is None, mo.callout(mo.md(problem_of_scores), kind="warn"))
    mo.md(f"{sample.note} {bundle.version} is measured on {knob.note}")
    return bundle, knob


@app.cell
def _(home):
    quality = mo.ui.slider(
        start=0.8, stop=1.0, step=0.005, value=home.config.policy.quality, label="quality", show_value=True
    )
    quality
    return (quality,)


@app.cell
def _(knob, quality):
    setting = knob.at(quality.value)
    router = setting.router
    mo.hstack(
        [
            mo.stat("-" if setting.saving is None else f"{setting.saving:.1%}", label="cost saved"),
            mo.stat("-" if setting.loss is None else f"{setting.loss:.1%}", label="quality lost"),
            mo.stat(f"{router.cost_per_1k_usd:.3g}", label="USD per 1,000"),
            mo.stat("-" if setting.mix_kept is None else f"{1 - setting.mix_kept:.1%}", label="lost by a random mix"),
            mo.stat(f"{router.escalation_rate or 0:.1%}", label="escalated"),
        ],
        widths="equal",
        wrap=True,
    )
    return (setting,)


@app.cell
def _(setting):
    share = pl.DataFrame({"tier": list(setting.share), "share of the answers": list(setting.share.values())})
    judged = (
        "Answers are judged, and a dearer tier may follow."
        if setting.judged
        else "Answers are not judged; a dearer tier follows only what the response checks refuse."
    )
    mo.vstack(
        [
            mo.md(f"{judged} {setting.worth}"),
            mo.ui.table(brief(share), selection=None),
        ]
    )
    return (share,)


@app.cell
def _(knob, quality):
    mo.vstack(
        [
            mo.Html(as_html(knob.curve_picture(quality.value))),
            mo.Html(as_html(knob.slice_picture(quality.value))),
        ]
    )
    return


@app.cell
def _(knob):
    frontier = knob.frontier()
    mo.vstack([mo.md("## Every setting that was tuned"), mo.ui.table(brief(frontier), selection=None, page_size=20)])
    return (frontier,)


@app.cell
def _(bundle):
    certificate = bundle.manifest.certificate or {}
    steps, slices = certificate_steps(certificate), certificate_slices(certificate)
    verdict = str(certificate.get("verdict") or "This bundle was written without an attempt to certify it.")
    mo.vstack(
        [
            mo.md("## What is proven"),
            mo.callout(mo.md(verdict), kind="success" if certificate.get("beyond_constant") else "neutral"),
            mo.md("The walk from safe to bold, up to the first policy that is not proven:")
            if len(steps)
            else mo.md(""),
            mo.ui.table(brief(steps), selection=None, page_size=20) if len(steps) else mo.md("Nothing was tested."),
            mo.ui.table(brief(slices), selection=None) if len(slices) else mo.md("No slice was tested."),
        ]
    )
    return slices, steps, verdict


if __name__ == "__main__":
    app.run()
