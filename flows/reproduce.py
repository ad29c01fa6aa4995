"""`reproduce`: the whole walk, from the web to the report."""

from __future__ import annotations

from prefect import flow

from flows.build_dataset import build_dataset
from flows.evaluate import evaluate
from flows.pretrain import pretrain
from flows.recipes import Recipe, tiny


@flow(name="reproduce", flow_run_name="reproduce-{config.name}", persist_result=False)
def reproduce(config: Recipe = tiny(), workspace: str = "") -> str:
    """Build the data set, train on it, evaluate; each part that is done is not done again. Returns the evaluation's folder."""
    build_dataset(config.dataset, workspace)
    pretrain(config.pretrain, workspace)
    return evaluate(config.evaluate, workspace)
