"""The node's file: what it may say, and that everything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinexr.domain import ObjectKind
from spinexr.errors import ConfigurationError
from spinexr.node.configuration import Tls, read

LEAST = """
callers = ["CR1"]
[[destinations]]
name = "pacs"
address = "dicom://PACS@127.0.0.1:4242"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_least_that_a_file_says(tmp_path: Path) -> None:
    found = read(written(tmp_path, LEAST))
    (pacs,) = found.destinations
    assert found.callers == ("CR1",)
    assert found.tls is None
    assert not found.asks_for_certificates
    assert (pacs.ae_title, pacs.host, pacs.port) == ("PACS", "127.0.0.1", 4242)
    assert pacs.objects == tuple(ObjectKind)
    assert pacs.wants(modality="DX", body_part="", caller="CR1")


def test_everything_that_a_file_can_say(tmp_path: Path) -> None:
    for name in ("node.crt", "node.key", "ca.crt", "secret"):
        (tmp_path / name).write_text("s3cret\n")
    found = read(
        written(
            tmp_path,
            """
            callers = ["CR1", "DX ROOM 2"]
            drop = ["other_body_part", "unsupported_modality"]
            [tls]
            certificate = "node.crt"
            key = "node.key"
            clients = "ca.crt"
            [[destinations]]
            name = "pacs"
            address = "dicoms://PACS@[::1]:2762"
            objects = ["report"]
            modalities = ["dx"]
            body_parts = ["LSPINE", "SPINE"]
            callers = ["DX ROOM 2"]
            timeout_s = 5
            attempts = 7
            authority = "ca.crt"
            [[destinations]]
            name = "research"
            address = "https://research.example:8443/dicom-web/"
            user = "spx"
            password_file = "secret"
            deidentify = true
            """,
        )
    )
    pacs, research = found.destinations
    assert found.dropped == {"other_body_part", "unsupported_modality"}
    assert found.asks_for_certificates
    assert found.tls == Tls(tmp_path / "node.crt", tmp_path / "node.key", tmp_path / "ca.crt")
    assert (pacs.host, pacs.timeout_s, pacs.attempts) == ("::1", 5, 7)
    assert pacs.wants(modality=" DX", body_part="spine", caller="DX ROOM 2")
    assert not pacs.wants(modality="CR", body_part="SPINE", caller="DX ROOM 2")
    assert not pacs.wants(modality="DX", body_part="", caller="DX ROOM 2")
    assert not pacs.wants(modality="DX", body_part="SPINE", caller="CR1")
    assert research.url == "https://research.example:8443/dicom-web"
    assert research.objects == (ObjectKind.REPORT, ObjectKind.PRESENTATION)
    assert (research.user, research.secret) == ("spx", "s3cret")
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("callers = [", "not TOML"),
        (LEAST.replace('["CR1"]', "[]"), "callers: must name"),
        (LEAST.replace('["CR1"]', '"CR1"'), "callers: must be a list"),
        (LEAST.replace("CR1", "A" * 17), "no AE title"),
        ('callers = ["CR1"]', "destinations: must have"),
        ("drop = ['nonsense']\n" + LEAST, "not an error code"),
        ("colour = 1\n" + LEAST, "colour: is not known"),
        (LEAST + "colour = 1", "destinations 1: colour: is not known"),
        (LEAST + LEAST.split("\n", 2)[2], "two have the name 'pacs'"),
        (LEAST.replace('"pacs"', '"a b"'), "name: must have"),
        (LEAST.replace("dicom://PACS@127.0.0.1:4242", "pacs:4242"), "must look like dicom://"),
        (LEAST.replace("dicom://PACS@", "dicom://"), "must look like dicom://"),
        (LEAST.replace(":4242", ""), "must look like dicom://"),
        (LEAST.replace(":4242", ":70000"), "is no address"),
        (LEAST.replace("dicom://PACS@", "http://a:b@"), "must hold no password"),
        (LEAST.replace("dicom://PACS@", "http://a@"), "must hold no user"),
        (LEAST.replace("dicom:", "ftp:"), "must look like"),
        (LEAST + 'callers = ["CR2"]', "destinations 1: callers: 'CR2' is not among"),
        (LEAST + 'objects = ["pdf"]', "'pdf' is not one of"),
        (LEAST + 'deidentify = "yes"', "must be true or false"),
        (LEAST + 'deidentify = true\nobjects = ["picture"]', "never de-identified"),
        (LEAST + "timeout_s = 0", "from 1 to 3600"),
        (LEAST + "attempts = 1.5", "whole number"),
        (LEAST + 'token_file = "nowhere"', "cannot be read"),
        (LEAST + 'token_file = "node.toml"', "must hold one line"),
        (LEAST + 'user = "a"', "goes with user"),
        (LEAST + 'password_file = "node.toml"', "must hold one line"),
        (LEAST + 'authority = "node.toml"', "certificates are for"),
        (LEAST + "[tls]", "certificate: is needed"),
        ("tls = 1\n" + LEAST, "tls: must be a table"),
        ('callers = ["A"]\ndestinations = 3', "destinations: must be tables"),
    ],
)
def test_what_is_not_valid_is_said(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(written(tmp_path, text))
    assert why in caught.value.message
    assert "node.toml" in caught.value.message


def test_a_login_in_the_clear_of_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ConfigurationError, match="logins are for http"):
        read(written(tmp_path, LEAST + 'token_file = "secret"'))


def test_without_a_file_it_says_where_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SPINEXR_NODE_CONFIG"):
        read(None)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(tmp_path / "nowhere.toml")
