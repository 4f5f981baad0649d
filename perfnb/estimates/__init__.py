"""What a change would have done to the recorded traffic: a range, what it assumes, and what it does not model."""

from perfnb.estimates.change import (
    Change,
    Parameter,
    Prediction,
    change,
    change_named,
    changes,
    changes_for,
    predict,
)

__all__ = ["Change", "Parameter", "Prediction", "change", "change_named", "changes", "changes_for", "predict"]
