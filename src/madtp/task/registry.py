"""Which task a name or a model means."""

from typing import Any

from madtp.data.load import TASKS
from madtp.errors import InputError
from madtp.model.shape import kind_of, task_of
from madtp.task.base import Task


def task_name(model: Any) -> str:
    """The task that a model is made for."""
    return task_of(kind_of(model))


def make_task(name: str, processor: Any, **options: Any) -> Task:
    """The task of a name.

    Args:
        name: one of `madtp.data.TASKS`.
        processor: of the model.
        **options: the task's own (see its class); one that it does not have is refused unless it is None.

    Raises:
        InputError: unknown task, or an option that is not the task's.
    """
    cls = task_class(name)
    options = {key: value for key, value in options.items() if value is not None}
    if unknown := sorted(set(options) - cls.options):
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in unknown)
        raise InputError(f"{flags} is nothing for {name}", f"--task {name}", "leave it out")
    return cls(processor, **options)


def task_class(name: str) -> type[Task]:
    """The class of a task's name. Raises InputError if there is none."""
    if name == "vqa":
        from madtp.task.vqa import VqaTask

        return VqaTask
    if name == "reasoning":
        from madtp.task.reasoning import ReasoningTask

        return ReasoningTask
    if name == "caption":
        from madtp.task.caption import CaptionTask

        return CaptionTask
    if name == "retrieval":
        from madtp.task.retrieval import RetrievalTask

        return RetrievalTask
    raise InputError(f"unknown task {name!r}", "--task", f"use one of {', '.join(TASKS)}")
