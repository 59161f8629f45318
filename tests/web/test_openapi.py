"""docs/openapi.json is what the application's routes are."""

from __future__ import annotations

import json

from jsonschema.validators import Draft202012Validator

from spinexr.errors import all_error_classes
from spinexr.web.errors import status_of
from tools import openapi


def test_the_document_is_in_step_with_the_routes() -> None:
    text = openapi.FILE.read_text(encoding="utf-8")
    assert text == openapi.as_text(), "run python -m tools.openapi"


def test_every_status_of_an_error_is_described_where_files_are_sent() -> None:
    document = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    described = document["paths"]["/upload"]["post"]["responses"]
    for cls in all_error_classes():
        assert str(status_of(cls("")).value) in described, cls.code


def test_its_schemas_are_schemas() -> None:
    document = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
