"""What ends a trial early for the target's sake: errors, latency, money."""

from dataclasses import dataclass

from perfnb.load import BlockReport, Progress


@dataclass(frozen=True)
class Guard:
    """Limits of a trial; passing one ends it and undoes the change. None is no limit.

    Attributes:
        error_rate: Part of a block's requests that may fail …
        at_least: … once so many have ended.
        latency_ms: What a block's median may take to the last byte.
        spend_usd: What the trial's model calls may cost.
    """

    error_rate: float | None = 0.2
    latency_ms: float | None = None
    spend_usd: float | None = None
    at_least: int = 5

    def on_progress(self, progress: Progress) -> str | None:
        """Return which limit a block that is under way passes; None if none."""
        if self.error_rate is None or progress.ended < self.at_least:
            return None
        if progress.failed / progress.ended <= self.error_rate:
            return None
        return f"{progress.failed} of {progress.ended} requests failed (the guard allows {self.error_rate:.0%})"

    def on_block(self, report: BlockReport) -> str | None:
        """Return which limit a block passed; None if none."""
        if failed := self.on_progress(Progress(report.number, report.sent, report.ended, report.failed)):
            return failed
        if self.latency_ms is not None and (report.median_ms or 0.0) > self.latency_ms:
            return (
                f"half of the requests took over {report.median_ms:.0f} ms (the guard allows {self.latency_ms:.0f} ms)"
            )
        return None

    def on_spend(self, usd: float) -> str | None:
        """Return that the trial's calls cost too much; None if they don't."""
        if self.spend_usd is None or usd <= self.spend_usd:
            return None
        return f"the trial's model calls cost ${usd:.4f} (the guard allows ${self.spend_usd:.4f})"
