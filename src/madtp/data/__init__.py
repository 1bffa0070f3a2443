"""Data sets as pictures with texts: questions, statements about two pictures, captions. Knows no model."""

from madtp.data.images import ImageFile, ImageSource
from madtp.data.load import TASKS, load_data
from madtp.data.sample import SPLITS, CaptionSample, Data, PairSample, Question, Statement, VqaSample

__all__ = [
    "SPLITS",
    "TASKS",
    "CaptionSample",
    "Data",
    "ImageFile",
    "ImageSource",
    "PairSample",
    "Question",
    "Statement",
    "VqaSample",
    "load_data",
]
