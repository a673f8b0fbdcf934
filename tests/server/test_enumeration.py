"""Every request that the official SDK can make, found in its source, has a route of ours or a reason why not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tinker
import tinker.resources
from starlette.routing import Match, Route
from tinker.lib.public_interfaces.rest_client import RestClient

from engine.server.api import build_app

CALL = re.compile(r"\.(?:_request\(\s*\"(GET|DELETE)\",|_?(get|post|put|delete|patch)\()\s*f?\"(/api/v1/[^\"]+)\"")
NO_ADMIN = "accounts, audits and bills are the cloud's"
EXCEPTIONS = {
    "POST auth/token": "keys are used as they are: client/config says pjwt_auth_enabled false, so no client asks for a token",
    "GET auth/apikey/me": "`tinker auth`, for accounts of the cloud",
    "DELETE auth/apikey/me": "`tinker auth`, for accounts of the cloud",
    "GET audit": NO_ADMIN,
    "GET billing/usage/events": NO_ADMIN,
    "GET billing/usage/checkpoints/current": NO_ADMIN,
    "PUT sessions/{session_id}/project": "there are no projects on one machine",
    "GET sessions/{session_id}/trace_export": "no traces are recorded",
    "POST create_custom_loss": "client/config says custom_loss_server_side false: custom losses run in the client, as they are tested",
    "POST copy_weights": "there are no projects to copy between; whoever may read a checkpoint loads it",
}
WITHOUT_A_REQUEST = {
    "get_telemetry": "the client's own",
    "whoami": "reads the token that `POST auth/token` gave; see there",
}
# What the SDK puts into a path's gaps; a checkpoint's id has two parts.
GAPS = {"checkpoint_id": "weights/name"}


def requests_in(source: str) -> set[str]:
    return {f"{(a or b).upper()} {path.removeprefix('/api/v1/')}" for a, b, path in CALL.findall(source)}


def of_the_whole_sdk() -> set[str]:
    files = [file for file in Path(tinker.__file__).parent.rglob("*.py") if "_test" not in file.name]
    sources = [file.read_text(encoding="utf-8") for file in files]
    found = set().union(*map(requests_in, sources))
    written = {path for source in sources for path in re.findall(r"^[^#`]*?\(?\s*f?\"/api/v1/([^\"]+)\"", source, re.MULTILINE)}
    assert written == {request.partition(" ")[2] for request in found}, "a path that is asked for in a way this test doesn't know"
    return found


def resource_methods() -> Iterator[tuple[str, object]]:
    for module in pkgutil.iter_modules(tinker.resources.__path__):
        loaded = importlib.import_module(f"tinker.resources.{module.name}")
        for name, cls in vars(loaded).items():
            if re.fullmatch(r"Async\w+Resource", name) and cls.__module__ == loaded.__name__:
                for method, function in vars(cls).items():
                    if inspect.iscoroutinefunction(function) and not method.startswith("_"):
                        yield f"{module.name}.{method}", function


def requests_of_rest(method: str, resources: dict[str, set[str]], seen: frozenset[str] = frozenset()) -> set[str]:
    """What a method of the RestClient sends, by way of its helpers and of the resources."""
    source = inspect.getsource(getattr(RestClient, method))
    found = requests_in(source)
    for resource, name in re.findall(r"client\.(\w+)\.(\w+)\(", source):
        found |= resources[f"{resource}.{name}"]
    if "_admin_client()" in source:
        return found | {"GET audit"}
    for helper in set(re.findall(r"self\.(\w+)\(", source)) - seen - {method}:
        found |= requests_of_rest(helper, resources, seen | {method})
    return found


def route_for(request: str) -> str | None:
    """The path of ours that answers."""
    method, _, path = request.partition(" ")
    path = "/api/v1/" + re.sub(r"\{(\w+)\}", lambda gap: GAPS.get(gap[1], "x"), path)
    for route in build_app(lambda: None, compress=False).routes:
        if isinstance(route, Route) and route.matches({"type": "http", "method": method, "path": path, "headers": []})[0] is Match.FULL:
            return route.path
    return None


def test_every_resource_method() -> None:
    methods = {name: requests_in(inspect.getsource(function)) for name, function in resource_methods()}
    assert len(methods) >= 25 and {"training.forward_backward", "weights.save_external", "futures.retrieve_multi"} <= set(methods)
    for name, found in methods.items():
        assert len(found) == 1, f"{name}: {found}"
        (request,) = found
        assert route_for(request) or request in EXCEPTIONS, f"{name} asks for {request}"


def test_every_method_of_the_rest_client() -> None:
    resources = {name: requests_in(inspect.getsource(function)) for name, function in resource_methods()}
    public = [name for name, function in inspect.getmembers(RestClient, inspect.isfunction) if not name.startswith("_")]
    assert len(public) >= 30
    for name in public:
        found = requests_of_rest(name.removesuffix("_async"), resources)
        assert found or name.removesuffix("_async") in WITHOUT_A_REQUEST, name
        for request in found:
            assert route_for(request) or request in EXCEPTIONS, f"{name} asks for {request}"


@pytest.mark.parametrize("request_", sorted(of_the_whole_sdk()))
def test_every_request(request_: str) -> None:
    """Those of the clients' own code among them, such as the end of a session."""
    assert (route_for(request_) is None) == (request_ in EXCEPTIONS)


def test_the_exceptions_are_few_and_real() -> None:
    assert set(EXCEPTIONS) <= of_the_whole_sdk()
    assert len(EXCEPTIONS) <= 10 and all(len(reason) > 10 for reason in EXCEPTIONS.values())
