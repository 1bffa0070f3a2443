"""The server asked whatever its own OpenAPI page allows, and what it does not: it answers as the page says."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from madtp.serve.app import build_app
from madtp.serve.limits import Limits
from pipelines.stock import pictures
from serve.served import engine, png
from small import KINDS

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The application on a free port of loopback; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "most"),
    [("vqa", 7), ("clip", 5), *(pytest.param(kind, 100, marks=pytest.mark.slow) for kind in KINDS)],
)
def test_it_answers_as_its_page_says(kind: str, most: int) -> None:
    app = build_app(engine(kind), kind, limits=Limits(pixels=10_000))
    schema = schemathesis.openapi.from_dict(app.app.openapi())
    seen: Counter[int] = Counter()
    with listening(app) as address, requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path == "/metrics":
                continue
            modes = st.sampled_from(list(schemathesis.GenerationMode)).flatmap(
                lambda mode, operation=operation: operation.as_strategy(generation_mode=mode)
            )

            @settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=modes, number=st.integers(0, 9))
            def ask(case: Any, number: int) -> None:
                if (
                    number < 5 and isinstance(case.body, dict) and case.body.get("image")
                ):  # else hardly one is a picture
                    one = png(pictures()[number])
                    case.body["image"] = [one] if isinstance(case.body["image"], list) else one
                response = case.call(base_url=address, session=session)
                seen[response.status_code] += 1
                case.validate_response(response, checks=CHECKS)

            ask()
    assert seen[200] and seen[422], seen
