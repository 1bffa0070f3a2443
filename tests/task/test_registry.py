"""Which task a name or a model means, and which options a task has."""

import pytest

from madtp.data.load import TASKS
from madtp.errors import InputError
from madtp.task.registry import make_task, task_class, task_name
from small import KINDS, nano, nano_processor, nano_task


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_knows_its_task(kind: str) -> None:
    assert task_name(nano(kind)) == nano_task(kind).name == ("retrieval" if kind == "clip" else kind)


@pytest.mark.parametrize("name", TASKS)
def test_options_that_are_not_given_are_left_to_the_task(name: str) -> None:
    task = make_task(name, nano_processor(name), inference=None, prompt=None, k_test=None)
    assert task.settings() == task_class(name)(nano_processor(name)).settings()
    assert make_task(name, nano_processor(name)).options <= {*task.__dict__}, "every option is kept by its name"


def test_options_reach_the_task() -> None:
    assert nano_task("caption", beams=1, prompt="there is").prompt == "there is"
    assert nano_task("retrieval", k_test=7).k_test == 7
    assert nano_task("vqa", inference="rank").inference == "rank"


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("vqa", {"k_test": 7}, r"--task vqa: --k-test is nothing for vqa; leave it out"),
        ("reasoning", {"prompt": "a"}, r"--task reasoning: --prompt is nothing for reasoning; leave it out"),
        ("caption", {"momentum": 0.9, "queue": 3}, r"--momentum, --queue is nothing for caption"),
        ("retrieval", {"beams": 3}, r"--beams is nothing for retrieval"),
    ],
)
def test_options_of_other_tasks_are_refused(name: str, option: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_task(name, nano_processor(name), **option)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InputError, match=r"--task: unknown task 'segmentation'; use one of vqa, reasoning"):
        task_class("segmentation")


def test_a_model_of_another_library_is_refused() -> None:
    with pytest.raises(InputError, match="a Tokenizer are unknown"):
        task_name(type("Tokenizer", (), {})())
