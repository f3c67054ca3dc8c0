"""What a service's OpenAPI document says of keys."""

import pytest

import bentotool


@pytest.mark.parametrize(
    ("options", "asks"), [({}, False), ({"http": {"api_keys": {"env": "KEYS", "header": "X-Mine"}}}, True)]
)
def test_keys(options, asks, require_package):
    @bentotool.service(path_prefix="/v1", **options)
    class Guarded:
        @bentotool.api
        def call(self, x: int) -> int:
            return x

        @bentotool.task
        def later(self) -> None:
            pass

    document = Guarded.openapi()
    assert ("security" in document) is asks
    if asks:
        assert document["components"]["securitySchemes"]["HeaderKey"]["name"] == "x-mine"
        assert document["paths"]["/v1/readyz"]["get"]["security"] == []
    for path in ("/v1/call", "/v1/later/submit"):
        assert ("401" in document["paths"][path]["post"]["responses"]) is asks
    require_package("openapi_spec_validator")
    from openapi_spec_validator import validate

    validate(document)


def test_a_question_of_the_services_own():
    @bentotool.service
    class Asking:
        def __authenticate__(self, request):
            return True

        @bentotool.api
        def call(self, x: int) -> int:
            return x

    assert "401" in Asking.openapi()["paths"]["/call"]["post"]["responses"]
