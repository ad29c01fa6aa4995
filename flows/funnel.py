"""What became of the rows, stage by stage, told while a flow runs and shown at its end."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger

from flows.artifacts import by_size
from pipeline.stage import Counts, FunnelStage, StageResult, total


class Funnel:
    """The counts of the stages so far, told as they come."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, Counts]] = []

    def add(self, stage: str, results: Sequence[StageResult]) -> None:
        """Add a stage, whole or in parts."""
        was_done = all(result.was_done for result in results)
        self.tell(stage, total(result.counts for result in results), " (done before)" if was_done else "")

    def summary(self) -> str:
        """All stages in one line."""
        return "; ".join(
            f"{stage} kept {counts.rows_kept:,} of {counts.rows_in:,}"
            + "".join(f", {reason} {rows:,}" for reason, rows in by_size(counts.dropped)[:3])
            for stage, counts in self.stages
        )

    def told(self) -> tuple[FunnelStage, ...]:
        """The funnel as manifests and cards hold it."""
        return tuple(FunnelStage(stage=stage, **counts.model_dump()) for stage, counts in self.stages)

    def tell(self, stage: str, counts: Counts, note: str = "") -> None:
        """Add counts that are no stage's own."""
        self.stages.append((stage, counts))
        dropped = ", ".join(f"{reason} {rows:,}" for reason, rows in by_size(counts.dropped))
        get_run_logger().info(
            f"{stage}: {counts.rows_kept:,} of {counts.rows_in:,} kept{note}"
            + (f"; dropped: {dropped}" if dropped else "")
        )
