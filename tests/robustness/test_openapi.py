"""The API answers what its document says, whatever is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis")  # requirements-dev.txt

import requests  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

from spinexr import tokens  # noqa: E402
from tests import builders, scale  # noqa: E402
from tests.processes import ROOT  # noqa: E402
from tests.robustness.service import Service, running  # noqa: E402

DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
# A server without tokens has no routes for them.
_OF_TOKENS = ("/login", "/logout")


def part(*, of_tokens: bool) -> Any:
    """The document of some of the routes."""
    paths = {p: v for p, v in DOCUMENT["paths"].items() if (p in _OF_TOKENS) is of_tokens}
    return schemathesis.openapi.from_dict({**DOCUMENT, "paths": paths})


schema, of_tokens = part(of_tokens=False), part(of_tokens=True)
fuzzed = settings(
    max_examples=scale.pick(15, 500), deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def guarded(small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that wants tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "tokens"
    file.write_text(tokens.line("ann", tokens.new()), encoding="utf-8")
    with running(small_weights, folder, SPINEXR_TOKENS_FILE=str(file)) as service:
        yield service


@schema.parametrize()  # type: ignore[untyped-decorator]
@fuzzed
def test_every_route_answers_as_its_document_says(service: Service, case: Any) -> None:
    """Seen failing where an error has another shape than its document says (tools/weaken.py)."""
    # Bytes that a schema allows may still be no radiograph.
    case.call_and_validate(base_url=service.url, excluded_checks=[positive_data_acceptance])


@of_tokens.parametrize()  # type: ignore[untyped-decorator]
@fuzzed
def test_routes_of_the_login_answer_as_their_document_says(guarded: Service, case: Any) -> None:
    """Seen failing where a wrong token is answered otherwise than documented (tools/weaken.py)."""
    # What a schema allows may still be no token.
    case.call_and_validate(base_url=guarded.url, excluded_checks=[positive_data_acceptance])


@pytest.mark.parametrize(
    "wanted",
    DOCUMENT["paths"]["/upload"]["post"]["responses"]["200"]["content"],
)
def test_every_form_of_a_result_is_as_its_document_says(service: Service, wanted: str) -> None:
    """Seen failing where a result has another form than its document says (tools/weaken.py)."""
    form = {"file": ("a.dcm", builders.dicom())}
    answer = requests.post(
        f"{service.url}/upload", files=form, headers={"Accept": wanted}, timeout=60
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(wanted)
    schema["/upload"]["POST"].validate_response(answer)
