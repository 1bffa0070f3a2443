"""`predict` of more than a question: both pictures of a statement are accounted for, each by itself."""

import json
from pathlib import Path

from cli.conftest import Run
from madtp.model.save import save_model
from small import nano, nano_task, samples


def test_each_of_two_pictures_has_its_own_tokens(madtp: Run, tmp_path: Path) -> None:
    save_model(nano("reasoning", temperature=3.0), nano_task("reasoning").processor, tmp_path / "model")
    pair = samples("reasoning", "val", 1)[0]
    files = [tmp_path / "left.png", tmp_path / "right.png"]
    for image, file in zip(pair.images, files, strict=True):
        image.open().save(file)
    command = ("predict", "--model", tmp_path / "model", "--text", pair.statements[0].text, "--json")

    def tokens(*images: Path) -> dict[str, list[int]]:
        ended = madtp(*command, *(word for image in images for word in ("--image", image)))
        assert ended.code == 0, ended
        found: dict[str, list[int]] = json.loads(ended.out)["tokens"]
        return found

    both, swapped = tokens(*files), tokens(*reversed(files))
    assert set(both) == {"vision", "vision_right", "text"}
    assert both["vision"] != both["vision_right"]
    assert (swapped["vision"], swapped["vision_right"]) == (both["vision_right"], both["vision"])
    assert tokens(files[0])["vision"] == both["vision"] and "vision_right" not in tokens(files[0])
