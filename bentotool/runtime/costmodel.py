"""What a batch costs, learnt while serving: ``t(units) = alpha + beta * units``, in seconds."""

from __future__ import annotations

__all__ = ["CostModel"]


class CostModel:
    """Least squares with exponential forgetting.

    A single outlier (a preempted batch) is clipped to a few residuals and so cannot pass for a trend; several in a row
    are one, and then what was learnt before counts for less. The same size repeated leaves the slope as it is, because
    only sizes that differ say anything about it; one above all that were seen is believed as far as it differs.

    Args:
        memory: how many recent batches weigh in, about.
    """

    _CLIP = 4.0
    _WARM = 5
    _DISPROVED = 0.5
    _TREND = 3

    def __init__(self, memory: float = 50.0) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._forget()

    def _forget(self) -> None:
        self._doubted = False
        self._weight = 0.0
        self._mean_units = 0.0
        self._mean_seconds = 0.0
        self._variance = 0.0
        self._covariance = 0.0
        self._residual = 0.0
        self._seen = 0
        self._largest = 0
        self._in_a_row = 0
        self.alpha = 0.0
        self.beta = 0.0

    def __call__(self, units: float) -> float:
        """Expected seconds of a batch; 0 before anything was seen."""
        return self.alpha + self.beta * units

    @property
    def known(self) -> bool:
        """Enough was seen to refuse anything because of it."""
        return self._seen >= self._WARM

    @property
    def margin(self) -> float:
        """Mean absolute error of late, in seconds."""
        return self._residual

    def doubt(self) -> None:
        """What was learnt may be wrong: if the next batch takes less than half of what is expected, begin anew."""
        self._doubted = True

    def observe(self, units: int, seconds: float) -> None:
        """Learn from one batch."""
        if self._doubted and seconds < self._DISPROVED * self(units):
            self._forget()
        self._doubted = False
        error = seconds - self(units)
        if self._seen >= self._WARM:
            error = self._believed(units, error)
            seconds = self(units) + error
            self._residual = self._keep * self._residual + (1 - self._keep) * abs(error)
        elif self._seen:
            self._residual = max(self._residual, abs(error)) / 2
        self._seen += 1
        self._largest = max(self._largest, units)
        self._weight = self._keep * self._weight + 1.0
        share = 1.0 / self._weight
        off_units, off_seconds = units - self._mean_units, seconds - self._mean_seconds
        self._mean_units += share * off_units
        self._mean_seconds += share * off_seconds
        self._variance = (1 - share) * (self._variance + share * off_units * off_units)
        self._covariance = (1 - share) * (self._covariance + share * off_units * off_seconds)
        if self._variance > 1e-3 * max(1.0, self._mean_units):
            self.beta = max(0.0, self._covariance / self._variance)
        self.beta = min(self.beta, self._mean_seconds / max(self._mean_units, 1e-9))
        self.alpha = max(0.0, self._mean_seconds - self.beta * self._mean_units)

    def _believed(self, units: int, error: float) -> float:
        """What of an error is no accident."""
        bound = self._CLIP * max(self._residual, 0.02 * self(units), 1e-6)
        bound = max(bound, self(units) * (units / self._largest - 1.0))
        clipped = max(-bound, min(bound, error))
        if clipped == error:
            self._in_a_row = 0
        elif error > 0:
            self._in_a_row = max(1, self._in_a_row + 1)
        else:
            self._in_a_row = min(-1, self._in_a_row - 1)
        if abs(self._in_a_row) < self._TREND:
            return clipped
        self._weight = min(self._weight, self._WARM)
        return error
