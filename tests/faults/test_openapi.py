"""What the OpenAPI document says is true: statuses, content types and bodies, for good requests and for bad ones."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

ADMIN = {"ROUTER_ML_ADMIN_KEY": "sk-admin"}
BOTH = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
EXAMPLES = 25
# So that a tier is found often, instead of a 404.
MODELS = st.sampled_from(["auto", "small", "router-0.9", "nobody"])
TURN = {"messages": [{"role": "user", "content": "Hello"}]}
GOOD = [
    ("/v1/route", TURN),
    ("/v1/route", {"requests": [TURN, TURN]}),
    ("/v1/chat/completions", TURN),
    ("/v1/messages", {**TURN, "max_tokens": 9}),
    ("/v1/messages/count_tokens", TURN),
    ("/v1/responses", {"input": "Hello"}),
]
PATHS = [
    "POST /v1/route", "POST /v1/chat/completions", "POST /v1/messages", "POST /v1/messages/count_tokens",
    "POST /v1/responses", "POST /v1/feedback", "GET /v1/models", "GET /healthz", "GET /readyz", "GET /metrics",
    "GET /v1/policy", "GET /v1/stats", "POST /admin/reload", "POST /admin/rollback", "POST /admin/canary",
    "GET /admin/rollout", "GET /admin/switches",
]  # fmt: skip


@pytest.fixture(scope="module")
def service(start_service):
    return start_service(env=ADMIN)


@pytest.fixture(scope="module")
def document(service):
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.fixture(scope="module")
def operations(document):
    found = [result.ok() for result in document.get_all_operations()]
    return {f"{one.method.upper()} {one.path}": one for one in found}


def test_these_are_all_endpoints(operations):
    assert sorted(operations) == sorted(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_an_endpoint_answers_as_the_document_says(operations, path):
    operation = operations[path]
    modes = BOTH if operation.method == "post" and operation.body else BOTH[:1]
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))
    headers = {"authorization": "Bearer sk-admin"}

    @settings(
        max_examples=EXAMPLES if operation.body else 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, model=MODELS)
    def asks(case, model):
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = model
        response = case.call(headers=headers, timeout=20)
        case.validate_response(response, checks=CHECKS)

    asks()


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_method_is_refused_with_those_that_are_allowed(service, call, path):
    _, url = path.split()
    reply = call(f"{service.url}{url}", method="DELETE")
    assert reply.status == 405
    assert "DELETE is not allowed" in reply.json["error"]["message"]
    assert path.split()[0] in reply.headers["allow"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), GOOD)
def test_a_usual_request_is_answered_as_the_document_says(operations, path, body, stream):
    case = operations[f"POST {path}"].Case(body={**body, "stream": stream}, media_type="application/json")
    response = case.call(timeout=20)
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)


def test_nothing_of_it_surprised_the_service(service):
    log = service.process.log.read_text()
    assert "unexpected_error" not in log
    assert "Traceback" not in log
