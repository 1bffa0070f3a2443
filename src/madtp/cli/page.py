"""`madtp demo --page`: a model in the hand, in the browser."""

from collections.abc import Sequence

from madtp.cli import common
from madtp.errors import InputError

IMAGES = 24  # that the curve is measured on
STEPS = 20  # at most, of the curve


def page(models: Sequence[str], bundled: str, data: str, port: int, device: str) -> None:
    """Load the models, measure their curves and serve the page until Ctrl-C.

    Args:
        models: folders or hub ids; none = the bundled one.
        bundled: its folder.
        data: what the curves are measured on.
        port: 0 = any free one.
        device: as of --device.

    Raises:
        InputError: gradio is missing, the port is taken, or a model cannot be shown.
    """
    from madtp.cli.common import load_data
    from madtp.page.explore import Explorer
    from madtp.page.serve import check_page, listen, serve
    from madtp.task.registry import task_name

    check_page()
    if not 0 <= port <= 65535:
        raise InputError(f"{port} is no port", "--port", "use a number up to 65535; 0 = any free one")
    with listen(port) as place:
        explorers = []
        for name in models or (bundled,):
            network, processor = common.load_model(name, device)
            work = common.make_task(task_name(network), processor)
            some = load_data(work.name, data, "val", limit=IMAGES)
            explorers.append(Explorer("bundled demo-vqa" if name == bundled else name, network, work, some))
        with common.progress("measuring what temperatures save", STEPS * len(explorers)) as advance:
            for explorer in explorers:
                points = explorer.measure(advance).points
                advance(max(0, STEPS - len(points)))
        serve(explorers, place, _say)


def _say(address: str) -> None:
    common.stdout.print(f"The page is at {address} (this machine only; Ctrl-C ends it)", markup=False, soft_wrap=True)
