from __future__ import annotations

from collections.abc import Callable
from gettext import GNUTranslations
from string import Formatter

import pytest
from babel.messages.catalog import Message
from flask import Flask
from flask.testing import FlaskClient

from spinexr.errors import BatchError, SpineXRError, TrainingError, all_error_classes
from spinexr.web import texts
from spinexr.web.errors import NEVER_ANSWERED
from spinexr.web.language import LANGUAGES
from tests.web.test_upload import PAGE, post
from tools import translations

OTHERS = [code for code in LANGUAGES if code != "en"]


@pytest.mark.parametrize("code", OTHERS)
def test_every_text_of_the_page_is_translated_and_compiled(code: str) -> None:
    wanted = {m.id for m in translations.collected() if m.id}
    catalog = translations.read(code)
    assert {m.id for m in catalog if m.id} == wanted, "run python -m tools.translations"
    with translations.po_file(code).with_suffix(".mo").open("rb") as stream:
        compiled = GNUTranslations(stream)
    for message in catalog:
        if message.id:
            assert all(strings(message)), message.id
            assert not message.fuzzy, message.id
            one, *several = [message.id] if isinstance(message.id, str) else message.id
            found = compiled.ngettext(one, several[0], 2) if several else compiled.gettext(one)
            assert found in strings(message), "run python -m tools.translations"


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_fills_in_what_the_text_does(code: str) -> None:
    for message in translations.read(code):
        if message.id:
            text = message.id if isinstance(message.id, str) else message.id[-1]
            for string in strings(message):
                assert placeholders(string) == placeholders(text), text


def strings(message: Message) -> list[str]:
    """All plural forms of a translation."""
    found = message.string
    return [found] if isinstance(found, str) else [str(f) for f in found or ()]


def placeholders(text: str) -> set[str]:
    percent = {part.split(")")[0] for part in text.split("%(")[1:]}
    return percent | {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_refusal_says_what_to_do_in_the_page_s_language(
    make_app: Callable[..., Flask],
) -> None:
    answered = {
        cls.code
        for cls in all_error_classes()
        if cls is not SpineXRError
        and not issubclass(cls, (*NEVER_ANSWERED, TrainingError, BatchError))
    }
    app = make_app()
    with app.test_request_context(headers={"Accept-Language": "vi"}):
        said = texts.what_to_do()
    with app.test_request_context(headers={"Accept-Language": "en"}):
        english = texts.what_to_do()
    assert said.keys() == english.keys() == answered | {"internal_error"}
    assert [code for code in said if said[code] == english[code]] == []


def test_the_browser_s_language_is_followed_and_a_choice_goes_before_it(
    client: FlaskClient,
) -> None:
    assert '<html lang="en">' in client.get("/").text
    page = client.get("/", headers={"Accept-Language": "vi-VN,vi;q=0.9,en;q=0.5"}).text
    assert '<html lang="vi">' in page
    assert "Phân tích phim X-quang cột sống" in page
    assert '<html lang="en">' in client.get("/", headers={"Accept-Language": "fr"}).text
    chosen = client.get("/language/vi")
    assert chosen.status_code == 303
    assert "Phân tích phim" in client.get("/", headers={"Accept-Language": "en"}).text
    assert client.get("/language/xx").status_code == 404


def test_a_result_is_told_in_the_chosen_language_and_documents_stay_english(
    client: FlaskClient,
) -> None:
    client.get("/language/vi")
    page = post(client, headers=PAGE).text
    assert "Bất thường, 0.881 (ngưỡng 0.449): một tổn thương chắc chắn, một chưa chắc." in page
    assert "Gai xương" in page
    assert "Trọng số chưa huấn luyện" in page
    assert post(client).get_json()["bundle"]["caveat"].startswith("Untrained weights")


def test_what_is_not_translated_is_marked_as_english(client: FlaskClient) -> None:
    client.get("/language/vi")
    page = post(client, b"nothing", headers=PAGE).text
    assert "<h1>Đây không phải tệp DICOM</h1>" in page
    assert '<p lang="en">' in page
    assert "Hãy xuất ảnh dưới dạng DICOM" in page
    client.get("/language/en")
    assert ' lang="en">' not in post(client, b"nothing", headers=PAGE).text.split("<main")[1]
