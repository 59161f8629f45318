"""Who may use it, from where, and how often."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from spinexr import tokens
from spinexr.cli import main
from spinexr.errors import ConfigurationError
from tests import builders

JSON = {"Accept": "application/json"}
PAGE = {"Accept": "text/html"}


@pytest.fixture
def token() -> str:
    return tokens.new()


@pytest.fixture
def guarded(make_app: Callable[..., Flask], tmp_path: Path, token: str) -> FlaskClient:
    """A client of an application that asks for a token, and has told nobody's but Ann's."""
    file = tmp_path / "tokens"
    file.write_text(f"# who may\n\n{tokens.line('ann', token)}\n", encoding="utf-8")
    return make_app(tokens_file=file).test_client()


def upload(client: FlaskClient, headers: dict[str, str], **fields: str) -> TestResponse:
    data = {"file": (BytesIO(builders.dicom()), "image.dcm"), **fields}
    return client.post("/upload", data=data, headers=headers)


def problem(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_a_form_of_another_site_is_refused(client: FlaskClient, headers: dict[str, str]) -> None:
    assert problem(upload(client, JSON | headers)) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers",
    [
        {},  # curl -F
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # TLS ended in front
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "null"},  # where referrers are switched off
    ],
)
def test_programs_and_the_page_itself_are_not(client: FlaskClient, headers: dict[str, str]) -> None:
    assert upload(client, JSON | headers).status_code == 200


def test_an_origin_that_the_deployer_allows_may_post(make_app: Callable[..., Flask]) -> None:
    client = make_app(cors_origins=("https://reader.example",)).test_client()
    headers = {"Origin": "https://reader.example", "Sec-Fetch-Site": "cross-site"}
    assert upload(client, JSON | headers).status_code == 200


def test_a_host_name_that_is_not_trusted_is_refused(make_app: Callable[..., Flask]) -> None:
    client = make_app(trusted_hosts=("reader.example",)).test_client()
    assert client.get("/livez", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/livez", headers={"Host": "reader.example"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("[::1]:5000", 200), ("[::1]", 200), ("localhost:5000", 200), ("a.localhost", 200),
     ("evil.example", 400), ("[::2]:5000", 400), ("evil.localhost.example", 400)],
)  # fmt: skip
def test_a_server_on_the_loopback_address_of_ipv6_answers_to_its_own_names_alone(
    make_app: Callable[..., Flask], host: str, status: int
) -> None:
    client = make_app(host="::1").test_client()
    assert client.get("/livez", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
def test_a_name_that_leads_to_this_machine_alone_is_not_its_name(
    client: FlaskClient, host: str
) -> None:
    same_site = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert problem(upload(client, JSON | same_site)) == (400, "bad_request")
    assert client.get("/metrics", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "app.localhost", "127.0.0.1:80"])
def test_this_machine_s_own_names_are(client: FlaskClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_behind_a_proxy_the_names_are_the_proxy_s(make_app: Callable[..., Flask]) -> None:
    client = make_app(proxies=1).test_client()
    assert client.get("/", headers={"Host": "reader.example"}).status_code == 200


def test_without_tokens_nobody_is_asked(client: FlaskClient) -> None:
    assert client.get("/").status_code == 200
    assert client.get("/login").status_code == 404


@pytest.mark.parametrize("path", ["/upload", "/pixels", "/samples/lumbar-normal"])
def test_nothing_is_analysed_without_a_token(guarded: FlaskClient, path: str) -> None:
    response = guarded.post(path, headers=JSON)
    assert problem(response) == (401, "access_token_needed")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/", "/samples", "/samples/lumbar-normal", "/metrics"])
def test_nothing_is_shown_without_a_token(guarded: FlaskClient, path: str) -> None:
    assert guarded.get(path, headers=JSON).status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/static/spinexr.css"])
def test_how_it_is_may_be_asked_by_anybody(guarded: FlaskClient, path: str) -> None:
    with guarded.get(path) as response:
        assert response.status_code == 200


def test_a_program_shows_its_token(guarded: FlaskClient, token: str) -> None:
    assert upload(guarded, JSON | {"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer ", "Basic {token}", "{token}", "Bearer"])
def test_a_wrong_token_is_no_token(guarded: FlaskClient, token: str, given: str) -> None:
    headers = JSON | {"Authorization": given.replace("{token}", token)}
    assert problem(upload(guarded, headers)) == (401, "access_token_needed")


def test_the_hash_in_the_file_is_no_token(guarded: FlaskClient, token: str) -> None:
    known = tokens.line("ann", token).split()[1]
    assert upload(guarded, JSON | {"Authorization": f"Bearer {known}"}).status_code == 401


def log_in(client: FlaskClient, token: str) -> str:
    """Log in; the form token of the front page."""
    response = client.post("/login", data={"token": f" {token}\n"}, headers=PAGE)
    assert (response.status_code, response.location) == (303, "/")
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/", headers=PAGE).text)
    assert found is not None
    return found[1]


def test_a_person_is_sent_to_the_login_and_from_there_to_the_page(
    guarded: FlaskClient, token: str
) -> None:
    response = guarded.get("/", headers=PAGE)
    assert (response.status_code, response.location) == (303, "/login")
    assert 'type="password"' in guarded.get("/login").text
    form_token = log_in(guarded, token)
    assert upload(guarded, PAGE, csrf_token=form_token).status_code == 200


def test_a_wrong_token_does_not_log_in(guarded: FlaskClient) -> None:
    response = guarded.post("/login", data={"token": "wrong"}, headers=PAGE)
    assert response.status_code == 401
    assert "not a token" in response.text
    assert guarded.get("/", headers=PAGE).status_code == 303


def test_a_form_that_relies_on_the_login_needs_the_token_of_its_page(
    guarded: FlaskClient, token: str
) -> None:
    log_in(guarded, token)
    assert problem(upload(guarded, JSON)) == (403, "form_expired")
    made_up = {"csrf_token": "made up"}
    assert problem(upload(guarded, JSON, **made_up)) == (403, "form_expired")


def test_a_bearer_token_needs_no_form_token_beside_a_login(
    guarded: FlaskClient, token: str
) -> None:
    log_in(guarded, token)
    assert upload(guarded, JSON | {"Authorization": f"Bearer {token}"}).status_code == 200


def test_after_the_logout_the_page_is_closed(guarded: FlaskClient, token: str) -> None:
    form_token = log_in(guarded, token)
    assert guarded.post("/logout", data={"csrf_token": form_token}).status_code == 303
    assert guarded.get("/", headers=PAGE).location == "/login"


def test_who_knows_the_file_of_tokens_cannot_sign_a_login(
    make_app: Callable[..., Flask], tmp_path: Path, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token) + "\n", encoding="utf-8")
    first, second = (make_app(tokens_file=file) for _ in range(2))
    client = first.test_client()
    log_in(client, token)
    cookie = client.get_cookie("spinexr_session")
    assert cookie is not None
    elsewhere = second.test_client()
    elsewhere.set_cookie("spinexr_session", cookie.value)
    assert elsewhere.get("/", headers=PAGE).location == "/login"


def test_a_login_ends_when_the_file_of_tokens_changes(
    make_app: Callable[..., Flask], tmp_path: Path, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token) + "\n", encoding="utf-8")
    client = make_app(tokens_file=file).test_client()
    log_in(client, token)
    cookie = client.get_cookie("spinexr_session")
    assert cookie is not None
    assert cookie.http_only
    assert cookie.same_site == "Strict"
    file.write_text(tokens.line("bob", tokens.new()) + "\n", encoding="utf-8")
    later = make_app(tokens_file=file).test_client()
    later.set_cookie("spinexr_session", cookie.value)
    assert later.get("/", headers=PAGE).location == "/login"


def test_the_page_of_an_open_server_says_so(make_app: Callable[..., Flask]) -> None:
    warning = "asks nobody who they are"
    assert warning not in make_app().test_client().get("/").text
    assert warning in make_app(host="0.0.0.0", insecure=True).test_client().get("/").text


def test_an_address_may_ask_only_so_often(make_app: Callable[..., Flask]) -> None:
    client = make_app(rate_limit="2 per hour").test_client()
    assert [upload(client, JSON).status_code for _ in range(2)] == [200, 200]
    refused = upload(client, JSON)
    assert problem(refused) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) > 0
    assert client.post("/samples/lumbar-normal", headers=JSON).status_code == 429
    assert client.get("/health").status_code == 200


def test_tokens_are_not_guessed_at_any_rate(guarded: FlaskClient) -> None:
    tried = [guarded.post("/login", data={"token": "x"}).status_code for _ in range(21)]
    assert tried == [401] * 20 + [429]


def test_only_proxies_that_are_known_say_who_asks(make_app: Callable[..., Flask]) -> None:
    for proxies, expected in ((0, 429), (1, 200)):
        client = make_app(rate_limit="1 per hour", proxies=proxies).test_client()
        upload(client, JSON | {"X-Forwarded-For": "198.51.100.1"})
        second = upload(client, JSON | {"X-Forwarded-For": "198.51.100.2"})
        assert second.status_code == expected


@pytest.mark.parametrize("text", ["", "# nobody\n", "ann secret-token\n", "a b c\n", "\xff"])
def test_a_file_of_tokens_that_holds_none_is_refused_without_quoting_it(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError) as caught:
        tokens.read(file)
    assert "secret-token" not in caught.value.message


def test_a_missing_file_of_tokens_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing-here"):
        tokens.read(tmp_path / "nothing-here")


def test_the_command_makes_a_token_that_the_server_knows(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    made = CliRunner().invoke(main, ["token", "ann", "--file", str(file)])
    assert made.exit_code == 0
    assert file.stat().st_mode & 0o077 == 0
    assert tokens.read(file).owner(made.stdout.strip()) == "ann"
    assert made.stdout.strip() not in file.read_text(encoding="utf-8")


def test_the_command_refuses_a_name_that_would_be_two_words() -> None:
    refused = CliRunner().invoke(main, ["token", "a b"])
    assert refused.exit_code != 0
    assert "no name for a token" in refused.output


@pytest.mark.parametrize("asked", ["/spine/xr/", "/"])  # passed on as asked, or cut by the proxy
def test_below_a_path_every_address_of_the_page_leads_there(
    make_app: Callable[..., Flask], asked: str
) -> None:
    client = make_app(root_path="/spine/xr").test_client()
    page = client.get(asked).text
    addresses = re.findall(r'(?:href|src|action|data-[a-z]+)="(/[^"]*)"', page)
    assert len(addresses) > 5
    assert all(a.startswith("/spine/xr/") for a in addresses), addresses
    assert client.post("/spine/xr/samples/lumbar-normal", headers=JSON).status_code == 200


def test_a_proxy_that_is_known_may_name_the_path(make_app: Callable[..., Flask]) -> None:
    client = make_app(proxies=1).test_client()
    page = client.get("/", headers={"X-Forwarded-Prefix": "/spine"}).text
    assert 'action="/spine/upload"' in page


def test_without_a_known_proxy_no_forwarded_header_is_believed(
    make_app: Callable[..., Flask], tmp_path: Path, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token), encoding="utf-8")
    forwarded = {
        "X-Forwarded-Prefix": "/elsewhere",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
    }
    client = make_app(tokens_file=file).test_client()
    login = client.get("/login", headers=forwarded)
    assert "elsewhere" not in login.text
    assert "evil.example" not in login.text
    answer = client.post("/login", data={"token": token}, headers=forwarded)
    assert answer.headers["Location"] == "/"
    assert "Secure" not in answer.headers["Set-Cookie"]


def test_a_clock_in_the_past_changes_no_answer(
    make_app: Callable[..., Flask], tmp_path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token), encoding="utf-8")
    client = make_app(tokens_file=file).test_client()
    today = upload(client, JSON | {"Authorization": f"Bearer {token}"}).get_json()
    monkeypatch.setattr("time.time", lambda: 86_400.0)  # the second of January 1970
    then = upload(client, JSON | {"Authorization": f"Bearer {token}"}).get_json()
    assert then["probability"] == today["probability"]
    assert client.post("/login", data={"token": token}).status_code == 303
    assert client.get("/").status_code == 200


def test_over_tls_the_login_stays_there(
    make_app: Callable[..., Flask], tmp_path: Path, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token), encoding="utf-8")
    client = make_app(tokens_file=file, proxies=1).test_client()
    for scheme in ("http", "https"):
        response = client.post(
            "/login", data={"token": token}, headers={"X-Forwarded-Proto": scheme}
        )
        assert ("Secure" in response.headers["Set-Cookie"]) is (scheme == "https")


def test_an_allowed_origin_may_ask_whether_it_may_send_a_token(
    make_app: Callable[..., Flask], tmp_path: Path, token: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens.line("ann", token), encoding="utf-8")
    client = make_app(tokens_file=file, cors_origins=("https://a.example",)).test_client()
    headers = {"Origin": "https://a.example", "Access-Control-Request-Headers": "authorization"}
    response = client.options("/upload", headers=headers)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Headers"] == "Authorization"
