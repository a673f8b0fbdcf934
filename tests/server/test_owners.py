"""Each key sees its own: asked on every route that the server has, found in its table of routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import tinker
from starlette.routing import Route
from tinker import types

from engine.errors import EndpointError
from engine.server.api import build_app
from engine.server.openai_api import PREFIXES
from engine.server.owners import own_key, parse_keys
from engine.server.security import read_or_make_keys
from tests.server.harness import KEY, RunningServer, batch, text_tokens
from tests.server.raw import Session, rows, training_body

BOB = "tml-the-key-of-bob-on-a-loopback-server"
CHECKPOINT = "training_runs/{run_id}/checkpoints/{kind}/{name}"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OWN, PUBLIC = "nothing in it belongs to anybody", "what everybody may see"
# Every route that names nothing of anybody's, and why another's key may call it.
FREE = {
    "GET healthz": PUBLIC,
    "GET thinker/status": PUBLIC,
    "POST client/config": PUBLIC,
    "POST client/dynamic_config": PUBLIC,
    "GET get_server_capabilities": PUBLIC,
    "POST telemetry": OWN,
    "POST create_session": OWN,
    "GET training_runs": "lists the caller's: see test_lists",
    "GET checkpoints": "lists the caller's: see test_lists",
    "GET sessions": "lists the caller's: see test_lists",
    "POST sessions/search": "lists the caller's: see test_lists",
    **{f"GET {prefix}/models": "lists the caller's: see test_lists" for prefix in PREFIXES},
    **{f"{method} {prefix}/{{rest:path}}": "answers 404 to everybody" for method in METHODS for prefix in PREFIXES},
    "GET signed/{run_id}/{name}/{file}": "asks for no key: see test_rest",
}


class Things:
    """What one owner has, and for each route a request about it."""

    def __init__(self, server: RunningServer, key: str):
        self.http = httpx.Client(base_url=server.url + "/api/v1/", headers={"X-API-Key": key}, timeout=30, trust_env=False)
        self.session = Session.__new__(Session)
        self.session.http, self.session._models = self.http, 0
        self.session.id = self.session.ok("create_session", {"tags": [], "display_name": "mine"})["session_id"]
        self.run = self.session.model()
        self.weights = self.session.result(self.session.save(self.run, 1, "w").json()["request_id"])["path"]
        named = {"model_id": self.run, "seq_id": 2, "path": "s"}
        self.samples = self.session.result(self.session.ok("save_weights_for_sampler", named)["request_id"])["path"]
        external = {"model_id": self.run, "seq_id": 3, "path": "e"}
        self.external = self.session.result(self.session.ok("save_weights_external", external)["request_id"])["path"]
        self.sampler = self.session.sampler(1, model_path=self.samples)
        self.future = self.session.ok("asample", self.session.sample_body(self.sampler, 0, [5]))["request_id"]
        self.session.retrieve(self.future)
        self.next = 4

    def about(self, other: Things) -> dict[str, Callable[[], httpx.Response]]:
        """Requests by this owner's key about what the other has; about oneself they all succeed, in this order."""
        http, of, number = self.http, other, other.next
        place = f"training_runs/{of.run}/checkpoints"
        root = str(http.base_url).removesuffix("/api/v1/")
        said = {"model": of.samples, "max_tokens": 2}

        def post(path: str, body: dict) -> Callable[[], httpx.Response]:
            return lambda: http.post(path, json=body)

        def get(url: str) -> Callable[[], httpx.Response]:
            return lambda: http.get(url)

        chat = {**said, "messages": [{"role": "user", "content": "Hi"}]}
        numbered, mine, new = {"model_id": of.run}, {"session_id": self.session.id}, {"base_model": "nano", "lora_config": {"rank": 2}}
        return {
            "POST session_heartbeat": post("session_heartbeat", {"session_id": of.session.id}),
            "POST create_model": post("create_model", {**new, "session_id": of.session.id, "model_seq_id": 8}),
            "POST get_info": post("get_info", numbered),
            "POST forward_backward": lambda: http.post("forward_backward", content=training_body(of.run, number, rows())),
            "POST optim_step": post("optim_step", {**numbered, "seq_id": number + 1, "adam_params": {"learning_rate": 0.0}}),
            "POST save_weights": post("save_weights", {**numbered, "seq_id": number + 2, "path": "x"}),
            "POST save_weights_for_sampler": post("save_weights_for_sampler", {**numbered, "seq_id": number + 3, "path": "x"}),
            "POST save_weights_external": post("save_weights_external", {**numbered, "seq_id": number + 4, "path": "x"}),
            "POST load_weights": post("load_weights", {**mine, "model_seq_id": 9, "path": of.weights, "optimizer": True}),
            "POST create_sampling_session": post(
                "create_sampling_session", {**mine, "sampling_session_seq_id": 9, "model_path": of.samples}
            ),
            "GET samplers/{sampler_id}": lambda: http.get(f"samplers/{of.sampler}"),
            "POST asample": post("asample", other.session.sample_body(of.sampler, 1, [5])),
            "POST join_sampling_session": post("join_sampling_session", {"sampling_session_id": of.sampler}),
            "POST retrieve_future": post("retrieve_future", {"request_id": of.future}),
            "POST retrieve_futures": post("retrieve_futures", {"target": {"sampling_session_id": of.sampler}, "timeout": 0}),
            "POST cancel_future": post("cancel_future", {"request_id": of.future}),
            "GET training_runs/{run_id}": lambda: http.get(f"training_runs/{of.run}"),
            "GET training_runs/{run_id}/checkpoints": lambda: http.get(place),
            "POST weights_info": post("weights_info", {"tinker_path": of.weights}),
            "GET sessions/{session_id}": lambda: http.get(f"sessions/{of.session.id}"),
            **{f"GET {prefix}/models/{{model:path}}": get(f"{root}{prefix}/models/{of.samples}") for prefix in PREFIXES},
            **{f"POST {prefix}/chat/completions": post(f"{root}{prefix}/chat/completions", chat) for prefix in PREFIXES},
            **{f"POST {prefix}/completions": post(f"{root}{prefix}/completions", {**said, "prompt": "Hi"}) for prefix in PREFIXES},
            f"GET {CHECKPOINT}/external_weights_urls": lambda: http.get(f"{place}/external_weights/e/external_weights_urls"),
            f"POST {CHECKPOINT}/publish": post(f"{place}/weights/w/publish", {}),
            f"DELETE {CHECKPOINT}/publish": lambda: http.delete(f"{place}/weights/w/publish"),
            f"PUT {CHECKPOINT}/ttl": lambda: http.put(f"{place}/weights/w/ttl", json={"ttl_seconds": 3600}),
            f"DELETE {CHECKPOINT}": lambda: http.delete(f"{place}/weights/w"),
            "POST sessions/{session_id}/finish": post(f"sessions/{of.session.id}/finish", {"reason": {"type": "success"}}),
        }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The usual key, which is the owner `default`'s, and bob's."""
    running = RunningServer(tmp_path_factory.mktemp("shared"), env={"THINKER_SERVER_KEYS": f"bob {BOB}"})
    yield running
    running.stop()


@pytest.fixture
def ann(shared: RunningServer) -> Things:
    return Things(shared, KEY)


@pytest.fixture
def bob(shared: RunningServer) -> Things:
    return Things(shared, BOB)


def every_route() -> set[str]:
    found = set()
    for route in build_app(lambda: None, compress=False).routes:
        assert isinstance(route, Route), f"{route} isn't a plain route: find its paths here, and ask for them below"
        found |= {f"{method} {route.path.removeprefix('/api/v1/')}" for method in (route.methods or set()) - {"HEAD"}}
    return found


def told(reply: httpx.Response) -> str:
    """The answer without the ids in it."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|nobody-[0-9a-f-]*", "ID", reply.text)


