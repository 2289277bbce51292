"""Which features a run builds; apart from what builds them, so that reading a configuration does not load TA-Lib."""

from ploutos.errors import ConfigError
from ploutos.faults import suggestion
from ploutos.specs import Spec


class FeatureSpec(Spec):
    """Which features a policy sees."""

    include: tuple[str, ...] = ()
    """Names to keep; empty keeps all of `ploutos.features.indicators.NAMES`."""
    exclude: tuple[str, ...] = ()
    """Names to leave out."""

    def names(self) -> tuple[str, ...]:
        """The chosen names, in the documented order.

        Raises:
            ConfigError: a name is not a feature, or none is left.
        """
        from ploutos.features.indicators import NAMES

        unknown = sorted((set(self.include) | set(self.exclude)) - set(NAMES))
        if unknown:
            raise ConfigError(f"features has no {', '.join(unknown)}; it has {', '.join(NAMES)}{suggestion(unknown[0], NAMES)}")
        chosen = tuple(n for n in NAMES if (not self.include or n in self.include) and n not in self.exclude)
        if not chosen:
            raise ConfigError("features.exclude leaves no feature; expected at least one")
        return chosen
