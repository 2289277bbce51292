"""How far a strategist may go, and what its result has to show. Light to import."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ploutos.specs import Spec


class StrategistSpec(Spec):
    """Limits of a search by a language model, each of them enforced, and what promotes its result.

    They count what a search used, answers of the cassette included, so that a search that is repeated or resumed ends at the same turn.
    `llm.limits` counts what is asked anew, of the search and its control together, and ends the command, which is then run again.
    """

    strategy: str = "ema_cross"
    """Rule to tune: a name of `ploutos.strategies.rules.RULES`, or one of your own as my_rules.py:RULE."""
    max_iterations: PositiveInt = 10
    """Proposals that are backtested; the rule's defaults, where it starts, are not counted."""
    max_questions: PositiveInt = 20
    """Questions to the model, including those whose answer could not be used; the control with exchanged feedback has as many again."""
    max_tokens: PositiveInt = 200_000
    """Tokens read and written, in all questions together."""
    max_seconds: PositiveFloat = 3600.0
    """Seconds of answers, as they were recorded, and of backtests."""
    max_unusable: PositiveInt = 3
    """Answers in a row that cannot be used: unreadable, refused, tried before, or an acceptance that the criteria do not allow."""
    max_sweeps: NonNegativeInt = 3
    """Sweeps in one search."""
    max_combinations: PositiveInt = 100
    """Sets of values in one sweep; a larger grid is thinned out."""
    patience: PositiveInt = 5
    """Proposals without an improvement after which the search ends."""
    min_improvement: NonNegativeFloat = 0.01
    """Sharpe ratio by which the best must rise to count as improved."""
    shown: PositiveInt = 8
    """Latest proposals that a prompt lists; fewer where they do not fit into the model's context."""
    folds: int = Field(default=4, ge=2)
    """Walk-forward folds within the development bars, each refitted on all bars before it."""
    holdout_share: float = Field(default=0.2, gt=0, lt=0.5)
    """Share at the end of the bars that neither model nor code sees until the search is over."""
    warmup_bars: NonNegativeInt = 120
    """First bars, left to the indicators."""
    gap_bars: NonNegativeInt = 6
    """Bars between those for fitting and those for scoring."""
    min_sharpe: float = 0.5
    """Lowest walk-forward Sharpe ratio that may be accepted."""
    max_drawdown: PositiveFloat = 0.3
    """Deepest walk-forward drawdown that may be accepted."""
    min_fills: PositiveInt = 30
    """Fewest fills in the walk-forward tests."""
    max_overfitting: PositiveFloat = 1.5
    """Highest ratio of the Sharpe ratio in training to that in the tests; a test that lost money fails."""
    confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """Least deflated Sharpe ratio, on the development tests for everything tried there and on the last window for every look at it."""
    random_searches: PositiveInt = 100
    """Random searches on the same budget: the control that gives the rank."""
    optuna_searches: NonNegativeInt = 10
    """Searches by Optuna on the same budget."""
    exchange_feedback: bool = True
    """Whether the model is asked all over again with scores of other, random sets instead of its own proposals'."""
