"""The same store of models on an MLflow server, by its REST interface: one registered model, a version per model, MLflow's own aliases.

No package of MLflow's is needed, for its client asks for older libraries than ploutos does. A model's facts are a tag of its version, cut
into pieces as long as MLflow takes them; so is every move, on the registered model. An alias is what MLflow says it is.
"""

import json
from typing import Any

import httpx

from ploutos.errors import StoreError
from ploutos.registry.models import Alias, Model, Move

_REGISTERED = "ploutos"
_API = "/api/2.0/mlflow"
_PIECE = 4000  # MLflow takes 5,000 bytes a tag


class MLflowModels:
    """Models on an MLflow server.

    Args:
        address: such as http://localhost:5000.
        transport: of httpx; for tests.
    """

    def __init__(self, address: str, transport: httpx.BaseTransport | None = None) -> None:
        self._address, self._transport = address.rstrip("/"), transport

    def _ask(self, method: str, path: str, given: dict[str, Any], missing_ok: bool = False) -> dict[str, Any] | None:
        """One request; None for what is not there, if that is an answer."""
        sent: dict[str, Any] = {"params" if method == "GET" else "json": given}
        try:
            with httpx.Client(timeout=30, transport=self._transport) as client:
                response = client.request(method, f"{self._address}{_API}/{path}", **sent)
        except httpx.HTTPError as error:
            raise StoreError(f"MLflow at {self._address} does not answer: {error}; start it, or leave --mlflow out") from error
        if missing_ok and response.status_code == 404:
            return None
        if response.is_error:
            raise StoreError(f"MLflow at {self._address} refused {path}: {response.text[:200]}")
        return json.loads(response.content)

    def _registered(self) -> dict[str, Any]:
        found = self._ask("GET", "registered-models/get", {"name": _REGISTERED}, missing_ok=True)
        if found is None:
            found = self._ask("POST", "registered-models/create", {"name": _REGISTERED})
        assert found is not None
        return found["registered_model"]

    def _versions(self) -> list[dict[str, Any]]:
        self._registered()
        versions: list[dict[str, Any]] = []
        token = ""
        while True:
            wanted = {"filter": f"name='{_REGISTERED}'", "max_results": 100} | ({"page_token": token} if token else {})
            page = self._ask("GET", "model-versions/search", wanted) or {}
            versions += page.get("model_versions", [])
            if not (token := page.get("next_page_token", "")):
                return versions

    def add(self, model: Model) -> None:
        if any(_tags(version).get("ploutos.name") == model.name for version in self._versions()):
            return
        tags = [{"key": "ploutos.name", "value": model.name}, *_pieces("ploutos.model", model.model_dump_json())]
        self._ask("POST", "model-versions/create", {"name": _REGISTERED, "source": f"ploutos://runs/{model.run}", "tags": tags})

    def models(self) -> tuple[Model, ...]:
        found = [Model.model_validate_json(_joined("ploutos.model", _tags(version))) for version in self._versions()]
        return tuple(sorted(found, key=lambda model: model.name))

    def aliases(self) -> dict[Alias, str]:
        names = {str(version["version"]): _tags(version)["ploutos.name"] for version in self._versions()}
        listed = self._registered().get("aliases", [])
        return {Alias(each["alias"]): names[str(each["version"])] for each in listed if each["alias"] in set(Alias)}

    def move(self, move: Move) -> None:
        now = self.aliases().get(move.alias)
        if now != move.before:
            raise StoreError(
                f"{move.alias} is now {now or 'no model'} and not {move.before or 'no model'}; check `ploutos models list` and repeat"
            )
        for tag in _pieces(f"ploutos.move.{len(self.history()):06d}", move.model_dump_json()):
            self._ask("POST", "registered-models/set-tag", {"name": _REGISTERED, **tag})
        if move.model is None:
            self._ask("DELETE", "registered-models/alias", {"name": _REGISTERED, "alias": str(move.alias)})
            return
        version = next(each for each in self._versions() if _tags(each).get("ploutos.name") == move.model)
        self._ask("POST", "registered-models/alias", {"name": _REGISTERED, "alias": str(move.alias), "version": version["version"]})

    def history(self) -> tuple[Move, ...]:
        tags = _tags(self._registered())
        names = sorted({key.rsplit("/", 1)[0] for key in tags if key.startswith("ploutos.move.")})
        return tuple(Move.model_validate_json(_joined(name, tags)) for name in names)


def _tags(thing: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in thing.get("tags", [])}


def _pieces(name: str, text: str) -> list[dict[str, str]]:
    """A long text as tags; in ASCII, so that letters are bytes."""
    whole = json.dumps(json.loads(text))
    return [{"key": f"{name}/{start // _PIECE:04d}", "value": whole[start : start + _PIECE]} for start in range(0, len(whole), _PIECE)]


def _joined(name: str, tags: dict[str, str]) -> str:
    return "".join(tags[key] for key in sorted(tags) if key.startswith(f"{name}/"))
