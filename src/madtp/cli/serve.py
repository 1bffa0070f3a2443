"""`madtp serve`: a model behind HTTP."""

from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

MIB = 2**20


def serve(
    model: common.ModelOption,
    host: Annotated[
        str, typer.Option("--host", help="Address; any but this machine's own needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 = a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            "--token", envvar="MADTP_TOKEN", help="Asked of every request: Authorization: Bearer.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Measure the budgets of --reduction on it (val) at the start.", show_default=False),
    ] = None,
    reduction: Annotated[
        str | None,
        typer.Option(
            "--reduction", help="Budgets that requests may ask for, e.g. 0.3,0.5,0.8; needs --data.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images of --data to measure on.")] = 64,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Texts or pictures that run together.")] = 32,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Requests at once; beyond, 503 with Retry-After.")] = 64,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="MiB of a request.")] = 16,
    max_pixels: Annotated[float, typer.Option("--max-pixels", min=0.001, help="Millions of pixels of a picture.")] = 16,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds until a request is given up.")] = 30,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads on the CPU; default: torch's.", show_default=False)
    ] = None,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    as_json: common.JsonOption = False,
) -> None:
    """Serve a model on this machine: /v1/..., its OpenAPI page at /docs, /health and /metrics. SIGTERM stops it."""
    from madtp.cli.compress import parse_budgets

    try:
        from madtp.serve.app import PATHS, build_app
        from madtp.serve.run import LOOPBACK, bind, run
    except ImportError as error:
        said = f"the server needs a package that is not there: {error.name}"
        raise InputError(said, fix='pip install "madtp[serve]"') from error
    from madtp.data.load import load_data
    from madtp.serve.engine import Engine, measure
    from madtp.serve.limits import Limits

    if host not in LOOPBACK and not token:
        raise InputError("is open to other machines", f"--host {host}", "set --token, or MADTP_TOKEN")
    if token is not None and (not token.strip() or not token.isascii()):
        raise InputError("is empty, or not ASCII", "--token", "use a long random word")
    if (data is None) != (reduction is None):
        raise InputError("go together", "--data and --reduction", "give both or neither")
    reductions = [] if reduction is None else [budget for budget in parse_budgets(reduction) if budget]
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    network, processor = common.load_model(model, device, dtype)
    task = common.task_of(network, None, model)
    with bind(host, port) as listening:
        budgets: list[Any] = []
        if data is not None:
            budgets = measure(network, processor, load_data(task, data, "val", limit=limit), reductions, batch_size)
        limits = Limits(body=max_body * MIB, pixels=int(max_pixels * 1e6), queue=queue, seconds=timeout)
        engine = Engine(network, processor, budgets)
        app = build_app(engine, common.resolved(model), limits=limits, token=token, batch_size=batch_size)
        address = listening.getsockname()
        url = f"http://{f'[{host}]' if ':' in host else host}:{address[1]}"
        known = [{"reduction": one.reduction, "temperature": one.pruning.temperature} for one in engine.budgets]
        result = {"task": task, "url": url, "paths": list(PATHS[task]), "budgets": known}
        run(app, listening, limits, lambda: _tell(result, as_json))


def _tell(result: dict[str, Any], as_json: bool) -> None:
    """Once requests are taken."""
    import sys

    common.emit(result, as_json, f"{result['task']} at {result['url']}  (page: {result['url']}/docs; Ctrl-C stops)")
    sys.stdout.flush()
