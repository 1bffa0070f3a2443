"""Data sets as pictures with questions. Knows no model."""

from madtp.data.images import ImageFile, ImageSource
from madtp.data.sample import SPLITS, Question, VqaData, VqaSample, load_vqa

__all__ = ["SPLITS", "ImageFile", "ImageSource", "Question", "VqaData", "VqaSample", "load_vqa"]