def test_every_route_is_asked_about(ann: Things, bob: Things) -> None:
    assert set(bob.about(ann)) | set(FREE) == every_route(), "a route has come or gone: say what another owner may not do there"
    assert not set(bob.about(ann)) & set(FREE)


def test_what_is_anothers_is_not_there(ann: Things, bob: Things) -> None:
    """404 on every route, word for word what is said of things that never were; then the owner's own requests succeed."""
    foreign = {route: ask() for route, ask in bob.about(ann).items()}
    for route, reply in foreign.items():
        # A heartbeat's 410 is what makes a client stop; an id that never was gets it too.
        assert reply.status_code == (410 if route == "POST session_heartbeat" else 404), f"{route}: {reply.text}"
    nobody = Things.__new__(Things)
    nobody.__dict__.update(ann.__dict__)
    lost = {name: re.sub(r"[0-9a-f]{8}-", "00000000-", value) for name, value in vars(ann).items() if isinstance(value, str)}
    nobody.__dict__.update(lost)
    nobody.session = Session.__new__(Session)
    nobody.session.id = re.sub(r"[0-9a-f]{8}-", "00000000-", ann.session.id)
    for route, ask in bob.about(nobody).items():
        reply = ask()
        assert (reply.status_code, told(reply)) == (foreign[route].status_code, told(foreign[route])), route
    for route, ask in ann.about(ann).items():
        reply = ask()
        assert reply.status_code == 200, f"{route}: {reply.text}"
        if request_id := (reply.json() if "json" in reply.headers["content-type"] else {}).get("request_id"):
            result = ann.http.post("retrieve_future", json={"request_id": request_id})
            assert b'"error"' not in result.content, f"{route}: {result.text}"
            assert bob.http.post("retrieve_future", json={"request_id": request_id}).status_code == 404
            assert bob.http.post("cancel_future", json={"request_id": request_id}).status_code == 404


