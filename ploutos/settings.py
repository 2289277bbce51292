"""The only place that reads the environment. Values come from real variables first, then from a `.env` file."""

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a machine, not a run, decides."""

    model_config = SettingsConfigDict(env_prefix="PLOUTOS_", env_file=".env", extra="ignore", frozen=True)

    home: Path = Path(".ploutos")
    """Folder of the store and of every run."""

    @property
    def store_root(self) -> Path:
        return self.home / "store"

    @property
    def runs_root(self) -> Path:
        return self.home / "runs"
