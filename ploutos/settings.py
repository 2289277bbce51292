"""The only place that reads the environment. Values come from real variables first, then from a `.env` file."""

import re
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ploutos.errors import ConfigError

_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?")


SERVED = ("runs", "nights")
"""Folders of a home whose pages a browser may be given."""


class Settings(BaseSettings):
    """What a machine, not a run, decides."""

    model_config = SettingsConfigDict(env_prefix="PLOUTOS_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Path(".ploutos")
    """Folder of the store, of the datasets, of the registry and of every run; of this host, also where the store is on S3."""
    store: str | None = None
    """Address of a store on S3, s3://bucket/prefix, for workers on several hosts; empty keeps the artifacts in `home`."""
    alpaca_key: SecretStr | None = Field(default=None, validation_alias="APCA_API_KEY_ID")
    """Alpaca's key, by the name that Alpaca's own tools read."""
    alpaca_secret: SecretStr | None = Field(default=None, validation_alias="APCA_API_SECRET_KEY")
    """Its secret."""
    alpaca_url: str | None = None
    """Another address of Alpaca's data API: a proxy, or a server of your own."""
    database: SecretStr | None = None
    """Address of a Postgres for `ploutos serve`, such as postgresql+asyncpg://user:password@host/prefect; empty keeps a SQLite file."""
    notify: SecretStr | None = None
    """Where the server sends notifications, as apprise writes it, such as mailto://user:password@host; empty sends none."""
    reports: str | None = None
    """Address at which `ploutos serve` serves reports and nights to a browser; it sets this for the runs that it starts."""
    proxy: str | None = None
    """Proxy for Yahoo and FRED."""
    ollama_host: str | None = Field(default=None, validation_alias="OLLAMA_HOST")
    """Address of Ollama, by the name that Ollama's own tools read."""
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    """Address of an OpenAI-compatible server, up to `/v1`; Azure's with its `?api-version=`."""
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    """Its key; a server of your own needs none."""
    unload_llm_during_backtest: str | None = Field(default=None, validation_alias="UNLOAD_LLM_DURING_BACKTEST")
    """True, 1 or yes takes the model out of the GPU while policies are trained and backtested."""

    @field_validator("notify", "reports", mode="before")
    @classmethod
    def _none_where_empty(cls, value: Any) -> Any:
        return value or None

    @field_validator("home", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any) -> Any:
        if "://" in str(value):
            raise ConfigError(
                f"PLOUTOS_HOME is {value}, but registry, forward log, datasets and runs are files of one host; give it a folder, and put "
                f"the artifacts there with PLOUTOS_STORE={value}"
            )
        return value

    @field_validator("store")
    @classmethod
    def _is_s3(cls, value: str | None) -> str | None:
        if value and not _S3.fullmatch(value):
            raise ConfigError(f"PLOUTOS_STORE is {value}; expected an address such as s3://bucket/prefix, or nothing")
        return value.rstrip("/") if value else None

    @property
    def store_root(self) -> Path:
        return self.home / "store"

    @property
    def datasets_root(self) -> Path:
        return self.home / "datasets"

    @property
    def cassettes_root(self) -> Path:
        return self.home / "cassettes"

    @property
    def cutoffs_root(self) -> Path:
        return self.home / "llm" / "cutoffs"

    @property
    def registry_root(self) -> Path:
        return self.home / "registry"

    @property
    def runs_root(self) -> Path:
        return self.home / "runs"
