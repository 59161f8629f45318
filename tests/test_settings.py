from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from spinexr.errors import ConfigurationError
from spinexr.settings import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_env({"PORT": "", "SPINEXR_DEVICE": " "}) == Settings()


def test_variables_of_other_programs_are_ignored() -> None:
    assert Settings.from_env({"PATH": "/bin", "HOME": "/"}) == Settings()


def test_every_setting_is_read_from_its_variable() -> None:
    settings = Settings.from_env(
        {
            "SPINEXR_WEIGHTS": "/weights",
            "SPINEXR_UPLOADS": "/spool",
            "SPINEXR_HOST": "0.0.0.0",
            "PORT": "8080",
            "SPINEXR_MAX_UPLOAD_MB": "32",
            "SPINEXR_MAX_MEGAPIXELS": "10",
            "SPINEXR_DETECT": "always",
            "SPINEXR_DEVICE": "cpu",
            "SPINEXR_INFERENCE_THREADS": "2",
            "SPINEXR_QUEUE": "3",
            "SPINEXR_WEB_THREADS": "4",
            "SPINEXR_GRACEFUL_TIMEOUT_S": "5",
            "SPINEXR_CORS_ORIGINS": "https://a.example, http://b.example:8000/",
            "SPINEXR_LOG_LEVEL": "DEBUG",
            "SPINEXR_UPLOAD_TIMEOUT_S": "30",
            "SPINEXR_REQUEST_TIMEOUT_S": "20",
            "SPINEXR_RATE_LIMIT": "10 per Second",
            "SPINEXR_TOKENS_FILE": "/tokens",
            "SPINEXR_INSECURE": "1",
            "SPINEXR_SHOW_PATIENT": "1",
            "SPINEXR_PROXIES": "1",
            "SPINEXR_ROOT_PATH": "/spine/xr",
            "SPINEXR_TRUSTED_HOSTS": "Reader.example, .clinic.example",
            "SPINEXR_LOG_FORMAT": "json",
            "SPINEXR_AUDIT_FILE": "/audit.log",
        }
    )
    assert settings == Settings(
        weights=Path("/weights"),
        uploads=Path("/spool"),
        host="0.0.0.0",
        port=8080,
        max_upload_mb=32,
        max_megapixels=10,
        detect="always",
        device="cpu",
        inference_threads=2,
        queue=3,
        web_threads=4,
        graceful_timeout_s=5,
        cors_origins=("https://a.example", "http://b.example:8000"),
        log_level="debug",
        upload_timeout_s=30,
        request_timeout_s=20,
        rate_limit="10 per second",
        tokens_file=Path("/tokens"),
        insecure=True,
        show_patient=True,
        proxies=1,
        root_path="/spine/xr",
        trusted_hosts=("reader.example", ".clinic.example"),
        log_format="json",
        audit_file=Path("/audit.log"),
    )


def test_the_environment_written_back_reads_as_the_same_settings() -> None:
    settings = replace(Settings(), port=8080, cors_origins=("https://a.example",), detect="always")
    assert Settings.from_env(settings.to_env()) == settings
    assert Settings.from_env(Settings().to_env()) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("SPINEXR_MAX_UPLOAD_MB", "-1"),
        ("SPINEXR_MAX_UPLOAD_MB", "16MB"),
        ("SPINEXR_DETECT", "sometimes"),
        ("SPINEXR_DEVICE", "gpu"),
        ("SPINEXR_QUEUE", "0"),
        ("SPINEXR_HOST", "a b"),
        ("SPINEXR_CORS_ORIGINS", "*"),
        ("SPINEXR_INSECURE", "yes"),
        ("SPINEXR_RATE_LIMIT", "many"),
        ("SPINEXR_ROOT_PATH", "/spine/"),
        ("SPINEXR_ROOT_PATH", "spine"),
        ("SPINEXR_RATE_LIMIT", "0 per minute"),
        ("SPINEXR_TRUSTED_HOSTS", "https://reader.example"),
        ("SPINEXR_CORS_ORIGINS", "https://a.example/path"),
        ("SPINEXR_LOG_LEVEL", "loud"),
    ],
)
def test_a_nonsensical_value_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as e:
        Settings.from_env({variable: value})
    assert variable in e.value.message
    assert value in e.value.message


def test_more_places_than_threads_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="SPINEXR_WEB_THREADS=4 must be more"):
        Settings.from_env({"SPINEXR_QUEUE": "4", "SPINEXR_WEB_THREADS": "4"})


def test_a_misspelt_setting_is_refused_with_the_right_spelling() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean SPINEXR_WEIGHTS"):
        Settings.from_env({"SPINEXR_WEIGTHS": "/weights"})
