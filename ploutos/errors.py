"""Every error a user can meet, in one tree.

    PloutosError
    ├── ConfigError         a setting is unknown, of the wrong type, or contradicts another
    ├── ShapeError          an array has another shape than expected
    ├── PoolError           a pool of environments is closed, or was given what it had not lent
    ├── DataError           bars cannot be used as they are
    │   ├── UnknownSymbol   a requested symbol is not in the source
    │   ├── NoData          the source knows the symbol and has no bars in the requested range
    │   ├── RangeTooOld     the vendor does not keep bars of that length that far back
    │   └── VendorError     a vendor did not answer as it should
    │       ├── CredentialsError   the vendor refused the keys or the subscription
    │       ├── RateLimited        too many requests; `retry_after` says for how long
    │       └── VendorDown         no answer, a broken answer, or a fault on the vendor's side
    ├── HistoryError        too little history for one walk-forward fold
    ├── StoreError          the store cannot write, or an artifact is missing or damaged
    ├── ResourceError       too little memory was free for the next phase
    ├── NetworkError        a server that a command was pointed at does not answer
    ├── TrainingError       a training process died, or a checkpoint does not fit the run
    ├── OrchestratorError   there is no Prefect server, it refused, or a run cannot be resumed
    ├── StrategyError       a strategy breaks its contract: it peeks, or answers outside its limits
    └── LLMError            a language model cannot be called with these settings, or a cassette lacks its answer
        ├── LLMStopped      asking ended for now, and what was answered is kept: a limit, or a long pause that a server asks for
        └── LLMUnavailable  its server does not answer
            └── LLMBusy     it answers others for now; `retry_after` says for how long

A message is one sentence or two: what was found, what was expected, what to do.
"""


class PloutosError(Exception):
    """Base of every error that ploutos raises on purpose."""


class ConfigError(PloutosError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class ShapeError(PloutosError):
    """An array has another shape than expected."""


class PoolError(PloutosError):
    """A pool of environments is closed, or was given what it had not lent."""


class DataError(PloutosError):
    """Bars cannot be used as they are."""


class UnknownSymbol(DataError):
    """A requested symbol is not in the source."""


class NoData(DataError):
    """The source knows the symbol and has no bars in the requested range."""


class RangeTooOld(DataError):
    """The vendor does not keep bars of that length that far back."""


class VendorError(DataError):
    """A vendor did not answer as it should."""


class CredentialsError(VendorError):
    """The vendor refused the keys, or the subscription behind them does not reach that far."""


class RateLimited(VendorError):
    """Too many requests.

    Attributes:
        retry_after: seconds until the vendor answers again, as far as it said.
    """

    def __init__(self, message: str, retry_after: float = 0.0):
        super().__init__(message, retry_after)  # both, so that it can travel between processes
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class VendorDown(VendorError):
    """No answer, a broken answer, or a fault on the vendor's side, after every retry."""


class HistoryError(PloutosError):
    """Too little history for one walk-forward fold."""


class StoreError(PloutosError):
    """The store cannot write, or an artifact is missing or damaged."""


class ResourceError(PloutosError):
    """Too little memory was free for the next phase."""


class NetworkError(PloutosError):
    """A server that a command was pointed at does not answer."""


class TrainingError(PloutosError):
    """A training process died, or a checkpoint does not fit the run."""


class OrchestratorError(PloutosError):
    """There is no Prefect server, it refused, or a run cannot be resumed."""


class StrategyError(PloutosError):
    """A strategy breaks its contract: it peeks, or answers outside its limits."""


class LLMError(PloutosError):
    """A language model cannot be called with these settings, or a cassette lacks its answer."""


class LLMStopped(LLMError):
    """Asking ended before the last question: a limit is reached, or the server asks for a long pause. What was answered is kept."""


class LLMUnavailable(LLMError):
    """The server of a language model does not answer: refused, too slow, too busy, or broken."""


class LLMBusy(LLMUnavailable):
    """The server of a language model answers others for now.

    Attributes:
        retry_after: seconds until it may be asked again, as far as it said.
    """

    def __init__(self, message: str, retry_after: float = 0.0):
        super().__init__(message, retry_after)  # both, so that it can travel between processes
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])
