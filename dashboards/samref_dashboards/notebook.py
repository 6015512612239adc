# /// script
# dependencies = ["marimo", "duckdb", "pyarrow", "altair"]
# ///
"""The tables of one or several sweeps, to ask one's own questions: SQL on all their files.

`samref-dashboard RESULTS… --explore` opens a copy. It needs none of samref's packages.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="samref-sweep")


@app.cell
def _():
    import sys
    from pathlib import Path

    import altair as alt
    import duckdb
    import marimo as mo
    import pyarrow.dataset as ds

    return Path, alt, duckdb, ds, mo, sys


@app.cell
def _(Path, duckdb, ds, sys):
    # Folders that samref-sweep wrote; folders of them as well.
    named = [Path(text) for text in sys.argv[1:] if Path(text).is_dir()] or [Path(__file__).parent]
    folders = [f for p in named for f in ([p] if (p / "trials.parquet").is_file() else sorted(p.glob("*/")))]
    db = duckdb.connect()
    for kind in sorted({file.stem for folder in folders for file in folder.glob("*.parquet")}):
        files = [folder / f"{kind}.parquet" for folder in folders if (folder / f"{kind}.parquet").is_file()]
        for index, file in enumerate(files):
            db.register(f"{kind}_{index}", ds.dataset(file))
        parts = [f"SELECT '{index}' AS folder, * FROM {kind}_{index}" for index in range(len(files))]
        if parts:
            db.execute(f"CREATE OR REPLACE VIEW {kind} AS {' UNION ALL BY NAME '.join(parts)}")
    return db, folders


@app.cell
def _(folders, mo):
    mo.md("# Results\n\n" + "\n".join(f"- `{index}`: `{folder}`" for index, folder in enumerate(folders)))
    return


@app.cell
def _(db, mo):
    trials = mo.sql(
        """
        SELECT trial, status, "model.backbone", "train.gamma", "evaluate.data", "evaluate.theta",
               noc_at_90, noc_at_95, miou_at_5
        FROM trials ORDER BY "evaluate.data", noc_at_90
        """,
        engine=db,
    )
    return (trials,)


@app.cell
def _(mo):
    threshold = mo.ui.slider(0.5, 0.99, value=0.92, step=0.01, label="IoU threshold k of NoC@k", show_value=True)
    threshold
    return (threshold,)


@app.cell
def _(db, mo, threshold):
    # NoC at any threshold: the clicks are kept, so it is a query.
    noc = mo.sql(
        f"""
        WITH per_object AS (
            SELECT trial, dataset, sample, min(click) FILTER (iou >= {threshold.value}) AS first
            FROM clicks GROUP BY ALL)
        SELECT trial, any_value(dataset) AS dataset, avg(coalesce(first, t."evaluate.max_clicks")) AS noc,
               count(*) FILTER (first IS NULL) AS never_reached, count(*) AS objects
        FROM per_object JOIN (SELECT DISTINCT ON (trial) trial, "evaluate.max_clicks" FROM trials) t USING (trial)
        GROUP BY trial ORDER BY noc
        """,
        engine=db,
    )
    return (noc,)


@app.cell
def _(alt, db):
    # The twelve trials with the highest mean IoU at the end.
    points = db.execute(
        """
        WITH curve AS (SELECT trial, click, avg(iou) AS miou FROM clicks GROUP BY trial, click),
             best AS (SELECT trial FROM curve GROUP BY trial ORDER BY arg_max(miou, click) DESC LIMIT 12)
        SELECT trial, click, miou FROM curve JOIN best USING (trial)
        """
    ).fetchall()
    values = alt.InlineData(values=[{"trial": t, "click": c, "miou": m} for t, c, m in points])
    chart = alt.Chart(values, width=600, height=320).mark_line()
    chart.encode(x="click:Q", y=alt.Y("miou:Q", scale=alt.Scale(zero=False)), color="trial:N", tooltip=["trial:N"])
    return


if __name__ == "__main__":
    app.run()