def test_by_the_paths_alone(ann: Things, bob: Things) -> None:
    """Where a request names two things, and only one of them is the caller's."""
    mine = bob.session
    body = {"session_id": mine.id, "model_seq_id": 20, "path": ann.weights, "optimizer": False}
    assert mine.post("load_weights", body).status_code == 404
    assert mine.post("load_weights", {"model_id": bob.run, "seq_id": bob.next, "path": ann.weights, "optimizer": False}).status_code == 404
    prompt = {"chunks": [{"type": "encoded_text", "tokens": [5]}]}
    once = {"model_path": ann.samples, "prompt": prompt, "sampling_params": {"max_tokens": 2}}
    assert mine.post("asample", once).status_code == 404
    assert ann.session.post("asample", once).status_code == 200
    unnumbered = mine.post("asample", {**once, "model_path": bob.samples}).json()["request_id"]
    assert ann.session.retrieve(unnumbered).status_code == 404 and mine.retrieve(unnumbered).status_code == 200
    theirs = {"session_id": ann.session.id, "sampling_session_seq_id": 30, "model_path": bob.samples}
    assert mine.post("create_sampling_session", theirs).status_code == 404


def test_lists(ann: Things, bob: Things, shared: RunningServer) -> None:
    for me, other in ((ann, bob), (bob, ann)):
        runs = me.http.get("training_runs?limit=1000").json()["training_runs"]
        assert me.run in {run["training_run_id"] for run in runs} and other.run not in str(runs)
        assert {run["model_owner"] for run in runs} == {"default" if me is ann else "bob"}
        checkpoints = me.http.get("checkpoints?limit=1000").json()["checkpoints"]
        assert {me.weights, me.samples, me.external} <= {c["tinker_path"] for c in checkpoints} and other.run not in str(checkpoints)
        models = me.http.get(f"{shared.url}/v1/models").json()["data"]
        assert me.samples in {model["id"] for model in models} and other.run not in str(models)
        for sessions in (me.http.get("sessions?limit=1000").json(), me.http.post("sessions/search", json={"limit": 200}).json()):
            assert me.session.id in str(sessions) and other.session.id not in str(sessions)


def test_published_is_for_everybody_to_read(ann: Things, bob: Things) -> None:
    place = f"training_runs/{ann.run}/checkpoints/sampler_weights/s"
    assert ann.http.post(f"{place}/publish").status_code == 200
    assert bob.http.post("weights_info", json={"tinker_path": ann.samples}).json()["lora_rank"] == 4
    assert ann.samples in bob.http.get(str(bob.http.base_url).replace("/api/v1/", "/v1/models")).text
    sampler = bob.session.sampler(40, model_path=ann.samples)
    reply = bob.session.post("asample", bob.session.sample_body(sampler, 0, [5]))
    assert bob.session.retrieve(reply.json()["request_id"]).status_code == 200
    loaded = bob.session.ok("load_weights", {"session_id": bob.session.id, "model_seq_id": 41, "path": ann.samples, "optimizer": False})
    assert "error" not in bob.session.result(loaded["request_id"])
    for refused in (bob.http.delete(place), bob.http.delete(f"{place}/publish"), bob.http.put(f"{place}/ttl", json={"ttl_seconds": 3600})):
        assert refused.status_code == 404
    assert bob.http.post("weights_info", json={"tinker_path": ann.weights}).status_code == 404, "one checkpoint, not the run"
    assert ann.run not in bob.http.get("checkpoints?limit=1000").text
    assert ann.http.delete(f"{place}/publish").status_code == 200
    assert bob.http.post("weights_info", json={"tinker_path": ann.samples}).status_code == 404


