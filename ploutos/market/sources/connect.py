"""A vendor's client with the keys and addresses of this machine."""

from ploutos.errors import ConfigError
from ploutos.extras import require_extra
from ploutos.market.data_spec import DataSpec
from ploutos.market.sources.vendor import Vendor
from ploutos.settings import Settings

VENDORS = ("alpaca", "yahoo")


def connect(spec: DataSpec, settings: Settings) -> Vendor:
    """The vendor that a source names.

    Raises:
        ConfigError: the source is not a vendor, or its client is not installed.
        CredentialsError: the keys are missing.
    """
    if spec.source == "yahoo":
        require_extra("yfinance", "vendors", "data from Yahoo")
        from ploutos.market.sources.yahoo import Yahoo

        return Yahoo(cache=settings.home / "yahoo-cache", proxy=settings.proxy)
    if spec.source == "alpaca":
        require_extra("alpaca", "vendors", "data from Alpaca")
        from ploutos.market.sources.alpaca import Alpaca

        key, secret = (value.get_secret_value() if value else None for value in (settings.alpaca_key, settings.alpaca_secret))
        return Alpaca(key, secret, spec.feed, settings.alpaca_url)
    raise ConfigError(f"data.source is {spec.source}, which is not a vendor; expected one of {', '.join(VENDORS)}")
