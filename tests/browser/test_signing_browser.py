"""People who sign in, in a real browser, by way of a small OpenID provider: the door, each their own, out again and back."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from app import identity
from engine import Engine
from tests.browser.driving import READY, WIDTHS, Dashboard, fits
from tests.running import ROOT, free_port, until

pytest.importorskip("authlib")
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


class Provider:
    """Asks nobody for a password: whoever is clicked is signed in. Keys are made for each life."""

    def __init__(self) -> None:
        from joserfc import jwk

        self._key = jwk.RSAKey.generate_key(2048, {"kid": "1", "alg": "RS256", "use": "sig"}, private=True)
        self._codes: dict[str, tuple[str, str]] = {}
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        routes = [
            Route("/.well-known/openid-configuration", self._about),
            Route("/authorize", self._authorize),
            Route("/chosen", self._chosen),
            Route("/token", self._token, methods=["POST"]),
            Route("/jwks", self._jwks),
        ]
        self._server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning"))
        threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True).start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True

    async def _about(self, request: Request) -> Response:
        places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        told = {"issuer": self.url, **{name: f"{self.url}/{path}" for name, path in places.items()}}
        kinds = {"response_types_supported": ["code"], "subject_types_supported": ["public"]}
        return JSONResponse({**told, **kinds, "id_token_signing_alg_values_supported": ["RS256"]})

    async def _authorize(self, request: Request) -> Response:
        links = "".join(f'<p><a href="/chosen?{urlencode({**request.query_params, "who": who})}">{who}</a></p>' for who in ("Ann", "Bob"))
        return HTMLResponse(links)

    async def _chosen(self, request: Request) -> Response:
        asked, code = request.query_params, secrets.token_hex(8)
        self._codes[code] = asked["who"], asked.get("nonce", "")
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}")

    async def _token(self, request: Request) -> Response:
        from joserfc import jwt

        form = await request.form()
        who, nonce = self._codes.pop(str(form["code"]))
        claims = {"iss": self.url, "sub": f"number of {who}", "aud": "thinker", "name": who, "email": "shared@example.org", "nonce": nonce}
        claims |= {"iat": int(time.time()), "exp": int(time.time()) + 600}
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": token, "expires_in": 600})

    async def _jwks(self, request: Request) -> Response:
        return JSONResponse({"keys": [self._key.as_dict(private=False)]})


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


@pytest.fixture
def dashboard(provider: Provider, thinker_home: Path, tmp_path: Path) -> Iterator[Dashboard]:
    folder = tmp_path / "run from here" / ".streamlit"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text((ROOT / ".streamlit" / "config.toml").read_text())
    port = free_port()
    secret = [f'redirect_uri = "http://127.0.0.1:{port}/oauth2callback"', f'cookie_secret = "{secrets.token_hex(32)}"']
    secret += ['client_id = "thinker"', 'client_secret = "s"', f'server_metadata_url = "{provider.url}/.well-known/openid-configuration"']
    (folder / "secrets.toml").write_text("\n".join(["[auth]", *secret]))
    with Dashboard(thinker_home, tmp_path / "dashboard.log", folder=folder.parent, port=port) as made:
        yield made


def sign_in(page: Page, who: str) -> None:
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name=who).click()
    page.wait_for_url("**/127.0.0.1:*/**")
    expect(page.get_by_text(f"Signed in as {who}")).to_be_visible(timeout=20_000)


def test_each_person_has_their_own(browser: Browser, dashboard: Dashboard, provider: Provider, tmp_path: Path) -> None:
    file = tmp_path / "anns.jsonl"
    file.write_text("".join(f'{{"prompt": "Shout {n}", "completion": "{n}!"}}\n' for n in range(20)))
    ann, bob = browser.new_context().new_page(), browser.new_context().new_page()
    trouble: list[str] = []
    for page in (ann, bob):
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(f"{dashboard.url}/datasets")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=20_000)
        expect(page.get_by_test_id("stFileUploader")).to_have_count(0)
        expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert fits(page)
        page.set_viewport_size({"width": 1440, "height": 900})
    sign_in(ann, "Ann")
    sign_in(bob, "Bob")
    ann.goto(f"{dashboard.url}/datasets")
    ann.wait_for_selector(READY)
    ann.locator("input[type=file]").first.set_input_files(file)
    expect(ann.get_by_text("anns").first).to_be_visible(timeout=20_000)
    bob.goto(f"{dashboard.url}/datasets")
    bob.wait_for_selector(READY)
    bob.wait_for_timeout(500)
    expect(bob.get_by_text("anns")).to_have_count(0)
    with Engine(identity.person(provider.url, "number of Ann")) as engine:
        assert [found.name for found in engine.datasets.find()] == ["anns"]

    ann.reload()
    expect(ann.get_by_text("Signed in as Ann")).to_be_visible(timeout=20_000)
    expect(ann.get_by_text("anns").first).to_be_visible()
    ann.get_by_role("button", name="Sign out").click()
    expect(ann.get_by_role("button", name="Sign in")).to_be_visible(timeout=20_000)
    expect(ann.get_by_text("anns")).to_have_count(0)
    sign_in(ann, "Bob")
    ann.goto(f"{dashboard.url}/datasets")
    ann.wait_for_selector(READY)
    ann.wait_for_timeout(500)
    expect(ann.get_by_text("anns")).to_have_count(0)
    assert not trouble