def test_two_owners_with_the_sdk(shared: RunningServer) -> None:
    """The whole of a client's life under the second key, the first's runs beside it."""
    services = [tinker.ServiceClient(base_url=shared.url, api_key=key) for key in (KEY, BOB)]
    clients = [service.create_lora_training_client("nano", rank=4, seed=3).result(timeout=60) for service in services]
    futures = [client.forward_backward(batch(), "cross_entropy") for client in clients]
    losses = [future.result(timeout=60).metrics["loss:sum"] for future in futures]
    assert losses[0] == losses[1]
    path = clients[1].save_state("mine").result(timeout=60).path
    prompt = types.ModelInput.from_ints(text_tokens("Hi"))
    sampler = clients[1].save_weights_and_get_sampling_client().result(timeout=60)
    assert sampler.sample(prompt, 1, types.SamplingParams(max_tokens=2)).result(timeout=60).sequences
    with pytest.raises(tinker.NotFoundError):
        services[0].create_training_client_from_state(path).result(timeout=60)
    assert services[1].create_training_client_from_state(path).result(timeout=60).model_id
    for service in services:
        service.close("success").result(timeout=20)


@pytest.mark.slow
def test_owners_outlive_the_server_and_a_key_can_be_taken_away(tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_text(f"# who\nann {KEY}\n\nbob {BOB}  # from the second floor\n")
    start = lambda: RunningServer(tmp_path / "s", "--key-file", str(key_file), env={"THINKER_SERVER_KEY": ""})  # noqa: E731
    first = start()
    bob = Things(first, BOB)
    link = bob.http.get(f"training_runs/{bob.run}/checkpoints/external_weights/e/external_weights_urls").json()["urls"][
        "adapter_config.json"
    ]
    assert httpx.get(link, trust_env=False).status_code == 200
    bob.http.close()
    first.kill()
    key_file.write_text(f"ann {KEY}\ncarl tml-the-key-of-carl-on-a-loopback-server\n")
    second = start()
    try:
        link = link.replace(first.url, second.url)
        assert httpx.get(link, trust_env=False).status_code == 403, "a link ends with its owner's key"
        for key, status in ((KEY, 404), ("tml-the-key-of-carl-on-a-loopback-server", 404), (BOB, 401)):
            reply = httpx.get(f"{second.url}/api/v1/training_runs/{bob.run}", headers={"X-API-Key": key}, trust_env=False)
            assert reply.status_code == status
        log = second.log.read_text() + (second.folder / "ready.json").read_text()
        assert KEY not in log and BOB not in log
    finally:
        second.stop()


class TestKeys:
    def test_lines(self) -> None:
        assert parse_keys(f"{KEY}\n", "f") == {"default": KEY}
        assert parse_keys(f"\n# c\nann {KEY} # x\n  bob\t{BOB}\n", "f") == {"ann": KEY, "bob": BOB}
        assert own_key(f"\n# c\nann {KEY}\nbob {BOB}") == own_key(KEY) == KEY and own_key("# none\n") == ""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("hunter2-is-not-a-key", "isn't a key"),
            ("ann tml-short", "isn't a key"),
            (f"a b {KEY}", "isn't a name and a key"),
            (f"../ann {KEY}", "isn't a name and a key"),
            (f"ann {KEY}\nann {BOB}", "f, line 2: the name or the key stands there twice"),
            (f"ann {KEY}\nbob {KEY}", "twice"),
            ("# nobody\n", "has no key"),
        ],
    )
    def test_what_is_refused(self, text: str, words: str) -> None:
        with pytest.raises(EndpointError, match=re.escape(words)) as caught:
            parse_keys(text, "f")
        assert KEY not in str(caught.value) and "hunter2" not in str(caught.value), "errors are shown, keys aren't"

    def test_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("THINKER_SERVER_KEYS", f"ann {KEY},bob {BOB}")
        monkeypatch.delenv("THINKER_SERVER_KEY", raising=False)
        assert read_or_make_keys(None) == {"ann": KEY, "bob": BOB}
        monkeypatch.setenv("THINKER_SERVER_KEYS", f"bob {BOB}")
        monkeypatch.setenv("THINKER_SERVER_KEY", KEY)
        assert read_or_make_keys(None) == {"default": KEY, "bob": BOB}
