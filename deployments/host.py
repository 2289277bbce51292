"""What a deployed run does on its host before its flow is loaded."""

import os
from pathlib import Path

from ploutos.errors import ConfigError
from ploutos.settings import Settings


def work_beside_home() -> dict[str, str]:
    """Change into the folder that holds PLOUTOS_HOME, which a host that is new to it lacks; a pull step of Prefect.

    A worker starts a run in a temporary folder, where a relative PLOUTOS_HOME would be lost with all that is in it.

    Returns:
        The folder.

    Raises:
        ConfigError: PLOUTOS_HOME is not absolute, or nobody may make its folder.
    """
    home = Settings().home
    if not home.is_absolute():
        raise ConfigError(f"PLOUTOS_HOME is {home} where this worker runs; start the worker with an absolute folder in PLOUTOS_HOME")
    folder = Path(home).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    except OSError as error:
        raise ConfigError(f"PLOUTOS_HOME is {home}, and {folder} cannot be made or entered: {error.strerror}; set another one") from error
    return {"directory": str(folder)}
