"""Every error a user can meet, in one tree.

    PloutosError
    ├── ConfigError         a setting is unknown, of the wrong type, or contradicts another
    ├── DataError           bars cannot be used as they are
    │   └── UnknownSymbol   a symbol was asked for that the source does not hold
    ├── HistoryError        too little history for one walk-forward fold
    ├── StoreError          the store cannot write, or an artifact is missing or damaged
    ├── ResourceError       the machine stayed too full for the next phase
    └── TrainingError       a training process died or a checkpoint does not fit

A message is one sentence or two: what was found, what was expected, what to do.
"""


class PloutosError(Exception):
    """Base of every error that ploutos raises on purpose."""


class ConfigError(PloutosError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(PloutosError):
    """Bars cannot be used as they are."""


class UnknownSymbol(DataError):
    """A symbol was asked for that the source does not hold."""


class HistoryError(PloutosError):
    """Too little history for one walk-forward fold."""


class StoreError(PloutosError):
    """The store cannot write, or an artifact is missing or damaged."""


class ResourceError(PloutosError):
    """The machine stayed too full for the next phase."""


class TrainingError(PloutosError):
    """A training process died, or a checkpoint does not fit what is asked of it."""
