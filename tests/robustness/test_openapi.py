"""The API answers what its document says, whatever is sent."""

from __future__ import annotations

import json

import pytest

schemathesis = pytest.importorskip("schemathesis")  # requirements-dev.txt

from hypothesis import HealthCheck, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from tests.processes import ROOT  # noqa: E402
from tests.robustness import scale  # noqa: E402
from tests.robustness.service import Service  # noqa: E402

DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
# Those that ask for tokens have no routes on a server without.
_OF_TOKENS = ("/login", "/logout")
for path in _OF_TOKENS:
    DOCUMENT["paths"].pop(path)
schema = schemathesis.openapi.from_dict(DOCUMENT)


@schema.parametrize()  # type: ignore[untyped-decorator]
@settings(
    max_examples=scale.pick(15, 500), deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_every_route_answers_as_its_document_says(service: Service, case: object) -> None:
    # Bytes that a schema allows may still be no radiograph.
    case.call_and_validate(  # type: ignore[attr-defined]
        base_url=service.url, excluded_checks=[positive_data_acceptance]
    )
